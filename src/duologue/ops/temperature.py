"""Weights: α of the entropy, and λ of other constraints (BEAR, CQL). Each is learned, λ by dual ascent, or fixed.

All have the same methods: `init() -> state`, `weight(state)`, `update(state, measured) -> (state, metrics)`. α rises
while the mean of log π(a|s) + H̄ is above 0; λ rises while the mean of a divergence is above its threshold.
"""

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from duologue.errors import ConfigError
from duologue.fields import Configurable, NonNegative, Positive, is_concrete
from duologue.ops.optim import LearningRate, Linear, adam, gradient_step, opt_init
from duologue.types import Metrics, PyTree


def temperature_loss(log_alpha: Float[Array, ""], excess: Float[Array, "*batch"]) -> tuple[Float[Array, ""], Metrics]:
    """J(α) = −log α E[excess], excess = log π(a|s) + H̄, as in Stable-Baselines3 and SBX.

    Eq. 18 of Haarnoja et al. (2018b) has α in place of log α. With eq. 18 the gradient with respect to log α shrinks
    with α, so an optimiser that divides by past gradients becomes slow (docs/sac.md has figures).
    """
    loss = -log_alpha * jnp.mean(excess)
    return loss, {"alpha_loss": loss}


def dual_loss(log_alpha: Float[Array, ""], excess: Float[Array, "*batch"]) -> tuple[Float[Array, ""], Metrics]:
    """J(λ) = −λ E[excess], excess = divergence − threshold, as in the code of BEAR and CQL."""
    loss = -jnp.exp(log_alpha) * jnp.mean(excess)
    return loss, {"alpha_loss": loss}


def log_alpha_init(initial: float, learning_rate: float | Linear) -> tuple[Float[Array, ""], Any]:
    """log α and the state of its optimiser."""
    log_alpha = jnp.log(jnp.asarray(initial, jnp.float32))
    return log_alpha, opt_init(adam(learning_rate), log_alpha)


def log_alpha_step(
    loss: Callable, state: tuple[Float[Array, ""], Any], excess: Float[Array, "*batch"], learning_rate: float | Linear
) -> tuple[tuple[Float[Array, ""], Any], Metrics]:
    """One Adam step on log α."""
    log_alpha, opt_state, metrics = gradient_step(loss, *state, adam(learning_rate), jax.lax.stop_gradient(excess))
    return (log_alpha, opt_state), {"alpha_loss": metrics["alpha_loss"]}


class AbstractTemperature(Configurable):
    """A weight α or λ, and how it is learned."""

    @abstractmethod
    def init(self) -> PyTree:
        """The first state for `update`; arrays only."""

    @abstractmethod
    def weight(self, state: PyTree) -> Float[Array, ""]:
        """α, or λ."""

    @abstractmethod
    def update(self, state: PyTree, measured: Float[Array, "*batch"]) -> tuple[PyTree, Metrics]:
        """The state after one step, and metrics. No gradient flows into `measured`."""


class Learned(AbstractTemperature):
    """α that keeps the entropy of the policy at its target (Haarnoja et al., 2018b, §5)."""

    initial: Positive = 1.0
    """Initial weight (α)."""
    learning_rate: LearningRate = 3e-4
    """Learning rate of log α (η)."""

    def init(self) -> tuple[Float[Array, ""], Any]:
        return log_alpha_init(self.initial, self.learning_rate)

    def weight(self, state: tuple[Float[Array, ""], Any]) -> Float[Array, ""]:
        return jnp.exp(state[0])

    def update(
        self, state: tuple[Float[Array, ""], Any], measured: Float[Array, "*batch"]
    ) -> tuple[tuple[Float[Array, ""], Any], Metrics]:
        return log_alpha_step(temperature_loss, state, measured, self.learning_rate)


class Dual(AbstractTemperature):
    """The multiplier λ of a constraint `divergence ≤ threshold`, by dual ascent.

    log λ ← clip(log λ + Adam step along ∇ exp(log λ) (divergence − threshold), log lowest, log highest)
    """

    threshold: float
    """Largest divergence that the constraint allows (ε)."""
    initial: Positive = 1.0
    """Initial multiplier (λ)."""
    learning_rate: LearningRate = 1e-3
    """Learning rate of log λ (η)."""
    lowest: Positive = math.exp(-5)
    """Smallest multiplier (λ)."""
    highest: Positive = math.exp(10)
    """Largest multiplier (λ)."""

    def __check_init__(self):
        if is_concrete(self.lowest, self.initial, self.highest) and not self.lowest <= self.initial <= self.highest:
            raise ConfigError(
                f"Dual.initial = {self.initial:g}: must be in [{self.lowest:g}, {self.highest:g}], lowest to highest."
            )

    init, weight = Learned.init, Learned.weight

    def update(
        self, state: tuple[Float[Array, ""], Any], measured: Float[Array, "*batch"]
    ) -> tuple[tuple[Float[Array, ""], Any], Metrics]:
        excess = measured - self.threshold
        (log_alpha, opt_state), metrics = log_alpha_step(dual_loss, state, excess, self.learning_rate)
        return (jnp.clip(log_alpha, jnp.log(self.lowest), jnp.log(self.highest)), opt_state), metrics


class Fixed(AbstractTemperature):
    """A constant weight. In SAC, α = 1/c means the same as rewards scaled by c."""

    value: NonNegative = 0.2
    """The weight (α or λ)."""

    def init(self) -> tuple[()]:
        return ()

    def weight(self, state: tuple[()]) -> Float[Array, ""]:
        return jnp.asarray(self.value, jnp.float32)

    def update(self, state: tuple[()], measured: Float[Array, "*batch"]) -> tuple[tuple[()], Metrics]:
        return state, {}


def check_target(alpha: AbstractTemperature, name: str, target: float | None) -> None:
    """Raise `ConfigError` for a target together with a fixed weight."""
    if isinstance(alpha, Fixed) and target is not None:
        raise ConfigError(f"{name} = {target:g}: must be None with a Fixed weight, which never changes.")
