"""Environments of a user's own, from their spaces to the trained policy: what they get, and what the policy gives."""

import io

import gymnasium as gym
import numpy as np
import pytest
from rich.console import Console

import duologue as dl
from duologue.cli.parse import parse_train
from duologue.types import Discrete

SMALL = dl.Networks(hidden_sizes=(8,))
A2C = dl.A2C(networks=SMALL, num_envs=2, rollout_length=4)


class Scripted(gym.Env):
    """Random observations, episodes of five steps; `seen` collects the actions."""

    def __init__(self, observation, action, seen):
        self.observation_space, self.action_space, self.seen = observation, action, seen

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        self.t = 0
        return self.observation_space.sample(), {}

    def step(self, action):
        self.t += 1
        self.seen.append(action)
        return self.observation_space.sample(), 1.0, self.t >= 5, False, {}


@pytest.mark.parametrize(
    ("observation", "action"),
    [
        (
            gym.spaces.Tuple((gym.spaces.Discrete(3, start=1), gym.spaces.Dict(x=gym.spaces.Box(-1, 1, (2,))))),
            gym.spaces.Box(np.int8([[-2], [3]]), np.int8([[2], [9]]), dtype=np.int8),
        ),
        (
            gym.spaces.MultiDiscrete([[2, 3], [4, 5]], start=[[1, 0], [0, 7]]),
            gym.spaces.Box(np.float64([[0, -np.inf], [900.1, -1]]), np.float64([[np.inf, np.inf], [1000, 1]]),
                           dtype=np.float64),
        ),
    ],
    ids=["tuple-integers", "multidiscrete-matrix"],
)  # fmt: skip
def test_spaces_of_all_kinds_are_those_of_the_environment(observation, action, tmp_path):
    seen = []
    run = dl.train(
        A2C, lambda: Scripted(observation, action, seen), steps=16, run_dir=tmp_path / "run", seed=1,
        console=Console(file=io.StringIO()),
    )  # fmt: skip
    assert len(seen) == 16 and all(action.contains(each) for each in seen)
    again = dl.load(run.path, env=lambda: Scripted(observation, action, []))
    obs = observation.sample()
    for agent in (run, again):
        chosen, drawn = agent.policy(obs), agent.sample(obs, step=3)
        assert action.contains(chosen.astype(action.dtype)) and action.contains(drawn.astype(action.dtype))
        assert chosen.shape == action.shape and np.isfinite(agent.log_prob(obs, drawn))
    np.testing.assert_array_equal(run.policy(obs), again.policy(obs))


# Arguments of `gymnasium.make`


LAKE = {"is_slippery": False, "map_name": "8x8"}


def options(tmp_path):
    return {"steps": 16, "run_dir": tmp_path / "run", "console": Console(file=io.StringIO())}


def test_arguments_of_the_environment_hold_in_training_evaluation_and_after_loading(tmp_path, monkeypatch):
    made = []
    make = gym.make
    monkeypatch.setattr(gym, "make", lambda id, **kwargs: made.append(kwargs) or make(id, **kwargs))
    run = dl.train(A2C, "FrozenLake-v1", env_kwargs=LAKE, **options(tmp_path))
    assert run.plan.spec.observation == Discrete(64) and run.plan.env == "FrozenLake-v1"
    again = dl.load(run.path)
    again.evaluate(episodes=1)
    dl.resume(run.path, steps=32, console=Console(file=io.StringIO()))
    assert len(made) >= 5 and all(LAKE.items() <= kwargs.items() for kwargs in made)


def test_another_environment_does_not_get_the_arguments_of_the_run(tmp_path):
    run = dl.train(A2C, "FrozenLake-v1", env_kwargs=LAKE, **options(tmp_path))
    score = run.evaluate(episodes=1, env=lambda: gym.make("FrozenLake8x8-v1", is_slippery=True))
    assert len(score.returns) == 1
    with pytest.raises(dl.ConfigError, match="spaces"):
        run.evaluate(episodes=1, env="Taxi-v3" if "Taxi-v3" in gym.registry else "Taxi-v4")


@pytest.mark.parametrize(
    ("env", "kwargs", "message"),
    [
        ("probe/both", {"n": 3}, "env_kwargs = {'n': 3}: only an id of Gymnasium"),
        (lambda: gym.make("FrozenLake-v1"), LAKE, "only an id of Gymnasium takes these arguments"),
        ("FrozenLake-v1", {"desc": [1]}, "env_kwargs = .*: must be a dict, each value"),
        ("FrozenLake-v1", {3: 1}, "env_kwargs = .*: must be a dict with strings"),
        ("FrozenLake-v1", [1], "env_kwargs = .*: must be a dict with strings"),
    ],
)
def test_arguments_that_no_environment_takes_are_refused(unchecked, tmp_path, env, kwargs, message):
    with pytest.raises(dl.ConfigError, match=message):
        dl.train(A2C, env, env_kwargs=kwargs, **options(tmp_path))
    assert not (tmp_path / "run").exists()


def test_an_argument_that_the_environment_does_not_know_is_named(tmp_path):
    with pytest.raises(dl.EnvError, match="unexpected keyword argument 'slipery'"):
        dl.train(A2C, "FrozenLake-v1", env_kwargs={"slipery": 1}, **options(tmp_path))


def test_words_become_the_values_that_they_look_like():
    words = "FrozenLake-v1 --env-kwargs is_slippery False map_name 8x8 count 3 share 0.5 nothing None type box"
    _, command = parse_train("a2c", words.split())
    assert command.env_kwargs == {
        "is_slippery": False, "map_name": "8x8", "count": 3, "share": 0.5, "nothing": None, "type": "box",
    }  # fmt: skip
