"""Images kept once, against a plain list of everything that was ever written."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from data.rollouts import ADD, SAMPLE, part
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from duologue.data import frames
from duologue.data import ring as rings
from duologue.types import Transition

SHAPE = (2, 1, 3)
LOST = jax.jit(rings.lost_successors)


def image(time, env, episode):
    """An image that tells when, where and in which episode it was seen."""
    codes = np.stack(np.broadcast_arrays(time % 251, env, episode % 251), -1).astype(np.uint8)
    return np.broadcast_to(codes[..., None, None, :], (*codes.shape[:-1], *SHAPE)).copy()


def history(steps, envs, chance, seed):
    """Everything that happens in `steps` steps. After a cut the next observation is of another episode than the
    successor."""
    generator = np.random.default_rng(seed)
    ended = generator.random((steps, envs)) < chance
    terminated = ended & (generator.random(ended.shape) < 0.5)
    episode = np.cumsum(ended, 0) - ended
    time, env = np.meshgrid(np.arange(steps), np.arange(envs), indexing="ij")
    vector = lambda time: np.stack([time, env], -1).astype(np.float32)  # noqa: E731
    obs = {"image": image(time, env, episode), "vector": vector(time)}
    next_obs = {"image": image(time + 1, env, episode), "vector": vector(time + 1)}
    reward = (time * envs + env).astype(np.float32)
    return Transition(obs, env.astype(np.int32), reward, terminated, ended & ~terminated, next_obs, {})


# Without shrinking, which would compile programs for minutes.
@settings(max_examples=25, deadline=None, phases=(Phase.explicit, Phase.reuse, Phase.generate))
@given(
    capacity=st.integers(2, 12), envs=st.integers(1, 3), length=st.integers(1, 3), rollouts=st.integers(1, 16),
    sequence=st.sampled_from([None, 2]), chance=st.sampled_from([0.0, 0.1, 0.9]), seed=st.integers(0, 99),
)  # fmt: skip
def test_what_is_sampled_is_what_was_written(capacity, envs, length, rollouts, sequence, chance, seed):
    """Every leaf of every row. A terminated row has its own image, and so has a truncated row whose successor is lost
    because more rows were truncated than are kept; how many these are is counted."""
    capacity, rollouts = capacity * length, max(rollouts, -(-(sequence or 1) // length))
    past = history(length * rollouts, envs, chance, seed)
    ring = rings.init(part(past, 0), capacity)
    for i in range(rollouts):
        ring = ADD(ring, part(past, slice(i * length, (i + 1) * length)))
    batch = SAMPLE(ring, jax.random.key(seed), 64, sequence)
    time, env = np.divmod(np.asarray(batch.reward).astype(int), envs)
    assert time.min() >= length * rollouts - capacity
    expected = jax.tree.map(lambda x: x[time, env], past)
    cut = past.truncated
    number = np.cumsum(cut.ravel()).reshape(cut.shape) - 1
    lost = cut & (number < cut.sum() - len(ring.frames.cuts[0]))
    own = (past.terminated | lost)[time, env]
    wanted = np.where(own[..., None, None, None], expected.obs["image"], expected.next_obs["image"])
    expected = expected._replace(next_obs={**expected.next_obs, "image": wanted})
    jax.tree.map(np.testing.assert_array_equal, batch, expected)
    kept = slice(max(0, len(cut) - capacity), None)
    assert LOST(ring) == (lost[kept].sum(), cut[kept].sum())


@pytest.mark.parametrize("length", [1, 2, 3])
def test_however_short_episodes_are_no_terminated_row_takes_the_place_of_a_truncated_one(length):
    """Episodes of one to three steps, of which one in eight is truncated: all successors of these are there."""
    steps = 240
    last = np.arange(steps) % length == length - 1
    nth = np.cumsum(last) - 1
    past, truncated = history(steps, 1, 0.0, 0), (last & (nth % 8 == 0))[:, None]
    past = past._replace(truncated=truncated, terminated=last[:, None] & ~truncated)
    ring = rings.init(part(past, 0), 120)
    for i in range(steps):
        ring = ADD(ring, part(past, slice(i, i + 1)))
    batch = SAMPLE(ring, jax.random.key(0), 2000, None)
    time = np.asarray(batch.reward).astype(int)
    cut = np.asarray(batch.truncated)
    np.testing.assert_array_equal(batch.next_obs["image"][cut], past.next_obs["image"][time, 0][cut])
    assert LOST(ring) == (0, truncated[120:].sum()) and truncated[120:].sum() >= 120 // (8 * length)


@pytest.mark.parametrize(
    ("every", "lost"), [(1, 70), (2, 30), (4, 10), (8, 0)], ids=["all", "half", "a quarter", "an eighth"]
)
def test_what_is_lost_is_counted(every, lost):
    """Of the 80 newest rows one in `every` is truncated, and the successors of ten are kept."""
    past = history(160, 1, 0.0, 0)
    past = past._replace(truncated=(np.arange(160) % every == every - 1)[:, None])
    ring = rings.init(part(past, 0), 80)
    assert LOST(ring) == (0, 0)
    for i in range(160):
        ring = ADD(ring, part(past, slice(i, i + 1)))
        if i == 7:  # a ring that is not full counts its own rows alone
            assert LOST(ring) == (0, 8 // every)
    assert LOST(ring) == (lost, 80 // every)
    batch = SAMPLE(ring, jax.random.key(0), 1000, None)
    time = np.asarray(batch.reward).astype(int)
    itself = (np.asarray(batch.next_obs["image"]) == past.obs["image"][time, 0]).all((1, 2, 3))
    gone = past.truncated[:, 0] & (np.cumsum(past.truncated[:, 0]) <= 160 // every - 10)
    np.testing.assert_array_equal(itself, gone[time])


def test_each_seed_counts_its_own():
    """And vectors lose nothing, because every row stores its own successor."""
    past = history(40, 1, 0.0, 0)
    often, never = np.ones((40, 1), bool), np.zeros((40, 1), bool)
    ends = [past._replace(truncated=ended) for ended in (often, never)]
    both, add = jax.tree.map(lambda *x: np.stack(x, 1), *ends), jax.jit(jax.vmap(rings.add))
    ring = jax.tree.map(lambda x: jnp.stack([x] * 2), rings.init(part(past, 0), 16))
    for i in range(40):
        ring = add(ring, jax.tree.map(lambda x, i=i: x[i][:, None], both))
    lost, truncated = jax.vmap(rings.lost_successors)(ring)
    assert lost.tolist() == [14, 0] and truncated.tolist() == [16, 0]
    flat = past._replace(obs=past.obs["vector"], next_obs=past.next_obs["vector"], truncated=often)
    assert rings.lost_successors(rings.add(rings.init(part(flat, 0), 40), flat)) == (0, 0)


def test_no_cut_is_lost_while_episodes_last_eight_steps_on_average():
    past = history(400, 2, 0.1, 0)
    ring = rings.init(part(past, 0), 200)
    assert len(ring.frames.cuts[0]) == 200 * 2 // 8
    assert past.truncated[200:].sum() < len(ring.frames.cuts[0])
    for i in range(400):
        ring = ADD(ring, part(past, slice(i, i + 1)))
    batch = SAMPLE(ring, jax.random.key(0), 4000, None)
    time, env = np.divmod(np.asarray(batch.reward).astype(int), 2)
    assert past.truncated[time, env].sum() > 50
    needed = ~past.terminated[time, env]
    np.testing.assert_array_equal(batch.next_obs["image"][needed], past.next_obs["image"][time, env][needed])


def test_an_image_takes_memory_once():
    """Beside one more in eight, and the newest."""
    step = part(history(1, 2, 0.5, 0), 0)
    size = np.prod(SHAPE)
    ring = rings.init(step, 800)
    images = [x for x in jax.tree.leaves(ring) if x.dtype == jnp.uint8]
    assert sum(x.nbytes for x in images) == size * (2 * 800 + 2 * 800 // 8 + 2)
    assert rings.nbytes(step, 800) == sum(x.nbytes for x in jax.tree.leaves((ring.data, ring.frames))) + 4


def test_vectors_and_bytes_that_are_no_image_are_kept_as_they_are():
    step = part(history(1, 2, 0.5, 0), 0)
    flat = jax.tree.map(lambda x: x.reshape(2, -1), step.obs)
    assert rings.init(step._replace(obs=flat, next_obs=flat), 8).frames is None


@pytest.mark.parametrize("seeds", [None, 2])
@pytest.mark.parametrize("rollouts", [0, 3, 9])
def test_what_is_kept_comes_back(rollouts, seeds):
    past = history(9, 2, 0.4, 1)
    empty = ring = rings.init(part(past, 0), 6)
    for i in range(rollouts):
        ring = ADD(ring, part(past, slice(i, i + 1)))
    if seeds is not None:
        empty, ring = (jax.tree.map(lambda x: jnp.stack([x] * seeds), each) for each in (empty, ring))
    kept = rings.pack(ring)
    again = rings.unpack(kept, jax.eval_shape(lambda: empty))
    jax.tree.map(np.testing.assert_array_equal, again, ring)
    template = rings.open_template(jax.eval_shape(lambda: empty))
    assert template.data.reward is ... and template.frames.cuts[0] is ...


def test_the_ring_is_written_in_place():
    """No copy of the images or of the cuts, where sampling stands in a loop of unknown length."""
    step = part(history(1, 1, 0.5, 0), 0)
    ring = jax.eval_shape(lambda: rings.init(step, 80_000))
    rollout = jax.tree.map(lambda x: jax.ShapeDtypeStruct((1, *x.shape), x.dtype), step)

    def learn(ring, rollout, count, key):
        ring = rings.add(ring, rollout)
        mean = lambda x: jnp.mean(x.astype(jnp.float32))  # noqa: E731

        def once(i, total):
            batch = rings.sample(ring, jax.random.fold_in(key, i), 16)
            return total + mean(batch.next_obs["image"]) * mean(batch.obs["image"])

        return ring, jax.lax.fori_loop(0, count, once, 0.0)

    key = jax.eval_shape(lambda: jax.random.key(0))
    compiled = jax.jit(learn, donate_argnums=0).lower(ring, rollout, jnp.int32(1), key).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < rings.nbytes(step, 80_000) / 20
    assert frames.TRANSITIONS_PER_CUT == 8
