"""Gymnasium environments, each in its own process: for simulators whose step takes longer than a message.

A server that holds only Gymnasium starts the processes. They are never forked from a process in which JAX runs.
"""

import atexit
import functools
import multiprocessing
import signal
import sys
import warnings
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from multiprocessing import connection, resource_tracker
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector.async_vector_env import AsyncState

from duologue.envs.base import AbstractHostEnvs
from duologue.envs.differences import check_same_spec
from duologue.envs.gymnasium import GymSource, env_spec, factory_of, name_of, open_env
from duologue.envs.journal import Journal, digest, lost_message
from duologue.envs.masks import gives_mask, unused_mask_notes
from duologue.envs.results import GAME_RETURN, pool_numbers
from duologue.envs.spaces import action_space, check_action, empty_arrays, obs_writer, observation_space, split_actions
from duologue.envs.worker import Packed, with_registration, work
from duologue.envs.wrappers import find_return_counter, statistics_notes
from duologue.errors import ConfigError, EnvError
from duologue.types import Obs, Step, to_env_actions

TIMEOUT = 60.0
"""Seconds to wait for the slowest environment."""


class AsyncGymnasiumEnvs(AbstractHostEnvs):
    """`num_envs` environments, each in its own process; the episodes are those of `GymnasiumEnvs`, bit for bit.

    `info` names the numbers that a step copies from the `info` of each environment into its own. If a process fails, or
    does not answer within `timeout` seconds, the pool closes and raises `EnvError`; it cannot be used again. Raises
    `ConfigError` for a `make` that cannot be pickled, and `EnvError` for an environment that cannot be made in its
    process.
    """

    def __init__(
        self,
        make: GymSource,
        num_envs: int,
        *,
        seed: int,
        purpose: str = "train",
        max_episode_steps: int | None = None,
        timeout: float = TIMEOUT,
        info: tuple[str, ...] = (),
    ):
        factory = with_registration(make, factory_of(make, max_episode_steps))
        one = open_env(factory, make, max_episode_steps)
        self.spec, self.num_envs, self.notes = env_spec(one, make), num_envs, statistics_notes(one)
        self._write = obs_writer(one.observation_space)
        self._mask_notes = {given: unused_mask_notes(self.spec, one, in_info=given) for given in (False, True)}
        self._gives_mask = False
        self._known = {*info, *([GAME_RETURN] if find_return_counter(one) else [])}
        one.close()
        self._journal, self._timeout = Journal(seed, purpose, num_envs), timeout
        self._pool = _open_pool(_pack(factory, name_of(make)), num_envs, name_of(make), info)
        first = replace(self.spec, observation=observation_space(one.observation_space))
        try:
            for i, (observation, action) in enumerate(self._pool.spaces):
                there = replace(self.spec, observation=observation_space(observation), action=action_space(action))
                check_same_spec(i, there, first, "one made in the main process")
        except ConfigError:
            self.close()
            raise

    def reset(self) -> Obs:
        self._journal.restart()
        self._obs = self._begin(np.ones(self.num_envs, bool))
        self._journal.check_masks(self.spec.action, self._obs)
        return self._obs

    def step(self, action: np.ndarray) -> Step:
        action = check_action(action, self.spec.action, self.num_envs)
        self._journal.actions.append(action)
        seen, reward, terminated, truncated, info = self._step(action)
        next_obs, ended = self._batch(seen), np.asarray(terminated | truncated, bool)
        for i in np.flatnonzero(ended).tolist():
            self._journal.next_episode(i)
        self._obs = self._begin(ended) if ended.any() else next_obs
        self._journal.check_masks(self.spec.action, self._obs)
        flags = np.array(terminated, bool), np.array(truncated, bool)
        numbers = pool_numbers(info, self._known, self.num_envs)
        self._known |= numbers.keys()
        return Step(self._obs, next_obs, np.array(reward, np.float32), *flags, numbers)

    def snapshot(self) -> dict[str, np.ndarray]:
        return self._journal.snapshot(self.spec.action, self._obs)

    def restore(self, snapshot: dict[str, np.ndarray]) -> tuple[Obs, str | None]:
        """As `AbstractHostEnvs.restore`. All environments step together here. An environment with a shorter episode is
        reset at each step until its episode begins. If an episode ends too early, its environment is lost and is reset
        at each further step."""
        self._journal.load(snapshot)
        obs, lengths = empty_arrays(self.spec.observation, self.num_envs), snapshot["length"]
        lost = np.zeros(self.num_envs, bool)
        for t, action in enumerate([*self._journal.actions, None]):
            waiting = (lengths.max() - lengths >= t) | lost
            obs = self._begin(waiting) if waiting.any() else obs
            if action is not None:
                seen, _, terminated, truncated, _ = self._step(action)
                obs = self._batch(seen)
                lost |= np.asarray(terminated | truncated, bool) & (lengths.max() - lengths <= t)
        saved = snapshot["obs_sha256"]
        lost |= np.asarray([not np.array_equal(digest(obs, i), saved[i]) for i in range(self.num_envs)])
        for i in np.flatnonzero(lost).tolist():
            self._journal.next_episode(i)
        self._obs = self._begin(lost) if lost.any() else obs
        self._journal.check_masks(self.spec.action, self._obs)
        return self._obs, lost_message(np.flatnonzero(lost).tolist())

    def close(self) -> None:
        with warnings.catch_warnings(action="ignore"):  # the pool warns that it does not wait for answers, as intended
            self._pool.close(terminate=True)

    def cut_episodes(self, which: Sequence[int]) -> Obs:
        for i in which:
            self._journal.next_episode(i)
        cut = np.isin(np.arange(self.num_envs), which)
        self._obs = self._begin(cut)
        self._journal.check_masks(self.spec.action, self._obs)
        return self._obs

    def reset_notes(self) -> list[str]:
        return self._mask_notes[self._gives_mask]

    def _begin(self, which: np.ndarray) -> Obs:
        """Begin the journal's episodes in the environments `which`. Returns the observations of all environments."""
        seeds = [self._journal.seed(i) if begins else None for i, begins in enumerate(which)]
        self._ask(lambda: self._pool.reset_async(seed=seeds, options={"reset_mask": which}))
        obs, info = self._ask(lambda: self._pool.reset_wait(self._timeout))
        self._gives_mask = self._gives_mask or gives_mask(info)
        return self._batch(obs)

    def _step(self, action: np.ndarray) -> Any:
        commands = split_actions(self.spec.action, to_env_actions(self.spec.action, action))
        self._ask(lambda: self._pool.step_async(commands))
        return self._ask(lambda: self._pool.step_wait(self._timeout))

    def _batch(self, seen: Any) -> Obs:
        """The observations of the processes in fresh arrays, each row checked."""
        obs = empty_arrays(self.spec.observation, self.num_envs)
        for i in range(self.num_envs):
            one = {name: part[i] for name, part in seen.items()} if isinstance(seen, dict) else seen[i]
            try:
                self._write(obs, i, one)
            except EnvError as error:
                self.close()
                raise self._journal.failure(i, error) from error
        return obs

    def _ask(self, what: Callable[[], Any]) -> Any:
        """The result of a call to the pool. On an error the pool closes: the next call would read a late result."""
        try:
            return what()
        except _RemoteError as error:
            self.close()
            raise self._journal.failure(error.index, error, f"\n{error.trace}" if error.trace else "") from error
        except Exception as error:
            late = isinstance(error, TimeoutError | multiprocessing.TimeoutError)
            absent = {} if self._pool.closed else self._pool.missing_answers(late=late)
            self.close()
            raise self._no_answer_error(absent, error) from error

    def _no_answer_error(self, absent: dict[int, int | None], error: Exception) -> EnvError:
        """Error that names the environments `absent` (from `_Pool.missing_answers`), and the remedy."""
        if not absent:
            return EnvError(f"The processes of {self.spec.id} failed. {type(error).__name__}: {error}")
        what = {
            i: f"gave no answer in {self._timeout:g} s" if code is None else f"lost its process, exit code {code}"
            for i, code in absent.items()
        }
        failures = [str(self._journal.failure(i, EnvError(each))) for i, each in what.items()]
        longer = (
            f" If a step may take that long, pass environments with a longer timeout: env=AsyncGymnasiumEnvs(…, "
            f"{self.num_envs}, seed=…, timeout={5 * self._timeout:g}), from duologue.envs.asynchronous."
        )
        fewer = " Its simulator crashed, or the process was killed. If memory ran out, use a smaller num_envs."
        remedies = longer * (None in absent.values()) + fewer * any(code is not None for code in absent.values())
        return EnvError(f"{'; '.join(failures)}.{remedies}")


def _pack(factory: Callable[[], gym.Env], name: str) -> Packed:
    """`factory` as bytes for another process. Raises `ConfigError` where it cannot be pickled."""
    try:
        return Packed(factory)
    except Exception as error:
        raise ConfigError(
            f"asynchronous: {name} could not be sent to another process; {type(error).__name__}: {error}. All objects "
            "that it uses must be picklable. Make them inside the function, or leave out asynchronous."
        ) from error


def _open_pool(packed: Packed, num_envs: int, name: str, info: tuple[str, ...]) -> "_Pool":
    """A pool in which every environment is made. Raises `EnvError`, with the traceback of the process that failed."""
    script = "The process does not run your script: make, import and register inside the function all that it needs"
    try:
        with _quiet_start():
            # No shared memory, because it would silently broadcast an observation of another shape.
            return _Pool(
                [packed] * num_envs,
                context=_start_method(),
                shared_memory=False,
                autoreset_mode=gym.vector.AutoresetMode.DISABLED,
                worker=functools.partial(work, names=info),
            )
    except _RemoteError as error:
        raise EnvError(
            f"asynchronous: environment {error.index}, {name}, could not be made in its process; it {error}. {script}, "
            f"or leave out asynchronous.\n{error.trace}"
        ) from error
    except _LostProcess as error:
        raise EnvError(f"asynchronous: {name} could not be made; {error}. Leave out asynchronous.") from error
    except Exception as error:
        raise EnvError(f"{name} could not be made again; it raised {type(error).__name__}: {error}") from error


class _RemoteError(EnvError):
    """What happened to an environment in its process, with its index and the traceback."""

    def __init__(self, index: int, message: str, trace: str):
        super().__init__(message)
        self.index, self.trace = index, trace


class _LostProcess(EnvError):
    """A process that ended before its environment was made."""


class _Pool(gym.vector.AsyncVectorEnv):
    """Gymnasium's pool, with errors that name the environment and hold its traceback; Gymnasium only logs them. Its
    processes ignore SIGTERM, so they are killed."""

    def __init__(self, *args: Any, **options: Any):
        self.processes, self.parent_pipes, self.spaces = [], [], []
        try:
            super().__init__(*args, **options)
        except BaseException as error:
            lost = {} if isinstance(error, _RemoteError) else self.missing_answers(late=False)
            for process in self.processes:
                if process.pid is not None:
                    process.kill()
                    process.join()
            if lost:
                each = (f"environment {i} lost its process, exit code {code}" for i, code in lost.items())
                raise _LostProcess("; ".join(each)) from error
            raise
        atexit.register(_close_pool, weakref.ref(self))  # runs before multiprocessing's own handler, which would wait

    def close_extras(self, timeout: float | None = None, terminate: bool = False) -> None:
        if terminate:
            self._state = AsyncState.DEFAULT  # does not wait for the last call
            for process in self.processes:
                process.kill()
        super().close_extras(timeout, terminate)

    def _check_spaces(self) -> None:
        """Wait until every environment is made, and take its spaces. The pool calls this when it opens."""
        for pipe in self.parent_pipes:
            pipe.send(("spaces", None))
        answers = [pipe.recv() for pipe in self.parent_pipes]
        self._raise_if_errors([made for _, made in answers])
        self.spaces = [spaces for spaces, _ in answers]

    def _raise_if_errors(self, successes: Any) -> None:
        if failures := [self.error_queue.get(timeout=5) for success in successes if not success]:
            raise _RemoteError(*min(failures))  # of the first environment

    def missing_answers(self, *, late: bool) -> dict[int, int | None]:
        """Exit code of every environment whose process has ended. If an answer is `late`, also `None` for every
        environment that has not answered."""
        if not late:  # a process closes its pipe shortly before it ends
            connection.wait([process.sentinel for process in self.processes], timeout=1.0)
        every = zip(self.processes, self.parent_pipes, strict=True)
        return {
            i: process.exitcode
            for i, (process, pipe) in enumerate(every)
            if not process.is_alive() or (late and not pipe.poll())
        }


def _close_pool(pool: weakref.ref[_Pool]) -> None:
    if (left := pool()) is not None and not left.closed:
        with suppress(Exception), warnings.catch_warnings(action="ignore"):
            left.close(terminate=True)


@contextmanager
def _quiet_start() -> Iterator[None]:
    """A context in which processes start. They do not run the user's script again, so it needs no main guard. They
    ignore Ctrl-C and SIGTERM: terminals and schedulers send these to all processes, and the parent handles them."""
    main = sys.modules["__main__"].__dict__
    hidden = {name: main[name] for name in ("__file__", "__spec__") if name in main}
    main.pop("__file__", None)
    main["__spec__"] = None
    resource_tracker.ensure_running()  # first, because it unblocks both signals when it starts
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        main.update(hidden)


def _start_method() -> str:
    if "forkserver" in multiprocessing.get_all_start_methods():
        multiprocessing.set_forkserver_preload(["gymnasium"])
        return "forkserver"
    return "spawn"
