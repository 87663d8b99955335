"""Which environments are known to stack frames."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import wrappers

from duologue.envs.gymnasium import GymnasiumEnvs, stacks_frames
from duologue.envs.spaces import stack_depths
from duologue.runs import config
from duologue.types import Box, Dict, Discrete, EnvSpec


class Image(gym.Env):
    observation_space, action_space = gym.spaces.Box(0, 255, (5, 6), np.uint8), gym.spaces.Box(-1, 1, (1,))


class Parts(gym.Env):
    observation_space = gym.spaces.Dict({"image": Image.observation_space, "count": gym.spaces.Discrete(3)})
    action_space = Image.action_space


class Own(gym.Wrapper):
    """May do anything."""


class Skipping(gym.RewardWrapper):
    """Changes more than rewards."""

    def step(self, action):
        self.env.step(action)
        return self.env.step(action)


class Younger(wrappers.FrameStackObservation):
    """Stacks in a way of its own."""


def stack(env, **options):
    return wrappers.FrameStackObservation(env, 4, **options)


KNOWN = {
    "alone": stack,
    "time limit": lambda env: wrappers.TimeLimit(stack(env), 9),
    "statistics": lambda env: wrappers.RecordEpisodeStatistics(wrappers.OrderEnforcing(stack(env))),
    "rewards": lambda env: wrappers.TransformReward(stack(env), np.sign),
    "actions": lambda env: wrappers.TransformAction(wrappers.ClipAction(stack(env)), np.tanh, None),
    "beneath": lambda env: stack(Own(env)),
}
UNKNOWN = {
    "none": lambda env: env,
    "zeros": lambda env: stack(env, padding_type="zero"),
    "custom": lambda env: stack(env, padding_type=np.ones((5, 6), np.uint8)),
    "scaled": lambda env: wrappers.TransformObservation(stack(env), lambda x: x // 2, None),
    "own": lambda env: Own(stack(env)),
    "skipping": lambda env: Skipping(stack(env)),
    "younger": lambda env: Younger(env, 4),
    "autoreset": lambda env: wrappers.Autoreset(stack(env)),
}


@pytest.mark.parametrize("how", KNOWN)
def test_a_stack_is_known_where_nothing_comes_after_it_that_may_change_it(how):
    assert stacks_frames(KNOWN[how](Image()))


@pytest.mark.parametrize("how", UNKNOWN)
def test_all_others_are_arrays_as_any(how):
    assert not stacks_frames(UNKNOWN[how](Image()))


def test_the_spec_says_it_of_each_box_and_is_written_and_read():
    """One that was written before there were stacks has none."""
    spec = GymnasiumEnvs(lambda: stack(Parts()), 1, seed=0).spec
    assert spec.observation.spaces["image"] == Box((4, 5, 6), "uint8", (0.0,), (255.0,), stacked=True)
    assert stack_depths(spec.observation) == {"image": 4, "count": 1}
    plain = GymnasiumEnvs(Parts, 1, seed=0).spec.observation
    assert isinstance(plain, Dict) and not plain.spaces["image"].stacked and plain.spaces["count"] == Discrete(3)
    data = config.to_dict(spec)
    assert config.from_dict(data) == spec
    del data["observation"]["spaces"]["image"]["stacked"]
    old = config.from_dict(data)
    assert isinstance(old, EnvSpec) and stack_depths(old.observation) == {"image": 1, "count": 1}
