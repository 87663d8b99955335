"""The data sets of offline cells: half from one policy, half from another, made once below `runs/data`."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import off_policy
from cells import Cell, Task, train

import duologue as dl
from duologue.data.dataset import DataSet
from duologue.data.writing import columns_of, file_metadata, write_columns
from duologue.envs.make import make
from duologue.runs.collect import record_policy
from duologue.storage import checkpoint

ROWS = 50_000
"""Of each half."""


class Recipe(NamedTuple):
    """Uniformly random actions, and behind them what does better."""

    env: str
    cell: str
    """Whose agent of seed 0 does better, as it is at its end."""
    rows: int = ROWS
    """Of each half."""
    file: str | None = None
    """What takes its place in a folder that is given: a peer's recorded expert."""
    actions: str | None = None
    """What it did, kept beside this file. Networks round otherwise on another machine, where MuJoCo has been seen not
    to: played again, these actions make the same rows, and nothing need be learned for them."""


EXPERT = "HalfCheetah-v5-expert-100k.npz"
ACTIONS = Path(__file__).resolve().parent / "actions"
RECIPES = {
    "halfcheetah-random-expert": Recipe("HalfCheetah-v5", "sac-halfcheetah", file=EXPERT),
    "halfcheetah-random-expert-30": Recipe("HalfCheetah-v5", "sac-halfcheetah", ROWS * 3 // 10, EXPERT),
    "halfcheetah-random-expert-10": Recipe("HalfCheetah-v5", "sac-halfcheetah", ROWS // 10, EXPERT),
    # After 100 k steps SAC is far from its best there.
    "hopper-random-medium": Recipe("Hopper-v5", "sac-hopper", actions="hopper-medium-actions.npz"),
}


def made(name: str, folder: Path, *, given: Path | None, runs: Path) -> Path:
    """Where the data set of this name lies. It is made first where it is not there: its better half out of the file of
    the folder `given`, of the actions that are kept, or by the agent of a cell below `runs`, which is trained to its
    end.

    Raises `ConfigError` where `given` lacks the file, where the data set that is there was made of something else, and
    where recording a half was interrupted.
    """
    path, recipe = folder / f"{name}.npz", RECIPES[name]
    file = given / recipe.file if given and recipe.file else None
    if path.exists() and file is None:
        return path
    if file is not None:
        better = of_file(file)
    elif recipe.actions is not None:
        better = played(recipe.env, ACTIONS / recipe.actions, folder)
    else:
        better = of_cell(recipe.cell, folder, runs)
    columns = mixed(random(recipe.env, folder), better, recipe.rows)
    if not path.exists():
        write_columns(path, columns, file_metadata(recipe.env, better.spec.action, halves=name))
    elif not holds(path, columns):
        raise dl.ConfigError(
            f"--data {given}: {path} is there already, and was made of something else. Delete it, or leave --data out."
        )
    return path


def holds(path: Path, columns: dict[str, np.ndarray]) -> bool:
    """Whether a file has these columns."""
    with np.load(path) as file:
        return all(np.array_equal(file[name], column) for name, column in columns.items())


def random(env: str, folder: Path) -> DataSet:
    """What uniformly random actions do."""
    return whole(folder / f"{env}-random.npz", ROWS, lambda path: dl.collect_random(env, ROWS, path))


def whole(path: Path, rows: int, record: Callable[[Path], object]) -> DataSet:
    """What is at `path`, recorded first where nothing is. Raises `ConfigError` where it has fewer rows: interrupted,
    `collect` keeps what there is, and half a half is another data set."""
    if not path.exists():
        record(path)
    data = dl.read_data(path)
    if len(data) < rows:
        raise dl.ConfigError(f"{path} has {len(data):,} of {rows:,} rows: recording it was interrupted. Delete it.")
    return data


def of_file(path: Path) -> DataSet:
    """What others recorded."""
    if not path.exists():
        raise dl.ConfigError(
            f"--data {path.parent}: there is no {path.name}. Give the folder that holds it, or leave --data out: "
            "then our own agent records the data."
        )
    return dl.read_data(path)


def played(env: str, actions: Path, folder: Path) -> DataSet:
    """What comes of actions that were recorded here with seed 0 by `collect`, its default."""
    with np.load(actions) as file:
        taken = file["actions"]
    made, act = lambda: make(env, 1, seed=0, purpose="collect"), lambda obs, t, began: taken[t][None]
    how = {"noise": 0.0, "seed": 0, "policy": actions.stem, "after": None, "console": None}
    return whole(
        folder / actions.name.replace("-actions", ""), len(taken),
        lambda path: record_policy(made, act, len(taken), path, source=env, **how),
    )  # fmt: skip


def of_cell(name: str, folder: Path, runs: Path) -> DataSet:
    """What the agent of seed 0 of a cell does, with its exploration; the cell is learned first as far as it was not."""

    def record(path: Path) -> None:
        cell = furthest(next(task for task in off_policy.TASKS if task.name == name), runs)
        trained, _ = train(cell, cell.folder(runs))
        agent = trained[0] if cell.count > 1 else trained
        agent.collect(ROWS, path)

    return whole(folder / f"{name}.npz", ROWS, record)


def furthest(task: Task, runs: Path) -> Cell:
    """Of the cells with seed 0, alone or first of several in one program, the one that has learned longest."""
    cells = [Cell(task, 0, count) for count in range(1, len(task.seeds) + 1)]
    begun = [cell for cell in cells if checkpoint.has_checkpoint(cell.folder(runs))]
    return max(begun, key=lambda cell: dl.load(cell.folder(runs)).step, default=cells[0])


def mixed(worse: DataSet, better: DataSet, count: int = ROWS) -> dict[str, np.ndarray]:
    """The columns of both, `count` rows of each, one after the other. Where the first breaks off, its last row is
    marked as such, and so is the last of all."""
    first, second = ({name: x[:count] for name, x in columns_of(data).items()} for data in (worse, better))
    columns = {name: np.concatenate([first[name], second[name]]) for name in first}
    seams = [len(first["rewards"]) - 1, -1]
    columns["timeouts"][seams] |= ~columns["terminals"][seams]
    return columns
