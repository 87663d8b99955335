"""Learning results, cell by cell: a cell is a task trained with one seed, and one line of a file once it is finished.

Nothing that is finished is done again, and whatever was interrupted goes on from its run folder, so a long list of
cells can be stopped at any time. The table is made of the file alone.
"""

import datetime
import hashlib
import json
import os
import platform
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np

import duologue as dl
from duologue.algorithms.base import AbstractAlgorithm
from duologue.envs.tasks import READY_TASKS as TASKS
from duologue.ops.metrics import RETURN
from duologue.runs import config
from duologue.storage import checkpoint, files
from duologue.storage import jsonl as json_rows

ROOT = Path(__file__).resolve().parent.parent
PEER_PYTHON = Path(os.environ.get("DUOLOGUE_PEERS", ROOT / ".peers" / "bin" / "python"))
EPISODES = 20
"""Greedy episodes that score the final weights."""
FIRST_TUNING_SEED = 100
"""Settings are chosen on the seeds from here on, and results quote the seeds below it."""

OPTIONS = ("data", "tasks", "scored_by", "scored_in_training")
"""Fields of a task that decide its result where they are given."""

Row = dict[str, Any]
AnyCell = TypeVar("AnyCell", "Cell", "PeerCell")


@dataclass(frozen=True)
class Peer:
    """Another library, asked to learn the same task."""

    algorithm: str
    """Its class."""
    settings: dict[str, Any]
    """What it is given beside the environment and the seed."""
    noise: float | None = None
    """Standard deviation of the noise on its actions."""
    library: str = "SBX"
    """SBX in environments, d3rlpy on recorded data."""


@dataclass(frozen=True)
class Task:
    """An environment, what learns in it for how long, and what should come of it."""

    name: str
    env: str
    steps: int
    algorithm: AbstractAlgorithm
    source: str
    """Where the settings that are not defaults come from."""
    target: float | None = None
    published: str = ""
    """The figure beside ours, with its source."""
    peer: Peer | None = None
    data: str | None = None
    """The recorded data of `recordings.py` that are learned from; `env` then only plays the test episodes."""
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    tasks: str | None = None
    """The ready set of tasks that is learned; its main task scores."""
    scored_by: str | None = None
    """The ready set whose main task scores what was learned from the environment's own reward."""
    scored_in_training: int | None = None
    """This many last episodes of training score, and none are played after it: for games that are long."""
    asynchronous: bool = False
    """Each environment has a process of its own, as slow simulators want it."""

    @property
    def configuration(self) -> dict[str, Any]:
        """All that decides the result, but for the seed and the program."""
        options = {name: getattr(self, name) for name in OPTIONS}
        said = {name: value for name, value in options.items() if value is not None}
        return {"env": self.env, "steps": self.steps, "algorithm": config.to_dict(self.algorithm), **said}

    @property
    def digest(self) -> str:
        return digest(self.configuration)


def digest(configuration: dict[str, Any]) -> str:
    """Ten characters that stand for the configuration."""
    return hashlib.sha256(json.dumps(apart(configuration), sort_keys=True).encode()).hexdigest()[:10]


def apart(value: Any) -> Any:
    """`value` with False for a `shared_trunk` of None, as it was recorded before None was the default: the tasks with
    images name it, and for vectors both are two networks."""
    if isinstance(value, dict):
        return {name: False if (name, x) == ("shared_trunk", None) else apart(x) for name, x in value.items()}
    return [apart(x) for x in value] if isinstance(value, list) else value


@dataclass(frozen=True)
class Cell:
    """A task learned by this library with a seed, or with several side by side in one program."""

    task: Task
    seed: int
    count: int = 1
    """How many seeds, from `seed` on."""

    @property
    def key(self) -> tuple[str, str, int]:
        return self.task.name, self.task.digest, self.seed

    def folder(self, runs: Path) -> Path:
        """Its run folder. Other settings have another one, so no run goes on with what it was not begun with."""
        name = f"seed-{self.seed}" if self.count == 1 else f"seeds-{self.seed}-to-{self.seed + self.count - 1}"
        return runs / f"{self.task.name}-{self.task.digest}" / name


def key_of(row: Row) -> tuple[str, str, int]:
    """What a finished line is known by; `Cell.key` is its counterpart."""
    return row["name"], row["digest"], row["seed"]


def read(out: Path) -> list[Row]:
    """The finished cells. A line that a kill cut off is not one of them."""
    return [renewed(row) for row in json_rows.read_rows(out)] if out.exists() else []


def renewed(row: Row) -> Row:
    """`row` with the digest that its configuration has today: fields that came since then stand at their defaults."""
    if not isinstance(row.get("algorithm"), dict):
        return row
    try:
        algorithm = config.to_dict(config.from_dict(row["algorithm"]))
    except dl.ConfigError:  # a field or class that is gone: settings of another time
        return row
    names = ("env", "steps", *OPTIONS)
    return row | {"digest": digest({"algorithm": algorithm, **{name: row[name] for name in names if name in row}})}


def unfinished(cells: Iterable[AnyCell], rows: Iterable[Row]) -> list[AnyCell]:
    done = {key_of(row) for row in rows}
    return [cell for cell in cells if cell.key not in done]


def together(cells: Iterable[Cell]) -> list[Cell]:
    """The same cells, seeds of a task that follow each other in one."""
    groups: list[Cell] = []
    for cell in sorted(cells, key=lambda cell: (cell.task.name, cell.seed)):
        last = groups[-1] if groups else None
        alone = cell.task.scored_in_training is not None  # its rows tell episodes, and not whose
        if last is not None and not alone and last.task == cell.task and last.seed + last.count == cell.seed:
            groups[-1] = replace(last, count=last.count + 1)
        else:
            groups.append(cell)
    return groups


def run_cells(
    cells: Sequence[Cell], *, out: Path, runs: Path, command: str, data: Callable[[str], Path] = Path,
    in_one: bool = False,
) -> None:  # fmt: skip
    """Run what is not finished, one cell after the other, or with `in_one` the seeds of a task in one program; each
    seed appends its line to `out`. `data` says where recorded data of a name lie.

    Ctrl-C saves the running cell in its folder below `runs` and raises `KeyboardInterrupt`; the next call goes on
    there. `command` is what a person types to run this list; the line of a cell narrows it to that cell.
    """
    left = unfinished(cells, read(out))
    for cell in together(left) if in_one else left:
        dataset = {} if cell.task.data is None else {"dataset": data(cell.task.data)}
        seeds = " ".join(str(cell.seed + i) for i in range(cell.count))
        again = f"{command} --only {cell.task.name} --seeds {seeds}{' --in-one' if in_one else ''}"
        for row in run_cell(cell, cell.folder(runs), command=again, **dataset):
            append(out, row)


def run_cell(cell: Cell, folder: Path, *, command: str, dataset: Path | None = None) -> list[Row]:
    """Train, or go on with training, play the test episodes, and say everything about it in one row a seed."""
    task, began, commit = cell.task, time.perf_counter(), checked_out()
    print(f"{task.name}, seed {cell.seed}{f' and the next {cell.count - 1}' * (cell.count > 1)}")
    run, resumed = train(cell, folder, dataset)
    all_scores = np.reshape(scored(task, run), (cell.count, -1))
    return [
        {
            "name": task.name,
            "digest": task.digest,
            "seed": cell.seed + i,
            "mean": float(scores.mean()),
            "scores": scores.tolist(),
            **task.configuration,
            **({} if dataset is None else {"data_digest": run.plan.digest}),
            "last": last(run.path, cell.seed + i),
            "seconds": round(time.perf_counter() - began, 1),
            "seeds_in_one": cell.count,
            "resumed_at": resumed,
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "commit": commit,
            "command": command,
            "device": jax.devices()[0].device_kind,
            "versions": versions(),
        }
        for i, scores in enumerate(all_scores)
    ]


def last(path: Path, seed: int) -> dict[str, float]:
    """What the updates before the end told: losses, Q, multipliers."""
    rows = [row for row in json_rows.read_rows(path / "metrics.jsonl") if row["seed"] == seed]
    told = [{name: x for name, x in row.items() if name.startswith("train/") and x is not None} for row in rows]
    return next(filter(None, reversed(told)), {})


def scored(task: Task, run: dl.Run | dl.Runs) -> np.ndarray:
    """Returns of greedy episodes, `[*seeds, episodes]`; or, of one seed, of the last episodes of training, each with
    the mean of its row."""
    if task.scored_in_training is None:
        env = task.scored_by and TASKS[task.scored_by].attach(task.env)
        return run.evaluate(episodes=EPISODES, env=env).returns
    returns: list[float] = []
    for row in reversed(json_rows.read_rows(run.path / "metrics.jsonl")):
        if len(returns) < task.scored_in_training and row.get("rollout/episodes"):
            returns += [row[RETURN]] * int(row["rollout/episodes"])
    return np.asarray(returns)


def train(cell: Cell, folder: Path, dataset: Path | None = None) -> tuple[dl.Run | dl.Runs, int]:
    """The trained agents, and the step that a run already in `folder` had reached. Agents on data are not tested on
    the way: their final weights score. Raises `CheckpointError` for a run that cannot be gone on with: it is left as it
    is."""
    if not checkpoint.has_checkpoint(folder):  # nothing there, or a run that was killed before its first checkpoint
        task = cell.task
        options = {"steps": task.steps, "seed": cell.seed, "seeds": cell.count, "run_dir": folder}
        data = {} if dataset is None else {"dataset": dataset, "evaluate_every": task.steps, "evaluate_episodes": 1}
        processes = {"asynchronous": True} if task.asynchronous else {}
        return dl.train(task.algorithm, task.env, tasks=task.tasks, **options, **data, **processes), 0
    found = dl.load(folder)
    return (found if found.step >= cell.task.steps else found.resume()), found.step


@dataclass(frozen=True)
class PeerCell:
    """A task learned by another library."""

    task: Task
    seed: int

    @property
    def orders(self) -> dict[str, Any]:
        """What `peers.py` is told."""
        task, peer = self.task, self.task.peer
        assert peer is not None
        of_peer = {"algorithm": peer.algorithm, "settings": peer.settings, "noise": peer.noise}
        library = {} if peer.library == "SBX" else {"library": peer.library, "data": task.data}
        return {"env": task.env, "steps": task.steps, "episodes": EPISODES, **of_peer, **library}

    @property
    def key(self) -> tuple[str, str, int]:
        return self.task.name, digest(self.orders), self.seed


def run_peer_cells(cells: Sequence[PeerCell], *, out: Path, command: str, data: Callable[[str], Path] = Path) -> None:
    """Have the others learn what is not finished, one cell after the other; none of them resumes."""
    if not PEER_PYTHON.exists():
        raise dl.ConfigError(f"{PEER_PYTHON} does not exist: `make peers` installs the other libraries.")
    for cell in unfinished(cells, read(out)):
        print(f"{cell.orders.get('library', 'SBX')}: {cell.task.name}, seed {cell.seed}")
        began, orders = time.perf_counter(), {**cell.orders, "seed": cell.seed}
        recorded: dict[str, str] = {}
        if cell.task.data is not None:
            orders["data"] = str(data(cell.task.data))
            recorded = {"data_digest": dl.read_data(orders["data"]).digest}
        child = [PEER_PYTHON, ROOT / "reproductions" / "peers.py", json.dumps(orders)]
        said = subprocess.run(child, capture_output=True, text=True, check=True).stdout.splitlines()[-1]
        name, of_orders, seed = cell.key
        scores = json.loads(said)["scores"]
        append(out, {
            "name": name,
            "digest": of_orders,
            "seed": seed,
            "mean": sum(scores) / len(scores),
            **json.loads(said),
            "orders": cell.orders,
            **recorded,
            "seconds": round(time.perf_counter() - began, 1),
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "command": f"{command} --peer --only {name} --seeds {seed}",
        })  # fmt: skip


def append(out: Path, row: Row) -> None:
    """One line more, durable when this returns."""
    files.make_folder(out.parent)
    rows = json_rows.JsonRows(out)
    try:
        rows.append(row)
        rows.sync()
    finally:
        rows.close()


def checked_out() -> str:
    """The commit that runs, with a + where the library differs from it."""
    git = ["git", "-C", str(ROOT)]
    head = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False).stdout
    changed = subprocess.run([*git, "status", "--porcelain", "src"], capture_output=True, text=True, check=False).stdout
    return (head.strip() or "unknown") + ("+" if changed.strip() else "")


def versions() -> dict[str, str]:
    packages = ("duologue", "jax", "numpy", "equinox", "optax", "gymnasium")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}
