"""The content of a file of recorded data before it is cleaned: columns under D4RL's names, and metadata."""

from collections.abc import Iterator, Set
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from duologue.errors import ConfigError, MissingExtraError
from duologue.storage import json_text
from duologue.types import Box, Discrete, Space

COLUMNS = ("observations", "actions", "rewards", "terminals", "timeouts", "next_observations")
INFO_EXTRAS = {name: name for name in ("log_prob", "raw_action", "probs", "loc", "scale")} | {
    "action_log_probs": "log_prob"
}
"""Entries of D4RL's `infos/…` about the policy that acted, and our names for them."""


class Recording(NamedTuple):
    """The content of a file."""

    columns: dict[str, Any]
    """Columns by D4RL's names, each `[n, …]` or a dict of such arrays."""
    env: str | None
    """Id of the environment, if the file has it."""
    action: Space | None
    """Action space, if the file has it."""
    notes: list[str]
    """Decisions of the reader, one sentence each."""


def extra_name(name: str) -> str | None:
    """The name of a column in `Transition.extras`; `None` for a column that is not kept there."""
    group, _, rest = name.partition("/")
    return {"extras": rest or None, "infos": INFO_EXTRAS.get(rest)}.get(group)


def is_column(name: str) -> bool:
    """Whether a name is that of a column to read: one of D4RL's, a part of a dict of observations, or an extra."""
    return name in COLUMNS or name.startswith(("observations/", "next_observations/")) or extra_name(name) is not None


def group_parts(columns: dict[str, Any]) -> dict[str, Any]:
    """The columns, with all `observations/NAME` in one dict under `observations`; the same for `next_observations`."""
    parts: dict[str, Any] = {}
    for name, column in columns.items():
        group, _, part = name.partition("/")
        if part and group in COLUMNS:
            parts.setdefault(group, {})[part] = column
    if twice := parts.keys() & columns.keys():
        raise ConfigError(
            f"column {min(twice)!r} is given twice, as one array and as a group of arrays. Keep one of them."
        )
    return parts | {name: column for name, column in columns.items() if name.partition("/")[0] not in parts}


@contextmanager
def convert_read_errors(path: Path) -> Iterator[None]:
    """Convert every error that a parser raises for a broken file into a `ConfigError`."""
    try:
        yield
    except (ConfigError, MissingExtraError):
        raise
    except Exception as error:  # h5py and zipfile raise nearly every kind
        raise ConfigError(
            f"cannot read {path}: {error or type(error).__name__}. The file may be incomplete or damaged."
        ) from error


def unread_notes(names: Set[str]) -> list[str]:
    """A note about the columns that are not read, if any."""
    return [f"Not read: {', '.join(sorted(names))}."] if names else []


# Metadata


def parse_env(metadata: Any, where: str, key: str) -> tuple[str | None, Space | None]:
    """Id and action space of the environment in a file's metadata, `None` where missing. Raises `ConfigError`."""
    if not isinstance(metadata, dict):
        raise ConfigError(f"{where} must be a JSON object.")
    env, space = metadata.get(key), metadata.get("action_space")
    if isinstance(env, str) and env.startswith("{"):
        env = parse_metadata(env, f"{where}: {key!r}", finite=False)
    if isinstance(env, dict):
        env = env.get("id")
    if not isinstance(env, str | None):
        raise ConfigError(f"{where}: {key!r} must be the id of an environment.")
    if isinstance(space, str):
        space = parse_metadata(space, f"{where}: 'action_space'", finite=False)
    return env, None if space is None else _parse_space(space, f"{where}: 'action_space'")


def _parse_space(value: Any, where: str) -> Space:
    """The space of `{"n": …}` or `{"low": …, "high": …}`, as Minari writes them too."""
    match value:
        case {"type": str(kind)} if kind not in ("Box", "Discrete"):
            raise ConfigError(f"{where} is a {kind}: must be a Box or Discrete.")
        case {"n": int(n)} if n > 0:
            start = value.get("start", 0)
            return Discrete(n, start if isinstance(start, int) else 0)
        case {"low": low, "high": high}:
            try:  # NumPy reads null, an element without a bound, as NaN
                low, high = np.asarray(low, np.float32), np.asarray(high, np.float32)
            except (TypeError, ValueError):
                low, high = np.zeros(0), np.zeros(1)  # no Box
            if low.shape == high.shape and not (low > high).any():
                sides = [[float(x) if np.isfinite(x) else None for x in side.ravel()] for side in (low, high)]
                return Box(low.shape, "float32", *(None if set(side) == {None} else tuple(side) for side in sides))
    raise ConfigError(f'{where} must be {{"n": 3}} or {{"low": [-1.0], "high": [1.0]}}.')


def parse_metadata(text: str, where: str, *, finite: bool = True) -> Any:
    """The value of strict JSON; with `finite=False` infinities are allowed, which Minari writes for bounds."""
    try:
        return json_text.loads(text, finite=finite)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{where} is not strict JSON: {error}") from error
