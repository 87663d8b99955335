"""SAC as it was first published, with a value network.

Haarnoja et al. (2018a), *Soft Actor-Critic: Off-Policy Maximum Entropy Deep Reinforcement Learning with a Stochastic
Actor*, arXiv:1801.01290. Against the later version: V and its slow copy stand where that has slow copies of the
critics, and α is fixed (1/α is the paper's reward scale). The policy follows the first critic, as in the authors' code
and in Spinning Up; the paper takes the smaller of the two there as well.
"""

from collections.abc import Callable
from typing import TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from duologue.algorithms.base import AbstractAlgorithm, replayed
from duologue.algorithms.sac import Actor, Critics, critic_loss, sample_in_half_ranges, soft_value
from duologue.fields import Fraction, NonNegative, NonNegativeInt, PositiveInt
from duologue.networks.builder import AbstractNetworks, Networks
from duologue.ops.metrics import summary_metrics
from duologue.ops.optim import LearningRate, adam, gradient_step, opt_init, polyak, target_of
from duologue.ops.returns import first_row, n_step_target
from duologue.types import EnvSpec, Experience, Metrics, Obs, PyTree, Transition

Value: TypeAlias = Callable[[Obs], Array]


class SACv1State(eqx.Module):
    actor: Actor
    critics: Critics
    value: Value
    target_value: Value
    actor_opt: PyTree
    critic_opt: PyTree
    value_opt: PyTree


def value_loss(value: Value, obs: Obs, target: Float[Array, " N"]) -> tuple[Float[Array, ""], Metrics]:
    """J_V = E[½ (V(s) − (minᵢ Qᵢ(s, ã) − α log π(ã|s)))²] (eq. 5); `target` is the inner bracket."""
    v = value(obs)
    loss = jnp.mean(0.5 * (v - target) ** 2)
    return loss, {"value_loss": loss, **summary_metrics("value", v)}


def actor_loss(actor: Actor, critics: Critics, alpha: float, obs: Obs, key: Array) -> tuple[Float[Array, ""], Metrics]:
    """J_π = E[α log π(ã|s) − Q₁(s, ã)], with ã ~ π(·|s) reparameterised (eq. 12, with Q₁ for Q)."""
    action, log_prob = sample_in_half_ranges(actor(obs), key)
    loss = jnp.mean(alpha * log_prob - critics(obs, action)[0])
    return loss, {"actor_loss": loss, **summary_metrics("log_prob", log_prob)}


class SACv1(AbstractAlgorithm[SACv1State]):
    """Soft actor-critic with a value network and a fixed temperature (Haarnoja et al., 2018a).

    Bounded Box actions; vector, image and Dict observations.
    """

    actor_learning_rate: LearningRate = 3e-4
    """η of the actor, a number or a `Linear` schedule."""
    critic_learning_rate: LearningRate = 3e-4
    """η of critics and value."""
    alpha: NonNegative = 0.2
    """α, weight of the entropy: one over the paper's reward scale (5 in most of its tasks)."""
    discount: Fraction = 0.99
    """γ."""
    tau: Fraction = 0.005
    """τ, how far the target value follows at each update."""
    n_step: PositiveInt = 1
    """n, rewards summed before a target bootstraps. Above 1 the entropies between them are left out, and nothing
    corrects for actions that the policy would not take now."""
    batch_size: PositiveInt = 256
    """N, transitions of an update."""
    replay_capacity: PositiveInt = 1_000_000
    """Transitions that are kept."""
    learning_starts: NonNegativeInt = 100
    """Environment steps before the first update."""
    start_steps: NonNegativeInt = 100
    """Environment steps with uniformly random actions."""
    rollout_length: PositiveInt = 1
    """Steps of each environment between updates."""
    updates: PositiveInt = 1
    """Updates after each rollout."""
    num_envs: PositiveInt = 1
    """B, environments that step together."""
    networks: AbstractNetworks = Networks(hidden_sizes=(256, 256), activation="relu", init="lecun", policy_scale=1.0)
    """Builds actor, critics and value: `Networks`, or an object of your own."""

    @property
    def experience(self) -> Experience:
        return replayed(self)

    def init(self, spec: EnvSpec, *, key: Array) -> SACv1State:
        actor_key, critics_key, value_key = jax.random.split(key, 3)
        actor = self.networks.squashed_actor(spec, key=actor_key)
        critics = self.networks.critics(spec, 2, key=critics_key)
        value = self.networks.state_value(spec, key=value_key)
        return SACv1State(
            actor=actor, critics=critics, value=value, target_value=target_of(value),
            actor_opt=opt_init(adam(self.actor_learning_rate), actor),
            critic_opt=opt_init(adam(self.critic_learning_rate), critics),
            value_opt=opt_init(adam(self.critic_learning_rate), value),
        )  # fmt: skip

    def act(
        self, state: SACv1State, carry: None, obs: Obs, *, key: Array, explore: bool
    ) -> tuple[Array, dict[str, Array], None]:
        policy = state.actor(obs)
        action = policy.sample(key) if explore else policy.mode()
        return action, {}, carry

    def log_prob(self, state: SACv1State, obs: Obs, action: Array) -> Array:
        return state.actor(obs).log_prob(action)

    def q(self, state: SACv1State, obs: Obs, action: Array) -> Array:
        return state.critics(obs, action)

    def v(self, state: SACv1State, obs: Obs) -> Array:
        return state.value(obs)

    def update(self, state: SACv1State, batch: Transition, *, key: Array) -> tuple[SACv1State, Metrics]:
        """One step of actor, critics and value, in the source's order, on sequences `[n, N]`.

        The targets of critics and value are those of the parameters before the update.
        """
        value_key, actor_key = jax.random.split(key)
        obs, action = first_row(batch)
        fresh, log_prob = sample_in_half_ranges(state.actor(obs), value_key)
        target = soft_value(state.critics(obs, fresh), log_prob, jnp.asarray(self.alpha))
        target_q = n_step_target(batch, state.target_value(batch.next_obs), self.discount)

        actor, actor_opt, actor_metrics = gradient_step(
            actor_loss, state.actor, state.actor_opt, adam(self.actor_learning_rate),
            state.critics, self.alpha, obs, actor_key, name="actor_",
        )  # fmt: skip
        critics, critic_opt, critic_metrics = gradient_step(
            critic_loss, state.critics, state.critic_opt, adam(self.critic_learning_rate),
            obs, action, target_q, name="critic_",
        )  # fmt: skip
        value, value_opt, value_metrics = gradient_step(
            value_loss, state.value, state.value_opt, adam(self.critic_learning_rate), obs, target, name="value_"
        )
        state = SACv1State(
            actor=actor, critics=critics, value=value, target_value=polyak(state.target_value, value, self.tau),
            actor_opt=actor_opt, critic_opt=critic_opt, value_opt=value_opt,
        )  # fmt: skip
        return state, {**actor_metrics, **critic_metrics, **value_metrics}
