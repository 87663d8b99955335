"""From Gymnasium's spaces to ours, and how observations come in and actions go out."""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np

from duologue.errors import ConfigError
from duologue.types import Box, Dict, Discrete, MultiDiscrete, Obs, Space

MAX_BOUNDS = 64
"""Elements of an array whose bounds are kept; images and the like have none worth keeping."""


def convert(space: gym.Space, *, what: str) -> Space:
    """Our description of a Gymnasium space; `what` ("action", "observation") is for the error.

    Float64 becomes float32 and wide integers int32; MultiBinary is a Box of int8 to see and a MultiDiscrete of twos to
    act in. Raises `ConfigError` for spaces without a fixed shape.
    """
    match space:
        case gym.spaces.Box():
            bounded = space.is_bounded("both") and np.prod(space.shape) <= MAX_BOUNDS
            low, high = (
                tuple(np.ravel(b).astype(float).tolist()) if bounded else None for b in (space.low, space.high)
            )
            return Box(tuple(space.shape), _dtype(space.dtype), low, high)
        case gym.spaces.Discrete():
            return Discrete(int(space.n), int(space.start))
        case gym.spaces.MultiDiscrete() if space.nvec.ndim == 1 and not space.start.any():
            return MultiDiscrete(tuple(space.nvec.tolist()))
        case gym.spaces.MultiBinary() if what == "action" and isinstance(space.n, int | np.integer):
            return MultiDiscrete((2,) * int(space.n))
        case gym.spaces.MultiBinary() if what == "observation":
            return Box(tuple(space.shape), "int8")
        case gym.spaces.Dict() if what == "observation":
            return Dict({name: convert(part, what=what) for name, part in space.spaces.items()})
    served = "Box, Discrete, MultiDiscrete and MultiBinary" + (", and Dicts of them" if what == "observation" else "")
    raise ConfigError(f"The {what} space {space} is not served: {what} spaces are {served}. Wrap the environment.")


def _dtype(dtype: Any) -> str:
    kind = np.dtype(dtype)
    if kind.kind == "f":
        return "float32"
    return "int32" if kind.itemsize > 4 else kind.name


class Rows:
    """Observations of one space, written row by row into fresh batches."""

    def __init__(self, space: Space):
        self._space = space
        self._leaves = list(_leaves(space, ()))

    def empty(self, count: int) -> list[np.ndarray]:
        return [np.empty((count, *shape), dtype) for _, shape, dtype, _ in self._leaves]

    def write(self, batch: list[np.ndarray], row: int, obs: Any) -> None:
        """Copy one observation into a row. Raises `ValueError` for another shape: broadcasting would hide it."""
        for (path, shape, _, start), column in zip(self._leaves, batch, strict=True):
            part = obs
            for name in path:
                part = part[name]
            if getattr(part, "shape", ()) != shape and np.shape(part) != shape:
                where = f" of {'.'.join(path)!r}" if path else ""
                raise ValueError(f"an observation{where} of shape {np.shape(part)}, where its space says {shape}")
            column[row] = part - start if start else part

    def columns(self, batch: Any) -> list[np.ndarray]:
        """Fresh columns of observations that are batched already."""
        columns = []
        for path, _, dtype, start in self._leaves:
            part = batch
            for name in path:
                part = part[name]
            columns.append(np.array(part, dtype) - np.asarray(start, dtype))
        return columns

    def build(self, batch: list[np.ndarray]) -> Obs:
        """The batch in the structure of the space."""
        columns = iter(batch)

        def rebuild(space: Space) -> Obs:
            if isinstance(space, Dict):
                return {name: rebuild(part) for name, part in space.spaces.items()}
            return next(columns)

        return rebuild(self._space)


def _leaves(space: Space, path: tuple[str, ...]) -> list[tuple[tuple[str, ...], tuple[int, ...], str, int]]:
    """`(path, shape, dtype, start)` of each array."""
    match space:
        case Dict(spaces):
            return [leaf for name, part in spaces.items() for leaf in _leaves(part, (*path, name))]
        case Box(shape, dtype):
            return [(path, shape, dtype, 0)]
        case Discrete(start=start):
            return [(path, (), "int32", start)]
        case MultiDiscrete(nvec):
            return [(path, (len(nvec),), "int32", 0)]


def door(space: gym.Space) -> Callable[[np.ndarray], Any]:
    """What turns a batch of a policy's actions into what the environments take: clipped, shifted, in their dtype."""
    match space:
        case gym.spaces.Box():
            return lambda action: np.clip(action, space.low, space.high).astype(space.dtype)
        case gym.spaces.Discrete(start=start):
            return lambda action: (action + start).tolist() if start else action.tolist()
        case _:
            return lambda action: action.astype(space.dtype)
