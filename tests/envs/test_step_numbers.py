"""Steps are counted from 0: step t is the action after t others, of an environment and of its episode alike."""

import re

import gymnasium as gym
import numpy as np
import pytest

from duologue.envs.gymnasium import GymnasiumEnvs
from duologue.envs.journal import Journal
from duologue.envs.masks import mask_error
from duologue.errors import EnvError
from duologue.loops.host import check_rollout
from duologue.types import Discrete, Transition


class Breaking(gym.Env):
    """Episodes of 3 steps. Fails at action `step` of episode `episode`, counted from 0; at −1 its reset fails."""

    observation_space, action_space = gym.spaces.Box(0, 1, (1,)), gym.spaces.Discrete(2)

    def __init__(self, episode, step):
        self.at, self.now = (episode, step), (-1, 0)

    def reset(self, *, seed=None, options=None):
        return self._play((self.now[0] + 1, -1)), {}

    def step(self, action):
        return self._play((self.now[0], self.now[1] + 1)), 1.0, self.now[1] == 2, False, {}

    def _play(self, now):
        self.now = now
        if now == self.at:
            raise RuntimeError("broken")
        return np.zeros(1, np.float32)


@pytest.mark.parametrize("episode", [0, 2])
@pytest.mark.parametrize("step", [-1, 0, 1, 2])
def test_a_failure_names_the_action_that_failed(episode, step):
    envs = GymnasiumEnvs(lambda: Breaking(episode, step), 1, seed=0)
    when = "at the reset of" if step < 0 else f"at step {step} of"
    with pytest.raises(EnvError, match=re.escape(f"broken ({when} its episode {episode}, ")):
        envs.reset()
        for _ in range(10):
            envs.step(np.zeros(1, np.int32))


@pytest.mark.parametrize("t", [0, 1, 7])
def test_a_number_a_mask_and_an_exception_of_one_step_have_one_number(t):
    """Environment 1 in its first episode: its reward, the mask on which it acts, and what it raises, at step t."""
    rollout = Transition(*(np.zeros((8, 2), np.float32) for _ in range(6)), extras={})
    rollout.reward[t, 1] = np.nan
    with pytest.raises(EnvError, match=rf"^environment 1 .* at its step {t}\. "):
        check_rollout(rollout._replace(terminated=rollout.terminated > 0), 0, 2, ())
    assert str(mask_error(np.zeros(3), Discrete(3), 1, t)).endswith(f"(at its step {t})")
    journal = Journal(0, "train", Discrete(3), 2)
    for _ in range(t + 1):
        journal.add(np.zeros(2, np.int32), range(2))
    assert f"(at step {t} of its episode 0, " in str(journal.failure(1, RuntimeError("x")))
