"""A2C, the synchronous advantage actor-critic.

Mnih et al. (2016), *Asynchronous Methods for Deep Reinforcement Learning*, without the asynchrony. B actors step
together and wait for each other. Then one update learns from their T × B transitions. The policy that acts is the
policy that is trained.
"""

from functools import partial
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from duologue.algorithms.families import AbstractOnPolicy
from duologue.fields import Fraction, NonNegative, Positive, PositiveInt
from duologue.networks.builder import AbstractActorCritic, AbstractNetworks, Networks
from duologue.ops.distributions import AbstractDistribution
from duologue.ops.optim import Adam, LearningRate, RMSProp, Trained, descend, flat_optimizer
from duologue.ops.returns import gae, scale_and_clip, vmap_envs
from duologue.ops.statistics import explained_variance
from duologue.types import EnvSpec, Metrics, Obs, Transition


class A2CState(eqx.Module):
    networks: Trained[AbstractActorCritic]


def actor_loss(log_prob: Float[Array, "T B"], advantage: Float[Array, "T B"]) -> Float[Array, ""]:
    """L_π = −E[log π(aₜ|sₜ) Âₜ]. With Âₜ constant, its gradient is the policy gradient."""
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
    """L = L_π + c_V L_V − c_H E[H(π(·|sₜ))]; `advantage` and `target` are constants."""
    policy, value = networks.policy_and_value(obs)
    actor, critic = actor_loss(policy.log_prob(action), advantage), value_loss(value, target)
    entropy = jnp.mean(policy.entropy())
    total = actor + value_coefficient * critic - entropy_coefficient * entropy
    return total, {"actor_loss": actor, "value_loss": critic, "entropy": entropy, "value": jnp.mean(value)}


class A2C(AbstractOnPolicy[A2CState]):
    """Synchronous advantage actor-critic (Mnih et al., 2016), with the coefficients of OpenAI Baselines.

    Discrete, MultiDiscrete and Box actions; vector, image and Dict observations.
    """

    learning_rate: LearningRate = 7e-4
    """Learning rate of actor and critic (η), a number or a `Linear` schedule."""
    lambda_: Fraction = 1.0
    """Decay of generalised advantage estimation (λ). λ = 1: the n-step return of the whole rollout, as in the
    paper."""
    rollout_length: PositiveInt = 5
    """Steps of each environment between two updates (T, the paper's t_max)."""
    num_envs: PositiveInt = 8
    """Environments that step together, one for each actor of the paper (B)."""
    value_coefficient: NonNegative = 0.5
    """Weight of the critic's loss (c_V)."""
    entropy_coefficient: NonNegative = 0.01
    """Weight of the entropy bonus (c_H, the paper's β)."""
    max_gradient_norm: Positive | None = 0.5
    """Largest global norm of the gradient over actor and critic together. None: no clip."""
    optimizer: RMSProp | Adam = RMSProp()
    """Optimiser of actor and critic together."""
    networks: AbstractNetworks = Networks()
    """Builder of actor and critic: `Networks`, or an object of your own."""

    @property
    def _optimizer(self) -> optax.GradientTransformation:
        return flat_optimizer(self.optimizer, self.learning_rate, max_norm=self.max_gradient_norm)

    def init(self, spec: EnvSpec, *, key: Array) -> A2CState:
        return A2CState(Trained.of(self.networks.actor_critic(spec, key=key), self._optimizer))

    def policy(self, state: A2CState, obs: Obs) -> AbstractDistribution:
        return state.networks.net.policy(obs)

    def v(self, state: A2CState, obs: Obs) -> Array:
        return state.networks.net.value(obs)

    def update(self, state: A2CState, batch: Transition, *, key: Array) -> tuple[A2CState, Metrics]:
        """One gradient step on a rollout `[T, B]`."""
        reward = scale_and_clip(batch.reward, scale=self.reward_scale, clip=self.reward_clip)
        # Compute the targets before the step below changes the parameters that acted.
        advantage, target, value = targets(
            state.networks.net, batch, reward, discount=self.discount, lambda_=self.lambda_
        )
        weighted = partial(loss, value_coefficient=self.value_coefficient, entropy_coefficient=self.entropy_coefficient)
        networks, metrics = descend(
            weighted, state.networks, self._optimizer, batch.obs, batch.action, advantage, target
        )
        metrics["explained_variance"] = explained_variance(value, target)
        return A2CState(networks), metrics


class Samples(NamedTuple):
    """Steps `[N]` of a rollout, with the estimates of the networks that acted."""

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
    """Flatten a rollout `[T, B]` to N = T · B steps, for algorithms that learn several times from one rollout (PPO,
    TRPO). All estimates come from the parameters that acted."""
    advantage, target, value = targets(networks, batch, reward, discount=discount, lambda_=lambda_)
    old = networks.policy(batch.obs)
    rollout = Samples(
        batch.obs, batch.action, old=old, log_prob=old.log_prob(batch.action),
        advantage=advantage, target=target, value=value,
    )  # fmt: skip
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), rollout)
