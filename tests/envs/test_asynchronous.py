"""Environments in processes: the same bits, and no way to take a late answer for another."""

import os
import re
import signal
import threading
import time

import gymnasium as gym
import numpy as np
import pytest

from duologue.envs.asynchronous import AsyncGymnasiumEnvs
from duologue.envs.base import seed_of
from duologue.envs.make import make
from duologue.errors import ConfigError, EnvError


def seed_in(i):
    """The end of what is said of a failure in environment `i` of a run with seed 0."""
    return f"reset seed {seed_of(0, 'train', i, 0)}"


def test_processes_step_the_same_episodes_bit_for_bit():
    actions = np.random.default_rng(0).integers(2, size=(150, 2)).astype(np.int32)
    ours, theirs = make("CartPole-v1", 2, seed=4), make("CartPole-v1", 2, seed=4, asynchronous=True)
    try:
        np.testing.assert_array_equal(ours.reset(), theirs.reset())
        np.testing.assert_array_equal(ours.step(actions[0]).obs, theirs.step(actions[0]).obs)
        np.testing.assert_array_equal(ours.cut_episodes([1]), theirs.cut_episodes([1]))
        for action in actions[:100]:
            for a, b in zip(ours.step(action), theirs.step(action), strict=True):
                np.testing.assert_array_equal(a, b) if not isinstance(a, dict) else None
        snapshot = ours.snapshot()
        for name, array in theirs.snapshot().items():
            np.testing.assert_array_equal(array, snapshot[name])
        assert snapshot["episode"].min() > 0 and snapshot["length"].min() > 0
        # Back to the snapshot, and on from there.
        after = [ours.step(action).obs for action in actions[100:]]
        _, message = theirs.restore(snapshot)
        assert message is None
        for action, expected in zip(actions[100:], after, strict=True):
            np.testing.assert_array_equal(theirs.step(action).obs, expected)
        # A killed worker is noticed at once, and the pool is not used again.
        os.kill(theirs._pool.processes[1].pid, signal.SIGKILL)
        began = time.perf_counter()
        died = r"^environment 1 lost its process, exit code -9 \(at step \d+ of its episode \d+, reset seed \d+\)\. "
        with pytest.raises(EnvError, match=f"{died}.*num_envs"):
            for action in actions:
                theirs.step(action)
        assert time.perf_counter() - began < 5
        with pytest.raises(EnvError, match="ClosedEnvironmentError"):  # and not that all its processes were lost
            theirs.step(actions[0])
        assert not any(process.is_alive() for process in theirs._pool.processes)
    finally:
        theirs.close()


def test_successes_are_those_of_one_process():
    """Of two environments one reports nothing."""

    class Lucky(gym.Env):
        observation_space, action_space = gym.spaces.Box(0, 1, (1,)), gym.spaces.Discrete(2)

        def reset(self, *, seed=None, options=None):
            return np.zeros(1, np.float32), {}

        def step(self, action):
            return np.zeros(1, np.float32), 0.0, True, False, {"is_success": True} if action else {}

    actions = np.array([1, 0], np.int32)
    infos = []
    for asynchronous in (False, True):
        envs = make(Lucky, 2, seed=0, asynchronous=asynchronous)
        envs.reset()
        infos.append(envs.step(actions).info)
        envs.close()
    np.testing.assert_array_equal(infos[0]["is_success"], [1, np.nan])
    np.testing.assert_array_equal(infos[1]["is_success"], [1, np.nan])
    assert infos[0]["is_success"].dtype == infos[1]["is_success"].dtype == np.float32


def test_a_late_answer_ends_the_pool():
    class Slow(gym.Env):
        observation_space, action_space = gym.spaces.Box(0, 1, (1,)), gym.spaces.Discrete(2)

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            return np.zeros(1, np.float32), {}

        def step(self, action):
            if action:
                time.sleep(20)
            return np.zeros(1, np.float32), 0.0, False, False, {}

    envs = AsyncGymnasiumEnvs(Slow, 3, seed=0, timeout=0.5)
    envs.reset()
    envs.step(np.zeros(3, np.int32))
    late = [f"environment {i} gave no answer in 0.5 s (at step 1 of its episode 0, {seed_in(i)})" for i in (0, 2)]
    with pytest.raises(EnvError, match=f"^{re.escape('; '.join(late))}.*, 3, seed=…, timeout=2.5") as raised:
        envs.step(np.array([1, 0, 1], np.int32))
    assert "lost" not in str(raised.value)
    assert not any(process.is_alive() for process in envs._pool.processes)
    assert make(envs, 3) is envs  # what the message says can be passed on


class Faulty(gym.Env):
    """Told 1 it raises, told 2 it gives what is not in its space."""

    observation_space, action_space = gym.spaces.Discrete(3), gym.spaces.Discrete(3)

    def reset(self, *, seed=None, options=None):
        return 0, {}

    def step(self, action):
        if action == 1:
            raise ValueError("not one")
        return 7 if action == 2 else 0, 0.0, False, False, {}


@pytest.mark.parametrize(("action", "said"), [(1, "raised ValueError: not one"), (2, "gave the observation")])
def test_a_failure_is_told_as_in_one_process(action, said):
    told = []
    for asynchronous in (False, True):
        envs = make(Faulty, 2, seed=0, asynchronous=asynchronous)
        envs.reset()
        envs.step(np.zeros(2, np.int32))
        with pytest.raises(EnvError) as raised:
            envs.step(np.array([0, action], np.int32))
        told.append(str(raised.value))
        envs.close()
    assert told[0].startswith(f"environment 1 {said}")
    assert told[0].endswith(f"(at step 1 of its episode 0, {seed_in(1)})")
    first, *trace = told[1].splitlines()
    assert first == told[0]
    assert bool(trace) == (action == 1) and (not trace or trace[-1] == "ValueError: not one")


def early(length):
    """Episodes of some steps."""

    class Early(gym.Env):
        observation_space, action_space = gym.spaces.Box(0, 100, (1,)), gym.spaces.Discrete(2)

        def reset(self, *, seed=None, options=None):
            self.t = 0
            return np.zeros(1, np.float32), {}

        def step(self, action):
            assert self.t < length, "a step after the end"
            self.t += 1
            return np.full(1, self.t, np.float32), 0.0, self.t == length, False, {}

    return Early


@pytest.mark.parametrize("asynchronous", [False, True])
def test_an_episode_that_ends_before_its_time_is_lost_and_said(asynchronous):
    then, now = make(early(9), 2, seed=0), make(early(5), 2, seed=0, asynchronous=asynchronous)
    try:
        then.reset()
        for _ in range(7):
            then.step(np.zeros(2, np.int32))
        obs, message = now.restore(then.snapshot())
        assert message.startswith("Environment 0, 1 did not come back")
        np.testing.assert_array_equal(obs, 0)
        np.testing.assert_array_equal(now.step(np.zeros(2, np.int32)).obs, 1)
    finally:
        now.close()


def test_what_cannot_be_sent_to_a_process_is_refused():
    lock = threading.Lock()

    def locked():
        assert lock
        return gym.make("CartPole-v1")

    with pytest.raises(ConfigError, match=r"asynchronous: <.*locked> could not be sent to another process"):
        AsyncGymnasiumEnvs(locked, 1, seed=0)
