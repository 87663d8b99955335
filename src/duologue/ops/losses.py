"""Losses that several algorithms share. Each returns `(scalar, metrics)`. Gradients flow into its first argument."""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from duologue.ops.distributions import AbstractDistribution, entry_at
from duologue.ops.metrics import summary_metrics
from duologue.types import Metrics, Obs


def td_loss(
    critics: Callable[..., Array], obs: Obs, action: Array, target: Float[Array, " N"]
) -> tuple[Float[Array, ""], Metrics]:
    """L = Σᵢ E[(Qᵢ(s, a) − y)²], for real and for discrete actions."""
    q = action_value(critics, obs, action)
    loss = jnp.sum(jnp.mean((q - target[None]) ** 2, axis=-1))
    return loss, {"critic_loss": loss, **summary_metrics("q", q)}


def cloning_loss(
    actor: Callable[[Obs], AbstractDistribution], obs: Obs, action: Array
) -> tuple[Float[Array, ""], Metrics]:
    """L = −E[log π(a|s)]. For a normal with one σ for all states this is least squares in each dimension."""
    log_prob = actor(obs).log_prob(action)
    loss = -jnp.mean(log_prob)
    return loss, {"cloning_loss": loss, **summary_metrics("log_prob", log_prob)}


def q_at(q: Float[Array, "E *batch n"], action: Int[Array, "*batch"]) -> Float[Array, " E *batch"]:
    """Qᵢ(s, a), the entries of all Qᵢ(s, ·) at an action."""
    return entry_at(q, jnp.broadcast_to(action, q.shape[:-1]))


def action_value(critics: Callable[..., Array], obs: Obs, action: Array) -> Float[Array, " E *batch"]:
    """Qᵢ(s, a) of all critics, for real and for discrete actions."""
    real = jnp.issubdtype(action.dtype, jnp.floating)
    return critics(obs, action) if real else q_at(critics(obs), action)
