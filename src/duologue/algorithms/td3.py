"""TD3, the twin delayed deep deterministic policy gradient.

Fujimoto et al. (2018), *Addressing Function Approximation Error in Actor-Critic Methods*, arXiv:1802.09477: DDPG with
three changes, each a line here: the smaller of two critics, smoothed target actions, and an actor that moves once for
`policy_delay` steps of the critics.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from duologue.algorithms.base import AbstractAlgorithm, replayed
from duologue.fields import Fraction, NonNegative, NonNegativeInt, PositiveInt
from duologue.networks.builder import AbstractNetworks, Networks
from duologue.networks.heads import box_bounds, require_bounded_box
from duologue.ops.distributions import Bounds
from duologue.ops.losses import td_loss
from duologue.ops.metrics import join_steps
from duologue.ops.optim import LearningRate, adam, delayed_rate, gradient_step, opt_init, polyak, target_of
from duologue.ops.returns import first_row, n_step_target
from duologue.types import EnvSpec, Experience, Metrics, Obs, PyTree, Transition

Actor: TypeAlias = Callable[[Obs], Array]
Critics: TypeAlias = Callable[[Obs, Array], Array]
ActorLoss: TypeAlias = Callable[[Actor, Critics, Obs, Array], tuple[Array, Metrics]]


class TD3State(eqx.Module):
    actor: Actor
    critics: Critics
    target_actor: Actor
    target_critics: Critics
    bounds: Bounds
    """Of the actions: nothing that is learned."""
    actor_opt: PyTree
    critic_opt: PyTree


def noisy(
    action: Float[Array, "*batch d"], bounds: Bounds, key: Array, *, noise: float, clip: float = jnp.inf
) -> Float[Array, "*batch d"]:
    """a + h clip(ε, −c, c), ε ~ N(0, σ²), back inside the box; σ and c are in half-ranges h."""
    box = bounds.broadcast(action)
    epsilon = jnp.clip(noise * jax.random.normal(key, action.shape), -clip, clip)
    return box.clip(action + box.half_range * epsilon)


def smoothed_target(
    state: TD3State, batch: Transition, key: Array, *, noise: float, clip: float, discount: float
) -> Float[Array, " N"]:
    """y = r + γ(1 − term) minᵢ Q̄ᵢ(s', ã),   ã = μ̄(s') + h clip(ε, −c, c), clipped to the box."""
    action = noisy(state.target_actor(batch.next_obs), state.bounds, key, noise=noise, clip=clip)
    next_value = jnp.min(state.target_critics(batch.next_obs, action), axis=0)
    return n_step_target(batch, next_value, discount)


def actor_loss(actor: Actor, critics: Critics, obs: Obs, action: Array) -> tuple[Float[Array, ""], Metrics]:
    """J = −E[Q₁(s, μ(s))]: the first critic alone, as in the paper, whatever `action` was taken."""
    loss = -jnp.mean(critics(obs, actor(obs))[0])
    return loss, {"actor_loss": loss}


class TD3(AbstractAlgorithm[TD3State]):
    """Twin delayed deep deterministic policy gradient (Fujimoto et al., 2018).

    Bounded Box actions; vector, image and Dict observations.
    """

    actor_learning_rate: LearningRate = 1e-3
    """η of the actor, a number or a `Linear` schedule; a schedule counts the critics' steps, D for one of the actor."""
    critic_learning_rate: LearningRate = 1e-3
    """η of the critics."""
    exploration_noise: NonNegative = 0.1
    """σ of the noise on actions while training, in half-ranges of the box."""
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
    start_steps: NonNegativeInt = 100
    """Environment steps with uniformly random actions."""
    rollout_length: PositiveInt = 2
    """Steps of each environment between updates; the same as `policy_delay` makes one critic step a step."""
    updates: PositiveInt = 1
    """Updates after each rollout, of `policy_delay` critic steps each."""
    num_envs: PositiveInt = 1
    """B, environments that step together."""
    networks: AbstractNetworks = Networks(hidden_sizes=(256, 256), activation="relu", init="lecun", policy_scale=1.0)
    """Builds actor and critics: `Networks`, or an object of your own."""

    @property
    def experience(self) -> Experience:
        return replayed(self, batches_per_update=self.policy_delay)

    def init(self, spec: EnvSpec, *, key: Array) -> TD3State:
        actor_key, critics_key = jax.random.split(key)
        actor = self.networks.deterministic_actor(spec, key=actor_key)
        critics = self.networks.critics(spec, 2, key=critics_key)
        return TD3State(
            actor=actor, critics=critics, target_actor=target_of(actor), target_critics=target_of(critics),
            bounds=box_bounds(require_bounded_box(spec.action)), actor_opt=opt_init(actor_optimizer(self), actor),
            critic_opt=opt_init(adam(self.critic_learning_rate), critics),
        )  # fmt: skip

    def act(
        self, state: TD3State, carry: None, obs: Obs, *, key: Array, explore: bool
    ) -> tuple[Array, dict[str, Array], None]:
        action = state.actor(obs)
        return noisy(action, state.bounds, key, noise=self.exploration_noise) if explore else action, {}, carry

    def q(self, state: TD3State, obs: Obs, action: Array) -> Array:
        return state.critics(obs, action)

    def update(
        self, state: TD3State, batch: Transition, *, key: Array, actor_loss: ActorLoss = actor_loss
    ) -> tuple[TD3State, Metrics]:
        """D steps of the critics, then one of the actor and the targets, on sequences `[D, n, N]`. TD3+BC has another
        `actor_loss`."""

        def critic_step(now: tuple[Critics, PyTree], row: tuple[Transition, Array]) -> tuple[tuple, Metrics]:
            (critics, opt_state), (rows, key) = now, row
            obs, action = first_row(rows)
            target = smoothed_target(
                state, rows, key, noise=self.target_noise, clip=self.target_noise_clip, discount=self.discount
            )
            critics, opt_state, metrics = gradient_step(
                td_loss, critics, opt_state, adam(self.critic_learning_rate), obs, action, target, name="critic_"
            )
            return (critics, opt_state), metrics

        keys = jax.random.split(key, self.policy_delay)
        (critics, critic_opt), metrics = jax.lax.scan(critic_step, (state.critics, state.critic_opt), (batch, keys))
        obs, action = first_row(jax.tree.map(lambda x: x[-1], batch))
        actor, actor_opt, actor_metrics = gradient_step(
            actor_loss, state.actor, state.actor_opt, actor_optimizer(self), critics, obs, action, name="actor_"
        )
        state = TD3State(
            actor=actor, critics=critics, target_actor=polyak(state.target_actor, actor, self.tau),
            target_critics=polyak(state.target_critics, critics, self.tau), bounds=state.bounds,
            actor_opt=actor_opt, critic_opt=critic_opt,
        )  # fmt: skip
        return state, {**join_steps(metrics), **actor_metrics}


def actor_optimizer(algorithm: Any) -> optax.GradientTransformation:
    """Adam, whose rate follows the count of the critics' steps, D for one of the actor's."""
    return adam(delayed_rate(algorithm.actor_learning_rate, algorithm.policy_delay))
