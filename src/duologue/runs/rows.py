"""Rows of metrics during a run: their content, and the files that receive them."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Array

from duologue.data import ring as rings
from duologue.data.frames import TRANSITIONS_PER_CUT
from duologue.data.ring import Ring
from duologue.errors import divergence_error
from duologue.loops.offline import UpdateTotals
from duologue.loops.state import Totals
from duologue.ops.metrics import EVALUATION, LEARNED_RETURN, RETURN
from duologue.runs.display.loggers import JsonLines, Logger, TensorBoard
from duologue.runs.evaluation import Evaluation
from duologue.storage.jsonl import read_rows

Row = Mapping[str, np.ndarray | np.float64]
"""Metrics by name, `[S]` each for several seeds."""
LOST = "replay/lost_successors"
"""Name of the share of truncated rows in the replay whose image of the successor is lost."""


class RowWriter:
    """Writes rows to metrics.jsonl, TensorBoard and the user's loggers."""

    def __init__(self, path: Path, seeds: Sequence[int], start: int, loggers: Sequence[Logger]):
        self.seeds, self._file = seeds, JsonLines(path / "metrics.jsonl")
        self._loggers = [self._file, TensorBoard(path / "tb", seeds, start=start), *loggers]

    def write(self, step: int, row: Row) -> None:
        """Write one row for each seed."""
        for index, seed in enumerate(self.seeds):
            one = {name: float(np.ravel(value)[index] if np.ndim(value) else value) for name, value in row.items()}
            for logger in self._loggers:
                logger.write(step, seed, one)

    def sync(self) -> None:
        """Put all rows on disk."""
        self._file.sync()

    def close(self) -> None:
        """Close every logger."""
        for logger in self._loggers:
            logger.close()


def training_row(totals: Totals | UpdateTotals, *, steps: int, seconds: float, tasks: tuple[str, ...] = ()) -> dict:
    """Metrics of an interval of `steps` steps, under the names that users know; `[S]` each for several seeds."""
    return {**totals.summary(tasks), "time/fps": np.asarray(steps / max(seconds, 1e-9))}


def evaluation_row(score: Evaluation) -> dict:
    """Metrics that an evaluation adds to a row."""
    returns, lengths = np.asarray(score.returns, np.float64), np.asarray(score.lengths, np.float64)
    cut = np.zeros(lengths.shape) if score.was_cut is None else np.asarray(score.was_cut, np.float64)
    return {
        EVALUATION: returns.mean(-1),
        "eval/std_reward": returns.std(-1),
        "eval/mean_ep_length": lengths.mean(-1),
        "eval/cut": cut.sum(-1),
        **({} if score.successes is None else {"eval/success_rate": score.successes.mean(-1, dtype=np.float64)}),
        **({"eval/games": np.float64(score.reported)} if score.report_note else {}),
    }


def lost_successors_row(ring: Ring | None) -> dict:
    """The share of the truncated rows of a replay that have lost the image of their successor; empty while none has."""
    if ring is None or ring.frames is None:
        return {}
    lost, truncated = (np.asarray(x, np.float64) for x in _count_lost(ring, several=ring.written.ndim > 0))
    return {LOST: lost / np.maximum(truncated, 1)} if lost.any() else {}


@partial(jax.jit, static_argnames="several")
def _count_lost(ring: Ring, *, several: bool) -> tuple[Array, Array]:
    """`rings.lost_successors`, `[S]` each for several seeds."""
    return (jax.vmap(rings.lost_successors) if several else rings.lost_successors)(ring)


class RowRemarks:
    """What a person should know of the rows of a run. Each remark is made once."""

    def __init__(self, log_info: Sequence[str]):
        self._missing, self._made = list(log_info), set()

    def read(self, row: Row) -> list[str]:
        """The remarks on a row that are new."""
        self._missing = [name for name in self._missing if np.isnan(row.get(f"info/{name}", np.nan)).all()]
        remarks = [*self._on_games(row), *self._on_evaluation(row), *self._on_replay(row)]
        return [*remarks, *(self.missing_info() if np.any(row.get("rollout/episodes", 0)) else [])]

    def missing_info(self) -> list[str]:
        """A remark on the names of `log_info` that no step has given yet."""
        if not self._missing or not self._is_new("info"):
            return []
        names = ", ".join(f"info[{name!r}]" for name in self._missing)
        return [f"log_info: no step has given {names} so far. If a name is wrong, correct it"]

    def _on_games(self, row: Row) -> list[str]:
        games, episodes = (np.sum(row.get(name, 0)) for name in ("rollout/games", "rollout/episodes"))
        if "rollout/games" not in row or games == episodes or not self._is_new("games"):
            return []
        return [
            f"{games:,.0f} of {episodes:,.0f} episodes ended with a return in info['episode']: {RETURN} is the mean of "
            f"these, and {LEARNED_RETURN} is the mean of all"
        ]

    def _on_evaluation(self, row: Row) -> list[str]:
        if "eval/games" not in row or not self._is_new("evaluation"):
            return []
        return [
            f"{row['eval/games']:,.0f} of the test episodes ended with a return in info['episode'], and others did "
            f"not: {EVALUATION} is the mean return of the rewards that the agent learns from"
        ]

    def _on_replay(self, row: Row) -> list[str]:
        if LOST not in row or not self._is_new("replay"):
            return []
        return [
            f"replay: {np.max(row[LOST]):.0%} of the truncated rows have lost the image of their successor, and "
            f"bootstrap from their own image. The replay keeps one successor for {TRANSITIONS_PER_CUT} rows, and more "
            f"rows are truncated. Allow longer episodes; the rows tell the share as {LOST}"
        ]

    def _is_new(self, remark: str) -> bool:
        new = remark not in self._made
        self._made.add(remark)
        return new


def mean_over_seeds(value: np.ndarray | np.float64) -> float:
    """Mean over the seeds that have a number; NaN if none has."""
    known = np.ravel(value)[~np.isnan(np.ravel(value))]
    return float(known.mean()) if known.size else float("nan")


def check_finite(row: Row, step: int, seeds: Sequence[int]) -> None:
    """Raise `DuologueError` for a metric of learning that is not finite: the run has diverged."""
    for name, value in row.items():
        if name.startswith("train/") and not np.isfinite(value).all():
            first = seeds[int(np.argmin(np.isfinite(value)))]
            seed = "" if len(seeds) == 1 else f" for seed {first}"
            raise divergence_error(f"{name} is not finite at step {step:,}{seed}")


def last_evaluation(path: Path) -> int:
    """Step of the last evaluation in a run folder, 0 before the first."""
    file = path / "metrics.jsonl"
    return max((row["step"] for row in (read_rows(file) if file.exists() else []) if EVALUATION in row), default=0)
