"""What a run writes into its algorithm: fields of another value, and the length of its schedules."""

import dataclasses
import math
from typing import Any

import jax

from duologue.algorithms.base import AnyAlgorithm
from duologue.optim import Linear


def with_field(algorithm: AnyAlgorithm, **value: int) -> AnyAlgorithm:
    """The algorithm, or the one that it wraps, with this value in its field of that name, if it has one."""
    fields = {field.name for field in dataclasses.fields(algorithm)}
    if fields.issuperset(value):
        return dataclasses.replace(algorithm, **value)
    if "algorithm" in fields:
        inner = algorithm.algorithm  # pyright: ignore[reportAttributeAccessIssue]
        return dataclasses.replace(algorithm, algorithm=with_field(inner, **value))
    return algorithm


def with_horizon(algorithm: AnyAlgorithm, updates: int) -> AnyAlgorithm:
    """The algorithm with the length of the run written into every `Linear` schedule that left it out."""

    def fill(value: Any) -> Any:
        left_out = is_schedule(value) and value.updates is None
        return dataclasses.replace(value, updates=updates) if left_out else value

    return jax.tree.map(fill, algorithm, is_leaf=is_schedule)


def gradient_steps(algorithm: AnyAlgorithm, rollouts: int) -> int:
    """Gradient steps of the network that takes most of them, after so many rollouts."""
    return math.ceil(rollouts * algorithm.experience.updates * algorithm.experience.gradient_steps)


def horizon(algorithm: AnyAlgorithm) -> int | None:
    """After how many updates the first `Linear` schedule has reached its end; `None` without any."""
    schedules = filter(is_schedule, jax.tree.leaves(algorithm, is_leaf=is_schedule))
    return min((schedule.updates for schedule in schedules if schedule.updates is not None), default=None)


def is_schedule(value: Any) -> bool:
    return isinstance(value, Linear)
