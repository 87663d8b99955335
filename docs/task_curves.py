"""The return of each task while SAC-X trains, a panel a task: `python docs/task_curves.py RUN [RUN ...] --out NAME`.

Runs of one scheduler are one line, the mean over their seeds, with its 95 % bootstrap interval as a band. All
intentions act while training, so a curve says what all of them together earned of a task, an episode.
"""

import argparse
from pathlib import Path

import matplotlib
import numpy as np

from duologue.runs.display import loggers as log
from duologue.runs.display.curves import COLOURS, average_curves
from duologue.runs.plan import read_plan

matplotlib.use("agg")
import matplotlib.pyplot as plt

FIGURES = Path(__file__).parent / "figures"
NAMES = {"QTable": "SAC-Q", "Uniform": "SAC-U"}
WINDOW = 5
"""Rows of metrics that a point is the mean of."""


def smoothed(steps: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means over `WINDOW` points."""
    kept = len(steps) // WINDOW * WINDOW
    return steps[WINDOW - 1 : kept : WINDOW], values[:kept].reshape(-1, WINDOW).mean(1)


def scheduler(path: Path) -> str:
    name = type(read_plan(path).algorithm.scheduler).__name__  # pyright: ignore[reportAttributeAccessIssue]
    return NAMES.get(name, name)


def curve(path: Path, task: str) -> tuple[np.ndarray, np.ndarray]:
    return smoothed(
        *log.metric_curve(log.read_metrics(path / "metrics.jsonl"), f"rollout/ep_rew_mean/{task}", read_plan(path).seed)
    )


def main(paths: list[Path], out: Path) -> None:
    plan, groups = (
        read_plan(paths[0]),
        {kind: [p for p in paths if scheduler(p) == kind] for kind in map(scheduler, paths)},
    )
    tasks = plan.spec.tasks
    figure, axes = plt.subplots(
        2, -(-len(tasks) // 2), figsize=(9, 4.8), sharex=True, squeeze=False, layout="constrained"
    )
    for task, axis in zip(tasks, axes.flat, strict=False):
        for (kind, of_kind), colour in zip(groups.items(), COLOURS, strict=False):
            line = average_curves([curve(path, task) for path in of_kind])
            axis.plot(line.steps, line.mean, color=colour, linewidth=1.4, label=f"{kind}, {line.seeds} seeds")
            axis.fill_between(line.steps, line.low, line.high, color=colour, alpha=0.16, linewidth=0)
        axis.set_title(task.replace("_", " ") + (" (main)" if task == tasks[-1] else ""), fontsize=9, loc="left")
        axis.tick_params(labelsize=7, color="#aaaaaa", labelcolor="#444444")
        axis.xaxis.set_major_formatter(lambda value, _: f"{value / 1000:,.0f} k")
        axis.grid(axis="y", color="#e4e4e4", linewidth=0.8)
        axis.spines[["top", "right"]].set_visible(False)
    for axis in axes.flat[len(tasks) :]:
        axis.set_visible(False)
    figure.supxlabel("environment steps", fontsize=9)
    figure.supylabel("return of the task, an episode in training", fontsize=9)
    figure.legend(
        *axes[0, 0].get_legend_handles_labels(), loc="outside upper right", fontsize=8, frameon=False, ncols=2
    )
    figure.suptitle(f"{plan.env}: every task while training", fontsize=10, x=0.01, ha="left")
    figure.savefig(out, dpi=120)
    print(f"wrote {out}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run folders, of one environment")
    parser.add_argument("--out", default="sac-x-tasks.png", metavar="NAME", help="of the picture in docs/figures")
    options = parser.parse_args()
    main(options.runs, FIGURES / options.out)
