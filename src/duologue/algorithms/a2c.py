"""A2C, the synchronous advantage actor-critic.

Mnih et al. (2016), *Asynchronous Methods for Deep Reinforcement Learning*, without the asynchrony: B actors step
together, wait for each other, and one update follows from their T × B transitions. The policy that acts is the policy
that is trained.
"""

from typing import Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from duologue.algorithms.base import AbstractAlgorithm
from duologue.fields import Fraction, NonNegative, Positive, PositiveInt
from duologue.networks.builder import AbstractActorCritic, AbstractNetworks, Networks
from duologue.ops.distributions import AbstractDistribution
from duologue.ops.optim import Adam, LearningRate, RMSProp, flat_optimizer, gradient_step, opt_init
from duologue.ops.returns import gae, scale_and_clip, vmap_envs
from duologue.ops.statistics import explained_variance
from duologue.types import EnvSpec, Experience, Metrics, Obs, PyTree, Transition


class A2CState(eqx.Module):
    networks: AbstractActorCritic
    opt_state: PyTree


def actor_loss(log_prob: Float[Array, "T B"], advantage: Float[Array, "T B"]) -> Float[Array, ""]:
    """L_π = −E[log π(aₜ|sₜ) Âₜ], whose gradient is the policy gradient with Âₜ held constant."""
    return -jnp.mean(log_prob * advantage)


def value_loss(value: Float[Array, "*batch"], target: Float[Array, "*batch"]) -> Float[Array, ""]:
    """L_V = E[(Gₜ − V(sₜ))²]."""
    return jnp.mean((target - value) ** 2)


def targets(
    networks: AbstractActorCritic, batch: Transition, reward: Float[Array, "T B"], *, discount: float, lambda_: float
) -> tuple[Float[Array, "T B"], Float[Array, "T B"], Float[Array, "T B"]]:
    """Âₜ, Gₜ = Âₜ + V(sₜ), and V(sₜ) of a rollout, all from one set of parameters."""
    value, next_value = networks.value(batch.obs), networks.value(batch.next_obs)
    advantage = vmap_envs(gae)(
        reward, value, next_value, batch.terminated, batch.truncated, discount=discount, lambda_=lambda_
    )
    return advantage, advantage + value, value


def loss(
    networks: AbstractActorCritic, obs: Obs, action: Array, advantage: Float[Array, "T B"], target: Float[Array, "T B"],
    *, value_coefficient: float, entropy_coefficient: float,
) -> tuple[Float[Array, ""], Metrics]:  # fmt: skip
    """L = L_π + c_V L_V − c_H E[H(π(·|sₜ))]; `advantage` and `target` are data here."""
    policy, value = networks.policy_and_value(obs)
    actor, critic = actor_loss(policy.log_prob(action), advantage), value_loss(value, target)
    entropy = jnp.mean(policy.entropy())
    total = actor + value_coefficient * critic - entropy_coefficient * entropy
    return total, {"actor_loss": actor, "value_loss": critic, "entropy": entropy, "value": jnp.mean(value)}


class A2C(AbstractAlgorithm[A2CState]):
    """Synchronous advantage actor-critic (Mnih et al., 2016), with the coefficients of OpenAI Baselines.

    Discrete, MultiDiscrete and Box actions; vector, image and Dict observations.
    """

    learning_rate: LearningRate = 7e-4
    """η, a number or a `Linear` schedule."""
    discount: Fraction = 0.99
    """γ."""
    lambda_: Fraction = 1.0
    """λ of generalised advantage estimation; 1 is the n-step return of the whole rollout, as in the paper."""
    rollout_length: PositiveInt = 5
    """T, steps of each environment between two updates (the paper's t_max)."""
    num_envs: PositiveInt = 8
    """B, actors that step together."""
    value_coefficient: NonNegative = 0.5
    """c_V, weight of the critic's loss."""
    entropy_coefficient: NonNegative = 0.01
    """c_H, weight of the entropy bonus (the paper's β)."""
    max_gradient_norm: Positive | None = 0.5
    """Clip of the gradient's global norm over actor and critic together; None for no clip."""
    optimizer: RMSProp | Adam = RMSProp()
    """The optimiser of actor and critic together."""
    networks: AbstractNetworks = Networks()
    """Builds actor and critic: `Networks`, or an object of your own."""
    reward_scale: Positive = 1.0
    """Rewards are multiplied by this before learning; returns are logged as they came."""
    reward_clip: Positive | None = None
    """Then clipped to ± this for learning; None for no clip."""
    test_policy: Literal["greedy", "sampled"] = "greedy"
    """How an evaluated agent acts: the mode of π, or a sample of it as in training."""

    @property
    def experience(self) -> Experience:
        return Experience(num_envs=self.num_envs, rollout_length=self.rollout_length)

    @property
    def _optimizer(self) -> optax.GradientTransformation:
        return flat_optimizer(self.optimizer, self.learning_rate, max_norm=self.max_gradient_norm)

    def init(self, spec: EnvSpec, *, key: Array) -> A2CState:
        networks = self.networks.actor_critic(spec, key=key)
        return A2CState(networks=networks, opt_state=opt_init(self._optimizer, networks))

    def act(
        self, state: A2CState, carry: None, obs: Obs, *, key: Array, explore: bool
    ) -> tuple[Array, dict[str, Array], None]:
        policy = state.networks.policy(obs)
        action = policy.sample(key) if explore or self.test_policy == "sampled" else policy.mode()
        return action, {}, carry

    def log_prob(self, state: A2CState, obs: Obs, action: Array) -> Array:
        return state.networks.policy(obs).log_prob(action)

    def v(self, state: A2CState, obs: Obs) -> Array:
        return state.networks.value(obs)

    def update(self, state: A2CState, batch: Transition, *, key: Array) -> tuple[A2CState, Metrics]:
        """One gradient step on a rollout `[T, B]`."""
        reward = scale_and_clip(batch.reward, scale=self.reward_scale, clip=self.reward_clip)
        # Targets come from the parameters that acted, before the step below moves them.
        advantage, target, value = targets(state.networks, batch, reward, discount=self.discount, lambda_=self.lambda_)
        networks, opt_state, metrics = gradient_step(
            lambda networks: loss(
                networks, batch.obs, batch.action, advantage, target,
                value_coefficient=self.value_coefficient, entropy_coefficient=self.entropy_coefficient,
            ),
            state.networks, state.opt_state, self._optimizer,
        )  # fmt: skip
        metrics["explained_variance"] = explained_variance(value, target)
        return A2CState(networks=networks, opt_state=opt_state), metrics


class Samples(NamedTuple):
    """Of each step `[N]`: facts, and what the policy that acted thought of them."""

    obs: Obs
    action: Array
    old: AbstractDistribution
    log_prob: Float[Array, " N"]
    advantage: Float[Array, " N"]
    target: Float[Array, " N"]
    value: Float[Array, " N"]


def samples_of(
    networks: AbstractActorCritic, batch: Transition, reward: Float[Array, "T B"], *, discount: float, lambda_: float
) -> Samples:
    """The steps of a rollout `[T, B]` in one row, for algorithms that learn from it more than once (PPO, TRPO): what
    does not move with their steps, all from the parameters that acted."""
    advantage, target, value = targets(networks, batch, reward, discount=discount, lambda_=lambda_)
    old = networks.policy(batch.obs)
    rollout = Samples(
        batch.obs, batch.action, old=old, log_prob=old.log_prob(batch.action),
        advantage=advantage, target=target, value=value,
    )  # fmt: skip
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), rollout)
