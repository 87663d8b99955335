"""The contract of every algorithm: all that loops know of it."""

from abc import abstractmethod
from typing import Any, Generic, TypeVar

from jaxtyping import Array

from duologue.errors import ConfigError
from duologue.fields import Configurable
from duologue.types import EnvSpec, Experience, Metrics, Obs, PyTree, Transition

State = TypeVar("State")


def unwrapped(algorithm: Any) -> Any:
    """The algorithm itself, without a wrapper such as `Normalized`."""
    return getattr(algorithm, "algorithm", algorithm)


class AbstractAlgorithm(Configurable, Generic[State]):
    """Hyperparameters as fields, and pure methods on a `State` that holds arrays only.

    So `jit`, `scan`, `vmap` over seeds, donation and checkpoints need no filters. Loops close over the algorithm. Every
    algorithm has a field, or a property, `discount`. A concrete class is final.
    """

    @property
    @abstractmethod
    def experience(self) -> Experience:
        """Data that the algorithm learns from, and how often, derived from its fields."""

    @abstractmethod
    def init(self, spec: EnvSpec, *, key: Array) -> State:
        """Networks, optimisers and counters. Raises `ConfigError` for a space the algorithm cannot serve."""

    def initial_carry(self, num_envs: int) -> PyTree:
        """Memory of acting inside an episode, one row for each environment. Loops never reset it in training:
        `observe` sees the flags, and resets the rows whose episode ended."""
        return None

    def policy(self, state: State, obs: Obs) -> Any:
        """π(·|s) for observations `[N]`, a distribution in environment units. Optional: `act` and `log_prob` follow
        from it."""
        raise self._lacks("distribution of actions")

    def act(
        self, state: State, carry: PyTree, obs: Obs, *, key: Array, explore: bool
    ) -> tuple[Array, dict[str, Array], PyTree]:
        """`(action, extras, carry)` for observations `[B]`. `explore=False` is the paper's test policy. By default a
        sample of `policy` to explore, its mode to test."""
        policy = self.policy(state, obs)
        action = policy.sample(key) if explore else policy.mode()
        return action, {}, carry

    def notes(self, spec: EnvSpec) -> list[str]:
        """Remarks on these settings in this environment, for a person to read before the first step."""
        return []

    def drawn_extras(self, count: int, *, key: Array) -> dict[str, Array]:
        """Random extras `[count, …]`, one draw for each transition (BEAR's masks), so that recordings need not hold
        them; `act` returns them too."""
        return {}

    def observe(self, state: State, carry: PyTree, transition: Transition) -> tuple[State, PyTree]:
        """State and carry after the newest transitions `[B]`. Every loop calls this once a step."""
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
