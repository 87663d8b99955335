"""gymnax: classic control, MinAtar and bsuite written in JAX. Its step is our contract already."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from duologue.envs.base import AbstractJaxEnvs
from duologue.envs.spaces import convert
from duologue.errors import ConfigError, MissingExtraError, nearest
from duologue.types import Box, EnvSpec, Obs, PyTree, Step


class GymnaxEnvs(AbstractJaxEnvs):
    """`num_envs` environments of gymnax by name (`"CartPole-v1"`), with its own time limit or `max_episode_steps`."""

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
            raise ConfigError(f"gymnax has no environment {name!r}. {nearest(name, gymnax.registered_envs)}")
        self._env, params = gymnax.make(name)
        if max_episode_steps is not None:
            params = params.replace(max_steps_in_episode=max_episode_steps)
        self._params, self.num_envs = params, num_envs
        self.spec = EnvSpec(
            id=f"gymnax/{name}",
            observation=convert(self._env.observation_space(params), what="observation"),
            action=convert(self._env.action_space(params), what="action"),
            max_episode_steps=int(params.max_steps_in_episode),
        )

    def reset(self, key: Array) -> tuple[PyTree, Obs]:
        with _gymnax_rules():
            obs, state = jax.vmap(self._env.reset, (0, None))(jax.random.split(key, self.num_envs), self._params)
        return state, self._float(obs)

    def step(self, env_state: PyTree, action: Array, *, key: Array) -> tuple[PyTree, Step]:
        if isinstance(self.spec.action, Box) and self.spec.action.low is not None:
            action = jnp.clip(action, jnp.asarray(self.spec.action.low)[None], jnp.asarray(self.spec.action.high)[None])
        keys = jax.random.split(key, self.num_envs)
        with _gymnax_rules():
            step = jax.vmap(self._env.step, (0, 0, 0, None))
            obs, state, reward, terminated, truncated, info = step(keys, env_state, action, self._params)
        next_obs, reward = self._float(info["final_observation"]), jnp.asarray(reward, jnp.float32)
        return state, Step(self._float(obs), next_obs, reward, terminated, truncated, {})

    def _float(self, obs: Array) -> Array:
        return obs.astype(self.spec.observation.dtype) if isinstance(self.spec.observation, Box) else obs


class _gymnax_rules:
    """gymnax broadcasts and promotes freely; strict rules of the program around it do not hold inside."""

    def __enter__(self) -> None:
        self._contexts = jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard")
        for context in self._contexts:
            context.__enter__()

    def __exit__(self, *exception: Any) -> None:
        for context in reversed(self._contexts):
            context.__exit__(*exception)
