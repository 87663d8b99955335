"""Make a plan from the arguments of `train`: open the sources, fill in the defaults, check everything."""

import dataclasses
from typing import Any, NamedTuple

from duologue.algorithms.base import AnyAlgorithm
from duologue.data.dataset import DataSet, adapt_to_env
from duologue.envs.base import AbstractHostEnvs
from duologue.envs.make import find_adapter, make_seeds, with_kwargs
from duologue.envs.tasks import EnvWithTasks, Tasks, is_ready, ready_tasks
from duologue.errors import ConfigError, EnvError
from duologue.loops.offline import RecordedData, prepare_data
from duologue.runs.checks import check_algorithm, check_data, check_init, check_replay
from duologue.runs.data_sources import DataSource, data_name, read_data
from duologue.runs.environments import (
    Envs,
    EnvSource,
    check_evaluation_spec,
    close_on_failure,
    describe_source,
    match_rewards,
    read_spec,
)
from duologue.runs.horizon import fill_schedules, gradient_steps, replace_field
from duologue.runs.options import RunOptions
from duologue.runs.plan import Plan
from duologue.runs.recovery import check_recovery, recovery_arguments
from duologue.types import EnvSpec

TaskSource = str | Tasks
"""The name of a ready set of tasks, or a set."""
ROWS, CHECKPOINTS = 200, 10
"""Default numbers of rows and of checkpoints in a run."""


class Sources(NamedTuple):
    """Sources of a run: environments, with or without tasks, and with or without others for evaluations; or recorded
    data, with or without an environment for evaluations."""

    env: EnvSource | None = None
    dataset: DataSource | None = None
    tasks: TaskSource | None = None
    evaluate_env: EnvSource | None = None
    """Environment of evaluations. `None`: the environment of training."""

    @property
    def tasked_env(self) -> EnvSource | None:
        """The environment with the tasks. Raises `ConfigError` for tasks that do not exist."""
        if self.tasks is None or self.env is None:
            return self.env
        tasks = ready_tasks(self.tasks) if isinstance(self.tasks, str) else self.tasks
        if not isinstance(tasks, Tasks):
            raise ConfigError(f"tasks = {tasks!r}: must be the name of a ready set, or duologue.tasks.Tasks(…).")
        return tasks.attach(self.env)

    @property
    def tasked_evaluate_env(self) -> EnvSource | None:
        """The environment of evaluations, with the tasks of training unless it has its own."""
        env, trained = self.evaluate_env, self.tasked_env
        if env is None or isinstance(env, EnvWithTasks) or not isinstance(trained, EnvWithTasks):
            return env
        return trained.tasks.attach(env)


class PreparedRun(NamedTuple):
    """A plan, with its environments or its data open."""

    plan: Plan
    envs: Envs | RecordedData
    replay_bytes: int
    """Memory of the replay of all seeds."""


def make_plan(algorithm: AnyAlgorithm, sources: Sources, options: RunOptions) -> PreparedRun:
    """Make the plan of a run, and its environments or its data. Raises `ConfigError`, and then leaves nothing open."""
    check_algorithm(algorithm)
    check_sources(sources, options)
    if options.num_envs is not None:
        algorithm = replace_field(algorithm, num_envs=options.num_envs)
    experience = algorithm.experience  # raises for a minibatch that does not divide the rollout
    if sources.env is not None:
        sources = sources._replace(env=with_kwargs(sources.env, options.env_kwargs))
    offline, env = sources.dataset is not None, sources.tasked_env
    tested = read_evaluation_spec(algorithm, sources, options)
    check_recovery(options, None if offline else env)
    num_envs = 1 if offline else options.num_envs or experience.num_envs
    unit = experience.gradient_steps if offline else num_envs * experience.rollout_length
    chunks = -(-options.steps // unit)
    options = fill_intervals(options, unit, default_evaluation=offline and env is not None)
    envs = open_data(algorithm, sources, options) if offline else open_training_envs(algorithm, env, num_envs, options)
    with close_on_failure(envs, env):
        chosen: dict[str, Any] = {field.name: getattr(options, field.name) for field in dataclasses.fields(RunOptions)}
        chosen["num_envs"] = num_envs
        plan = Plan(
            **chosen,
            algorithm=fill_schedules(algorithm, chunks * unit if offline else gradient_steps(algorithm, chunks)),
            env="" if env is None else describe_source(env),
            spec=envs.spec,
            dataset=data_name(sources.dataset),
            digest=envs.data.digest if isinstance(envs, RecordedData) else "",
            tasks=describe_tasks(env),
            evaluate_env=None if sources.evaluate_env is None else describe_source(sources.evaluate_env),
        )
        if tested is not None:
            check_evaluation_spec(plan, tested)
        check_init(plan)
        replay_bytes = 0 if offline else check_replay(plan)
    return PreparedRun(plan, envs, replay_bytes)


def check_sources(sources: Sources, options: RunOptions) -> None:
    """Raise `ConfigError` for sources and options that exclude each other."""
    env, dataset, tasks, evaluate_env = sources
    only_data = {
        "timeout_and_terminal": options.timeout_and_terminal != "timeout",
        "window": options.window is not None,
    }
    only_envs = {
        "num_envs": options.num_envs is not None,
        "asynchronous": options.asynchronous,
        "log_info": options.log_info != (),
    }
    refused, why = (
        (only_data, "this option is for recorded data, and this run has no dataset")
        if dataset is None
        else (only_envs, "a run on recorded data steps no environment")
    )
    if given := [name for name, is_given in refused.items() if is_given]:
        raise ConfigError(f"{given[0]} = {getattr(options, given[0])!r}: {why}. Leave it out.")
    if dataset is not None and tasks is not None:
        raise ConfigError(f"tasks = {tasks!r}: recorded data have one reward. Leave out tasks, or the dataset.")
    if env is None and dataset is None:
        raise ConfigError("There is nothing to learn from. Pass an environment or a dataset.")
    if options.evaluate_every is not None and env is None:
        raise ConfigError(f"evaluate_every = {options.evaluate_every}: there is no environment. Pass env=...")
    check_evaluation_sources(env, dataset, evaluate_env, options)


def check_evaluation_sources(
    env: EnvSource | None, dataset: DataSource | None, evaluate_env: EnvSource | None, options: RunOptions
) -> None:
    """Raise `ConfigError` for an environment of evaluations that cannot work."""
    if evaluate_env is None and options.evaluate_env_kwargs:
        raise ConfigError(
            f"evaluate_env_kwargs = {options.evaluate_env_kwargs}: these are arguments of evaluate_env, which is not "
            "given. Pass evaluate_env=..."
        )
    if evaluate_env is not None and dataset is not None:
        raise ConfigError(
            f"evaluate_env = {describe_source(evaluate_env)}: with a dataset, env is the environment of evaluations. "
            "Pass env=... alone."
        )
    trained, played = find_adapter(env), find_adapter(env if evaluate_env is None else evaluate_env)
    if played is None:
        return
    if options.evaluate_num_envs not in (None, played.num_envs):
        raise ConfigError(
            f"evaluate_num_envs = {options.evaluate_num_envs}: the adapter has {played.num_envs} environments. Leave "
            "it out."
        )
    if options.evaluate_every and dataset is None and played is trained and isinstance(played, AbstractHostEnvs):
        raise ConfigError(
            f"evaluate_every = {options.evaluate_every}: an evaluation would reset the environments of the "
            "adapter, which training uses. Pass an id or a callable, or evaluate_env=..., or leave this option out."
        )


def fill_intervals(options: RunOptions, unit: int, *, default_evaluation: bool) -> RunOptions:
    """`options` with all intervals filled in; `unit` is the smallest number of steps that the loop makes at a time. A
    run on data with an environment evaluates by default, because it has no other curve."""
    evaluate_every = options.evaluate_every
    if evaluate_every is None and default_evaluation:
        evaluate_every = max(options.steps // CHECKPOINTS, unit)
    save_every = options.save_every or max(options.steps // CHECKPOINTS, unit)
    # Each evaluation and each checkpoint comes with a row, so rows are at least as frequent.
    due = (options.log_every or max(options.steps // ROWS, unit), evaluate_every, save_every)
    log_every = min(filter(None, due))
    return dataclasses.replace(options, evaluate_every=evaluate_every, save_every=save_every, log_every=log_every)


def open_training_envs(algorithm: AnyAlgorithm, env: Any, num_envs: int, options: RunOptions) -> Envs:
    """Make the environments in which a run trains."""
    return make_seeds(
        match_rewards(env, algorithm), num_envs, seed=options.seed, seeds=options.seeds,
        max_episode_steps=options.max_episode_steps, asynchronous=options.asynchronous, info=options.log_info,
        **recovery_arguments(options),
    )  # fmt: skip


def read_evaluation_spec(algorithm: AnyAlgorithm, sources: Sources, options: RunOptions) -> EnvSpec | None:
    """The spec of the environment of evaluations, if the run has one of its own. It is closed again before training
    opens its environments, because perhaps only one can be open."""
    env = sources.tasked_evaluate_env
    if env is None:
        return None
    env = with_kwargs(env, options.evaluate_env_kwargs, "evaluate_env")
    try:
        return read_spec(match_rewards(env, algorithm))
    except (ConfigError, EnvError) as error:
        raise type(error)(f"evaluate_env: {error}") from error


def open_data(algorithm: AnyAlgorithm, sources: Sources, options: RunOptions) -> RecordedData:
    """Read the data of a run, in the spaces of its environment if the run has one."""
    assert sources.dataset is not None
    data: DataSet = read_data(sources.dataset, timeout_and_terminal=options.timeout_and_terminal)
    if sources.env is not None:
        env = match_rewards(sources.env, algorithm)
        data = adapt_to_env(data, read_spec(env, max_episode_steps=options.max_episode_steps))
    rows = prepare_data(algorithm, data, window=options.window, seed=options.seed)
    check_data(rows)
    return rows


def describe_tasks(env: EnvSource | None) -> str | None:
    """The name of a ready set of tasks; the tasks of another set in angle brackets."""
    if not isinstance(env, EnvWithTasks):
        return None
    return env.tasks.name if is_ready(env.tasks) else f"<{', '.join(env.tasks.names)}>"
