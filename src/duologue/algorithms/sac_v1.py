"""SAC as it was first published, with a value network.

Haarnoja et al. (2018a), *Soft Actor-Critic: Off-Policy Maximum Entropy Deep Reinforcement Learning with a Stochastic
Actor*, arXiv:1801.01290. Two things differ from the later version: V and its slow copy replace the slow copies of
the critics, and α is fixed (1/α is the paper's reward scale). The actor maximises the first critic, as in the authors'
code and in Spinning Up. In the paper, the actor maximises the smaller of the two critics.
"""

from collections.abc import Callable
from typing import TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from duologue.algorithms.families import AbstractNStepReplayed
from duologue.algorithms.sac import Actor, Critics, bellman_residual, sample_in_half_ranges, soft_value
from duologue.fields import NonNegative
from duologue.networks.builder import AbstractNetworks, Networks
from duologue.ops.distributions import TanhNormal
from duologue.ops.metrics import summary_metrics
from duologue.ops.optim import LearningRate, Trained, adam, descend, polyak, target_of
from duologue.ops.returns import first_row, n_step_target
from duologue.types import EnvSpec, Metrics, Obs, Transition

Value: TypeAlias = Callable[[Obs], Array]


class SACv1State(eqx.Module):
    actor: Trained[Actor]
    critics: Trained[Critics]
    value: Trained[Value]
    target_value: Value


def value_loss(value: Value, obs: Obs, target: Float[Array, " N"]) -> tuple[Float[Array, ""], Metrics]:
    """J_V = E[½ (V(s) − y)²], with y = minᵢ Qᵢ(s, ã) − α log π(ã|s) as `target` (eq. 5)."""
    v = value(obs)
    loss = jnp.mean(0.5 * (v - target) ** 2)
    return loss, {"value_loss": loss, **summary_metrics("value", v)}


def actor_loss(actor: Actor, critics: Critics, alpha: float, obs: Obs, key: Array) -> tuple[Float[Array, ""], Metrics]:
    """J_π = E[α log π(ã|s) − Q₁(s, ã)], with ã ~ π(·|s) reparameterised (eq. 12, with Q₁ for Q)."""
    action, log_prob = sample_in_half_ranges(actor(obs), key)
    loss = jnp.mean(alpha * log_prob - critics(obs, action)[0])
    return loss, {"actor_loss": loss, **summary_metrics("log_prob", log_prob)}


class SACv1(AbstractNStepReplayed[SACv1State]):
    """Soft actor-critic with a value network and a fixed temperature (Haarnoja et al., 2018a).

    Bounded Box actions; vector, image and Dict observations.
    """

    actor_learning_rate: LearningRate = 3e-4
    """Learning rate of the actor (η), a number or a `Linear` schedule."""
    critic_learning_rate: LearningRate = 3e-4
    """Learning rate of critics and value (η)."""
    alpha: NonNegative = 0.2
    """Weight of the entropy (α), one over the paper's reward scale. This scale is 5 in most tasks of the paper."""
    networks: AbstractNetworks = Networks(hidden_sizes=(256, 256), activation="relu", init="lecun", policy_scale=1.0)
    """Builder of actor, critics and value: `Networks`, or an object of your own."""

    def init(self, spec: EnvSpec, *, key: Array) -> SACv1State:
        actor_key, critics_key, value_key = jax.random.split(key, 3)
        actor = self.networks.squashed_actor(spec, key=actor_key)
        critics = self.networks.critics(spec, 2, key=critics_key)
        value = self.networks.state_value(spec, key=value_key)
        return SACv1State(
            actor=Trained.of(actor, adam(self.actor_learning_rate)),
            critics=Trained.of(critics, adam(self.critic_learning_rate)),
            value=Trained.of(value, adam(self.critic_learning_rate)),
            target_value=target_of(value),
        )

    def policy(self, state: SACv1State, obs: Obs) -> TanhNormal:
        return state.actor(obs)

    def q(self, state: SACv1State, obs: Obs, action: Array) -> Array:
        return state.critics(obs, action)

    def v(self, state: SACv1State, obs: Obs) -> Array:
        return state.value(obs)

    def update(self, state: SACv1State, batch: Transition, *, key: Array) -> tuple[SACv1State, Metrics]:
        """One step of actor, critics and value on N sequences of n steps, `[n, N]`. The actor moves first, as in
        Intel's Coach.

        The targets of critics and value come from the parameters before the update, so their order changes nothing.
        """
        value_key, actor_key = jax.random.split(key)
        obs, action = first_row(batch)
        fresh, log_prob = sample_in_half_ranges(state.actor(obs), value_key)
        target = soft_value(state.critics(obs, fresh), log_prob, jnp.asarray(self.alpha))
        target_q = n_step_target(batch, state.target_value(batch.next_obs), self.discount)

        actor, actor_metrics = descend(
            actor_loss, state.actor, adam(self.actor_learning_rate),
            state.critics, self.alpha, obs, actor_key, name="actor_",
        )  # fmt: skip
        critics, critic_metrics = descend(
            bellman_residual, state.critics, adam(self.critic_learning_rate), obs, action, target_q, name="critic_"
        )
        value, value_metrics = descend(
            value_loss, state.value, adam(self.critic_learning_rate), obs, target, name="value_"
        )
        target_value = polyak(state.target_value, value.net, self.tau)
        state = SACv1State(actor=actor, critics=critics, value=value, target_value=target_value)
        return state, {**actor_metrics, **critic_metrics, **value_metrics}
