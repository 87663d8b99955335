"""Environments of a user's own, from their spaces to the trained policy: what they get, and what the policy gives."""

import io

import gymnasium as gym
import numpy as np
import pytest
from rich.console import Console

import duologue as dl

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
