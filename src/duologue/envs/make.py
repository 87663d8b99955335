"""Adapters of environments, made from an id, a callable, or an adapter of your own."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import gymnasium as gym
import jax
import jax.numpy as jnp
from jaxtyping import Array

from duologue.envs.base import REPLAY_LIMIT, open_all
from duologue.envs.base import AbstractHostEnvs as AbstractHostEnvs
from duologue.envs.base import AbstractJaxEnvs as AbstractJaxEnvs
from duologue.envs.gymnasium import EnvId
from duologue.envs.journaled import Restarts
from duologue.envs.many_seeds import SeedEnvs
from duologue.envs.tasks import EnvWithTasks, strip_tasks
from duologue.errors import ConfigError
from duologue.types import action_type

JAX_PREFIXES, PLANNED_PREFIXES = ("gymnax", "probe"), ("brax", "playground", "envpool")
"""Prefixes of ids of environments written in JAX, and of backends that are not built yet."""


Source: TypeAlias = str | Callable[[], gym.Env] | AbstractHostEnvs | AbstractJaxEnvs | EnvWithTasks
"""An id, a callable that returns a Gymnasium environment, or an adapter; or one of these with tasks."""


def is_compiled(env: Source) -> bool:
    """Whether an environment is written in JAX, so that the compiled loop runs it."""
    env = strip_tasks(env)
    return env.partition("/")[0] in JAX_PREFIXES if isinstance(env, str) else isinstance(env, AbstractJaxEnvs)


def find_adapter(env: Any) -> AbstractHostEnvs | AbstractJaxEnvs | None:
    """The adapter that a user passes, with or without tasks; `None` for an id or a callable."""
    adapter = strip_tasks(env)
    return adapter if isinstance(adapter, AbstractHostEnvs | AbstractJaxEnvs) else None


def with_kwargs(env: Source, env_kwargs: dict[str, Any], option: str = "env") -> Source:
    """`env` with arguments for `gymnasium.make`. `option` is the argument that gave `env`. Raises `ConfigError` unless
    `env` is an id of Gymnasium."""
    if not env_kwargs:
        return env
    if isinstance(env, EnvWithTasks):
        return replace(env, env=with_kwargs(env.env, env_kwargs, option))
    if not isinstance(env, str) or env.partition("/")[0] in (*JAX_PREFIXES, *PLANNED_PREFIXES):
        raise ConfigError(
            f"{option}_kwargs = {env_kwargs}: only an id of Gymnasium takes these arguments, and {option} is {env!r}. "
            "Pass a callable that makes the environment, for example lambda: MyEnv(difficulty=2)."
        )
    return EnvId(env, env_kwargs)


def make(
    env: Source,
    num_envs: int,
    *,
    seed: int = 0,
    purpose: str = "train",
    max_episode_steps: int | None = None,
    asynchronous: bool = False,
    info: tuple[str, ...] = (),
    replay_limit: int | None = REPLAY_LIMIT,
    restarts: Restarts | None = None,
) -> AbstractHostEnvs | AbstractJaxEnvs:
    """`num_envs` environments from an id (`CartPole-v1`, `gymnax/CartPole-v1`) or a callable; an adapter unchanged.

    `asynchronous` steps each Gymnasium environment in its own process. `info` names the numbers that a step copies from
    the `info` of each environment. `replay_limit` and `restarts` are those of `GymnasiumEnvs`; other environments do
    not need them. Raises `ConfigError` for environments that cannot be made.
    """
    recovery = {"replay_limit": replay_limit, "restarts": restarts}
    if isinstance(env, EnvWithTasks):
        options = {"seed": seed, "purpose": purpose, "max_episode_steps": max_episode_steps, **recovery}
        names = tuple(dict.fromkeys((*env.tasks.info, *info)))
        made = make(env.env, num_envs, asynchronous=asynchronous, info=names, **options)
        return env.wrap(made)
    if isinstance(env, AbstractHostEnvs | AbstractJaxEnvs):
        if env.num_envs != num_envs:
            raise ConfigError(f"num_envs = {num_envs}: the adapter has {env.num_envs}. Set num_envs={env.num_envs}.")
        if asynchronous or max_episode_steps is not None:
            raise ConfigError(
                "The options asynchronous and max_episode_steps cannot be used with an adapter. Set them where you "
                "make the adapter."
            )
        return env
    prefix, _, name = env.partition("/") if isinstance(env, str) else ("", "", "")
    if asynchronous and is_compiled(env):
        raise ConfigError(f"asynchronous: {env} is written in JAX and runs in one program. Leave it out.")
    if prefix == "gymnax":
        from duologue.envs.gymnax import GymnaxEnvs

        return GymnaxEnvs(name, num_envs, max_episode_steps=max_episode_steps)
    if prefix == "probe":
        from duologue.envs.probe import ProbeEnvs

        if max_episode_steps is not None:
            raise ConfigError(
                f"max_episode_steps = {max_episode_steps}: must be left out, because the length of a probe is fixed."
            )
        return ProbeEnvs(name, num_envs)
    if prefix in PLANNED_PREFIXES:
        raise ConfigError(f"env = {env!r}: the backend {prefix}/ is planned and not built yet.")
    if not isinstance(env, str) and not callable(env):
        raise ConfigError(f"env = {env!r}: must be an id, a callable that returns a gymnasium.Env, or an adapter.")
    if asynchronous:
        from duologue.envs.asynchronous import AsyncGymnasiumEnvs as Envs
    else:
        from duologue.envs.gymnasium import GymnasiumEnvs as Envs

    options = {"seed": seed, "purpose": purpose, "max_episode_steps": max_episode_steps, **recovery}
    return Envs(env, num_envs, info=info, **options)


def make_seeds(
    env: Source, num_envs: int, *, seed: int, seeds: int, **options: Any
) -> AbstractHostEnvs | AbstractJaxEnvs:  # fmt: skip
    """Environments for `seeds` agents: on the host, `num_envs` for each agent; in JAX, the same functions for all.

    `options` are those of `make`. Raises `ConfigError`, also for one adapter on the host and several seeds, and for a
    name that environments in JAX do not have in their `info`.
    """
    if seeds == 1 or is_compiled(env):
        envs = make(env, num_envs, seed=seed, **options)
        if isinstance(envs, AbstractJaxEnvs):
            check_info(envs, options.get("info", ()))
        return envs
    if isinstance(strip_tasks(env), AbstractHostEnvs):
        raise ConfigError(
            f"seeds = {seeds}: must be 1, because an adapter belongs to one agent. Pass an id, or a "
            "callable that makes one environment."
        )
    return SeedEnvs(open_all(make(env, num_envs, seed=seed + i, **options) for i in range(seeds)))


def check_info(envs: AbstractJaxEnvs, names: Sequence[str]) -> None:
    """Raise `ConfigError` for a name of `info` under which these environments give no number."""
    if not names:
        return

    def step(key: Array) -> dict[str, Any]:
        state, _ = envs.reset(key)
        shape, dtype = action_type(envs.spec.action)
        return envs.step(state, jnp.zeros((envs.num_envs, *shape), dtype), key=key)[1].info

    info = jax.eval_shape(step, jax.random.key(0))
    numbers = [
        name for name, x in info.items() if x.shape == (envs.num_envs,) and jnp.issubdtype(x.dtype, jnp.floating)
    ]
    if missing := [name for name in names if name not in numbers]:
        raise ConfigError(
            f"log_info = {missing[0]!r}: must be one of the numbers that {envs.spec.id} gives in info: "
            f"{', '.join(numbers) or 'none'}."
        )
