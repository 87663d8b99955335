"""The results of `reset` and `step` of a Gymnasium environment, read and checked.

The processes of environments import this module too, so it needs no JAX.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from duologue.errors import EnvError

NUMBERS = (float, int, np.floating, np.integer, np.bool_)
TRUTHS = (True, False)
"""Allowed values of a flag. NumPy's booleans, 0 and 1 are equal to them."""
SUCCESS = ("is_success", "success")
"""Entries of `info` that say whether an episode has succeeded. The first that is there counts."""
GAME_RETURN = "episode/r"
"""Name, among our numbers of a step, of the return that the environment itself reports for an episode:
`info["episode"]["r"]`, as Gymnasium's `RecordEpisodeStatistics` writes it."""
OLD = "as in Gym before 0.26"


def read_reset(result: Any) -> tuple[Any, Mapping[str, Any]]:
    """`(obs, info)` of a reset. Raises `EnvError` for any other result, such as an observation alone."""
    if isinstance(result, tuple | list) and len(result) == 2 and isinstance(result[1], Mapping | None):
        return result[0], result[1] or {}
    raise EnvError(
        f"returned {_describe(result)} from reset, and no info, {OLD}: must be (obs, info). Write `return obs, {{}}`"
    )


def read_step(
    result: Any, names: Sequence[str] = (), statistics: Any = None
) -> tuple[Any, Any, Any, Any, dict[str, float]]:
    """`(obs, reward, terminated, truncated, numbers)` from the five values of a step. `numbers` are those of `info`
    that the library reads: `is_success`, `GAME_RETURN` at the end of an episode, and those with the given `names`.

    A time limit outside of `statistics`, the wrapper that counts the game's return, ends an episode that the wrapper
    does not report. Then the return is the wrapper's sum so far. Raises `EnvError` for any other result.
    """
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
    numbers = read_numbers(info, names) if info else {}
    if terminated or truncated:
        game = read_return(info) if info else None
        if game is None and truncated and statistics is not None:
            game = statistics.episode_returns
        if game is not None:
            numbers[GAME_RETURN] = finite_number(game, "info['episode']['r']")
    return obs, reward, terminated, truncated, numbers


def read_numbers(info: Mapping[str, Any], names: Sequence[str]) -> dict[str, float]:
    """`is_success` and the entries with these `names`, as far as `info` has them. Raises `EnvError` for a named entry
    that is not one finite number."""
    numbers = {name: finite_number(info[name], f"info[{name!r}]") for name in names if name in info}
    if (success := read_success(info)) is not None:
        numbers["is_success"] = success
    return numbers


def read_return(info: Mapping[str, Any]) -> Any:
    """The return of the episode as the environment reports it; `None` where it does not. Wrappers that reset by
    themselves put it into `final_info`."""
    for part in (info, info.get("final_info")):
        episode = part.get("episode") if isinstance(part, Mapping) else None
        if isinstance(episode, Mapping) and episode.get("r") is not None:
            return episode["r"]
    return None


def missing_numbers(name: str, count: int) -> np.ndarray:
    """NaN for each of `count` environments: float64 for returns, which are sums, and float32 for other numbers."""
    return np.full(count, np.nan, np.float64 if name == GAME_RETURN else np.float32)


def numbers_as_info(numbers: Mapping[str, float]) -> dict[str, Any]:
    """An `info` with no more than the `numbers` of a step, from which `read_step` reads them again."""
    rest = {name: value for name, value in numbers.items() if name != GAME_RETURN}
    return rest | ({"episode": {"r": numbers[GAME_RETURN]}} if GAME_RETURN in numbers else {})


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


def finite_number(value: Any, what: str) -> float:
    """`value` as one finite number. Raises `EnvError` for all other values."""
    number = one_number(value, what)
    if not math.isfinite(number):
        raise EnvError(f"gave {what} = {number}: must be a finite number. Leave it out where it has no value")
    return number


def _length(result: Any) -> int | None:
    return len(result) if isinstance(result, tuple | list) else None


def _describe(result: Any) -> str:
    count = _length(result)
    return type(result).__name__ if count is None else f"{count} values"
