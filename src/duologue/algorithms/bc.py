"""BC, behaviour cloning: the policy that maximises the likelihood of the data, a baseline of offline learning.

Pomerleau (1989), *ALVINN: An Autonomous Land Vehicle in a Neural Network*.
"""

from collections.abc import Callable
from typing import TypeAlias

import equinox as eqx
from jaxtyping import Array

from duologue.algorithms.families import AbstractRecorded
from duologue.fields import Fraction, PositiveInt
from duologue.networks.builder import AbstractNetworks, Networks
from duologue.ops.distributions import AbstractDistribution
from duologue.ops.losses import cloning_loss
from duologue.ops.optim import LearningRate, Trained, adam, descend
from duologue.types import EnvSpec, Metrics, Obs, Transition

Actor: TypeAlias = Callable[[Obs], AbstractDistribution]


class BCState(eqx.Module):
    actor: Trained[Actor]


class BC(AbstractRecorded[BCState]):
    """Behaviour cloning by maximum likelihood, for recorded data.

    Discrete, MultiDiscrete and Box actions; vector, image and Dict observations.
    """

    learning_rate: LearningRate = 1e-3
    """Learning rate (η), a number or a `Linear` schedule."""
    discount: Fraction = 0.99
    """Discount factor (γ). Cloning does not use γ, but a wrapper may use it."""
    batch_size: PositiveInt = 100
    """Transitions in a batch (N)."""
    networks: AbstractNetworks = Networks(vector_sizes=(256, 256), activation="relu", init="lecun")
    """Builder of the actor: `Networks`, or an object of your own."""

    def init(self, spec: EnvSpec, *, key: Array) -> BCState:
        return BCState(Trained.of(self.networks.policy(spec, key=key), adam(self.learning_rate)))

    def policy(self, state: BCState, obs: Obs) -> AbstractDistribution:
        return state.actor(obs)

    def update(self, state: BCState, batch: Transition, *, key: Array) -> tuple[BCState, Metrics]:
        """One step of the actor on transitions `[N]`."""
        actor, metrics = descend(cloning_loss, state.actor, adam(self.learning_rate), batch.obs, batch.action)
        return BCState(actor), metrics
