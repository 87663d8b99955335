"""Environments that fail: their error, or a fresh environment in their place and a cut episode."""

import os
import sys

import gymnasium as gym
import jax.numpy as jnp
import numpy as np
import pytest

from duologue.envs.gymnasium import GymnasiumEnvs
from duologue.envs.journaled import Restarts
from duologue.envs.make import make, make_seeds
from duologue.envs.tasks import Tasks
from duologue.errors import ConfigError, EnvError

FAULTS = {
    "raise": lambda t: 1 / 0,
    "exit": lambda t: sys.exit("no licence"),
    "shape": lambda t: (np.zeros(3, np.float32), 0.0, False, False, {}),
    "old": lambda t: (np.zeros(1, np.float32), 0.0, False, {}),
}


class Fragile(gym.Env):
    """Observation: the step. Told 3 it fails, told 2 its episode ends. It counts its kind."""

    observation_space, action_space = gym.spaces.Box(-100, 100, (1,)), gym.spaces.Discrete(4)
    alive, made, bad_resets = 0, 0, ()

    def __init__(self, fault=FAULTS["raise"]):
        self.fault, self.t, self.resets = fault, 0, 0
        type(self).made, type(self).alive = self.made + 1, self.alive + 1

    def close(self):
        type(self).alive = self.alive - 1

    def reset(self, *, seed=None, options=None):
        self.resets, self.t = self.resets + 1, 0
        if self.resets in self.bad_resets:
            raise OSError("no power")
        return np.zeros(1, np.float32), {}

    def step(self, action):
        if action == 3:
            return self.fault(self.t)
        self.t += 1
        return np.full(1, self.t, np.float32), 5.0, action == 2, False, {}


@pytest.fixture
def kind():
    """A class of its own, which counts from 0."""
    return type("Kind", (Fragile,), {"made": 0, "alive": 0})


def act(*actions):
    return np.array(actions, np.int32)


@pytest.mark.parametrize(("fault", "asynchronous"), [*((name, False) for name in FAULTS), ("die, then exit", True)])
def test_a_failed_step_is_a_cut_row_and_the_environment_a_new_one(fault, asynchronous):
    """By hand: reward 0, truncated, its successor the observation acted on; the others step as if nothing was."""
    what = FAULTS.get(fault, lambda t: os._exit(7) if t == 1 else sys.exit("no licence"))
    envs = make(lambda: Fragile(what), 3, asynchronous=asynchronous, restarts=Restarts(1))
    try:
        envs.reset()
        envs.step(act(0, 0, 0))
        seen = envs.step(act(2, 3, 0))
        assert seen.next_obs.ravel().tolist() == [2, 1, 2] and seen.obs.ravel().tolist() == [0, 0, 2]
        assert seen.reward.tolist() == [5, 0, 5]
        assert seen.terminated.tolist() == [True, False, False] and seen.truncated.tolist() == [False, True, False]
        assert seen.info["restarted"].tolist() == [False, True, False] and envs.restarts == 1
        (note,) = envs.take_notes()
        assert (
            "environment 1 " in note
            and note.endswith("A new environment replaces it, restart 1 of 1.")
            and "\n" not in note
        )
        assert envs.take_notes() == []
        after = envs.step(act(0, 0, 0))
        assert after.obs.ravel().tolist() == [1, 1, 3] and "restarted" not in after.info
        snapshot = envs.snapshot()
        assert snapshot["episode"].tolist() == [1, 1, 0] and snapshot["length"].tolist() == [1, 1, 3]
        with pytest.raises(EnvError, match=r"^environment 2 (?s:.*)\nNo restart is left: max_env_restarts = 1$"):
            envs.step(act(0, 0, 3))
    finally:
        envs.close()


def test_without_restarts_the_first_error_stops_at_once(kind):
    envs = GymnasiumEnvs(kind, 3, seed=0)
    envs.reset()
    envs.mark()
    with pytest.raises(EnvError, match=r"^environment 1 raised ZeroDivisionError: .*seed \d+\)$") as raised:
        envs.step(act(0, 3, 0))
    assert isinstance(raised.value.__cause__, ZeroDivisionError)
    assert [env.t for env in envs._envs] == [1, 0, 0]
    assert envs.marked_snapshot()["length"].tolist() == [0, 0, 0]


def test_old_environments_are_closed_whatever_closing_does(kind):
    class Stuck(kind):
        def close(self):
            super().close()
            raise OSError("cannot close")

    envs = GymnasiumEnvs(Stuck, 2, seed=0, restarts=Restarts(5))
    envs.reset()
    for _ in range(5):
        envs.step(act(0, 3))
    assert Stuck.made == 7 and Stuck.alive == 2


@pytest.mark.parametrize("first", [True, False])
def test_a_failed_reset_begins_the_next_episode_of_a_new_environment(kind, first):
    kind.bad_resets = (1,) if first else (2,)
    tries = []

    def fresh():
        env = kind()
        tries.append(env)
        env.bad_resets = kind.bad_resets if len(tries) == 1 else ()
        return env

    envs = GymnasiumEnvs(fresh, 1, seed=0, restarts=Restarts(1))
    envs.reset()
    if not first:
        seen = envs.step(act(2))
        assert seen.terminated.all() and not seen.truncated.any() and "restarted" not in seen.info
    assert envs.restarts == 1 and envs.snapshot()["episode"].tolist() == [1 if first else 2]
    assert "raised OSError: no power (at the reset of its episode" in envs.take_notes()[0]


def test_a_reset_that_always_fails_stops_at_the_limit(kind):
    kind.bad_resets = (1,)
    envs = GymnasiumEnvs(kind, 1, seed=0, restarts=Restarts(4))
    with pytest.raises(EnvError, match=r"at the reset of its episode 4, .*\nNo restart is left: max_env_restarts = 4"):
        envs.reset()
    assert kind.made == 5 and kind.alive == 1


@pytest.mark.parametrize("error", [KeyboardInterrupt, GeneratorExit])
def test_what_is_no_error_of_an_environment_passes(error):
    def interrupt(t):
        raise error

    envs = GymnasiumEnvs(lambda: Fragile(interrupt), 1, seed=0, restarts=Restarts(3))
    envs.reset()
    with pytest.raises(error):
        envs.step(act(3))
    assert envs.restarts == 0


def test_an_exit_while_an_environment_is_made_is_its_error():
    with pytest.raises(EnvError, match="could not be made; it raised SystemExit: no licence"):
        make(lambda: sys.exit("no licence"), 1)


def test_a_new_environment_must_be_like_the_old_one(kind):
    class Other(kind):
        action_space = gym.spaces.Discrete(6)

    sources = [kind, Other]
    envs = GymnasiumEnvs(lambda: sources.pop(0)(), 1, seed=0, restarts=Restarts(3))
    envs.reset()
    with pytest.raises(ConfigError, match=r"environment 0 differs from environment 0: action"):
        envs.step(act(3))


def test_dicts_and_tasks_of_a_failed_step(kind):
    """A task says nothing of a step that was not made, not even where it reads what `info` lacks."""

    class Parts(kind):
        observation_space = gym.spaces.Dict({"a": gym.spaces.Box(-9, 9, (1,)), "b": gym.spaces.Discrete(9)})

        def reset(self, *, seed=None, options=None):
            obs, info = super().reset()
            return {"a": obs, "b": 0}, info

        def step(self, action):
            obs, *rest, _ = super().step(action)
            return {"a": obs, "b": int(obs[0])}, *rest, {"force": 2.0}

    def forced(obs, action, reward, next_obs, terminated, info):
        return info["force"] + jnp.sum(next_obs["a"])

    envs = make(Tasks(forced, info="force").attach(Parts), 2, restarts=Restarts(1))
    envs.reset()
    envs.step(act(0, 0))
    seen = envs.step(act(0, 3))
    assert seen.reward.tolist() == [[4], [0]] and envs.restarts == 1
    assert seen.next_obs["a"].ravel().tolist() == [2, 1] and seen.next_obs["b"].tolist() == [2, 1]
    assert len(envs.take_notes()) == 1


def test_seeds_share_the_restarts_and_count_their_own(kind):
    envs = make_seeds(kind, 1, seed=0, seeds=3, restarts=Restarts(2))
    envs.reset()
    envs.step(act(0, 3, 0)[:, None])
    envs.step(act(0, 3, 0)[:, None])
    assert envs.restarts.tolist() == [0, 2, 0]
    assert [note[:15] for note in envs.take_notes()] == ["Seed number 1: "] * 2
    with pytest.raises(EnvError, match=r"^Seed number 2: environment 0 raised .*\nNo restart is left") as raised:
        envs.step(act(0, 0, 3)[:, None])
    assert isinstance(raised.value.__cause__, ZeroDivisionError)
