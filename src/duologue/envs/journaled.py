"""Base of all adapters of Gymnasium environments: a journal, and new environments in place of failed ones."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from duologue.envs.base import REPLAY_LIMIT, AbstractHostEnvs
from duologue.envs.journal import Journal, StepArrays, replay_episodes
from duologue.envs.results import GAME_RETURN
from duologue.envs.spaces import check_action, copy_obs, empty_arrays
from duologue.errors import EnvError
from duologue.types import EnvSpec, Obs, Step

Failures = dict[int, EnvError]
"""The errors of environments, by their index."""


class Restarts:
    """The restarts that are left: environments that may still be replaced after an error. The adapters of all seeds
    share them."""

    def __init__(self, most: int = 0):
        self.most = self.left = most


class JournaledEnvs(AbstractHostEnvs):
    """Environments whose running episodes a journal replays.

    A subclass steps, resets and replaces some of its environments. It calls `_start_journal` once it knows its spec,
    and whether its environments count the returns of their episodes. If an environment fails, it is replaced as long as
    `restarts` are left, and its running episode is truncated.
    """

    def _start_journal(
        self, spec: EnvSpec, num_envs: int, write: Callable[[Obs, int, Any], None],
        *, seed: int, purpose: str, limit: int | None = REPLAY_LIMIT, restarts: Restarts | None = None,
        info: tuple[str, ...] = (), counts_returns: bool = False,
    ) -> None:  # fmt: skip
        self.spec, self.num_envs, self._write, self._names = spec, num_envs, write, info
        self._known = {*info, *([GAME_RETURN] if counts_returns else [])}
        self._journal = Journal(seed, purpose, spec.action, num_envs, limit)
        self._obs = empty_arrays(spec.observation, num_envs)
        self._restarts, self._notes, self.restarts = restarts or Restarts(), [], 0
        self._report: Callable[[int, int], None] = lambda done, steps: None

    @abstractmethod
    def _step(self, indices: Sequence[int], action: np.ndarray, rows: StepArrays) -> Failures:
        """Step these environments, each with its row of `action`, and write the results into `rows`. Returns what
        failed; it may stop early if more failed than can be restarted."""

    @abstractmethod
    def _reset(self, indices: Sequence[int], obs: Obs) -> Failures:
        """Begin the journal's episodes in these environments, and write their first observations into `obs`. Returns
        what failed."""

    @abstractmethod
    def _replace(self, i: int) -> None:
        """Replace environment `i` by a new one. Raises `EnvError` if it cannot be made."""

    def _last_error(self, failures: Failures) -> EnvError:
        """The error that ends these environments."""
        return next(iter(failures.values()))

    def reset(self) -> Obs:
        self._journal.restart()
        self._obs = empty_arrays(self.spec.observation, self.num_envs)
        self._begin(range(self.num_envs), self._obs)
        self._journal.check_masks(self.spec.action, self._obs)
        return self._obs

    def step(self, action: np.ndarray) -> Step:
        action = check_action(action, self.spec.action, self.num_envs)
        rows = self._rows()
        self._journal.add(action, range(self.num_envs))
        self._step_or_cut(range(self.num_envs), action, rows)
        self._obs = rows.obs
        if rows.ended:
            self._obs = copy_obs(rows.obs)
            for i in rows.ended:
                self._journal.next_episode(i)
            self._begin(rows.ended, self._obs)
        self._journal.check_masks(self.spec.action, self._obs)
        self._known |= rows.info.keys()
        info = rows.info | restart_info(rows)
        return Step(self._obs, rows.obs, rows.reward, rows.terminated, rows.truncated, info)

    def cut_episodes(self, which: Sequence[int]) -> Obs:
        self._obs = copy_obs(self._obs)
        for i in which:
            self._journal.next_episode(i)
        self._begin(which, self._obs)
        self._journal.check_masks(self.spec.action, self._obs)
        return self._obs

    def snapshot(self) -> dict[str, np.ndarray]:
        return self._journal.snapshot(self._journal.moment(), self._obs)

    def mark(self) -> None:
        self._mark = self._journal.moment(), self._obs

    def marked_snapshot(self) -> dict[str, np.ndarray]:
        return self._journal.snapshot(*self._mark)

    def restore(self, snapshot: dict[str, np.ndarray]) -> tuple[Obs, str | None]:
        rows = self._rows()
        message = replay_episodes(
            self._journal, snapshot, rows, reset=self._begin, step=self._step_or_cut, report=self._report
        )
        self._obs = rows.obs
        self._journal.check_masks(self.spec.action, self._obs)
        return self._obs, message

    def report_replay(self, report: Callable[[int, int], None]) -> None:
        self._report = report

    def take_notes(self) -> list[str]:
        notes, self._notes = self._notes, []
        return notes

    def _rows(self) -> StepArrays:
        obs = empty_arrays(self.spec.observation, self.num_envs)
        return StepArrays(obs, self.num_envs, self._write, self._names, self._known)

    def _step_or_cut(self, indices: Sequence[int], action: np.ndarray, rows: StepArrays) -> None:
        """Step these environments. The episode of one that fails is cut."""
        if failures := self._step(indices, action, rows):
            self._restart(failures)
            for i in failures:
                rows.cut(i, self._obs)

    def _begin(self, indices: Sequence[int], obs: Obs) -> None:
        """Begin the journal's episodes. An environment whose reset fails begins its next episode."""
        while indices:
            failures = self._reset(indices, obs)
            self._restart(failures)
            for i in failures:
                self._journal.next_episode(i)
            indices = list(failures)

    def _restart(self, failures: Failures) -> None:
        """Replace the environments that failed. Raises `EnvError` if fewer restarts are left."""
        budget = self._restarts
        if len(failures) > budget.left:
            error = self._last_error(failures)
            if budget.most:
                error.args = (f"{error}\nNo restart is left: max_env_restarts = {budget.most:,}",)
            raise error
        for i, failure in failures.items():
            self._replace(i)
            budget.left -= 1
            self.restarts += 1
            what = str(failure).partition("\n")[0]
            self._notes.append(
                f"{what}. A new environment replaces it, restart {budget.most - budget.left:,} of {budget.most:,}."
            )


def restart_info(rows: StepArrays) -> dict[str, np.ndarray]:
    """`restarted` `[B]`, where a step has failed and its environment was replaced; empty if no step has."""
    return {"restarted": np.isin(np.arange(len(rows.reward)), rows.failed)} if rows.failed else {}
