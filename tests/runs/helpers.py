"""What the tests of whole runs share: one tiny agent, and what must be equal between two runs."""

import io

import numpy as np
from rich.console import Console

import duologue as dl
from duologue.runs.display import loggers as log
from duologue.runs.options import RunOptions
from duologue.runs.planning import Sources, make_plan
from duologue.storage import checkpoint, files

ITERATION = 12
"""Environment steps between two updates of `TINY`."""
TINY = dl.A2C(
    learning_rate=dl.Linear(3e-3, 1e-4, updates=30),
    networks=dl.Networks(hidden_sizes=(8,)),
    rollout_length=4,
    num_envs=3,
)
CLOCK = {"time", "time/fps"}


def quiet() -> Console:
    """A console whose `.file.getvalue()` is what was shown."""
    return Console(file=io.StringIO(), width=200)


def plan_of(algorithm, env, *, tasks=None, **options):
    """The plan of a run and its environments, with nothing made but these."""
    return make_plan(algorithm, Sources(env, None, tasks), RunOptions(**{"steps": 1000} | options))


def train(env, path, *, iterations, every=5, algorithm=TINY, **options):
    """A run whose counts are iterations; it logs and saves every `every` of them."""
    options = {"console": quiet(), "log_every": every * ITERATION, "save_every": every * ITERATION} | options
    return dl.train(algorithm, env, steps=iterations * ITERATION, run_dir=path, **options)


def resume(path, *, iterations=None, **options):
    steps = None if iterations is None else iterations * ITERATION
    return dl.resume(path, steps=steps, **{"console": quiet()} | options)


def saved(path, which="latest"):
    """The steps of the checkpoints of a run."""
    folder = path / "checkpoints" / which
    return sorted(int(entry.name.removeprefix("step-")) for entry in folder.iterdir()) if folder.is_dir() else []


def leaves(path):
    """Every leaf of the newest checkpoint, by name."""
    return files.load_arrays(checkpoint.find_latest(path / "checkpoints" / "latest")[0] / checkpoint.STATE)


def rows(path):
    """The rows of metrics, without what the clock says."""
    return [
        {name: x for name, x in row.items() if name not in CLOCK} for row in log.read_metrics(path / "metrics.jsonl")
    ]


def assert_same_run(one, other):
    """Every bit of the newest checkpoints, and every row but for the clock."""
    a, b = leaves(one), leaves(other)
    assert a.keys() == b.keys() and len(a) > 10
    for name in a:
        assert a[name].dtype == b[name].dtype, name
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)
    assert saved(one)[-1] == saved(other)[-1]
    assert rows(one) == rows(other)
