"""Rows of metrics during a run: their content, and the files that receive them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from duologue.errors import divergence_error
from duologue.loops.offline import UpdateTotals
from duologue.loops.state import Totals
from duologue.ops.metrics import EVALUATION
from duologue.runs.display.loggers import JsonLines, Logger, TensorBoard
from duologue.runs.evaluation import Evaluation
from duologue.storage.jsonl import read_rows

Row = Mapping[str, np.ndarray | np.float64]
"""Metrics by name, `[S]` each for several seeds."""


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
    }


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
