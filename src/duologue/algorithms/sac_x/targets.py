"""What SAC-X learns from sequences: Retrace targets, the paper's, and pySACQ's two alternatives."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from duologue.fields import Configurable, Fraction
from duologue.ops.returns import lambda_return, retrace, vmap_envs
from duologue.types import Transition


class Facts(NamedTuple):
    """What the target policies and critics say of sequences, K tasks each `[L, N]`, and what was rewarded."""

    reward: Float[Array, "K L N"]
    q: Float[Array, "K L N"]
    next_value: Float[Array, "K L N"]
    ratio: Float[Array, "K L N"]
    """min(1, πᵢ(a|s)/μ(a|s)): nothing here reads more of it."""


def over_batch(alpha: Float[Array, " K"], like: Float[Array, " K *batch"]) -> Float[Array, " K *batch"]:
    return jnp.broadcast_to(alpha.reshape(-1, *(1,) * (like.ndim - 1)), like.shape)


def task_mean(x: Float[Array, " K *batch"]) -> Float[Array, " K"]:
    return jnp.mean(x.reshape(x.shape[0], -1), axis=-1)


class Retrace(Configurable):
    """Critics learn Retrace(λ) targets (Munos et al., 2016), actors from critics: the paper's."""

    lambda_: Fraction = 1.0
    """λ, which weighs the trace λ min(1, ρ)."""

    def targets(self, facts: Facts, batch: Transition, discount: float) -> Float[Array, "K L N"]:
        """yᵢ = Retrace of each task's own reward, policy and critic."""
        of_task = partial(vmap_envs(retrace), discount=discount, lambda_=self.lambda_)
        return jax.vmap(of_task, (0, 0, 0, 0, None, None))(*facts, batch.terminated, batch.truncated)


class DiscountedRewards(Configurable):
    """Critics learn what the behaviour earned, the discounted rewards of the sequence and the value at its end: without
    a correction for what πᵢ would have done. pySACQ's `discounted_rewards`."""

    def targets(self, facts: Facts, batch: Transition, discount: float) -> Float[Array, "K L N"]:
        """yᵢ = Σ γᵏ rᵢ + γⁿ Vᵢ, to the cut or the end of the sequence."""
        of_task = partial(vmap_envs(lambda_return), discount=discount, lambda_=1.0)
        return jax.vmap(of_task, (0, 0, None, None))(facts.reward, facts.next_value, batch.terminated, batch.truncated)


class PolicyGradient(Configurable):
    """Actors follow the score function, weighted by min(1, ρ), and no critic is learned. pySACQ's `policy_gradient`,
    but for the weight and the baseline, the mean over the batch."""

    def weights(self, facts: Facts, batch: Transition, discount: float) -> Float[Array, "K L N"]:
        """min(1, ρᵢ)(Gᵢ − Ḡᵢ) with Gᵢ the discounted rewards to the cut or the end of the sequence."""
        sums = DiscountedRewards().targets(facts._replace(next_value=jnp.zeros_like(facts.q)), batch, discount)
        return facts.ratio * (sums - over_batch(task_mean(sums), sums))
