"""Environments of gymnax: classic control, MinAtar and bsuite, written in JAX."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from duologue.envs.base import AbstractJaxEnvs
from duologue.envs.spaces import bounds_of
from duologue.errors import ConfigError, MissingExtraError, suggestion
from duologue.types import Box, Discrete, EnvSpec, Obs, PyTree, Space, Step, bounded_actions


class GymnaxEnvs(AbstractJaxEnvs):
    """`num_envs` environments of gymnax by name (`"CartPole-v1"`), with its own time limit or `max_episode_steps`.

    Raises `ConfigError` for an unknown name or an action space that is not supported, `MissingExtraError` without
    gymnax.
    """

    spec: EnvSpec
    num_envs: int
    _env: Any
    _params: Any

    def __init__(self, name: str, num_envs: int, *, max_episode_steps: int | None = None):
        try:
            import gymnax
        except ImportError:
            raise MissingExtraError("gymnax", f"gymnax/{name}") from None
        if name not in gymnax.registered_envs:
            raise ConfigError(f"gymnax has no environment {name!r}. {suggestion(name, gymnax.registered_envs)}")
        with free_promotion():
            env, params = gymnax.make(name)
            if max_episode_steps is not None:
                params = params.replace(max_steps_in_episode=max_episode_steps)
            # The observation space that gymnax declares is not always that of its observations.
            obs = jax.eval_shape(lambda key: env.reset(key, params)[0], jax.random.key(0))
            action = convert_space(env.action_space(params), name)
            n = getattr(env.observation_space(params), "n", None)
        self._env, self._params, self.num_envs = env, params, num_envs
        limit = int(params.max_steps_in_episode)
        seen = Box(obs.shape, obs.dtype.name) if n is None or obs.shape else Discrete(int(n))
        self.spec = EnvSpec(f"gymnax/{name}", seen, action, max_episode_steps=limit)

    def reset(self, key: Key[Array, ""]) -> tuple[PyTree, Obs]:
        with free_promotion():
            obs, state = jax.vmap(self._env.reset, (0, None))(jax.random.split(key, self.num_envs), self._params)
        return state, obs

    def step(self, env_state: PyTree, action: Array, *, key: Key[Array, ""]) -> tuple[PyTree, Step]:
        keys, action = jax.random.split(key, self.num_envs), bounded_actions(self.spec.action, action)
        with free_promotion():
            step = jax.vmap(self._env.step, (0, 0, 0, None))
            obs, state, reward, terminated, truncated, info = step(keys, env_state, action, self._params)
        next_obs = info["final_observation"].astype(obs.dtype)
        numbers = {name: x.astype(jnp.float32) for name, x in info.items() if x.shape == (self.num_envs,)}
        return state, Step(obs, next_obs, reward.astype(jnp.float32), terminated, truncated, numbers)


def convert_space(space: Any, name: str) -> Space:
    """Our space for one of gymnax's classes or of Gymnasium's. Raises `ConfigError` for others."""
    if hasattr(space, "n"):
        return Discrete(int(space.n))
    if hasattr(space, "low") and np.issubdtype(np.dtype(space.dtype), np.floating):
        return Box(tuple(space.shape), "float32", *bounds_of(space.low, space.high, space.shape))
    raise ConfigError(f"The action space {space} of gymnax/{name} is not supported: it must be discrete or a real box.")


@contextmanager
def free_promotion() -> Iterator[None]:
    """Allow all promotions of ranks and dtypes: gymnax relies on them, and this library forbids them elsewhere."""
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield
