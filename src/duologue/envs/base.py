"""The contract of all environment adapters: what `reset`, `step`, `snapshot` and `restore` return.

`next_obs` is the true successor, before any reset; `obs` is the observation to act on next. An adapter resets finished
environments itself. A vector environment that inserts a dummy step for a reset cannot fulfil this contract. It raises
an error that names it.
"""

import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, closing
from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import Array, Key

from duologue.errors import EnvError
from duologue.types import EnvSpec, Obs, PyTree, Step

REPLAY_LIMIT = 30_000
"""Steps of the longest episode that is replayed to restore an environment. An Atari game has up to 27,000."""


class AbstractHostEnvs(ABC):
    """`num_envs` environments in NumPy. Every array that a method returns is new and never written again, because JAX
    reads it in place."""

    spec: EnvSpec
    num_envs: int
    notes: tuple[str, ...] = ()
    """Remarks on these environments, which the user reads before they step."""
    restarts: Any = 0
    """Number of environments that were replaced after an error; `[S]` for several seeds."""

    @abstractmethod
    def reset(self) -> Obs:
        """Begin the first episode of every environment, from its derived seed. Every call begins the same episodes."""

    @abstractmethod
    def step(self, action: np.ndarray) -> Step:
        """Step every environment. If its episode ends, an environment begins the next episode, from its derived seed.

        `info` holds numbers by name, `[B]` each, NaN where an environment gives none: `is_success` once any
        environment has reported it; `GAME_RETURN` where environments report the returns of their episodes; and those
        that a run names.

        If an environment raises or breaks its contract, this method raises an `EnvError` that names the environment.
        Then the adapter cannot step again, but `marked_snapshot` works. An adapter that replaces the environment
        instead truncates its episode, and marks its row in `info["restarted"]`.
        """

    @abstractmethod
    def snapshot(self) -> dict[str, np.ndarray]:
        """The arrays that `restore` needs. Their names never change; `actions` grows with the running episodes, up to
        a limit."""

    @abstractmethod
    def restore(self, snapshot: dict[str, np.ndarray]) -> tuple[Obs, str | None]:
        """Replay the running episodes of `snapshot`. Returns the observations to act on, and a message or `None`.

        Each observation is compared with the saved one, bit by bit. An environment in which they differ begins its next
        episode; so does one whose episode is too long to be replayed. The message names them.
        """

    @abstractmethod
    def close(self) -> None:
        """Close every environment."""

    def cut_episodes(self, which: Sequence[int]) -> Obs:
        """End the running episodes of these environments, and begin their next ones, from their derived seeds. Returns
        the observations of all environments. An evaluation calls it for episodes that reach its limit of steps. An
        adapter without this method raises `EnvError`."""
        raise EnvError(
            f"environment {which[0]} did not end its episode before the limit of steps, and {type(self).__name__} has "
            "no method cut_episodes that begins the next one. Add the method, end episodes in the adapter, or play at "
            f"most {self.num_envs} episodes."
        )

    def mark(self) -> None:
        """Remember this moment. The loop calls it before each rollout; an adapter with an expensive snapshot overrides
        it together with `marked_snapshot`."""
        self._marked = self.snapshot()

    def marked_snapshot(self) -> dict[str, np.ndarray]:
        """The snapshot of the moment of the last `mark`, also after an error."""
        return self._marked

    def report_replay(self, report: Callable[[int, int], None]) -> None:  # noqa: B027
        """Make `restore` call `report(steps done, all steps)` while it replays. An adapter that replays nothing ignores
        it."""

    def take_notes(self) -> list[str]:
        """What happened since the last call that a person should know, one sentence each."""
        return []

    def reset_notes(self) -> list[str]:
        """What a person should know of these environments once they are reset, one sentence each."""
        return []


class AbstractJaxEnvs(eqx.Module):
    """`num_envs` environments as pure functions. Their state is a PyTree of arrays without typed keys."""

    spec: eqx.AbstractVar[EnvSpec]
    num_envs: eqx.AbstractVar[int]

    @abstractmethod
    def reset(self, key: Key[Array, ""]) -> tuple[PyTree, Obs]:
        """`(env_state, obs)` at the beginning of new episodes."""

    @abstractmethod
    def step(self, env_state: PyTree, action: Array, *, key: Key[Array, ""]) -> tuple[PyTree, Step]:
        """Step every environment. If its episode ends, an environment begins a new one. `Step.next_obs` is the
        observation before this reset."""

    def close(self) -> None:
        """Does nothing. It is here because environments on the host have it."""


def open_all(opening: Iterable[Any]) -> list[Any]:
    """All environments of `opening`, which makes one after another. If one cannot be made, those before it are
    closed."""
    with ExitStack() as opened:
        envs = [opened.enter_context(closing(each)) for each in opening]
        opened.pop_all()
    return envs


def seed_of(run_seed: int, purpose: str, env_index: int, episode: int) -> int:
    """The reset seed of one episode, below 2³¹. It depends on the arguments alone, in every process."""
    sequence = np.random.SeedSequence([run_seed, zlib.crc32(purpose.encode()), env_index, episode])
    return int(sequence.generate_state(1)[0] >> 1)
