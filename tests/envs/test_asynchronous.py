"""Environments in processes: the same bits, and no way to take a late answer for another."""

import os
import signal
import threading
import time

import gymnasium as gym
import numpy as np
import pytest

from duologue.envs import make
from duologue.envs.asynchronous import AsyncGymnasiumEnvs
from duologue.errors import ConfigError, EnvError


def test_processes_step_the_same_episodes_bit_for_bit():
    actions = np.random.default_rng(0).integers(2, size=(150, 2)).astype(np.int32)
    ours, theirs = make("CartPole-v1", 2, seed=4), make("CartPole-v1", 2, seed=4, asynchronous=True)
    try:
        np.testing.assert_array_equal(ours.reset(), theirs.reset())
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
        with pytest.raises(EnvError, match="CartPole-v1 failed"):
            for action in actions:
                theirs.step(action)
        assert time.perf_counter() - began < 5
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

    envs = AsyncGymnasiumEnvs(Slow, 1, seed=0, timeout=0.5)
    envs.reset()
    envs.step(np.zeros(1, np.int32))
    with pytest.raises(EnvError, match=r"no answer in 0\.5 s"):
        envs.step(np.ones(1, np.int32))
    assert not any(process.is_alive() for process in envs._pool.processes)


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

    with pytest.raises(ConfigError, match=r"asynchronous: <.*locked> could not be sent to processes"):
        AsyncGymnasiumEnvs(locked, 1, seed=0)
