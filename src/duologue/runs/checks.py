"""Making a plan: arguments checked, defaults filled in, and what cannot work refused before anything is made."""

import os
from pathlib import Path
from typing import Any

import jax

from duologue.algorithms.base import AbstractAlgorithm, AnyAlgorithm
from duologue.data.dataset import DataSet
from duologue.envs.make import AbstractHostEnvs, make_seeds
from duologue.envs.tasks import EnvWithTasks, Tasks, is_ready, ready_tasks, strip_tasks
from duologue.errors import ConfigError
from duologue.fields import Decay, mismatch
from duologue.loops.keys import run_key
from duologue.loops.offline import Recorded
from duologue.loops.replay_ring import memory
from duologue.runs.horizon import gradient_steps, with_field, with_horizon
from duologue.runs.plan import Envs, EnvSource, Plan, check_arguments, closed_on_failure, describe, in_words, rewarded
from duologue.types import ACTION_MASK, Box, Dict, Discrete, EnvSpec, MultiDiscrete

TaskSource = str | Tasks
"""The name of a ready set of tasks, or a set."""
ROWS, CHECKPOINTS = 200, 10
"""In a run, unless `log_every` and `save_every` say otherwise."""
CONTROL_GROUP = Path("/sys/fs/cgroup/memory.max")
"""Of Linux: bytes, or `max`."""


def make_plan(
    algorithm: AnyAlgorithm, env: EnvSource, *, steps: int, seed: int, seeds: int, num_envs: int | None,
    evaluate_every: int | None, evaluate_episodes: int, save_every: int | None, log_every: int | None,
    max_episode_steps: int | None, asynchronous: bool, tasks: TaskSource | None = None,
) -> tuple[Plan, Envs]:  # fmt: skip
    """The plan of `duologue.train`'s arguments, and the environments it trains in. Raises `ConfigError`."""
    check_algorithm(algorithm)
    if not isinstance(asynchronous, bool):
        raise ConfigError(f"asynchronous = {asynchronous!r}: must be True or False.")
    if num_envs is not None:
        check_arguments(num_envs=num_envs)
        algorithm = with_field(algorithm, num_envs=num_envs)
    experience = algorithm.experience  # raises for a minibatch that does not divide, before anything is made
    num_envs = experience.num_envs if num_envs is None else num_envs
    check_arguments(
        steps=steps, seed=seed, seeds=seeds, num_envs=num_envs, evaluate_every=evaluate_every, save_every=save_every,
        evaluate_episodes=evaluate_episodes, log_every=log_every, max_episode_steps=max_episode_steps,
    )  # fmt: skip
    if evaluate_every is not None and isinstance(strip_tasks(env), AbstractHostEnvs):
        raise ConfigError(
            f"evaluate_every = {evaluate_every}: an adapter is the environments that train, and evaluation would reset "
            "them. Give an id or a callable, or leave this out."
        )
    if tasks is not None:
        tasks = ready_tasks(tasks) if isinstance(tasks, str) else tasks
        if not isinstance(tasks, Tasks):
            raise ConfigError(f"tasks = {tasks!r}: must be the name of a ready set, or duologue.tasks.Tasks(…).")
        env = tasks.attach(env)
    envs = make_seeds(
        rewarded(env, algorithm), num_envs,
        seed=seed, seeds=seeds, max_episode_steps=max_episode_steps, asynchronous=asynchronous,
    )  # fmt: skip
    rollout = num_envs * experience.rollout_length
    with closed_on_failure(envs, env):
        save_every, log_every = intervals(
            steps, rollout, evaluate_every=evaluate_every, save_every=save_every, log_every=log_every
        )
        plan = Plan(
            algorithm=with_horizon(algorithm, gradient_steps(algorithm, -(-steps // rollout))),
            env=describe(env),
            spec=envs.spec,
            steps=steps,
            seed=seed,
            seeds=seeds,
            num_envs=num_envs,
            asynchronous=asynchronous,
            max_episode_steps=max_episode_steps,
            evaluate_every=evaluate_every,
            evaluate_episodes=evaluate_episodes,
            save_every=save_every,
            log_every=log_every,
            tasks=described_tasks(env),
        )
        check_spaces(plan)
    return plan, envs


def check_algorithm(algorithm: Any) -> None:
    """Raise `ConfigError` for what is no algorithm object, such as its class."""
    if not isinstance(algorithm, AbstractAlgorithm):
        raise ConfigError(f"algorithm = {algorithm!r}: must be an algorithm object, like duologue.A2C().")


def check_spaces(plan: Plan) -> None:
    """Raise `ConfigError` for spaces that the algorithm cannot serve, and replays that cannot work."""
    check_mask(plan.spec)
    try:
        jax.eval_shape(lambda key: plan.algorithm.init(plan.spec, key=key), run_key(0))
        needed, there = memory(plan.algorithm, plan.spec, plan.num_envs, plan.seeds), device_memory()
    except ConfigError as error:
        raise ConfigError(*error.args) from None  # without the notes that JAX adds to what passes through it
    replay = plan.algorithm.experience.replay
    if replay is not None and needed > there:
        raise ConfigError(
            f"replay_capacity = {replay.capacity:,}: the replay would take {in_words(needed)}, and there are "
            f"{in_words(there)}. Give less than {replay.capacity * there // needed:,}, or fewer seeds."
        )


def check_data(rows: Recorded) -> None:
    """Raise `ConfigError` for data of which more would lie on the device than it can hold: all, or two windows, while
    one takes the place of another."""
    data, there = rows.data, device_memory()
    needed = data.nbytes if rows.window is None else 2 * data.nbytes * rows.window // len(data)
    if needed > there:
        what = "all rows" if rows.window is None else "two windows, the old and the new,"
        raise ConfigError(
            f"window = {rows.window}: {what} of {data.source} would take {in_words(needed)} of the device, and there "
            f"are {in_words(there)}. Give at most {len(data) * there // (2 * data.nbytes):,}."
        )


def check_beside(plan: Plan, data: DataSet) -> None:
    """Raise `ConfigError` for recorded data that do not fit on the device beside the replay of a run in
    environments."""
    kept, there = memory(plan.algorithm, plan.spec, plan.num_envs, plan.seeds), device_memory()
    if data.nbytes + kept > there:
        raise ConfigError(
            f"offline_fraction = {plan.offline_fraction:g}: all rows of {data.source} lie on the device, also of a run "
            f"with a window, and take {in_words(data.nbytes)} beside the {in_words(kept)} of the replay; there are "
            f"{in_words(there)}. Give 0, or train on fewer rows or with a smaller replay_capacity."
        )


def check_share(share: float, algorithm: AnyAlgorithm) -> None:
    """Raise `ConfigError` for an `offline_fraction` that is no share of the algorithm's batches, or that would leave
    out the data or the environment."""
    if problem := mismatch(share, Decay):
        raise ConfigError(f"offline_fraction = {share!r}: must be {problem}.")
    replay = algorithm.experience.replay
    if replay is not None and share and (rows := round(share * (size := replay.batch_size))) in (0, size):
        remedy = f"Give 0, or from {1 / size:.2g} to {1 - 1 / size:.2g}." if size > 1 else "Give 0."
        raise ConfigError(
            f"offline_fraction = {share:g}: of batch_size = {size:,} that is {rows:,} rows, so "
            f"{'the environment' if rows else 'the data'} would be left out. {remedy}"
        )


def check_mask(spec: EnvSpec) -> None:
    """Raise `ConfigError` for a mask that has another length than there are actions to mask."""
    if not isinstance(spec.observation, Dict) or ACTION_MASK not in spec.observation.spaces:
        return
    match spec.action:
        case Discrete(n):
            wanted = (n,)
        case MultiDiscrete(nvec):
            wanted = (sum(nvec),)
        case _:
            raise ConfigError(
                f"{ACTION_MASK}: actions of {spec.action} are not masked. Call this observation otherwise."
            )
    mask = spec.observation.spaces[ACTION_MASK]
    if not isinstance(mask, Box) or mask.shape != wanted:
        raise ConfigError(f"{ACTION_MASK} of {spec.id} is {mask}: must be a Box of shape {wanted} for {spec.action}.")


def intervals(
    steps: int, least: int, *, evaluate_every: int | None, save_every: int | None, log_every: int | None
) -> tuple[int, int]:
    """What `save_every` and `log_every` are in a run whose loop makes at least `least` steps at a time."""
    save_every = save_every or max(steps // CHECKPOINTS, least)
    # A row is written at least as often as an evaluation or a checkpoint is due; both come with the next row.
    due = (log_every or max(steps // ROWS, least), evaluate_every, save_every)
    return save_every, min(filter(None, due))


def described_tasks(env: EnvSource) -> str | None:
    """The name of a ready set; another's tasks in angle brackets."""
    if not isinstance(env, EnvWithTasks):
        return None
    return env.tasks.name if is_ready(env.tasks) else f"<{', '.join(env.tasks.names)}>"


def device_memory() -> int:
    """Bytes that a replay may take: of a GPU what JAX may use, of a CPU this machine's memory, or what its control
    group allows."""
    allowed = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")
    if allowed is None:
        allowed = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        if CONTROL_GROUP.is_file() and (limit := CONTROL_GROUP.read_text().strip()).isdigit():
            allowed = min(allowed, int(limit))
    return allowed
