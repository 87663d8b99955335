"""Beginning a run, and going on with one."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

from duologue.algorithms.base import AnyAlgorithm
from duologue.data.dataset import DataSet, adapt_to_env
from duologue.envs.tasks import Tasks, is_ready
from duologue.errors import ConfigError
from duologue.loops.offline import Recorded
from duologue.loops.state import LoopState
from duologue.runs import config
from duologue.runs.checks import TaskSource, check_beside, check_share, make_plan
from duologue.runs.data_sources import DataSource, TimeoutAndTerminal, data_of, make_offline_plan, recorded
from duologue.runs.display.loggers import Logger
from duologue.runs.folders import folder_for
from duologue.runs.horizon import extended, gradient_steps, horizon, rollouts
from duologue.runs.plan import Envs, EnvSource, Plan, check_arguments, close, read_plan
from duologue.runs.run import Run, Runs, agents_of
from duologue.runs.session import Callback, Session
from duologue.storage import checkpoint, files
from duologue.storage import jsonl as rows


def train(
    algorithm: AnyAlgorithm,
    env: EnvSource | None = None,
    *,
    steps: int,
    dataset: DataSource | None = None,
    tasks: TaskSource | None = None,
    seed: int = 0,
    seeds: int = 1,
    num_envs: int | None = None,
    asynchronous: bool = False,
    run_dir: str | Path | None = None,
    evaluate_every: int | None = None,
    evaluate_episodes: int = 10,
    save_every: int | None = None,
    log_every: int | None = None,
    callbacks: Sequence[Callback] = (),
    loggers: Sequence[Logger] = (),
    max_episode_steps: int | None = None,
    timeout_and_terminal: TimeoutAndTerminal = "timeout",
    window: int | None = None,
    console: Console | None = None,
) -> "Run | Runs":
    """Train an agent, or `seeds` of them in one program, and return it. Steps are environment steps of one seed.

    Arguments:
        algorithm: what learns; its fields are its hyperparameters.
        env: an id (`"CartPole-v1"`, `"gymnax/CartPole-v1"`), a callable that returns a Gymnasium environment, or an
            adapter. With a `dataset` it may be left out, and only evaluates.
        steps: environment steps of each seed, over all its environments; rounded up to whole rollouts. With a
            `dataset`, gradient steps.
        dataset: recorded data to learn from in place of an environment: an `.npz` or `.hdf5` file with D4RL's names, a
            Minari folder or id, or what `duologue.read_data` returned. All seeds share them.
        tasks: several rewards, of which the last is the main task's: the name of a ready set (`"lunar-lander"`) or a
            set (`duologue.tasks.Tasks`). An algorithm of one reward learns the main task alone.
        seed: of all randomness. Agent i of `seeds` uses the keys of `seed + i`, and is the single run with that seed up
            to rounding.
        seeds: agents trained side by side, each in environments of its own.
        num_envs: environments of each agent; by default the algorithm's own number.
        asynchronous: step each Gymnasium environment in a process of its own, which pays for slow simulators only.
        run_dir: the new folder of this run; by default `runs/ALGORITHM/ENV/N`.
        evaluate_every: steps between evaluations on separate environments; by default none, and ten in a run on a
            `dataset` with an environment.
        evaluate_episodes: episodes of each of these.
        save_every: steps between checkpoints; by default ten in a run. The last state is always saved.
        log_every: steps between rows of metrics; by default 200 in a run. Every checkpoint and evaluation brings a row
            too.
        callbacks: plain functions `(step, metrics) -> bool | None`, called after every row; `False` stops the run.
        loggers: further places for metrics, like `duologue.runs.display.loggers.WandB`.
        max_episode_steps: a time limit other than the environment's own.
        timeout_and_terminal: what a row of the data is whose two flags are set: `"timeout"` where every timeout is
            marked terminal too, or `"terminal"` always.
        window: rows of the data on the device at a time, for data larger than its memory; by default all.
        console: where progress is shown; by default the terminal.

    Raises `ConfigError` for arguments that cannot work, before anything is made; `EnvError` where an environment fails;
    `KeyboardInterrupt` after Ctrl-C, with everything saved.
    """
    shared = {
        "steps": steps, "seed": seed, "seeds": seeds, "evaluate_every": evaluate_every,
        "evaluate_episodes": evaluate_episodes, "save_every": save_every, "log_every": log_every,
        "max_episode_steps": max_episode_steps,
    }  # fmt: skip
    plan, envs = planned(
        algorithm, env, dataset=dataset, tasks=tasks, num_envs=num_envs, asynchronous=asynchronous,
        timeout_and_terminal=timeout_and_terminal, window=window, **shared,
    )  # fmt: skip
    if isinstance(tasks, Tasks) and not is_ready(tasks) and env is not None:
        env = tasks.attach(env)
    source = None if isinstance(env, str) else env
    try:
        session = Session(folder_for(plan, run_dir), plan, envs, source, callbacks, loggers, console)
        return begun(session, lambda: session.loop.start(plan.algorithm, envs, session.seeds))
    finally:
        close(envs, env)


def planned(
    algorithm: AnyAlgorithm, env: EnvSource | None, *, dataset: DataSource | None, tasks: TaskSource | None,
    num_envs: int | None, asynchronous: bool, timeout_and_terminal: TimeoutAndTerminal, window: int | None,
    **shared: Any,
) -> tuple[Plan, Envs | Recorded]:  # fmt: skip
    """The plan of `train`'s arguments, and the environments or the data. Raises `ConfigError`; writes nothing."""
    if dataset is None and (timeout_and_terminal != "timeout" or window is not None):
        name = "timeout_and_terminal" if timeout_and_terminal != "timeout" else "window"
        raise ConfigError(f"{name}: belongs to recorded data, and none are given. Leave it out.")
    if dataset is not None and (num_envs is not None or asynchronous):
        name = "num_envs" if num_envs is not None else "asynchronous"
        raise ConfigError(f"{name}: nobody acts while recorded data are learned from. Leave it out.")
    if dataset is not None and tasks is not None:
        raise ConfigError("tasks: recorded data hold one reward. Leave tasks out, or the dataset.")
    if dataset is not None:
        return make_offline_plan(
            algorithm, dataset, env, timeout_and_terminal=timeout_and_terminal, window=window, **shared
        )
    if env is not None:
        return make_plan(algorithm, env, num_envs=num_envs, asynchronous=asynchronous, tasks=tasks, **shared)
    raise ConfigError("There is nothing to learn from: give an environment, or a dataset.")


def begun(session: Session, start: Callable[[], LoopState], *, notes: Sequence[str] = ()) -> "Run | Runs":
    """Write down what the run is, and drive it from its first state."""
    plan = session.plan
    if not plan.offline and gradient_steps(plan.algorithm, plan.rollouts) == 0:
        notes = [*notes, f"steps = {plan.steps:,}: too few for an update to follow learning_starts; nothing is learned"]
    with files.RunLock(session.path):
        for name in ("metrics.jsonl", "tb", "checkpoints"):  # of a run that ended before there was one to go on from
            if (session.path / name).exists():
                files.discard(session.path / name)
        files.write_json(session.path / "config.json", config.to_dict(session.plan))
        files.write_json(session.path / "versions.json", checkpoint.fingerprint())
        return _finished(session, session.drive(start(), notes=notes))


def resume(
    path: str | Path,
    *,
    steps: int | None = None,
    env: EnvSource | None = None,
    dataset: DataSource | None = None,
    algorithm: type | Sequence[type] = (),
    callbacks: Sequence[Callback] = (),
    loggers: Sequence[Logger] = (),
    console: Console | None = None,
) -> "Run | Runs":
    """Go on with a run from its newest good checkpoint to `steps`, by default to the planned end.

    In environments written in JAX the run goes on bit for bit; Gymnasium environments are brought back by replaying the
    actions of their running episodes, and one that does not come back the same is named on the screen. A run on
    recorded data reads them again; `dataset` says where they lie now, if elsewhere.
    """
    path = Path(path)
    plan = read_plan(path, algorithm)
    if steps is not None:
        check_arguments(steps=steps)
        plan = replace(plan, steps=steps)
    if dataset is not None and plan.dataset is None:
        raise ConfigError("dataset: this run learned from no recorded data. Leave it out.")
    with files.RunLock(path):
        rows_of = partial(recorded, plan.algorithm, window=plan.window, seed=plan.seed)
        data = None if plan.dataset is None else rows_of(data_of(plan, dataset))
        envs = data if plan.offline and data else plan.envs(env, purpose="train")
        beside = None if plan.offline or data is None else data.data
        try:
            return gone_on(Session(path, plan, envs, env, callbacks, loggers, console, beside))
        finally:
            close(envs, env)


def gone_on(session: Session) -> "Run | Runs":
    """Drive a run on from its newest good checkpoint."""
    path, plan = session.path, session.plan
    found, notes = checkpoint.find_latest(path / "checkpoints" / "latest")
    step = checkpoint.read_manifest(found).step
    if step >= plan.steps:
        raise ConfigError(f"steps = {plan.steps:,}: this run has made {step:,} already. Give a larger number.")
    state, note = session.loop.restore(plan.algorithm, session.envs, session.load(found))
    notes += [note] if note else []
    notes += ended_schedules(plan)
    notes += [
        f"not bit-comparable: {change}" for change in checkpoint.fingerprint_changes(checkpoint.read_manifest(found))
    ]
    if (path / "metrics.jsonl").exists():
        rows.truncate_after(path / "metrics.jsonl", lambda row: row["step"] <= step)
    files.write_json(path / "config.json", config.to_dict(plan))
    return _finished(session, session.drive(state, notes=notes))


def finetune(
    run: Run, env: EnvSource, data: DataSet, offline_fraction: float,
    *, steps: int, seed: int | None = None, num_envs: int | None = None, asynchronous: bool = False,
    run_dir: str | Path | None = None, evaluate_every: int | None = None, evaluate_episodes: int = 10,
    save_every: int | None = None, log_every: int | None = None, callbacks: Sequence[Callback] = (),
    loggers: Sequence[Logger] = (), max_episode_steps: int | None = None, console: Console | None = None,
) -> Run:  # fmt: skip
    """What `Run.finetune` does."""
    check_share(offline_fraction, run.plan.algorithm)
    plan, envs = make_plan(
        run.plan.algorithm, env, steps=steps, seed=run.seed if seed is None else seed, seeds=1, num_envs=num_envs,
        asynchronous=asynchronous, evaluate_every=evaluate_every, evaluate_episodes=evaluate_episodes,
        save_every=save_every, log_every=log_every, max_episode_steps=max_episode_steps,
    )  # fmt: skip
    try:
        plan = continued(run, plan, data, offline_fraction)
        if not run.plan.env and not plan.same_spaces(run.plan.spec):
            raise ConfigError(
                f"The agent's action space was read off the data, {run.plan.spec.action}, and {plan.env} has "
                f"{plan.spec.action}. Train on the data again with the environment named, train(…, dataset=…, env=…)."
            )
        run.plan.check_spec(plan.spec)
        data = recorded(plan.algorithm, adapt_to_env(data, plan.spec)).data
        if offline_fraction:
            check_beside(plan, data)
        source, ended = None if isinstance(env, str) else env, horizon(plan.algorithm)
        notes = (
            [f"a Linear schedule goes on where it was on the data, and ends after {ended:,} updates"] if ended else []
        )
        session = Session(folder_for(plan, run_dir), plan, envs, source, callbacks, loggers, console, data)

        def start() -> LoopState:
            state = session.loop.start(plan.algorithm, envs, session.seeds)
            return replace(state, algorithm=jax.tree.map(jnp.copy, run.state))  # a copy: the loop donates it

        again = begun(session, start, notes=notes)
    finally:
        close(envs, env)
    assert isinstance(again, Run)
    return again


def continued(run: Run, plan: Plan, data: DataSet, offline_fraction: float) -> Plan:
    """The plan of going on online with what `run` has learned: schedules reach over both parts."""
    before, made = run.plan, run.step // run.plan.per_rollout
    learned = run.step if before.offline else before.learned + gradient_steps(before.algorithm, made)
    return replace(
        plan, algorithm=extended(plan.algorithm, learned, gradient_steps(plan.algorithm, plan.rollouts)),
        dataset=before.dataset, digest=data.digest, timeout_and_terminal=before.timeout_and_terminal,
        offline_fraction=offline_fraction, learned=learned,
    )  # fmt: skip


def ended_schedules(plan: Plan) -> list[str]:
    """What is said of a run that goes on after a schedule of its learning has come to an end."""
    updates = horizon(plan.algorithm)
    if updates is None:
        return []
    left = max(0, updates - plan.learned)
    end = left if plan.offline or not left else int(rollouts(plan.algorithm, float(left)) * plan.per_rollout)
    note = (
        f"a Linear schedule ends at step {end:,} and stays at its last value until {plan.steps:,}: where that is 0, "
        "nothing more is learned. It was made for the length planned first; to change it, train anew."
    )
    return [note] if end < plan.steps else []


def _finished(session: Session, state: LoopState) -> Run | Runs:
    step = int(np.ravel(state.step)[0]) * session.plan.unit
    return agents_of(session.path, session.plan, step, state.algorithm, session.source)
