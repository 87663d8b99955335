"""Gymnasium environments, stepped by our own Python loop: faster than its vector environments, and finished episodes
are reset with seeds of our choice."""

import difflib
import functools
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from duologue.envs.base import MAX_OBS_BOUNDS, AbstractHostEnvs, Journal, Rows, array_type, bounds, copy, empty, replay
from duologue.errors import ConfigError, EnvError, MissingExtraError
from duologue.types import Box, Dict, Discrete, EnvSpec, MultiDiscrete, Obs, Space, Step

Make = str | Callable[[], gym.Env]
"""A Gymnasium id, or a callable that returns one new environment."""

NARROWER = {"float64": "float32", "int64": "int32", "uint64": "uint32"}
"""JAX computes in 32 bits: what is wider is cast where it comes in."""
PACKAGES = {"box2d": "box2d", "mujoco": "mujoco", "ale": "atari", "atari": "atari"}
"""Words of Gymnasium's complaint about a missing package, and our extra that installs it."""


class GymnasiumEnvs(AbstractHostEnvs):
    """`num_envs` Gymnasium environments in this process.

    Raises `ConfigError` for an unknown id or a space that cannot be served, `MissingExtraError` for a missing simulator
    and `EnvError` where making an environment fails.
    """

    def __init__(
        self, make: Make, num_envs: int, *, seed: int, purpose: str = "train", max_episode_steps: int | None = None
    ):
        factory = factory_of(make, max_episode_steps)
        self._envs = [open_env(factory, make, max_episode_steps) for _ in range(num_envs)]
        self.spec, self.num_envs = spec_of(self._envs[0], make), num_envs
        for i, env in enumerate(self._envs):
            if spec_of(env, make) != self.spec:
                raise ConfigError(f"environment {i} differs from environment 0: {spec_of(env, make)}, {self.spec}.")
        self._write = writer(self._envs[0].observation_space)
        self._door = door(self._envs[0].action_space)
        self._journal = Journal(seed, purpose, num_envs)
        self._obs = empty(self.spec.observation, num_envs)
        self._reports_success = False

    def reset(self) -> Obs:
        self._journal.restart()
        self._obs = empty(self.spec.observation, self.num_envs)
        self._reset(range(self.num_envs), self._obs)
        return self._obs

    def step(self, action: np.ndarray) -> Step:
        action = checked(action, self.spec.action, self.num_envs)
        self._journal.actions.append(action)
        rows = self._rows()
        self._step(range(self.num_envs), action, rows)
        self._obs = rows.obs
        if rows.ended:
            self._obs = copy(rows.obs)
            for i in rows.ended:
                self._journal.next_episode(i)
            self._reset(rows.ended, self._obs)
        self._reports_success |= bool(rows.success)
        info = success(rows) if self._reports_success else {}
        return Step(self._obs, rows.obs, rows.reward, rows.terminated, rows.truncated, info)

    def snapshot(self) -> dict[str, np.ndarray]:
        return self._journal.snapshot(self.spec.action, self._obs)

    def restore(self, snapshot: dict[str, np.ndarray]) -> tuple[Obs, str | None]:
        rows = self._rows()
        message = replay(self._journal, snapshot, rows, reset=self._reset, step=self._step)
        self._obs = rows.obs
        return self._obs, message

    def close(self) -> None:
        for env in self._envs:
            env.close()

    def _rows(self) -> Rows:
        return Rows(empty(self.spec.observation, self.num_envs), self.num_envs, self._write)

    def _reset(self, indices: Sequence[int], obs: Obs) -> None:
        """Begin the journal's episodes of these environments; their first observations go into `obs`."""
        for i in indices:
            try:
                self._write(obs, i, self._envs[i].reset(seed=self._journal.seed(i))[0])
            except Exception as error:
                raise self._journal.failure(i, error) from error

    def _step(self, indices: Sequence[int], action: np.ndarray, rows: Rows) -> None:
        """Step these environments, each with its row of `action`."""
        envs, commands, put, i = self._envs, self._door(action), rows.put, 0
        try:
            for i in indices:
                put(i, envs[i].step(commands[i]))
        except Exception as error:
            raise self._journal.failure(i, error) from error


def success(rows: Rows) -> dict[str, np.ndarray]:
    """`is_success` for every environment, NaN where it was not reported."""
    values = np.full(len(rows.reward), np.nan, np.float32)
    for i, value in rows.success.items():
        values[i] = value
    return {"is_success": values}


def factory_of(make: Make, max_episode_steps: int | None) -> Callable[[], gym.Env]:
    """A function that makes one environment, and that a process which does not know this library can run."""
    if isinstance(make, str):
        name = f"ale_py:{make}" if make.startswith("ALE/") else make  # ale-py registers its ids only when imported
        return functools.partial(gym.make, name, max_episode_steps=max_episode_steps, disable_env_checker=True)
    if max_episode_steps is None:
        return make
    limit = gym.wrappers.TimeLimit
    return lambda: limit(make(), max_episode_steps)


def open_env(factory: Callable[[], gym.Env], make: Make, max_episode_steps: int | None) -> gym.Env:
    """One environment from `factory`; what goes wrong is said in terms of `make`."""
    name = name_of(make)
    try:
        env = factory()
    except gym.error.DependencyNotInstalled as error:
        extra = next((extra for word, extra in PACKAGES.items() if word in str(error).lower()), None)
        if extra is None:
            raise ConfigError(f"{name} cannot be made: {error}") from error
        raise MissingExtraError(extra, name) from error
    except gym.error.UnregisteredEnv as error:
        raise ConfigError(unknown(name, error)) from error
    except ImportError as error:
        if name.startswith("ALE/"):
            raise MissingExtraError("atari", name) from error
        raise ConfigError(f"{name} cannot be made: {error}") from error
    except gym.error.Error as error:
        raise ConfigError(f"{name} cannot be made: {error}") from error
    except Exception as error:
        raise EnvError(f"{name} could not be made; it raised {type(error).__name__}: {error}") from error
    if isinstance(env, gym.vector.VectorEnv):
        raise ConfigError(
            f"{name} makes a vector environment, {type(env).__name__}. It may insert dummy steps when it resets itself; "
            "give a callable that makes one environment, and num_envs."
        )
    if not isinstance(env, gym.Env):
        raise ConfigError(f"{name} makes {env!r}, which is no gymnasium.Env.")
    own = None if isinstance(make, str) or env.spec is None else env.spec.max_episode_steps
    if own is not None and max_episode_steps is not None and own < max_episode_steps:
        raise ConfigError(
            f"max_episode_steps = {max_episode_steps}: {name} ends its own episodes after {own} steps already. Set a "
            f"longer limit there, gymnasium.make({env.spec.id!r}, max_episode_steps={max_episode_steps})."
        )
    return env


def name_of(make: Make) -> str:
    """An id as it is; a callable as its name in angle brackets."""
    if isinstance(make, str):
        return make
    named = make if hasattr(make, "__qualname__") else type(make)
    return f"<{named.__module__}.{named.__qualname__}>"


def unknown(name: str, error: Exception) -> str:
    close = difflib.get_close_matches(name, gym.registry, n=3, cutoff=0.6)
    hint = f"Closest: {', '.join(map(repr, close))}. " if close else ""
    return (
        f"There is no Gymnasium environment {name!r}. {hint}Gymnasium says: {error} Ids that a module of yours registers "
        "are written 'module:Name-v0'; environments in JAX have a prefix, such as 'gymnax/CartPole-v1'."
    )


def spec_of(env: gym.Env, make: Make) -> EnvSpec:
    """What an algorithm may know of `env`. Raises `ConfigError` for spaces that cannot be served."""
    limit = env.get_wrapper_attr("_max_episode_steps") if env.has_wrapper_attr("_max_episode_steps") else None
    threshold = None if env.spec is None else env.spec.reward_threshold
    return EnvSpec(
        name_of(make),
        observation_space(env.observation_space),
        action_space(env.action_space),
        limit,
        None if threshold is None else float(threshold),
    )


def observation_space(space: gym.Space) -> Space:
    """Our space for a Gymnasium one; `MultiBinary` is a `Box` of int8."""
    match space:
        case spaces.Dict():
            return Dict({name: observation_space(part) for name, part in space.spaces.items()})
        case spaces.MultiBinary():
            return Box(space.shape, "int8")
        case spaces.Box() if space.shape:
            dtype = NARROWER.get(space.dtype.name, space.dtype.name)
            few = np.prod(space.shape) <= MAX_OBS_BOUNDS
            return Box(space.shape, dtype, *(bounds(space.low, space.high, space.shape) if few else ()))
    return integers(space, "observation")


def action_space(space: gym.Space) -> Space:
    """Our space for a Gymnasium one; `MultiBinary` is a `MultiDiscrete` of twos."""
    match space:
        case spaces.MultiBinary(shape=(n,)):
            return MultiDiscrete((2,) * n)
        case spaces.Box() if space.shape and space.dtype.kind == "f":
            return Box(space.shape, "float32", *bounds(space.low, space.high, space.shape))
    return integers(space, "action")


def integers(space: gym.Space, role: str) -> Space:
    match space:
        case spaces.Discrete():
            return Discrete(int(space.n))
        case spaces.MultiDiscrete() if space.nvec.ndim == 1:
            return MultiDiscrete(tuple(space.nvec.tolist()))
    served = "Box (with an axis), Discrete, MultiDiscrete and MultiBinary (one axis)"
    served += ", and Dict of these" if role == "observation" else "; Box of floats"
    raise ConfigError(
        f"The {role} space {space} cannot be served. Served are {served}. Convert it with a wrapper: "
        f"gymnasium.wrappers.{'FlattenObservation or TransformObservation' if role == 'observation' else 'TransformAction'}."
    )


def writer(space: gym.Space) -> Callable[[Obs, int, Any], None]:
    """A function `(rows, i, obs)` that stores one observation; `EnvError` unless its shape is the space's own."""
    if isinstance(space, spaces.Dict):
        parts = {name: writer(part) for name, part in space.spaces.items()}

        def write_parts(rows: Obs, i: int, obs: Any) -> None:
            if not isinstance(obs, dict) or not parts.keys() <= obs.keys():
                raise EnvError(f"gave the observation {obs!r}; its space is a dict of {', '.join(parts)}")
            for name, write in parts.items():
                write(rows[name], i, obs[name])

        return write_parts
    shape, dtype = array_type(observation_space(space))
    start, kinds = getattr(space, "start", 0), "fiub" if dtype.kind == "f" else "iub"
    shifted = bool(np.any(start))

    def write(rows: np.ndarray, i: int, obs: Any) -> None:
        if obs.__class__ is not np.ndarray:
            obs = np.asarray(obs)
        # NumPy would broadcast a shape that differs, and cut fractions off, without a word.
        if obs.shape != shape or obs.dtype.kind not in kinds:
            raise EnvError(f"gave an observation of {obs.dtype}{list(obs.shape)}; its space is {dtype}{list(shape)}")
        rows[i] = obs - start if shifted else obs

    return write


def door(space: gym.Space) -> Callable[[np.ndarray], Sequence[Any]]:
    """From actions of our spec, any number of them, to what the environment takes: clipped to its box, shifted to its
    start."""
    match space:
        case spaces.Box():
            return lambda action: np.minimum(np.maximum(action, space.low), space.high).astype(space.dtype)
        case spaces.Discrete():
            start = int(space.start)
            return lambda action: (action + start if start else action).tolist()
        case _:
            start = getattr(space, "start", 0)
            return lambda action: (action + start).astype(space.dtype)


def checked(action: np.ndarray, space: Space, num_envs: int) -> np.ndarray:
    """A copy of `action` in the spec's dtype, for the caller may write into its own later."""
    shape, dtype = array_type(space)
    given = np.asarray(action)
    if given.shape != (num_envs, *shape) or (dtype.kind == "i" and given.dtype.kind not in "iu"):
        raise ConfigError(f"action is {given.dtype}{list(given.shape)}: must be {dtype}{[num_envs, *shape]}.")
    return np.array(given, dtype)
