"""Conversion of Gymnasium's spaces to ours, and of observations and actions between them."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from duologue.errors import ConfigError, EnvError
from duologue.types import Box, Dict, Discrete, MultiDiscrete, Obs, Space

MAX_OBS_BOUNDS = 64
"""Largest number of elements of an observation space whose bounds the spec keeps one by one."""
NARROWER = {"float64": "float32", "int64": "int32", "uint64": "uint32"}
"""Casts of observations with wider dtypes, because JAX computes in 32 bits."""


def observation_space(space: gym.Space) -> Space:
    """Our space for observations in a Gymnasium space; `MultiBinary` becomes a `Box` of int8. Raises `ConfigError`."""
    match space:
        case spaces.Dict():
            return Dict({name: observation_space(part) for name, part in space.spaces.items()})
        case spaces.MultiBinary():
            return Box(space.shape, "int8")
        case spaces.Box() if space.shape:
            dtype = NARROWER.get(space.dtype.name, space.dtype.name)
            few = np.prod(space.shape) <= MAX_OBS_BOUNDS
            bounds = (
                finite_bounds(space.low, space.high, space.shape) if few else map(common_bound, (space.low, space.high))
            )
            return Box(space.shape, dtype, *bounds)
    return integer_space(space, "observation")


def action_space(space: gym.Space) -> Space:
    """Our space for actions in a Gymnasium space; `MultiBinary` becomes a `MultiDiscrete`. Raises `ConfigError`."""
    match space:
        case spaces.MultiBinary(shape=(n,)):
            return MultiDiscrete((2,) * n)
        case spaces.Box() if space.shape and space.dtype.kind == "f":
            return Box(space.shape, "float32", *finite_bounds(space.low, space.high, space.shape))
    return integer_space(space, "action")


def integer_space(space: gym.Space, role: str) -> Space:
    """Our space for a Gymnasium space of integers. Raises `ConfigError` for every other space; the message names the
    `role`."""
    match space:
        case spaces.Discrete():
            return Discrete(int(space.n), int(space.start))
        case spaces.MultiDiscrete() if space.nvec.ndim == 1 and not np.any(space.start):
            return MultiDiscrete(tuple(space.nvec.tolist()))
    served = "Box (with an axis), Discrete, MultiDiscrete and MultiBinary (one axis)"
    served += ", and Dict of these" if role == "observation" else "; Box of floats"
    wrapper = "FlattenObservation or TransformObservation" if role == "observation" else "TransformAction"
    raise ConfigError(
        f"The {role} space {space} is not supported. Supported are {served}. Convert it with a wrapper: "
        f"gymnasium.wrappers.{wrapper}."
    )


def finite_bounds(
    low: Any, high: Any, shape: tuple[int, ...]
) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    """`(low, high)`, each with one number for each element. A side is `None` if one of its numbers is infinite, or is
    the largest float32, which means the same."""
    sides = [np.broadcast_to(np.asarray(side, np.float32), shape).ravel() for side in (low, high)]
    finite = [bool((np.abs(side) < np.finfo(np.float32).max).all()) for side in sides]
    low, high = (tuple(side.tolist()) if known else None for side, known in zip(sides, finite, strict=True))
    return low, high


def common_bound(side: np.ndarray) -> tuple[float] | None:
    """The finite bound that all elements share, as one number; `None` if there is none."""
    least, most = np.float32(side.min()), np.float32(side.max())
    return (float(most),) if least == most and np.abs(most) < np.finfo(np.float32).max else None


def mark_stacked(space: Space) -> Space:
    """`space` with every Box marked as a stack of frames."""
    match space:
        case Box():
            return replace(space, stacked=True)
        case Dict(spaces=parts):
            return Dict({name: mark_stacked(part) for name, part in parts.items()})
    return space


def stack_depths(space: Space) -> Any:
    """Number of frames in each leaf of an observation; 1 for a leaf that is no stack."""
    match space:
        case Box(shape=shape, stacked=True):
            return shape[0]
        case Dict(spaces=parts):
            return {name: stack_depths(part) for name, part in parts.items()}
    return 1


def array_type(space: Space) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and dtype of one element of `space`."""
    match space:
        case Box(shape=shape, dtype=dtype):
            return shape, np.dtype(dtype)
        case Discrete():
            return (), np.dtype(np.int32)
        case MultiDiscrete(nvec=nvec):
            return (len(nvec),), np.dtype(np.int32)
        case Dict():
            raise TypeError("a Dict is not one array")


def empty_arrays(space: Space, num_envs: int) -> Obs:
    """Uninitialised arrays for `num_envs` elements of `space`."""
    if isinstance(space, Dict):
        return {name: empty_arrays(part, num_envs) for name, part in space.spaces.items()}
    shape, dtype = array_type(space)
    return np.empty((num_envs, *shape), dtype)


def copy_obs(obs: Obs) -> Obs:
    """A copy of the arrays of an observation."""
    return {name: copy_obs(part) for name, part in obs.items()} if isinstance(obs, dict) else obs.copy()


def obs_writer(space: gym.Space) -> Callable[[Obs, int, Any], None]:
    """A function `(rows, i, obs)` that writes one observation into row `i`. It raises `EnvError` for a shape or dtype
    other than that of the space, and for integers outside the space."""
    if isinstance(space, spaces.Dict):
        parts = {name: obs_writer(part) for name, part in space.spaces.items()}

        def write_parts(rows: Obs, i: int, obs: Any) -> None:
            if not isinstance(obs, dict) or not parts.keys() <= obs.keys():
                raise EnvError(f"gave the observation {obs!r}; the space is a dict of {', '.join(parts)}")
            for name, write in parts.items():
                write(rows[name], i, obs[name])

        return write_parts
    shape, dtype = array_type(observation_space(space))
    start, kinds = getattr(space, "start", 0), "fiub" if dtype.kind == "f" else "iub"
    binary = isinstance(space, spaces.MultiBinary)
    shifted, count = bool(np.any(start)), 2 if binary else getattr(space, "n", getattr(space, "nvec", None))

    def write(rows: np.ndarray, i: int, obs: Any) -> None:
        if obs.__class__ is not np.ndarray:
            obs = np.asarray(obs)
        # NumPy would silently broadcast another shape, and cut off fractions.
        if obs.shape != shape or obs.dtype.kind not in kinds:
            raise EnvError(f"gave an observation of {obs.dtype}{list(obs.shape)}; the space is {dtype}{list(shape)}")
        if shifted:
            obs = obs - start
        inside = count is None or ((obs >= 0) & (obs < count)).all()
        if not inside or (dtype.kind != "f" and obs.dtype != dtype and (obs.astype(dtype) != obs).any()):
            raise EnvError(f"gave the observation {obs!r}, which is not in its space, {space}")
        rows[i] = obs

    return write


def action_converter(space: gym.Space) -> Callable[[np.ndarray], Any]:
    """A function that converts actions `[n, …]` of our spec to actions of the environment: clipped to its box, or
    shifted to its start."""
    match space:
        case spaces.Box():
            return lambda action: np.minimum(np.maximum(action, space.low), space.high).astype(space.dtype)
        case spaces.Discrete():
            start = int(space.start)
            return lambda action: (action + start if start else action).tolist()
        case _:
            start = getattr(space, "start", 0)
            return lambda action: (action + start).astype(space.dtype)


def check_action(action: np.ndarray, space: Space, num_envs: int) -> np.ndarray:
    """A copy of `action` in the dtype of `space`, because the caller may change its array. Raises `ConfigError`."""
    shape, dtype = array_type(space)
    given = np.asarray(action)
    if given.shape != (num_envs, *shape) or (dtype.kind == "i" and given.dtype.kind not in "iu"):
        raise ConfigError(f"action is {given.dtype}{list(given.shape)}: must be {dtype}{[num_envs, *shape]}.")
    return np.array(given, dtype)
