"""Whether a planned run has been made: what a grid asks of each of its folders before it trains anything."""

from pathlib import Path
from typing import Literal

from duologue.errors import CheckpointError, ConfigError
from duologue.runs import config
from duologue.runs.plan import Plan, read_plan
from duologue.storage import checkpoint

Standing = Literal["new", "unfinished", "finished"]


def standing(path: Path, plan: Plan) -> Standing:
    """How far the run of `plan` has come in the folder `path`. Raises `ConfigError` where another one is there."""
    saved = checkpoint.has_checkpoint(path)
    if not (path / "config.json").is_file():
        if saved:
            raise ConfigError(
                f"{path} has checkpoints and no config.json. Give another run_dir, or remove that folder."
            )
        return "new"
    changed = differences(read_plan(path), plan)
    if changed:
        raise ConfigError(
            f"{path} holds a run of another configuration: {'; '.join(changed)}. Give another run_dir, or remove that "
            "folder."
        )
    if not saved:  # killed, or failed, before it first saved
        return "new"
    try:
        found, _ = checkpoint.find_latest(path / "checkpoints" / "latest")
    except CheckpointError:  # `resume` will say why
        return "unfinished"
    return "finished" if checkpoint.read_manifest(found).step >= plan.steps else "unfinished"


def differences(there: Plan, here: Plan, *, limit: int = 4) -> list[str]:
    """What two plans do not share, in words."""
    then, now = (config.merge([("", config.to_dict(plan))]) for plan in (there, here))
    values = {name: [plan[name].value if name in plan else None for plan in (then, now)] for name in {**then, **now}}
    changed = [f"{name} = {old!r} there, {new!r} here" for name, (old, new) in values.items() if old != new]
    return changed[:limit] + ([f"and {len(changed) - limit} more"] if len(changed) > limit else [])
