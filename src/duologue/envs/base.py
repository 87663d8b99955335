"""The step contract that every environment adapter answers, and what the adapters for the host share.

Host environments can be brought back to any moment of a run: the reset seed of every episode is a pure function of
(run seed, purpose, environment, episode), so an episode number and the actions since its beginning say where an
environment stands.
"""

import hashlib
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import Array, Key

from duologue.errors import ConfigError, EnvError
from duologue.types import Box, Dict, Discrete, EnvSpec, MultiDiscrete, Obs, PyTree, Space, Step

MAX_OBS_BOUNDS = 64
"""Observation spaces with more elements than this carry no bounds in the spec: nobody reads an image's."""
FORGET = 1024
"""Vector steps after which actions that no running episode needs are dropped."""


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


def seed_of(run_seed: int, purpose: str, env_index: int, episode: int) -> int:
    """The reset seed of one episode, below 2³¹: the same in every process, whatever happened before."""
    sequence = np.random.SeedSequence([run_seed, zlib.crc32(purpose.encode()), env_index, episode])
    return int(sequence.generate_state(1)[0] >> 1)


def bounds(low: Any, high: Any, shape: tuple[int, ...]) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    """Each as one number for each element, or `None` if any is infinite or as large as float32 goes, which means the
    same."""
    both = [np.broadcast_to(np.asarray(side, np.float32), shape).ravel() for side in (low, high)]
    finite = [bool((np.abs(side) < np.finfo(np.float32).max).all()) for side in both]
    low, high = (tuple(side.tolist()) if known else None for side, known in zip(both, finite, strict=True))
    return low, high


def array_type(space: Box | Discrete | MultiDiscrete) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and dtype of one element of `space`."""
    match space:
        case Box(shape=shape, dtype=dtype):
            return shape, np.dtype(dtype)
        case Discrete():
            return (), np.dtype(np.int32)
        case MultiDiscrete(nvec=nvec):
            return (len(nvec),), np.dtype(np.int32)


def empty(space: Space, num_envs: int) -> Obs:
    """Unwritten arrays for `num_envs` elements of `space`."""
    if isinstance(space, Dict):
        return {name: empty(part, num_envs) for name, part in space.spaces.items()}
    shape, dtype = array_type(space)
    return np.empty((num_envs, *shape), dtype)


def copy(obs: Obs) -> Obs:
    return {name: copy(part) for name, part in obs.items()} if isinstance(obs, dict) else obs.copy()


def digest(obs: Obs, i: int) -> np.ndarray:
    """SHA-256 of observation `i`, whose order of parts does not matter: 32 bytes."""

    def parts(obs: Obs) -> Iterable[bytes]:
        if isinstance(obs, dict):
            for name in sorted(obs):
                yield from parts(obs[name])
        else:
            yield obs[i].tobytes()

    return np.frombuffer(hashlib.sha256(b"".join(parts(obs))).digest(), np.uint8)


class Journal:
    """Where the environments stand: the number of each one's episode, and the actions since it began."""

    def __init__(self, seed: int, purpose: str, num_envs: int):
        self._seed, self._purpose = seed, purpose
        self.episode, self._began = [0] * num_envs, [0] * num_envs
        self.actions: list[np.ndarray] = []

    def restart(self) -> None:
        """Every environment is at the beginning of its first episode."""
        self.episode, self._began = [0] * len(self.episode), [0] * len(self._began)
        self.actions = []

    def next_episode(self, i: int) -> None:
        self.episode[i] += 1
        self._began[i] = len(self.actions)
        if len(self.actions) > FORGET and (oldest := min(self._began)):
            del self.actions[:oldest]
            self._began = [began - oldest for began in self._began]

    def seed(self, i: int) -> int:
        """The reset seed of environment `i`'s episode."""
        return seed_of(self._seed, self._purpose, i, self.episode[i])

    def running(self, t: int) -> list[int]:
        """The environments whose running episode holds `actions[t]`."""
        return [i for i, began in enumerate(self._began) if began <= t]

    def failure(self, i: int, error: BaseException, trace: str = "") -> EnvError:
        """What happened in environment `i`, and how to see it again."""
        said = str(error) if isinstance(error, EnvError) else f"raised {type(error).__name__}: {error}"
        step = len(self.actions) - self._began[i]
        when = f"at step {step} of" if step else "at the reset of"
        return EnvError(
            f"environment {i} {said} ({when} its episode {self.episode[i]}, reset seed {self.seed(i)}){trace}"
        )

    def snapshot(self, action: Space, obs: Obs) -> dict[str, np.ndarray]:
        """Episode numbers, the running episodes' actions one after the other, their lengths, and a hash of each
        current observation."""
        end = len(self.actions)
        table = np.asarray(self.actions) if end else empty(action, len(self.episode))[None][:0]
        return {
            "episode": np.asarray(self.episode, np.int32),
            "length": np.asarray([end - began for began in self._began], np.int32),
            "actions": np.concatenate([table[began:, i] for i, began in enumerate(self._began)]),
            "obs_sha256": np.stack([digest(obs, i) for i in range(len(self.episode))]),
        }

    def load(self, snapshot: dict[str, np.ndarray]) -> None:
        """Take over a snapshot. Its episodes are laid side by side so that all end now."""
        lengths, flat, count = snapshot["length"], snapshot["actions"], len(self.episode)
        if len(lengths) != count:
            raise ConfigError(
                f"num_envs = {count}, but the saved run has {len(lengths)} environments: continue it with as many."
            )
        end = int(lengths.max())
        table = np.zeros((end, count, *flat.shape[1:]), flat.dtype)
        for i, actions in enumerate(np.split(flat, np.cumsum(lengths)[:-1])):
            table[end - len(actions) :, i] = actions
        self.episode, self._began = snapshot["episode"].tolist(), (end - lengths).tolist()
        self.actions = list(table)


NUMBERS = (float, int, np.floating, np.integer, np.bool_)


def number(value: Any, what: str) -> float:
    """`value` as one number; an array of one element counts. Raises `EnvError` otherwise."""
    array = np.asarray(value)
    if array.size != 1 or array.dtype.kind not in "fiub":
        raise EnvError(f"gave {what} {value!r}, which must be one number")
    return float(array.reshape(()))


class Rows:
    """The fresh arrays of one vector step while they are filled, one environment after the other."""

    __slots__ = ("_write", "ended", "obs", "reward", "success", "terminated", "truncated")

    def __init__(self, obs: Obs, num_envs: int, write: Callable[[Obs, int, Any], None]):
        self.obs, self._write = obs, write
        self.reward = np.empty(num_envs, np.float32)
        self.terminated, self.truncated = np.empty(num_envs, bool), np.empty(num_envs, bool)
        self.ended: list[int] = []
        self.success: dict[int, float] = {}

    def put(self, i: int, answer: tuple[Any, ...]) -> None:
        """Write the five-tuple of environment `i`. Raises `EnvError` for what is not as Gymnasium defines it."""
        obs, reward, terminated, truncated, info = answer
        self._write(self.obs, i, obs)
        self.reward[i] = reward if isinstance(reward, NUMBERS) else number(reward, "the reward")
        self.terminated[i], self.truncated[i] = terminated, truncated
        if terminated or truncated:
            self.ended.append(i)
        if info and (success := info.get("is_success")) is not None:
            self.success[i] = number(success, "is_success")


def replay(
    journal: Journal, snapshot: dict[str, np.ndarray], rows: Rows,
    *, reset: Callable[[Sequence[int], Obs], None], step: Callable[[Sequence[int], np.ndarray, Rows], None],
) -> str | None:  # fmt: skip
    """Bring environments to where `snapshot` left them and fill `rows.obs`; a message names those that came out
    elsewhere, which begin their next episode."""
    journal.load(snapshot)
    count = len(journal.episode)
    reset(range(count), rows.obs)
    for t, action in enumerate(journal.actions):
        step([i for i in journal.running(t) if i not in rows.ended], action, rows)
    saved = snapshot["obs_sha256"]
    lost = [i for i in range(count) if i in rows.ended or not np.array_equal(digest(rows.obs, i), saved[i])]
    if not lost:
        return None
    for i in lost:
        journal.next_episode(i)
    reset(lost, rows.obs)
    return (
        f"Environment {', '.join(map(str, lost))} did not come back to the saved state when its episode was replayed: "
        "it does not follow from its seed and actions alone, or its simulator is of another version. The running "
        "episode was dropped and the next one begun, so the run goes on, but not bit for bit."
    )
