"""Metrics of updates, and the reduction of many updates to one row of the log.

A row holds the smallest value of a metric whose name ends in `_min`, the largest value if the name ends in `_max`, and
the mean of every other metric.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from duologue.types import Metrics

RETURN, EVALUATION = "rollout/ep_rew_mean", "eval/mean_reward"
"""Names of mean returns in a row: of the episodes that ended in training, and of the episodes of an evaluation. Where
the environment reports returns of its own (`info["episode"]`), they are these."""
LEARNED_RETURN = "rollout/ep_learned_mean"
"""Name of the mean sum of the rewards that the agent learns from, where the environment reports returns of its own."""


class Counted(NamedTuple):
    """A sum of so many numbers."""

    count: Any
    total: Any

    def mean(self) -> np.ndarray | np.float64:
        """total / count; NaN where the count is 0."""
        count = np.asarray(self.count)
        return np.asarray(self.total) / np.maximum(count, 1) + np.where(count > 0, 0.0, np.nan)


class Rule(NamedTuple):
    """A rule that combines several values of a metric into one value."""

    start: float
    """Start value, before any other."""
    join: Callable[[Array, Array], Array]
    """Function that combines two values, in JAX."""
    reduce: Callable[[Any], Any]
    """Function that combines the values along the first axis, in NumPy or JAX."""


SUM = Rule(0.0, jnp.add, lambda x: x.sum(0))
"""A sum, which `train_row` divides by the number of updates."""
EXTREMA = {
    "min": Rule(np.inf, jnp.minimum, lambda x: x.min(0)),
    "max": Rule(-np.inf, jnp.maximum, lambda x: x.max(0)),
}


def rule_of(name: str) -> Rule:
    """The rule of a metric by its name. `NAME/TASK`, the metric of one task, has the rule of `NAME`."""
    return EXTREMA.get(name.partition("/")[0].rpartition("_")[2], SUM)


def summary_metrics(name: str, x: Float[Array, "*batch"]) -> Metrics:
    """Mean, standard deviation, minimum and maximum of `x`, as metrics `NAME_mean`, `NAME_std`, …"""
    return {f"{name}_{what}": summary(x) for what, summary in (
        ("mean", jnp.mean), ("std", jnp.std), ("min", jnp.min), ("max", jnp.max),
    )}  # fmt: skip


def join_steps(metrics: Metrics) -> Metrics:
    """Metrics of one update from the metrics of its D steps, `[D]` each."""
    return {name: rule_of(name).reduce(x) / (len(x) if rule_of(name) is SUM else 1) for name, x in metrics.items()}


def empty_sums(shapes: Mapping[str, Any]) -> Metrics:
    """The sums before the first update, for metrics of these shapes and dtypes."""
    return {name: jnp.full(x.shape, rule_of(name).start, x.dtype) for name, x in shapes.items()}


def add_metrics(sums: Metrics, metrics: Metrics) -> Metrics:
    """`sums` (or extrema) after another update with these `metrics`."""
    return {name: rule_of(name).join(value, metrics[name]) for name, value in sums.items()}


def train_row(sums: Mapping[str, Any], updates: Any) -> dict[str, np.ndarray | np.float64]:
    """Values of a log row under `train/…`: sums divided by the number of updates, and extrema as they are.

    With several seeds each is `[S]`. All values of a seed without updates are 0.
    """
    count = np.maximum(updates, 1)
    return {
        f"train/{name}": np.asarray(x) / count if rule_of(name) is SUM else np.where(np.asarray(updates) > 0, x, 0.0)
        for name, x in sums.items()
    }
