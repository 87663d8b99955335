"""Receivers of metrics: JSON lines always, TensorBoard, and Weights & Biases.

Each is a `Logger`. Metrics arrive for one step and one seed at a time, under the tags that users know:
`rollout/ep_rew_mean`, `eval/mean_reward`, `time/fps`, `train/…`.
"""

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from tensorboardX import SummaryWriter

from duologue.errors import CheckpointError, MissingExtraError
from duologue.storage.jsonl import JsonRows, read_rows


@runtime_checkable
class Logger(Protocol):
    """Receives the metrics of a run."""

    def write(self, step: int, seed: int, metrics: Mapping[str, float]) -> None:
        """Record the metrics of one seed at one step."""
        ...

    def close(self) -> None:
        """Write everything that is still in memory."""
        ...


class JsonLines:
    """`metrics.jsonl`, strict JSON: a line `{"step": …, "seed": …, "time": seconds, …metrics}` for each step and seed.

    It appends lines and never rewrites a line. NaN and infinities become null. If the file exists already, new lines
    follow, and the time continues from its last line.
    """

    def __init__(self, path: Path):
        self._rows = JsonRows(path)
        before = read_metrics(path)
        self._began = time.perf_counter() - (before[-1]["time"] if before else 0.0)

    def write(self, step: int, seed: int, metrics: Mapping[str, float]) -> None:
        seconds = round(time.perf_counter() - self._began, 3)
        numbers = {name: float(value) if math.isfinite(value) else None for name, value in metrics.items()}
        self._rows.append({"step": step, "seed": seed, "time": seconds, **numbers})

    def sync(self) -> None:
        """Put all lines on disk. Call it before each checkpoint: a resumed run does not write earlier lines again."""
        self._rows.sync()

    def close(self) -> None:
        self._rows.close()


class TensorBoard:
    """TensorBoard event files in `directory`; with several seeds in a sub-directory `seed-K` each, which TensorBoard
    lists as a run of its own. It writes finite numbers only."""

    def __init__(self, directory: Path, seeds: Sequence[int], *, start: int = 0):
        several = len(seeds) > 1
        self._writers = {
            seed: SummaryWriter(
                str(directory / f"seed-{seed}" if several else directory),
                flush_secs=10,
                purge_step=start + 1 if start else None,  # TensorBoard drops later steps of the interrupted run
            )
            for seed in seeds
        }

    def write(self, step: int, seed: int, metrics: Mapping[str, float]) -> None:
        for tag, value in metrics.items():
            if math.isfinite(value):
                self._writers[seed].add_scalar(tag, value, step)

    def close(self) -> None:
        for writer in self._writers.values():
            writer.close()


class WandB:
    """Weights & Biases: one run for each seed, all in one group. It sends finite numbers only.

    Raises `MissingExtraError` without the extra `wandb`.
    """

    def __init__(self, project: str, config: Mapping[str, Any], *, group: str | None = None):
        try:
            import wandb  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise MissingExtraError("wandb", "logging to Weights & Biases") from error
        group = group or time.strftime("duologue-%Y%m%d-%H%M%S")
        self._runs: dict[int, Any] = {}
        self._begin = lambda seed: wandb.init(
            project=project,
            config={**config, "seed": seed},
            group=group,
            name=f"{group}-seed-{seed}",
            reinit="create_new",
        )

    def write(self, step: int, seed: int, metrics: Mapping[str, float]) -> None:
        if seed not in self._runs:
            self._runs[seed] = self._begin(seed)
        self._runs[seed].log({tag: value for tag, value in metrics.items() if math.isfinite(value)}, step=step)

    def close(self) -> None:
        for run in self._runs.values():
            run.finish()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Read the rows of a `metrics.jsonl`, in the order of the file. An incomplete last line, from a killed or a running
    process, is left out.

    Raises `CheckpointError` for a missing file, and for a line that is not strict JSON, with its number.
    """
    try:
        return read_rows(path)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} does not exist. Give the folder of a run, not {path.parent}.") from error


def metric_curve(rows: Sequence[Mapping[str, Any]], key: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """`(steps, values)` of one metric of one seed, in the order of steps, without rows where it is missing or null.

    A run that resumed from an earlier checkpoint may have written a step twice: the later row counts.
    """
    found = {row["step"]: row[key] for row in rows if row["seed"] == seed and row.get(key) is not None}
    steps = sorted(found)
    return np.asarray(steps, np.int64), np.asarray([found[step] for step in steps], np.float64)
