"""TD3, the twin delayed deep deterministic policy gradient.

Fujimoto et al. (2018), *Addressing Function Approximation Error in Actor-Critic Methods*, arXiv:1802.09477: DDPG with
three changes, each one line of code here. Targets use the smaller of two critics. Target actions are smoothed. The
actor takes one step for `policy_delay` steps of the critics.
"""

from collections.abc import Callable
from typing import TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from duologue.algorithms.families import AbstractNStepReplayed, replay_experience
from duologue.fields import NonNegative, PositiveInt
from duologue.networks.builder import AbstractNetworks, Networks
from duologue.networks.heads import box_bounds, require_bounded_box
from duologue.ops.distributions import Bounds
from duologue.ops.losses import td_loss
from duologue.ops.metrics import join_steps
from duologue.ops.optim import LearningRate, Trained, adam, delayed_rate, descend, polyak, target_of
from duologue.ops.returns import first_row, n_step_target
from duologue.types import EnvSpec, Experience, Metrics, Obs, Transition

Actor: TypeAlias = Callable[[Obs], Array]
Critics: TypeAlias = Callable[[Obs, Array], Array]
ActorLoss: TypeAlias = Callable[[Actor, Critics, Obs, Array], tuple[Array, Metrics]]


class TD3State(eqx.Module):
    actor: Trained[Actor]
    critics: Trained[Critics]
    target_actor: Actor
    target_critics: Critics
    bounds: Bounds
    """Constant bounds of the actions."""


def add_noise(
    action: Float[Array, "*batch d"], bounds: Bounds, key: Array, *, noise: float, clip: float = jnp.inf
) -> Float[Array, "*batch d"]:
    """a + h clip(ε, −c, c), ε ~ N(0, σ²), clipped to the box. σ and c are in half-ranges h."""
    box = bounds.broadcast(action)
    epsilon = jnp.clip(noise * jax.random.normal(key, action.shape), -clip, clip)
    return box.clip(action + box.half_range * epsilon)


def smooth_target(
    state: TD3State, batch: Transition, key: Array, *, noise: float, clip: float, discount: float
) -> Float[Array, " N"]:
    """y = r + γ(1 − term) minᵢ Q̄ᵢ(s', ã),   ã = μ̄(s') + h clip(ε, −c, c), clipped to the box."""
    action = add_noise(state.target_actor(batch.next_obs), state.bounds, key, noise=noise, clip=clip)
    next_value = jnp.min(state.target_critics(batch.next_obs, action), axis=0)
    return n_step_target(batch, next_value, discount)


def policy_loss(actor: Actor, critics: Critics, obs: Obs, action: Array) -> tuple[Float[Array, ""], Metrics]:
    """J = −E[Q₁(s, μ(s))], with the first critic alone, as in the paper. The loss does not use `action`."""
    loss = -jnp.mean(critics(obs, actor(obs))[0])
    return loss, {"actor_loss": loss}


class AbstractDeterministic(AbstractNStepReplayed[TD3State]):
    """An algorithm with a deterministic actor, which explores by noise on its actions. TD3 and DDPG share these fields
    and `act`."""

    actor_learning_rate: LearningRate = 1e-3
    """Learning rate of the actor (η), a number or a `Linear` schedule. With a delayed actor, the schedule counts the
    steps of the critics."""
    critic_learning_rate: LearningRate = 1e-3
    """Learning rate of the critics (η)."""
    exploration_noise: NonNegative = 0.1
    """Standard deviation of the noise on actions in training, in half-ranges of the box (σ)."""
    networks: AbstractNetworks = Networks(hidden_sizes=(256, 256), activation="relu", init="lecun", policy_scale=1.0)
    """Builder of actor and critics: `Networks`, or an object of your own."""

    def act(
        self, state: TD3State, carry: None, obs: Obs, *, key: Array, explore: bool
    ) -> tuple[Array, dict[str, Array], None]:
        """μ(s), with noise to explore."""
        action = state.actor(obs)
        return add_noise(action, state.bounds, key, noise=self.exploration_noise) if explore else action, {}, carry

    def q(self, state: TD3State, obs: Obs, action: Array) -> Array:
        return state.critics(obs, action)


class AbstractDelayed(AbstractDeterministic):
    """The fields that `delayed_update` reads."""

    target_noise: NonNegative = 0.2
    """Standard deviation of the noise on target actions, in half-ranges (σ̃)."""
    target_noise_clip: NonNegative = 0.5
    """Largest absolute value of the noise on target actions, in half-ranges (c)."""
    policy_delay: PositiveInt = 2
    """Number of steps of the critics in an update (D). Actor and targets take one step in an update."""
    rollout_length: PositiveInt = 2
    """Steps of each environment between updates. If equal to `policy_delay`, the critics take one step for each step of
    an environment."""

    @property
    def experience(self) -> Experience:
        return replay_experience(self, sequence_length=self.n_step, batches_per_update=self.policy_delay)


class TD3(AbstractDelayed):
    """Twin delayed deep deterministic policy gradient (Fujimoto et al., 2018).

    Bounded Box actions; vector, image and Dict observations.
    """

    def init(self, spec: EnvSpec, *, key: Array) -> TD3State:
        return deterministic_init(self, spec, key, critics=2)

    def update(self, state: TD3State, batch: Transition, *, key: Array) -> tuple[TD3State, Metrics]:
        """D steps of the critics, then one step of actor and targets, on D · N sequences of n steps, `[D, n, N]`."""
        return delayed_update(self, state, batch, key)


def deterministic_init(algorithm: AbstractDeterministic, spec: EnvSpec, key: Array, *, critics: int) -> TD3State:
    """Actor and critics before the first update."""
    actor_key, critics_key = jax.random.split(key)
    actor = algorithm.networks.deterministic_actor(spec, key=actor_key)
    ensemble = algorithm.networks.critics(spec, critics, key=critics_key)
    return TD3State(
        actor=Trained.of(actor, adam(algorithm.actor_learning_rate)),
        critics=Trained.of(ensemble, adam(algorithm.critic_learning_rate)),
        target_actor=target_of(actor),
        target_critics=target_of(ensemble),
        bounds=box_bounds(require_bounded_box(spec.action)),
    )


def delayed_update(
    algorithm: AbstractDelayed, state: TD3State, batch: Transition, key: Array, *, actor_loss: ActorLoss = policy_loss
) -> tuple[TD3State, Metrics]:
    """D steps of the critics, then one step of actor and targets, on D · N sequences of n steps, `[D, n, N]`. A variant
    passes its own `actor_loss`."""
    actor_optimizer = adam(delayed_rate(algorithm.actor_learning_rate, algorithm.policy_delay))

    def critic_step(critics: Trained[Critics], data: tuple[Transition, Array]) -> tuple[Trained[Critics], Metrics]:
        sequences, key = data
        obs, action = first_row(sequences)
        target = smooth_target(
            state, sequences, key,
            noise=algorithm.target_noise, clip=algorithm.target_noise_clip, discount=algorithm.discount,
        )  # fmt: skip
        optimizer = adam(algorithm.critic_learning_rate)
        return descend(td_loss, critics, optimizer, obs, action, target, name="critic_")

    keys = jax.random.split(key, algorithm.policy_delay)
    critics, critic_metrics = jax.lax.scan(critic_step, state.critics, (batch, keys))
    obs, action = first_row(jax.tree.map(lambda x: x[-1], batch))
    actor, actor_metrics = descend(actor_loss, state.actor, actor_optimizer, critics, obs, action, name="actor_")
    state = TD3State(
        actor=actor, critics=critics, target_actor=polyak(state.target_actor, actor.net, algorithm.tau),
        target_critics=polyak(state.target_critics, critics.net, algorithm.tau), bounds=state.bounds,
    )  # fmt: skip
    return state, {**join_steps(critic_metrics), **actor_metrics}
