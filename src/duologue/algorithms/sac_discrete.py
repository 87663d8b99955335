"""SAC for discrete actions.

Christodoulou (2019), *Soft Actor-Critic for Discrete Action Settings*, arXiv:1910.07207: the expectations over actions
that SAC samples are sums here. The rest is SAC.
"""

from collections.abc import Callable
from typing import TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from duologue.algorithms.base import AbstractAlgorithm, replayed
from duologue.critics import of_action
from duologue.distributions import Categorical
from duologue.fields import Fraction, NonNegativeInt, PositiveInt
from duologue.heads import largest_entropy
from duologue.networks import AbstractNetworks, Networks
from duologue.optim import Adam, LearningRate, gradient_step, polyak
from duologue.returns import first_row, n_step_target
from duologue.statistics import described
from duologue.temperature import Fixed, Learned
from duologue.types import EnvSpec, Experience, Metrics, Obs, PyTree, Transition

Actor: TypeAlias = Callable[[Obs], Categorical]
Critics: TypeAlias = Callable[[Obs], Array]


class SACDiscreteState(eqx.Module):
    actor: Actor
    critics: Critics
    target_critics: Critics
    temperature: PyTree
    actor_opt: PyTree
    critic_opt: PyTree


def soft_value(q: Float[Array, "E ..."], policy: Categorical, alpha: Float[Array, ""]) -> Array:
    """V(s) = Σₐ π(a|s) [minᵢ Qᵢ(s, a) − α log π(a|s)] (eq. 10); a masked action weighs nothing."""
    return jnp.sum(policy.probs * jnp.min(q, axis=0), axis=-1) + alpha * policy.entropy()


def critic_loss(
    critics: Critics, obs: Obs, action: Int[Array, " N"], target: Float[Array, " N"]
) -> tuple[Float[Array, ""], Metrics]:
    """J_Q = Σᵢ E[½ (Qᵢ(s, a) − y)²]."""
    q = of_action(critics(obs), action)
    loss = jnp.sum(jnp.mean(0.5 * (q - target[None]) ** 2, axis=-1))
    return loss, {"critic_loss": loss, **described("q", q)}


def actor_loss(
    actor: Actor, q: Float[Array, "E N n"], alpha: Float[Array, ""], obs: Obs
) -> tuple[Float[Array, ""], Metrics]:
    """J_π = −E[V(s)], exact over actions (eq. 12)."""
    policy = actor(obs)
    loss = -jnp.mean(soft_value(q, policy, alpha))
    return loss, {"actor_loss": loss, **described("entropy", policy.entropy())}


class SACDiscrete(AbstractAlgorithm[SACDiscreteState]):
    """Soft actor-critic with sums over discrete actions (Christodoulou, 2019).

    Discrete actions; vector, image and Dict observations, action masks.
    """

    actor_learning_rate: LearningRate = 3e-4
    """η of the actor, a number or a `Linear` schedule."""
    critic_learning_rate: LearningRate = 3e-4
    """η of the critics."""
    alpha: Learned | Fixed = Learned()
    """α, weight of the entropy: `Learned` or `Fixed`."""
    target_entropy_fraction: Fraction = 0.98
    """Of the largest entropy, log |A| with |A| what a mask allows: H̄ that a learned α keeps the policy's entropy at."""
    discount: Fraction = 0.99
    """γ."""
    tau: Fraction = 0.005
    """τ, how far the target critics follow at each update."""
    n_step: PositiveInt = 1
    """Rewards in a target before it bootstraps; above 1 without the entropies between them, and without a correction
    for what the policy would do now."""
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

    @property
    def experience(self) -> Experience:
        return replayed(self)

    def init(self, spec: EnvSpec, *, key: Array) -> SACDiscreteState:
        of_actor, of_critics = jax.random.split(key)
        actor = self.networks.categorical_actor(spec, key=of_actor)
        critics = self.networks.critics(spec, 2, key=of_critics)
        actor_opt = Adam().build(self.actor_learning_rate).init(actor)  # pyright: ignore[reportArgumentType]
        critic_opt = Adam().build(self.critic_learning_rate).init(critics)  # pyright: ignore[reportArgumentType]
        target = jax.tree.map(jnp.copy, critics)  # a donated buffer stands in a tree only once
        return SACDiscreteState(actor, critics, target, self.alpha.init(), actor_opt, critic_opt)

    def act(
        self, state: SACDiscreteState, carry: None, obs: Obs, *, key: Array, explore: bool
    ) -> tuple[Array, dict[str, Array], None]:
        policy = state.actor(obs)
        return policy.sample(key) if explore else policy.mode(), {}, carry

    def log_prob(self, state: SACDiscreteState, obs: Obs, action: Array) -> Array:
        return state.actor(obs).log_prob(action)

    def q(self, state: SACDiscreteState, obs: Obs, action: Array) -> Array:
        return of_action(state.critics(obs), action)

    def update(self, state: SACDiscreteState, batch: Transition, *, key: Array) -> tuple[SACDiscreteState, Metrics]:
        """One step of critics, actor and temperature, in this order, on sequences `[n, N]`. Nothing is sampled."""
        alpha = self.alpha.alpha(state.temperature)

        next_value = soft_value(state.target_critics(batch.next_obs), state.actor(batch.next_obs), alpha)
        target = n_step_target(batch, next_value, self.discount)

        obs, action = first_row(batch)
        critics, critic_opt, of_critics = gradient_step(
            critic_loss, state.critics, state.critic_opt, Adam().build(self.critic_learning_rate),
            obs, action, target, name="critic_",
        )  # fmt: skip
        q = critics(obs)
        actor, actor_opt, of_actor = gradient_step(
            actor_loss, state.actor, state.actor_opt, Adam().build(self.actor_learning_rate), q, alpha, obs,
            name="actor_",
        )  # fmt: skip
        target_entropy = self.target_entropy_fraction * largest_entropy(obs, q.shape[-1])
        temperature, of_alpha = self.alpha.update(state.temperature, target_entropy - of_actor["entropy_mean"])
        target_critics = polyak(state.target_critics, critics, self.tau)
        metrics = {**of_critics, **of_actor, **of_alpha, "alpha": alpha}
        return SACDiscreteState(actor, critics, target_critics, temperature, actor_opt, critic_opt), metrics
