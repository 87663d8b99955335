"""Checks and repairs of the columns of recorded data. A note says what was changed; an error names the bad column."""

from collections.abc import Callable, Iterator
from typing import Any, Literal

import jax
import numpy as np

from duologue.errors import ConfigError
from duologue.images import find_image
from duologue.types import (
    ACTION_MASK,
    Box,
    Discrete,
    Obs,
    Space,
    bad_masks,
    clip_to_bounds,
    describe_bad_mask,
    from_env_actions,
    has_mask,
)

TimeoutAndTerminal = Literal["timeout", "terminal"]
"""How to read rows flagged both timeout and terminal."""
ASSUMED = "Assumed: "
"""Beginning of the notes that become needless once the environment is known."""


def clean_columns(raw: dict[str, Any], notes: list[str]) -> dict[str, Any]:
    """The columns under D4RL's names, `[n, …]`, all of one length and finite. Adds to `notes`. Raises a `ConfigError`
    that names the column which is missing or bad."""
    for name in ("observations", "actions", "rewards"):
        if name not in raw:
            raise ConfigError(f"there is no column {name!r}, only {', '.join(sorted(raw)) or 'none'}.")
    if "terminals" not in raw:
        raise ConfigError(
            "there is no column 'terminals', which marks where the environment ended an episode, not a time limit. "
            "Add it, one truth value for each row: np.zeros(n, bool) if only time limits end episodes."
        )
    columns = {name: _check_column(CHECKS.get(name, _check_extra), name, column, notes) for name, column in raw.items()}
    (first, obs), *others = [named for name, column in columns.items() for named in _leaves(name, column)]
    for name, x in others:
        if len(x) != len(obs):
            raise ConfigError(
                f"column {name!r} has {len(x):,} rows: it must have {len(obs):,}, as column {first!r} has."
            )
    if not len(obs):
        raise ConfigError("there are no rows.")
    form = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype.name), tree)  # noqa: E731
    if "next_observations" in columns and form(columns["next_observations"]) != form(columns["observations"]):
        raise ConfigError("columns 'observations' and 'next_observations' differ: must have one shape and dtype.")
    return columns


def episode_flags(
    columns: dict[str, Any], timeout_and_terminal: TimeoutAndTerminal, notes: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    """`terminated` and `truncated` `[n]`; no row has both. Adds to `notes`."""
    terminals = columns["terminals"]
    timeouts = columns.get("timeouts", np.zeros_like(terminals))
    twice = terminals & timeouts
    if twice.any() and timeout_and_terminal == "timeout" and twice.sum() == timeouts.sum():
        notes.append(
            f"{rows_in_words(twice)}, all timeouts, are terminals too: read as time limits. "
            'To read them as terminals: timeout_and_terminal="terminal".'
        )
        return terminals & ~twice, timeouts
    if twice.any():
        notes.append(f"{rows_in_words(twice)} are both terminals and timeouts: read as terminals.")
    return terminals, timeouts & ~twice


def mask_entries(obs: Obs) -> int:
    """Number of entries of the action masks in observations `[n, …]`; 0 where there are none. Raises `ConfigError` for
    a row whose mask allows no action, or is no mask."""
    if not has_mask(obs) or (masks := obs[ACTION_MASK]).ndim != 2:
        return 0
    space = Discrete(masks.shape[1])  # recorded actions have one component
    if (bad := bad_masks(obs, space)).any():
        row = int(bad.argmax())
        raise ConfigError(
            f"column 'observations/{ACTION_MASK}': {rows_in_words(bad)} cannot mask an action. The first is row "
            f"{row:,}, with {describe_bad_mask(masks[row], space)}."
        )
    return space.n


def check_allowed(obs: Obs, action: np.ndarray, space: Space) -> None:
    """Raise `ConfigError` for a row whose mask forbids its action. Its probability would be 0, and so log π without
    bound. Actions count from 0."""
    if not isinstance(space, Discrete) or not has_mask(obs) or obs[ACTION_MASK].shape[1:] != (space.n,):
        return  # such a mask is refused with the spaces
    forbidden = np.take_along_axis(obs[ACTION_MASK], action[:, None], axis=1)[:, 0] == 0
    if forbidden.any():
        row = int(forbidden.argmax())
        raise ConfigError(
            f"{rows_in_words(forbidden)} have an action that the {ACTION_MASK} of the row forbids. The first is row "
            f"{row:,}, with action {action[row] + space.start}. Correct the masks, or leave out these rows."
        )


def clean_actions(x: np.ndarray, space: Space | None, notes: list[str], *, least: int = 0) -> tuple[np.ndarray, Space]:
    """Actions, float32 `[n, …]` or int32 `[n]` from 0, and their space. If `space` is `None`, it is guessed from the
    actions, with at `least` so many if they are discrete, and a note says so. Raises `ConfigError` for actions outside
    the space."""
    match space:
        case Discrete():
            return _clean_discrete(x, space, notes)
        case None if x[0].size == 1 and (x.dtype.kind != "f" or (x.ndim == 1 and _are_counts(x))):
            return _clean_discrete(x, None, notes, least)
        case None | Box():
            return _clean_continuous(x, space, notes)
    raise ConfigError(f"the action space {space} is not supported: it must be Box or Discrete.")


def _clean_discrete(
    x: np.ndarray, space: Discrete | None, notes: list[str], least: int = 0
) -> tuple[np.ndarray, Discrete]:
    kind, start = f"{x.dtype}{list(x.shape)}", 0 if space is None else space.start
    if x[0].size != 1 or not _are_counts(x := x.reshape(-1) - start):
        raise ConfigError(
            f"column 'actions' is {kind}: it must hold one integer for each row. Actions are numbered from {start}."
        )
    if space is None:
        space = Discrete(max(int(x.max()) + 1, least))
        why = "as many as a mask has entries" if space.n == least else "one more than the largest in the data"
        notes.append(f"{ASSUMED}there are {space.n} discrete actions, {why}.")
    if x.max() >= space.n:
        raise ConfigError(f"column 'actions' holds {int(x.max()) + start}: must be one of {space}.")
    if kind != f"int32[{len(x)}]":
        notes.append(f"actions: {kind} became int32[{len(x)}].")
    return x.astype(np.int32), space


def _clean_continuous(x: np.ndarray, space: Box | None, notes: list[str]) -> tuple[np.ndarray, Box]:
    single = space is not None and not space.shape  # one number without axes
    x = _to_float32("actions", x if single else _add_axis("actions", x, notes), notes)
    if space is not None:
        if x.shape[1:] != space.shape:
            raise ConfigError(f"column 'actions' has the shape {list(x.shape)}: it must have the shape of {space}.")
        return clip_actions(from_env_actions(space, x), space, "the file", notes), space
    if (np.abs(x) <= 1).all():
        low, high = (np.full(x[0].size, side).tolist() for side in (-1.0, 1.0))
        notes.append(f"{ASSUMED}actions are bounded by -1 and 1, within which all lie.")
    else:
        low, high = x.min(0).ravel().tolist(), x.max(0).ravel().tolist()
        notes.append(f"{ASSUMED}actions are bounded by the smallest and largest in the data.")
    return x.reshape(len(x), -1), Box(x.shape[1:], "float32", tuple(low), tuple(high))


def clip_actions(x: np.ndarray, space: Space, whose: str, notes: list[str]) -> np.ndarray:
    """Actions clipped to their box. The note names the owner of the box, `whose`."""
    within = clip_to_bounds(space, x)
    outside = rows_with_any(x != within)
    if outside.any():
        notes.append(f"actions: {rows_in_words(outside)} lay outside the bounds of {whose} and were clipped.")
    return within


def _are_counts(x: np.ndarray) -> bool:
    """Whether all values are integers from 0 to 2³¹ − 2."""
    return bool(((x >= 0) & (x < 2**31 - 1) & (x == np.floor(x))).all())


# Single columns


def _check_column(check: Callable[..., Any], name: str, column: Any, notes: list[str]) -> Any:
    """Apply `check` to a column, or to each part of a column that is a dict."""
    if not isinstance(column, dict):
        return check(name, _real_numbers(name, column, notes), notes)
    if not column or check is not _check_observation:
        raise ConfigError(f"column {name!r} is a dict of {', '.join(map(str, column)) or 'nothing'}: must be an array.")
    return {part: _check_column(check, f"{name}/{part}", x, notes) for part, x in column.items()}


def _leaves(name: str, column: Any) -> Iterator[tuple[str, np.ndarray]]:
    """The arrays of a column with their names, `NAME/PART` for the parts of a dict."""
    if not isinstance(column, dict):
        yield name, column
    else:
        for part, x in column.items():
            yield from _leaves(f"{name}/{part}", x)


def _real_numbers(name: str, x: Any, notes: list[str]) -> np.ndarray:
    """`x` as finite real numbers or booleans, in the byte order of this machine."""
    x = np.asarray(x)
    if x.dtype.kind not in "fiub" or not x.ndim:
        raise ConfigError(
            f"column {name!r} is {x.dtype}{list(x.shape)}: it must hold real numbers or booleans, with one row for "
            "each transition."
        )
    if not x.dtype.isnative:
        notes.append(f"{name}: bytes were swapped from {x.dtype.str}.")
        x = x.astype(x.dtype.newbyteorder("="))
    if x.dtype.kind == "f" and not np.isfinite(x).all():
        bad = ~np.isfinite(x)
        raise ConfigError(
            f"column {name!r} holds {bad.sum():,} NaN or infinite values, the first in row "
            f"{rows_with_any(bad).argmax():,}."
        )
    return x


def _to_float32(name: str, x: np.ndarray, notes: list[str]) -> np.ndarray:
    if x.dtype == np.float32:
        return x
    with np.errstate(over="ignore"):
        narrow = x.astype(np.float32)
    if not np.isfinite(narrow).all():
        row = rows_with_any(~np.isfinite(narrow)).argmax()
        raise ConfigError(f"column {name!r} holds numbers too large for float32, the first in row {row:,}.")
    notes.append(f"{name}: {x.dtype} became float32.")
    return narrow


def _add_axis(name: str, x: np.ndarray, notes: list[str]) -> np.ndarray:
    if x.ndim > 1:
        return x
    notes.append(f"{name}: one number for each row became a vector of one.")
    return x[:, None]


def _check_observation(name: str, x: np.ndarray, notes: list[str]) -> np.ndarray:
    """Images of bytes, of any size, stay as they are; everything else becomes float32."""
    if x.dtype == np.uint8 and find_image(Box(x.shape[1:], "uint8"), smallest=1):
        return x
    return _to_float32(name, _add_axis(name, x, notes), notes)


def _to_vector(name: str, x: np.ndarray, notes: list[str]) -> np.ndarray:
    if x.ndim == 2 and x.shape[1] == 1:
        notes.append(f"{name}: {list(x.shape)} became [{len(x)}].")
        x = x[:, 0]
    if x.ndim != 1:
        raise ConfigError(f"column {name!r} has the shape {list(x.shape)}: it must hold one value for each row.")
    return x


def _check_reward(name: str, x: np.ndarray, notes: list[str]) -> np.ndarray:
    return _to_float32(name, _to_vector(name, x, notes), notes)


def _check_flag(name: str, x: np.ndarray, notes: list[str]) -> np.ndarray:
    x = _to_vector(name, x, notes)
    if x.dtype.kind == "b":
        return x
    neither = (x != 0) & (x != 1)
    if neither.any():
        row = neither.argmax()
        raise ConfigError(f"column {name!r} holds {x[row]} in row {row:,}: must be 0 or 1.")
    notes.append(f"{name}: {x.dtype} became bool.")
    return x.astype(bool)


def _check_extra(name: str, x: np.ndarray, notes: list[str]) -> np.ndarray:
    """Integers become int32, floats float32; booleans stay."""
    if x.dtype.kind == "b" or x.dtype == np.int32:
        return x
    if x.dtype.kind == "f":
        return _to_float32(name, x, notes)
    if x.size and (x.min() < -(2**31) or x.max() >= 2**31):
        raise ConfigError(f"column {name!r} holds numbers too large for int32.")
    notes.append(f"{name}: {x.dtype} became int32.")
    return x.astype(np.int32)


CHECKS: dict[str, Callable[..., Any]] = {
    "observations": _check_observation, "next_observations": _check_observation,
    "actions": lambda name, x, notes: x, "rewards": _check_reward, "terminals": _check_flag, "timeouts": _check_flag,
}  # fmt: skip


# Rows


def rows_with_any(where: np.ndarray) -> np.ndarray:
    """For each row, whether anything in it is true, `[n]`."""
    return np.asarray(where.any(axis=tuple(range(1, where.ndim))))


def rows_in_words(rows: np.ndarray) -> str:
    """The number of true `rows`, in words."""
    return f"{rows.sum():,} of {len(rows):,} rows"
