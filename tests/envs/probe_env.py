"""A probe as one environment for Gymnasium."""

from typing import Any

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np

from duologue.envs.probe import OBSERVATION, find_probe


class ProbeEnv(gym.Env):
    """The probe `probe/NAME`, one environment."""

    observation_space = OBSERVATION

    def __init__(self, name: str):
        self._probe = find_probe(name)
        self.action_space = self._probe.action

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self._obs = self._probe.begin(jax.random.key(int(self.np_random.integers(2**31))))
        self._t = 0
        return self._seen(), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        reward, self._obs = self._probe.advance(self._obs, jnp.asarray(action), jnp.asarray(self._t))
        self._t += 1
        ended = self._t >= self._probe.steps
        return self._seen(), float(reward), ended and not self._probe.truncates, ended and self._probe.truncates, {}

    def _seen(self) -> np.ndarray:
        return np.asarray(self._obs, np.float32)[None]
