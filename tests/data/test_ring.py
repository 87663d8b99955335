"""The ring against a plain list, and what loops make of it: drawn uniformly, never copied, learned from when it is
time."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import duologue as dl
from duologue.algorithms.base import AbstractAlgorithm
from duologue.algorithms.sac import SAC
from duologue.data import dataset
from duologue.data import ring as rings
from duologue.envs.gymnasium import GymnasiumEnvs
from duologue.envs.make import make
from duologue.envs.probe import ProbeEnv, ProbeEnvs
from duologue.loops import compiled, exploration, host, learning, replay_ring
from duologue.ops.temperature import Fixed
from duologue.types import ACTION_MASK, Box, Discrete, EnvSpec, Experience, MultiDiscrete, Replay, Transition

ENVS = 10
"""Of which a reward can tell."""
ADD = jax.jit(rings.add)
SAMPLE = jax.jit(rings.sample, static_argnums=(2, 3))
TINY = SAC(
    networks=dl.Networks(hidden_sizes=(4,), init="lecun"), alpha=Fixed(), batch_size=8, n_step=2, replay_capacity=40,
    rollout_length=2, updates=2, learning_starts=12, start_steps=6,
)  # fmt: skip
LARGE = SAC(networks=TINY.networks, alpha=Fixed(), batch_size=16, n_step=3, replay_capacity=100_000)


def encoded(time, env):
    """The transitions of environments `env` at times `time`, of one shape: every leaf tells both, or a part of it."""
    time, env = np.asarray(time), np.asarray(env)

    def obs(time):
        image = np.stack([time, 3 * env, time + env], -1).astype(np.uint8)
        return {"vector": np.stack([time, env], -1).astype(np.float32), "image": image}

    flags = (time + env) % 3 == 0, (time + 2 * env) % 5 == 0
    extras = {"log_prob": -(time + 0.5 * env).astype(np.float32)}
    action, reward = (time * env).astype(np.int32), (ENVS * time + env).astype(np.float32)
    return Transition(obs(time), action, reward, *flags, obs(time + 1), extras)


def decoded(reward):
    """`(time, env)` of rewards."""
    return np.divmod(np.asarray(reward).astype(int), ENVS)


def rollout(began, length, envs):
    return encoded(*np.meshgrid(np.arange(began, began + length), np.arange(envs), indexing="ij"))


def step(envs):
    """Like one row of a rollout."""
    return jax.tree.map(lambda x: x[0], rollout(0, 1, envs))


def filled(adds, *, length, envs, capacity):
    """A ring after so many rollouts."""
    ring = rings.init(step(envs), capacity)
    for i in range(adds):
        ring = ADD(ring, rollout(i * length, length, envs))
    return ring


def is_key(x):
    return hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def copied(tree):
    return jax.tree.map(lambda x: np.array(jax.random.key_data(x) if is_key(x) else x), tree)


def assert_equal(a, b, **tolerance):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype and x.shape == y.shape
        np.testing.assert_allclose(x, y, **tolerance) if tolerance else np.testing.assert_array_equal(x, y)


def assert_uniform(cells, count):
    """Chi-square of so many kinds of cells, numbered from 0; the keys are fixed, and so is the result."""
    counts = np.bincount(np.ravel(cells), minlength=count)
    assert len(counts) == count and counts.sum() >= 20 * count
    assert stats.chisquare(counts).pvalue > 1e-3


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


def assert_in_place(program, *args, data, devices=1):
    """`program` writes into the ring it was given, and makes nothing near its size on the way."""
    found = program.lower(*args).compile().memory_analysis()
    size = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(data)) / devices
    assert found.alias_size_in_bytes >= size > 1e6
    assert found.temp_size_in_bytes < size / 50


@pytest.mark.needs("gymnax")
def test_learning_from_a_ring_never_copies_it():
    state = compiled.shapes(LARGE, make("gymnax/Pendulum-v1", 1), [0])
    news = jax.tree.map(lambda x: jax.ShapeDtypeStruct((1, *x.shape[1:]), x.dtype), state.replay.data)

    def learn(learner, ring, rollout, key, steps):
        return learning.learn(LARGE, learner, ring, rollout, key=key, steps=steps)

    program, steps = jax.jit(learn, donate_argnums=(0, 1)), jax.ShapeDtypeStruct((), np.int32)
    assert_in_place(program, state.algorithm, state.replay, news, state.key, steps, data=state.replay.data)


@pytest.mark.needs("gymnax")
@pytest.mark.parametrize("seeds", [[0], [0, 1, 2, 3]], ids=["one", "four"])
def test_the_compiled_loop_never_copies_its_ring(seeds):
    """Nor those of several seeds, over both devices."""
    envs, many = make("gymnax/Pendulum-v1", 2), len(seeds) > 1
    state = compiled.shapes(LARGE, envs, seeds)
    program, zero = compiled._program(LARGE, envs, state, len(seeds) if many else None, None, 0.0)
    jitted, count = inspect.getclosurevars(program).nonlocals["jitted"], jax.ShapeDtypeStruct((), np.int32)
    args = state, jax.eval_shape(zero), None, count, count
    assert_in_place(jitted, *args, data=state.replay.data, devices=2 if many else 1)


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
    kept = rings.packed(ring)
    rows = {x.shape[0 if seeds is None else 1] for x in jax.tree.leaves(kept.data)}
    assert rows == {min(written, 6)}
    shapes = jax.eval_shape(lambda: empty)
    assert_equal(rings.unpacked(kept, shapes), ring)
    other = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, jnp.int8), shapes)
    with pytest.raises(ValueError, match="does not fit into int8"):
        rings.unpacked(kept, other)


def test_the_host_loop_never_copies_its_ring():
    envs = GymnasiumEnvs(lambda: ProbeEnv("action-continuous"), 1, seed=0)
    state = host.start(LARGE, envs, [0])
    player, data = host.Player(LARGE, envs.spec, state), state.replay.data
    news = jax.tree.map(lambda x: jax.ShapeDtypeStruct((1, *x.shape[1:]), x.dtype), data)
    assert_in_place(player._learn, player._leaves, player.ring, news, player._keys, np.int32(0), None, data=data)


class Recorder(AbstractAlgorithm[dict]):
    """Always acts alike, out of bounds; its state is what its updates were given."""

    replay: Replay | None = None
    learn_from_rollout: bool = False
    rollout_length: int = 2
    discount: float = 0.9

    @property
    def experience(self):
        return Experience(2, self.rollout_length, learn_from_rollout=self.learn_from_rollout, replay=self.replay)

    def init(self, spec, *, key):
        return {"updates": jnp.int32(0), "shapes": jnp.zeros((99, 3), jnp.int32), "means": jnp.zeros(99)}

    def act(self, state, carry, obs, *, key, explore):
        return jnp.full((obs.shape[0], 1), 7.0), {}, carry

    def update(self, state, batch, *, key):
        i, mean = state["updates"], jnp.mean(batch.reward)
        shape = jnp.array([*batch.reward.shape, *(0,) * (3 - batch.reward.ndim)], jnp.int32)
        shapes, means = state["shapes"].at[i].set(shape), state["means"].at[i].set(mean)
        assert all(x.shape[: batch.reward.ndim] == batch.reward.shape for x in jax.tree.leaves(batch))
        return {"updates": i + 1, "shapes": shapes, "means": means}, {"mean": mean, "one": jnp.ones(())}


@pytest.mark.parametrize("loop", [compiled, host])
def test_a_share_of_what_a_loop_learns_from_is_recorded(loop):
    """Recorded rewards are 1,000, the environment's at most 1."""
    algorithm, z = Recorder(Replay(100, 40, learning_starts=4)), np.zeros((30, 1), np.float32)
    columns = {"observations": z, "actions": z, "next_observations": z, "rewards": np.full(30, 1000.0)}
    data = dataset.ring(dl.from_columns({**columns, "terminals": np.ones(30, bool)}))
    probe = "action-continuous"
    envs = ProbeEnvs(probe, 2) if loop is compiled else GymnasiumEnvs(lambda: ProbeEnv(probe), 2, seed=0)
    begun = loop.start(algorithm, envs, [1])
    ((_, state, _),) = loop.run(algorithm, envs, begun, steps=8, interval=8, recorded=data, share=0.25)
    assert 200 < state.algorithm["means"][0] < 300


def learned_from(algorithm, capacity=8):
    """What `algorithm` makes of a rollout that follows on two others, of two environments each, by environment
    steps."""
    length, key = algorithm.rollout_length, jax.random.key(3)
    ring, news = filled(2, length=length, envs=2, capacity=capacity), rollout(2 * length, length, 2)
    state = algorithm.init(None, key=key)
    return jax.jit(lambda steps: learning.learn(algorithm, state, ring, news, key=key, steps=steps))


@pytest.mark.parametrize("from_rollout", [False, True], ids=["replay", "both"])
def test_learning_starts_on_time_and_then_makes_every_update(from_rollout):
    """The rollout comes first, where it is learned from; metrics are sums over the updates."""
    learn = learned_from(Recorder(Replay(16, 5, updates=4, learning_starts=100), from_rollout))
    for steps, of_replay in ((99, 0), (100, 4), (101, 4)):
        learner, ring, metrics, updates = learn(np.int32(steps))
        count = of_replay + from_rollout
        assert int(updates) == int(learner["updates"]) == float(metrics["one"]) == count
        expected = [[2, 2, 0]] * from_rollout + [[5, 0, 0]] * of_replay
        np.testing.assert_array_equal(learner["shapes"][:count], np.reshape(expected, (-1, 3)))
        np.testing.assert_allclose(metrics["mean"], learner["means"].sum(), rtol=1e-6)
        assert len(set(np.asarray(learner["means"][:count]).tolist())) == count  # another batch each time
        assert int(ring.written) == 6
        if from_rollout:
            np.testing.assert_allclose(learner["means"][0], rollout(4, 2, 2).reward.mean())


@pytest.mark.parametrize("from_rollout", [False, True], ids=["replay", "both"])
def test_a_rollout_is_in_the_ring_before_batches_are_drawn(from_rollout):
    """A ring of one rollout holds no other."""
    algorithm = Recorder(Replay(4, 300, updates=2), from_rollout)
    learner, ring, _, _ = learned_from(algorithm, capacity=2)(np.int32(100))
    np.testing.assert_allclose(learner["means"][: 2 + from_rollout], rollout(4, 2, 2).reward.mean(), atol=2)
    assert_equal(ring.data, jax.tree.map(jnp.asarray, rollout(4, 2, 2)))


def test_no_sequence_is_drawn_before_the_ring_holds_one():
    algorithm, news = Recorder(Replay(16, 5, sequence_length=3)), rollout(1, 2, 2)
    ring, key = filled(0, length=2, envs=2, capacity=8), jax.random.key(0)
    state = algorithm.init(None, key=key)
    first = learning.learn(algorithm, state, ring, news, key=key, steps=jnp.int32(4))
    assert int(first.updates) == int(first.learner["updates"]) == 0
    second = learning.learn(algorithm, state, first.ring, news, key=key, steps=jnp.int32(8))
    assert int(second.updates) == int(second.learner["updates"]) == 1


@pytest.mark.parametrize("sequence", [None, 3])
@pytest.mark.parametrize("batches", [None, 4])
def test_batches_have_the_axes_that_replay_asks_for(batches, sequence, key):
    """`[N]`, `[L, N]`, `[D, N]` or `[D, L, N]`; and in time the last but one alone."""
    wanted = Replay(16, 5, sequence_length=sequence, batches_per_update=batches, updates=1)
    axes = ([] if batches is None else [batches]) + ([] if sequence is None else [sequence]) + [5]
    learner, *_ = learned_from(Recorder(wanted))(np.int32(100))
    assert learner["shapes"][0].tolist() == axes + [0] * (3 - len(axes))
    batch = jax.jit(lambda ring: learning.batch(ring, wanted, key))(filled(5, length=2, envs=2, capacity=8))
    time, env = decoded(batch.reward)
    assert_equal(batch, jax.tree.map(jnp.asarray, encoded(time, env)))
    if sequence is not None:
        assert (np.diff(time, axis=-2) == 1).all() and (np.diff(env, axis=-2) == 0).all()


@pytest.mark.parametrize(
    ("capacity", "num_envs", "length", "sequence", "expected"),
    [
        (100, 3, 4, None, 32),
        (24, 3, 4, None, 8),
        (23, 3, 4, None, 4),
        (12, 3, 4, 4, 4),
        (24, 3, 4, 5, 8),
        (7, 1, 1, 7, 7),
    ],
)
def test_the_capacity_is_rounded_down_to_whole_rollouts(capacity, num_envs, length, sequence, expected):
    algorithm = Recorder(Replay(capacity, 1, sequence), rollout_length=length)
    assert replay_ring.rows(algorithm, num_envs) == expected


@pytest.mark.parametrize(
    ("capacity", "num_envs", "length", "sequence", "least"),
    [
        (11, 3, 4, None, 12),
        (23, 3, 4, 8, 24),
        (6, 1, 1, 7, 7),
        (15, 3, 4, 5, 24),
    ],
)
def test_a_ring_too_small_for_a_rollout_or_a_sequence_is_refused(capacity, num_envs, length, sequence, least):
    """With the capacity that would do."""

    def rows(capacity):
        return replay_ring.rows(Recorder(Replay(capacity, 1, sequence), rollout_length=length), num_envs)

    with pytest.raises(dl.ConfigError, match=rf"replay_capacity = {capacity}: must be at least {least} here"):
        rows(capacity)
    assert rows(least) == least // num_envs


def test_only_algorithms_that_replay_have_a_ring():
    envs = ProbeEnvs("action-continuous", 2)
    assert compiled.start(Recorder(learn_from_rollout=True), envs, [0]).replay is None
    ring = compiled.start(Recorder(Replay(9, 1)), envs, [0]).replay
    assert ring.data.reward.shape == (4, 2) and ring.data.action.shape == (4, 2, 1)


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
    action = exploration.uniform(space, like, like, key)
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
    drawn = np.asarray(exploration.uniform(space, obs, like, key)).reshape(2000, -1)
    found, counts = np.unique(drawn, axis=0, return_counts=True)
    assert set(map(tuple, found.tolist())) == legal and drawn.dtype == np.int32
    assert abs(counts[0] - 1000) < 150


@SPACES
def test_actions_are_random_exactly_during_the_first_steps(space, like, key):
    spec, own = EnvSpec("", BOX, space), like + jnp.asarray(99, like.dtype)

    def explored(start, steps):
        algorithm = Recorder(Replay(16, 1, start_steps=start))
        return exploration.exploring(algorithm, spec, own, own, key=key, steps=jnp.int32(steps))

    for steps in (0, 49):
        assert_equal(explored(50, steps), exploration.uniform(space, like, like, key))
    for start, steps in ((50, 50), (50, 51), (0, 0)):
        assert_equal(explored(start, steps), own)
    assert_equal(exploration.exploring(Recorder(), spec, own, own, key=key, steps=jnp.int32(0)), own)


@pytest.mark.parametrize("bounds", [{}, {"low": (0.0,)}, {"high": (0.0,)}], ids=["none", "low", "high"])
def test_what_has_no_bounds_is_refused_only_where_it_would_be_drawn(bounds, key):
    spec, own = EnvSpec("", BOX, Box((1,), **bounds)), jnp.ones((3, 1))
    with pytest.raises(dl.ConfigError, match=r"start_steps: .* no bounds"):
        exploration.exploring(Recorder(Replay(16, 1, start_steps=1)), spec, own, own, key=key, steps=jnp.int32(5))
    assert_equal(exploration.exploring(Recorder(Replay(16, 1)), spec, own, own, key=key, steps=jnp.int32(0)), own)


@pytest.mark.parametrize("loop", [compiled, host], ids=["compiled", "host"])
def test_both_loops_explore_and_learn_from_the_same_steps_on(loop):
    """Two environments, rollouts of two steps: random are the steps after 0, 2 and 4 others, and updates follow the
    rollouts that end with 12, 16 and 20."""
    algorithm = Recorder(Replay(100, 3, updates=3, learning_starts=10, start_steps=5), learn_from_rollout=True)
    if loop is compiled:
        envs = ProbeEnvs("action-continuous", 2)
    else:
        envs = GymnasiumEnvs(lambda: ProbeEnv("action-continuous"), 2, seed=0)
    ((step, state, totals),) = loop.run(algorithm, envs, loop.start(algorithm, envs, [1]), steps=20, interval=20)
    learner, ring = copied(state.algorithm), state.replay
    assert step == 20 and int(ring.written) == 10 and ring.capacity == 50
    action = np.asarray(ring.data.action)[:10, :, 0]
    assert (np.abs(action[:3]) <= 1).all() and len(np.unique(action[:3])) == 6 and (action[3:] == 7).all()
    done = np.clip(action, -1, 1) if loop is host else action
    np.testing.assert_allclose(ring.data.reward[:10], 1 - (done - 0.5) ** 2, rtol=1e-5)
    shapes, once, more = learner["shapes"][: learner["updates"]], [2, 2, 0], [3, 0, 0]
    assert shapes.tolist() == [once] * 2 + [once, more, more, more] * 3
    assert int(totals.updates) == learner["updates"] == 14 == float(totals.metrics["one"])
    np.testing.assert_allclose(totals.metrics["mean"], learner["means"].sum(), rtol=1e-5)


def run(seeds, interval=10**6):
    """TINY on two Pendulums until the ring has wrapped."""
    envs = make("gymnax/Pendulum-v1", 2)
    loop = compiled.run(TINY, envs, compiled.start(TINY, envs, seeds), steps=64, interval=interval)
    *_, (_, state, _) = loop
    return copied(state)


@pytest.fixture(scope="module")
def alone():
    """The run with seed 7."""
    return run([7])


@pytest.mark.needs("gymnax")
def test_seed_i_of_many_is_the_single_run_with_its_ring(alone):
    many = run([6, 7])
    assert alone.replay.written == 32 and alone.replay.data.reward.shape == (20, 2)
    other, mine = (jax.tree.map(lambda x, i=i: x[i], many) for i in range(2))
    assert_equal(mine.algorithm, alone.algorithm, rtol=1e-5, atol=1e-5)
    assert_equal(mine.replay, alone.replay, rtol=1e-5, atol=1e-5)
    assert not np.isclose(other.replay.data.reward, alone.replay.data.reward).any()


@pytest.mark.needs("gymnax")
def test_intervals_change_no_bit_of_learner_or_ring(alone):
    assert_equal(run([7], interval=12), alone)
