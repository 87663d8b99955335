"""Atari's preprocessing, and lives as episodes."""

import subprocess
import sys

import gymnasium as gym
import numpy as np
import pytest

import duologue as dl
from duologue.envs.atari import LifeLoss, atari
from duologue.envs.gymnasium import GymnasiumEnvs, stacks_frames
from duologue.envs.make import make
from duologue.types import Box, Discrete

ale_py = pytest.importorskip("ale_py")


def test_a_game_that_there_is_not_is_refused_by_name():
    with pytest.raises(dl.ConfigError, match=r"no Gymnasium environment 'ALE/Pnog-v5'\. Closest: 'ALE/Pong-v5'"):
        make("ALE/Pnog-v5", 1, seed=0)


def test_an_id_is_the_game_as_everybody_plays_it():
    envs = make("ALE/Pong-v5", 2, seed=0)
    assert envs.spec.observation == Box(
        (4, 84, 84), "uint8", (0.0,), (255.0,), stacked=True
    ) and envs.spec.action == Discrete(6)
    env = envs._envs[0]
    assert env.get_wrapper_attr("frame_skip") == 4 and env.get_wrapper_attr("noop_max") == 30
    assert env.unwrapped._frameskip == 1  # the wrapper skips, and nothing else
    first = envs.reset()
    seen = envs.step(np.zeros(2, np.int32))
    np.testing.assert_array_equal(seen.obs[:, :3], first[:, 1:])  # the oldest frame goes, the newest comes last
    again = make("ALE/Pong-v5", 2, seed=0)
    np.testing.assert_array_equal(again.reset(), first)
    np.testing.assert_array_equal(again.step(np.zeros(2, np.int32)).obs, seen.obs)
    for _ in range(30):
        seen = envs.step(np.zeros(2, np.int32))
    assert (seen.obs[0] != seen.obs[1]).any()  # no-ops differ with the seed


def played(env, seed, actions):
    frames = [env.reset(seed=seed)[0]]
    for action in actions:
        frames.append(env.step(action)[0])
    return np.stack(frames)


def test_an_episode_follows_from_its_seed_alone():
    """Whatever was played before, and in a game that was loaded anew; in Freeway the emulator itself remembers."""
    actions = np.random.default_rng(0).integers(3, size=60).tolist()
    env = atari("ALE/Freeway-v5", life_loss=False)
    first, other = played(env, 3, actions), played(env, 4, actions)
    np.testing.assert_array_equal(played(env, 3, actions), first)
    np.testing.assert_array_equal(played(atari("ALE/Freeway-v5", life_loss=False), 3, actions), first)
    assert (other != first).any()


@pytest.mark.parametrize(("name", "options", "repeated"), [
    ("ALE/Pong-v5", {}, 0.25),
    ("ALE/Pong-v5", {"repeat_action_probability": 0.0}, 0.0),
])  # fmt: skip
def test_actions_are_repeated_with_the_probability_of_the_game(name, options, repeated):
    """Of every frame, as the emulator has it; counted where what is done differs from what was asked for."""
    env = atari(name, life_loss=False, **options)
    done, env.unwrapped.act = [], env.unwrapped.step
    env.unwrapped.step = lambda action: (done.append(action), env.unwrapped.act(action))[1]
    env.reset(seed=0)
    done.clear()
    for t in range(400):
        _, _, over, *_ = env.step(t % 2)
        if over:
            break
    asked = np.repeat(np.arange(t + 1) % 2, 4)[: len(done)]
    # A frame differs from what was asked only where the repetition goes back across a change of actions.
    share = np.mean(np.asarray(done) != asked)
    expected = sum(repeated**k for k in range(1, 5)) / 4
    assert share == pytest.approx(expected, abs=0.02)
    assert env.unwrapped.ale.getFloat("repeat_action_probability") == 0.0


def test_processes_that_play_do_without_jax(tmp_path):
    """Sent from a process of its own: the type checker of these tests makes what is sent unpicklable."""
    file = tmp_path / "game"
    send = """if True:
        import cloudpickle, sys
        from duologue.envs.atari import atari_spec
        open(sys.argv[1], "wb").write(cloudpickle.dumps(atari_spec("ALE/Breakout-v5")))
    """
    play = """if True:
        import gymnasium, pickle, sys
        gymnasium.make(pickle.load(open(sys.argv[1], "rb"))).reset(seed=0)
        print("jax" in sys.modules)
    """
    for code in (send, play):
        done = subprocess.run([sys.executable, "-c", code, file], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False" and "Stella" not in done.stderr  # no banner of sixteen processes


class Lives(gym.Env):
    """A game of two lives, one lost every three steps; it counts how often it is begun."""

    observation_space, action_space = gym.spaces.Box(0, 255, (1,), np.uint8), gym.spaces.Discrete(2)
    games, t = 0, 0

    @property
    def ale(self):
        return self

    def lives(self):
        return 2 - self.t // 3

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.games, self.t = self.games + 1, 0
        return np.array([0], np.uint8), {}

    def step(self, action):
        self.t += 1
        return np.array([self.t], np.uint8), 1.0, self.t >= 6, False, {}


def test_a_lost_life_ends_an_episode_and_the_game_goes_on():
    env = LifeLoss(Lives())
    obs, _ = env.reset()
    assert obs[0] == 0 and env.unwrapped.games == 1
    assert [env.step(0)[2] for _ in range(3)] == [False, False, True]
    obs, _ = env.reset()  # one step, in which nothing is done
    assert obs[0] == 4 and env.unwrapped.games == 1
    assert [env.step(0)[2] for _ in range(2)] == [False, True]
    obs, _ = env.reset()
    assert obs[0] == 0 and env.unwrapped.games == 2


def test_a_life_begins_with_a_stack_of_its_own():
    """As OpenAI Baselines' wrappers have it; so a ring may hold each frame once."""
    env = atari("ALE/Breakout-v5")
    assert stacks_frames(env) and stacks_frames(atari("ALE/Breakout-v5", life_loss=False))
    obs, _ = env.reset(seed=0)
    lives, terminated, t = env.unwrapped.ale.lives(), False, 0
    while not terminated:
        obs, _, terminated, *_ = env.step(t % 4)
        t += 1
    assert env.unwrapped.ale.lives() == lives - 1 and (obs[0] != obs[3]).any()
    obs, _ = env.reset()
    assert env.unwrapped.ale.lives() == lives - 1
    np.testing.assert_array_equal(obs, np.broadcast_to(obs[-1:], obs.shape))
    with pytest.raises(gym.error.Error):
        atari("ALE/Breakuot-v5")


def test_a_limit_is_of_the_game_and_leaves_the_stack_outermost():
    env = atari("ALE/Breakout-v5", max_episode_steps=7)
    assert stacks_frames(env)
    env.reset(seed=0)
    assert [env.step(0)[3] for _ in range(7)] == [False] * 6 + [True]


def test_options_of_gymnasium_reach_it():
    env = atari("ALE/Pong-v5", render_mode="rgb_array_list", disable_env_checker=True)
    env.reset(seed=0)
    env.step(0)
    assert len(env.render()) >= 2
    with pytest.raises(dl.ConfigError, match="CartPole-v1' is no Atari game"):
        atari("CartPole-v1")


def test_one_command_learns_from_frames(tmp_path):
    """Conv layers, a ring that stores images, sequences of them: a few steps of the whole."""
    acer = dl.ACER(
        num_envs=2, rollout_length=4, batch_size=2, replay_capacity=64, learning_starts=8, reward_clip=1.0,
    )  # fmt: skip
    run = dl.train(acer, "ALE/Pong-v5", steps=32, run_dir=tmp_path / "run")
    assert run.step == 32 and int(run.policy(np.zeros((4, 84, 84), np.uint8))) in range(6)


def test_a_limit_is_of_the_agents_steps():
    """Four frames each: `gymnasium.make` itself would count frames, no-ops among them."""
    envs = make("ALE/Pong-v5", 1, seed=0, max_episode_steps=6)
    assert envs.spec.max_episode_steps == 6 and envs.spec.observation == Box(
        (4, 84, 84), "uint8", (0.0,), (255.0,), stacked=True
    )
    envs.reset()
    assert [bool(envs.step(np.zeros(1, np.int32)).truncated) for _ in range(6)] == [False] * 5 + [True]


def test_evaluations_begin_a_new_game():
    envs = GymnasiumEnvs(lambda: LifeLoss(Lives()), 1, seed=0)
    for games in (1, 2):
        obs = envs.reset()
        assert obs[0, 0] == 0 and envs._envs[0].unwrapped.games == games
        for _ in range(3):
            envs.step(np.zeros(1, np.int32))  # a life is lost, the game goes on
        assert envs._envs[0].unwrapped.games == games
