"""Gymnasium environments, each in its own process: for simulators whose step takes longer than a message."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np

from duologue.envs.base import REPLAY_LIMIT
from duologue.envs.differences import check_same_spec
from duologue.envs.gymnasium import GymSource, env_spec, factory_of, name_of, open_env
from duologue.envs.journal import StepArrays
from duologue.envs.journaled import Failures, JournaledEnvs, Restarts
from duologue.envs.masks import gives_mask, unused_mask_notes
from duologue.envs.pool import LostProcess, NoAnswer, Pool, RemoteError, quiet_start, start_method
from duologue.envs.spaces import action_space, obs_writer, observation_space, split_actions
from duologue.envs.worker import Packed, with_registration, work
from duologue.envs.wrappers import find_return_counter, statistics_notes
from duologue.errors import ConfigError, EnvError
from duologue.types import Obs, to_env_actions

TIMEOUT = 60.0
"""Seconds to wait for the slowest environment."""


class AsyncGymnasiumEnvs(JournaledEnvs):
    """`num_envs` environments, each in its own process; the episodes are those of `GymnasiumEnvs`, bit for bit.

    `info` names the numbers that a step copies from the `info` of each environment into its own. A process fails with
    its environment, if it ends, or if it does not answer within `timeout` seconds. Without `restarts` left, the pool
    closes then and raises `EnvError`; it cannot be used again. Raises `ConfigError` for a `make` that cannot be
    pickled, and `EnvError` for an environment that cannot be made in its process.
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
        replay_limit: int | None = REPLAY_LIMIT,
        restarts: Restarts | None = None,
    ):
        factory = with_registration(make, factory_of(make, max_episode_steps))
        one = open_env(factory, make, max_episode_steps)
        spec, self.notes, self._timeout = env_spec(one, make), statistics_notes(one), timeout
        self._mask_notes = {given: unused_mask_notes(spec, one, in_info=given) for given in (False, True)}
        self._gives_mask = False
        one.close()
        self._start_journal(
            spec, num_envs, obs_writer(one.observation_space),
            seed=seed, purpose=purpose, limit=replay_limit, restarts=restarts, info=info,
            counts_returns=find_return_counter(one) is not None,
        )  # fmt: skip
        self._pool = _open_pool(_pack(factory, name_of(make)), num_envs, name_of(make), info)
        self._first = replace(spec, observation=observation_space(one.observation_space))
        for i, spaces in enumerate(self._pool.spaces):
            self._check_spaces(i, *spaces)

    def close(self) -> None:
        self._pool.close_now()

    def reset_notes(self) -> list[str]:
        return self._mask_notes[self._gives_mask]

    def _check_spaces(self, i: int, observation: gym.Space, action: gym.Space) -> None:
        """Raise `ConfigError` for other spaces than those of an environment in this process."""
        there = replace(self._first, observation=observation_space(observation), action=action_space(action))
        try:
            check_same_spec(i, there, self._first, "one made in the main process")
        except ConfigError:
            self.close()
            raise

    def _step(self, indices: Sequence[int], action: np.ndarray, rows: StepArrays) -> Failures:
        commands = split_actions(self.spec.action, to_env_actions(self.spec.action, action))
        return self._ask({i: ("step", commands[i]) for i in indices}, rows.put)

    def _reset(self, indices: Sequence[int], obs: Obs) -> Failures:
        def put(i: int, answer: Any) -> None:
            first, info = answer
            self._write(obs, i, first)
            self._gives_mask = self._gives_mask or gives_mask(info)

        return self._ask({i: ("reset", {"seed": self._journal.seed(i)}) for i in indices}, put)

    def _replace(self, i: int) -> None:
        try:
            spaces = self._pool.replace(i)
        except EnvError as error:
            self.close()
            raise EnvError(f"environment {i} could not be replaced; the new one {error}{error_trace(error)}") from error
        self._check_spaces(i, *spaces)

    def _ask(self, commands: dict[int, Any], put: Callable[[int, Any], None]) -> Failures:
        """Send the processes their commands, and call `put(i, answer)` for each answer."""
        try:
            answers = self._pool.ask(commands, self._timeout)
        except Exception as error:
            self.close()
            raise EnvError(f"The processes of {self.spec.id} failed. {type(error).__name__}: {error}") from error
        failures: Failures = {}
        for i, answer in answers.items():
            try:
                if isinstance(answer, EnvError):
                    raise answer
                put(i, answer)
            except Exception as error:
                failures[i] = self._journal.failure(i, error, error_trace(error))
        return failures

    def _last_error(self, failures: Failures) -> EnvError:
        """The first error that a process could tell. If none could, the error names every silent environment, and the
        remedy."""
        self.close()
        causes = {i: failure.__cause__ for i, failure in failures.items()}
        if known := [failures[i] for i, cause in causes.items() if not isinstance(cause, NoAnswer)]:
            return known[0]
        late = [isinstance(cause, NoAnswer) and cause.late for cause in causes.values()]
        longer = (
            f" If a step may take that long, pass environments with a longer timeout: env=AsyncGymnasiumEnvs(…, "
            f"{self.num_envs}, seed=…, timeout={5 * self._timeout:g}), from duologue.envs.asynchronous."
        )
        fewer = " Its simulator crashed, or the process was killed. If memory ran out, use a smaller num_envs."
        remedies = longer * any(late) + fewer * (not all(late))
        return EnvError(f"{'; '.join(map(str, failures.values()))}.{remedies}")


def error_trace(error: Exception) -> str:
    """The traceback of another process, from a new line on; empty without one."""
    return f"\n{error.trace}" if isinstance(error, RemoteError) and error.trace else ""


def _pack(factory: Callable[[], gym.Env], name: str) -> Packed:
    """`factory` as bytes for another process. Raises `ConfigError` where it cannot be pickled."""
    try:
        return Packed(factory)
    except Exception as error:
        raise ConfigError(
            f"asynchronous: {name} could not be sent to another process; {type(error).__name__}: {error}. All objects "
            "that it uses must be picklable. Make them inside the function, or leave out asynchronous."
        ) from error


def _open_pool(packed: Packed, num_envs: int, name: str, info: tuple[str, ...]) -> "Pool":
    """A pool in which every environment is made. Raises `EnvError`, with the traceback of the process that failed."""
    script = "The process does not run your script: make, import and register inside the function all that it needs"
    try:
        with quiet_start():
            # No shared memory, because it would silently broadcast an observation of another shape.
            return Pool(
                [packed] * num_envs,
                context=start_method(),
                shared_memory=False,
                autoreset_mode=gym.vector.AutoresetMode.DISABLED,
                worker=functools.partial(work, names=info),
            )
    except RemoteError as error:
        raise EnvError(
            f"asynchronous: environment {error.index}, {name}, could not be made in its process; it {error}. {script}, "
            f"or leave out asynchronous.\n{error.trace}"
        ) from error
    except LostProcess as error:
        raise EnvError(f"asynchronous: {name} could not be made; {error}. Leave out asynchronous.") from error
    except Exception as error:
        raise EnvError(f"{name} could not be made again; it raised {type(error).__name__}: {error}") from error
