"""SAC, the soft actor-critic.

Haarnoja et al. (2018b), *Soft Actor-Critic Algorithms and Applications*, arXiv:1812.05905: without a value network,
with twin critics and a learned temperature. It maximises return and entropy together, E[Σ γᵗ (rₜ + α H(π(·|sₜ)))].
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from duologue.algorithms.base import AbstractAlgorithm, replayed
from duologue.fields import Fraction, NonNegativeInt, PositiveInt
from duologue.networks.builder import AbstractNetworks, Networks
from duologue.ops.distributions import TanhNormal
from duologue.ops.losses import action_value
from duologue.ops.metrics import summary_metrics
from duologue.ops.optim import LearningRate, adam, gradient_step, opt_init, polyak, target_of
from duologue.ops.returns import first_row, n_step_target
from duologue.ops.temperature import Fixed, Learned, check_target
from duologue.types import EnvSpec, Experience, Metrics, Obs, PyTree, Transition

Actor: TypeAlias = Callable[[Obs], TanhNormal]
Critics: TypeAlias = Callable[..., Array]
CriticLoss: TypeAlias = Callable[[Critics, Obs, Array, Array], tuple[Array, Metrics]]
NextValue: TypeAlias = Callable[[Actor, Critics, Array, Obs, Array], Array]


class SACState(eqx.Module):
    actor: Callable[[Obs], Any]
    """π: a `TanhNormal`; of SACDiscrete a `Categorical`."""
    critics: Critics
    target_critics: Critics
    temperature: PyTree
    actor_opt: PyTree
    critic_opt: PyTree


def sample_in_half_ranges(policy: TanhNormal, key: Array) -> tuple[Float[Array, "*batch d"], Float[Array, "*batch"]]:
    """ã ~ π and log π(ã|s), the density over actions in [−1, 1] as in the paper: in the environment's own units the
    entropy, and so every value, would shift by Σ log hᵢ a step."""
    action, log_prob = policy.sample_and_log_prob(key)
    return action, policy.to_half_ranges(log_prob)


def soft_value(q: Float[Array, "E ..."], log_prob: Float[Array, "..."], alpha: Float[Array, ""]) -> Array:
    """V(s) = minᵢ Qᵢ(s, ã) − α log π(ã|s), a sample of eq. 3 with the smaller of the critics."""
    return jnp.min(q, axis=0) - alpha * log_prob


def next_soft_value(
    actor: Actor, target_critics: Critics, alpha: Float[Array, ""], next_obs: Obs, key: Array
) -> Float[Array, "*batch"]:
    """V̄(s') of the target critics, with ã' ~ π(·|s') (eq. 3)."""
    action, log_prob = sample_in_half_ranges(actor(next_obs), key)
    return soft_value(target_critics(next_obs, action), log_prob, alpha)


def critic_loss(
    critics: Critics, obs: Obs, action: Array, target: Float[Array, " N"]
) -> tuple[Float[Array, ""], Metrics]:
    """J_Q = Σᵢ E[½ (Qᵢ(s, a) − y)²] (eq. 5)."""
    q = action_value(critics, obs, action)
    loss = jnp.sum(jnp.mean(0.5 * (q - target[None]) ** 2, axis=-1))
    return loss, {"critic_loss": loss, **summary_metrics("q", q)}


def actor_loss(
    actor: Actor, critics: Critics, alpha: Float[Array, ""], obs: Obs, key: Array
) -> tuple[Float[Array, ""], Metrics]:
    """J_π = E[α log π(ã|s) − minᵢ Qᵢ(s, ã)], with ã ~ π(·|s) reparameterised (eq. 9)."""
    action, log_prob = sample_in_half_ranges(actor(obs), key)
    loss = -jnp.mean(soft_value(critics(obs, action), log_prob, alpha))
    return loss, {"actor_loss": loss, **summary_metrics("log_prob", log_prob)}


class SAC(AbstractAlgorithm[SACState]):
    """Soft actor-critic with twin critics and a learned temperature (Haarnoja et al., 2018b).

    Bounded Box actions; vector, image and Dict observations.
    """

    actor_learning_rate: LearningRate = 3e-4
    """η of the actor, a number or a `Linear` schedule."""
    critic_learning_rate: LearningRate = 3e-4
    """η of the critics."""
    alpha: Learned | Fixed = Learned()
    """α, weight of the entropy: `Learned` or `Fixed`."""
    target_entropy: float | None = None
    """H̄ that a learned α keeps the policy's entropy at, for actions in [−1, 1]; None for −|A|, minus the number of
    action dimensions."""
    discount: Fraction = 0.99
    """γ."""
    tau: Fraction = 0.005
    """τ, how far the target critics follow at each update."""
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
    """Builds actor and critics: `Networks`, or an object of your own."""

    def __check_init__(self):
        check_target(self.alpha, "SAC.target_entropy", self.target_entropy)

    @property
    def experience(self) -> Experience:
        return replayed(self)

    def init(self, spec: EnvSpec, *, key: Array) -> SACState:
        actor_key, critics_key = jax.random.split(key)
        actor = self.networks.squashed_actor(spec, key=actor_key)
        critics = self.networks.critics(spec, 2, key=critics_key)
        return SACState(
            actor=actor, critics=critics, target_critics=target_of(critics), temperature=self.alpha.init(),
            actor_opt=opt_init(adam(self.actor_learning_rate), actor),
            critic_opt=opt_init(adam(self.critic_learning_rate), critics),
        )  # fmt: skip

    def act(
        self, state: SACState, carry: None, obs: Obs, *, key: Array, explore: bool
    ) -> tuple[Array, dict[str, Array], None]:
        policy = state.actor(obs)
        action = policy.sample(key) if explore else policy.mode()
        return action, {}, carry

    def log_prob(self, state: SACState, obs: Obs, action: Array) -> Array:
        return state.actor(obs).log_prob(action)

    def q(self, state: SACState, obs: Obs, action: Array) -> Array:
        return state.critics(obs, action)

    def update(
        self, state: SACState, batch: Transition, *, key: Array, critic_loss: CriticLoss = critic_loss,
        next_value: NextValue = next_soft_value,
    ) -> tuple[SACState, Metrics]:  # fmt: skip
        """One step of critics, actor and temperature, in this order, on sequences `[n, N]`. CQL has another
        `critic_loss`, and other values at s'."""
        target_key, actor_key = jax.random.split(key)
        alpha = self.alpha.weight(state.temperature)

        after = next_value(state.actor, state.target_critics, alpha, batch.next_obs, target_key)
        target = n_step_target(batch, after, self.discount)

        obs, action = first_row(batch)
        critics, critic_opt, critic_metrics = gradient_step(
            critic_loss, state.critics, state.critic_opt, adam(self.critic_learning_rate),
            obs, action, target, name="critic_",
        )  # fmt: skip
        actor, actor_opt, actor_metrics = gradient_step(
            actor_loss, state.actor, state.actor_opt, adam(self.actor_learning_rate),
            critics, alpha, obs, actor_key, name="actor_",
        )  # fmt: skip
        target_entropy = -float(action.shape[-1]) if self.target_entropy is None else self.target_entropy
        temperature, alpha_metrics = self.alpha.update(
            state.temperature, actor_metrics["log_prob_mean"] + target_entropy
        )
        state = SACState(
            actor=actor, critics=critics, target_critics=polyak(state.target_critics, critics, self.tau),
            temperature=temperature, actor_opt=actor_opt, critic_opt=critic_opt,
        )  # fmt: skip
        return state, {**critic_metrics, **actor_metrics, **alpha_metrics, "alpha": alpha}
