"""Policies, values and losses as in SAC, for several tasks. Axis 0 has one entry for each of K tasks."""

from collections.abc import Callable
from typing import Any, TypeAlias

import jax.numpy as jnp
from jaxtyping import Array, Float

from duologue.ops.distributions import AbstractDistribution, Categorical, TanhNormal
from duologue.ops.losses import action_value
from duologue.types import Metrics, Obs

Policy: TypeAlias = AbstractDistribution | TanhNormal
Actor: TypeAlias = Callable[[Obs], Any]
"""πᵢ(·|s), a distribution whose axis 0 is the task, of size K."""
Critic: TypeAlias = Callable[..., Array]
"""Qᵢ(s, a) `[K, *batch]` of real actions, Qᵢ(s, ·) `[K, *batch, n]` of discrete ones."""


def over_batch(alpha: Float[Array, " K"], like: Float[Array, " K *batch"]) -> Float[Array, " K *batch"]:
    """α of each task, in the shape of `like`."""
    return jnp.broadcast_to(alpha.reshape(-1, *(1,) * (like.ndim - 1)), like.shape)


def task_mean(x: Float[Array, " K *batch"]) -> Float[Array, " K"]:
    """Mean over the batch, for each task."""
    return jnp.mean(x.reshape(x.shape[0], -1), axis=-1)


def sample_raw(policy: Policy, key: Array) -> tuple[Array, Array]:
    """Draw `(action, raw)`, where `raw` is the action before the tanh. Discrete actions: both are the action."""
    raw = policy.base.sample(key)
    return policy.squash(raw), raw


def log_prob(policy: Policy, raw: Array) -> Array:
    """log πᵢ of raw actions `[*batch]` under policies `[K, *batch]` or `[*batch]`. Densities are of actions in
    half-ranges of the box, as in SAC."""
    return policy.to_half_ranges(policy.log_prob_raw(jnp.broadcast_to(raw, policy.base.mode().shape)))


def soft_value(
    policy: Policy, critic: Critic, alpha: Float[Array, " K"], obs: Obs, key: Array
) -> tuple[Float[Array, " K *batch"], Float[Array, " K *batch"]]:
    """`(Eₐ[Qᵢ(s, a) − αᵢ log πᵢ(a|s)], Eₐ[log πᵢ(a|s)])` for a ~ πᵢ(·|s). Discrete actions:
    exact sums. Real actions: one reparameterised sample."""
    if isinstance(policy, Categorical):
        value, log = jnp.sum(policy.probs * critic(obs), axis=-1), -policy.entropy()
    else:
        action, raw = sample_raw(policy, key)
        value, log = critic.own_values(obs, action), log_prob(policy, raw)  # pyright: ignore[reportFunctionMemberAccess]
    return value - over_batch(alpha, log) * log, log


def critic_loss(
    critic: Critic, obs: Obs, action: Array, target: Float[Array, "K L N"]
) -> tuple[Float[Array, ""], Metrics]:
    """J_Q = (1/K) Σᵢ E[½ (Qᵢ(s, a) − yᵢ)²], for the actions in the batch."""
    q = action_value(critic, obs, action)
    losses = task_mean(0.5 * (q - target) ** 2)
    return jnp.mean(losses), {"critic_loss": losses, "q": task_mean(q)}


def actor_loss(
    actor: Actor, critic: Critic, alpha: Float[Array, " K"], obs: Obs, key: Array
) -> tuple[Float[Array, ""], Metrics]:
    """J_π = −(1/K) Σᵢ E[Qᵢ(s, a) − αᵢ log πᵢ(a|s)] for a ~ πᵢ(·|s): the loss of SAC for each task."""
    value, log = soft_value(actor(obs), critic, alpha, obs, key)
    losses = -task_mean(value)
    return jnp.mean(losses), {"actor_loss": losses, "entropy": -task_mean(log)}


def score_loss(
    actor: Actor, weight: Float[Array, "K L N"], alpha: Float[Array, " K"], obs: Obs, raw: Array, key: Array
) -> tuple[Float[Array, ""], Metrics]:
    """J_π = −(1/K) Σᵢ E[wᵢ log πᵢ(a|s) − αᵢ log πᵢ(ã|s)], for the actions a in the batch and for ã ~ πᵢ."""
    policy = actor(obs)
    log = -policy.entropy() if isinstance(policy, Categorical) else log_prob(policy, policy.base.sample(key))
    losses = -task_mean(weight * log_prob(policy, raw) - over_batch(alpha, log) * log)
    return jnp.mean(losses), {"actor_loss": losses, "entropy": -task_mean(log)}
