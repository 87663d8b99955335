"""What is asked in vain is refused by name, before anything is made."""

import io

import gymnasium as gym
import numpy as np
import pytest
from rich.console import Console

import duologue as dl
from duologue.cli import main as cli


def masked(length):
    """An environment of four actions with a mask of some length."""

    class Masked(gym.Env):
        observation_space = gym.spaces.Dict(
            {"x": gym.spaces.Box(0, 1, (2,)), "action_mask": gym.spaces.Box(0, 1, (length,), np.int8)}
        )
        action_space = gym.spaces.Discrete(4)

    return Masked


class FlatBox(gym.Env):
    """One component of its actions can have one value only."""

    observation_space = gym.spaces.Box(0, 1, (2,))
    action_space = gym.spaces.Box(np.float32([-1, 2]), np.float32([1, 2]))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            "train a2c CartPole-v1 --config one.yaml --config=two.yaml",
            r"config takes one file. Here are 2: one\.yaml, two\.yaml",
        ),
        ("train a2c CartPole-v1 --config ppo.yaml", r"config file ppo\.yaml: its algorithm is PPO, and a2c is A2C"),
        ("train a2c CartPole-v1 --final-episodes -1", r"final_episodes = -1: must be an integer >= 0"),
        (
            "collect random --env CartPole-v1 -o data.npz --noise 0.1",
            r"noise = 0.1: this option has no effect on random actions",
        ),
        (
            "collect random --env CartPole-v1 -o data.npz --test",
            r"test = True: this option has no effect on random actions",
        ),
        (
            "collect random --env CartPole-v1 -o data.npz --agent 1",
            r"agent = 1: this option has no effect on random actions",
        ),
    ],
)
def test_commands(arguments, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ppo.yaml").write_text("algorithm: {type: PPO}\n")
    with pytest.raises(dl.ConfigError, match=words):
        cli.run(arguments.split())
    assert [path.name for path in tmp_path.iterdir()] == ["ppo.yaml"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dataset": "data.npz", "num_envs": 3}, "num_envs = 3: a run on recorded data steps no environment"),
        ({"dataset": "data.npz", "asynchronous": True}, "asynchronous = True: a run on recorded data steps no env"),
        ({"timeout_and_terminal": "terminal"}, "timeout_and_terminal = 'terminal': this option is for recorded data"),
        ({"window": 7}, "window = 7: this option is for recorded data"),
    ],
)
def test_what_recorded_data_or_their_absence_make_meaningless(options, words):
    with pytest.raises(dl.ConfigError, match=words):
        dl.train(dl.A2C(), "CartPole-v1", steps=100, **options)


class Bare(gym.Env):
    """Without spaces."""


SHARED = gym.make("CartPole-v1")


@pytest.mark.parametrize(
    ("env", "options", "words"),
    [
        (Bare, {}, "makes an environment without observation_space"),
        (lambda: SHARED, {"num_envs": 2}, "returned the same environment 2 times"),
        ("CartPole-v1", {"asynchronous": "yes"}, "asynchronous = 'yes': must be True or False"),
        ("CartPole-v1", {"run_dir": 5}, "run_dir = 5: must name a folder"),
        (None, {"dataset": {"rewards": np.zeros(3)}}, r"dataset: must be a file.*got dict.*from_columns"),
        (None, {"dataset": "x.npz", "window": 10.0}, r"window = 10\.0: must be an integer"),
        (FlatBox, {}, "each component must have low < high"),
        (masked(5), {}, r"action_mask of .* must be a Box of shape \(4,\)"),
    ],
)
def test_arguments(env, options, words, unchecked):
    with pytest.raises(dl.ConfigError, match=words):
        dl.train(dl.BC() if env is None else dl.A2C(), env, steps=10, **options)


@pytest.mark.parametrize("algorithm", ["A2C", dl.A2C(), [dl.A2C()]])
def test_a_class_is_asked_for(algorithm, tmp_path, unchecked):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(dl.ConfigError, match="must be the class of your algorithm"):
        dl.load(tmp_path, algorithm=algorithm)


def test_a_run_that_will_not_learn_says_so(tmp_path):
    said = io.StringIO()
    algorithm = dl.SACDiscrete(networks=dl.Networks(hidden_sizes=(8,)), learning_starts=100, replay_capacity=100)
    dl.train(algorithm, "CartPole-v1", steps=16, run_dir=tmp_path / "run", console=Console(file=said, width=1000))
    assert "steps = 16: learning_starts leaves no step for an update" in said.getvalue()
