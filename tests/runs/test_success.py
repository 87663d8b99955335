"""The share of test episodes that succeed, as the last step of each reports it, whatever the entry is called."""

import itertools

import gymnasium as gym
import numpy as np
import pytest
from runs.fake_loop import no_learning
from runs.helpers import TINY, quiet, rows

import duologue as dl
from duologue.envs.make import make


class Told(gym.Env):
    """Episodes of 3 steps. The last `info` is the `told` one; the infos before it report the opposite."""

    observation_space, action_space = gym.spaces.Box(0, 1, (1,)), gym.spaces.Discrete(2)

    def __init__(self, told):
        self.told = told

    def reset(self, *, seed=None, options=None):
        self.t = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.t += 1
        info = self.told if self.t == 3 else {name: not value for name, value in self.told.items()}
        return np.zeros(1, np.float32), 1.0, self.t == 3, False, info


def source(*infos):
    """A function that makes environments which report these, one after the other and again."""
    told = itertools.cycle(infos)
    return lambda: Told(next(told))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    with no_learning():
        return dl.train(
            TINY, source({}), steps=24, evaluate_every=12, run_dir=tmp_path_factory.mktemp("told") / "run",
            console=quiet(),
        )  # fmt: skip


REPORTS = {
    "is_success": ([{"is_success": True}, {"is_success": False}, {"is_success": True}], [1, 0, 1]),
    "success": ([{"success": 0}, {"success": np.bool_(True)}, {"success": np.array([0.0])}], [0, 1, 0]),
    "both": ([{"is_success": False, "success": True}] * 2 + [{"is_success": True, "success": False}], [0, 0, 1]),
    "of some": ([{"success": True}, {}, {"is_success": True}], [1, 0, 1]),
    "none": ([{"is_success": False}], [0, 0, 0]),
}


@pytest.mark.parametrize("name", REPORTS)
def test_the_share_of_test_episodes_that_succeed(run, name):
    infos, expected = REPORTS[name]
    score = run.evaluate(episodes=3, env=source(*infos))
    assert score.successes.tolist() == expected
    assert score.success_rate == np.float32(sum(expected) / 3)
    assert f", mean length 3, success rate {100 * sum(expected) / 3:.0f} %)" in str(score)


def test_where_nothing_is_reported_there_is_no_share(run):
    score = run.evaluate(episodes=2)
    assert score.successes is None and np.isnan(score.success_rate) and "success" not in str(score)
    assert not any("success" in name for row in rows(run.path) for name in row)


def test_several_seeds_have_shares_of_their_own(tmp_path):
    """In the rows and in the score. Two episodes of each seed succeed or fail in turn, one seed after the other."""
    with no_learning():
        infos = [{"success": flag} for flag in (True, False, False, False)]
        runs = dl.train(
            TINY, source({"success": True}), steps=24, seeds=2, evaluate_every=12, evaluate_episodes=2,
            run_dir=tmp_path / "run", console=quiet(),
        )  # fmt: skip
    assert [row["eval/success_rate"] for row in rows(tmp_path / "run") if "eval/mean_reward" in row] == [1.0] * 4
    score = runs.evaluate(episodes=2, env=source(*infos))
    assert score.successes.tolist() == [[1, 0], [0, 0]] and score.success_rate == 0.25


@pytest.mark.parametrize("asynchronous", [False, True])
def test_both_names_reach_the_rollouts(asynchronous):
    envs = make(source({"success": 1}), 2, asynchronous=asynchronous)
    envs.reset()
    seen = [envs.step(np.zeros(2, np.int32)).info["is_success"].tolist() for _ in range(3)]
    assert seen == [[0, 0], [0, 0], [1, 1]]
    envs.close()
