"""SAC for discrete actions.

Christodoulou (2019), *Soft Actor-Critic for Discrete Action Settings*, arXiv:1910.07207: the expectations over actions
that SAC samples are sums here. The rest is SAC.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from duologue.algorithms.base import AbstractAlgorithm, replayed
from duologue.algorithms.sac import SAC, SACState, critic_loss
from duologue.fields import Fraction, NonNegativeInt, PositiveInt
from duologue.networks.builder import AbstractNetworks, Networks
from duologue.networks.heads import largest_entropy
from duologue.ops.distributions import Categorical
from duologue.ops.losses import q_at
from duologue.ops.metrics import summary_metrics
from duologue.ops.optim import LearningRate, adam, gradient_step, opt_init, polyak, target_of
from duologue.ops.returns import first_row, n_step_target
from duologue.ops.temperature import Fixed, Learned, check_target
from duologue.types import EnvSpec, Experience, Metrics, Obs, Transition

FRACTION = 0.98
"""Of the largest entropy, what the paper's policy is held at."""


def soft_value(q: Float[Array, "E ..."], policy: Categorical, alpha: Float[Array, ""]) -> Array:
    """V(s) = Σₐ π(a|s) [minᵢ Qᵢ(s, a) − α log π(a|s)] (eq. 10); a masked action weighs nothing."""
    return jnp.sum(policy.probs * jnp.min(q, axis=0), axis=-1) + alpha * policy.entropy()


def actor_loss(
    actor: Callable[[Obs], Categorical], q: Float[Array, "E N n"], alpha: Float[Array, ""], obs: Obs
) -> tuple[Float[Array, ""], Metrics]:
    """J_π = −E[V(s)], exact over actions (eq. 12)."""
    policy = actor(obs)
    loss = -jnp.mean(soft_value(q, policy, alpha))
    return loss, {"actor_loss": loss, **summary_metrics("entropy", policy.entropy())}


class SACDiscrete(AbstractAlgorithm[SACState]):
    """Soft actor-critic with sums over discrete actions (Christodoulou, 2019).

    Discrete actions; vector, image and Dict observations, action masks.
    """

    actor_learning_rate: LearningRate = 3e-4
    """η of the actor, a number or a `Linear` schedule."""
    critic_learning_rate: LearningRate = 3e-4
    """η of the critics."""
    alpha: Learned | Fixed = Learned()
    """α, weight of the entropy: `Learned` or `Fixed`."""
    target_entropy_fraction: Fraction | None = None
    """H̄, the entropy that a learned α holds the policy at, as a fraction of the largest, log |A|, with |A| the number
    of actions that a mask allows; None for 0.98."""
    discount: Fraction = 0.99
    """γ."""
    tau: Fraction = 0.005
    """τ, how far the target critics follow at each update."""
    n_step: PositiveInt = 1
    """n, rewards summed before a target bootstraps. Above 1 the entropies between them are left out, and nothing
    corrects for actions that the policy would not take now."""
    batch_size: PositiveInt = 64
    """N, transitions of an update."""
    replay_capacity: PositiveInt = 1_000_000
    """Transitions that are kept."""
    learning_starts: NonNegativeInt = 100
    """Environment steps before the first update."""
    start_steps: NonNegativeInt = 100
    """Environment steps with uniformly random actions."""
    rollout_length: PositiveInt = 4
    """Steps of each environment between updates."""
    updates: PositiveInt = 1
    """Updates after each rollout."""
    num_envs: PositiveInt = 1
    """B, environments that step together."""
    networks: AbstractNetworks = Networks(hidden_sizes=(256, 256), activation="relu", init="lecun")
    """Builds actor and critics: `Networks`, or an object of your own."""

    def __check_init__(self):
        check_target(self.alpha, "SACDiscrete.target_entropy_fraction", self.target_entropy_fraction)

    @property
    def experience(self) -> Experience:
        return replayed(self)

    def init(self, spec: EnvSpec, *, key: Array) -> SACState:
        actor_key, critics_key = jax.random.split(key)
        actor = self.networks.categorical_actor(spec, key=actor_key)
        critics = self.networks.critics(spec, 2, key=critics_key)
        return SACState(
            actor=actor, critics=critics, target_critics=target_of(critics), temperature=self.alpha.init(),
            actor_opt=opt_init(adam(self.actor_learning_rate), actor),
            critic_opt=opt_init(adam(self.critic_learning_rate), critics),
        )  # fmt: skip

    act, log_prob = SAC.act, SAC.log_prob

    def q(self, state: SACState, obs: Obs, action: Array) -> Array:
        return q_at(state.critics(obs), action)

    def update(self, state: SACState, batch: Transition, *, key: Array) -> tuple[SACState, Metrics]:
        """One step of critics, actor and temperature, in this order, on sequences `[n, N]`. Nothing is sampled."""
        alpha = self.alpha.weight(state.temperature)

        next_value = soft_value(state.target_critics(batch.next_obs), state.actor(batch.next_obs), alpha)
        target = n_step_target(batch, next_value, self.discount)

        obs, action = first_row(batch)
        critics, critic_opt, critic_metrics = gradient_step(
            critic_loss, state.critics, state.critic_opt, adam(self.critic_learning_rate),
            obs, action, target, name="critic_",
        )  # fmt: skip
        q = critics(obs)
        actor, actor_opt, actor_metrics = gradient_step(
            actor_loss, state.actor, state.actor_opt, adam(self.actor_learning_rate), q, alpha, obs, name="actor_"
        )
        fraction = FRACTION if self.target_entropy_fraction is None else self.target_entropy_fraction
        target_entropy = fraction * largest_entropy(obs, q.shape[-1])
        temperature, alpha_metrics = self.alpha.update(
            state.temperature, target_entropy - actor_metrics["entropy_mean"]
        )
        state = SACState(
            actor=actor, critics=critics, target_critics=polyak(state.target_critics, critics, self.tau),
            temperature=temperature, actor_opt=actor_opt, critic_opt=critic_opt,
        )  # fmt: skip
        return state, {**critic_metrics, **actor_metrics, **alpha_metrics, "alpha": alpha}
