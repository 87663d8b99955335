"""The ring against a plain list: any writes and draws, drawn uniformly, kept without its empty rows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from data.rollouts import ADD, SAMPLE, assert_equal, assert_uniform, decoded, encoded, filled, rollout, step
from hypothesis import given, settings
from hypothesis import strategies as st

from duologue.data import ring as rings


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    shape=st.sampled_from([(1, 1, 1), (1, 1, 5), (1, 3, 4), (2, 1, 2), (2, 2, 8), (3, 3, 6)]),
    looks=st.lists(st.none() | st.integers(0, 7), max_size=12),
)
def test_any_sequence_of_writes_and_draws_is_that_of_a_list(shape, looks):
    """After each write: what can be drawn are the rows of the newest, and the sequences that begin with any of them and
    end with the last."""
    length, envs, capacity = shape
    ring, times = filled(0, length=length, envs=envs, capacity=capacity), []
    assert int(ring.rows) == 0 and ring.capacity == capacity
    for i, look in enumerate(looks):
        began = i * length
        ring, times = ADD(ring, rollout(began, length, envs)), (times + list(range(began, began + length)))[-capacity:]
        assert int(ring.rows) == len(times) and int(ring.written) == began + length
        if look is None:
            continue
        size = 1 + look % len(times)
        seen = SAMPLE(ring, jax.random.key(i), 512, size)
        time, env = decoded(seen.reward)
        assert_equal(seen, jax.tree.map(jnp.asarray, encoded(time, env)))
        assert (np.diff(time, axis=0) == 1).all() and (env == env[:1]).all()
        starts = {(t, e) for t in times[: len(times) - size + 1] for e in range(envs)}
        assert set(zip(time[0].tolist(), env[0].tolist(), strict=True)) == starts


def test_single_transitions_have_no_sequence_axis(key):
    ring = filled(3, length=2, envs=3, capacity=8)
    single, sequences = SAMPLE(ring, key, 7, None), SAMPLE(ring, key, 7, 4)
    for stored, one, many in zip(*map(jax.tree.leaves, (ring.data, single, sequences)), strict=True):
        assert one.shape == (7, *stored.shape[2:]) and many.shape == (4, 7, *stored.shape[2:])
        assert one.dtype == many.dtype == stored.dtype
    assert_equal(single, jax.tree.map(jnp.asarray, encoded(*decoded(single.reward))))


@pytest.mark.parametrize("size", [None, 2])
@pytest.mark.parametrize("adds", [3, 13], ids=["partly filled", "wrapped"])
def test_draws_are_uniform_and_independent(adds, size, key):
    """All pairs of (row, environment) in a batch of two are as likely: among them twice the same."""
    ring = filled(adds, length=1, envs=3, capacity=5)
    keys = jax.random.split(key, 20_000)
    reward = jax.jit(jax.vmap(lambda key: rings.sample(ring, key, 2, size).reward.reshape(-1, 2)[0]))(keys)
    time, env = decoded(reward)
    rows = int(ring.rows)
    cells = (time - (adds - rows)) * 3 + env
    kinds = 3 * (rows if size is None else rows - size + 1)
    assert_uniform(cells[:, 0] * kinds + cells[:, 1], kinds**2)


def test_a_write_that_the_end_of_the_array_would_cut_raises():
    ring = filled(1, length=2, envs=1, capacity=6)
    with pytest.raises(ValueError, match="6 rows cannot be written 4 at a time"):
        rings.add(ring, rollout(0, 4, 1))
    assert int(rings.add(ring, rollout(0, 6, 1)).written) == 8


def test_nbytes_are_the_bytes_of_the_arrays():
    """From arrays as from their shapes."""
    ring, example = filled(0, length=1, envs=3, capacity=7), step(3)
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), example)
    assert rings.nbytes(example, 7) == rings.nbytes(shapes, 7) == sum(x.nbytes for x in jax.tree.leaves(ring))
    assert_equal(rings.init(shapes, 7), ring)


@pytest.mark.parametrize("written", [0, 3, 9])
@pytest.mark.parametrize("seeds", [None, 2])
def test_a_ring_is_kept_without_its_empty_rows(written, seeds):
    """And comes back as it was: all of it once it has been full, the written rows before."""
    empty = rings.init(step(2), 6)
    ring = empty
    for t in range(written):
        ring = ADD(ring, rollout(t, 1, 2))
    if seeds is not None:
        ring, empty = (jax.tree.map(lambda x: jnp.stack([x] * seeds), each) for each in (ring, empty))
    kept = rings.pack(ring)
    rows = {x.shape[0 if seeds is None else 1] for x in jax.tree.leaves(kept.data)}
    assert rows == {min(written, 6)}
    shapes = jax.eval_shape(lambda: empty)
    assert_equal(rings.unpack(kept, shapes), ring)
    other = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, jnp.int8), shapes)
    with pytest.raises(ValueError, match="does not fit into int8"):
        rings.unpack(kept, other)
