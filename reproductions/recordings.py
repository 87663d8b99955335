"""The data sets of offline cells: half from one policy, half from another, made once below `runs/data`."""

from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import off_policy

import duologue as dl
from duologue.replay.dataset import DataSet
from duologue.run.collect import described, write

ROWS = 50_000
"""Of each half."""


def made(name: str, folder: Path, *, given: Path | None, runs: Path) -> Path:
    """Where the data set of this name lies. It is made first where it is not there: its better half out of the files of
    `given`, or where there are none by the agent of a finished cell below `runs`."""
    path = folder / f"{name}.npz"
    if not path.exists():
        env, better, rows = RECIPES[name]
        recorded = better(given, folder, runs)
        write(path, mixed(random(env, folder), recorded, rows), described(env, recorded.spec.action, halves=name))
    return path


def random(env: str, folder: Path) -> DataSet:
    """What uniformly random actions do."""
    path = folder / f"{env}-random.npz"
    return dl.read_data(path if path.exists() else dl.collect_random(env, ROWS, path))


def expert(given: Path | None, folder: Path, runs: Path) -> DataSet:
    """HalfCheetah: a peer's recorded expert, or what our own SAC does at the end of its cell."""
    path = None if given is None else given / "HalfCheetah-v5-expert-100k.npz"
    return dl.read_data(path) if path is not None and path.exists() else of_cell("sac-halfcheetah", folder, runs)


def medium(given: Path | None, folder: Path, runs: Path) -> DataSet:
    """Hopper: what our own SAC does after 100 k steps, which is far from its best."""
    return of_cell("sac-hopper", folder, runs)


def of_cell(name: str, folder: Path, runs: Path) -> DataSet:
    """What the agent of seed 0 of a cell does, with its exploration; the cell is learned first where it was not."""
    task = next(task for task in off_policy.TASKS if task.name == name)
    path = folder / f"{name}.npz"
    if not path.exists():
        run = runs / f"{task.name}-{task.digest}" / "seed-0"
        trained = run if (run / "config.json").exists() else None
        agent = dl.load(trained) if trained else dl.train(task.algorithm, task.env, steps=task.steps, run_dir=run)
        assert isinstance(agent, dl.Run)
        agent.collect(ROWS, path)
    return dl.read_data(path)


def mixed(worse: DataSet, better: DataSet, count: int = ROWS) -> dict[str, np.ndarray]:
    """The columns of both, `count` rows of each, one after the other. Where the first breaks off, its last row is
    marked as such."""
    first, second = (jax.tree.map(lambda x: x[:count], data.rows) for data in (worse, better))
    rows = jax.tree.map(lambda *x: np.concatenate(x), first, second)
    timeouts = rows.truncated.copy()
    seams = [count - 1, len(timeouts) - 1]
    timeouts[seams] |= ~rows.terminated[seams]
    return {
        "observations": rows.obs, "actions": rows.action, "rewards": rows.reward, "terminals": rows.terminated,
        "timeouts": timeouts, "next_observations": rows.next_obs,
    }  # fmt: skip


RECIPES: dict[str, tuple[str, Callable[[Path | None, Path, Path], DataSet], int]] = {
    "halfcheetah-random-expert": ("HalfCheetah-v5", expert, ROWS),
    "halfcheetah-random-expert-30": ("HalfCheetah-v5", expert, ROWS * 3 // 10),
    "halfcheetah-random-expert-10": ("HalfCheetah-v5", expert, ROWS // 10),
    "hopper-random-medium": ("Hopper-v5", medium, ROWS),
}
"""Environment, the better half, and rows of each."""
