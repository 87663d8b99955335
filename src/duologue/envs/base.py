"""The step contract that every environment adapter answers."""

import zlib
from abc import ABC, abstractmethod

import equinox as eqx
import numpy as np
from jaxtyping import Array

from duologue.types import EnvSpec, Obs, PyTree, Step


def seed_of(run_seed: int, purpose: str, env_index: int, episode: int) -> int:
    sequence = np.random.SeedSequence([run_seed, zlib.crc32(purpose.encode()), env_index, episode])
    return int(sequence.generate_state(1)[0] >> 1)


class AbstractHostEnvs(ABC):
    spec: EnvSpec
    num_envs: int

    @abstractmethod
    def reset(self) -> Obs: ...
    @abstractmethod
    def step(self, action: np.ndarray) -> Step: ...
    @abstractmethod
    def snapshot(self) -> dict[str, np.ndarray]: ...
    @abstractmethod
    def restore(self, snapshot: dict[str, np.ndarray]) -> tuple[Obs, str | None]: ...
    @abstractmethod
    def close(self) -> None: ...


class AbstractJaxEnvs(eqx.Module):
    spec: eqx.AbstractVar[EnvSpec]
    num_envs: eqx.AbstractVar[int]

    @abstractmethod
    def reset(self, key: Array) -> tuple[PyTree, Obs]: ...
    @abstractmethod
    def step(self, env_state: PyTree, action: Array, *, key: Array) -> tuple[PyTree, Step]: ...
