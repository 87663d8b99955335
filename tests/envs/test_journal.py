"""The journal of running episodes: each with a limit of its own, in bounded memory, and as it was at a mark."""

import itertools

import gymnasium as gym
import numpy as np
import pytest

from duologue.envs.base import REPLAY_LIMIT, seed_of
from duologue.envs.gymnasium import GymnasiumEnvs
from duologue.envs.journal import Journal
from duologue.envs.make import make_seeds
from duologue.errors import EnvError
from duologue.types import Box, Discrete


class Walk(gym.Env):
    """The sum of its actions, from a start by the seed; ends after `length` steps. It counts its calls."""

    observation_space, action_space = gym.spaces.Box(-1e6, 1e6, (1,), np.float64), gym.spaces.Discrete(5)
    length = 10**9

    def __init__(self):
        self.seeds, self.steps = [], 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.seeds.append(seed)
        self.x, self.t = float(self.np_random.integers(1000)), 0
        return np.array([self.x]), {}

    def step(self, action):
        self.steps, self.t, self.x = self.steps + 1, self.t + 1, self.x + int(action)
        return np.array([self.x]), 1.0, self.t == self.length, False, {}


class Short(Walk):
    length = 7


def walks(*kinds, limit=REPLAY_LIMIT):
    """Environments of these kinds, as an adapter and as a list."""
    made, todo = [], list(kinds)
    envs = GymnasiumEnvs(lambda: made.append(todo.pop(0)()) or made[-1], len(kinds), seed=3, replay_limit=limit)
    return envs, made


def drive(envs, steps, seed=0):
    actions = np.random.default_rng(seed).integers(5, size=(steps, envs.num_envs)).astype(np.int32)
    return [envs.step(action) for action in actions]


@pytest.mark.parametrize("limit", [None, 0, 1, 6, 1000])
@pytest.mark.parametrize("space", [Discrete(5), Box((2,), low=(-9.0, -9.0), high=(9.0, 9.0))], ids=["discrete", "box"])
def test_a_snapshot_holds_what_a_list_would(space, limit):
    """Against three lists of actions; and a mark stays as it was, whatever ends or passes its limit after it."""
    random, shape = np.random.default_rng(1), (2,) if isinstance(space, Box) else ()
    dtype = np.float32 if shape else np.int32
    journal, obs = Journal(0, "train", space, 3, limit), np.arange(3.0)
    lists, numbers = [[], [], []], [0, 0, 0]
    moment = expected = None
    for t in range(40):
        if t % 9 == 0:
            moment, expected = journal.moment(), journal.snapshot(journal.moment(), obs)
        action = random.integers(5, size=(3, *shape)).astype(dtype)
        journal.add(action, range(3))
        for i in range(3):
            lists[i].append(action[i])
            if i and random.random() < 0.15:  # environment 0 never ends
                journal.next_episode(i)
                lists[i], numbers[i] = [], numbers[i] + 1
        now = journal.snapshot(journal.moment(), obs)
        kept = [limit is not None and len(each) <= limit for each in lists]
        assert now["episode"].tolist() == numbers
        assert now["length"].tolist() == [len(each) if keep else -1 for each, keep in zip(lists, kept, strict=True)]
        rows = [row for each, keep in zip(lists, kept, strict=True) if keep for row in each]
        np.testing.assert_array_equal(now["actions"], np.array(rows, dtype).reshape(-1, *shape))
        assert now["actions"].dtype == dtype
        for name, array in journal.snapshot(moment, obs).items():
            np.testing.assert_array_equal(array, expected[name])


def test_the_actions_of_a_long_episode_are_dropped_at_once_and_those_of_others_stay():
    envs, _ = walks(Walk, Short, limit=20)
    envs.reset()
    drive(envs, 20)
    assert len(envs._journal.running[0].actions) == 20 * 4
    drive(envs, 1)
    assert envs._journal.running[0].actions is None and len(envs._journal.running[1].actions) == 0
    drive(envs, 1000)
    assert sum(len(each.actions or b"") for each in envs._journal.running) <= 7 * 4
    assert envs.snapshot()["actions"].nbytes <= 7 * 4


def test_a_long_episode_is_cut_and_the_others_come_back():
    """It begins its next episode, by the seed of that episode; it is neither stepped nor reset to the cut one."""
    then, _ = walks(Walk, Short, limit=20)
    then.reset()
    drive(then, 33)
    now, made = walks(Walk, Short, limit=20)
    obs, message = now.restore(then.snapshot())
    assert message.startswith(
        "Environment 0 is not replayed: its episode was longer than replay_limit = 20 steps. The running episode was "
        "cut and the next one begun"
    )
    assert obs[1] == then._obs[1] and now.snapshot()["episode"].tolist() == [1, 33 // 7]
    assert made[0].seeds == [seed_of(3, "train", 0, 1)] and made[0].steps == 0 and made[1].steps == 33 % 7
    assert drive(now, 4, seed=5)[-1].obs[1] == drive(then, 4, seed=5)[-1].obs[1]


def test_what_must_never_be_replayed_is_reset_once_and_not_stepped():
    then, _ = walks(Walk, Walk, limit=None)
    then.reset()
    drive(then, 4)
    assert then.snapshot()["actions"].size == 0
    now, made = walks(Walk, Walk, limit=None)
    _, message = now.restore(then.snapshot())
    assert message.startswith("Environment 0, 1 is never replayed (exact = False).")
    assert [env.steps for env in made] == [0, 0] and [len(env.seeds) for env in made] == [1, 1]


@pytest.mark.parametrize(("limit", "replayed"), [(None, 0), (0, 0), (8, 0), (9, 18), (30_000, 18)])
def test_the_limit_that_counts_is_that_of_the_resumed_run(limit, replayed):
    """A snapshot of an earlier version holds every action of an episode, however long."""
    then, _ = walks(Walk, Walk)
    then.reset()
    drive(then, 9)
    now, made = walks(Walk, Walk, limit=limit)
    _, message = now.restore(then.snapshot())
    assert sum(env.steps for env in made) == replayed and (message is None) == bool(replayed)


def test_both_reasons_are_told():
    class Lost(Walk):
        def reset(self, *, seed=None, options=None):
            return super().reset(seed=int(np.random.default_rng().integers(2**30)))

    then, _ = walks(Walk, Lost, Lost, limit=5)
    then.reset()
    drive(then, 4)
    then._journal.next_episode(1)
    then._begin([1], then._obs)
    drive(then, 4)
    now, _ = walks(Walk, Lost, Lost, limit=5)
    _, message = now.restore(then.snapshot())
    assert "Environment 0, 2 is not replayed" in message and "Environment 1 did not come back" in message


def test_progress_of_a_replay_is_reported():
    then, _ = walks(Walk, Short)
    then.reset()
    drive(then, 12)
    now, seen = walks(Walk, Short)[0], []
    now.report_replay(lambda done, steps: seen.append((done, steps)))
    assert now.restore(then.snapshot())[1] is None
    assert seen == [(t, 12) for t in range(1, 13)]


def test_an_error_in_a_replay_names_its_step():
    class Broken(Walk):
        def step(self, action):
            if self.t == 3:
                raise OSError("no motor")
            return super().step(action)

    then, _ = walks(Walk)
    then.reset()
    drive(then, 9)
    with pytest.raises(EnvError, match=r"^environment 0 raised OSError: no motor \(at step 3 of its episode 0"):
        walks(Broken)[0].restore(then.snapshot())


@pytest.mark.parametrize("limit", [8, 30_000])
def test_several_seeds_share_no_actions(limit):
    """The first environment of each seed never ends, the second every 7 steps."""

    def fresh():
        number = itertools.count()
        kinds = (Walk, Short)
        return make_seeds(lambda: kinds[next(number) % 2](), 2, seed=5, seeds=3, replay_limit=limit)

    then, now = fresh(), fresh()
    then.reset()
    actions = np.random.default_rng(0).integers(5, size=(20, 3, 2)).astype(np.int32)
    expected = {}
    for t, action in enumerate(actions[:12]):
        if t == 10:
            then.mark()
            expected = then.snapshot()
        then.step(action)
    for name, array in then.marked_snapshot().items():
        np.testing.assert_array_equal(array, expected[name])
    _, message = now.restore(then.snapshot())
    if limit == 8:
        assert message.count("Environment 0 is not replayed") == 3 and message.startswith("Seed number 0: ")
    else:
        assert message is None
    which = slice(1 if limit == 8 else 0, None)
    for action in actions[12:]:
        np.testing.assert_array_equal(now.step(action).obs[:, which], then.step(action).obs[:, which])
