"""BC, behaviour cloning: the policy under which the data are likeliest. What offline learning has to beat.

Pomerleau (1989), *ALVINN: An Autonomous Land Vehicle in a Neural Network*.
"""

from collections.abc import Callable
from typing import TypeAlias

import equinox as eqx
from jaxtyping import Array

from duologue.algorithms.base import AbstractAlgorithm, recorded
from duologue.fields import Fraction, PositiveInt
from duologue.networks.builder import AbstractNetworks, Networks
from duologue.ops.distributions import AbstractDistribution
from duologue.ops.losses import cloning_loss
from duologue.ops.optim import LearningRate, adam, gradient_step, opt_init
from duologue.types import EnvSpec, Experience, Metrics, Obs, PyTree, Transition

Actor: TypeAlias = Callable[[Obs], AbstractDistribution]


class BCState(eqx.Module):
    actor: Actor
    opt_state: PyTree


class BC(AbstractAlgorithm[BCState]):
    """Behaviour cloning by maximum likelihood, for recorded data.

    Discrete, MultiDiscrete and Box actions; vector, image and Dict observations.
    """

    learning_rate: LearningRate = 1e-3
    """η, a number or a `Linear` schedule."""
    batch_size: PositiveInt = 100
    """N, transitions of an update."""
    replay_capacity: PositiveInt = 1_000_000
    """Transitions that are kept where it goes on online."""
    num_envs: PositiveInt = 1
    """B, environments that step together there."""
    discount: Fraction = 0.99
    """γ; cloning has no use for it, what wraps it may."""
    networks: AbstractNetworks = Networks(hidden_sizes=(256, 256), activation="relu", init="lecun")
    """Builds the actor: `Networks`, or an object of your own."""

    @property
    def experience(self) -> Experience:
        return recorded(self.batch_size, self.replay_capacity, self.num_envs)

    def init(self, spec: EnvSpec, *, key: Array) -> BCState:
        actor = self.networks.policy(spec, key=key)
        return BCState(actor=actor, opt_state=opt_init(adam(self.learning_rate), actor))

    def act(
        self, state: BCState, carry: None, obs: Obs, *, key: Array, explore: bool
    ) -> tuple[Array, dict[str, Array], None]:
        policy = state.actor(obs)
        action = policy.sample(key) if explore else policy.mode()
        return action, {}, carry

    def log_prob(self, state: BCState, obs: Obs, action: Array) -> Array:
        return state.actor(obs).log_prob(action)

    def update(self, state: BCState, batch: Transition, *, key: Array) -> tuple[BCState, Metrics]:
        """One step of the actor on transitions `[N]`."""
        actor, opt_state, metrics = gradient_step(
            cloning_loss, state.actor, state.opt_state, adam(self.learning_rate), batch.obs, batch.action
        )
        return BCState(actor=actor, opt_state=opt_state), metrics
