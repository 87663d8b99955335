"""Recorded data for a run: files, folders of other runs, or data in memory."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from duologue.data import ring as rings
from duologue.data.dataset import DataSet, TimeoutAndTerminal, adapt_to_env, from_columns, read_dataset
from duologue.data.ring import Ring
from duologue.data.writing import add_start
from duologue.envs.spaces import empty_arrays
from duologue.errors import CheckpointError, ConfigError
from duologue.fields import check
from duologue.loops.keys import run_key
from duologue.loops.replay_ring import empty_ring
from duologue.runs.plan import Plan, read_plan
from duologue.storage import checkpoint
from duologue.types import to_env_actions

DataSource = str | Path | DataSet
"""A file or folder of recorded data, a Minari id, or data that `read_data` returned."""


def read_data(source: DataSource, *, timeout_and_terminal: TimeoutAndTerminal = "timeout") -> DataSet:
    """Read the data of a file, a Minari folder or id, or the replay in a run folder. `timeout_and_terminal` says how to
    read rows flagged both timeout and terminal. Raises `ConfigError`, also where this option would have no effect."""
    check(TimeoutAndTerminal, timeout_and_terminal=timeout_and_terminal)
    if timeout_and_terminal != "timeout" and (isinstance(source, DataSet) or has_config(source)):
        raise ConfigError(
            f"timeout_and_terminal = {timeout_and_terminal!r}: the flags of these data are already decided. Pass it to "
            "read_data together with the original file, or leave it out."
        )
    return open_source(source, timeout_and_terminal)


def open_source(source: DataSource, timeout_and_terminal: TimeoutAndTerminal) -> DataSet:
    """Read a source. `timeout_and_terminal` affects only data whose flags are not decided yet. Raises `ConfigError`."""
    if isinstance(source, DataSet):
        return source
    if not isinstance(source, str | Path):
        raise ConfigError(
            f"dataset: must be a file, a folder or a Minari id; got {type(source).__name__}. "
            "duologue.from_columns makes data of arrays."
        )
    return (
        read_replay(Path(source))
        if has_config(source)
        else read_dataset(source, timeout_and_terminal=timeout_and_terminal)
    )


def has_config(source: DataSource) -> bool:
    """Whether a source is a folder with a config.json, as runs have it."""
    return isinstance(source, str | Path) and (Path(source) / "config.json").is_file()


def read_replay(path: Path) -> DataSet:
    """Read the transitions in the newest checkpoint of a run, environment after environment, oldest first. Raises
    `ConfigError` for a run without a replay, and for a replay of images."""
    plan = read_plan(path)
    found, _ = checkpoint.find_latest(path / "checkpoints" / "latest")
    if plan.offline or plan.algorithm.experience.replay is None:
        raise ConfigError(f"{path} has no transitions: {plan.name} has no replay, or the run itself learned from data.")

    def empty_replay() -> Any:
        learner = plan.algorithm.init(plan.spec, key=run_key(0))
        carry, obs = plan.algorithm.initial_carry(plan.num_envs), empty_arrays(plan.spec.observation, plan.num_envs)
        return empty_ring(plan.algorithm, learner, carry, obs, plan.spec)

    several = jax.vmap(lambda _: empty_replay(), axis_size=plan.seeds)
    like = jax.eval_shape(empty_replay) if plan.seeds == 1 else jax.eval_shape(several, None)
    if like.frames is not None:
        raise ConfigError(f"{path} has a replay of images, which is not readable as data. Use `duologue collect`.")
    kept: Ring = checkpoint.load_tree(found, rings.open_template(like), part=".replay")
    axis, head = plan.seeds > 1, int(np.max(kept.written))
    rows = jax.tree.map(lambda x: oldest_first(np.asarray(x), head, axis=int(axis)), kept.data)
    reward = rows.reward[:, -1] if plan.spec.tasks else rows.reward  # the main task's
    columns = {
        "observations": add_start(plan.spec.observation, rows.obs),
        "actions": to_env_actions(plan.spec.action, rows.action), "rewards": reward, "terminals": rows.terminated,
        "timeouts": rows.truncated, "next_observations": add_start(plan.spec.observation, rows.next_obs),
        **{f"extras/{name}": column for name, column in rows.extras.items()},
    }  # fmt: skip
    data = from_columns(columns, spec=replace(plan.spec, tasks=()), source=str(path), timeout_and_terminal="terminal")
    return replace(data, starts_episode=head <= kept.data.reward.shape[int(axis)])


def oldest_first(x: np.ndarray, written: int, *, axis: int) -> np.ndarray:
    """Rows `[*seeds, capacity, B, …]` of a ring as `[seeds · B · capacity, …]`, oldest first."""
    rolled = np.roll(x, -(written % x.shape[axis]) if written > x.shape[axis] else 0, axis)
    return np.moveaxis(rolled, axis + 1, axis).reshape(-1, *x.shape[axis + 2 :])


def data_name(source: DataSource | None) -> str | None:
    """Name of the data in a configuration. A name in angle brackets means a Python object, which a file cannot make
    again."""
    return "<data>" if isinstance(source, DataSet) else None if source is None else str(source)


def reopen_data(plan: Plan, source: DataSource | None) -> DataSet:
    """The data with which a run began, from `source` or from the place in the plan. Raises `CheckpointError` if the
    data have changed."""
    if plan.dataset is None:
        raise ConfigError("This run did not learn from recorded data. Leave out dataset.")
    if source is None and plan.dataset.startswith("<"):
        raise ConfigError("The data of this run were a Python object. Pass them again: dataset=...")
    data = open_source(source or plan.dataset, plan.timeout_and_terminal)
    if data.digest != plan.digest:
        raise CheckpointError(
            f"{data.source}: the data set has changed since this run started. Pass the original with dataset=..., or "
            "start a new run."
        )
    return adapt_to_env(data, plan.spec)
