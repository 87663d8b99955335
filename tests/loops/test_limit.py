"""A test episode that reaches the limit of steps is cut: its return up to there counts, and the next one begins."""

import inspect

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from envs.endless import Clocks, Endless

import duologue as dl
from duologue.envs.base import AbstractHostEnvs, seed_of
from duologue.envs.gymnasium import GymnasiumEnvs
from duologue.envs.tasks import Tasks
from duologue.loops import evaluate
from duologue.loops.evaluate import compile_evaluation, host_evaluation


class Counting(dl.A2C):
    """Action t at step t of an episode."""

    def initial_carry(self, num_envs):
        return jnp.zeros(num_envs, jnp.int32)

    def act(self, state, carry, obs, *, key, explore):
        return carry, {}, carry + 1


COUNTING, KEY = Counting(), jax.random.key(0)


def in_turn(*envs):
    """Environments on the host, one for each of these."""
    each = iter(envs)
    return GymnasiumEnvs(lambda: next(each), len(envs), seed=3)


def host_scores(envs, *, episodes, **options):
    return host_evaluation(COUNTING, episodes=episodes, **options)(None, envs, KEY)


def test_on_the_host_episodes_end_at_the_limit_at_the_latest():
    """Step t pays t. One environment terminates before the limit, one at it, one is truncated at it, one goes on."""
    made = [Endless(2), Endless(4), Endless(4, truncates=True), Endless()]
    returns, lengths, *_, cut = host_scores(in_turn(*made), episodes=10, limit=4)
    assert lengths.tolist() == [2, 4, 4, 4] * 2 + [2, 4]
    assert returns.tolist() == [3, 10, 10, 10] * 2 + [3, 10]
    assert cut.tolist() == [False, False, True, True] * 2 + [False, False]
    # A new episode has a seed and a memory of its own, and nobody resets an environment that has played its last one.
    assert made[3].seeds == [seed_of(3, "train", 3, episode) for episode in (0, 1)]
    assert [len(one.seeds) for one in made] == [7, 4, 4, 2]
    assert made[3].actions[:9] == [0, 1, 2, 3, 0, 1, 2, 3, 0]


@pytest.mark.parametrize("limit", [1, 3, 10])
def test_a_cut_is_as_a_time_limit(limit):
    """Gymnasium's, around environments of any length."""
    lengths = (2, 5, None)
    ours = host_scores(in_turn(*map(Endless, lengths)), episodes=8, limit=limit)
    theirs = host_scores(
        in_turn(*(gym.wrappers.TimeLimit(Endless(length), limit) for length in lengths)), episodes=8
    )  # fmt: skip
    for one, other in zip(ours[:3], theirs[:3], strict=True):
        np.testing.assert_array_equal(one, other)
    assert not theirs.cut.any() and ours.cut.tolist() == [
        length is None or length > limit for length in (lengths * 3)[:8]
    ]


def test_the_limit_is_a_hundred_thousand_steps_by_default():
    for evaluation in (host_evaluation, compile_evaluation):
        assert inspect.signature(evaluation).parameters["limit"].default == 100_000


def test_in_jax_episodes_end_at_the_limit_at_the_latest():
    scores = compile_evaluation(COUNTING, Clocks(5), seeds=None, limit=3)(None, KEY)
    assert scores.lengths.tolist() == [1, 2, 3, 3, 3] and scores.returns.tolist() == [1, 3, 6, 6, 6]
    assert scores.cut.tolist() == [False, False, False, True, True]
    state, keys = jnp.zeros(2), jax.random.split(KEY)
    scores = compile_evaluation(COUNTING, Clocks(2), seeds=2, limit=2)(state, keys)
    assert scores.cut.tolist() == [[False, True]] * 2 and scores.lengths.tolist() == [[1, 2]] * 2


def test_progress_counts_steps_and_ends(monkeypatch):
    """On the host after every step, in JAX after every call of the device."""
    calls = []
    host_scores(in_turn(Endless(2), Endless()), episodes=3, limit=3, progress=lambda *now: calls.append(now))
    assert calls == [(1, 0), (1, 1), (1, 1), (1, 1)]
    monkeypatch.setattr(evaluate, "STEPS_PER_CALL", 2)
    calls.clear()
    compile_evaluation(COUNTING, Clocks(4), seeds=None, limit=5, progress=lambda *now: calls.append(now))(None, KEY)
    assert calls == [(2, 2), (2, 1), (1, 1)]


# Adapters


@pytest.mark.parametrize("tasked", [False, True])
def test_an_adapter_begins_the_next_episodes_of_some_environments(tasked):
    """The others stay where they are."""
    envs = GymnasiumEnvs(Endless, 3, seed=0)
    envs = Tasks(moved).attach(Endless).wrap(envs) if tasked else envs
    first = envs.reset()
    envs.step(np.zeros(3, np.int32))
    before = envs.step(np.zeros(3, np.int32)).obs
    assert envs.cut_episodes([0, 2])[:, 0].tolist() == [0, 2, 0]
    assert before[:, 0].tolist() == [2, 2, 2] and first[:, 0].tolist() == [0, 0, 0]  # arrays are never written again
    step = envs.step(np.zeros(3, np.int32))
    assert step.obs[:, 0].tolist() == [1, 3, 1] and step.reward.ravel().tolist() == ([1, 1, 1] if tasked else [1, 3, 1])
    assert envs.snapshot()["episode"].tolist() == [1, 0, 1] and envs.snapshot()["length"].tolist() == [1, 3, 1]
    envs.close()


def moved(obs, action, reward, next_obs, terminated, info):
    return next_obs[0] - obs[0]


class Rigid(GymnasiumEnvs):
    """An adapter of before: it cannot begin single episodes."""

    cut_episodes = AbstractHostEnvs.cut_episodes


def test_an_adapter_that_cannot_begin_an_episode_is_named_where_it_must():
    scores = host_scores(Rigid(Endless, 2, seed=0), episodes=2, limit=4)
    assert scores.lengths.tolist() == [4, 4] and scores.cut.all()
    with pytest.raises(dl.EnvError, match=r"environment 0 did not end .* Rigid has no method cut_episodes .* most 2 e"):
        host_scores(Rigid(Endless, 2, seed=0), episodes=3, limit=4)
