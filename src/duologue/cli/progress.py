"""Stage of a planned run in its folder. A grid checks every folder before it trains anything."""

from pathlib import Path
from typing import Literal

from duologue.errors import CheckpointError, ConfigError
from duologue.runs import config
from duologue.runs.plan import Plan, read_plan
from duologue.storage import checkpoint

Stage = Literal["new", "unfinished", "finished"]


def run_progress(path: Path, plan: Plan) -> Stage:
    """Stage of the run of `plan` in the folder `path`. Raises `ConfigError` if the folder holds another run."""
    saved = checkpoint.has_checkpoint(path)
    if not (path / "config.json").is_file():
        if saved:
            raise ConfigError(
                f"{path} has checkpoints but no config.json. Give another run_dir, or remove that folder."
            )
        return "new"
    changed = differences(read_plan(path), plan)
    if changed:
        raise ConfigError(
            f"{path} holds a run with another configuration: {'; '.join(changed)}. Give another run_dir, or remove "
            "that folder."
        )
    if not saved:  # the run ended before its first checkpoint
        return "new"
    try:
        found, _ = checkpoint.find_latest(path / "checkpoints" / "latest")
    except CheckpointError:  # `resume` explains why
        return "unfinished"
    return "finished" if checkpoint.read_manifest(found).step >= plan.steps else "unfinished"


def differences(there: Plan, here: Plan, *, limit: int = 4) -> list[str]:
    """The fields in which two plans differ, in words: at most `limit`, and the number of others."""
    old, new = (config.merge([("", config.to_dict(plan))]) for plan in (there, here))
    values = {name: [plan[name].value if name in plan else None for plan in (old, new)] for name in {**old, **new}}
    changed = [f"{name} = {a!r} there, {b!r} here" for name, (a, b) in values.items() if a != b]
    return changed[:limit] + ([f"and {len(changed) - limit} more"] if len(changed) > limit else [])
