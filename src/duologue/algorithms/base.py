"""The contract of every algorithm. Loops know this page and nothing else of an algorithm."""

from abc import abstractmethod
from typing import Any, Generic, TypeVar

from jaxtyping import Array

from duologue.errors import ConfigError
from duologue.fields import Configurable
from duologue.types import EnvSpec, Experience, Metrics, Obs, PyTree, Replay, Transition

State = TypeVar("State")


def unwrapped(algorithm: Any) -> Any:
    """The algorithm itself, without a wrapper such as `Normalized`."""
    return getattr(algorithm, "algorithm", algorithm)


class AbstractAlgorithm(Configurable, Generic[State]):
    """A final subclass holds hyperparameters as fields; its methods are pure functions of a `State` made of arrays
    only.

    So `jit`, `scan`, `vmap` over seeds, donation and checkpoints need no filters. Loops close over the algorithm. Every
    algorithm has a field, or a property, `discount`.
    """

    @property
    @abstractmethod
    def experience(self) -> Experience:
        """How this algorithm wants to be fed, derived from its fields."""

    @abstractmethod
    def init(self, spec: EnvSpec, *, key: Array) -> State:
        """Networks, optimisers and counters. Raises `ConfigError` for a space the algorithm cannot serve."""

    def initial_carry(self, num_envs: int) -> PyTree:
        """What acting remembers inside an episode, one row an environment. While training, loops never reset it:
        `observe`, which sees the flags, resets the rows whose episode ended."""
        return None

    @abstractmethod
    def act(
        self, state: State, carry: PyTree, obs: Obs, *, key: Array, explore: bool
    ) -> tuple[Array, dict[str, Array], PyTree]:
        """`(action, extras, carry)` for observations `[B]`. `explore=False` is the paper's test policy."""

    def notes(self, spec: EnvSpec) -> list[str]:
        """What a person should know of these settings in this environment, before the first step."""
        return []

    def drawn_extras(self, count: int, *, key: Array) -> dict[str, Array]:
        """Random extras `[count, …]`, one draw for each transition (BEAR's masks), so that recordings need not hold
        them; `act` returns them too."""
        return {}

    def observe(self, state: State, carry: PyTree, transition: Transition) -> tuple[State, PyTree]:
        """Take note of the newest transitions `[B]`; every loop calls this once a step."""
        return state, carry

    def log_prob(self, state: State, obs: Obs, action: Array) -> Array:
        """log π(a|s) `[N]` of actions `[N]` in environment units; of those that learn a distribution."""
        raise self._lacks("log_prob")

    def q(self, state: State, obs: Obs, action: Array) -> Array:
        """Qᵢ(s, a) `[E, N]`; of those that learn action values."""
        raise self._lacks("q")

    def v(self, state: State, obs: Obs) -> Array:
        """V(s) `[N]`; of those that learn state values."""
        raise self._lacks("v")

    def _lacks(self, what: str) -> ConfigError:
        return ConfigError(f"{type(self).__name__} learns no {what}.")

    @abstractmethod
    def update(self, state: State, batch: Transition, *, key: Array) -> tuple[State, Metrics]:
        """One update on what it is given. The metric keys are the same every time."""


def replayed(algorithm: Any, *, batches_per_update: int | None = None) -> Experience:
    """The experience of an algorithm that learns from replay alone, by the names that such algorithms give their
    fields; batches are of sequences where it has `n_step`."""
    replay = Replay(
        capacity=algorithm.replay_capacity,
        batch_size=algorithm.batch_size,
        sequence_length=getattr(algorithm, "n_step", None),
        updates=algorithm.updates,
        batches_per_update=batches_per_update,
        learning_starts=algorithm.learning_starts,
        start_steps=algorithm.start_steps,
    )
    return Experience(
        algorithm.num_envs, algorithm.rollout_length, learn_from_rollout=False, replay=replay,
        gradient_steps=batches_per_update or 1,
    )  # fmt: skip


def recorded(
    batch_size: int, capacity: int = 1_000_000, num_envs: int = 1, *, extras: tuple[str, ...] = ()
) -> Experience:
    """The experience of an algorithm that is made for data that others recorded: batches `[N]` of single transitions.
    It acts and learns in an environment all the same, one update a step."""
    replay = Replay(capacity=capacity, batch_size=batch_size, learning_starts=batch_size)
    return Experience(num_envs, 1, extras, learn_from_rollout=False, replay=replay)


AnyAlgorithm = AbstractAlgorithm[Any]
