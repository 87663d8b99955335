"""The length of a run in updates, and the fields of the algorithm that depend on it: ends of schedules, test task,
environments."""

import dataclasses
import math
from typing import Any

import jax

from duologue.algorithms.base import AnyAlgorithm, unwrapped
from duologue.errors import ConfigError
from duologue.loops.learning import first_learning_step
from duologue.ops.optim import Linear
from duologue.runs.plan import Plan
from duologue.types import Experience

ONLINE_FIELDS = ("num_envs", "rollout_length", "updates", "learning_starts", "start_steps", "replay_capacity")
"""Fields that have no effect in a run on recorded data."""


def replace_field(algorithm: AnyAlgorithm, **value: int) -> AnyAlgorithm:
    """The algorithm with another value in this field; a wrapper passes it to its inner algorithm. Without such a field
    the algorithm is unchanged."""
    fields = {field.name for field in dataclasses.fields(algorithm)}
    if fields.issuperset(value):
        return dataclasses.replace(algorithm, **value)
    if "algorithm" in fields:
        inner = algorithm.algorithm  # pyright: ignore[reportAttributeAccessIssue]
        return dataclasses.replace(algorithm, algorithm=replace_field(inner, **value))
    return algorithm


def unused_fields(algorithm: AnyAlgorithm) -> list[str]:
    """Fields that have no effect on recorded data, and that differ from their defaults."""
    inner = unwrapped(algorithm)
    fields = [field for field in dataclasses.fields(inner) if field.name in ONLINE_FIELDS]
    return [field.name for field in fields if getattr(inner, field.name) != field.default]


def fill_schedules(algorithm: AnyAlgorithm, updates: int) -> AnyAlgorithm:
    """The algorithm with `updates`, the length of the run, in every `Linear` schedule without a length. Raises
    `ConfigError` if there is such a schedule and the run makes no updates."""

    def fill(value: Any) -> Any:
        left_out = is_schedule(value) and value.updates is None
        if left_out and updates < 1:
            raise ConfigError(
                "Linear.updates = None: this run makes no update, so the schedule has no length. Increase steps, or "
                "reduce learning_starts."
            )
        return dataclasses.replace(value, updates=updates) if left_out else value

    return jax.tree.map(fill, algorithm, is_leaf=is_schedule)


def extend_schedules(algorithm: AnyAlgorithm, done: int, more: int) -> AnyAlgorithm:
    """Make every schedule of `done` updates longer, by `more` updates."""

    def extend(value: Any) -> Any:
        ends = is_schedule(value) and value.updates == done
        return dataclasses.replace(value, updates=done + more) if ends else value

    return jax.tree.map(extend, algorithm, is_leaf=is_schedule)


def gradient_steps(algorithm: AnyAlgorithm, rollouts: int) -> int:
    """Number of gradient steps in a number of rollouts, of the network with the most steps."""
    experience = algorithm.experience
    on_rollout, on_replay = gradient_steps_per_rollout(experience)
    return math.ceil(rollouts * on_rollout + max(0, rollouts - idle_rollouts(experience)) * on_replay)


def rollouts_needed(algorithm: AnyAlgorithm, gradient_steps: float) -> float:
    """Number of rollouts for a number of gradient steps: the inverse of `gradient_steps`."""
    experience = algorithm.experience
    (on_rollout, on_replay), idle = gradient_steps_per_rollout(experience), idle_rollouts(experience)
    if gradient_steps <= idle * on_rollout:
        return gradient_steps / on_rollout
    return (gradient_steps + idle * on_replay) / (on_rollout + on_replay)


def gradient_steps_per_rollout(experience: Experience) -> tuple[float, float]:
    """`(on the rollout itself, on batches of replay)`: gradient steps for one rollout."""
    on_rollout = float(experience.learn_from_rollout)
    return on_rollout * experience.gradient_steps, (experience.updates - on_rollout) * experience.gradient_steps


def idle_rollouts(experience: Experience) -> int:
    """Rollouts before the first batch of replay."""
    rollout = experience.num_envs * experience.rollout_length
    return (
        0
        if experience.replay is None
        else math.ceil(first_learning_step(experience.replay, experience.num_envs) / rollout) - 1
    )


def first_schedule_end(algorithm: AnyAlgorithm) -> int | None:
    """Updates after which the first `Linear` schedule ends; `None` without schedules."""
    schedules = filter(is_schedule, jax.tree.leaves(algorithm, is_leaf=is_schedule))
    return min((schedule.updates for schedule in schedules if schedule.updates is not None), default=None)


def is_schedule(value: Any) -> bool:
    return isinstance(value, Linear)


def ended_schedules(plan: Plan) -> list[str]:
    """A note for a run that continues after the end of one of its schedules."""
    updates = first_schedule_end(plan.algorithm)
    if updates is None:
        return []
    left = max(0, updates - plan.learned)
    end = left if plan.offline or not left else int(rollouts_needed(plan.algorithm, float(left)) * plan.per_rollout)
    note = (
        f"a Linear schedule ends at step {end:,} and keeps its last value until {plan.steps:,}. If this value is 0, "
        "the run learns nothing more. The schedule has the length of the first plan; to change it, start a new run."
    )
    return [note] if end < plan.steps else []
