"""KL-control: soft actor-critic with the data's own policy in place of the uniform one.

Jaques et al. (2019), *Way Off-Policy Batch Deep Reinforcement Learning of Implicit Human Preferences in Dialog*,
arXiv:1907.00456; a baseline of BEAR's paper. It maximises E[Σ γᵗ (rₜ − α KL(π(·|sₜ) ‖ β(·|sₜ)))], with β a clone of
the data: distribution matching, where BEAR matches supports.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from duologue.algorithms.base import AbstractAlgorithm, recorded
from duologue.algorithms.sac import Actor, Critics, critic_loss, soft_value
from duologue.fields import Fraction, NonNegative, PositiveInt
from duologue.networks.builder import AbstractNetworks, Networks
from duologue.ops.distributions import TanhNormal
from duologue.ops.losses import cloning_loss
from duologue.ops.metrics import summary_metrics
from duologue.ops.optim import LearningRate, adam, gradient_step, opt_init, polyak, target_of
from duologue.ops.returns import td_target
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


def actor_loss(
    actor: Actor, clone: Actor, critics: Critics, alpha: float, obs: Obs, key: Array
) -> tuple[Float[Array, ""], Metrics]:
    """J_π = E[α (log π(ã|s) − log β(ã|s)) − minᵢ Qᵢ(s, ã)], ã ~ π reparameterised."""
    action, ratio = log_ratio(actor(obs), clone(obs), key)
    loss = -jnp.mean(soft_value(critics(obs, action), ratio, jnp.asarray(alpha)))
    return loss, {"actor_loss": loss, **summary_metrics("divergence", ratio)}


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
        clone_key, actor_key, critics_key = jax.random.split(key, 3)
        clone = self.networks.squashed_actor(spec, key=clone_key)
        actor = self.networks.squashed_actor(spec, key=actor_key)
        critics = self.networks.critics(spec, 2, key=critics_key)
        optimizer = adam(self.learning_rate)
        return KLControlState(
            clone=clone, actor=actor, critics=critics, target_critics=target_of(critics),
            clone_opt=opt_init(optimizer, clone), actor_opt=opt_init(optimizer, actor),
            critic_opt=opt_init(optimizer, critics),
        )  # fmt: skip

    def act(
        self, state: KLControlState, carry: None, obs: Obs, *, key: Array, explore: bool
    ) -> tuple[Array, dict[str, Array], None]:
        policy = state.actor(obs)
        action = policy.sample(key) if explore else policy.mode()
        return action, {}, carry

    def log_prob(self, state: KLControlState, obs: Obs, action: Array) -> Array:
        return state.actor(obs).log_prob(action)

    def q(self, state: KLControlState, obs: Obs, action: Array) -> Array:
        return state.critics(obs, action)

    def update(self, state: KLControlState, batch: Transition, *, key: Array) -> tuple[KLControlState, Metrics]:
        """One step of clone, critics, actor and targets, in this order, on transitions `[N]`."""
        target_key, actor_key = jax.random.split(key)
        optimizer, alpha = adam(self.learning_rate), jnp.asarray(self.alpha)
        obs, action = batch.obs, batch.action

        clone, clone_opt, clone_metrics = gradient_step(
            cloning_loss, state.clone, state.clone_opt, optimizer, obs, action, name="clone_"
        )
        next_action, ratio = log_ratio(state.actor(batch.next_obs), clone(batch.next_obs), target_key)
        next_value = soft_value(state.target_critics(batch.next_obs, next_action), ratio, alpha)
        target = td_target(batch.reward, batch.terminated, next_value, self.discount)
        critics, critic_opt, critic_metrics = gradient_step(
            critic_loss, state.critics, state.critic_opt, optimizer, obs, action, target, name="critic_"
        )
        actor, actor_opt, actor_metrics = gradient_step(
            actor_loss, state.actor, state.actor_opt, optimizer, clone, critics, self.alpha, obs, actor_key,
            name="actor_",
        )  # fmt: skip
        state = KLControlState(
            clone=clone, actor=actor, critics=critics, target_critics=polyak(state.target_critics, critics, self.tau),
            clone_opt=clone_opt, actor_opt=actor_opt, critic_opt=critic_opt,
        )  # fmt: skip
        return state, {**clone_metrics, **critic_metrics, **actor_metrics}
