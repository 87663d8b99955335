"""IQL, implicit Q-learning.

Kostrikov et al. (2022), *Offline Reinforcement Learning with Implicit Q-Learning*, arXiv:2110.06169: learning never
evaluates Q at an action outside the data. V is an expectile of Q over the actions of the data. The policy clones these
actions, with larger weights where Q is above V.
"""

from collections.abc import Callable
from typing import TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from duologue.algorithms.families import AbstractReplayed
from duologue.fields import Fraction, NonNegative, NonNegativeInt, OpenFraction, Positive
from duologue.networks.builder import AbstractNetworks, Networks
from duologue.networks.heads import box_bounds, require_bounded_box
from duologue.ops.distributions import Bounds, Normal
from duologue.ops.losses import td_loss
from duologue.ops.metrics import summary_metrics
from duologue.ops.optim import LearningRate, Trained, adam, descend, polyak, target_of
from duologue.ops.returns import td_target
from duologue.types import EnvSpec, Metrics, Obs, PyTree, Transition

Value: TypeAlias = Callable[[Obs], Array]
Critics: TypeAlias = Callable[[Obs, Array], Array]

LOG_STD = (-5.0, 2.0)
"""Smallest and largest log σ of the policy, as in the authors' code."""


class GaussianActor(eqx.Module):
    """π(·|s) = N(c + h tanh μ(s), (h σ)²), with centre c and half-range h of the box, and one σ for all states."""

    mean: Callable[[Obs], Array]
    log_std: Float[Array, " d"]

    def __call__(self, obs: Obs, half_range: Float[Array, " d"]) -> Normal:
        mean = self.mean(obs)
        scale = half_range * jnp.exp(jnp.clip(self.log_std, *LOG_STD))
        return Normal(mean, jnp.broadcast_to(scale, mean.shape))


class IQLState(eqx.Module):
    actor: Trained[GaussianActor]
    value: Trained[Value]
    critics: Trained[Critics]
    target_critics: Critics
    bounds: Bounds
    """Constant bounds of the actions."""


def expectile_loss(difference: Float[Array, "*batch"], expectile: float) -> Float[Array, "*batch"]:
    """L₂^τ(u) = |τ − 1(u < 0)| u² (§4.1).

    The constant v that minimises E[L₂^τ(x − v)] is the expectile of x. τ = ½ gives the mean, τ near 1 about the
    maximum.
    """
    return jnp.where(difference < 0, 1 - expectile, expectile) * difference**2


def value_loss(value: Value, obs: Obs, q: Float[Array, " N"], expectile: float) -> tuple[Float[Array, ""], Metrics]:
    """L_V = E[L₂^τ(minᵢ Q̄ᵢ(s, a) − V(s))] (eq. 5), over the data's actions."""
    v = value(obs)
    loss = jnp.mean(expectile_loss(q - v, expectile))
    return loss, {"value_loss": loss, **summary_metrics("value", v)}


def actor_loss(
    actor: GaussianActor,
    half_range: Float[Array, " d"],
    obs: Obs,
    action: Float[Array, "N d"],
    weight: Float[Array, " N"],
) -> tuple[Float[Array, ""], Metrics]:
    """L_π = −E[w log π(a|s)],   w = min(exp(β (minᵢ Q̄ᵢ(s, a) − V(s))), w_max) (eq. 7)."""
    log_prob = actor(obs, half_range).log_prob(action)
    loss = -jnp.mean(weight * log_prob)
    return loss, {"actor_loss": loss, **summary_metrics("log_prob", log_prob)}


class IQL(AbstractReplayed[IQLState]):
    """Implicit Q-learning (Kostrikov et al., 2022), for recorded data and for going on online.

    Bounded Box actions; vector, image and Dict observations.
    """

    actor_learning_rate: LearningRate = 3e-4
    """Learning rate of the actor (η), a number or a `Linear` schedule. The authors use a cosine schedule."""
    value_learning_rate: LearningRate = 3e-4
    """Learning rate of V (η)."""
    critic_learning_rate: LearningRate = 3e-4
    """Learning rate of the critics (η)."""
    expectile: OpenFraction = 0.7
    """Expectile of Q that V learns, over the actions of the data (τ)."""
    inverse_temperature: NonNegative = 3.0
    """Factor of the advantage in the weights of cloning (β). A larger β gives more weight to better actions."""
    max_weight: Positive = 100.0
    """Largest weight of an action in cloning (w_max)."""
    tau: Fraction = 0.005
    """Polyak step size of the target networks (α in the paper): target ← (1 − α) target + α learned, in each update."""
    start_steps: NonNegativeInt = 0
    """Environment steps with uniformly random actions, at the start."""
    networks: AbstractNetworks = Networks(hidden_sizes=(256, 256), activation="relu", init="pytorch", policy_scale=1.0)
    """Builder of actor, value and critics: `Networks`, or an object of your own."""

    def init(self, spec: EnvSpec, *, key: Array) -> IQLState:
        actor_key, value_key, critics_key = jax.random.split(key, 3)
        box = box_bounds(require_bounded_box(spec.action))
        actor = GaussianActor(self.networks.deterministic_actor(spec, key=actor_key), jnp.zeros_like(box.low))
        value = self.networks.state_value(spec, key=value_key)
        critics = self.networks.critics(spec, 2, key=critics_key)
        return IQLState(
            actor=Trained.of(actor, adam(self.actor_learning_rate)),
            value=Trained.of(value, adam(self.value_learning_rate)),
            critics=Trained.of(critics, adam(self.critic_learning_rate)),
            target_critics=target_of(critics),
            bounds=box,
        )

    def policy(self, state: IQLState, obs: Obs) -> Normal:
        return state.actor(obs, state.bounds.half_range)

    def act(
        self, state: IQLState, carry: PyTree, obs: Obs, *, key: Array, explore: bool
    ) -> tuple[Array, dict[str, Array], PyTree]:
        action, extras, carry = super().act(state, carry, obs, key=key, explore=explore)
        # The critics learn from this action. So the clip keeps it inside the box, as in recorded data.
        return state.bounds.clip(action), extras, carry

    def q(self, state: IQLState, obs: Obs, action: Array) -> Array:
        return state.critics(obs, action)

    def v(self, state: IQLState, obs: Obs) -> Array:
        return state.value(obs)

    def update(self, state: IQLState, batch: Transition, *, key: Array) -> tuple[IQLState, Metrics]:
        """One step of V, the actor, the critics and their targets, in this order, on transitions `[N]`. The update
        draws no random numbers."""
        obs, action = batch.obs, batch.action
        q = jnp.min(state.target_critics(obs, action), axis=0)

        value, value_metrics = descend(
            value_loss, state.value, adam(self.value_learning_rate), obs, q, self.expectile, name="value_"
        )
        weight = jnp.minimum(jnp.exp(self.inverse_temperature * (q - value(obs))), self.max_weight)
        actor, actor_metrics = descend(
            actor_loss, state.actor, adam(self.actor_learning_rate),
            state.bounds.half_range, obs, action, weight, name="actor_",
        )  # fmt: skip
        # y = r + γ(1 − term) V(s') (eq. 6). Other algorithms use Q(s', a') of some action a' in place of V(s').
        target = td_target(batch.reward, batch.terminated, value(batch.next_obs), self.discount)
        critics, critic_metrics = descend(
            td_loss, state.critics, adam(self.critic_learning_rate), obs, action, target, name="critic_"
        )
        state = IQLState(
            actor=actor, value=value, critics=critics,
            target_critics=polyak(state.target_critics, critics.net, self.tau), bounds=state.bounds,
        )  # fmt: skip
        return state, {**value_metrics, **actor_metrics, **critic_metrics, "weight": jnp.mean(weight)}
