"""The journal of environments on the host, from which their running episodes are replayed.

The reset seed of every episode is a pure function of (run seed, purpose, environment, episode). So the number of an
episode, and the actions since it began, determine the state of an environment. The journal keeps the actions of each
episode up to a limit of its own, so its memory, and the time of a replay, do not grow with the run.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from duologue.envs.base import REPLAY_LIMIT, seed_of
from duologue.envs.results import missing_numbers, read_step
from duologue.errors import ConfigError, EnvError
from duologue.types import ACTION_MASK, Obs, Space, action_type, bad_masks, describe_bad_mask, has_mask


def digest(obs: Obs, i: int) -> np.ndarray:
    """SHA-256 of observation `i`, uint8 `[32]`. The order of the parts of a dict does not matter."""

    def parts(obs: Obs) -> Iterable[bytes]:
        if isinstance(obs, dict):
            for name in sorted(obs):
                yield from parts(obs[name])
        else:
            yield obs[i].tobytes()

    return np.frombuffer(hashlib.sha256(b"".join(parts(obs))).digest(), np.uint8)


class Running:
    """The running episode of one environment: its number, its length, and the bytes of its actions; `None` in place of
    the bytes where it cannot be replayed."""

    __slots__ = ("actions", "length", "number")

    def __init__(self, number: int, length: int, actions: bytearray | None):
        self.number, self.length, self.actions = number, length, actions


Moment = list[tuple[Running, int]]
"""The running episode of every environment, and its length, at one moment."""


class Journal:
    """The running episode of every environment. `limit` is the length of the longest episode whose actions are kept;
    `None`: no episode is ever replayed."""

    def __init__(self, seed: int, purpose: str, action: Space, num_envs: int, limit: int | None = REPLAY_LIMIT):
        self._seed, self._purpose, self.limit = seed, purpose, limit
        self._action, self._count = action, num_envs
        self.restart()

    def restart(self) -> None:
        """Set every environment to the beginning of its first episode."""
        self.running = [self._first_step_of(0) for _ in range(self._count)]

    def add(self, action: np.ndarray, indices: Iterable[int]) -> None:
        """Add the actions of the environments `indices`, rows of `action` `[B]`. The actions of an episode that passes
        the limit are dropped at once."""
        flat, running, limit = action.tobytes(), self.running, self.limit
        size = len(flat) // self._count
        for i in indices:
            episode = running[i]
            if (actions := episode.actions) is not None:
                if episode.length == limit:  # a new object: an earlier moment may still need the actions
                    episode = running[i] = Running(episode.number, episode.length, None)
                else:
                    actions += flat[i * size : (i + 1) * size]
            episode.length += 1

    def next_episode(self, i: int) -> None:
        """Environment `i` begins its next episode."""
        self.running[i] = self._first_step_of(self.running[i].number + 1)

    def seed(self, i: int) -> int:
        """The reset seed of the running episode of environment `i`."""
        return seed_of(self._seed, self._purpose, i, self.running[i].number)

    def failure(self, i: int, error: BaseException, trace: str = "", *, step: int | None = None) -> EnvError:
        """Error that says what happened in environment `i`, at which step of which episode, with which reset seed. By
        default this is the step of the newest action. Before the first action it is the reset. Its cause is `error`."""
        what = str(error) if isinstance(error, EnvError) else f"raised {type(error).__name__}: {error}"
        length = self.running[i].length
        step = length - 1 if step is None else step
        when = f"at step {step:,} of" if length else "at the reset of"
        failure = EnvError(
            f"environment {i} {what} ({when} its episode {self.running[i].number}, reset seed {self.seed(i)}){trace}"
        )
        failure.__cause__ = error
        return failure

    def check_masks(self, action: Space, obs: Obs) -> None:
        """Raise the error of the first environment whose observation in `obs`, on which it acts next, has an action
        mask that allows no action, or that is no mask."""
        if has_mask(obs) and (bad := np.flatnonzero(bad_masks(obs, action))).size:
            i = int(bad[0])
            error = EnvError(f"gave {describe_bad_mask(obs[ACTION_MASK][i], action)}")
            raise self.failure(i, error, step=self.running[i].length)

    def moment(self) -> Moment:
        """The present moment, of which a snapshot can be made as long as it is kept."""
        return [(episode, episode.length) for episode in self.running]

    def snapshot(self, moment: Moment, obs: Obs) -> dict[str, np.ndarray]:
        """The numbers of the episodes that ran at a moment, their lengths (−1 for an episode that cannot be replayed),
        the actions of the others one after another, and a hash of each observation in `obs`, the observations then."""
        shape, dtype = action_type(self._action)
        size = int(np.prod(shape)) * dtype.itemsize
        kept = [None if one.actions is None else bytes(one.actions[: length * size]) for one, length in moment]
        lengths = [-1 if actions is None else length for (_, length), actions in zip(moment, kept, strict=True)]
        return {
            "episode": np.asarray([one.number for one, _ in moment], np.int32),
            "length": np.asarray(lengths, np.int32),
            "actions": np.frombuffer(b"".join(filter(None, kept)), dtype).reshape(-1, *shape),
            "obs_sha256": np.stack([digest(obs, i) for i in range(self._count)]),
        }

    def load(self, snapshot: dict[str, np.ndarray]) -> tuple[list[np.ndarray], list[int]]:
        """Go to the beginning of the episodes of a snapshot. Returns the actions of each, and the environments whose
        episode cannot be replayed, or is longer than the limit; they have no actions. Raises `ConfigError` for another
        `num_envs`."""
        lengths = snapshot["length"]
        if len(lengths) != self._count:
            raise ConfigError(f"num_envs = {self._count}: must be {len(lengths)}, as in the saved run.")
        self.running = [self._first_step_of(number) for number in snapshot["episode"].tolist()]
        parts = np.split(snapshot["actions"], np.cumsum(kept_actions(lengths))[:-1])
        most = -1 if self.limit is None else self.limit
        unknown = [i for i, length in enumerate(lengths) if not 0 <= length <= most]
        return [part[:0] if i in unknown else part for i, part in enumerate(parts)], unknown

    def _first_step_of(self, number: int) -> Running:
        return Running(number, 0, None if self.limit is None else bytearray())


def kept_actions(lengths: np.ndarray) -> np.ndarray:
    """Number of actions that a snapshot holds of each episode, by the `length` in it."""
    return np.maximum(lengths, 0)


class StepArrays:
    """New arrays for one vector step, which are filled one environment after another.

    `names` are the entries of `info` to read. `info` holds the numbers of the step by name, `[B]`, NaN where an
    environment gives none; those that are `known` are there in any case.
    """

    __slots__ = ("_names", "_write", "ended", "failed", "info", "obs", "reward", "terminated", "truncated")

    def __init__(
        self, obs: Obs, num_envs: int, write: Callable[[Obs, int, Any], None], names: Sequence[str] = (),
        known: Iterable[str] = (),
    ):  # fmt: skip
        self.obs, self._write, self._names = obs, write, names
        self.reward = np.empty(num_envs, np.float32)
        self.terminated, self.truncated = np.empty(num_envs, bool), np.empty(num_envs, bool)
        self.ended: list[int] = []
        self.failed: list[int] = []
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

    def cut(self, i: int, obs: Obs) -> None:
        """Truncate the episode of environment `i`, whose step failed: reward 0, and as its successor the observation
        in `obs` on which it acted. So the target of this row is γ V(s)."""
        copy_row(obs, self.obs, i)
        self.reward[i], self.terminated[i], self.truncated[i] = 0.0, False, True
        for numbers in self.info.values():
            numbers[i] = np.nan
        self.failed.append(i)
        if i not in self.ended:
            self.ended.append(i)


def copy_row(source: Obs, target: Obs, i: int) -> None:
    """Copy the observation of environment `i`."""
    if isinstance(source, dict):
        for name, part in source.items():
            copy_row(part, target[name], i)
    else:
        target[i] = source[i]


def replay_episodes(
    journal: Journal, snapshot: dict[str, np.ndarray], rows: StepArrays,
    *, reset: Callable[[Sequence[int], Obs], None], step: Callable[[Sequence[int], np.ndarray, StepArrays], None],
    report: Callable[[int, int], None],
) -> str | None:  # fmt: skip
    """Replay environments to the states of `snapshot`, and fill `rows.obs`; call `report(done, total)` after each step.

    An environment whose episode cannot be replayed begins its next episode; so does one that reaches another
    observation. The returned message names them, and says why.
    """
    parts, unknown = journal.load(snapshot)
    for i in unknown:
        journal.next_episode(i)
    reset(range(len(parts)), rows.obs)
    longest, flat = max(map(len, parts)), snapshot["actions"]
    for t in range(longest):
        running = [i for i, part in enumerate(parts) if t < len(part) and i not in rows.ended]
        action = np.zeros_like(flat, shape=(len(parts), *flat.shape[1:]))
        action[running] = [parts[i][t] for i in running]
        journal.add(action, running)
        step(running, action, rows)
        report(t + 1, longest)
    known, saved = [i for i in range(len(parts)) if i not in unknown], snapshot["obs_sha256"]
    lost = [i for i in known if i in rows.ended or not np.array_equal(digest(rows.obs, i), saved[i])]
    for i in lost:
        journal.next_episode(i)
    reset(lost, rows.obs)
    return restore_message(unknown, lost, journal.limit)


def restore_message(unknown: list[int], lost: list[int], limit: int | None) -> str | None:
    """The message about environments whose episodes are not replayed (`unknown`), and about those that did not come
    back to their saved state (`lost`); `None` if there are neither."""
    if not unknown and not lost:
        return None
    never = (
        "is never replayed (exact = False)"
        if limit is None
        else f"is not replayed: its episode was longer than replay_limit = {limit:,} steps"
    )
    differs = (
        "did not come back to the saved state when its episode was replayed: it is not deterministic, or its simulator "
        "has another version"
    )
    reasons = [
        f"Environment {', '.join(map(str, which))} {why}."
        for which, why in ((unknown, never), (lost, differs))
        if which
    ]
    return (
        f"{' '.join(reasons)} The running episode was cut and the next one begun: the run continues, but not bit for "
        "bit."
    )
