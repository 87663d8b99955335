"""The processes of environments.

A server that holds only Gymnasium starts the processes. They are never forked from a process in which JAX runs.
"""

import atexit
import multiprocessing
import signal
import sys
import time
import warnings
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import connection, resource_tracker
from typing import Any

import gymnasium as gym
from gymnasium.vector.async_vector_env import AsyncState
from gymnasium.vector.utils import CloudpickleWrapper

from duologue.errors import EnvError

MAKING = 600.0
"""Seconds to wait for a new environment that replaces a failed one."""


class NoAnswer(EnvError):
    """A process that gave no answer: it is `late`, or it has ended."""

    def __init__(self, message: str, *, late: bool):
        super().__init__(message)
        self.late = late


class RemoteError(EnvError):
    """What happened to an environment in its process, with its index and the traceback."""

    def __init__(self, index: int, message: str, trace: str):
        super().__init__(message)
        self.index, self.trace = index, trace


class LostProcess(EnvError):
    """A process that ended before its environment was made."""


class Pool(gym.vector.AsyncVectorEnv):
    """Gymnasium's pool, with errors that name the environment and hold its traceback; Gymnasium only logs them. Its
    processes ignore SIGTERM, so they are killed."""

    def __init__(self, *args: Any, **options: Any):
        self.processes, self.parent_pipes, self.spaces = [], [], []
        self._told: dict[int, list[str]] = {}
        try:
            super().__init__(*args, **options)
        except BaseException as error:
            lost = {} if isinstance(error, RemoteError) else self._exit_codes()
            for process in self.processes:
                if process.pid is not None:
                    process.kill()
                    process.join()
            if lost:
                each = (f"environment {i} lost its process, exit code {code}" for i, code in lost.items())
                raise LostProcess("; ".join(each)) from error
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
            raise RemoteError(*min(failures))  # of the first environment

    def ask(self, commands: dict[int, Any], timeout: float) -> dict[int, Any]:
        """Send environments their commands. Returns the answers; in place of an answer the `EnvError` of a process that
        failed, that has ended, or that is silent for `timeout` seconds."""
        self._assert_is_running()
        for i, command in commands.items():
            with suppress(OSError):  # of a process that has ended, as its missing answer tells
                self.parent_pipes[i].send(command)
        until = time.perf_counter() + timeout
        return {i: self._answer(i, until, timeout) for i in commands}

    def _answer(self, i: int, until: float | None = None, timeout: float = 0.0) -> Any:
        pipe, process = self.parent_pipes[i], self.processes[i]
        try:
            if not pipe.poll(None if until is None else max(0.0, until - time.perf_counter())):
                return NoAnswer(f"gave no answer in {timeout:g} s", late=True)
            answer, made = pipe.recv()
        except (EOFError, OSError):
            process.join(1.0)  # a process closes its pipe shortly before it ends
            return NoAnswer(f"lost its process, exit code {process.exitcode}", late=False)
        return answer if made else self._remote_error(i)

    def _remote_error(self, i: int) -> RemoteError:
        """The error of environment `i` from the queue. The errors of other environments are kept for later calls."""
        while i not in self._told:
            index, *what = self.error_queue.get(timeout=5)
            self._told[index] = what
        return RemoteError(i, *self._told.pop(i))

    def replace(self, i: int) -> Any:
        """End the process of environment `i`, and make the environment in a new one. Returns its spaces; raises
        `EnvError` if it cannot be made."""
        process = self.processes[i]
        process.join(1.0)  # after an error it ends alone; until then it may hold the lock of the queue
        process.kill()
        process.join()
        process.close()
        self.parent_pipes[i].close()
        with quiet_start():
            processes = multiprocessing.get_context(self.context)
            self.parent_pipes[i], child = processes.Pipe()
            self.processes[i] = processes.Process(  # pyright: ignore[reportAttributeAccessIssue]
                target=self.worker, daemon=True,
                args=(
                    i, CloudpickleWrapper(self.env_fns[i]), child, self.parent_pipes[i], None, self.error_queue,
                    self.autoreset_mode,
                ),
            )  # fmt: skip
            self.processes[i].start()
            child.close()
        answer = self.ask({i: ("spaces", None)}, MAKING)[i]
        if isinstance(answer, EnvError):
            raise answer
        return answer

    def close_now(self) -> None:
        """End all processes without waiting for their answers."""
        with warnings.catch_warnings(action="ignore"):  # the pool warns that it does not wait, as intended
            self.close(terminate=True)

    def _exit_codes(self) -> dict[int, int | None]:
        """Exit code of every environment whose process has ended."""
        connection.wait([process.sentinel for process in self.processes], timeout=1.0)
        return {i: process.exitcode for i, process in enumerate(self.processes) if not process.is_alive()}


def _close_pool(pool: weakref.ref[Pool]) -> None:
    if (left := pool()) is not None and not left.closed:
        with suppress(Exception):
            left.close_now()


@contextmanager
def quiet_start() -> Iterator[None]:
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


def start_method() -> str:
    if "forkserver" in multiprocessing.get_all_start_methods():
        multiprocessing.set_forkserver_preload(["gymnasium"])
        return "forkserver"
    return "spawn"
