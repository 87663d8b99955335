"""A run on images whose episodes are shorter than its replay allows says how many successors are lost."""

import gymnasium as gym
import numpy as np
import pytest
from runs.helpers import quiet, rows
from runs.idle import Idle

import duologue as dl
from duologue.data import ring as rings
from duologue.runs.rows import lost_successors_row
from duologue.types import Transition


class Pictures(gym.Env):
    """Episodes of `length` steps; one in `every` is truncated, and the others terminate."""

    action_space = gym.spaces.Discrete(2)

    def __init__(self, length, every):
        self.length, self.every, self.episode, self.t = length, every, -1, 0
        self.observation_space = gym.spaces.Box(0, 255, (8, 8, 1), np.uint8)

    def reset(self, *, seed=None, options=None):
        self.episode, self.t = self.episode + 1, 0
        return self._seen(), {}

    def step(self, action):
        self.t += 1
        ended, cut = self.t == self.length, self.episode % self.every == self.every - 1
        return self._seen(), 1.0, ended and not cut, ended and cut, {}

    def _seen(self):
        return np.full(self.observation_space.shape, self.t, np.uint8)


CASES = {  # length of episodes, one in so many truncated; and the shares of 128 transitions that are lost, of 1/8 kept
    "short and truncated": (2, 1, (1 / 2 - 1 / 8) / (1 / 2)),
    "of one step": (1, 1, 7 / 8),
    "short and terminated": (2, 4, 0),
}


@pytest.mark.parametrize(("name", "seeds"), [*((name, 1) for name in CASES), ("short and truncated", 2)])
def test_the_share_is_a_number_in_the_rows_and_said_once(name, seeds, tmp_path):
    length, every, share = CASES[name]
    console = quiet()
    idle = Idle(num_envs=4, rollout_length=8, capacity=128)
    run = dl.train(
        idle, lambda: Pictures(length, every), steps=384, seeds=seeds, log_every=64, save_every=384,
        run_dir=tmp_path / "run", console=console,
    )  # fmt: skip
    found = [row.get("replay/lost_successors", 0) for row in rows(run.path)]
    assert found[-seeds:] == [share] * seeds
    assert console.file.getvalue().count("of the truncated rows have lost the image of their successor") == (share > 0)


def test_vectors_lose_nothing_and_say_nothing():
    step = Transition(*(np.zeros((2, 3), np.float32) for _ in range(6)), extras={})
    assert lost_successors_row(rings.init(step, 4)) == lost_successors_row(None) == {}
