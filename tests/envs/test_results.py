"""An environment of the old API is named as such; environments that differ are compared part by part."""

import gymnasium as gym
import numpy as np
import pytest
from envs.scripted import Scripted

from duologue.envs.differences import spec_differences
from duologue.envs.make import make
from duologue.envs.results import read_reset, read_step, read_success
from duologue.errors import ConfigError, EnvError
from duologue.types import Box, Dict, Discrete, EnvSpec, MultiDiscrete

OBS = np.zeros(2)


class Old(Scripted):
    """`reset` gives the observation alone."""

    def reset(self, *, seed=None, options=None):
        return super().reset(seed=seed)[0]


class OldDict(gym.Env):
    """As `Old`, with parts: what was once a KeyError."""

    observation_space, action_space = gym.spaces.Dict({"x": gym.spaces.Box(0, 1, (1,))}), gym.spaces.Discrete(2)

    def reset(self, **_):
        return {"x": np.zeros(1, np.float32)}


class Seedless(Scripted):
    """`reset` takes no seed."""

    def reset(self):
        return super().reset()


class SeedlessWrapper(gym.Wrapper):
    def reset(self):
        return self.env.reset()


@pytest.mark.parametrize(("source", "what"), [(Old, "ndarray"), (OldDict, "dict")])
@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_reset_without_info_is_named(source, what, asynchronous):
    envs = make(source, 1, asynchronous=asynchronous)
    with pytest.raises(EnvError) as raised:
        envs.reset()
    assert str(raised.value).startswith(
        f"environment 0 returned {what} from reset, and no info, as in Gym before 0.26: must be (obs, info). Write "
        "`return obs, {}` (at the reset of its episode 0"
    )
    envs.close()


@pytest.mark.parametrize("result", [OBS, (0.5, 0.5), (OBS, {}, {}), (OBS,), None, {"x": OBS}])
def test_what_is_no_pair_of_observation_and_info_is_refused(result):
    with pytest.raises(EnvError, match=r"from reset, and no info.*must be \(obs, info\)"):
        read_reset(result)
    assert read_reset((OBS, {"a": 1})) == (OBS, {"a": 1}) and read_reset([OBS, None]) == (OBS, {})


@pytest.mark.parametrize(("result", "what"), [
    ((OBS, 1.0, True, {}), "4 values from step, as in Gym before 0.26:"), ((OBS, 1.0), "2 values from step:"),
    (OBS, "ndarray from step:"), (None, "NoneType from step:"), ((OBS, 1.0, 1, 0, {}, {}), "6 values from step:"),
])  # fmt: skip
def test_what_is_no_step_of_five_is_refused(result, what):
    with pytest.raises(EnvError) as raised:
        read_step(result)
    assert str(raised.value).startswith(f"returned {what} must be (obs, reward, terminated, truncated, info)")


@pytest.mark.parametrize(("source", "who"), [
    (Seedless, "Seedless"), (lambda: SeedlessWrapper(Scripted()), "SeedlessWrapper"),
    (lambda: gym.wrappers.TimeLimit(Seedless(), 3), "Seedless"),
])  # fmt: skip
def test_a_reset_without_a_seed_is_refused_before_anything_runs(source, who):
    with pytest.raises(ConfigError, match=rf"{who}\.reset takes no seed, as in Gym before 0\.26\. Write `def reset"):
        make(source, 1)


def test_success_has_two_names():
    assert read_success({"is_success": True, "success": False}) == 1.0
    assert read_success({"success": np.array([0.5])}) == 0.5
    assert read_success({"is_success": None, "success": 0}) == 0.0
    assert read_success({"other": 1}) is None


SPEC = EnvSpec("<none>", Box((3,), low=(-1.0,) * 3), Discrete(4))
NINE = tuple(map(float, range(9)))
PAIRS = {
    "nothing": (SPEC, SPEC, []),
    "a shape and bounds": (
        EnvSpec("<none>", Box((4,), low=(-1.0,) * 4), Discrete(4)), SPEC,
        ["observation.shape = (4,), not (3,)", "observation.low = (-1.0, -1.0, -1.0, -1.0), not (-1.0, -1.0, -1.0)"],
    ),
    "kinds": (
        EnvSpec("<none>", Discrete(3), MultiDiscrete((2, 2))), SPEC,
        ["observation is a Discrete, not a Box", "action is a MultiDiscrete, not a Discrete"],
    ),
    "one bound of many": (
        EnvSpec("<none>", Box((9,), high=NINE), Discrete(4, start=1)),
        EnvSpec("<none>", Box((9,), high=(*NINE[:7], 70.0, 80.0)), Discrete(4)),
        ["observation.high[7] = 7.0, not 70.0 (and 1 more)", "action.start = 1, not 0"],
    ),
    "bounds or none": (
        EnvSpec("<none>", Box((9,), high=NINE), Discrete(4)), EnvSpec("<none>", Box((9,)), Discrete(4)),
        ["observation.high = 9 values, not None"],
    ),
    "parts of parts": (
        EnvSpec("<none>", Dict({"a": Dict({"x": Discrete(2), "y": Discrete(2)}), "b": Discrete(2)}), Discrete(4)),
        EnvSpec("<none>", Dict({"a": Dict({"x": Discrete(3)}), "c": Discrete(2)}), Discrete(4)),
        [
            "observation['a']['x'].n = 2, not 3", "observation['a']['y'] is new", "observation['b'] is new",
            "observation['c'] is missing",
        ],
    ),
    "what is no space": (
        EnvSpec("<none>", SPEC.observation, SPEC.action, 10, None, ("a",)),
        EnvSpec("<none>", SPEC.observation, SPEC.action, 20, 1.5, ("b", "c")),
        ["max_episode_steps = 10, not 20", "reward_threshold = None, not 1.5", "tasks = ('a',), not ('b', 'c')"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PAIRS)
def test_differences_are_named_part_by_part(name):
    now, then, expected = PAIRS[name]
    assert list(spec_differences(now, then)) == expected


def test_environments_of_one_run_that_differ_are_compared_part_by_part():
    sizes = iter((2, 2, 3))

    def source():
        env = Scripted()
        env.observation_space = gym.spaces.Box(-100.0, 1e6, (next(sizes),), np.float64)
        return env

    with pytest.raises(ConfigError) as raised:
        make(source, 3)
    message = str(raised.value)
    assert message.startswith("environment 2 differs from environment 0: observation.shape = (3,), not (2,); ")
    assert "EnvSpec" not in message and len(message) < 300
