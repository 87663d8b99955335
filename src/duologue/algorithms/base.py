"""The interface of every algorithm. Loops use nothing else of an algorithm."""

from abc import abstractmethod
from typing import Any, Generic, TypeVar

import jax
from jaxtyping import Array

from duologue.errors import ConfigError
from duologue.fields import Configurable
from duologue.networks.builder import Networks
from duologue.types import EnvSpec, Experience, Metrics, Obs, PyTree, Transition

State = TypeVar("State")


def unwrapped(algorithm: Any) -> Any:
    """The algorithm itself, without a wrapper such as `Normalized`."""
    return getattr(algorithm, "algorithm", algorithm)


def network_builders(algorithm: Any) -> list[Networks]:
    """The builders `Networks` among the fields of an algorithm. Builders of the user's own are not among them."""
    return [value for value in vars(unwrapped(algorithm)).values() if isinstance(value, Networks)]


class AbstractAlgorithm(Configurable, Generic[State]):
    """An algorithm has its hyperparameters as fields, and pure methods on a `State`. The state contains arrays only.

    So `jit`, `scan`, `vmap` over seeds, donation and checkpoints need no filters. Loops close over the algorithm. Every
    algorithm has `discount` as a field or as a property. A concrete class has no subclasses.
    """

    @property
    @abstractmethod
    def experience(self) -> Experience:
        """Data for `update` and number of updates, derived from the fields of the algorithm."""

    @abstractmethod
    def init(self, spec: EnvSpec, *, key: Array) -> State:
        """Return networks, optimisers and counters. Raises `ConfigError` for a space that is not supported."""

    def initial_carry(self, num_envs: int) -> PyTree:
        """Memory of `act` within an episode, one row for each environment. In training, loops never reset this memory:
        `observe` gets the flags, and resets the rows of the episodes that ended."""
        return None

    @property
    def remembers(self) -> bool:
        """Whether the test policy reads its carry: its action depends on more of the episode than the observation. True
        for every algorithm with a carry, unless the algorithm declares that `act` reads it to explore alone."""
        return bool(jax.tree.leaves(self.initial_carry(1)))

    def policy(self, state: State, obs: Obs) -> Any:
        """π(·|s) for observations `[N]`, a distribution in environment units. Optional. The default `act` and
        `log_prob` use this method."""
        raise self._lacks("distribution of actions")

    def act(
        self, state: State, carry: PyTree, obs: Obs, *, key: Array, explore: bool
    ) -> tuple[Array, dict[str, Array], PyTree]:
        """Return `(action, extras, carry)` for observations `[B]`. `explore=False` is the paper's test policy.

        By default, the action is a sample of `policy` to explore, and the mode of `policy` to test.
        """
        policy = self.policy(state, obs)
        action = policy.sample(key) if explore else policy.mode()
        return action, {}, carry

    def notes(self, spec: EnvSpec) -> list[str]:
        """Remarks for the user on these settings in this environment. A run shows them before the first step."""
        return []

    def drawn_extras(self, count: int, *, key: Array) -> dict[str, Array]:
        """Draw random extras `[count, …]`, one for each transition (BEAR's masks). So a recording does not need to
        contain these extras. `act` also returns these extras."""
        return {}

    def observe(self, state: State, carry: PyTree, transition: Transition) -> tuple[State, PyTree]:
        """Return state and carry after the newest transitions `[B]`. Every loop calls this method once a step."""
        return state, carry

    def log_prob(self, state: State, obs: Obs, action: Array) -> Array:
        """log π(a|s) `[N]` of actions `[N]` in environment units."""
        return self.policy(state, obs).log_prob(action)

    def q(self, state: State, obs: Obs, action: Array) -> Array:
        """Qᵢ(s, a) `[E, N]`, where the algorithm learns action values."""
        raise self._lacks("q")

    def v(self, state: State, obs: Obs) -> Array:
        """V(s) `[N]`, where the algorithm learns state values."""
        raise self._lacks("v")

    def _lacks(self, what: str) -> ConfigError:
        return ConfigError(f"{type(self).__name__} cannot compute {what}.")

    @abstractmethod
    def update(self, state: State, batch: Transition, *, key: Array) -> tuple[State, Metrics]:
        """One update on `batch`. The metrics have the same names every time."""


AnyAlgorithm = AbstractAlgorithm[Any]
