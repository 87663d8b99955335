"""Environments whose observations have a mask, or that give it elsewhere; a script says where it is bad."""

import gymnasium as gym
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from duologue.envs.base import AbstractHostEnvs, AbstractJaxEnvs
from duologue.types import ACTION_MASK, Box, Dict, Discrete, EnvSpec, MultiDiscrete, Step

LENGTH = 4
"""Steps of every episode."""


class Masked(gym.Env):
    """Allows all actions but the first of each component, except where `script[episode, steps]` has another mask."""

    def __init__(self, script=(), *, sizes=(3,), dtype=np.int8, ends="terminated"):
        count, self.script, self.ends, self.episode, self.played = sum(sizes), dict(script), ends, -1, []
        self.action_space = spaces.Discrete(*sizes, start=5) if len(sizes) == 1 else spaces.MultiDiscrete(sizes)
        mask = spaces.Box(-np.inf if dtype == np.float32 else -5, np.inf if dtype == np.float32 else 5, (count,), dtype)
        self.observation_space = spaces.Dict({"x": spaces.Box(-1, 1, (2,)), ACTION_MASK: mask})
        self.usual = np.ones(count, dtype)
        self.usual[np.cumsum((0, *sizes[:-1]))] = 0

    def _obs(self):
        mask = np.asarray(self.script.get((self.episode, self.t), self.usual), self.usual.dtype)
        return {"x": np.zeros(2, np.float32), ACTION_MASK: mask}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t, self.episode = 0, self.episode + 1
        return self._obs(), {}

    def step(self, action):
        self.played.append(np.copy(action))
        self.t += 1
        over = self.t == LENGTH
        return self._obs(), 1.0, over and self.ends == "terminated", over and self.ends == "truncated", {}


class Elsewhere(gym.Env):
    """Gives its masks in the `info`, by a method, or in both places, but not in its observations. `played` has the
    actions with the mask that held."""

    def __init__(self, mask, *, where="info", action=None, obs=None, last="same"):
        self.mask, self.where, self.last, self.played = mask, where, last, []
        self.action_space = spaces.Discrete(3) if action is None else action
        self.observation_space = spaces.Box(-1, 1, (2,)) if obs is None else obs
        if where != "info":
            self.action_masks = lambda: self.mask

    def _info(self):
        return {} if self.where == "method" else {ACTION_MASK: self.mask}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        self.t = 0
        return self.observation_space.sample(), self._info()

    def step(self, action):
        self.played.append(action)
        self.t += 1
        over = self.t == LENGTH
        info = {} if over and self.last != "same" else self._info()
        truncated = over and self.last == "truncated"
        return self.observation_space.sample(), 1.0, over and not truncated, truncated, info


class OwnAdapter(AbstractHostEnvs):
    """An adapter of a user's own, with one bad mask: of environment `i`, after `t` steps."""

    def __init__(self, num_envs, bad, i, t):
        self.num_envs, self.bad, self.at = num_envs, np.asarray(bad, np.float32), (i, t)
        self.spec = EnvSpec("own", Dict({"x": Box((2,)), ACTION_MASK: Box((3,))}), Discrete(3))

    def _obs(self):
        mask = np.tile(np.float32([0, 1, 1]), (self.num_envs, 1))
        if self.t == self.at[1]:
            mask[self.at[0]] = self.bad
        return {"x": np.zeros((self.num_envs, 2), np.float32), ACTION_MASK: mask}

    def reset(self):
        self.t = 0
        return self._obs()

    def step(self, action):
        self.t += 1
        over = np.full(self.num_envs, self.t % LENGTH == 0)
        return Step(self._obs(), self._obs(), np.ones(self.num_envs, np.float32), over, over & False, {})

    def snapshot(self):
        return {"t": np.int32(self.t)}

    def restore(self, snapshot):
        self.t = int(snapshot["t"])
        return self._obs(), None

    def close(self):
        pass


class MaskedInJax(AbstractJaxEnvs):
    """Environments in JAX. Environment `i` gives `bad` after `t` of its steps, or on the successor of each end
    (`i = None`)."""

    spec: EnvSpec
    num_envs: int
    bad: tuple
    i: int | None
    t: int

    def __init__(self, num_envs, bad=(0, 1, 1), i=None, t=-1, *, nvec=None):
        self.num_envs, self.bad, self.i, self.t = num_envs, bad, i, t
        action = Discrete(len(bad)) if nvec is None else MultiDiscrete(nvec)
        self.spec = EnvSpec("own", Dict({"x": Box((2,)), ACTION_MASK: Box((len(bad),))}), action)

    def _obs(self, steps, bad):
        usual = jnp.ones((self.num_envs, len(self.bad))).at[:, 0].set(0)
        mask = jnp.where(bad[:, None], jnp.broadcast_to(jnp.asarray(self.bad, jnp.float32), usual.shape), usual)
        return {"x": jnp.zeros((self.num_envs, 2)) + steps.astype(jnp.float32)[:, None], ACTION_MASK: mask}

    def _bad(self, steps):
        here = jnp.arange(self.num_envs) == (-1 if self.i is None else self.i)
        return here & (steps == self.t)

    def reset(self, key):
        steps = jnp.zeros(self.num_envs, jnp.int32)
        return steps, self._obs(steps, self._bad(steps))

    def step(self, env_state, action, *, key):
        steps = env_state + 1
        over = steps % LENGTH == 0
        obs = self._obs(steps, self._bad(steps))
        successor = self._obs(steps, over if self.i is None else self._bad(steps))
        return steps, Step(obs, successor, jnp.ones(self.num_envs), over, jnp.zeros_like(over), {})
