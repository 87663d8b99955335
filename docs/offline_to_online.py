"""From data to the environment: `python docs/offline_to_online.py DATA [--folder runs/offline-to-online]`.

IQL learns HalfCheetah from recorded data, then goes on in the environment with half of each batch from the data; beside
it IQL that begins in the environment with nothing. Three seeds each. What is finished is not done again, and what was
interrupted goes on, so start it again until it draws.
"""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib

import duologue as dl
from duologue.ops.metrics import EVALUATION
from duologue.runs.display import loggers as log
from duologue.runs.display.curves import COLOURS, Curve, average_curves
from duologue.storage import checkpoint

matplotlib.use("agg")
import matplotlib.pyplot as plt

OUT = Path(__file__).parent / "figures" / "offline-to-online.png"
ENV, STEPS, EVERY, SEEDS = "HalfCheetah-v5", 50_000, 5_000, (0, 1, 2)
IQL = dl.IQL(networks=dl.Networks(hidden_sizes=(256, 256), activation="relu", init="lecun"))
"""As the figure was made: IQL's default networks of that day."""


def finished(folder: Path, begin: Callable[..., Any]) -> dl.Run:
    """The run in `folder`, begun where there is none, or gone on with."""
    if not checkpoint.has_checkpoint(folder):
        return begin(steps=STEPS, evaluate_every=EVERY, run_dir=folder)
    run = dl.load(folder)
    run = run if run.step >= STEPS else run.resume()
    assert isinstance(run, dl.Run)
    return run


def curve(run: dl.Run, began: int = 0) -> Curve:
    steps, values = log.metric_curve(log.read_metrics(run.path / "metrics.jsonl"), EVALUATION, run.seed)
    return steps + began, values


def main(data: Path, folder: Path) -> None:
    offline, online, alone = [], [], []
    for seed in SEEDS:
        learn = partial(dl.train, IQL, ENV, seed=seed)
        first = finished(folder / f"offline-{seed}", partial(learn, dataset=data))
        then = finished(folder / f"online-{seed}", first.finetune)
        fresh = finished(folder / f"alone-{seed}", learn)
        offline.append(curve(first))
        online.append(curve(then, STEPS))
        alone.append(curve(fresh, STEPS))
    figure, axis = plt.subplots(figsize=(7, 3.6), layout="constrained")
    for curves, colour, label in (
        (offline, COLOURS[0], "on data alone"),
        (online, COLOURS[1], "then in the environment, half of each batch data"),
        (alone, COLOURS[2], "in the environment from nothing"),
    ):
        line = average_curves(curves)
        axis.plot(line.steps, line.mean, color=colour, linewidth=1.6, label=label)
        axis.fill_between(line.steps, line.low, line.high, color=colour, alpha=0.16, linewidth=0)
    axis.axvline(STEPS, color="#999999", linewidth=0.8)
    axis.xaxis.set_major_formatter(lambda value, _: f"{value / 1000:,.0f} k")
    axis.set_xlabel(f"gradient steps on the data up to {STEPS // 1000} k, environment steps from there on", fontsize=9)
    axis.set_ylabel("return, 10 greedy episodes", fontsize=9)
    axis.set_title(f"IQL, {ENV}: mean and 95 % interval over {len(SEEDS)} seeds", fontsize=10, loc="left")
    axis.grid(axis="y", color="#e4e4e4", linewidth=0.8)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(fontsize=8, frameon=False)
    figure.savefig(OUT, dpi=120)
    print(f"wrote {OUT}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--folder", type=Path, default=Path("runs/offline-to-online"))
    given = parser.parse_args()
    main(given.data, given.folder)
