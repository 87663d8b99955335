"""FIRE, for the games of Atari that wait for it."""

import gymnasium as gym
import numpy as np
import pytest

from duologue.envs.atari import Fire, LifeLoss, atari
from duologue.envs.make import make

ale_py = pytest.importorskip("ale_py")


class Waiting(gym.Env):
    """A game of two lives that stands still until FIRE. Each life lasts three steps. Every step with FIRE scores 1, and
    the steps with the numbers in `ends` end the game. The observation counts the steps of the game."""

    observation_space, action_space = gym.spaces.Box(0, 255, (1,), np.uint8), gym.spaces.Discrete(3)

    def __init__(self, ends=()):
        self.ends, self.games, self.total, self.seeds = ends, 0, 0, []

    @property
    def ale(self):
        return self

    def lives(self):
        return self.left

    def get_action_meanings(self):
        return ["NOOP", "FIRE", "LEFT"]

    def reset(self, *, seed=None, options=None):
        self.seeds.append(seed)
        self.games, self.t, self.left, self.played, self.flies = self.games + 1, 0, 2, 0, False
        return np.array([0], np.uint8), {}

    def step(self, action):
        self.t, self.total = self.t + 1, self.total + 1
        self.flies = self.flies or action == 1
        self.played += self.flies
        if self.played == 3:
            self.left, self.played, self.flies = self.left - 1, 0, False
        over = self.left == 0 or self.total in self.ends
        return np.array([self.t], np.uint8), float(action == 1), over, False, {"t": self.t}


def test_fire_is_pressed_at_the_beginning_and_after_a_lost_life():
    env = Fire(Waiting())
    obs, info = env.reset(seed=7)
    assert obs[0] == 1 and info == {"t": 1} and env.unwrapped.seeds == [7]
    assert env.step(0)[0][0] == 2
    obs, reward, terminated, truncated, info = env.step(2)  # loses the life, and presses FIRE
    assert (int(obs[0]), reward, terminated, truncated, info) == (4, 1.0, False, False, {"t": 4})
    assert env.unwrapped.lives() == 1 and env.unwrapped.flies
    env.step(0)
    obs, reward, terminated, *_ = env.step(0)  # the last life: no press after the end
    assert (int(obs[0]), reward, terminated) == (6, 0.0, True)


def test_a_game_that_ends_during_the_first_press_begins_again():
    env = Fire(Waiting(ends=(1, 2)))
    obs, _ = env.reset(seed=7)
    assert obs[0] == 1 and env.unwrapped.games == 3 and env.unwrapped.seeds == [7, None, None]
    assert not env.step(0)[2]


def test_a_game_that_ends_during_a_later_press_is_over():
    env = Fire(Waiting(ends=(4,)))
    env.reset()
    env.step(0)
    obs, reward, terminated, *_ = env.step(0)
    assert (int(obs[0]), reward, terminated) == (4, 1.0, True)


def test_lives_that_are_episodes_begin_after_fire():
    env = LifeLoss(Fire(Waiting()))
    env.reset()
    assert [env.step(0)[2] for _ in range(2)] == [False, True]
    obs, _ = env.reset()  # the step that loses the life presses FIRE; the reset makes one step without an action
    assert obs[0] == 5 and env.unwrapped.flies and env.unwrapped.games == 1
    assert env.step(0)[2]
    assert env.reset()[0][0] == 1 and env.unwrapped.games == 2


@pytest.mark.parametrize(("name", "waits"), [
    ("Breakout", True), ("DonkeyKong", True), ("Tennis", True),
    ("Pong", False), ("SpaceInvaders", False), ("Freeway", False),
])  # fmt: skip
def test_only_games_that_wait_get_it(name, waits):
    for env in (atari(f"ALE/{name}-v5", life_loss=False), make(f"ALE/{name}-v5", 1, seed=0)._envs[0]):
        assert ("<Fire<" in str(env)) == waits
        assert env.get_wrapper_attr("noop_max") == 30
    if waits:
        assert env.unwrapped.get_action_meanings()[1] == "FIRE"


@pytest.mark.parametrize(("name", "steps"), [("Breakout", 250), ("DonkeyKong", 300), ("Tennis", 100)])
def test_no_game_stands_still(name, steps):
    """An agent that does nothing scores, or loses its lives: in Breakout all five of them."""
    env, score, over = atari(f"ALE/{name}-v5", life_loss=False), 0.0, False
    env.reset(seed=0)
    lives = env.unwrapped.ale.lives()
    for _ in range(steps):
        _, reward, over, *_ = env.step(0)
        score += abs(float(reward))
        if over:
            break
    assert score or env.unwrapped.ale.lives() < lives
    assert over == (name == "Breakout")


@pytest.mark.parametrize("repeated", [0.0, 0.25, 0.99])
def test_a_press_is_certain_and_follows_the_no_ops(repeated):
    """Four frames, whichever action the emulator would have repeated."""
    env = atari("ALE/Breakout-v5", life_loss=False, repeat_action_probability=repeated)
    done, env.unwrapped.act = [], env.unwrapped.step
    env.unwrapped.step = lambda action: (done.append(action), env.unwrapped.act(action))[1]
    for seed in range(3):
        done.clear()
        env.reset(seed=seed)
        assert done[-4:] == [1, 1, 1, 1] and set(done[:-4]) == {0} and 1 <= len(done) - 4 <= 30


def test_a_restored_game_goes_on_as_it_would_have():
    """In the third life, so that presses after lost lives are replayed too."""
    envs = make("ALE/Breakout-v5", 1, seed=3)
    envs.reset()
    while envs._envs[0].unwrapped.ale.lives() > 3:
        envs.step(np.zeros(1, np.int32))
    other = make("ALE/Breakout-v5", 1, seed=3)
    _, message = other.restore(envs.snapshot())
    assert message is None
    for action in (2, 3, 0, 2, 1, 3):
        ours, theirs = (each.step(np.full(1, action, np.int32)) for each in (envs, other))
        np.testing.assert_array_equal(ours.obs, theirs.obs)
