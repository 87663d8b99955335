"""What goes wrong in the process of an environment is told as it is, and never as a fault of pickling."""

import multiprocessing
import os
import subprocess
import sys
import threading

import gymnasium as gym
import numpy as np
import pytest
from envs.scripted import Scripted

from duologue.envs.make import make
from duologue.errors import ConfigError, EnvError

ZERO = np.zeros(2, np.int32)


def in_child():
    return multiprocessing.parent_process() is not None


def failing_there(what):
    """Environments of which each calls `what` while it is made in its process."""

    class There(Scripted):
        def __init__(self):
            super().__init__(((False, False),) * 9)
            if multiprocessing.parent_process() is not None:
                what()

    return There


class Busy(Exception):
    """An error of the user's own, whose parts no pickle takes."""

    def __init__(self, port):
        super().__init__(f"port {port} is in use")
        self.lock = threading.Lock()


def busy():
    raise Busy(5005)


def divided():
    return 1 // 0


CHILD = {
    "an error of the user's own": (busy, "raised Busy: port 5005 is in use", "in busy"),
    "an error of Python": (divided, "raised ZeroDivisionError: integer division", "in divided"),
    "an exit": (lambda: sys.exit("no licence"), "raised SystemExit: no licence", "in <lambda>"),
    "an id": (lambda: gym.make("Nowhere-v0"), "raised NameNotFound: Environment `Nowhere` doesn't exist", "in make"),
}


@pytest.mark.parametrize("name", CHILD)
def test_what_a_process_raises_while_it_makes_its_environment_is_told(name):
    what, words, where = CHILD[name]
    with pytest.raises(EnvError, match=r"environment 0, <.*There>, could not be made in its process; it ") as raised:
        make(failing_there(what), 2, asynchronous=True)
    message = str(raised.value)
    assert words in message and "pickl" not in message.splitlines()[0] and "does not run your script" in message
    assert "Traceback (most recent call last)" in message and where in message
    assert not multiprocessing.active_children()


def test_a_process_that_ends_is_told_with_its_exit_code():
    with pytest.raises(EnvError, match=r"There> could not be made; environment 0 lost its process, exit code 7"):
        make(failing_there(lambda: os._exit(7)), 1, asynchronous=True)
    assert not multiprocessing.active_children()


class Unpacked:
    """Pickled well, it fails where it is unpickled in a process."""

    def __reduce__(self):
        return fail_there, ()


def fail_there():
    if in_child():
        raise FileNotFoundError("robot.urdf")


def test_what_cannot_be_unpacked_there_is_told():
    part = Unpacked()

    def source():
        assert part is not source
        return Scripted()

    with pytest.raises(EnvError, match=r"it raised FileNotFoundError: robot\.urdf.*\n(.*\n)*.*in fail_there"):
        make(source, 1, asynchronous=True)


def test_an_id_that_this_script_registers_is_known_there():
    """With its class, its arguments and its time limit."""

    class Short(Scripted):
        def __init__(self, script):
            super().__init__(script)

    gym.register("Mine/Short-v3", entry_point=Short, max_episode_steps=2, kwargs={"script": ((False, False),) * 9})
    try:
        envs = make("Mine/Short-v3", 2, asynchronous=True)
        envs.reset()
        assert [envs.step(ZERO).truncated.tolist() for _ in range(3)] == [[False] * 2, [True] * 2, [False] * 2]
        envs.close()
    finally:
        del gym.registry["Mine/Short-v3"]


ODD = {
    "four values": lambda obs: (obs, 1.0, False, {}),
    "a reward that is none": lambda obs: (obs, "much", False, False, {}),
    "a flag that is none": lambda obs: (obs, 1.0, None, False, {}),
    "a success that is none": lambda obs: (obs, 1.0, True, False, {"success": "yes"}),
}


@pytest.mark.parametrize("name", ODD)
def test_results_are_refused_there_as_in_one_process(name):
    told, fault = [], ODD[name]
    for asynchronous in (False, True):
        envs = make(lambda: Scripted(((False, False),) * 9, fault), 2, asynchronous=asynchronous)
        envs.reset()
        envs.step(ZERO)
        with pytest.raises(EnvError) as raised:
            envs.step(ZERO)
        told.append(str(raised.value))
        envs.close()
    assert told[0] == told[1]
    assert "Traceback" not in told[1]


def test_an_error_of_the_users_own_in_a_step_is_told():
    def fault(obs):
        raise Busy(80)

    envs = make(lambda: Scripted(((False, False),) * 9, fault), 1, asynchronous=True)
    envs.reset()
    envs.step(ZERO[:1])
    with pytest.raises(EnvError, match=r"^environment 0 raised Busy: port 80 is in use \(at step 1 of its episode 0"):
        envs.step(ZERO[:1])


def test_only_what_is_read_of_info_leaves_the_process():
    """A lock cannot be pickled."""
    envs = make(
        lambda: Scripted(((False, False),) * 9, lambda obs: (obs, 1.0, False, False, {"lock": threading.Lock()})), 1,
        asynchronous=True,
    )  # fmt: skip
    envs.reset()
    for _ in range(3):
        assert envs.step(ZERO[:1]).info == {}
    envs.close()


def test_a_process_needs_no_jax():
    code = "import sys, duologue.envs.worker; print('jax' in sys.modules, 'equinox' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).split() == ["False", "False"]


def test_spaces_that_differ_there_are_named():
    def source():
        env = Scripted()
        env.action_space = gym.spaces.Discrete(4 if multiprocessing.parent_process() is not None else 3, start=5)
        return env

    with pytest.raises(ConfigError, match=r"^environment 0 differs from one made in the main .*: action\.n = 4, not 3"):
        make(source, 1, asynchronous=True)
    assert not multiprocessing.active_children()
