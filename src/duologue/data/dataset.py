"""Recorded data as transitions: checked, cleaned, and every repair told.

What goes wrong here goes wrong in silence later: a time limit taken for a death, a successor from another episode. So
both flags are kept apart, and wherever the record breaks off, its last row is cut.
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
"""How far a successor may lie from the observation that follows it, relative to it where that is above 1."""
UNNAMED_ENV = "<data>"
"""The environment of data that name none."""


@dataclass(frozen=True)
class DataSet:
    """Recorded transitions, and what is known of them."""

    rows: Transition
    """NumPy leaves `[n, …]` in order of time. After each row comes its successor, unless it is flagged."""
    spec: EnvSpec
    """Of the environment that was recorded, as far as the data tells; after `fit`, the environment's own."""
    notes: tuple[str, ...]
    """Every repair, drop and assumption, a sentence each."""
    source: str
    digest: str
    """SHA-256 of the rows as they were read."""
    cut: tuple[int, ...] = ()
    """Truncated rows where no episode ended: the recording breaks off there."""
    begun: bool = True
    """Whether the first row begins an episode. A replay that has gone round begins in the midst of one."""

    @property
    def episode_starts(self) -> np.ndarray:
        """Which rows begin an episode, `[n]`. Of one behind a cut that is not known, and not said."""
        ends = self.rows.terminated | self.rows.truncated
        ends[list(self.cut)] = False
        return np.append(self.begun, ends[:-1])

    def __len__(self) -> int:
        return len(self.rows.reward)

    @property
    def nbytes(self) -> int:
        return sum(x.nbytes for x in jax.tree.leaves(self.rows))


def read_dataset(source: str | Path, *, timeout_and_terminal: TimeoutAndTerminal = "timeout") -> DataSet:
    """The data of a `.npz` or HDF5 file, of a Minari folder, or of a Minari id that was downloaded.

    Where all time limits are flagged as terminals too, they are time limits, unless `timeout_and_terminal` says
    `"terminal"`. Raises `ConfigError` for what cannot be read or used, `MissingExtraError` for HDF5 without the extra
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
    """The data of arrays `[n, …]` under D4RL's names: `observations` (or a dict of arrays), `actions`, `rewards`,
    `terminals`, and if there are any `timeouts`, `next_observations`, `extras/NAME`. Raises `ConfigError`."""
    read = {name: column for name, column in columns.items() if recording.is_column(name)}
    notes = unread_notes(columns.keys() - read.keys())
    if spec is None:
        return _make_dataset(Recording(read, None, None, notes), source, timeout_and_terminal)
    return adapt_to_env(_make_dataset(Recording(read, spec.id, spec.action, notes), source, timeout_and_terminal), spec)


def full_ring(data: DataSet) -> Ring:
    """A full ring of one environment on the device, leaves `[n, 1, …]`, to `sample` from."""
    rows: Transition = jax.tree.map(lambda x: jnp.asarray(x[:, None]), data.rows)
    return Ring(rows, jnp.asarray(len(data), jnp.int32), None)


# To the environment


def adapt_to_env(data: DataSet, spec: EnvSpec) -> DataSet:
    """The data as recordings of this environment, with its bounds; actions beyond them are clipped. Raises
    `ConfigError` where shapes or kinds differ."""

    def refused(role: str, ours: Any, theirs: Any) -> ConfigError:
        return ConfigError(f"{data.source} has the {role} {ours}, {spec.id} {theirs}: a file for another environment.")

    def observed(obs: Obs, ours: Space, theirs: Space) -> Obs:
        match ours, theirs:
            case _ if ours == theirs:
                return obs
            case Dict(spaces=mine), Dict(spaces=other) if mine.keys() == other.keys():
                return {name: observed(obs[name], mine[name], other[name]) for name in obs}
            case Box(shape=shape, dtype=kind), Box(shape=wanted, dtype=dtype) if shape == wanted:
                with np.errstate(invalid="ignore"):
                    cast = obs.astype(dtype, copy=False)
                # Bytes may be an image whose floats go from 0 to 1.
                if kind == dtype or (kind != "uint8" and np.array_equal(cast, obs)):
                    return cast
            case Box(shape=(1,)), Discrete(n=n, start=start) if np.isin(obs - start, np.arange(n)).all():
                return (obs[:, 0] - start).astype(np.int32)
            case Box(shape=shape), MultiDiscrete(nvec=nvec) if shape == (len(nvec),):
                if (obs >= 0).all() and (obs < np.asarray(nvec)).all() and (obs == np.floor(obs)).all():
                    return obs.astype(np.int32)
        raise refused("observation", data.spec.observation, spec.observation)

    notes, action = [note for note in data.notes if not note.startswith(ASSUMED)], data.rows.action
    match data.spec.action, spec.action:
        case Discrete(start=before), Discrete(n=n, start=start):
            action = action + np.int32(before - start)
            if action.min() < 0 or action.max() >= n:
                raise refused("actions", f"{action.min()} … {action.max()} (counted from 0)", spec.action)
        case Box(shape=shape), Box(shape=wanted) if shape == wanted:
            action = clip_actions(action, spec.action, spec.id, notes)
        case ours, theirs:
            raise refused("action", ours, theirs)
    obs, next_obs = (observed(x, data.spec.observation, spec.observation) for x in (data.rows.obs, data.rows.next_obs))
    if (before := _dtype_names(data.rows.obs)) != (after := _dtype_names(obs)):
        notes.append(f"observations: {before} became {after}, as {spec.id} has them.")
    if data.spec.id not in (UNNAMED_ENV, spec.id):
        notes.append(f"They were recorded in {data.spec.id}, and are used for {spec.id}.")
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
        action, space = cleaning.clean_actions(columns["actions"], recorded.action, notes)
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
    spec = EnvSpec(recorded.env or UNNAMED_ENV, _observed_space(rows.obs), space)
    return DataSet(rows, spec, tuple(notes), source, _hash_rows(rows), tuple(cut.tolist()))


def _rows_with_successors(rows: Transition, timeouts: bool, notes: list[str]) -> tuple[Transition, np.ndarray]:
    """Rows with successors of their own. Where the next observation is another one, the record breaks off: that is a
    time limit in a file without `timeouts`, else a cut. The rows cut come second."""
    following = jax.tree.map(lambda x: x[1:], rows.obs)
    same = np.append(_same_observation(jax.tree.map(lambda x: x[:-1], rows.next_obs), following), False)
    last, ended = np.arange(len(same)) == len(same) - 1, rows.terminated | rows.truncated
    broken, unfinished = ~same & ~ended & ~last, last & ~ended
    if broken.any():
        what = "cut there" if timeouts else "taken for time limits, as there is no column timeouts"
        notes.append(f"{rows_in_words(broken)} are followed by another observation than their successor: {what}.")
    elif not timeouts:
        notes.append("There is no column timeouts, and no episode was seen to end by time limit.")
    if unfinished.any():
        notes.append("The last episode is unfinished: its last row was marked as truncated.")
    running = rows.truncated & same
    if running.any():
        notes.append(
            f"timeouts: {rows_in_words(running)} have the next row's observation as successor. If the environment "
            "was reset in between, the file's next_observations are wrong there."
        )
    cut = unfinished | broken if timeouts else unfinished
    return rows._replace(truncated=rows.truncated | broken | unfinished), np.flatnonzero(cut)


def _rows_by_shifting(rows: Transition, timeouts: bool, notes: list[str]) -> tuple[Transition, np.ndarray]:
    """Rows whose successor is the next row's observation. Those that have none there, because a time limit or the end
    of the file came between, are dropped, and the rows before are cut."""
    terminated, truncated = rows.terminated, rows.truncated & ~rows.terminated
    unfinished = not (terminated[-1] or truncated[-1])
    dropped = truncated.copy()
    dropped[-1] |= unfinished
    before = np.append(dropped[1:], False) & ~terminated & ~dropped
    if not timeouts:
        notes.append("There are neither timeouts nor next_observations: where time limits fell cannot be told.")
    if truncated.any():
        notes.append(
            f"{rows_in_words(truncated)} ended by time limit with no next_observations to tell the successor: "
            "dropped, the rows before marked as truncated; returns lack their rewards."
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
    """For each row, whether two observations are the same one."""

    def equal(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        if x.dtype == np.uint8:
            return ~rows_with_any(x != y)
        with np.errstate(over="ignore"):
            return ~rows_with_any(np.abs(x - y) > TOLERANCE * np.maximum(1, np.abs(y)))

    return np.logical_and.reduce(jax.tree.leaves(jax.tree.map(equal, successor, following)))


def _note_constants(path: Any, x: np.ndarray, notes: list[str]) -> None:
    """Tell of numbers `[n]` that they never change, or which entries of vectors `[n, d]` do not."""
    if len(x) < 2 or x.ndim > 2 or not (still := np.flatnonzero((x == x[0]).all(0))).size:
        return
    name, more = path[0].key + jax.tree_util.keystr(path[1:]), ", …" * (len(still) > 8)
    which = ", ".join(map(str, still[:8].tolist()))
    of_entries = f"{len(still)} of {x.shape[1]} entries never change ({which}{more})." if x.ndim == 2 else ""
    notes.append(f"{name}: {of_entries or f'all are {x[0]:g}.'}")


def _observed_space(obs: Obs) -> Space:
    if isinstance(obs, dict):
        return Dict({name: _observed_space(part) for name, part in obs.items()})
    return Box(obs.shape[1:], obs.dtype.name)


def _hash_rows(rows: Transition) -> str:
    digest = hashlib.sha256()
    for path, x in jax.tree_util.tree_leaves_with_path(rows):
        digest.update(f"{jax.tree_util.keystr(path)} {x.dtype.name} {list(x.shape)}".encode())
        digest.update(np.ascontiguousarray(x).data)
    return digest.hexdigest()
