"""Conversion of Gymnasium's spaces to ours, and of observations and actions between them."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from duologue.errors import ConfigError, EnvError
from duologue.types import Box, Dict, Discrete, MultiDiscrete, Obs, Space, action_type

MAX_OBS_BOUNDS = 64
"""Largest number of elements of an observation space whose bounds the spec keeps one by one."""
NARROWER = {"float64": "float32", "int64": "int32", "uint64": "uint32"}
"""Casts of observations with wider dtypes, because JAX computes in 32 bits."""
MAX_INTEGERS = 1000
"""Largest number of values that one component of a Box of integers may have as an action."""


def observation_space(space: gym.Space) -> Space:
    """Our space for observations in a Gymnasium space; `MultiBinary` becomes a `Box` of int8, and a `Tuple` a `Dict`
    with the keys "0", "1", … Raises `ConfigError`."""
    match space:
        case spaces.Dict():
            return Dict({name: observation_space(part) for name, part in space.spaces.items()})
        case spaces.Tuple():
            return Dict({str(i): observation_space(part) for i, part in enumerate(space.spaces)})
        case spaces.MultiBinary():
            return Box(space.shape, "int8")
        case spaces.Box() if space.shape:
            dtype = NARROWER.get(space.dtype.name, space.dtype.name)
            few = np.prod(space.shape) <= MAX_OBS_BOUNDS
            bounds = (
                bounds_of(space.low, space.high, space.shape) if few else map(common_bound, (space.low, space.high))
            )
            return Box(space.shape, dtype, *bounds)
    return integer_space(space, "observation")


def action_space(space: gym.Space) -> Space:
    """Our space for actions in a Gymnasium space; `MultiBinary` and a bounded `Box` of integers become a
    `MultiDiscrete`. Raises `ConfigError`."""
    match space:
        case spaces.MultiBinary():
            return multi_discrete(np.full(space.shape, 2), 0, space.dtype)
        case spaces.Box() if space.dtype.kind == "f":
            dtype = NARROWER.get(space.dtype.name, space.dtype.name)
            return Box(space.shape, dtype, *bounds_of(space.low, space.high, space.shape))
        case spaces.Box():
            return integer_box(space)
    return integer_space(space, "action")


def multi_discrete(nvec: np.ndarray, start: Any, dtype: Any) -> MultiDiscrete:
    """Our space for integers in an array of the shape of `nvec`."""
    start = np.broadcast_to(np.asarray(start), nvec.shape)
    return MultiDiscrete(
        tuple(nvec.ravel().tolist()),
        tuple(start.ravel().tolist()) if start.any() else None,
        None if nvec.ndim == 1 else nvec.shape,
        np.dtype(dtype).name,
    )


def integer_box(space: spaces.Box) -> MultiDiscrete:
    """Our space for actions in a Box of integers. Raises `ConfigError` for a component without a bound, or with more
    than `MAX_INTEGERS` values."""
    low, high = (side.astype(object) for side in (space.low, space.high))  # Python's integers cannot overflow
    nvec = high - low + 1
    widest = np.unravel_index(np.argmax(nvec), nvec.shape)
    if nvec[widest] > MAX_INTEGERS:
        raise ConfigError(
            f"The action space {space} is not supported: component {where_in(widest)} has {nvec[widest]:,} integer "
            f"values, more than {MAX_INTEGERS:,}. Convert it to floats with gymnasium.wrappers.TransformAction."
        )
    return multi_discrete(nvec.astype(np.int64), low.astype(np.int64), space.dtype)


def where_in(index: tuple[Any, ...]) -> str:
    """The index of an array element in words: `3`, or `(0, 2)`."""
    return str(int(index[0])) if len(index) == 1 else str(tuple(map(int, index)))


def integer_space(space: gym.Space, role: str) -> Space:
    """Our space for a Gymnasium space of integers. Raises `ConfigError` for every other space; the message names the
    `role`."""
    match space:
        case spaces.Discrete():
            return Discrete(int(space.n), int(space.start))
        case spaces.MultiDiscrete():
            return multi_discrete(space.nvec, space.start, space.dtype)
    served = "Box, Discrete, MultiDiscrete and MultiBinary"
    served += " (a Box has at least one axis), and Dict and Tuple of these" if role == "observation" else ""
    wrapper = "FlattenObservation or TransformObservation" if role == "observation" else "TransformAction"
    raise ConfigError(
        f"The {role} space {space} is not supported. Supported are {served}. Convert it with a wrapper: "
        f"gymnasium.wrappers.{wrapper}."
    )


def bounds_of(
    low: Any, high: Any, shape: tuple[int, ...]
) -> tuple[tuple[float | None, ...] | None, tuple[float | None, ...] | None]:
    """The sides `(low, high)` of a `Box`, in float32. An element has no bound where it is infinite, or as large as
    float32 goes, which means the same. A bound that float32 cannot hold moves inwards, so that the Box of the
    environment contains ours."""
    sides = []
    for side, inwards in ((low, np.inf), (high, -np.inf)):
        exact = np.broadcast_to(np.asarray(side), shape).ravel()
        with np.errstate(over="ignore"):
            rounded = exact.astype(np.float32)
        outside = rounded < exact if inwards > 0 else rounded > exact
        rounded = np.where(outside, np.nextafter(rounded, np.float32(inwards)), rounded)
        bounds = tuple(float(x) if abs(x) < np.finfo(np.float32).max else None for x in rounded)
        sides.append(None if all(bound is None for bound in bounds) else bounds)
    return sides[0], sides[1]


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
    if isinstance(space, spaces.Tuple):
        members = [obs_writer(part) for part in space.spaces]

        def write_members(rows: Obs, i: int, obs: Any) -> None:
            if not isinstance(obs, tuple | list) or len(obs) != len(members):
                raise EnvError(f"gave the observation {obs!r}; the space is a tuple of {len(members)} parts")
            for number, (write, part) in enumerate(zip(members, obs, strict=True)):
                write(rows[str(number)], i, part)

        return write_members
    (shape, dtype), given = array_type(observation_space(space)), space.shape or ()
    start, kinds = getattr(space, "start", 0), "fiub" if dtype.kind == "f" else "iub"
    binary = isinstance(space, spaces.MultiBinary)
    shifted, count = bool(np.any(start)), 2 if binary else getattr(space, "n", getattr(space, "nvec", None))

    def write(rows: np.ndarray, i: int, obs: Any) -> None:
        if obs.__class__ is not np.ndarray:
            obs = np.asarray(obs)
        # NumPy would silently broadcast another shape, and cut off fractions.
        if obs.shape != given or obs.dtype.kind not in kinds:
            raise EnvError(f"gave an observation of {obs.dtype}{list(obs.shape)}; the space is {dtype}{list(given)}")
        if shifted:
            obs = obs - start
        inside = count is None or ((obs >= 0) & (obs < count)).all()
        if not inside or (dtype.kind != "f" and obs.dtype != dtype and (obs.astype(dtype) != obs).any()):
            raise EnvError(f"gave the observation {obs!r}, which is not in its space, {space}")
        rows[i] = obs if given == shape else obs.reshape(shape)

    return write


def check_action(action: np.ndarray, space: Space, num_envs: int) -> np.ndarray:
    """A copy of `action` in the dtype of `space`, because the caller may change its array. Raises `ConfigError`."""
    shape, dtype = action_type(space)
    given = np.asarray(action)
    if given.shape != (num_envs, *shape) or (dtype.kind == "i" and given.dtype.kind not in "iu"):
        raise ConfigError(f"action is {given.dtype}{list(given.shape)}: must be {dtype}{[num_envs, *shape]}.")
    return np.array(given, dtype)
