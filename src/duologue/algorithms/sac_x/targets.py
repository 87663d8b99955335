"""Use of replayed sequences in SAC-X: Retrace targets as in the paper, and two alternatives from pySACQ."""

from abc import abstractmethod
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
from optax import GradientTransformation

from duologue.algorithms.sac_x.losses import (
    Actor,
    Critic,
    actor_loss,
    critic_loss,
    over_batch,
    score_loss,
    task_mean,
)  # fmt: skip
from duologue.fields import Configurable, Fraction
from duologue.ops.optim import Trained, descend
from duologue.ops.returns import lambda_return, retrace, vmap_envs
from duologue.types import Metrics, Transition


class Facts(NamedTuple):
    """Rewards, values and ratios of N sequences of L steps, for each of K tasks. Values and ratios come from the
    networks before the update."""

    reward: Float[Array, "K L N"]
    q: Float[Array, "K L N"]
    next_value: Float[Array, "K L N"]
    ratio: Float[Array, "K L N"]
    """min(1, πᵢ(a|s)/μ(a|s)). No method here uses ratios above 1."""


class AbstractLearning(Configurable):
    """Learning from sequences: critics learn an `estimate` of their values, and actors maximise the critics."""

    @property
    def learns_q(self) -> bool:
        """Whether a critic is learned."""
        return True

    @abstractmethod
    def estimate(self, facts: Facts, batch: Transition, discount: float) -> Float[Array, "K L N"]:
        """Estimate for each step and task: the target yᵢ of the critic, or the weight wᵢ of the actor's score."""

    def numerator(self, actor: Actor, target_actor: Actor) -> Actor:
        """Policies in the numerator of the importance ratios. The critics learn the values of these policies."""
        return target_actor

    def critic_step(
        self, critic: Trained[Critic], optimizer: GradientTransformation, estimate: Array, batch: Transition
    ) -> tuple[Trained[Critic], Metrics]:
        """One step of the critic towards its targets."""
        return descend(critic_loss, critic, optimizer, batch.obs, batch.action, estimate, name="critic_")

    def actor_step(
        self, actor: Trained[Actor], optimizer: GradientTransformation, critic: Critic, estimate: Array,
        alpha: Float[Array, " K"], batch: Transition, key: Array,
    ) -> tuple[Trained[Actor], Metrics]:  # fmt: skip
        """One step of the actor, which maximises the critic."""
        return descend(actor_loss, actor, optimizer, critic, alpha, batch.obs, key, name="actor_")


class Retrace(AbstractLearning):
    """Critics learn Retrace(λ) targets (Munos et al., 2016), and actors maximise the critics, as in the paper."""

    lambda_: Fraction = 1.0
    """Decay of Retrace (λ): its trace is λ min(1, ρ)."""

    def estimate(self, facts: Facts, batch: Transition, discount: float) -> Float[Array, "K L N"]:
        """yᵢ = Retrace of each task's own reward, policy and critic."""
        of_task = partial(vmap_envs(retrace), discount=discount, lambda_=self.lambda_)
        return jax.vmap(of_task, (0, 0, 0, 0, None, None))(*facts, batch.terminated, batch.truncated)


class DiscountedRewards(AbstractLearning):
    """Critics learn the discounted rewards of the sequence plus the value at its end, without a correction for actions
    that πᵢ would not take. This is `discounted_rewards` of pySACQ."""

    def estimate(self, facts: Facts, batch: Transition, discount: float) -> Float[Array, "K L N"]:
        """yᵢ = Σ γᵏ rᵢ + γⁿ Vᵢ, up to the end of the episode or of the sequence."""
        return discounted_rewards(facts.reward, facts.next_value, batch, discount)


class PolicyGradient(AbstractLearning):
    """Actors follow the score function, weighted by min(1, ρ). No critic is learned. This is `policy_gradient` of
    pySACQ, except for the weight and for the baseline, which is the mean over the batch."""

    @property
    def learns_q(self) -> bool:
        return False

    def estimate(self, facts: Facts, batch: Transition, discount: float) -> Float[Array, "K L N"]:
        """wᵢ = min(1, ρᵢ)(Gᵢ − Ḡᵢ) with Gᵢ = Σ γᵏ rᵢ, up to the end of the episode or of the sequence."""
        sums = discounted_rewards(facts.reward, jnp.zeros_like(facts.q), batch, discount)
        return facts.ratio * (sums - over_batch(task_mean(sums), sums))

    def numerator(self, actor: Actor, target_actor: Actor) -> Actor:
        """Policies in the numerator of the importance ratios. The score function updates these policies."""
        return actor

    def critic_step(
        self, critic: Trained[Critic], optimizer: GradientTransformation, estimate: Array, batch: Transition
    ) -> tuple[Trained[Critic], Metrics]:
        """Return the critic unchanged."""
        return critic, {}

    def actor_step(
        self, actor: Trained[Actor], optimizer: GradientTransformation, critic: Critic, estimate: Array,
        alpha: Float[Array, " K"], batch: Transition, key: Array,
    ) -> tuple[Trained[Actor], Metrics]:  # fmt: skip
        """One step of the actor along its weighted scores."""
        raw = batch.extras["raw_action"]
        return descend(score_loss, actor, optimizer, estimate, alpha, batch.obs, raw, key, name="actor_")


def discounted_rewards(
    reward: Float[Array, "K L N"], last_value: Float[Array, "K L N"], batch: Transition, discount: float
) -> Float[Array, "K L N"]:
    """Σ γᵏ rᵢ up to the end of the episode or of the sequence, plus the discounted value of the last successor."""
    of_task = partial(vmap_envs(lambda_return), discount=discount, lambda_=1.0)
    return jax.vmap(of_task, (0, 0, None, None))(reward, last_value, batch.terminated, batch.truncated)
