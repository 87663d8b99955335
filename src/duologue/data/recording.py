"""What a file of recorded data holds, before it is cleaned: columns by D4RL's names, and what it says of itself."""

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
"""Of D4RL's `infos/…`, what a policy knew when it acted, and our names for it."""


class Recording(NamedTuple):
    """What a file holds: columns by D4RL's names, each `[n, …]` or a dict of such; what it says of its environment; and
    what the reader had to decide."""

    columns: dict[str, Any]
    env: str | None
    action: Space | None
    notes: list[str]


def extra_name(name: str) -> str | None:
    """Under which name a column is kept in `Transition.extras`; `None` if it is not."""
    group, _, rest = name.partition("/")
    return {"extras": rest or None, "infos": INFO_EXTRAS.get(rest)}.get(group)


def is_column(name: str) -> bool:
    """Whether a column is read: one of D4RL's, a part of an observation that is a dict, or one of the extras."""
    return name in COLUMNS or name.startswith(("observations/", "next_observations/")) or extra_name(name) is not None


def group_parts(columns: dict[str, Any]) -> dict[str, Any]:
    """`observations/NAME` gathered into a dict under `observations`, and likewise the next ones."""
    parts: dict[str, Any] = {}
    for name, column in columns.items():
        group, _, part = name.partition("/")
        if part and group in COLUMNS:
            parts.setdefault(group, {})[part] = column
    if twice := parts.keys() & columns.keys():
        raise ConfigError(f"column {min(twice)!r} is there both whole and in parts.")
    return parts | {name: column for name, column in columns.items() if name.partition("/")[0] not in parts}


@contextmanager
def convert_read_errors(path: Path) -> Iterator[None]:
    """Whatever a broken file makes the parsers raise becomes one `ConfigError`."""
    try:
        yield
    except (ConfigError, MissingExtraError):
        raise
    except Exception as error:  # h5py and zipfile raise nearly every kind
        raise ConfigError(f"cannot read {path}: {error or type(error).__name__}. Is the file whole?") from error


def unread_notes(names: Set[str]) -> list[str]:
    return [f"Not read: {', '.join(sorted(names))}."] if names else []


# What a file says of itself


def parse_env(said: Any, where: str, key: str) -> tuple[str | None, Space | None]:
    """The environment's id and action space, as far as they are told."""
    if not isinstance(said, dict):
        raise ConfigError(f"{where} must be a JSON object.")
    env, space = said.get(key), said.get("action_space")
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
    """`{"n": …}` or `{"low": …, "high": …}`, Minari's among them."""
    match value:
        case {"type": str(kind)} if kind not in ("Box", "Discrete"):
            raise ConfigError(f"{where} is a {kind}: must be a Box or Discrete.")
        case {"n": int(n)} if n > 0:
            start = value.get("start", 0)
            return Discrete(n, start if isinstance(start, int) else 0)
        case {"low": low, "high": high}:
            try:
                low, high = np.asarray(low, np.float32), np.asarray(high, np.float32)
            except (TypeError, ValueError):
                low = high = np.zeros(())
            if low.shape == high.shape and low.ndim and (low <= high).all():
                sides = [tuple(side.ravel().tolist()) if np.isfinite(side).all() else None for side in (low, high)]
                return Box(low.shape, "float32", *sides)
    raise ConfigError(f'{where} must be {{"n": 3}} or {{"low": [-1.0], "high": [1.0]}}.')


def parse_metadata(text: str, where: str, *, finite: bool = True) -> Any:
    """The value of JSON; strict, unless infinities are allowed, which Minari writes for bounds."""
    try:
        return json_text.loads(text, finite=finite)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{where} is not strict JSON: {error}") from error
