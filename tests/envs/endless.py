"""Environments whose episodes may have no end, and that count how many of them are open."""

import gymnasium as gym
import jax.numpy as jnp
import numpy as np

from duologue.envs.base import AbstractJaxEnvs
from duologue.types import Box, Discrete, EnvSpec, Step


class Endless(gym.Env):
    """Observation [step]; step t pays t × `scale`. It terminates, or is truncated, after `length` steps; never for
    `None`."""

    observation_space, action_space = gym.spaces.Box(0, np.inf, (1,)), gym.spaces.Discrete(50)

    def __init__(self, length=None, *, scale=1.0, truncates=False):
        self.length, self.scale, self.truncates = length, scale, truncates
        self.seeds, self.actions = [], []

    def reset(self, *, seed=None, options=None):
        self.seeds.append(seed)
        self.t = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.t += 1
        self.actions.append(int(action))
        over = self.t == self.length
        flags = (False, over) if self.truncates else (over, False)
        return np.full(1, self.t, np.float32), self.scale * self.t, *flags, {}


class Door:
    """Makes environments of which at most `most` can be open at once; `peak` is the largest number so far."""

    def __init__(self, most=1000, **how):
        self.most, self.how, self.open, self.peak, self.made = most, how, 0, 0, 0

    def __call__(self):
        if self.open == self.most:
            raise RuntimeError("port 5005 is in use")
        self.open, self.made = self.open + 1, self.made + 1
        self.peak = max(self.peak, self.open)
        door = self

        class Behind(Endless):
            def close(self):
                door.open -= 1

        return Behind(**self.how)


class Clocks(AbstractJaxEnvs):
    """In JAX: environment i terminates after i + 1 steps, the last one never. Step t pays t."""

    num_envs: int
    spec: EnvSpec = EnvSpec("clocks", Box((1,), "float32"), Discrete(50))

    def __init__(self, num_envs):
        self.num_envs = num_envs

    def reset(self, key):
        return jnp.zeros(self.num_envs, jnp.int32), jnp.zeros((self.num_envs, 1))

    def step(self, env_state, action, *, key):
        t, i = env_state + 1, jnp.arange(self.num_envs)
        over = (t == i + 1) & (i < self.num_envs - 1)
        obs = t.astype(jnp.float32)[:, None]
        return jnp.where(over, 0, t), Step(obs, obs, obs[:, 0], over, jnp.zeros_like(over), {})
