"""The process of one environment. It needs no JAX: it imports Gymnasium and the checks of results.

An error becomes text in its own process, because its class may be unknown in another one.
"""

import functools
import traceback
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

import gymnasium as gym
from gymnasium.vector.utils import CloudpickleWrapper

from duologue.envs.results import numbers_as_info, read_reset, read_step
from duologue.envs.wrappers import find_return_counter
from duologue.errors import EnvError


class Packed:
    """A factory of environments as bytes, which the process unpacks where it can report a failure. Making it raises the
    errors of pickling."""

    def __init__(self, factory: Callable[[], gym.Env]):
        self._state = CloudpickleWrapper(factory).__getstate__()

    def __call__(self) -> gym.Env:
        wrapper = CloudpickleWrapper(gym.Env)
        wrapper.__setstate__(self._state)
        return wrapper()


def with_registration(name: Any, factory: Callable[[], gym.Env]) -> Callable[[], gym.Env]:
    """`factory`, which also registers the id `name` as it is registered here: a process does not run the script."""
    spec = gym.registry.get(name) if isinstance(name, str) else None
    return factory if spec is None else functools.partial(_register_and_make, spec, factory)


def _register_and_make(spec: Any, factory: Callable[[], gym.Env]) -> gym.Env:
    gym.registry.setdefault(spec.id, spec)
    return factory()


def work(
    index: int, make: Callable[[], gym.Env], pipe: Connection, parent_pipe: Connection, _buffer: None, failures: Any,
    _autoreset: Any, _semaphore: None = None, *, names: tuple[str, ...] = (),
) -> None:  # fmt: skip
    """Make an environment, and answer the pool's commands with `(answer, True)`. After an error the answer is
    `(None, False)`, and the queue of failures has `(index, what happened, traceback)`; the traceback is empty for a
    result that is not allowed. `names` are the entries of `info` that travel. The other arguments are those of
    Gymnasium's own worker, which has `_semaphore` since 1.4."""
    parent_pipe.close()
    env, obs = None, None
    try:
        env = make()
        counter = find_return_counter(env)
        command, data = _next_command(pipe)
        while command != "close":
            match command:
                case "reset":
                    obs, info = read_reset(env.reset(seed=data["seed"]))
                    answer = obs, {"action_mask": True} if "action_mask" in info else {}
                case "step":
                    *step, numbers = read_step(env.step(data), names, counter)
                    obs, answer = step[0], (*step, numbers_as_info(numbers))
                case "spaces":
                    answer = env.observation_space, env.action_space
                case _:
                    raise ValueError(command)
            pipe.send((answer, True))
            command, data = _next_command(pipe)
        with suppress(OSError):
            pipe.send((None, True))
    except (Exception, SystemExit) as error:
        explained = isinstance(error, EnvError)  # its message says enough without a traceback
        what = str(error) if explained else f"raised {type(error).__name__}: {error}"
        failures.put((index, what, "" if explained else traceback.format_exc()))
        if env is None:  # the pool's first command is still unread
            _next_command(pipe)
        with suppress(OSError):
            pipe.send((None, False))
    finally:
        if env is not None:
            env.close()


def _next_command(pipe: Connection) -> tuple[str, Any]:
    """The next command of the pool, which is to close where the pool is gone."""
    try:
        return pipe.recv()
    except (EOFError, OSError):
        return "close", None
