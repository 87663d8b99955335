"""Metrics: what an update tells, and what becomes of many updates' metrics in one row.

Of a name that ends in `_min` the smallest value stands, of one in `_max` the largest, of all others the mean.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from duologue.types import Metrics

RETURN, EVALUATION = "rollout/ep_rew_mean", "eval/mean_reward"
"""A row's mean return of the episodes that ended in training, and of those that were played to test."""


class Rule(NamedTuple):
    """How values become one."""

    start: float
    join: Callable[[Array, Array], Array]
    """Two values, in JAX."""
    reduce: Callable[[Any], Any]
    """Those along the first axis, in NumPy or JAX."""


SUM = Rule(0.0, jnp.add, lambda x: x.sum(0))
"""Divided by the number of updates in the end."""
EXTREMA = {
    "min": Rule(np.inf, jnp.minimum, lambda x: x.min(0)),
    "max": Rule(-np.inf, jnp.maximum, lambda x: x.max(0)),
}


def rule_of(name: str) -> Rule:
    """The rule of a metric's name; that of one of several tasks, `NAME/TASK`, is its name's."""
    return EXTREMA.get(name.partition("/")[0].rpartition("_")[2], SUM)


def summary_metrics(name: str, x: Float[Array, "*batch"]) -> Metrics:
    """Mean, standard deviation, minimum and maximum, as metrics."""
    return {f"{name}_{what}": summary(x) for what, summary in (
        ("mean", jnp.mean), ("std", jnp.std), ("min", jnp.min), ("max", jnp.max),
    )}  # fmt: skip


def join_steps(metrics: Metrics) -> Metrics:
    """One update's metrics from those of its steps, `[D]` each."""
    return {name: rule_of(name).reduce(x) / (len(x) if rule_of(name) is SUM else 1) for name, x in metrics.items()}


def empty_sums(shapes: Mapping[str, Any]) -> Metrics:
    """What `joined` begins with, for metrics of these shapes and types."""
    return {name: jnp.full(x.shape, rule_of(name).start, x.dtype) for name, x in shapes.items()}


def add_metrics(so_far: Metrics, news: Metrics) -> Metrics:
    """What was gathered, with another update's metrics."""
    return {name: rule_of(name).join(value, news[name]) for name, value in so_far.items()}


def train_row(gathered: Mapping[str, Any], updates: Any) -> dict[str, np.ndarray | np.float64]:
    """A row's values, under the names users know, from what `updates` updates gathered: `[S]` each for several seeds.
    All are 0 for a seed that had none."""
    count = np.maximum(updates, 1)
    return {
        f"train/{name}": np.asarray(x) / count if rule_of(name) is SUM else np.where(np.asarray(updates) > 0, x, 0.0)
        for name, x in gathered.items()
    }
