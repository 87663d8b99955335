"""Conversion of Gymnasium's spaces to ours, and of observations and actions between them."""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from duologue.errors import ConfigError, EnvError
from duologue.types import Box, Dict, Discrete, MultiDiscrete, Obs, Space, action_type, brief

MAX_OBS_BOUNDS = 64
"""Largest number of elements of an observation space whose bounds the spec keeps one by one."""
NARROWER = {"float64": "float32", "int64": "int32", "uint64": "uint32"}
"""Casts of observations with wider dtypes, because JAX computes in 32 bits."""
LARGEST_OBSERVED = 1e18
"""Size of the largest number whose square fits into float32, as networks and statistics need it."""
MAX_INTEGERS = 1000
"""Largest number of values that one component of a Box of integers may have as an action."""

MAX_VALUES = 1_000_000
"""Largest number of values of one integer, because networks read it as a one-hot vector and write a logit for each."""
INT32 = np.iinfo(np.int32)


def observation_space(space: gym.Space, at: str = "observation") -> Space:
    """Our space for observations in a Gymnasium space; `MultiBinary` becomes a `Box` of int8, and a `Tuple` a `Dict`
    with the keys "0", "1", … Raises `ConfigError`, which names the part by its place `at`."""
    match space:
        case spaces.Dict():
            return dict_space(space.spaces, at)
        case spaces.Tuple():
            return dict_space({str(i): part for i, part in enumerate(space.spaces)}, at)
        case spaces.MultiBinary():
            return Box(space.shape, "int8")
        case spaces.Box():
            check_bounds(space, at)
            dtype = NARROWER.get(space.dtype.name, space.dtype.name)
            few = np.prod(space.shape) <= MAX_OBS_BOUNDS
            low, high = space.low, space.high
            bounds = bounds_of(low, high, space.shape) if few else (common_bound(low.min()), common_bound(high.max()))
            return Box(space.shape, dtype, *bounds)
    return integer_space(space, at)


def dict_space(parts: Mapping[Any, gym.Space], at: str) -> Dict:
    """Our `Dict` of the parts of an observation. Raises `ConfigError` where there is none, or a key is no text."""
    if not parts:
        raise ConfigError(f"The {at} has no part, so there is nothing to observe. Leave it out, or add a part to it.")
    if odd := [key for key in parts if not isinstance(key, str)]:
        raise ConfigError(
            f"The {at} has the key {odd[0]!r}: must be text, because files keep the names of the parts. Rename it."
        )
    return Dict({name: observation_space(part, f"{at}[{name!r}]") for name, part in parts.items()})


def action_space(space: gym.Space) -> Space:
    """Our space for actions in a Gymnasium space; `MultiBinary` and a bounded `Box` of integers become a
    `MultiDiscrete`. Raises `ConfigError`."""
    match space:
        case spaces.MultiBinary():
            return multi_discrete(space, np.full(space.shape, 2), 0)
        case spaces.Box() if space.dtype.kind == "f":
            check_bounds(space, "action")
            dtype = NARROWER.get(space.dtype.name, space.dtype.name)
            return Box(space.shape, dtype, *bounds_of(space.low, space.high, space.shape))
        case spaces.Box():
            return integer_box(space)
    return integer_space(space, "action")


def multi_discrete(space: gym.Space, nvec: np.ndarray, start: Any, at: str = "action") -> MultiDiscrete:
    """Our space for the integers of `space`, in an array of the shape of `nvec`. Raises `ConfigError` for a space
    without a component, and for integers that int32 does not hold."""
    start = np.broadcast_to(np.asarray(start), nvec.shape)
    counts, first = nvec.ravel().tolist(), start.ravel().tolist()
    if not counts:
        raise ConfigError(f"{unsupported(space, at)}: it has no component.")
    for index, n, least in zip(np.ndindex(nvec.shape), counts, first, strict=True):
        check_integers(space, at, n, least, f"component {where_in(index)}" if index else "it")
    return MultiDiscrete(
        tuple(counts),
        tuple(first) if start.any() else None,
        None if nvec.ndim == 1 else nvec.shape,
        np.dtype(space.dtype).name,
    )


def integer_box(space: spaces.Box) -> MultiDiscrete:
    """Our space for actions in a Box of integers. Raises `ConfigError` for a component without a bound, or with more
    than `MAX_INTEGERS` values."""
    low, high = (side.astype(object) for side in (space.low, space.high))  # Python's integers cannot overflow
    nvec = np.asarray(high - low + 1, object)
    if nvec.size and nvec.max() > MAX_INTEGERS:
        widest = np.unravel_index(np.argmax(nvec), nvec.shape)
        raise ConfigError(
            f"{unsupported(space, 'action')}: component {where_in(widest)} has {nvec[widest]:,} integer values, more "
            f"than {MAX_INTEGERS:,}. Convert it to floats with gymnasium.wrappers.TransformAction."
        )
    return multi_discrete(space, nvec, low)


def check_integers(space: gym.Space, at: str, n: int, start: int, which: str = "it") -> None:
    """Raise `ConfigError` for more than `MAX_VALUES` integers, and unless int32 holds `start … start + n - 1`."""
    if n > MAX_VALUES:
        raise ConfigError(
            f"{unsupported(space, at)}: {which} has {n:,} values, more than {MAX_VALUES:,}, and networks have an input "
            "or an output for each. Split the number into several of MultiDiscrete, or convert it to a Box."
        )
    if not INT32.min <= start <= start + n - 1 <= INT32.max:
        raise ConfigError(
            f"{unsupported(space, at)}: {which} has the values {start:,} to {start + n - 1:,}, and int32 ends at "
            f"{INT32.min:,} and {INT32.max:,}. Count fewer values, from a smaller start."
        )


def check_bounds(space: spaces.Box, at: str) -> None:
    """Raise `ConfigError` for a Box without elements, and for an element without a usable number between its bounds:
    low is ∞, high is −∞, or a bound is NaN; or all numbers that are observed are larger than `LARGEST_OBSERVED`."""
    if not math.prod(space.shape):
        raise ConfigError(f"{unsupported(space, at)}: it has no element. Leave it out.")
    most = np.float64(np.finfo(np.float32).max if at == "action" else LARGEST_OBSERVED)  # float16 does not hold it
    empty = ~((space.low < most) & (space.high > -most))
    if empty.any():
        index = np.unravel_index(np.argmax(empty), empty.shape)
        raise ConfigError(
            f"{unsupported(space, at)}: component {where_in(index)} has low = {space.low[index]:g} and high = "
            f"{space.high[index]:g}, and float32 cannot compute with any number between them. Correct the bounds, or "
            "use other units."
        )


def where_in(index: tuple[Any, ...]) -> str:
    """The index of an array element in words: `3`, or `(0, 2)`; 0 for the only element of an array without axes."""
    return str(int(index[0])) if len(index) == 1 else str(tuple(map(int, index)) or 0)


def unsupported(space: gym.Space, at: str) -> str:
    """The beginning of a message about a space, with its place `at`: an action, or an observation or a part of it."""
    return f"The {f'space {brief(space)} of {at}' if '[' in at else f'{at} space {brief(space)}'} is not supported"


def integer_space(space: gym.Space, at: str) -> Space:
    """Our space for a Gymnasium space of integers. Raises `ConfigError` for every other space; the message names the
    place `at`."""
    match space:
        case spaces.Discrete():
            check_integers(space, at, int(space.n), int(space.start))
            return Discrete(int(space.n), int(space.start))
        case spaces.MultiDiscrete():
            return multi_discrete(space, space.nvec, space.start, at)
    observed = at != "action"
    served = "Box, Discrete, MultiDiscrete and MultiBinary" + (", and Dict and Tuple of these" if observed else "")
    wrapper = "FlattenObservation or TransformObservation" if observed else "TransformAction"
    raise ConfigError(
        f"{unsupported(space, at)}. Supported are {served}. Convert it with a wrapper: gymnasium.wrappers.{wrapper}."
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


def common_bound(widest: Any) -> tuple[float] | None:
    """The widest bound of all elements as one number; `None` if it is infinite."""
    with np.errstate(over="ignore"):
        bound = np.float32(widest)
    return (float(bound),) if np.abs(bound) < np.finfo(np.float32).max else None


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
            raise EnvError(f"gave the observation {obs!r}, which is not in its space, {brief(space)}")
        rows[i] = obs if given == shape else obs.reshape(shape)

    return write


def split_actions(space: Space, action: np.ndarray) -> list[Any]:
    """The actions of `to_env_actions` one by one: NumPy integers of a Discrete space, else arrays, of rank 0 too."""
    return list(action) if isinstance(space, Discrete) else [action[i, ...] for i in range(len(action))]


def check_action(action: np.ndarray, space: Space, num_envs: int) -> np.ndarray:
    """A copy of `action` in the dtype of `space`, because the caller may change its array. Raises `ConfigError`."""
    shape, dtype = action_type(space)
    given = np.asarray(action)
    if given.shape != (num_envs, *shape) or (dtype.kind == "i" and given.dtype.kind not in "iu"):
        raise ConfigError(f"action is {given.dtype}{list(given.shape)}: must be {dtype}{[num_envs, *shape]}.")
    return np.array(given, dtype)
