"""Recorded data as transitions: checked and cleaned, with a note for every repair.

A mistake here would silently harm learning, for example a time limit that is read as a termination, or a successor from
another episode. So the two flags are separate, and if the recording breaks off, the last row before the gap is cut.
"""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from duologue.data import cleaning as cleaning
from duologue.data import recording
from duologue.data.cleaning import ASSUMED, TimeoutAndTerminal, clip_actions, rows_in_words, rows_with_any
from duologue.data.readers import read_recording
from duologue.data.recording import Recording, unread_notes
from duologue.data.ring import Ring
from duologue.errors import ConfigError
from duologue.types import Box, Dict, Discrete, EnvSpec, MultiDiscrete, Obs, Space, Transition

TOLERANCE = 1e-5
"""Largest difference of a successor from the observation that follows; relative to that observation if it exceeds 1."""
UNNAMED_ENV = "<data>"
"""The environment's id in data that do not name one."""


@dataclass(frozen=True)
class DataSet:
    """Recorded transitions, and what is known about them."""

    rows: Transition
    """NumPy leaves `[n, …]` in order of time. The successor of a row is the next row, unless the row is flagged."""
    spec: EnvSpec
    """Spec of the recorded environment, as far as the data tell; after `adapt_to_env`, the environment's own."""
    notes: tuple[str, ...]
    """Every repair, drop and assumption, one sentence each."""
    source: str
    """Where the data come from: a path, a Minari id, or `<arrays>`."""
    digest: str
    """SHA-256 of the rows as read."""
    cut: tuple[int, ...] = ()
    """Numbers of the truncated rows where no episode ended: the recording breaks off there."""
    starts_episode: bool = True
    """Whether the first row begins an episode. In a replay that has wrapped, it may not."""

    @property
    def episode_starts(self) -> np.ndarray:
        """Which rows begin an episode, `[n]`. A row after a cut may begin one, but this is unknown: False."""
        ends = self.rows.terminated | self.rows.truncated
        ends[list(self.cut)] = False
        return np.append(self.starts_episode, ends[:-1])

    def __len__(self) -> int:
        return len(self.rows.reward)

    @property
    def nbytes(self) -> int:
        """Bytes of all rows."""
        return sum(x.nbytes for x in jax.tree.leaves(self.rows))


def read_dataset(source: str | Path, *, timeout_and_terminal: TimeoutAndTerminal = "timeout") -> DataSet:
    """The data of a `.npz` or HDF5 file, of a Minari folder, or of a downloaded Minari id.

    If all timeouts are flagged terminal too, they are time limits; with `timeout_and_terminal="terminal"` they are
    terminals. Raises `ConfigError` for data that cannot be read or used, `MissingExtraError` for HDF5 without the extra
    `minari`.
    """
    return _make_dataset(read_recording(source), str(source), timeout_and_terminal)


def from_columns(
    columns: dict[str, np.ndarray | dict[str, Any]],
    *,
    spec: EnvSpec | None = None,
    source: str = "<arrays>",
    timeout_and_terminal: TimeoutAndTerminal = "timeout",
) -> DataSet:
    """The data of arrays `[n, …]` under D4RL's names: `observations` (an array or a dict of arrays), `actions`,
    `rewards`, `terminals`; optional are `timeouts`, `next_observations` and `extras/NAME`.

    `spec` is that of the environment, `source` a name for messages; `timeout_and_terminal` says how to read rows
    flagged both timeout and terminal. Raises `ConfigError`.
    """
    read = {name: column for name, column in columns.items() if recording.is_column(name)}
    notes = unread_notes(columns.keys() - read.keys())
    if spec is None:
        return _make_dataset(Recording(read, None, None, notes), source, timeout_and_terminal)
    return adapt_to_env(_make_dataset(Recording(read, spec.id, spec.action, notes), source, timeout_and_terminal), spec)


def full_ring(data: DataSet) -> Ring:
    """A full ring with all rows of `data` as one environment, leaves `[n, 1, …]`, on the device."""
    rows: Transition = jax.tree.map(lambda x: jnp.asarray(x[:, None]), data.rows)
    return Ring(rows, jnp.asarray(len(data), jnp.int32), None)


# To the environment


def adapt_to_env(data: DataSet, spec: EnvSpec) -> DataSet:
    """The data as a recording of the environment of `spec`: with its dtypes and bounds, to which actions are clipped.

    Raises `ConfigError` for spaces of other shapes or kinds.
    """

    def mismatch_error(role: str, ours: Any, theirs: Any) -> ConfigError:
        return ConfigError(
            f"{data.source} has the {role} {ours}, {spec.id} has {theirs}: a file for another environment."
        )

    def adapt_obs(obs: Obs, ours: Space, theirs: Space) -> Obs:
        match ours, theirs:
            case _ if ours == theirs:
                return obs
            case Dict(spaces=mine), Dict(spaces=other) if mine.keys() == other.keys():
                return {name: adapt_obs(obs[name], mine[name], other[name]) for name in obs}
            case Box(shape=shape, dtype=kind), Box(shape=wanted, dtype=dtype) if shape == wanted:
                with np.errstate(invalid="ignore"):
                    cast = obs.astype(dtype, copy=False)
                # Bytes may be images for which the environment has floats from 0 to 1.
                scaled = kind == "uint8" and cast.dtype.kind == "f" and obs.max() > 1
                if kind == dtype or (not scaled and np.array_equal(cast, obs)):
                    return cast
            case Box(shape=(1,), dtype=kind), Box(shape=()):  # readers give every column an axis
                return adapt_obs(obs[:, 0], Box((), kind), theirs)
            case Box(shape=(1,)), Discrete(n=n, start=start) if np.isin(obs - start, np.arange(n)).all():
                return (obs[:, 0] - start).astype(np.int32)
            case Box(shape=shape), MultiDiscrete(nvec=nvec) if shape == (len(nvec),):
                values = obs - theirs.starts
                if (values >= 0).all() and (values < np.asarray(nvec)).all() and (values == np.floor(values)).all():
                    return values.astype(np.int32)
        raise mismatch_error("observation", ours, theirs)

    notes, action = [note for note in data.notes if not note.startswith(ASSUMED)], data.rows.action
    match data.spec.action, spec.action:
        case Discrete(start=before), Discrete(n=n, start=start):
            action = action + np.int32(before - start)
            if action.min() < 0 or action.max() >= n:
                raise mismatch_error("actions", f"{action.min()} … {action.max()} (counted from 0)", spec.action)
        case Box(shape=shape), Box(shape=wanted) if shape == wanted:
            action = clip_actions(action, spec.action, spec.id, notes)
        case ours, theirs:
            raise mismatch_error("action", ours, theirs)
    obs, next_obs = (adapt_obs(x, data.spec.observation, spec.observation) for x in (data.rows.obs, data.rows.next_obs))
    if (before := _dtype_names(data.rows.obs)) != (after := _dtype_names(obs)):
        notes.append(f"observations: {before} became {after}, as {spec.id} has them.")
    if data.spec.id not in (UNNAMED_ENV, spec.id):
        notes.append(f"The data were recorded in {data.spec.id}, and are used for {spec.id}.")
    rows = data.rows._replace(obs=obs, next_obs=next_obs, action=action)
    return replace(data, rows=rows, spec=spec, notes=tuple(notes))


def _dtype_names(obs: Obs) -> str:
    return ", ".join(x.dtype.name for x in jax.tree.leaves(obs))


# From columns to rows


def _make_dataset(recorded: Recording, source: str, timeout_and_terminal: TimeoutAndTerminal) -> DataSet:
    if timeout_and_terminal not in ("timeout", "terminal"):
        raise ConfigError(f"timeout_and_terminal = {timeout_and_terminal!r}: must be 'timeout' or 'terminal'.")
    try:
        notes = list(recorded.notes)
        columns = cleaning.clean_columns(recording.group_parts(recorded.columns), notes)
        terminated, truncated = cleaning.episode_flags(columns, timeout_and_terminal, notes)
        least = cleaning.mask_entries(columns["observations"])
        action, space = cleaning.clean_actions(columns["actions"], recorded.action, notes, least=least)
        extras: dict[str, Any] = {}
        for name, x in columns.items():
            if (kept := recording.extra_name(name)) and extras.setdefault(kept, x) is not x:
                raise ConfigError(f"two columns hold {kept!r}, one of them {name!r}.")
        obs, next_obs = columns["observations"], columns.get("next_observations")
        rows = Transition(obs, action, columns["rewards"], terminated, truncated, next_obs, extras)
        rows, cut = (_rows_by_shifting if next_obs is None else _rows_with_successors)(
            rows, "timeouts" in columns, notes
        )
        seen = {"observations": rows.obs, "actions": rows.action, "rewards": rows.reward}
        jax.tree.map_with_path(lambda path, x: _note_constants(path, x, notes), seen)
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from None
    spec = EnvSpec(recorded.env or UNNAMED_ENV, _observed_space(rows.obs, notes), space)
    return DataSet(rows, spec, tuple(notes), source, _hash_rows(rows), tuple(cut.tolist()))


def _rows_with_successors(rows: Transition, timeouts: bool, notes: list[str]) -> tuple[Transition, np.ndarray]:
    """Rows that have their own successors, and the numbers of the rows that are cut.

    The recording breaks off where the successor differs from the next observation. Without a column `timeouts` this is
    read as a time limit, else as a cut.
    """
    following = jax.tree.map(lambda x: x[1:], rows.obs)
    same = np.append(_same_observation(jax.tree.map(lambda x: x[:-1], rows.next_obs), following), False)
    last, ended = np.arange(len(same)) == len(same) - 1, rows.terminated | rows.truncated
    broken, unfinished = ~same & ~ended & ~last, last & ~ended
    if broken.any():
        what = "cut there" if timeouts else "read as time limits, because there is no column timeouts"
        notes.append(f"{rows_in_words(broken)} have a successor that differs from the next observation: {what}.")
    elif not timeouts:
        notes.append("There is no column timeouts, and no sign of an episode that ended by time limit.")
    if unfinished.any():
        notes.append("The last episode is unfinished: its last row was marked as truncated.")
    running = rows.truncated & same
    if running.any():
        notes.append(
            f"timeouts: {rows_in_words(running)} have the next row's observation as successor. If the environment "
            "was reset in between, next_observations are wrong there."
        )
    cut = unfinished | broken if timeouts else unfinished
    return rows._replace(truncated=rows.truncated | broken | unfinished), np.flatnonzero(cut)


def _rows_by_shifting(rows: Transition, timeouts: bool, notes: list[str]) -> tuple[Transition, np.ndarray]:
    """Rows whose successors are the observations of the next rows, and the numbers of the rows that are cut.

    A row at a time limit or at the end of the file has no successor there. It is dropped, and the row before is
    truncated.
    """
    terminated, truncated = rows.terminated, rows.truncated & ~rows.terminated
    unfinished = not (terminated[-1] or truncated[-1])
    dropped = truncated.copy()
    dropped[-1] |= unfinished
    before = np.append(dropped[1:], False) & ~terminated & ~dropped
    if not timeouts:
        notes.append("There are neither timeouts nor next_observations: time limits cannot be found.")
    if truncated.any():
        notes.append(
            f"{rows_in_words(truncated)} ended by time limit without a successor in next_observations. They were "
            "dropped, and the rows before them were marked as truncated. Returns lack their rewards."
        )
    if unfinished:
        notes.append("The last episode is unfinished: its last row has no successor and was dropped.")
    if dropped.all():
        raise ConfigError("no row has a successor. Add a column 'next_observations'.")

    def successor(x: np.ndarray) -> np.ndarray:
        own = terminated.reshape(-1, *(1,) * (x.ndim - 1))
        return np.where(own, x, np.roll(x, -1, axis=0))

    kept = ~dropped
    rows = rows._replace(truncated=before, next_obs=jax.tree.map(successor, rows.obs))
    cut = before & (np.arange(len(kept)) == len(kept) - 2) & unfinished
    return jax.tree.map(lambda x: x[kept], rows), np.flatnonzero(cut[kept])


def _same_observation(successor: Obs, following: Obs) -> np.ndarray:
    """For each row, whether two observations are the same, `[n]`."""

    def equal(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        if x.dtype == np.uint8:
            return ~rows_with_any(x != y)
        with np.errstate(over="ignore"):
            return ~rows_with_any(np.abs(x - y) > TOLERANCE * np.maximum(1, np.abs(y)))

    return np.logical_and.reduce(jax.tree.leaves(jax.tree.map(equal, successor, following)))


def _note_constants(path: Any, x: np.ndarray, notes: list[str]) -> None:
    """Add a note if numbers `[n]`, or some entries of vectors `[n, d]`, never change."""
    if len(x) < 2 or x.ndim > 2 or not (still := np.flatnonzero((x == x[0]).all(0))).size:
        return
    name, more = path[0].key + jax.tree_util.keystr(path[1:]), ", …" * (len(still) > 8)
    which = ", ".join(map(str, still[:8].tolist()))
    of_entries = f"{len(still)} of {x.shape[1]} entries never change ({which}{more})." if x.ndim == 2 else ""
    notes.append(f"{name}: {of_entries or f'all are {x[0]:g}.'}")


def _observed_space(obs: Obs, notes: list[str], name: str = "observations") -> Space:
    """The space of observations `[n, …]`. Bytes of 0 and 1 are assumed to have these bounds."""
    if isinstance(obs, dict):
        return Dict({key: _observed_space(part, notes, f"{name}/{key}") for key, part in obs.items()})
    if obs.dtype == np.uint8 and obs.max() == 1:
        notes.append(f"{ASSUMED}{name} are bytes from 0 to 1.")
        return Box(obs.shape[1:], "uint8", (0.0,), (1.0,))
    return Box(obs.shape[1:], obs.dtype.name)


def _hash_rows(rows: Transition) -> str:
    digest = hashlib.sha256()
    for path, x in jax.tree_util.tree_leaves_with_path(rows):
        digest.update(f"{jax.tree_util.keystr(path)} {x.dtype.name} {list(x.shape)}".encode())
        digest.update(np.ascontiguousarray(x).data)
    return digest.hexdigest()
