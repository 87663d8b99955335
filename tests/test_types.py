"""Spaces and actions: bounds by component, and actions inside and outside the library."""

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import duologue as dl
from duologue.envs.spaces import action_space, bounds_of, observation_space
from duologue.loops.exploration import uniform_actions
from duologue.networks.heads import policy_head, require_bounded_box
from duologue.types import (
    Box,
    Dict,
    Discrete,
    MultiDiscrete,
    box_sides,
    clip_to_bounds,
    from_env_actions,
    to_env_actions,
)

INF = np.inf
VALVE = Box((2,), "float32", (900.0, None), (1000.0, None))
HALF = Box((3,), "float32", (0.0, None, -2.0), (None, 5.0, None))


def array(*bounds):
    return np.asarray(bounds, np.float32)


# Bounds by component


@pytest.mark.parametrize(
    ("low", "high", "sides"),
    [
        ([900, -INF], [1000, INF], ((900.0, None), (1000.0, None))),
        ([-INF, -INF], [INF, 1], (None, (None, 1.0))),
        ([-INF, 0], [INF, INF], ((None, 0.0), None)),
        ([-3.5e38, -1], [1, 3.4028235e38], ((None, -1.0), (1.0, None))),  # as large as float32 goes: no bound
        ([-1, -2], [1, 2], ((-1.0, -2.0), (1.0, 2.0))),
    ],
)
def test_a_bound_is_that_of_its_component(low, high, sides):
    assert bounds_of(np.float64(low), np.float64(high), (2,)) == sides


def test_a_bound_that_float32_cannot_hold_moves_inwards():
    """0.1 in float32 is above 0.1 in float64: an action at that bound would leave the space."""
    space = gym.spaces.Box(np.float64([-0.1, 0.3]), np.float64([0.1, 0.7]), dtype=np.float64)
    ours = action_space(space)
    for raw in ([[-9.0, -9.0]], [[9.0, 9.0]]):
        (action,) = to_env_actions(ours, array(*raw))
        assert space.contains(action.astype(np.float64)) and space.contains(action)


def test_actions_are_clipped_at_each_side_that_a_component_has():
    raw = array([-5, -50, -5], [7, 9, 80])
    np.testing.assert_array_equal(clip_to_bounds(HALF, raw), array([0, -50, -2], [7, 5, 80]))
    np.testing.assert_array_equal(clip_to_bounds(HALF, jnp.asarray(raw)), array([0, -50, -2], [7, 5, 80]))
    np.testing.assert_array_equal(
        clip_to_bounds(Box((3,), high=(1.0, None, None)), raw), array([-5, -50, -5], [1, 9, 80])
    )
    assert clip_to_bounds(Box((2,)), raw) is raw


@pytest.mark.parametrize(
    ("space", "centre", "spread"),
    [
        (VALVE, [950, 0], [50, 1]),  # scaled where both sides are finite, raw elsewhere
        (HALF, [0, 0, 0], [1, 1, 1]),
        (Box((2,), "float32", (5.0, None), (None, -3.0)), [5, -3], [1, 1]),  # 0 lies outside: the nearest point
        (Box((2, 1), "float32", (-1.0, 2.0), (1.0, 4.0)), [0, 3], [1, 1]),
        # Float32 has no 1e8 ± 1: with h = 0 every log-probability would be NaN.
        (Box((3,), "float32", (1e8, None, -1e30), (None, -1e9, 1e30)), [1e8, -1e9, 0], [1, 1, 1e30]),
    ],
)
@pytest.mark.parametrize("state_dependent", [False, True])
def test_the_initial_policy_is_scaled_by_component(space, centre, spread, state_dependent):
    head = policy_head(space, state_dependent_std=state_dependent, initial_log_std=0.0)
    policy = head(jnp.zeros((1, head.size)), jnp.zeros((1, 3)))
    np.testing.assert_allclose(policy.loc[0], centre)
    np.testing.assert_allclose(policy.scale[0], spread)


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (VALVE, "component 1 has no bound low and no bound high"),
        (HALF, "component 0 has no bound high"),
        (Box((2,), "float32", (0.0, None), (1.0, 1.0)), "component 1 has no bound low"),
        (Box((2,), "float32", None, (1.0, 1.0)), "component 0 has no bound low"),
        (Box((2,), "float32", (0.0, 1.0), (1.0, 1.0)), "component 1 has low = 1 and high = 1"),
        (Box((2,), "float32", (0.0, -3e38), (1.0, 3e38)), r"component 1 has low = -3e\+38 .* at most 1e\+37"),
        (Box((1,), "float32", (0.0,), (2e37,)), r"component 0 has low = 0 and high = 2e\+37: finite bounds must be"),
        (Box((1,), "float32", (0.0,), (1e-40,)), "component 0 .* at least 1e-37 apart"),
    ],
)
def test_what_needs_bounds_names_the_component_that_lacks_one(space, message):
    with pytest.raises(dl.ConfigError, match=message):
        require_bounded_box(space)


def test_bounds_too_large_for_float32_are_refused_on_one_side_too():
    with pytest.raises(dl.ConfigError, match=r"component 1 has low = 3e\+38 and high = inf"):
        policy_head(Box((2,), "float32", (0.0, 3e38), None), state_dependent_std=False, initial_log_std=0.0)


@pytest.mark.parametrize("sides", [((-1e37,), (1e37,)), ((0.0,), (1e-36,)), ((1e8,), None), (None, (-1e30,))])
def test_log_probabilities_are_finite_for_bounds_of_any_size(sides):
    space = Box((1,), "float32", *sides)
    head = policy_head(space, state_dependent_std=False, initial_log_std=0.0)
    policy = head(jnp.ones((64, 1)), jnp.zeros((64, 1)))
    action = clip_to_bounds(space, policy.sample(jax.random.key(0)))
    assert np.isfinite(policy.log_prob(action)).all() and np.isfinite(policy.entropy()).all()


def test_uniform_first_actions_need_bounds_of_every_component():
    like, key = jnp.zeros((64, 2)), jax.random.key(0)
    with pytest.raises(dl.ConfigError, match="start_steps"):
        uniform_actions(VALVE, jnp.zeros((64, 1)), like, key)
    action = np.asarray(uniform_actions(Box((1, 2), "float32", (0.0, 10.0), (1.0, 20.0)), like, like, key))
    assert ((action >= [0, 10]) & (action <= [1, 20])).all() and (action.max(0) > [0.9, 19]).all()


# Actions inside and outside


@pytest.mark.parametrize(
    ("space", "inside"),
    [
        (gym.spaces.Box(-1, 1, (2, 3)), array(*[0.5] * 6)),
        (gym.spaces.Box(-1, 1, ()), array(0.25)),
        (gym.spaces.Box(-1, 1, (2, 1, 2), np.float16), array(*[0.5] * 4)),
        (gym.spaces.Box(np.int16([-2, 3]), np.int16([2, 9]), dtype=np.int16), np.int32([4, 6])),
        (gym.spaces.Box(0, 1, (2, 2), np.uint8), np.int32([0, 1, 1, 0])),
        (gym.spaces.MultiDiscrete([2, 11], start=[0, 25]), np.int32([1, 10])),
        (gym.spaces.MultiDiscrete([[2, 3], [4, 5]]), np.int32([1, 2, 3, 4])),
        (gym.spaces.MultiBinary((2, 2)), np.int32([1, 0, 0, 1])),
        (gym.spaces.Discrete(3, start=-1), np.int32(2)),
    ],
    ids=str,
)
def test_every_action_reaches_the_environment_inside_its_space(space, inside):
    ours = action_space(space)
    (action,) = to_env_actions(ours, inside[None])
    assert space.contains(np.asarray(action)) and action.dtype in (space.dtype, np.float32)
    np.testing.assert_array_equal(from_env_actions(ours, action[None]), inside[None])


def test_components_of_integers_count_from_their_low():
    ours = action_space(gym.spaces.Box(np.int16([[-2], [3]]), np.int16([[2], [9]]), dtype=np.int16))
    assert ours == MultiDiscrete((5, 7), (-2, 3), (2, 1), "int16")
    np.testing.assert_array_equal(to_env_actions(ours, np.int32([[0, 6]])), [[[-2], [9]]])


def test_a_tuple_is_a_dict_of_its_numbers():
    space = gym.spaces.Tuple((gym.spaces.Discrete(2), gym.spaces.Dict(x=gym.spaces.Box(-1, 1, (2,)))))
    assert observation_space(space) == Dict(
        {"0": Discrete(2), "1": Dict({"x": Box((2,), "float32", (-1.0, -1.0), (1.0, 1.0))})}
    )


BOUND = st.one_of(st.none(), st.floats(-1e6, 1e6, width=32))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(BOUND, BOUND), min_size=1, max_size=5), st.randoms(use_true_random=False))
def test_any_mixture_of_bounds_holds_the_actions(pairs, random):
    low = [a if a is None or b is None else min(a, b) for a, b in pairs]
    high = [b if a is None or b is None else max(a, b) for a, b in pairs]
    space = gym.spaces.Box(
        array(*[-INF if x is None else x for x in low]), array(*[INF if x is None else x for x in high])
    )
    ours = action_space(space)
    np.testing.assert_array_equal(box_sides(ours)[0], space.low)
    np.testing.assert_array_equal(box_sides(ours)[1], space.high)
    raw = array(*[random.uniform(-2e6, 2e6) for _ in pairs])
    assert all(space.contains(action) for action in to_env_actions(ours, raw[None]))
