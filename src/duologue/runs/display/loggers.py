"""Where numbers go: JSON lines always, TensorBoard and Weights & Biases beside them.

Every destination is a `Logger`. Metrics arrive one (step, seed) at a time, under the tags that users know:
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
    def write(self, step: int, seed: int, metrics: Mapping[str, float]) -> None:
        """Take note of the metrics of one seed at one environment step."""
        ...

    def close(self) -> None: ...


class JsonLines:
    """`metrics.jsonl`: one line a (step, seed), `{"step": …, "seed": …, "time": seconds, …metrics}`, strict JSON.

    Lines are appended one by one, never rewritten; NaN and infinities become null. A file that is there already goes
    on, its clock included.
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
        """Make every line so far durable: before a checkpoint, after which they will not be written again."""
        self._rows.sync()

    def close(self) -> None:
        self._rows.close()


class TensorBoard:
    """TensorBoard event files in `directory`; with several seeds in a sub-directory `seed-K` each, so that TensorBoard
    lists them as runs of their own. Only finite numbers are written."""

    def __init__(self, directory: Path, seeds: Sequence[int], *, start: int = 0):
        several = len(seeds) > 1
        self._writers = {
            seed: SummaryWriter(
                str(directory / f"seed-{seed}" if several else directory),
                flush_secs=10,
                purge_step=start + 1 if start else None,  # TensorBoard forgets what an interrupted run wrote after it
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
    """Weights & Biases: one run for each seed, all in one group. Only finite numbers are sent.

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
    """The rows of a `metrics.jsonl`, in the order written; a last line that a killed or running process left without
    its end is passed over.

    Raises `CheckpointError` if there is no such file, or for a line that is not strict JSON, by its number.
    """
    try:
        return read_rows(path)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} does not exist: is {path.parent} the folder of a run?") from error


def metric_curve(rows: Sequence[Mapping[str, Any]], key: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """`(steps, values)` of one metric of one seed, by rising step, without the rows that lack it or hold null.

    Where a step was written twice, by a run resumed from an earlier checkpoint, the later row counts.
    """
    found = {row["step"]: row[key] for row in rows if row["seed"] == seed and row.get(key) is not None}
    steps = sorted(found)
    return np.asarray(steps, np.int64), np.asarray([found[step] for step in steps], np.float64)
