"""Spaces of Gymnasium at the door: what the library cannot hold is refused by the place of the part, in few words."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from duologue.envs.gymnasium import GymnasiumEnvs
from duologue.envs.spaces import action_space, obs_writer, observation_space, split_actions
from duologue.errors import ConfigError
from duologue.types import Box, Dict, Discrete, MultiDiscrete, brief, to_env_actions

INF = np.inf


def nan_bound():
    box = spaces.Box(-1.0, 1.0, (2,))
    box.low[1] = np.nan
    return box


@pytest.mark.parametrize(
    ("part", "words"),
    [
        (spaces.Text(3), "Supported are Box"),
        (spaces.OneOf((spaces.Discrete(2),)), "and Dict and Tuple of these"),
        (spaces.Box(0, 1, (2, 0)), "it has no element"),
        (spaces.Box(np.float32([0, -INF]), np.float32([1, -INF])), "component 1 has low = -inf and high = -inf"),
        (spaces.Box(0, 1e300, dtype=np.float64), None),
        (spaces.Box(1e300, INF, (2, 2), np.float64), r"component \(0, 0\) has low = 1e\+300 and high = inf"),
        (spaces.Box(INF, INF, ()), "component 0 has low = inf"),
        (nan_bound(), "component 1 has low = nan and high = 1"),
        (spaces.Discrete(10**6), None),
        (spaces.Discrete(10**6 + 1), "it has 1,000,001 values, more than 1,000,000"),
        (spaces.MultiDiscrete([2, 2**40]), "component 1 has 1,099,511,627,776 values"),
        (spaces.Discrete(3, start=2**31 - 2), "it has the values 2,147,483,646 to 2,147,483,648, and int32 ends"),
        (spaces.Discrete(2, start=2**31 - 2), None),
        (spaces.Discrete(3, start=2**40), "it has the values 1,099,511,627,776 to 1,099,511,627,778"),
        (spaces.Discrete(3, start=-(2**31)), None),
        (spaces.MultiDiscrete([2, 3], start=[0, -(2**40)]), "component 1 has the values -1,099,511,627,776 to"),
        (spaces.MultiDiscrete(np.zeros((0, 2), np.int64)), "it has no component"),
    ],
    ids=str,
)  # fmt: skip
def test_a_part_is_refused_by_its_place(part, words):
    whole = spaces.Dict(a=spaces.Discrete(2), b=spaces.Tuple((spaces.Discrete(2), part)))
    if words is None:
        assert isinstance(observation_space(whole), Dict)
        return
    kind = type(part).__name__
    with pytest.raises(
        ConfigError, match=rf"^The space .*{kind}.* of observation\['b'\]\['1'\] is not supported.*{words}"
    ):
        observation_space(whole)
    with pytest.raises(ConfigError, match=rf"^The observation space .*{kind}.* is not supported.*{words}"):
        observation_space(part)


@pytest.mark.parametrize(
    ("space", "words"),
    [
        (spaces.Dict({}), "The observation has no part"),
        (spaces.Tuple((spaces.Discrete(2), spaces.Dict(x=spaces.Tuple(())))), r"observation\['1'\]\['x'\] has no part"),
        (spaces.Dict({1: spaces.Discrete(2)}), "The observation has the key 1: must be text"),
        (spaces.Dict(x=spaces.Dict({(0, 1): spaces.Discrete(2)})), r"observation\['x'\] has the key \(0, 1\)"),
    ],
    ids=str,
)
def test_parts_have_names_and_something_to_observe(space, words):
    with pytest.raises(ConfigError, match=words):
        observation_space(space)


@pytest.mark.parametrize(
    ("space", "words"),
    [
        (spaces.Box(np.float32([[0, INF]]), INF), r"component \(0, 1\) has low = inf"),
        (spaces.Box(-INF, -1e300, (3,), np.float64), "component 0 has low = -inf and high = -1e"),
        (spaces.Discrete(2**40), "it has 1,099,511,627,776 values"),
        (spaces.Box(2**40, 2**40 + 3, (2,), np.int64), "component 0 has the values 1,099,511,627,776"),
        (spaces.Box(0, 2**40, (2, 2), np.int64), r"component \(0, 0\) has 1,099,511,627,777 integer values"),
        (spaces.Box(0, 2**40, (), np.int64), "component 0 has 1,099,511,627,777 integer values"),
        (spaces.Box(0, 1, (0,), np.int64), "it has no component"),
    ],
    ids=str,
)
def test_an_action_is_refused_by_its_component(space, words):
    with pytest.raises(ConfigError, match=f"^The action space .* is not supported: {words}"):
        action_space(space)


@pytest.mark.parametrize(
    ("space", "words"),
    [
        (spaces.MultiDiscrete([3] * 300), "MultiDiscrete of 300 parts"),
        (MultiDiscrete((3,) * 300), "MultiDiscrete of 300 parts"),
        (spaces.MultiDiscrete(np.full((30, 10), 3)), "MultiDiscrete of 300 parts"),
        (MultiDiscrete((3,) * 300, shape=(30, 10)), "MultiDiscrete of 300 parts"),
        (
            spaces.Box(np.zeros((9, 9), np.float32), np.arange(81, dtype=np.float32).reshape(9, 9)),
            "Box of the shape (9, 9) and float32",
        ),
        (Box((9, 9), "int8", (0.0,) * 81, (1.0,) * 81), "Box of the shape (9, 9) and int8"),
        (spaces.Dict({str(i): spaces.Discrete(2) for i in range(40)}), "Dict of 40 parts"),
        (Dict({str(i): Discrete(2) for i in range(40)}), "Dict of 40 parts"),
        (spaces.Tuple([spaces.Discrete(2)] * 40), "Tuple of 40 parts"),
        (spaces.MultiDiscrete([2, 3]), "MultiDiscrete([2 3])"),
        (Discrete(3), "Discrete(n=3, start=0)"),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_messages_show_long_spaces_in_few_words(space, words):
    assert brief(space) == words
    if type(space).__module__ == "duologue.types":
        assert str(space) == words


@pytest.mark.parametrize(
    ("space", "inside"),
    [
        (spaces.Box(-1.0, 1.0, ()), np.float32([0.5])),
        (spaces.MultiDiscrete(np.int64(5), start=np.int64(3)), np.int32([4])),
        (spaces.Box(-3, 3, (), np.int16), np.int32([6])),
        (spaces.MultiBinary(()), np.int32([1])),
    ],
    ids=str,
)
def test_actions_without_axes_reach_the_environment_as_arrays_without_axes(space, inside):
    """Gymnasium says that NumPy's scalars are none of its Box."""
    made = []

    class Scalar(gym.Env):
        observation_space = spaces.Discrete(2)
        action_space = space

        def reset(self, *, seed=None, options=None):
            return 0, {}

        def step(self, action):
            made.append(action)
            return 1, 0.0, False, False, {}

    envs = GymnasiumEnvs(Scalar, 2, seed=0)
    envs.reset()
    envs.step(np.stack([inside, inside]))
    for action in [*made, *split_actions(envs.spec.action, to_env_actions(envs.spec.action, inside[None]))]:
        assert isinstance(action, np.ndarray) and action.shape == () and space.contains(action)


def test_a_discrete_action_is_an_integer():
    action = split_actions(Discrete(3, start=5), to_env_actions(Discrete(3, start=5), np.int32([0, 2])))
    assert action == [5, 7] and all(type(each) is np.int64 for each in action)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8, bool])
def test_observations_without_axes(dtype):
    space = spaces.Box(0, 1, (), dtype)
    assert observation_space(space).shape == ()
    rows = np.zeros(2, observation_space(space).dtype)
    for obs in (np.array(1, dtype), dtype(1)):
        rows[:] = 0
        obs_writer(space)(rows, 1, obs)
        assert rows.tolist() == [0, 1]


@pytest.mark.parametrize(("low", "high"), [(1e19, 1e300), (-1e30, -2e18), (3.4028234e38, 1e300)])
def test_an_observation_whose_numbers_have_no_square_in_float32_is_refused(low, high):
    box = spaces.Box(np.array([0.0, low]), np.array([1.0, high]), dtype=np.float64)
    with pytest.raises(ConfigError, match=r"component 1 has low = .* float32 cannot compute"):
        observation_space(spaces.Dict({"part": box}))
    assert observation_space(spaces.Box(-1e30, 1e30, (2,))).size == 2  # smaller numbers lie between these bounds
