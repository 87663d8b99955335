"""Gymnasium environments, each in a process of its own: for simulators that take longer than passing messages.

Processes are started by a server that holds Gymnasium and nothing else, never by forking a process in which JAX runs.
"""

import multiprocessing
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import gymnasium as gym
import numpy as np

from duologue.envs.base import AbstractHostEnvs, seed_of
from duologue.envs.gymnasium import History, Maker, digests, made, maker, not_the_same, spec_of
from duologue.envs.spaces import Rows, door
from duologue.errors import EnvError
from duologue.types import EnvSpec, Obs, Step

TIMEOUT = 60.0
"""Seconds to wait for the slowest environment."""


@contextmanager
def _hidden_main() -> Iterator[None]:
    """Children do not run the user's script again: so it needs no main guard, and its imports are not repeated."""
    main = sys.modules["__main__"].__dict__
    hidden = {name: main[name] for name in ("__file__", "__spec__") if name in main}
    main.pop("__file__", None)
    main["__spec__"] = None
    try:
        yield
    finally:
        main.update(hidden)


def _context() -> str:
    if "forkserver" in multiprocessing.get_all_start_methods():
        multiprocessing.set_forkserver_preload(["gymnasium"])
        return "forkserver"
    return "spawn"


class AsyncGymnasiumEnvs(AbstractHostEnvs):
    """`GymnasiumEnvs` in processes: the same episodes, bit for bit. A pool that failed or timed out is ended, never
    reused."""

    spec: EnvSpec

    def __init__(
        self,
        env: str | Maker,
        num_envs: int,
        *,
        seed: int,
        purpose: str = "train",
        max_episode_steps: int | None = None,
        timeout: float = TIMEOUT,
    ):
        make = maker(env, max_episode_steps)
        one = made(env, make)
        self.spec, self._door = spec_of(env, one, max_episode_steps), door(one.action_space)
        self._rows, self._history = Rows(self.spec.observation), History(num_envs)
        one.close()
        self.num_envs, self._seed, self._purpose, self._timeout = num_envs, seed, purpose, timeout
        with _hidden_main():
            self._pool = gym.vector.AsyncVectorEnv(
                [make] * num_envs, context=_context(), autoreset_mode=gym.vector.AutoresetMode.DISABLED
            )

    def reset(self) -> Obs:
        self._history = History(self.num_envs)
        self._obs = self._begin(np.ones(self.num_envs, bool))
        return self._rows.build(self._obs)

    def step(self, action: np.ndarray) -> Step:
        self._history.note(action)
        self._ask(lambda: self._pool.step_async(self._door(action)))
        seen, reward, terminated, truncated, _ = self._ask(lambda: self._pool.step_wait(self._timeout))
        next_obs, ended = self._rows.columns(seen), terminated | truncated
        obs = next_obs
        if ended.any():
            for i in np.flatnonzero(ended).tolist():
                self._history.end(i)
            obs = self._begin(ended)
        self._obs = obs
        built = self._rows.build(next_obs)
        after = built if obs is next_obs else self._rows.build(obs)
        return Step(after, built, np.asarray(reward, np.float32), np.array(terminated), np.array(truncated), {})

    def snapshot(self) -> dict[str, np.ndarray]:
        return self._history.snapshot() | {"digest": digests(self._obs)}

    def restore(self, snapshot: dict[str, np.ndarray]) -> tuple[Obs, str | None]:
        """As in one process, but all step together: those whose episode is younger are reset until their time comes."""
        self._history, lengths = History.of(snapshot), snapshot["lengths"]
        obs = self._rows.empty(self.num_envs)
        for t, action in enumerate([*self._history.actions, None]):
            waiting = lengths.max() - lengths >= t
            obs = self._begin(waiting) if waiting.any() else obs
            if action is not None:
                self._ask(lambda action=action: self._pool.step_async(self._door(action)))
                obs = self._rows.columns(self._ask(lambda: self._pool.step_wait(self._timeout))[0])
        different = digests(obs) != snapshot["digest"]
        for i in np.flatnonzero(different).tolist():
            self._history.end(i)
        self._obs = self._begin(different) if different.any() else obs
        return self._rows.build(self._obs), not_the_same(np.flatnonzero(different).tolist(), self.spec.id)

    def close(self) -> None:
        self._pool.close(terminate=True)

    def _begin(self, which: np.ndarray) -> list[np.ndarray]:
        """Reset some environments, each with the seed of its episode; the observations of all, as they are then."""
        seeds = [
            seed_of(self._seed, self._purpose, i, int(self._history.episodes[i])) if reset else None
            for i, reset in enumerate(which)
        ]
        self._ask(lambda: self._pool.reset_async(seed=seeds, options={"reset_mask": which}))
        return self._rows.columns(self._ask(lambda: self._pool.reset_wait(self._timeout))[0])

    def _ask(self, what: Callable[[], Any]) -> Any:
        try:
            return what()
        except Exception as error:
            # A late answer would be taken for the next one: this pool is done with.
            self._pool.close(terminate=True)
            reason = (
                f"no answer in {self._timeout:g} s"
                if isinstance(error, TimeoutError | multiprocessing.TimeoutError)
                else str(error)
            )
            raise EnvError(
                f"One of the {self.num_envs} processes of {self.spec.id} failed ({type(error).__name__}: {reason}). "
                "Its own traceback stands above; without `asynchronous` the message names environment and step."
            ) from error
