"""TD3+BC, TD3 that stays near the data.

Fujimoto and Gu (2021), *A Minimalist Approach to Offline Reinforcement Learning*, arXiv:2106.06860: TD3 with a
behaviour-cloning term in the actor's loss. The paper also normalises observations. To do the same, wrap the algorithm
in `Normalized(…, reward=False)`.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from duologue.algorithms.td3 import AbstractDelayed, Actor, Critics, TD3State, delayed_update, deterministic_init
from duologue.fields import NonNegative, NonNegativeInt
from duologue.networks.builder import AbstractNetworks, Networks
from duologue.ops.optim import LearningRate
from duologue.types import EnvSpec, Metrics, Obs, Transition


def actor_loss(
    actor: Actor, critics: Critics, obs: Obs, action: Float[Array, "N d"],
    *, alpha: float, half_range: Float[Array, " d"],
) -> tuple[Float[Array, ""], Metrics]:  # fmt: skip
    """J = −λ E[Q₁(s, μ(s))] + E[mean ((μ(s) − a)/h)²],   λ = α / E|Q₁(s, μ(s))|, a constant (eq. 5).

    In eq. 5, λ uses Q(s, a) of the data. In the authors' code, λ uses Q₁(s, μ(s)), as here.
    """
    chosen = actor(obs)
    q = critics(obs, chosen)[0]
    # Without the stop-gradient, the actor could change the scale of Q to lower its loss.
    weight = alpha / jax.lax.stop_gradient(jnp.maximum(jnp.mean(jnp.abs(q)), 1e-8))
    cloning = jnp.mean(((chosen - action) / jnp.broadcast_to(half_range, action.shape)) ** 2)
    loss = -weight * jnp.mean(q) + cloning
    return loss, {"actor_loss": loss, "cloning_loss": cloning}


class TD3BC(AbstractDelayed):
    """TD3 with a behaviour-cloning term (Fujimoto and Gu, 2021), for recorded data and for going on online.

    Bounded Box actions; vector, image and Dict observations.
    """

    alpha: NonNegative = 2.5
    """Weight of Q in the actor's loss, relative to cloning (α)."""
    actor_learning_rate: LearningRate = 3e-4
    """Learning rate of the actor (η), a number or a `Linear` schedule. The schedule counts the steps of the critics."""
    critic_learning_rate: LearningRate = 3e-4
    """Learning rate of the critics (η)."""
    start_steps: NonNegativeInt = 0
    """Environment steps with uniformly random actions, at the start."""
    networks: AbstractNetworks = Networks(hidden_sizes=(256, 256), activation="relu", init="lecun")
    """Builder of actor and critics: `Networks`, or an object of your own."""

    def init(self, spec: EnvSpec, *, key: Array) -> TD3State:
        return deterministic_init(self, spec, key, critics=2)

    def update(self, state: TD3State, batch: Transition, *, key: Array) -> tuple[TD3State, Metrics]:
        """D steps of the critics, then one step of actor and targets, on D · N sequences of n steps, `[D, n, N]`."""
        cloning = partial(actor_loss, alpha=self.alpha, half_range=state.bounds.half_range)
        return delayed_update(self, state, batch, key, actor_loss=cloning)
