"""Sparse tasks, with other intentions to help and without: the tasks of `reproduce.py`. 100 is a landing, or the flag,
so that a score is the rate of success in percent."""

from typing import Any

from cells import Task
from off_policy import DISCRETE_LANDER

import duologue as dl
from duologue.algorithms.base import AnyAlgorithm

OURS = "ours, chosen on seed 100"
ALONE = "as sac-discrete-lunarlander, and as SAC in four steps an update, both 128 wide, on the sparse reward alone"
WIDE = dl.Networks(hidden_sizes=(128, 128), activation="relu", init="lecun")
LANDER: dict[str, Any] = {"discount": 0.995}
CAR: dict[str, Any] = {"alpha": dl.temperature.Fixed(0.2)}
SAC = dl.SAC(rollout_length=4, networks=WIDE, start_steps=1000, learning_starts=1000)

LEARNERS: dict[str, tuple[str, str, int, dict[str, AnyAlgorithm], AnyAlgorithm, str]] = {
    "lunarlander": (
        "LunarLander-v3", "lunar-lander", 300_000,
        {
            "sac-q": dl.SACX(**LANDER, scheduler=dl.task_schedulers.QTable(temperature=5.0)),
            "sac-u": dl.SACX(**LANDER, scheduler=dl.task_schedulers.Uniform()),
        },
        DISCRETE_LANDER, "the ceiling",
    ),
    "mountaincar": (
        "MountainCarContinuous-v0", "mountain-car", 300_000,
        {
            "sac-q": dl.SACX(**CAR, scheduler=dl.task_schedulers.QTable(temperature=2.0)),
            "sac-u": dl.SACX(**CAR, scheduler=dl.task_schedulers.Uniform()),
        },
        SAC, "which charges for every action, and so is no ceiling",
    ),
}  # fmt: skip

TASKS = tuple(
    task
    for place, (env, tasks, steps, intentions, alone, dense) in LEARNERS.items()
    for task in (
        *(
            Task(f"sac-x-{place}-{name}", env, steps, algorithm, source=OURS, tasks=tasks)
            for name, algorithm in intentions.items()
        ),
        Task(f"sac-x-{place}-sparse", env, steps, alone, source=ALONE, tasks=tasks),
        Task(f"sac-x-{place}-dense", env, steps, alone, source=f"as the line above, on the dense reward, {dense}",
             scored_by=tasks),
    )
)  # fmt: skip
