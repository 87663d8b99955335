"""Environments that do what a test needs."""

import gymnasium as gym
import numpy as np


class Scripted(gym.Env):
    """Observation = (episode count, steps made); ends as the script says; one array, written again at every step."""

    observation_space = gym.spaces.Box(-100.0, 1e6, (2,), np.float64)
    action_space = gym.spaces.Discrete(3, start=5)

    def __init__(self, script=((False, False),) * 2 + ((True, False),), fault=None):
        self.script, self.fault, self.seeds, self.actions = script, fault, [], []
        self._obs = np.zeros(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.seeds.append(seed)
        self.t = 0
        self._obs[:] = len(self.seeds), 0
        return self._obs, {}

    def step(self, action):
        self.actions.append(action)
        terminated, truncated = self.script[self.t]
        self.t += 1
        self._obs[:] = len(self.seeds), self.t
        if self.fault is not None and self.t == 2:
            return self.fault(self._obs)
        return self._obs, float(self.t), terminated, truncated, {}


class Noisy(Scripted):
    """Not a function of its seed."""

    def reset(self, *, seed=None, options=None):
        obs, info = super().reset(seed=seed)
        obs[0] = np.random.default_rng().random()
        return obs, info

    def step(self, action):
        first = self._obs[0]
        result = super().step(action)
        self._obs[0] = first
        return result


class Counting(gym.Env):
    """Frames and rewards that tell the environment's steps; episodes end at random, in either way. `drifts` makes what
    it shows depend on more than its seed."""

    observation_space, action_space = gym.spaces.Box(0, 255, (2, 2), np.uint8), gym.spaces.Box(-1, 1, (1,))

    def __init__(self, drifts=False):
        self.drifts = drifts

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.chance = np.random.default_rng() if self.drifts else self.np_random
        self.colour = self.chance.integers(256, size=2)
        return self._frame(), {}

    def step(self, action):
        self.colour = self.chance.integers(256, size=2)
        ended = self.np_random.random(2) < 0.03  # of more than one in eight, some are lost
        return self._frame(), float(self.chance.random()), bool(ended[0]), bool(ended[1] and not ended[0]), {}

    def _frame(self):
        return np.tile(self.colour.astype(np.uint8), (2, 1))
