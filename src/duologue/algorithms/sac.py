"""SAC, the soft actor-critic.

Haarnoja et al. (2018b), *Soft Actor-Critic Algorithms and Applications*, arXiv:1812.05905: without a value network,
with twin critics and a learned temperature. It maximises return and entropy together, E[Σ γᵗ (rₜ + α H(π(·|sₜ)))].
"""

from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from duologue.algorithms.families import AbstractNStepReplayed
from duologue.fields import PositiveInt
from duologue.networks.builder import AbstractNetworks, Networks
from duologue.ops.distributions import TanhNormal
from duologue.ops.losses import action_value
from duologue.ops.metrics import summary_metrics
from duologue.ops.optim import LearningRate, Trained, adam, descend, polyak, target_of
from duologue.ops.returns import first_row, n_step_target
from duologue.ops.temperature import Fixed, Learned, check_target
from duologue.types import EnvSpec, Metrics, Obs, PyTree, Transition

Actor: TypeAlias = Callable[[Obs], TanhNormal]
Critics: TypeAlias = Callable[..., Array]
CriticLoss: TypeAlias = Callable[[Critics, Obs, Array, Array], tuple[Array, Metrics]]
NextValue: TypeAlias = Callable[[Actor, Critics, Array, Obs, Array], Array]
State = TypeVar("State")


class SACState(eqx.Module):
    actor: Trained[Callable[[Obs], Any]]
    """π: a `TanhNormal`, in SACDiscrete a `Categorical`."""
    critics: Trained[Critics]
    target_critics: Critics
    temperature: PyTree


def sample_in_half_ranges(policy: TanhNormal, key: Array) -> tuple[Float[Array, "*batch d"], Float[Array, "*batch"]]:
    """Return ã ~ π in the units of the environment, and the log-density of the same action scaled to [−1, 1].

    The paper has actions in [−1, 1]. In the units of the environment, the entropy of a step is larger by Σ log hᵢ,
    where hᵢ = (high − low)/2 of dimension i.
    """
    action, log_prob = policy.sample_and_log_prob(key)
    return action, policy.to_half_ranges(log_prob)


def soft_value(q: Float[Array, "E ..."], log_prob: Float[Array, "..."], alpha: Float[Array, ""]) -> Array:
    """V(s) = minᵢ Qᵢ(s, ã) − α log π(ã|s), eq. 3 estimated by one action, with the smallest value of the critics."""
    return jnp.min(q, axis=0) - alpha * log_prob


def next_soft_value(
    actor: Actor, target_critics: Critics, alpha: Float[Array, ""], next_obs: Obs, key: Array
) -> Float[Array, "*batch"]:
    """V̄(s') of the target critics, with ã' ~ π(·|s') (eq. 3)."""
    action, log_prob = sample_in_half_ranges(actor(next_obs), key)
    return soft_value(target_critics(next_obs, action), log_prob, alpha)


def bellman_residual(
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


class AbstractSoft(AbstractNStepReplayed[State]):
    """The fields that `soft_init` and `soft_update` read."""

    actor_learning_rate: LearningRate = 3e-4
    """Learning rate of the actor (η), a number or a `Linear` schedule."""
    critic_learning_rate: LearningRate = 3e-4
    """Learning rate of the critics (η)."""
    alpha: Learned | Fixed = Learned()
    """Weight of the entropy (α): `Learned` or `Fixed`."""
    target_entropy: float | None = None
    """Target entropy of the policy (H̄), with actions scaled to [−1, 1]. Only a learned α uses it. None means −|A|, with
    |A| the number of action dimensions."""
    ensemble_size: PositiveInt = 2
    """Number of critics (E); targets and the actor take the smallest value of them."""
    networks: AbstractNetworks = Networks(hidden_sizes=(256, 256), activation="relu", init="lecun", policy_scale=1.0)
    """Builder of actor and critics: `Networks`, or an object of your own."""

    def __check_init__(self):
        check_target(self.alpha, f"{type(self).__name__}.target_entropy", self.target_entropy)


class SAC(AbstractSoft[SACState]):
    """Soft actor-critic with twin critics and a learned temperature (Haarnoja et al., 2018b).

    Bounded Box actions; vector, image and Dict observations.
    """

    def init(self, spec: EnvSpec, *, key: Array) -> SACState:
        return soft_init(self, spec, key)

    def policy(self, state: SACState, obs: Obs) -> TanhNormal:
        return state.actor(obs)

    def q(self, state: SACState, obs: Obs, action: Array) -> Array:
        return state.critics(obs, action)

    def update(self, state: SACState, batch: Transition, *, key: Array) -> tuple[SACState, Metrics]:
        """One step of critics, actor and temperature, in this order, on N sequences of n steps, `[n, N]`."""
        return soft_update(self, state, batch, key)


def soft_init(algorithm: AbstractSoft, spec: EnvSpec, key: Array) -> SACState:
    """Actor, critics and temperature before the first update."""
    actor_key, critics_key = jax.random.split(key)
    actor = algorithm.networks.squashed_actor(spec, key=actor_key)
    critics = algorithm.networks.critics(spec, algorithm.ensemble_size, key=critics_key)
    return SACState(
        actor=Trained.of(actor, adam(algorithm.actor_learning_rate)),
        critics=Trained.of(critics, adam(algorithm.critic_learning_rate)),
        target_critics=target_of(critics),
        temperature=algorithm.alpha.init(),
    )


def soft_update(
    algorithm: AbstractSoft, state: SACState, batch: Transition, key: Array,
    *, critic_loss: CriticLoss = bellman_residual, next_value: NextValue = next_soft_value,
) -> tuple[SACState, Metrics]:  # fmt: skip
    """One step of critics, actor and temperature, in this order, on N sequences of n steps, `[n, N]`.

    A variant passes its own `critic_loss`, or its own `next_value` for the values at s'.
    """
    target_key, actor_key = jax.random.split(key)
    alpha = algorithm.alpha.weight(state.temperature)

    after = next_value(state.actor, state.target_critics, alpha, batch.next_obs, target_key)
    target = n_step_target(batch, after, algorithm.discount)

    obs, action = first_row(batch)
    critics, critic_metrics = descend(
        critic_loss, state.critics, adam(algorithm.critic_learning_rate), obs, action, target, name="critic_"
    )
    actor, actor_metrics = descend(
        actor_loss, state.actor, adam(algorithm.actor_learning_rate), critics, alpha, obs, actor_key, name="actor_"
    )
    target_critics = polyak(state.target_critics, critics.net, algorithm.tau)

    target_entropy = -float(action.shape[-1]) if algorithm.target_entropy is None else algorithm.target_entropy
    excess = actor_metrics["log_prob_mean"] + target_entropy
    temperature, alpha_metrics = algorithm.alpha.update(state.temperature, excess)
    state = SACState(actor=actor, critics=critics, target_critics=target_critics, temperature=temperature)
    return state, {**critic_metrics, **actor_metrics, **alpha_metrics, "alpha": alpha}
