"""Statistics that live in a wrapper are named, wherever they hide; those that stay as they are are not."""

import gymnasium as gym
import numpy as np
import pytest
from envs.scripted import Scripted
from gymnasium.wrappers import NormalizeObservation, NormalizeReward, TimeLimit
from gymnasium.wrappers.utils import RunningMeanStd

from duologue.envs.make import make, make_seeds
from duologue.envs.tasks import Tasks
from duologue.errors import ConfigError


class Centred(NormalizeObservation):
    """A wrapper of the user's own, as a subclass."""


class Scaled(gym.Wrapper):
    """A wrapper of the user's own, with moments of each part."""

    def __init__(self, env):
        super().__init__(env)
        self.moments = {"torque": RunningMeanStd(), "gap": RunningMeanStd()}


class Moments:
    """As many libraries have them, written again."""

    def __init__(self):
        self.mean, self.var, self.count = np.zeros(2), np.ones(2), 0

    def update(self, x): ...


class Inside(Scripted):
    """Statistics without a wrapper."""

    def __init__(self):
        super().__init__()
        self.moments = Moments()


def near(obs, *_):
    return obs[0]


def far(obs, *_):
    return obs[1]


def frozen(env):
    env.update_running_mean = False
    return env


NAMED = {
    "observations": (lambda: NormalizeObservation(Scripted()), ["NormalizeObservation keeps"], "--normalize-obs."),
    "rewards": (lambda: NormalizeReward(Scripted()), ["NormalizeReward keeps"], "--normalize-reward."),
    "both": (
        lambda: TimeLimit(NormalizeReward(NormalizeObservation(Scripted())), 9),
        ["NormalizeReward keeps", "NormalizeObservation keeps"], "--normalize-",
    ),
    "a subclass": (lambda: Centred(Scripted()), ["Centred, a NormalizeObservation, keeps"], "--normalize-obs."),
    "moments in a dict": (lambda: TimeLimit(Scaled(Scripted()), 9), ["Scaled keeps"], "--normalize-obs, --normalize-r"),
    "inside": (Inside, ["Inside keeps"], "duologue.Normalized(algorithm) "),
    "one of two": (
        lambda: NormalizeReward(frozen(NormalizeObservation(Scripted()))), ["NormalizeReward keeps"], "obs=False",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NAMED)
def test_running_statistics_are_named_with_their_remedy(name):
    source, begins, remedy = NAMED[name]
    envs = make(source, 2)
    assert len(envs.notes) == len(begins)
    for note, words in zip(envs.notes, begins, strict=True):
        assert note.startswith(words) and remedy in note and "update_running_mean = False" in note


@pytest.mark.parametrize("source", [
    Scripted, lambda: frozen(Centred(Scripted())), lambda: frozen(NormalizeReward(Scripted())), "CartPole-v1",
])  # fmt: skip
def test_what_stays_as_it_is_needs_no_remark(source):
    assert make(source, 1).notes == ()


def test_remarks_pass_through_seeds_tasks_and_processes():
    def source():
        return NormalizeObservation(Scripted())

    alone = make(source, 1).notes
    assert len(alone) == 1
    assert make_seeds(source, 1, seed=0, seeds=2).notes == alone
    assert make(Tasks(near, far).attach(source), 1).notes == alone
    envs = make(source, 1, asynchronous=True)
    envs.close()
    assert envs.notes == alone


def test_their_vector_kin_is_refused_by_name():
    def source():
        return gym.wrappers.vector.NormalizeObservation(gym.make_vec("CartPole-v1", 2))

    with pytest.raises(ConfigError, match="makes a vector environment, NormalizeObservation"):
        make(source, 1)
