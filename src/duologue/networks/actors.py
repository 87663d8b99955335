"""Actor networks, alone and together with a critic."""

from abc import abstractmethod
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from duologue.networks.encoders import AbstractEncoder
from duologue.networks.heads import AbstractHead, SquashedNormalHead, TanhHead, to_unit
from duologue.networks.layers import MLP, Dense, Trunk, join_features
from duologue.ops.distributions import AbstractDistribution, Categorical
from duologue.types import Box, Obs


class AbstractActorCritic(eqx.Module):
    """A policy and a state value, for observations `[*batch, ...]`. All leaves are arrays, and all are trained."""

    @abstractmethod
    def policy(self, obs: Obs) -> AbstractDistribution:
        """π(· | obs), over actions in environment units."""

    @abstractmethod
    def value(self, obs: Obs) -> Float[Array, "*batch"]:
        """V(obs)."""

    def policy_and_value(self, obs: Obs) -> tuple[AbstractDistribution, Float[Array, "*batch"]]:
        """π(· | obs) and V(obs). Override this if policy and value share layers."""
        return self.policy(obs), self.value(obs)


class SeparateActorCritic(AbstractActorCritic):
    """Two networks without a common parameter."""

    actor_encoder: AbstractEncoder
    actor: MLP
    head: AbstractHead
    critic_encoder: AbstractEncoder
    critic: MLP

    def policy(self, obs: Obs) -> AbstractDistribution:
        return self.head(self.actor(self.actor_encoder(obs)), obs)

    def value(self, obs: Obs) -> Float[Array, "*batch"]:
        return self.critic(self.critic_encoder(obs))[..., 0]

    def policy_and_values(self, obs: Obs) -> tuple[AbstractDistribution, Float[Array, "*batch n"]]:
        """π(· | obs), and all outputs of the critic."""
        return self.policy(obs), self.critic(self.critic_encoder(obs))


class SharedActorCritic(AbstractActorCritic):
    """One trunk, with a linear layer for the actor and one for the critic."""

    encoder: AbstractEncoder
    trunk: Trunk
    actor: Dense
    head: AbstractHead
    critic: Dense

    def policy(self, obs: Obs) -> AbstractDistribution:
        return self.policy_and_value(obs)[0]

    def value(self, obs: Obs) -> Float[Array, "*batch"]:
        return self.policy_and_value(obs)[1]

    def policy_and_value(self, obs: Obs) -> tuple[AbstractDistribution, Float[Array, "*batch"]]:
        policy, values = self.policy_and_values(obs)
        return policy, values[..., 0]

    def policy_and_values(self, obs: Obs) -> tuple[AbstractDistribution, Float[Array, "*batch n"]]:
        """π(· | obs), and all outputs of the critic."""
        features = self.trunk(self.encoder(obs))
        return self.head(self.actor(features), obs), self.critic(features)


class ActorQ(eqx.Module):
    """A policy and Q(s, ·) of discrete actions: an actor-critic whose critic has an output for each action."""

    network: SeparateActorCritic | SharedActorCritic

    def policy(self, obs: Obs) -> Categorical:
        """π(· | obs)."""
        return self.network.policy(obs)  # pyright: ignore[reportReturnType]

    def policy_and_q(self, obs: Obs) -> tuple[Categorical, Float[Array, "*batch n"]]:
        """π(· | obs) and Q(obs, ·)."""
        return self.network.policy_and_values(obs)  # pyright: ignore[reportReturnType]


class MLPActor(eqx.Module):
    """An encoder, dense layers and a head. It returns what the head returns: a distribution, or the action itself."""

    encoder: AbstractEncoder
    mlp: MLP
    head: AbstractHead | SquashedNormalHead | TanhHead

    def __call__(self, obs: Obs) -> Any:
        return self.head(self.mlp(self.encoder(obs)), obs)


class PerturbationNetwork(eqx.Module):
    """ξ(s, a) in [−1, 1], a correction of each action. A state has one action, or several, `[n, *batch, d]`."""

    encoder: AbstractEncoder
    mlp: MLP
    space: Box = eqx.field(static=True)

    def __call__(self, obs: Obs, action: Float[Array, "*batch d"]) -> Float[Array, "*batch d"]:
        return jnp.tanh(self.mlp(join_features(self.encoder(obs), to_unit(self.space, action))))
