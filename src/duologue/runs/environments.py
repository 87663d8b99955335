"""Make the environments of a run from its plan, and compare them with it."""

import dataclasses
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax

from duologue.algorithms.base import AnyAlgorithm
from duologue.envs.base import AbstractHostEnvs, AbstractJaxEnvs
from duologue.envs.differences import space_differences, value_difference
from duologue.envs.gymnasium import name_of
from duologue.envs.make import Source, find_adapter, is_compiled, make, make_seeds, with_kwargs
from duologue.envs.spaces import stack_depths
from duologue.envs.tasks import READY_TASKS, EnvWithTasks, strip_tasks
from duologue.errors import ConfigError
from duologue.images import read_box
from duologue.runs.plan import Plan
from duologue.runs.recovery import recovery_arguments
from duologue.types import Box, Dict, EnvSpec, Space

Envs = AbstractHostEnvs | AbstractJaxEnvs
EnvSource = Source


def open_envs(
    plan: Plan, source: EnvSource | None, *, purpose: str, num_envs: int | None = None, seed: int | None = None
) -> Envs:
    """Make environments of a run for one purpose. `source` is the Python object that makes them, `None` for the plan's
    id. Raises `ConfigError`, and then leaves nothing open."""
    check_source(plan, source)
    training = purpose == "train"
    envs = make_seeds(
        env_source(plan, source),
        plan.num_envs if num_envs is None else num_envs,
        seed=plan.seed if seed is None else seed,
        seeds=plan.seeds if training else 1,
        purpose=purpose,
        max_episode_steps=plan.max_episode_steps,
        asynchronous=plan.asynchronous and training,
        **({"info": plan.log_info, **recovery_arguments(plan)} if training else {}),
    )
    with close_on_failure(envs, source):
        check_spec(plan, envs.spec)
        if training and isinstance(envs, AbstractHostEnvs):
            envs.spec = spec_with_stacks(plan, envs.spec)
    return envs


def env_source(plan: Plan, source: EnvSource | None) -> EnvSource:
    """The source of a run's environments, with the rewards that the algorithm reads."""
    env = plan.env if source is None else source
    if strip_tasks(env) == plan.env:  # the arguments of a run are for its own environment
        env = with_kwargs(env, plan.env_kwargs)
    if plan.tasks in READY_TASKS and not isinstance(env, EnvWithTasks):
        env = READY_TASKS[plan.tasks].attach(env)
    return match_rewards(env, plan.algorithm)


def is_in_jax(plan: Plan, source: EnvSource | None) -> bool:
    """Whether the environments of a run are written in JAX."""
    return is_compiled(plan.env if source is None else source)


def match_rewards(env: EnvSource, algorithm: AnyAlgorithm) -> EnvSource:
    """`env` with the rewards that the algorithm reads: one for each task, or the main task's only. Raises `ConfigError`
    for an algorithm of several tasks in an environment without tasks."""
    if isinstance(env, EnvWithTasks):
        return dataclasses.replace(env, main_alone=not algorithm.experience.tasks)
    if algorithm.experience.tasks:
        raise ConfigError(
            f"tasks = None: {type(algorithm).__name__} learns several tasks. In Python, pass for example "
            "tasks=duologue.tasks.lunar_lander. On the command line, use --tasks lunar-lander. The sets of tasks that "
            f"Duologue has are {', '.join(READY_TASKS)}."
        )
    return env


def evaluation_env(
    plan: Plan, env: EnvSource | None, evaluate_env: EnvSource | None
) -> tuple[Plan, EnvSource | None]:  # fmt: skip
    """The plan and the Python object of the environments that play test episodes: those of training, or of the plan's
    `evaluate_env`, which has arguments and a time limit of its own. Raises `ConfigError` where nothing can make it."""
    check_evaluate_env(plan, evaluate_env)
    if plan.evaluate_env is None:
        return plan, env
    plan = dataclasses.replace(
        plan, env=plan.evaluate_env, env_kwargs=plan.evaluate_env_kwargs, max_episode_steps=None
    )  # fmt: skip
    check_source(plan, evaluate_env, option="evaluate_env")
    return plan, evaluate_env


def check_evaluate_env(plan: Plan, evaluate_env: EnvSource | None) -> None:
    """Raise `ConfigError` for an `evaluate_env` where the run has been started without one."""
    if evaluate_env is not None and plan.evaluate_env is None:
        raise ConfigError(
            f"evaluate_env = {describe_source(evaluate_env)}: this run evaluates in the environment of its training. "
            "Leave it out. To score the agent in another environment, call run.evaluate(env=...)."
        )


def check_source(plan: Plan, source: EnvSource | None, *, option: str = "env") -> None:
    """Raise `ConfigError` where neither the plan nor `source` can make environments. `option` is the argument that
    gives the source."""
    role = "environment" if option == "env" else "evaluation environment"
    if source is None and not plan.env:
        raise ConfigError("This run has only data. Give an environment: env=..., or --env.")
    module, named, _ = plan.env.partition(":")
    if source is None and named and module not in sys.modules:
        raise ConfigError(
            f"The {role} of this run, {plan.env}, would import the module {module}. Its name comes from a "
            f"file in the run folder. If you trust the module, pass the environment yourself: "
            f"--{option.replace('_', '-')} {plan.env}, in Python {option}={plan.env!r}."
        )
    own_tasks = plan.tasks not in (None, *READY_TASKS)
    if own_tasks and not isinstance(source, EnvWithTasks):
        raise ConfigError(
            f"The tasks of this run were a Python object, {plan.tasks}, which the command line cannot make. In Python, "
            f"pass them again: duologue.load(path, {option}=tasks.attach({plan.env!r})), or run.evaluate(env=...)."
        )
    if source is None and plan.env.startswith("<"):
        raise ConfigError(
            f"The {role} of this run was a Python object, {plan.env}. Pass it again: "
            f"duologue.load(path, {option}=...), or run.evaluate(env=...)."
        )


def check_spec(plan: Plan, spec: EnvSpec) -> None:
    """Raise `ConfigError` for an environment with other spaces or tasks than the run's."""
    if differences := differing_parts(plan, spec):
        raise ConfigError(
            "The spaces of the environment differ from those at the start of this run. "
            f"In {spec.id}: {'; '.join(differences)}."
        )
    if spec.tasks != plan.spec.tasks:
        raise ConfigError(f"tasks = {', '.join(spec.tasks)}: must be {', '.join(plan.spec.tasks)}, as in this run.")


def check_evaluation_spec(plan: Plan, spec: EnvSpec) -> None:
    """Raise `ConfigError` for an `evaluate_env` with other spaces or tasks than the training environment. Its rewards
    and its time limit may differ."""
    differences = [*differing_parts(plan, spec), *value_difference("tasks", spec.tasks, plan.spec.tasks)]
    if differences:
        raise ConfigError(
            f"evaluate_env = {plan.evaluate_env}: must have the spaces of the training environment, {plan.env}. It "
            f"differs: {'; '.join(differences)}."
        )


def has_same_spaces(plan: Plan, spec: EnvSpec) -> bool:
    """Whether an environment has the spaces of the run. Bounds of observations may differ where no network reads them:
    networks divide bytes by the upper bound."""
    return not differing_parts(plan, spec)


def differing_parts(plan: Plan, spec: EnvSpec) -> list[str]:
    """The parts in which the spaces of an environment differ from those of the run, bounds that nobody reads apart."""
    now, then = (_unbounded(each.observation) for each in (spec, plan.spec))
    parts = [
        *space_differences("observation", now, then),
        *space_differences("action", spec.action, plan.spec.action),
    ]
    if not parts and _as_read(spec.observation) != _as_read(plan.spec.observation):
        parts.append("observation: networks would divide its integers by another number")
    return parts


def _as_read(space: Space) -> Any:
    """A space, with the reading of each box in place of its bounds."""
    match space:
        case Dict(spaces):
            return {name: _as_read(part) for name, part in spaces.items()}
        case Box(shape, dtype):
            return shape, dtype, read_box(space)
    return space


def _unbounded(space: Space) -> Space:
    """A space without the bounds of its boxes, and without their stacks of frames."""
    match space:
        case Dict(spaces):
            return Dict({name: _unbounded(part) for name, part in spaces.items()})
        case Box(shape, dtype):
            return Box(shape, dtype)
        case _:
            return space


def spec_with_stacks(plan: Plan, spec: EnvSpec) -> EnvSpec:
    """`spec` with stacks of frames as the run's replay stores them; an older run may store whole stacks. Raises
    `ConfigError` if the replay stores single frames and the environment no longer stacks frames."""
    now, before = (jax.tree.leaves(stack_depths(each.observation)) for each in (spec, plan.spec))
    if any(frames < kept for frames, kept in zip(now, before, strict=True)):
        raise ConfigError(
            "This run was started with stacked frames, and its replay needs them. This environment does not stack "
            "frames. Make FrameStackObservation the outermost wrapper again."
        )
    return spec if now == before else dataclasses.replace(spec, observation=plan.spec.observation)


def read_spec(source: EnvSource, *, max_episode_steps: int | None = None) -> EnvSpec:
    """The spec of environments, which are made once and closed again; an adapter stays as it is."""
    num_envs = 1 if (adapter := find_adapter(source)) is None else adapter.num_envs
    envs = make(source, num_envs, purpose="evaluate", max_episode_steps=max_episode_steps)
    close_envs(envs, source)
    return envs.spec


def env_notes(envs: Any) -> tuple[str, ...]:
    """Remarks on environments, for the user; those written in JAX, and recorded data, have none."""
    return envs.notes if isinstance(envs, AbstractHostEnvs) else ()


def close_envs(envs: Any, source: EnvSource | None) -> None:
    """Close environments, or data. An adapter stays open: its user closes it."""
    if not isinstance(strip_tasks(source), AbstractHostEnvs):
        envs.close()


@contextmanager
def close_on_failure(envs: Any, source: EnvSource | None) -> Iterator[None]:
    """A context that closes the environments where its body raises."""
    try:
        yield
    except BaseException:
        close_envs(envs, source)
        raise


def describe_source(source: EnvSource) -> str:
    """An id unchanged; for any other source its name in angle brackets, which a file cannot turn into the source."""
    return name_of(strip_tasks(source))
