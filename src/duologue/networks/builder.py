"""Builders of actors and critics. The field `networks` of an algorithm holds a builder.

An algorithm uses only the methods of `AbstractNetworks` and their results: for A2C an `AbstractActorCritic`, for SAC
functions of observations and actions. To use your own networks, write a subclass of `AbstractNetworks`.
"""

from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array

from duologue.errors import ConfigError
from duologue.fields import Configurable, NonNegative, PositiveInt
from duologue.images import Channels
from duologue.networks.actors import AbstractActorCritic as AbstractActorCritic
from duologue.networks.actors import ActorQ as ActorQ
from duologue.networks.actors import MLPActor, PerturbationNetwork, SeparateActorCritic, SharedActorCritic
from duologue.networks.critics import ActionValue, ActionValues, Ensemble, StateValue
from duologue.networks.encoders import AbstractEncoder, has_cnn, is_cnn, make_encoder
from duologue.networks.heads import (
    AbstractHead,
    CategoricalHead,
    SquashedNormalHead,
    TanhHead,
    policy_head,
    require_bounded_box,
    require_discrete,
)  # fmt: skip
from duologue.networks.layers import MLP, Dense, Init, Trunk
from duologue.networks.multitask import Intentions, TaskValue, TaskValues
from duologue.networks.vae import VAE
from duologue.ops.distributions import AbstractDistribution, Categorical, Normal, TanhNormal
from duologue.types import Box, Discrete, EnvSpec, Obs

Activation: TypeAlias = Literal["tanh", "relu", "elu", "silu"]
ACTIVATIONS = {"tanh": jnp.tanh, "relu": jax.nn.relu, "elu": jax.nn.elu, "silu": jax.nn.silu}


class AbstractNetworks(Configurable):
    """Builds networks from the spec of an environment.

    A subclass of your own needs only the methods that the algorithm calls; its fields are hyperparameters of the run.
    Each method raises `ConfigError` for a space that it does not support.
    """

    def actor_critic(self, spec: EnvSpec, *, key: Array) -> AbstractActorCritic:
        """A policy and a state value, which on-policy algorithms train."""
        raise self._lacks("actor_critic")

    def policy(self, spec: EnvSpec, *, key: Array) -> Callable[[Obs], AbstractDistribution]:
        """π(·|s) over actions of any space, not squashed."""
        raise self._lacks("policy")

    def squashed_actor(self, spec: EnvSpec, *, key: Array) -> Callable[[Obs], TanhNormal]:
        """π(·|s) inside a bounded box."""
        raise self._lacks("squashed_actor")

    def deterministic_actor(self, spec: EnvSpec, *, key: Array) -> Callable[[Obs], Array]:
        """μ(s) inside a bounded box."""
        raise self._lacks("deterministic_actor")

    def categorical_actor(self, spec: EnvSpec, *, key: Array) -> Callable[[Obs], Categorical]:
        """π(·|s) over discrete actions."""
        raise self._lacks("categorical_actor")

    def actor_q(self, spec: EnvSpec, *, key: Array) -> ActorQ:
        """π(·|s) and Q(s, ·) of discrete actions."""
        raise self._lacks("actor_q")

    def normal_actor(self, spec: EnvSpec, *, key: Array) -> Callable[[Obs], Normal]:
        """π(·|s) over a box, not squashed."""
        raise self._lacks("normal_actor")

    def critics(self, spec: EnvSpec, members: int, *, key: Array) -> Callable[..., Array]:
        """Qᵢ(s, a) `[E, *batch]` for a box, Qᵢ(s, ·) `[E, *batch, n]` for discrete actions, E = `members`. BCQ, BEAR
        and CQL pass several actions of each state, `[n, *batch, d]`, and get `[E, n, *batch]`."""
        raise self._lacks("critics")

    def state_value(self, spec: EnvSpec, *, key: Array) -> Callable[[Obs], Array]:
        """V(s)."""
        raise self._lacks("state_value")

    def vae(self, spec: EnvSpec, *, key: Array) -> VAE:
        """A generative model of the actions in the data, for a bounded box."""
        raise self._lacks("vae")

    def perturbation(self, spec: EnvSpec, *, key: Array) -> Callable[[Obs, Array], Array]:
        """ξ(s, a) in [−1, 1], for actions in a bounded box. A state may have several actions, `[n, *batch, d]`."""
        raise self._lacks("perturbation")

    def intentions(self, spec: EnvSpec, *, key: Array) -> Intentions:
        """πᵢ(·|s) of each task of the spec. A call returns distributions `[K, *batch]`; `.task_policy(obs, task)`
        returns the policy of one task for each of N observations."""
        raise self._lacks("intentions")

    def task_values(self, spec: EnvSpec, *, key: Array) -> TaskValue | TaskValues:
        """Qᵢ of each task of the spec. For discrete actions, obs → `[K, *batch, n]`; else (obs, action) → `[K,
        *batch]`, and `.own_values` takes an action for each task."""
        raise self._lacks("task_values")

    def _lacks(self, method: str) -> ConfigError:
        return ConfigError(
            f"{type(self).__name__} has no method {method}, with which this algorithm builds its networks. Write this "
            "method."
        )


class Networks(AbstractNetworks):
    """An encoder for the observation space, then dense layers, for every actor and critic.

    By default the observation decides, as in OpenAI Baselines and Stable-Baselines3: behind a CNN, which ends in a
    dense layer of its own, there are no hidden layers; and actor and critic share the CNN if the algorithm supports it.
    """

    hidden_sizes: tuple[PositiveInt, ...] | None = None
    """Units of each hidden layer, after the encoder of the observation space. None: `vector_sizes`, but no hidden
    layers where outputs read one image and nothing else. Q(s, a) also reads an action, and only hidden layers combine
    it with the image; the same holds for other parts of a Dict."""
    activation: Activation = "tanh"
    """Nonlinearity of the hidden layers."""
    init: Init = "orthogonal"
    """Initial weights: orthogonal (gain sqrt 2) or LeCun normal, both with biases of 0; or PyTorch's, where weights and
    biases are uniform in ±1/sqrt(inputs), with a third of LeCun's variance."""
    layer_norm: bool = False
    """Layer normalisation of each hidden layer, before its nonlinearity (Ba et al., 2016)."""
    shared_trunk: bool | None = None
    """Whether actor and critic share encoder and hidden layers; each has its own linear output. A2C, PPO, ACER and
    discrete BCQ support this. For all other algorithms True is an error. None: they share where an image is observed
    and the algorithm supports it."""
    state_dependent_std: bool | None = None
    """Box actions: whether log σ depends on the observation. If not, log σ is one parameter for each action dimension.
    None: as in the papers, true for the squashed policies of SAC, false for on-policy methods."""
    initial_log_std: float = 0.0
    """Box actions: initial log σ, in half-ranges of a bounded box. For squashed policies such as SAC's, σ is that of
    the raw action, before tanh. Deterministic actors and IQL do not use this value; IQL begins at σ = 1 half-range."""
    channels: Channels = None
    """Axis of the channels in images of three axes, and in each frame of a stack of such images: first or last; "none":
    arrays are vectors, not images. None: the shape decides, and the run tells how it reads the axes."""
    policy_scale: NonNegative = 0.01
    """Scale of the initial weights of the last policy layer. A small scale makes the first policy nearly uniform, or
    nearly the middle of the box (OpenAI baselines). 1 is the scale of other layers, as in SAC, SACv1, TD3, DDPG and
    IQL."""
    vector_sizes: tuple[PositiveInt, ...] = (64, 64)
    """Units of each hidden layer if `hidden_sizes` is None, except where outputs read one image and nothing else."""

    @property
    def behind_vectors(self) -> tuple[int, ...]:
        """Units of each hidden layer behind vectors."""
        return self.vector_sizes if self.hidden_sizes is None else self.hidden_sizes

    def actor_critic(self, spec: EnvSpec, *, key: Array) -> SeparateActorCritic | SharedActorCritic:
        return self._actor_critic(spec, values=1, key=key)

    def actor_q(self, spec: EnvSpec, *, key: Array) -> ActorQ:
        return ActorQ(self._actor_critic(spec, values=require_discrete(spec.action).n, key=key))

    def _actor_critic(self, spec: EnvSpec, *, values: int, key: Array) -> SeparateActorCritic | SharedActorCritic:
        keys = jax.random.split(key, 4)
        head = self._head(spec)
        actor_encoder = self._encoder(spec, key=keys[0])
        sizes = (actor_encoder.size, *self._hidden(actor_encoder))
        if has_cnn(actor_encoder) if self.shared_trunk is None else self.shared_trunk:
            return SharedActorCritic(
                encoder=actor_encoder,
                trunk=Trunk(sizes, key=keys[1], **self._layer),
                actor=Dense(sizes[-1], head.size, scale=self.policy_scale, init=self.init, key=keys[2]),
                head=head,
                critic=Dense(sizes[-1], values, scale=1.0, init=self.init, key=keys[3]),
            )
        return SeparateActorCritic(
            actor_encoder=actor_encoder,
            actor=MLP((*sizes, head.size), output_scale=self.policy_scale, key=keys[2], **self._layer),
            head=head,
            critic_encoder=self._encoder(spec, key=keys[1]),
            critic=MLP((*sizes, values), key=keys[3], **self._layer),
        )

    def policy(self, spec: EnvSpec, *, key: Array) -> MLPActor:
        return self._policy(spec, self._head(spec), key=key)

    def squashed_actor(self, spec: EnvSpec, *, key: Array) -> MLPActor:
        return self._policy(spec, self._squashed(require_bounded_box(spec.action)), key=key)

    def deterministic_actor(self, spec: EnvSpec, *, key: Array) -> MLPActor:
        self._check_one_std()
        return self._policy(spec, TanhHead(require_bounded_box(spec.action)), key=key)

    def normal_actor(self, spec: EnvSpec, *, key: Array) -> MLPActor:
        self._check_one_std()
        space = require_bounded_box(spec.action)
        head = policy_head(space, state_dependent_std=False, initial_log_std=self.initial_log_std)
        return self._policy(spec, head, key=key)

    def categorical_actor(self, spec: EnvSpec, *, key: Array) -> MLPActor:
        return self._policy(spec, CategoricalHead(require_discrete(spec.action).n), key=key)

    def critics(self, spec: EnvSpec, members: int, *, key: Array) -> Ensemble:
        def build(key: Array) -> ActionValue | ActionValues:
            match spec.action:
                case Discrete(n):
                    return ActionValues(*self._layers(spec, outputs=n, key=key))
                case _:
                    space = require_bounded_box(spec.action)
                    return ActionValue(*self._layers(spec, inputs=space.size, outputs=1, key=key), space)

        return Ensemble.create(build, members, key=key)

    def state_value(self, spec: EnvSpec, *, key: Array) -> StateValue:
        return StateValue(*self._layers(spec, outputs=1, key=key))

    def vae(self, spec: EnvSpec, *, key: Array) -> VAE:
        space, keys = require_bounded_box(spec.action), jax.random.split(key)
        latent = 2 * space.size
        inference = self._layers(spec, inputs=space.size, outputs=2 * latent, key=keys[0])
        generator = self._layers(spec, inputs=latent, outputs=space.size, key=keys[1])
        return VAE(*inference, *generator, space, latent)

    def perturbation(self, spec: EnvSpec, *, key: Array) -> PerturbationNetwork:
        space = require_bounded_box(spec.action)
        return PerturbationNetwork(*self._layers(spec, inputs=space.size, outputs=space.size, key=key), space)

    def intentions(self, spec: EnvSpec, *, key: Array) -> Intentions:
        """Each task has its own last hidden layer. All tasks share the other layers."""
        match spec.action:
            case Discrete(n):
                head = CategoricalHead(n)
            case _ if self.state_dependent_std is False:
                raise ConfigError(
                    "networks.state_dependent_std = False: must be True or None, because each task has its own σ. "
                    "Leave it out."
                )
            case _:
                head = self._squashed(require_bounded_box(spec.action))
        return Intentions(*self._heads(spec, outputs=head.size, output_scale=self.policy_scale, key=key), head)

    def task_values(self, spec: EnvSpec, *, key: Array) -> TaskValue | TaskValues:
        """Each task has its own last hidden layer. All tasks share the other layers."""
        match spec.action:
            case Discrete(n):
                return TaskValues(*self._heads(spec, outputs=n, key=key))
            case _:
                space = require_bounded_box(spec.action)
                return TaskValue(*self._heads(spec, inputs=space.size, outputs=1, key=key), space)

    def _heads(
        self, spec: EnvSpec, *, inputs: int = 0, outputs: int, output_scale: float = 1.0, key: Array
    ) -> tuple[AbstractEncoder, Trunk, Ensemble]:
        """An encoder, a trunk that reads its features and `inputs` more numbers, and a head for each task."""
        self._check_apart()
        keys = jax.random.split(key, 3)
        reads = self._encoder(spec, key=keys[0])
        sizes = (reads.size + inputs, *self._hidden(reads, inputs))
        own = lambda key: MLP((*sizes[-2:], outputs), output_scale=output_scale, key=key, **self._layer)  # noqa: E731
        trunk = Trunk(sizes[:-1] or sizes, key=keys[1], **self._layer)
        return reads, trunk, Ensemble.create(own, len(spec.tasks), key=keys[2])

    def _check_one_std(self) -> None:
        if self.state_dependent_std:
            raise ConfigError(
                "networks.state_dependent_std = True: must be False or None, because this policy has one σ, or "
                "none. Leave it out."
            )

    def _encoder(self, spec: EnvSpec, *, key: Array) -> AbstractEncoder:
        encoder = make_encoder(spec.observation, channels=self.channels, init=self.init, key=key)
        if not encoder.size:
            raise ConfigError(
                f"Observation space {spec.observation} is not supported: no part has an element, so there is nothing "
                "to observe. Add a part that has one."
            )
        return encoder

    def _head(self, spec: EnvSpec) -> AbstractHead:
        """The head of a policy that is not squashed."""
        std = {"state_dependent_std": bool(self.state_dependent_std), "initial_log_std": self.initial_log_std}
        return policy_head(spec.action, **std)

    def _squashed(self, space: Box) -> SquashedNormalHead:
        own = jnp.full(space.size, self.initial_log_std, jnp.float32) if self.state_dependent_std is False else None
        return SquashedNormalHead(own, self.initial_log_std, space)

    def _policy(self, spec: EnvSpec, head: AbstractHead | SquashedNormalHead | TanhHead, *, key: Array) -> MLPActor:
        return MLPActor(*self._layers(spec, outputs=head.size, output_scale=self.policy_scale, key=key), head)

    def _layers(
        self, spec: EnvSpec, *, inputs: int = 0, outputs: int, output_scale: float = 1.0, key: Array
    ) -> tuple[AbstractEncoder, MLP]:
        """An encoder of the observation, and dense layers that read its features and `inputs` more numbers."""
        self._check_apart()
        encoder_key, mlp_key = jax.random.split(key)
        reads = self._encoder(spec, key=encoder_key)
        sizes = (reads.size + inputs, *self._hidden(reads, inputs), outputs)
        return reads, MLP(sizes, output_scale=output_scale, key=mlp_key, **self._layer)

    def _hidden(self, encoder: AbstractEncoder, inputs: int = 0) -> tuple[int, ...]:
        """Units of each hidden layer that reads the features of `encoder` and `inputs` more numbers."""
        sizes = () if self.hidden_sizes is None and is_cnn(encoder) and not inputs else self.behind_vectors
        if self.layer_norm and not sizes:
            raise ConfigError(
                "networks.layer_norm = True: must be False, because this network has no hidden layers. Leave it out "
                "or name hidden_sizes, for example (64, 64)."
            )
        return sizes

    @property
    def _layer(self) -> dict[str, Any]:
        """The options of every layer."""
        return {"activation": ACTIVATIONS[self.activation], "layer_norm": self.layer_norm, "init": self.init}

    def _check_apart(self) -> None:
        if self.shared_trunk:
            raise ConfigError(
                "networks.shared_trunk = True: must be False, because this algorithm has separate networks."
            )
