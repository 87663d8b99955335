"""SAC for discrete actions.

Christodoulou (2019), *Soft Actor-Critic for Discrete Action Settings*, arXiv:1910.07207: expectations over actions are
exact sums here, where SAC uses samples. The rest is SAC.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from duologue.algorithms.families import AbstractNStepReplayed
from duologue.algorithms.sac import SACState, bellman_residual
from duologue.fields import Fraction, PositiveInt
from duologue.networks.builder import AbstractNetworks, Networks
from duologue.networks.heads import largest_entropy
from duologue.ops.distributions import Categorical
from duologue.ops.losses import q_at
from duologue.ops.metrics import summary_metrics
from duologue.ops.optim import LearningRate, Trained, adam, descend, polyak, target_of
from duologue.ops.returns import first_row, n_step_target
from duologue.ops.temperature import Fixed, Learned, check_target
from duologue.types import EnvSpec, Metrics, Obs, Transition

FRACTION = 0.98
"""Target entropy of the paper, as a share of the largest entropy."""


def soft_value(q: Float[Array, "E ..."], policy: Categorical, alpha: Float[Array, ""]) -> Array:
    """V(s) = Σₐ π(a|s) [minᵢ Qᵢ(s, a) − α log π(a|s)] (eq. 10). A masked action has weight 0."""
    return jnp.sum(policy.probs * jnp.min(q, axis=0), axis=-1) + alpha * policy.entropy()


def actor_loss(
    actor: Callable[[Obs], Categorical], q: Float[Array, "E N n"], alpha: Float[Array, ""], obs: Obs
) -> tuple[Float[Array, ""], Metrics]:
    """J_π = −E[V(s)], exact over actions (eq. 12)."""
    policy = actor(obs)
    loss = -jnp.mean(soft_value(q, policy, alpha))
    return loss, {"actor_loss": loss, **summary_metrics("entropy", policy.entropy())}


class SACDiscrete(AbstractNStepReplayed[SACState]):
    """Soft actor-critic with sums over discrete actions (Christodoulou, 2019).

    Discrete actions; vector, image and Dict observations, action masks.
    """

    actor_learning_rate: LearningRate = 3e-4
    """Learning rate of the actor (η), a number or a `Linear` schedule."""
    critic_learning_rate: LearningRate = 3e-4
    """Learning rate of the critics (η)."""
    alpha: Learned | Fixed = Learned()
    """Weight of the entropy (α): `Learned` or `Fixed`."""
    target_entropy_fraction: Fraction | None = None
    """Target entropy of the policy where α is learned (H̄), as a fraction of the largest entropy log |A|. |A| is the
    number of actions that the mask allows. None: 0.98."""
    ensemble_size: PositiveInt = 2
    """Number of critics (E); targets and the actor take the smallest value of them."""
    batch_size: PositiveInt = 64
    """Transitions in a batch (N)."""
    rollout_length: PositiveInt = 4
    """Steps of each environment between updates."""
    networks: AbstractNetworks = Networks(vector_sizes=(256, 256), activation="relu", init="lecun")
    """Builder of actor and critics: `Networks`, or an object of your own."""

    def __check_init__(self):
        check_target(self.alpha, "SACDiscrete.target_entropy_fraction", self.target_entropy_fraction)

    def init(self, spec: EnvSpec, *, key: Array) -> SACState:
        actor_key, critics_key = jax.random.split(key)
        actor = self.networks.categorical_actor(spec, key=actor_key)
        critics = self.networks.critics(spec, self.ensemble_size, key=critics_key)
        return SACState(
            actor=Trained.of(actor, adam(self.actor_learning_rate)),
            critics=Trained.of(critics, adam(self.critic_learning_rate)),
            target_critics=target_of(critics),
            temperature=self.alpha.init(),
        )

    def policy(self, state: SACState, obs: Obs) -> Categorical:
        return state.actor(obs)

    def q(self, state: SACState, obs: Obs, action: Array) -> Array:
        return q_at(state.critics(obs), action)

    def update(self, state: SACState, batch: Transition, *, key: Array) -> tuple[SACState, Metrics]:
        """One step of critics, actor and temperature, in this order, on N sequences of n steps, `[n, N]`.

        The update draws no random numbers.
        """
        alpha = self.alpha.weight(state.temperature)

        next_value = soft_value(state.target_critics(batch.next_obs), state.actor(batch.next_obs), alpha)
        target = n_step_target(batch, next_value, self.discount)

        obs, action = first_row(batch)
        critics, critic_metrics = descend(
            bellman_residual, state.critics, adam(self.critic_learning_rate), obs, action, target, name="critic_"
        )
        q = critics(obs)
        actor, actor_metrics = descend(
            actor_loss, state.actor, adam(self.actor_learning_rate), q, alpha, obs, name="actor_"
        )
        target_critics = polyak(state.target_critics, critics.net, self.tau)

        fraction = FRACTION if self.target_entropy_fraction is None else self.target_entropy_fraction
        target_entropy = fraction * largest_entropy(obs, q.shape[-1])
        excess = target_entropy - actor_metrics["entropy_mean"]
        temperature, alpha_metrics = self.alpha.update(state.temperature, excess)
        state = SACState(actor=actor, critics=critics, target_critics=target_critics, temperature=temperature)
        return state, {**critic_metrics, **actor_metrics, **alpha_metrics, "alpha": alpha}
