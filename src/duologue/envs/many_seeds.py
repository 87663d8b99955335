"""Environments of several seeds, stepped together. Every array has a leading axis of seeds, `[S, B]`."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from duologue.envs.base import AbstractHostEnvs
from duologue.envs.journal import kept_actions
from duologue.envs.results import missing_numbers
from duologue.errors import EnvError
from duologue.types import Obs, Step


class SeedEnvs(AbstractHostEnvs):
    """Adapters with the same spec, one for each seed. Each adapter gives the same results as alone."""

    def __init__(self, envs: Sequence[AbstractHostEnvs]):
        self._envs = list(envs)
        first = self._envs[0]
        self.spec, self.num_envs, self.notes = first.spec, first.num_envs, first.notes

    def reset(self) -> Obs:
        return stack_trees([self._of(i, envs.reset) for i, envs in enumerate(self._envs)])

    def step(self, action: np.ndarray) -> Step:
        steps = [self._of(i, envs.step, action[i]) for i, envs in enumerate(self._envs)]
        names = {name: None for step in steps for name in step.info}  # in order
        missing = {name: missing_numbers(name, self.num_envs) for name in names}
        info = stack_trees([missing | step.info for step in steps])
        together = stack_trees([step._replace(info={}) for step in steps])
        return together._replace(info=info)

    @property
    def restarts(self) -> np.ndarray:
        return np.asarray([envs.restarts for envs in self._envs])

    def snapshot(self) -> dict[str, np.ndarray]:
        """The arrays of the adapters, `[S, B]`. The actions of all running episodes follow one another in one array."""
        return join_snapshots([envs.snapshot() for envs in self._envs])

    def mark(self) -> None:
        for envs in self._envs:
            envs.mark()

    def marked_snapshot(self) -> dict[str, np.ndarray]:
        return join_snapshots([envs.marked_snapshot() for envs in self._envs])

    def report_replay(self, report: Callable[[int, int], None]) -> None:
        for envs in self._envs:
            envs.report_replay(report)

    def take_notes(self) -> list[str]:
        return [f"Seed number {i}: {note}" for i, envs in enumerate(self._envs) for note in envs.take_notes()]

    def restore(self, snapshot: dict[str, np.ndarray]) -> tuple[Obs, str | None]:
        ends = np.cumsum(kept_actions(snapshot["length"]).sum(-1))
        actions = np.split(snapshot["actions"], ends[:-1])
        restored = [
            self._of(i, envs.restore, {name: part[i] for name, part in {**snapshot, "actions": actions}.items()})
            for i, envs in enumerate(self._envs)
        ]
        messages = [f"Seed number {i}: {message}" for i, (_, message) in enumerate(restored) if message]
        return stack_trees([obs for obs, _ in restored]), " ".join(messages) or None

    def close(self) -> None:
        for envs in self._envs:
            envs.close()

    def reset_notes(self) -> list[str]:
        return self._envs[0].reset_notes()

    def _of(self, i: int, call: Callable[..., Any], *args: object) -> Any:
        try:
            return call(*args)
        except EnvError as error:
            error.args = (f"Seed number {i}: {error}",)
            raise


def join_snapshots(snapshots: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """One snapshot of several adapters: their arrays stacked, their actions one after another."""
    join = {name: np.concatenate if name == "actions" else np.stack for name in snapshots[0]}
    return {name: put([snapshot[name] for snapshot in snapshots]) for name, put in join.items()}


def stack_trees(parts: Sequence[Obs]) -> Obs:
    """Stack arrays, or trees of arrays, along a new first axis."""
    return jax.tree.map(lambda *each: np.stack(each), *parts)
