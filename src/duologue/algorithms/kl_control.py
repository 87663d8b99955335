"""KL-control: soft actor-critic with a clone of the data in place of the uniform policy.

Jaques et al. (2019), *Way Off-Policy Batch Deep Reinforcement Learning of Implicit Human Preferences in Dialog*,
arXiv:1907.00456; a baseline of BEAR's paper. KL-control maximises E[Σ γᵗ (rₜ − α KL(π(·|sₜ) ‖ β(·|sₜ)))], where β is
a clone of the data. So the policy matches the distribution of the data. In BEAR, the policy matches the support.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from duologue.algorithms.families import AbstractRecorded
from duologue.algorithms.sac import Actor, Critics, bellman_residual, soft_value
from duologue.fields import Fraction, NonNegative
from duologue.networks.builder import AbstractNetworks, Networks
from duologue.ops.distributions import TanhNormal
from duologue.ops.losses import cloning_loss
from duologue.ops.metrics import summary_metrics
from duologue.ops.optim import LearningRate, Trained, adam, descend, polyak, target_of
from duologue.ops.returns import td_target
from duologue.types import EnvSpec, Metrics, Obs, Transition


class KLControlState(eqx.Module):
    clone: Trained[Actor]
    actor: Trained[Actor]
    critics: Trained[Critics]
    target_critics: Critics


def log_ratio(
    policy: TanhNormal, clone: TanhNormal, key: Array
) -> tuple[Float[Array, "*batch d"], Float[Array, "*batch"]]:
    """ã ~ π and log π(ã|s) − log β(ã|s), a sample of the divergence.

    The code compares densities of raw actions, before the tanh. Both policies have the same tanh, so it cancels.
    """
    raw = policy.base.sample(key)
    return policy.squash(raw), policy.base.log_prob(raw) - clone.base.log_prob(raw)


def actor_loss(
    actor: Actor, clone: Actor, critics: Critics, alpha: float, obs: Obs, key: Array
) -> tuple[Float[Array, ""], Metrics]:
    """J_π = E[α (log π(ã|s) − log β(ã|s)) − minᵢ Qᵢ(s, ã)], ã ~ π reparameterised."""
    action, ratio = log_ratio(actor(obs), clone(obs), key)
    loss = -jnp.mean(soft_value(critics(obs, action), ratio, jnp.asarray(alpha)))
    return loss, {"actor_loss": loss, **summary_metrics("divergence", ratio)}


class KLControl(AbstractRecorded[KLControlState]):
    """Soft actor-critic against a clone of the data (Jaques et al., 2019), for recorded data.

    Bounded Box actions; vector, image and Dict observations.
    """

    learning_rate: LearningRate = 3e-4
    """Learning rate of clone, actor and critics (η), a number or a `Linear` schedule."""
    alpha: NonNegative = 0.1
    """Weight of the divergence from the clone (α)."""
    discount: Fraction = 0.98
    """Discount factor (γ), as in BEAR's code."""
    tau: Fraction = 0.005
    """Polyak step size of the target networks (τ): target ← (1 − τ) target + τ learned, in each update."""
    networks: AbstractNetworks = Networks(hidden_sizes=(256, 256), activation="relu", init="lecun")
    """Builder of clone, actor and critics: `Networks`, or an object of your own."""

    def init(self, spec: EnvSpec, *, key: Array) -> KLControlState:
        clone_key, actor_key, critics_key = jax.random.split(key, 3)
        clone = self.networks.squashed_actor(spec, key=clone_key)
        actor = self.networks.squashed_actor(spec, key=actor_key)
        critics = self.networks.critics(spec, 2, key=critics_key)
        optimizer = adam(self.learning_rate)
        return KLControlState(
            clone=Trained.of(clone, optimizer),
            actor=Trained.of(actor, optimizer),
            critics=Trained.of(critics, optimizer),
            target_critics=target_of(critics),
        )

    def policy(self, state: KLControlState, obs: Obs) -> TanhNormal:
        return state.actor(obs)

    def q(self, state: KLControlState, obs: Obs, action: Array) -> Array:
        return state.critics(obs, action)

    def update(self, state: KLControlState, batch: Transition, *, key: Array) -> tuple[KLControlState, Metrics]:
        """One step of clone, critics, actor and targets, in this order, on transitions `[N]`."""
        target_key, actor_key = jax.random.split(key)
        optimizer, alpha = adam(self.learning_rate), jnp.asarray(self.alpha)
        obs, action = batch.obs, batch.action

        clone, clone_metrics = descend(cloning_loss, state.clone, optimizer, obs, action, name="clone_")
        next_action, ratio = log_ratio(state.actor(batch.next_obs), clone(batch.next_obs), target_key)
        next_value = soft_value(state.target_critics(batch.next_obs, next_action), ratio, alpha)
        target = td_target(batch.reward, batch.terminated, next_value, self.discount)
        critics, critic_metrics = descend(
            bellman_residual, state.critics, optimizer, obs, action, target, name="critic_"
        )
        actor, actor_metrics = descend(
            actor_loss, state.actor, optimizer, clone, critics, self.alpha, obs, actor_key, name="actor_"
        )
        target_critics = polyak(state.target_critics, critics.net, self.tau)
        state = KLControlState(clone=clone, actor=actor, critics=critics, target_critics=target_critics)
        return state, {**clone_metrics, **critic_metrics, **actor_metrics}
