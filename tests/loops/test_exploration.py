"""Uniformly random actions of the first steps: over which values, for whom, and how long."""

import jax.numpy as jnp
import numpy as np
import pytest
from data.rollouts import assert_equal, assert_uniform
from loops.recorder import Recorder

import duologue as dl
from duologue.loops import exploration
from duologue.types import ACTION_MASK, Box, Discrete, EnvSpec, MultiDiscrete, Replay

BOX = Box((2,), low=(-2.0, 0.0), high=(1.0, 10.0))
SPACES = pytest.mark.parametrize(
    ("space", "like"),
    [
        (Discrete(5), jnp.zeros(6000, jnp.int32)),
        (MultiDiscrete((2, 3)), jnp.zeros((6000, 2), jnp.int32)),
        (BOX, jnp.zeros((6000, 2))),
    ],
    ids=["discrete", "multi", "box"],
)


@SPACES
def test_uniform_actions_are_uniform_over_their_space(space, like, key):
    action = exploration.uniform_actions(space, like, like, key)
    assert action.shape == like.shape and action.dtype == like.dtype
    match space:
        case Discrete(n):
            assert_uniform(action, n)
        case MultiDiscrete((m, n)):
            assert np.unique(action[:, 1]).tolist() == list(range(n))
            assert_uniform(action[:, 0] * n + action[:, 1], m * n)
        case Box(low=low, high=high):
            assert (action >= np.array(low)[None]).all() and (action <= np.array(high)[None]).all()
            share = (np.asarray(action) - np.array(low)) / (np.array(high) - np.array(low))
            x, y = np.minimum((share * 6).astype(int), 5).T
            assert_uniform(6 * x + y, 36)


@pytest.mark.parametrize(
    ("space", "mask", "legal"),
    [
        (Discrete(4), [1, 0, 0, 1], {(0,), (3,)}),
        (MultiDiscrete((2, 3)), [0, 1, 1, 0, 1], {(1, 0), (1, 2)}),
    ],
    ids=["discrete", "multi"],
)
def test_uniform_actions_are_those_that_a_mask_allows(space, mask, legal, key):
    like = jnp.zeros((2000, 2) if isinstance(space, MultiDiscrete) else 2000, jnp.int32)
    obs = {ACTION_MASK: jnp.broadcast_to(jnp.array(mask, jnp.int8), (2000, len(mask)))}
    drawn = np.asarray(exploration.uniform_actions(space, obs, like, key)).reshape(2000, -1)
    found, counts = np.unique(drawn, axis=0, return_counts=True)
    assert set(map(tuple, found.tolist())) == legal and drawn.dtype == np.int32
    assert abs(counts[0] - 1000) < 150


@SPACES
def test_actions_are_random_exactly_during_the_first_steps(space, like, key):
    spec, own = EnvSpec("", BOX, space), like + jnp.asarray(99, like.dtype)

    def explored(start, steps):
        algorithm = Recorder(Replay(16, 1, start_steps=start))
        return exploration.randomize_first_actions(algorithm, spec, own, own, key=key, steps=jnp.int32(steps))

    for steps in (0, 49):
        assert_equal(explored(50, steps), exploration.uniform_actions(space, like, like, key))
    for start, steps in ((50, 50), (50, 51), (0, 0)):
        assert_equal(explored(start, steps), own)
    assert_equal(exploration.randomize_first_actions(Recorder(), spec, own, own, key=key, steps=jnp.int32(0)), own)


@pytest.mark.parametrize("bounds", [{}, {"low": (0.0,)}, {"high": (0.0,)}], ids=["none", "low", "high"])
def test_what_has_no_bounds_is_refused_only_where_it_would_be_drawn(bounds, key):
    spec, own = EnvSpec("", BOX, Box((1,), **bounds)), jnp.ones((3, 1))
    with pytest.raises(dl.ConfigError, match=r"start_steps: .* no bounds"):
        exploration.randomize_first_actions(
            Recorder(Replay(16, 1, start_steps=1)), spec, own, own, key=key, steps=jnp.int32(5)
        )
    assert_equal(
        exploration.randomize_first_actions(Recorder(Replay(16, 1)), spec, own, own, key=key, steps=jnp.int32(0)), own
    )
