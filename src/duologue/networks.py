"""Actors and critics, and the builders that an algorithm holds in its field `networks`.

An algorithm knows two pages of this file: `AbstractNetworks.actor_critic(spec, key=...)` builds, `AbstractActorCritic`
is what it builds. Your own networks are one subclass of each.
"""

from abc import abstractmethod
from typing import Literal, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from duologue.distributions import AbstractDistribution, Categorical, MultiCategorical, Normal
from duologue.encoders import MLP, AbstractEncoder, Dense, Init, Trunk, encoder
from duologue.errors import ConfigError
from duologue.fields import Configurable, PositiveInt
from duologue.types import ACTION_MASK, Box, Discrete, EnvSpec, MultiDiscrete, Obs, Space

Activation: TypeAlias = Literal["tanh", "relu", "elu", "silu"]
ACTIVATIONS = {"tanh": jnp.tanh, "relu": jax.nn.relu, "elu": jax.nn.elu, "silu": jax.nn.silu}

POLICY_SCALE = 0.01
"""Of the last policy layer: the first policy is near uniform, or near `centre` (OpenAI baselines)."""


class AbstractHead(eqx.Module):
    """Turns `size` network outputs into a distribution over actions in environment units."""

    @property
    @abstractmethod
    def size(self) -> int:
        """How many outputs of the network it reads."""

    @abstractmethod
    def __call__(self, outputs: Float[Array, "*batch size"], obs: Obs) -> AbstractDistribution:
        """The policy; `obs` is there for its action mask."""


class CategoricalHead(AbstractHead):
    """Logits, masked where the observation holds an action mask."""

    n: int = eqx.field(static=True)

    @property
    def size(self) -> int:
        return self.n

    def __call__(self, outputs: Float[Array, "*batch size"], obs: Obs) -> Categorical:
        return Categorical.masked(outputs, obs[ACTION_MASK]) if has_mask(obs) else Categorical(outputs)


class MultiCategoricalHead(AbstractHead):
    """Logits of every component side by side, as are their masks where the observation holds them."""

    nvec: tuple[int, ...] = eqx.field(static=True)

    @property
    def size(self) -> int:
        return sum(self.nvec)

    def __call__(self, outputs: Float[Array, "*batch size"], obs: Obs) -> MultiCategorical:
        if has_mask(obs):
            return MultiCategorical.masked(outputs, obs[ACTION_MASK], self.nvec)
        return MultiCategorical(outputs, self.nvec)


class NormalHead(AbstractHead):
    """μ = c + h · output,  σ = h · exp(log_std), with c and h of `scaled_normal` and one `log_std` for all states."""

    log_std: Float[Array, " d"]
    space: Box = eqx.field(static=True)

    @property
    def size(self) -> int:
        return self.space.size

    def __call__(self, outputs: Float[Array, "*batch size"], obs: Obs) -> Normal:
        return scaled_normal(self.space, outputs, jnp.broadcast_to(self.log_std, outputs.shape))


class StateDependentNormalHead(AbstractHead):
    """As `NormalHead`, with log_std = initial_log_std + the second half of the outputs."""

    initial_log_std: float = eqx.field(static=True)
    space: Box = eqx.field(static=True)

    @property
    def size(self) -> int:
        return 2 * self.space.size

    def __call__(self, outputs: Float[Array, "*batch size"], obs: Obs) -> Normal:
        loc, log_std = jnp.split(outputs, 2, axis=-1)
        return scaled_normal(self.space, loc, self.initial_log_std + log_std)


def scaled_normal(space: Box, loc: Float[Array, "*batch d"], log_std: Float[Array, "*batch d"]) -> Normal:
    """A normal in units of the box: 0 is its centre and ±1 its bounds. An unbounded box is taken as it is."""
    scale = jnp.exp(log_std)
    if space.low is None or space.high is None:
        return Normal(loc, scale)
    low, high = (jnp.broadcast_to(jnp.asarray(b, jnp.float32), loc.shape) for b in (space.low, space.high))
    centre, half_range = 0.5 * (high + low), 0.5 * (high - low)
    return Normal(centre + half_range * loc, half_range * scale)


def has_mask(obs: Obs) -> bool:
    return isinstance(obs, dict) and ACTION_MASK in obs


def policy_head(space: Space, *, state_dependent_std: bool, initial_log_std: float) -> AbstractHead:
    """The head of an action space; `ConfigError` unless that is Discrete, MultiDiscrete or a real Box of rank 1."""
    match space:
        case Discrete(n):
            return CategoricalHead(n)
        case MultiDiscrete(nvec):
            return MultiCategoricalHead(nvec)
        case Box((d,), dtype) if dtype.startswith("float"):
            if state_dependent_std:
                return StateDependentNormalHead(initial_log_std, space)
            return NormalHead(jnp.full(d, initial_log_std, jnp.float32), space)
    raise ConfigError(
        f"Action space {space} is not served: actions are Discrete, MultiDiscrete or a real Box of rank 1. "
        "Wrap the environment in gymnasium.wrappers.TransformAction to flatten or convert its actions."
    )


class AbstractActorCritic(eqx.Module):
    """A policy and a state value, for observations `[*batch, ...]`. Leaves are arrays, all of them trained."""

    @abstractmethod
    def policy(self, obs: Obs) -> AbstractDistribution:
        """π(· | obs), over actions in environment units."""

    @abstractmethod
    def value(self, obs: Obs) -> Float[Array, "*batch"]:
        """V(obs)."""

    def policy_and_value(self, obs: Obs) -> tuple[AbstractDistribution, Float[Array, "*batch"]]:
        """Both; override it where they share work."""
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


class SharedActorCritic(AbstractActorCritic):
    """One trunk with two linear layers on it."""

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
        features = self.trunk(self.encoder(obs))
        return self.head(self.actor(features), obs), self.critic(features)[..., 0]


class AbstractNetworks(Configurable):
    """Builds networks from the spec. For your own: subclass it, its fields are then hyperparameters of the run."""

    @abstractmethod
    def actor_critic(self, spec: EnvSpec, *, key: Array) -> AbstractActorCritic:
        """What on-policy algorithms train. Raises `ConfigError` for a space it cannot serve."""


class Networks(AbstractNetworks):
    """Dense layers after the encoder that the observation space asks for, for the actor and for the critic."""

    hidden_sizes: tuple[PositiveInt, ...] = (64, 64)
    """Units of each hidden layer, after the encoder of the observation space."""
    activation: Activation = "tanh"
    """Nonlinearity of the hidden layers."""
    init: Init = "orthogonal"
    """Initial weights: orthogonal (gain sqrt 2) or LeCun normal; biases are 0."""
    shared_trunk: bool = False
    """One encoder and trunk for both, with a linear layer each, instead of two networks."""
    state_dependent_std: bool = False
    """Box actions: let log σ depend on the observation instead of being one parameter for each action dimension."""
    initial_log_std: float = 0.0
    """Box actions: initial log σ, in half-ranges of a bounded box."""

    def actor_critic(self, spec: EnvSpec, *, key: Array) -> SeparateActorCritic | SharedActorCritic:
        keys = jax.random.split(key, 4)
        head = policy_head(
            spec.action, state_dependent_std=self.state_dependent_std, initial_log_std=self.initial_log_std
        )
        actor_encoder = encoder(spec.observation, init=self.init, key=keys[0])
        sizes, activation = (actor_encoder.size, *self.hidden_sizes), ACTIVATIONS[self.activation]
        if self.shared_trunk:
            return SharedActorCritic(
                encoder=actor_encoder,
                trunk=Trunk(sizes, activation=activation, init=self.init, key=keys[1]),
                actor=Dense(sizes[-1], head.size, scale=POLICY_SCALE, init=self.init, key=keys[2]),
                head=head,
                critic=Dense(sizes[-1], 1, scale=1.0, init=self.init, key=keys[3]),
            )
        actor = MLP((*sizes, head.size), activation=activation, output_scale=POLICY_SCALE, init=self.init, key=keys[2])
        return SeparateActorCritic(
            actor_encoder=actor_encoder,
            actor=actor,
            head=head,
            critic_encoder=encoder(spec.observation, init=self.init, key=keys[1]),
            critic=MLP((*sizes, 1), activation=activation, init=self.init, key=keys[3]),
        )
