"""Begin a run, resume a run, or fine-tune an agent. Each function takes plain arguments and returns an `Agent`."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from duologue.algorithms.base import AnyAlgorithm, network_builders
from duologue.data.dataset import DataSet, adapt_to_env, full_ring
from duologue.envs.base import AbstractHostEnvs
from duologue.envs.make import is_compiled
from duologue.envs.tasks import is_ready
from duologue.errors import ConfigError, EnvError
from duologue.fields import Count, check
from duologue.images import image_notes
from duologue.loops import compiled, host, offline
from duologue.loops.offline import RecordedData, prepare_data
from duologue.loops.replay_ring import ring_bytes
from duologue.loops.state import Loop, LoopState
from duologue.runs import config
from duologue.runs.checks import check_algorithm, check_data_and_replay, check_offline_fraction, format_bytes
from duologue.runs.data_sources import DataSource, reopen_data
from duologue.runs.display.screen import replay_printer
from duologue.runs.environments import (
    Envs,
    EnvSource,
    check_evaluate_env,
    check_spec,
    close_envs,
    env_notes,
    evaluation_env,
    has_same_spaces,
    open_envs,
)
from duologue.runs.folders import make_run_folder
from duologue.runs.horizon import ended_schedules, extend_schedules, first_schedule_end, gradient_steps, unused_fields
from duologue.runs.jax_setup import has_images, images_in_name, prepare_jax, thread_note
from duologue.runs.options import RunOptions
from duologue.runs.plan import Plan, read_plan
from duologue.runs.planning import Sources, make_plan
from duologue.runs.recovery import grade_note, no_effect
from duologue.runs.saved_states import read_state
from duologue.runs.session import Listeners, Session
from duologue.storage import checkpoint, files, jsonl
from duologue.types import PyTree


class Agent(NamedTuple):
    """The learned state of a run, with its folder and its plan."""

    path: Path
    plan: Plan
    step: int
    """Environment steps of each seed; on recorded data, gradient steps."""
    state: PyTree
    """State of the algorithm; with several seeds every leaf has a leading axis S."""
    env: EnvSource | None
    """The Python object that makes its environments; `None` for the plan's id."""
    evaluate_env: EnvSource | None = None
    """The same for the environments of its evaluations."""


def begin_run(
    algorithm: AnyAlgorithm, sources: Sources, options: RunOptions, run_dir: str | Path | None, listeners: Listeners
) -> Agent:
    """Train from nothing, in a new run folder."""
    check_algorithm(algorithm)
    prepare_jax([algorithm], seeds=options.seeds, images=images_in_name(sources.env))
    plan, envs, replay_bytes = make_plan(algorithm, sources, options)
    env = sources.env
    if sources.tasks is not None and not isinstance(sources.tasks, str) and not is_ready(sources.tasks):
        env = sources.tasked_env
    try:
        session = Session(
            make_run_folder(plan, run_dir), plan, choose_loop(envs), envs, python_source(env), listeners,
            evaluate_source=python_source(sources.tasked_evaluate_env),
        )  # fmt: skip
        start = lambda: session.loop.start(plan.algorithm, envs, plan.seed_numbers)  # noqa: E731
        return run_from_start(session, start, notes=[*start_notes(plan), *source_notes(plan, envs, replay_bytes)])
    finally:
        close_envs(envs, env)


def resume_run(
    path: Path, *, steps: int | None, env: EnvSource | None, dataset: DataSource | None,
    algorithm: type | Sequence[type], exact: bool | None, listeners: Listeners, evaluate_env: EnvSource | None = None,
) -> Agent:  # fmt: skip
    """Continue from the newest good checkpoint of a run folder."""
    plan = read_plan(path, algorithm)
    if steps is not None:
        check(Count, steps=steps)
        plan = replace(plan, steps=steps)
    if exact is not None:
        plan = replace(plan, exact=exact)
        if not exact and (why := no_effect(None if plan.offline else plan.env if env is None else env)) is not None:
            raise ConfigError(f"exact = False: {why}. Leave it out.")
    if dataset is not None and plan.dataset is None:
        raise ConfigError("dataset: this run did not learn from recorded data. Leave it out.")
    check_evaluate_env(plan, evaluate_env)
    if plan.evaluate_every is not None:
        evaluation_env(plan, env, evaluate_env)  # raises before anything is made
    prepare_jax([plan.algorithm], seeds=plan.seeds, images=has_images(plan.spec.observation))
    with files.RunLock(path):
        data = None if plan.dataset is None else reopen_data(plan, dataset)
        rows = None if data is None else prepare_data(plan.algorithm, data, window=plan.window, seed=plan.seed)
        envs = rows if plan.offline and rows else open_envs(plan, env, purpose="train")
        mixed = None if plan.offline or rows is None else rows.data
        try:
            replay_bytes = 0 if plan.offline else ring_bytes(plan.algorithm, plan.spec, plan.num_envs, plan.seeds)
            mixing = mixing_arguments(plan, mixed)
            session = Session(path, plan, choose_loop(envs), envs, env, listeners, mixing, evaluate_env)
            return run_from_checkpoint(session, source_notes(plan, envs, replay_bytes, mixed))
        finally:
            close_envs(envs, env)


def finetune_run(
    agent: Agent, sources: Sources, offline_fraction: float, options: RunOptions, run_dir: str | Path | None,
    listeners: Listeners,
) -> Agent:  # fmt: skip
    """Continue to train an agent of recorded data in an environment, in a new run folder."""
    check_offline_fraction(offline_fraction, agent.plan.algorithm)
    data, env = reopen_data(agent.plan, sources.dataset), sources.env
    plan, envs, replay_bytes = make_plan(agent.plan.algorithm, sources._replace(dataset=None), options)
    try:
        plan = finetune_plan(agent, plan, data, offline_fraction)
        if not agent.plan.env and not has_same_spaces(plan, agent.plan.spec):
            role = "action" if agent.plan.spec.action != plan.spec.action else "observation"
            given, wanted = (getattr(spec, role) for spec in (agent.plan.spec, plan.spec))
            raise ConfigError(
                f"The data gave the agent the {role} space {given}, but {plan.env} has {wanted}. Train on the data "
                "again and pass the environment: train(…, dataset=…, env=…)."
            )
        check_spec(agent.plan, plan.spec)
        data = prepare_data(plan.algorithm, adapt_to_env(data, plan.spec)).data
        if offline_fraction:
            check_data_and_replay(plan, data, replay_bytes)
        ended = first_schedule_end(plan.algorithm)
        notes = (
            [f"a Linear schedule continues from its value on the data, and ends after {ended:,} updates"]
            if ended
            else []
        )
        loop, path = choose_loop(envs), make_run_folder(plan, run_dir)
        session = Session(
            path, plan, loop, envs, python_source(env), listeners, mixing_arguments(plan, data),
            python_source(sources.tasked_evaluate_env),
        )  # fmt: skip

        def start() -> LoopState:
            state = loop.start(plan.algorithm, envs, plan.seed_numbers)
            return replace(state, algorithm=jax.tree.map(jnp.copy, agent.state))  # a copy: the loop donates it

        notes += [*start_notes(plan), *source_notes(plan, envs, replay_bytes, data)]
        return run_from_start(session, start, notes=notes)
    finally:
        close_envs(envs, env)


def run_from_start(session: Session, start: Callable[[], LoopState], *, notes: Sequence[str]) -> Agent:
    """Write the configuration into the folder, and run from the first state."""
    with files.RunLock(session.path):
        for name in ("metrics.jsonl", "tb", "checkpoints"):  # from a run that ended before its first checkpoint
            if (session.path / name).exists():
                files.discard(session.path / name)
        files.write_json(session.path / "config.json", config.to_dict(session.plan))
        files.write_json(session.path / "versions.json", checkpoint.fingerprint())
        state = start()
        return make_agent(session, session.run(state, notes=[*notes, *reset_notes(session.envs)]))


def run_from_checkpoint(session: Session, notes: Sequence[str]) -> Agent:
    """Continue from the newest good checkpoint of the session's folder."""
    path, plan, loop = session.path, session.plan, session.loop
    found, warnings = checkpoint.find_latest(path / "checkpoints" / "latest")
    manifest = checkpoint.read_manifest(found)
    if manifest.step >= plan.steps:
        raise ConfigError(f"steps = {plan.steps:,}: must be above {manifest.step:,}, the number of steps so far.")
    like = loop.shapes(plan.algorithm, session.envs, plan.seed_numbers)
    state, message = restore_state(session, read_state(found, like))
    changes = [f"not bit-comparable: {change}" for change in checkpoint.fingerprint_changes(manifest)]
    if (path / "metrics.jsonl").exists():
        jsonl.truncate_after(path / "metrics.jsonl", lambda row: row["step"] <= manifest.step)
    files.write_json(path / "config.json", config.to_dict(plan))
    grade = [] if plan.offline else [grade_note(message)]
    resumed = [*warnings, *grade, *ended_schedules(plan), *changes]
    return make_agent(session, session.run(state, notes=[*resumed, *notes, *reset_notes(session.envs)]))


def restore_state(session: Session, state: LoopState) -> tuple[LoopState, str | None]:
    """Bring the environments of a session to a saved state. Returns the state, and a message if one differs."""
    if isinstance(session.envs, AbstractHostEnvs):
        session.envs.report_replay(replay_printer(session.listeners.console))
    try:
        return session.loop.restore(session.plan.algorithm, session.envs, state)
    except EnvError as error:
        again = "Nothing is changed. To begin new episodes in place of a replay: resume(…, exact=False), --exact False."
        error.args = (f"{error}\nIt failed while it was restored. {again}",)
        raise


def make_agent(session: Session, state: LoopState) -> Agent:
    """The agent in the last state of a session."""
    step = int(np.ravel(state.step)[0]) * session.plan.unit
    return Agent(session.path, session.plan, step, state.algorithm, session.source, session.evaluate_source)


def finetune_plan(agent: Agent, plan: Plan, data: DataSet, offline_fraction: float) -> Plan:
    """The plan of fine-tuning. Its schedules span the training on the data and the fine-tuning."""
    before, rollouts = agent.plan, agent.step // agent.plan.per_rollout
    learned = agent.step if before.offline else before.learned + gradient_steps(before.algorithm, rollouts)
    return replace(
        plan, algorithm=extend_schedules(plan.algorithm, learned, gradient_steps(plan.algorithm, plan.rollouts)),
        dataset=before.dataset, digest=data.digest, timeout_and_terminal=before.timeout_and_terminal,
        offline_fraction=offline_fraction, learned=learned,
    )  # fmt: skip


def choose_loop(envs: Envs | RecordedData) -> Loop:
    """The loop that fits the environments, or the data."""
    if isinstance(envs, RecordedData):
        return offline
    return compiled if is_compiled(envs) else host


def python_source(env: EnvSource | None) -> EnvSource | None:
    """`env` if it is a Python object, which a run folder cannot name; `None` for an id."""
    return None if isinstance(env, str) else env


def mixing_arguments(plan: Plan, data: DataSet | None) -> dict:
    """Arguments of a loop that mixes a share of recorded data into each batch. Empty for a share of 0, so that no row
    is on the device."""
    share = plan.offline_fraction
    return {"recorded": full_ring(data), "share": share} if data is not None and share else {}


def start_notes(plan: Plan) -> list[str]:
    """A note where a run is too short to learn."""
    if plan.offline or gradient_steps(plan.algorithm, plan.rollouts):
        return []
    return [f"steps = {plan.steps:,}: learning_starts leaves no step for an update; this run learns nothing"]


def reading_notes(plan: Plan) -> list[str]:
    """Notes on how the networks read images. Each is there once, however many networks there are."""
    builders = network_builders(plan.algorithm)
    notes = (note for builder in builders for note in image_notes(plan.spec.observation, builder.channels))
    return list(dict.fromkeys(notes))


def reset_notes(envs: Envs | RecordedData) -> list[str]:
    """Notes of environments on the host once they are reset."""
    return envs.reset_notes() if isinstance(envs, AbstractHostEnvs) else []


def source_notes(plan: Plan, envs: Envs | RecordedData, replay_bytes: int, mixed: DataSet | None = None) -> list[str]:
    """Notes on memory, on changes to the data at reading, and on fields that have no effect on recorded data."""
    small = thread_note(plan.algorithm, plan.spec.observation) + reading_notes(plan)
    if not isinstance(envs, RecordedData):
        memory_note = [f"replay: up to {format_bytes(replay_bytes)} of memory"] if replay_bytes else []
        data_notes = [f"data: {note}" for note in (() if mixed is None else mixed.notes)]
        return [*small, *env_notes(envs), *memory_note, *data_notes]
    data, window, ignored = envs.data, envs.window, unused_fields(plan.algorithm)
    size = f"data: {len(data):,} rows of {data.source}, {format_bytes(data.nbytes)}"
    if window is not None:
        size += (
            f"; {window:,} of them on the device at a time, replaced after every {envs.calls:,} updates. This "
            "approximates sampling from all"
        )
    unused = [f"ignored when learning from a data set: {', '.join(ignored)}"] if ignored else []
    return [*small, size, *(f"data: {note}" for note in data.notes), *unused]
