"""The journal of environments on the host, from which their running episodes are replayed.

The reset seed of every episode is a pure function of (run seed, purpose, environment, episode). So the number of an
episode, and the actions since it began, determine the state of an environment.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from duologue.envs.base import seed_of
from duologue.envs.results import missing_numbers, read_step
from duologue.errors import ConfigError, EnvError
from duologue.types import ACTION_MASK, Obs, Space, action_type, bad_masks, describe_bad_mask, has_mask

FORGET_AFTER = 1024
"""Number of vector steps after which the journal drops actions that no running episode needs."""


def digest(obs: Obs, i: int) -> np.ndarray:
    """SHA-256 of observation `i`, uint8 `[32]`. The order of the parts of a dict does not matter."""

    def parts(obs: Obs) -> Iterable[bytes]:
        if isinstance(obs, dict):
            for name in sorted(obs):
                yield from parts(obs[name])
        else:
            yield obs[i].tobytes()

    return np.frombuffer(hashlib.sha256(b"".join(parts(obs))).digest(), np.uint8)


class Journal:
    """The number of the running episode of every environment, and the actions since it began."""

    def __init__(self, seed: int, purpose: str, num_envs: int):
        self._seed, self._purpose = seed, purpose
        self.episode, self._began = [0] * num_envs, [0] * num_envs
        self.actions: list[np.ndarray] = []

    def restart(self) -> None:
        """Set every environment to the beginning of its first episode."""
        self.episode, self._began = [0] * len(self.episode), [0] * len(self._began)
        self.actions = []

    def next_episode(self, i: int) -> None:
        """Environment `i` begins its next episode."""
        self.episode[i] += 1
        self._began[i] = len(self.actions)
        if len(self.actions) > FORGET_AFTER and (oldest := min(self._began)):
            del self.actions[:oldest]
            self._began = [began - oldest for began in self._began]

    def seed(self, i: int) -> int:
        """The reset seed of the running episode of environment `i`."""
        return seed_of(self._seed, self._purpose, i, self.episode[i])

    def running_at(self, t: int) -> list[int]:
        """The environments whose running episode includes `actions[t]`."""
        return [i for i, began in enumerate(self._began) if began <= t]

    def length(self, i: int) -> int:
        """Number of actions since the running episode of environment `i` began: the step of its next action."""
        return len(self.actions) - self._began[i]

    def failure(self, i: int, error: BaseException, trace: str = "", *, step: int | None = None) -> EnvError:
        """Error that says what happened in environment `i`, at which step of which episode, with which reset seed. By
        default this is the step of the newest action. Before the first action it is the reset."""
        what = str(error) if isinstance(error, EnvError) else f"raised {type(error).__name__}: {error}"
        step = self.length(i) - 1 if step is None else step
        when = f"at step {step:,} of" if self.length(i) else "at the reset of"
        return EnvError(
            f"environment {i} {what} ({when} its episode {self.episode[i]}, reset seed {self.seed(i)}){trace}"
        )

    def check_masks(self, action: Space, obs: Obs) -> None:
        """Raise the error of the first environment whose observation in `obs`, on which it acts next, has an action
        mask that allows no action, or that is no mask."""
        if has_mask(obs) and (bad := np.flatnonzero(bad_masks(obs, action))).size:
            i = int(bad[0])
            error = EnvError(f"gave {describe_bad_mask(obs[ACTION_MASK][i], action)}")
            raise self.failure(i, error, step=self.length(i))

    def snapshot(self, action: Space, obs: Obs) -> dict[str, np.ndarray]:
        """The numbers and lengths of the running episodes, their actions one after another, and a hash of each current
        observation."""
        end = len(self.actions)
        table = (
            np.asarray(self.actions)
            if end
            else np.empty((0, len(self.episode), *action_type(action)[0]), action_type(action)[1])
        )
        return {
            "episode": np.asarray(self.episode, np.int32),
            "length": np.asarray([end - began for began in self._began], np.int32),
            "actions": np.concatenate([table[began:, i] for i, began in enumerate(self._began)]),
            "obs_sha256": np.stack([digest(obs, i) for i in range(len(self.episode))]),
        }

    def load(self, snapshot: dict[str, np.ndarray]) -> None:
        """Load a snapshot, and align the actions so that all episodes end at the last row. Raises `ConfigError` for
        another `num_envs`."""
        lengths, flat, count = snapshot["length"], snapshot["actions"], len(self.episode)
        if len(lengths) != count:
            raise ConfigError(f"num_envs = {count}: must be {len(lengths)}, as in the saved run.")
        end = int(lengths.max())
        table = np.zeros((end, count, *flat.shape[1:]), flat.dtype)
        for i, actions in enumerate(np.split(flat, np.cumsum(lengths)[:-1])):
            table[end - len(actions) :, i] = actions
        self.episode, self._began = snapshot["episode"].tolist(), (end - lengths).tolist()
        self.actions = list(table)


class StepArrays:
    """New arrays for one vector step, which are filled one environment after another.

    `names` are the entries of `info` to read. `info` holds the numbers of the step by name, `[B]`, NaN where an
    environment gives none; those that are `known` are there in any case.
    """

    __slots__ = ("_names", "_write", "ended", "info", "obs", "reward", "terminated", "truncated")

    def __init__(
        self, obs: Obs, num_envs: int, write: Callable[[Obs, int, Any], None], names: Sequence[str] = (),
        known: Iterable[str] = (),
    ):  # fmt: skip
        self.obs, self._write, self._names = obs, write, names
        self.reward = np.empty(num_envs, np.float32)
        self.terminated, self.truncated = np.empty(num_envs, bool), np.empty(num_envs, bool)
        self.ended: list[int] = []
        self.info = {name: missing_numbers(name, num_envs) for name in known}

    def put(self, i: int, result: tuple[Any, ...], statistics: Any = None) -> None:
        """Write the five-tuple of environment `i`. Raises `EnvError` if it is not as Gymnasium defines it."""
        obs, self.reward[i], terminated, truncated, numbers = read_step(result, self._names, statistics)
        self._write(self.obs, i, obs)
        self.terminated[i], self.truncated[i] = terminated, truncated
        if terminated or truncated:
            self.ended.append(i)
        for name, number in numbers.items():
            if name not in self.info:
                self.info[name] = missing_numbers(name, len(self.reward))
            self.info[name][i] = number


def replay_episodes(
    journal: Journal, snapshot: dict[str, np.ndarray], rows: StepArrays,
    *, reset: Callable[[Sequence[int], Obs], None], step: Callable[[Sequence[int], np.ndarray, StepArrays], None],
) -> str | None:  # fmt: skip
    """Replay environments to the states of `snapshot`, and fill `rows.obs`. If an environment reaches another
    observation, it begins its next episode, and the returned message names it."""
    journal.load(snapshot)
    count = len(journal.episode)
    reset(range(count), rows.obs)
    for t, action in enumerate(journal.actions):
        step([i for i in journal.running_at(t) if i not in rows.ended], action, rows)
    saved = snapshot["obs_sha256"]
    lost = [i for i in range(count) if i in rows.ended or not np.array_equal(digest(rows.obs, i), saved[i])]
    for i in lost:
        journal.next_episode(i)
    reset(lost, rows.obs)
    return lost_message(lost)


def lost_message(lost: list[int]) -> str | None:
    """The message about environments that did not come back to their saved state; `None` if all did."""
    if not lost:
        return None
    return (
        f"Environment {', '.join(map(str, lost))} did not come back to the saved state when its episode was replayed: "
        "it is not deterministic, or its simulator has another version. The running episode was dropped and the next "
        "one begun: the run continues, but not bit for bit."
    )
