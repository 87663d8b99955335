"""The results of `reset` and `step` of a Gymnasium environment, read and checked.

The processes of environments import this module too, so it needs no JAX.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from duologue.errors import EnvError

NUMBERS = (float, int, np.floating, np.integer, np.bool_)
TRUTHS = (True, False)
"""Allowed values of a flag. NumPy's booleans, 0 and 1 are equal to them."""
SUCCESS = ("is_success", "success")
"""Entries of `info` that say whether an episode has succeeded. The first that is there counts."""
OLD = "as in Gym before 0.26"


def read_reset(result: Any) -> tuple[Any, Mapping[str, Any]]:
    """`(obs, info)` of a reset. Raises `EnvError` for any other result, such as an observation alone."""
    if isinstance(result, tuple | list) and len(result) == 2 and isinstance(result[1], Mapping | None):
        return result[0], result[1] or {}
    raise EnvError(
        f"returned {_describe(result)} from reset, and no info, {OLD}: must be (obs, info). Write `return obs, {{}}`"
    )


def read_step(result: Any) -> tuple[Any, Any, Any, Any, float | None]:
    """`(obs, reward, terminated, truncated, success)` from the five values of a step; `success` is `None` where `info`
    does not say it. Raises `EnvError` for any other result."""
    try:
        obs, reward, terminated, truncated, info = result
    except (TypeError, ValueError):
        old = f", {OLD}" if _length(result) == 4 else ""
        raise EnvError(
            f"returned {_describe(result)} from step{old}: must be (obs, reward, terminated, truncated, info). In "
            "place of done, return terminated, and truncated for a time limit"
        ) from None
    if not isinstance(reward, NUMBERS):
        reward = one_number(reward, "the reward")
    if terminated not in TRUTHS or truncated not in TRUTHS:
        raise EnvError(f"gave terminated = {terminated!r} and truncated = {truncated!r}: must be true or false")
    return obs, reward, terminated, truncated, read_success(info) if info else None


def read_success(info: Mapping[str, Any]) -> float | None:
    """Whether the episode has succeeded, as a number; `None` where `info` does not say it."""
    for name in SUCCESS:
        if (success := info.get(name)) is not None:
            return one_number(success, name)
    return None


def one_number(value: Any, what: str) -> float:
    """`value` as one number; an array with one element is allowed. Raises `EnvError` for all other values."""
    array = np.asarray(value)
    if array.size != 1 or array.dtype.kind not in "fiub":
        raise EnvError(f"gave {what} {value!r}, which must be one number")
    return float(array.reshape(()))


def _length(result: Any) -> int | None:
    return len(result) if isinstance(result, tuple | list) else None


def _describe(result: Any) -> str:
    count = _length(result)
    return type(result).__name__ if count is None else f"{count} values"
