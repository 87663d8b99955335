"""KL-control: soft actor-critic with the data's own policy in place of the uniform one.

Jaques et al. (2019), *Way Off-Policy Batch Deep Reinforcement Learning of Implicit Human Preferences in Dialog*,
arXiv:1907.00456; a baseline of BEAR's paper. It maximises E[Σ γᵗ (rₜ − α KL(π(·|sₜ) ‖ β(·|sₜ)))], with β a clone of
the data: distribution matching, where BEAR matches supports.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from duologue.algorithms.base import AbstractAlgorithm, recorded
from duologue.algorithms.sac import Actor, Critics, critic_loss, soft_value
from duologue.distributions import TanhNormal
from duologue.fields import Fraction, NonNegative, PositiveInt
from duologue.networks import AbstractNetworks, Networks
from duologue.optim import Adam, LearningRate, gradient_step, polyak
from duologue.returns import td_target
from duologue.statistics import described
from duologue.types import EnvSpec, Experience, Metrics, Obs, PyTree, Transition


class KLControlState(eqx.Module):
    clone: Actor
    actor: Actor
    critics: Critics
    target_critics: Critics
    clone_opt: PyTree
    actor_opt: PyTree
    critic_opt: PyTree


def log_ratio(
    policy: TanhNormal, clone: TanhNormal, key: Array
) -> tuple[Float[Array, "*batch d"], Float[Array, "*batch"]]:
    """ã ~ π and log π(ã|s) − log β(ã|s), a sample of the divergence. Both squash alike, so the raw densities do."""
    raw = policy.base.sample(key)
    return policy.squash(raw), policy.base.log_prob(raw) - clone.base.log_prob(raw)


def cloning_loss(clone: Actor, obs: Obs, action: Float[Array, "N d"]) -> tuple[Float[Array, ""], Metrics]:
    """L_β = −E[log β(a|s)]."""
    loss = -jnp.mean(clone(obs).log_prob(action))
    return loss, {"clone_loss": loss}


def actor_loss(
    actor: Actor, clone: Actor, critics: Critics, alpha: float, obs: Obs, key: Array
) -> tuple[Float[Array, ""], Metrics]:
    """J_π = E[α (log π(ã|s) − log β(ã|s)) − minᵢ Qᵢ(s, ã)], ã ~ π reparameterised."""
    action, ratio = log_ratio(actor(obs), clone(obs), key)
    loss = -jnp.mean(soft_value(critics(obs, action), ratio, jnp.asarray(alpha)))
    return loss, {"actor_loss": loss, **described("divergence", ratio)}


class KLControl(AbstractAlgorithm[KLControlState]):
    """Soft actor-critic against a clone of the data (Jaques et al., 2019), for recorded data.

    Bounded Box actions; vector, image and Dict observations.
    """

    learning_rate: LearningRate = 3e-4
    """η of clone, actor and critics."""
    alpha: NonNegative = 0.1
    """α, weight of the divergence from the clone."""
    discount: Fraction = 0.98
    """γ, as in BEAR's code."""
    tau: Fraction = 0.005
    """τ, how far the target critics follow at each update."""
    batch_size: PositiveInt = 256
    """N, transitions of an update."""
    replay_capacity: PositiveInt = 1_000_000
    """Transitions that are kept where it goes on online."""
    num_envs: PositiveInt = 1
    """B, environments that step together there."""
    networks: AbstractNetworks = Networks(hidden_sizes=(256, 256), activation="relu", init="lecun")
    """Builds clone, actor and critics: `Networks`, or an object of your own."""

    @property
    def experience(self) -> Experience:
        return recorded(self.batch_size, self.replay_capacity, self.num_envs)

    def init(self, spec: EnvSpec, *, key: Array) -> KLControlState:
        of_clone, of_actor, of_critics = jax.random.split(key, 3)
        clone = self.networks.squashed_actor(spec, key=of_clone)
        actor = self.networks.squashed_actor(spec, key=of_actor)
        critics = self.networks.critics(spec, 2, key=of_critics)
        target = jax.tree.map(jnp.copy, critics)  # a donated buffer stands in a tree only once
        begin: Any = Adam().build(self.learning_rate).init
        clone_opt, actor_opt, critic_opt = map(begin, (clone, actor, critics))
        return KLControlState(clone, actor, critics, target, clone_opt, actor_opt, critic_opt)

    def act(
        self, state: KLControlState, carry: None, obs: Obs, *, key: Array, explore: bool
    ) -> tuple[Array, dict[str, Array], None]:
        policy = state.actor(obs)
        return policy.sample(key) if explore else policy.mode(), {}, carry

    def log_prob(self, state: KLControlState, obs: Obs, action: Array) -> Array:
        return state.actor(obs).log_prob(action)

    def q(self, state: KLControlState, obs: Obs, action: Array) -> Array:
        return state.critics(obs, action)

    def update(self, state: KLControlState, batch: Transition, *, key: Array) -> tuple[KLControlState, Metrics]:
        """One step of clone, critics, actor and targets, in this order, on transitions `[N]`."""
        of_target, of_actor = jax.random.split(key)
        adam, alpha = Adam().build(self.learning_rate), jnp.asarray(self.alpha)
        obs, action = batch.obs, batch.action

        clone, clone_opt, of_clone = gradient_step(
            cloning_loss, state.clone, state.clone_opt, adam, obs, action, name="clone_"
        )
        next_action, ratio = log_ratio(state.actor(batch.next_obs), clone(batch.next_obs), of_target)
        next_value = soft_value(state.target_critics(batch.next_obs, next_action), ratio, alpha)
        target = td_target(batch.reward, batch.terminated, next_value, self.discount)
        critics, critic_opt, of_critics = gradient_step(
            critic_loss, state.critics, state.critic_opt, adam, obs, action, target, name="critic_"
        )
        actor, actor_opt, of_actors = gradient_step(
            actor_loss, state.actor, state.actor_opt, adam, clone, critics, self.alpha, obs, of_actor, name="actor_"
        )
        target_critics = polyak(state.target_critics, critics, self.tau)
        metrics = {**of_clone, **of_critics, **of_actors}
        return KLControlState(clone, actor, critics, target_critics, clone_opt, actor_opt, critic_opt), metrics
