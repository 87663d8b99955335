"""The step contract that every environment adapter answers.

`next_obs` is the true successor, before any reset; `obs` is what to act on next. An adapter resets finished
environments itself. A vector environment that can only reset by inserting a dummy step cannot answer this, and is
refused by name.
"""

import zlib
from abc import ABC, abstractmethod

import equinox as eqx
import numpy as np
from jaxtyping import Array, Key

from duologue.types import EnvSpec, Obs, PyTree, Step


class AbstractHostEnvs(ABC):
    """`num_envs` environments in NumPy. Arrays that are returned are fresh and never written again: JAX reads them in
    place."""

    spec: EnvSpec
    num_envs: int

    @abstractmethod
    def reset(self) -> Obs:
        """Start the first episode of every environment from its derived seed: the same starts every time."""

    @abstractmethod
    def step(self, action: np.ndarray) -> Step:
        """Step every environment; those that end begin their next episode, from its derived seed.

        `info` has `is_success` (float32, NaN where not reported) once an environment has reported it. Raises
        `EnvError`, naming the environment, if one raises or breaks its contract; the adapter is of no use after that.
        """

    @abstractmethod
    def snapshot(self) -> dict[str, np.ndarray]:
        """What `restore` needs. The names never change; the shape of `actions` grows with the running episodes."""

    @abstractmethod
    def restore(self, snapshot: dict[str, np.ndarray]) -> tuple[Obs, str | None]:
        """Replay the running episodes of `snapshot`; return the observations to act on, which are compared bit by bit.

        Where they differ, that environment begins its next episode instead and the message says so in plain words.
        """

    @abstractmethod
    def close(self) -> None: ...


class AbstractJaxEnvs(eqx.Module):
    """`num_envs` environments as pure functions. Their state is a PyTree of arrays, without typed keys."""

    spec: eqx.AbstractVar[EnvSpec]
    num_envs: eqx.AbstractVar[int]

    @abstractmethod
    def reset(self, key: Key[Array, ""]) -> tuple[PyTree, Obs]:
        """`(env_state, obs)` at the beginning of new episodes."""

    @abstractmethod
    def step(self, env_state: PyTree, action: Array, *, key: Key[Array, ""]) -> tuple[PyTree, Step]:
        """Step every environment; those that end begin a new episode. `Step.next_obs` is from before that."""

    def close(self) -> None:
        """Nothing is open; environments on the host have this too."""


def seed_of(run_seed: int, purpose: str, env_index: int, episode: int) -> int:
    """The reset seed of one episode, below 2³¹: the same in every process, whatever happened before."""
    sequence = np.random.SeedSequence([run_seed, zlib.crc32(purpose.encode()), env_index, episode])
    return int(sequence.generate_state(1)[0] >> 1)
