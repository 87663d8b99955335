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
