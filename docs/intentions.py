"""What each intention of a run does, as strips of pictures: `python docs/intentions.py RUN`.

One row a task, one episode each from the same start, greedy. A run of three hundred thousand steps takes half an hour:
`duologue train sac-q LunarLander-v3 --tasks lunar-lander --steps 300_000 --algorithm.discount 0.995
--algorithm.scheduler.temperature 5`, or a cell of `reproductions/`.
"""

import sys
from pathlib import Path

import matplotlib
import numpy as np

import duologue as dl

matplotlib.use("agg")
import matplotlib.pyplot as plt

OUT = Path(__file__).parent / "figures" / "sac-x-intentions.png"
COLUMNS, STEPS, SEED = 6, 400, 1


def main(path: Path) -> None:
    run = dl.load(path)
    assert isinstance(run, dl.Run)
    tasks = run.plan.spec.tasks
    figure, axes = plt.subplots(len(tasks), COLUMNS, figsize=(1.5 * COLUMNS, 1.12 * len(tasks)), squeeze=False)
    for row, task in zip(axes, tasks, strict=True):
        pictures = run.frames(task=task, seed=SEED, max_steps=STEPS)
        for axis, i in zip(row, np.linspace(0, len(pictures) - 1, COLUMNS).astype(int), strict=True):
            axis.imshow(pictures[i])
            axis.set(xticks=[], yticks=[])
            axis.text(0.03, 0.88, f"step {i}", transform=axis.transAxes, fontsize=6, color="white")
        row[0].set_ylabel(task.replace("_", " "), fontsize=8)
    figure.tight_layout(pad=0.3)
    figure.savefig(OUT, dpi=110)
    print(f"wrote {OUT}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
