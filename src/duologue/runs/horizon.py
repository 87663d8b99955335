"""What a run writes into its algorithm: fields of another value, and the length of its schedules."""

import dataclasses
import math
from typing import Any

import jax

from duologue.algorithms.base import AnyAlgorithm, unwrapped
from duologue.errors import ConfigError
from duologue.loops.learning import enough
from duologue.ops.optim import Linear

ONLINE = ("num_envs", "rollout_length", "updates", "learning_starts", "start_steps", "replay_capacity")
"""Fields that say how an algorithm learns in environments."""


def with_field(algorithm: AnyAlgorithm, **value: int) -> AnyAlgorithm:
    """The algorithm, or the one that it wraps, with this value in its field of that name, if it has one."""
    fields = {field.name for field in dataclasses.fields(algorithm)}
    if fields.issuperset(value):
        return dataclasses.replace(algorithm, **value)
    if "algorithm" in fields:
        inner = algorithm.algorithm  # pyright: ignore[reportAttributeAccessIssue]
        return dataclasses.replace(algorithm, algorithm=with_field(inner, **value))
    return algorithm


def idle_on_data(algorithm: AnyAlgorithm) -> list[str]:
    """Of these fields, those with another value than the class gives them."""
    inner = unwrapped(algorithm)
    fields = [field for field in dataclasses.fields(inner) if field.name in ONLINE]
    return [field.name for field in fields if getattr(inner, field.name) != field.default]


def with_horizon(algorithm: AnyAlgorithm, updates: int) -> AnyAlgorithm:
    """The algorithm with the length of the run written into every `Linear` schedule that left it out. Raises
    `ConfigError` where that is 0."""

    def fill(value: Any) -> Any:
        left_out = is_schedule(value) and value.updates is None
        if left_out and updates < 1:
            raise ConfigError(
                "Linear.updates: this run would make no update, so its schedule has no length. Give more steps, or, "
                "where there is one, a smaller learning_starts."
            )
        return dataclasses.replace(value, updates=updates) if left_out else value

    return jax.tree.map(fill, algorithm, is_leaf=is_schedule)


def extended(algorithm: AnyAlgorithm, made: int, more: int) -> AnyAlgorithm:
    """The algorithm with schedules that were to end after `made` updates ending after `more` others: what was as long
    as the run that it goes on from is as long as both."""

    def longer(value: Any) -> Any:
        ends = is_schedule(value) and value.updates == made
        return dataclasses.replace(value, updates=made + more) if ends else value

    return jax.tree.map(longer, algorithm, is_leaf=is_schedule)


def gradient_steps(algorithm: AnyAlgorithm, rollouts: int) -> int:
    """Gradient steps of the network that takes most of them, after so many rollouts."""
    of_rollouts, of_replay = rates(algorithm)
    return math.ceil(rollouts * of_rollouts + max(0, rollouts - idle_rollouts(algorithm)) * of_replay)


def rollouts(algorithm: AnyAlgorithm, gradient_steps: float) -> float:
    """After how many rollouts so many gradient steps are made: the inverse."""
    (of_rollouts, of_replay), idle = rates(algorithm), idle_rollouts(algorithm)
    if gradient_steps <= idle * of_rollouts:
        return gradient_steps / of_rollouts
    return (gradient_steps + idle * of_replay) / (of_rollouts + of_replay)


def rates(algorithm: AnyAlgorithm) -> tuple[float, float]:
    """Gradient steps for one rollout: on itself, and on batches of replay."""
    experience = algorithm.experience
    on_itself = float(experience.learn_from_rollout)
    return on_itself * experience.gradient_steps, (experience.updates - on_itself) * experience.gradient_steps


def idle_rollouts(algorithm: AnyAlgorithm) -> int:
    """Rollouts before the first after which a batch is drawn from replay."""
    experience = algorithm.experience
    rollout = experience.num_envs * experience.rollout_length
    return 0 if experience.replay is None else math.ceil(enough(experience.replay, experience.num_envs) / rollout) - 1


def horizon(algorithm: AnyAlgorithm) -> int | None:
    """After how many updates the first `Linear` schedule has reached its end; `None` without any."""
    schedules = filter(is_schedule, jax.tree.leaves(algorithm, is_leaf=is_schedule))
    return min((schedule.updates for schedule in schedules if schedule.updates is not None), default=None)


def is_schedule(value: Any) -> bool:
    return isinstance(value, Linear)
