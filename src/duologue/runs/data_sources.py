"""Runs that learn from recorded data: their plan, and the data behind one."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from duologue.algorithms.base import AnyAlgorithm
from duologue.data import ring as rings
from duologue.data.dataset import DataSet, TimeoutAndTerminal, adapt_to_env, from_columns, read_dataset
from duologue.data.ring import Ring
from duologue.envs.spaces import empty_arrays
from duologue.errors import CheckpointError, ConfigError
from duologue.fields import mismatch
from duologue.loops.keys import run_key
from duologue.loops.offline import Recorded, recorded
from duologue.loops.replay_ring import empty_ring
from duologue.runs.checks import CHECKPOINTS, check_algorithm, check_data, intervals
from duologue.runs.horizon import with_horizon
from duologue.runs.plan import EnvSource, Plan, check_arguments, close, describe, read_plan
from duologue.storage import checkpoint
from duologue.types import EnvSpec, add_start

DataSource = str | Path | DataSet
"""A file or folder of recorded data, a Minari id, or data that were read already."""


def read_data(source: DataSource, *, timeout_and_terminal: TimeoutAndTerminal = "timeout") -> DataSet:
    """The data behind a name: read once more, or out of the replay of a run folder. Raises `ConfigError`, also where
    `timeout_and_terminal` would decide nothing."""
    if problem := mismatch(timeout_and_terminal, TimeoutAndTerminal):
        raise ConfigError(f"timeout_and_terminal = {timeout_and_terminal!r}: must be {problem}.")
    if timeout_and_terminal != "timeout" and (isinstance(source, DataSet) or is_folder_of_run(source)):
        raise ConfigError(
            f"timeout_and_terminal = {timeout_and_terminal!r}: the flags of these data are settled. "
            "Give it to read_data, with the file they come from, or leave it out."
        )
    return opened(source, timeout_and_terminal)


def opened(source: DataSource, timeout_and_terminal: TimeoutAndTerminal) -> DataSet:
    """The data behind a name; `timeout_and_terminal` decides where flags are not settled yet. Raises `ConfigError`."""
    if isinstance(source, DataSet):
        return source
    if not isinstance(source, str | Path):
        raise ConfigError(
            f"dataset: must be a file, a folder or a Minari id; got {type(source).__name__}. Arrays become data by "
            "duologue.from_columns."
        )
    return (
        replay_of(Path(source))
        if is_folder_of_run(source)
        else read_dataset(source, timeout_and_terminal=timeout_and_terminal)
    )


def is_folder_of_run(source: DataSource) -> bool:
    return isinstance(source, str | Path) and (Path(source) / "config.json").is_file()


def replay_of(path: Path) -> DataSet:
    """What a run keeps in its newest checkpoint: its transitions, each environment's after those of the one before.
    Raises `ConfigError` for a run that keeps none."""
    plan = read_plan(path)
    found, _ = checkpoint.find_latest(path / "checkpoints" / "latest")
    if plan.offline or plan.algorithm.experience.replay is None:
        raise ConfigError(f"{path} keeps no transitions: {plan.name} has no replay, or learned from data itself.")

    def empty_one() -> Any:
        learner = plan.algorithm.init(plan.spec, key=run_key(0))
        carry, obs = plan.algorithm.initial_carry(plan.num_envs), empty_arrays(plan.spec.observation, plan.num_envs)
        return empty_ring(plan.algorithm, learner, carry, obs, plan.spec)

    several = jax.vmap(lambda _: empty_one(), axis_size=plan.seeds)
    like = jax.eval_shape(empty_one) if plan.seeds == 1 else jax.eval_shape(several, None)
    if like.frames is not None:
        raise ConfigError(f"{path} keeps images, each once: such a replay cannot be read as data. Use `collect`.")
    kept: Ring = checkpoint.load_tree(found, rings.open_template(like), part=".replay")
    axis, head = plan.seeds > 1, int(np.max(kept.written))
    rows = jax.tree.map(lambda x: in_order(np.asarray(x), head, axis=int(axis)), kept.data)
    reward = rows.reward[:, -1] if plan.spec.tasks else rows.reward  # the main task's
    columns = {
        "observations": add_start(plan.spec.observation, rows.obs),
        "actions": add_start(plan.spec.action, rows.action), "rewards": reward, "terminals": rows.terminated,
        "timeouts": rows.truncated, "next_observations": add_start(plan.spec.observation, rows.next_obs),
        **{f"extras/{name}": column for name, column in rows.extras.items()},
    }  # fmt: skip
    data = from_columns(columns, spec=replace(plan.spec, tasks=()), source=str(path), timeout_and_terminal="terminal")
    return replace(data, starts_episode=head <= kept.data.reward.shape[int(axis)])


def in_order(x: np.ndarray, written: int, *, axis: int) -> np.ndarray:
    """Rows `[*seeds, capacity, B, …]` of a ring as `[seeds · B · capacity, …]`, oldest first."""
    rolled = np.roll(x, -(written % x.shape[axis]) if written > x.shape[axis] else 0, axis)
    return np.moveaxis(rolled, axis + 1, axis).reshape(-1, *x.shape[axis + 2 :])


def named(source: DataSource) -> str:
    """What a configuration calls them; what is in angle brackets cannot be read again."""
    return "<data>" if isinstance(source, DataSet) else str(source)


def make_offline_plan(
    algorithm: AnyAlgorithm, source: DataSource, env: EnvSource | None,
    *, timeout_and_terminal: TimeoutAndTerminal, window: int | None, steps: int, seed: int, seeds: int,
    evaluate_every: int | None, evaluate_episodes: int, save_every: int | None, log_every: int | None,
    max_episode_steps: int | None,
) -> tuple[Plan, Recorded]:  # fmt: skip
    """The plan of `duologue.train`'s arguments, and the data. Steps are gradient steps. Raises `ConfigError`."""
    check_algorithm(algorithm)
    check_arguments(
        steps=steps, seed=seed, seeds=seeds, evaluate_every=evaluate_every, save_every=save_every,
        evaluate_episodes=evaluate_episodes, log_every=log_every, max_episode_steps=max_episode_steps, window=window,
    )  # fmt: skip
    if evaluate_every is not None and env is None:
        raise ConfigError(f"evaluate_every = {evaluate_every}: there is no environment to play in. Give one, env=...")
    data = read_data(source, timeout_and_terminal=timeout_and_terminal)
    unit = algorithm.experience.gradient_steps
    if evaluate_every is None and env is not None:
        evaluate_every = max(steps // CHECKPOINTS, unit)  # the only curve there is
    save_every, log_every = intervals(
        steps, unit, evaluate_every=evaluate_every, save_every=save_every, log_every=log_every
    )
    plan = Plan(
        algorithm=with_horizon(algorithm, -(-steps // unit) * unit),
        env="" if env is None else describe(env),
        spec=data.spec,
        steps=steps,
        seed=seed,
        seeds=seeds,
        max_episode_steps=max_episode_steps,
        evaluate_every=evaluate_every,
        evaluate_episodes=evaluate_episodes,
        dataset=named(source),
        digest=data.digest,
        timeout_and_terminal=timeout_and_terminal,
        window=window,
        save_every=save_every,
        log_every=log_every,
    )
    if env is not None:
        data = adapt_to_env(data, spec_of(plan, env))
        plan = replace(plan, spec=data.spec)
    rows = recorded(plan.algorithm, data, window=window, seed=seed)
    check_data(rows)
    try:  # spaces that the algorithm cannot serve, before anything is made
        jax.eval_shape(lambda key: plan.algorithm.init(plan.spec, key=key), run_key(0))
    except ConfigError as error:
        raise ConfigError(*error.args) from None  # without the notes that JAX adds to what passes through it
    return plan, rows


def spec_of(plan: Plan, env: EnvSource) -> EnvSpec:
    """The spec of the environment that the run is evaluated in."""
    envs = replace(plan, seeds=1, num_envs=1).made(env, purpose="evaluate", num_envs=1)
    close(envs, env)
    return envs.spec


def data_of(plan: Plan, source: DataSource | None) -> DataSet:
    """The data that the run was begun with. Raises `CheckpointError` where they are others now."""
    if plan.dataset is None:
        raise ConfigError("This run learned from no recorded data, so there are none to go on with.")
    if source is None and plan.dataset.startswith("<"):
        raise ConfigError("The data of this run were a Python object. Pass them again: dataset=...")
    data = opened(source or plan.dataset, plan.timeout_and_terminal)
    if data.digest != plan.digest:
        raise CheckpointError(
            f"{data.source} is not what this run was begun with: its rows have changed. Give the data of then, "
            "dataset=..., or train anew."
        )
    return adapt_to_env(data, plan.spec)
