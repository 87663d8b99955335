"""Run folders: their places, and the folder of a new run."""

import itertools
from pathlib import Path

from duologue.errors import ConfigError, DuologueError
from duologue.runs.plan import Plan, read_plan
from duologue.storage import checkpoint, files


def make_run_folder(plan: Plan, run_dir: str | Path | None) -> Path:
    """Make the folder of a new run. Raises `ConfigError` for a folder that holds a run or foreign files."""
    if run_dir == "" or not isinstance(run_dir, str | Path | None):
        raise ConfigError(f"run_dir = {run_dir!r}: must name a folder.")
    path = make_next_folder(plan) if run_dir is None else Path(run_dir)
    if checkpoint.has_checkpoint(path):
        raise ConfigError(
            f"run_dir = {str(path)!r}: the folder holds a run already. Give another folder, or `resume` that run."
        )
    foreign = [name for name in ("config.json", "metrics.jsonl", "tb") if (path / name).exists()]
    if foreign and not holds_run(path):
        raise ConfigError(f"run_dir = {str(path)!r}: the folder holds {foreign[0]}, but no run. Give another folder.")
    files.make_folder(path)
    return path


def holds_run(path: Path) -> bool:
    """Whether a folder belongs to a run, which may have ended before it saved anything."""
    try:
        read_plan(path)
    except DuologueError:
        return False
    return True


def make_next_folder(plan: Plan) -> Path:
    """Make the first of `runs/ALGORITHM/ENV/1, 2, …` that does not exist. Two runs never get the same folder."""
    parent = parent_folder(plan.name, plan.env or Path(plan.dataset or "").name)
    return next(path for n in itertools.count(1) if files.try_make_folder(path := parent / str(n)))


def parent_folder(algorithm: str, where: str) -> Path:
    """The folder of all runs of one algorithm class in one environment, or on one file of data."""
    env = "".join(c if c.isalnum() or c in "-._" else "-" for c in where).strip("-")
    return Path("runs") / algorithm.lower() / env
