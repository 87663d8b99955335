"""What is asked in vain is refused by name, before anything is made."""

import pytest

import duologue as dl
from duologue import cli
from duologue.run.train import planned


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            "train a2c CartPole-v1 --config one.yaml --config=two.yaml",
            r"config: one file, and here are one\.yaml, two\.yaml",
        ),
        ("train a2c CartPole-v1 --config ppo.yaml", r"config file ppo\.yaml: its algorithm is PPO, and a2c is A2C"),
        ("train a2c CartPole-v1 --final-episodes -1", r"final_episodes = -1: must be at least 0"),
        ("collect random --env CartPole-v1 -o data.npz --noise 0.1", r"noise: belongs to the policy of a run"),
        ("collect random --env CartPole-v1 -o data.npz --test", r"test: belongs to the policy of a run"),
        ("collect random --env CartPole-v1 -o data.npz --agent 1", r"agent: belongs to the policy of a run"),
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
        ({"dataset": "data.npz", "num_envs": 3}, "num_envs: nobody acts"),
        ({"dataset": "data.npz", "asynchronous": True}, "asynchronous: nobody acts"),
        ({"both": "terminal"}, "both: belongs to recorded data"),
        ({"window": 7}, "window: belongs to recorded data"),
    ],
)
def test_what_recorded_data_or_their_absence_make_meaningless(options, words):
    nothing = {
        "dataset": None, "tasks": None, "num_envs": None, "asynchronous": False, "both": "timeout", "window": None,
    }  # fmt: skip
    with pytest.raises(dl.ConfigError, match=words):
        planned(dl.A2C(), "CartPole-v1", **nothing | options)
