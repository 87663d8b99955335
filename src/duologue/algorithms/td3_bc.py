"""TD3+BC, TD3 that stays near the data.

Fujimoto and Gu (2021), *A Minimalist Approach to Offline Reinforcement Learning*, arXiv:2106.06860: a behaviour-cloning
term in the actor's loss, and TD3 otherwise. The paper also normalises observations: wrap it in `Normalized(…,
reward=False)`.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from duologue.algorithms.base import AbstractAlgorithm, replayed
from duologue.algorithms.td3 import TD3, Actor, Critics, TD3State
from duologue.fields import Fraction, NonNegative, NonNegativeInt, PositiveInt
from duologue.networks.builder import AbstractNetworks, Networks
from duologue.ops.optim import LearningRate
from duologue.types import Experience, Metrics, Obs, Transition


def actor_loss(
    actor: Actor, critics: Critics, obs: Obs, action: Float[Array, "N d"],
    *, alpha: float, half_range: Float[Array, " d"],
) -> tuple[Float[Array, ""], Metrics]:  # fmt: skip
    """J = −λ E[Q₁(s, μ(s))] + E[mean ((μ(s) − a)/h)²],   λ = α / E|Q₁(s, μ(s))|, a constant (eq. 5, where λ has
    the data's Q(s, a); this is the authors' code)."""
    chosen = actor(obs)
    q = critics(obs, chosen)[0]
    # Without the stop-gradient the actor could lower its loss by the scale of Q.
    weight = alpha / jax.lax.stop_gradient(jnp.maximum(jnp.mean(jnp.abs(q)), 1e-8))
    cloning = jnp.mean(((chosen - action) / jnp.broadcast_to(half_range, action.shape)) ** 2)
    loss = -weight * jnp.mean(q) + cloning
    return loss, {"actor_loss": loss, "cloning_loss": cloning}


class TD3BC(AbstractAlgorithm[TD3State]):
    """TD3 with a behaviour-cloning term (Fujimoto and Gu, 2021), for recorded data and for going on online.

    Bounded Box actions; vector, image and Dict observations.
    """

    alpha: NonNegative = 2.5
    """α, weight of the value against cloning."""
    actor_learning_rate: LearningRate = 3e-4
    """η of the actor, a number or a `Linear` schedule; a schedule counts the critics' steps, D for one of the actor."""
    critic_learning_rate: LearningRate = 3e-4
    """η of the critics."""
    exploration_noise: NonNegative = 0.1
    """σ of the noise on actions while training in an environment, in half-ranges of the box."""
    target_noise: NonNegative = 0.2
    """σ̃ of the noise on target actions, in half-ranges."""
    target_noise_clip: NonNegative = 0.5
    """c, where that noise is clipped."""
    policy_delay: PositiveInt = 2
    """D, steps of the critics for one of the actor and the targets."""
    discount: Fraction = 0.99
    """γ."""
    tau: Fraction = 0.005
    """τ, how far the targets follow at each of their steps."""
    n_step: PositiveInt = 1
    """n, rewards summed before a target bootstraps. Above 1 nothing corrects for actions that the policy would not take
    now."""
    batch_size: PositiveInt = 256
    """N, transitions of a critic step."""
    replay_capacity: PositiveInt = 1_000_000
    """Transitions that are kept."""
    learning_starts: NonNegativeInt = 100
    """Environment steps before the first update."""
    start_steps: NonNegativeInt = 0
    """Environment steps with uniformly random actions."""
    rollout_length: PositiveInt = 2
    """Steps of each environment between updates."""
    updates: PositiveInt = 1
    """Updates after each rollout, of `policy_delay` critic steps each."""
    num_envs: PositiveInt = 1
    """B, environments that step together."""
    networks: AbstractNetworks = Networks(hidden_sizes=(256, 256), activation="relu", init="lecun")
    """Builds actor and critics: `Networks`, or an object of your own."""

    @property
    def experience(self) -> Experience:
        return replayed(self, batches_per_update=self.policy_delay)

    init, act, q = TD3.init, TD3.act, TD3.q

    def update(self, state: TD3State, batch: Transition, *, key: Array) -> tuple[TD3State, Metrics]:
        """D steps of the critics, then one of the actor and the targets, on sequences `[D, n, N]`."""
        cloning = partial(actor_loss, alpha=self.alpha, half_range=state.bounds.half_range)
        return TD3.update(self, state, batch, key=key, actor_loss=cloning)  # pyright: ignore[reportArgumentType]
