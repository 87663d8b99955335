"""Learning from a ring: when it starts, from which batches, in place, and the same in both loops."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from data.rollouts import assert_equal, decoded, encoded, filled, rollout
from envs.probe_env import ProbeEnv
from loops.recorder import Recorder
from oracles import require

import duologue as dl
from duologue.algorithms.sac import SAC
from duologue.data import dataset
from duologue.envs.gymnasium import GymnasiumEnvs
from duologue.envs.make import make
from duologue.envs.probe import ProbeEnvs
from duologue.loops import compiled, host, learning
from duologue.ops.temperature import Fixed
from duologue.types import Replay

TINY = SAC(
    networks=dl.Networks(hidden_sizes=(4,), init="lecun"), alpha=Fixed(), batch_size=8, n_step=2, replay_capacity=40,
    rollout_length=2, updates=2, learning_starts=12, start_steps=6,
)  # fmt: skip
LARGE = SAC(networks=TINY.networks, alpha=Fixed(), batch_size=16, n_step=3, replay_capacity=100_000)


def is_key(x):
    return hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def copied(tree):
    return jax.tree.map(lambda x: np.array(jax.random.key_data(x) if is_key(x) else x), tree)


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
    program, zero = compiled._compile_chunk(LARGE, envs, state, len(seeds) if many else None, None, 0.0, ())
    jitted, count = inspect.getclosurevars(program).nonlocals["jitted"], jax.ShapeDtypeStruct((), np.int32)
    args = state, jax.eval_shape(zero), None, count, count
    assert_in_place(jitted, *args, data=state.replay.data, devices=2 if many else 1)


def test_the_host_loop_never_copies_its_ring():
    envs = GymnasiumEnvs(lambda: ProbeEnv("action-continuous"), 1, seed=0)
    state = host.start(LARGE, envs, [0])
    player, data = host.HostLearner(LARGE, envs.spec, state), state.replay.data
    news = jax.tree.map(lambda x: jax.ShapeDtypeStruct((1, *x.shape[1:]), x.dtype), data)
    assert_in_place(player._learn, player._leaves, player.ring, news, player._keys, np.int32(0), None, data=data)


@pytest.mark.parametrize("loop", [compiled, host])
def test_a_share_of_what_a_loop_learns_from_is_recorded(loop):
    """Recorded rewards are 1,000, the environment's at most 1."""
    algorithm, z = Recorder(Replay(100, 40, learning_starts=4)), np.zeros((30, 1), np.float32)
    columns = {"observations": z, "actions": z, "next_observations": z, "rewards": np.full(30, 1000.0)}
    data = dataset.full_ring(dl.from_columns({**columns, "terminals": np.ones(30, bool)}))
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
    batch = jax.jit(lambda ring: learning.sample_batch(ring, wanted, key))(filled(5, length=2, envs=2, capacity=8))
    time, env = decoded(batch.reward)
    assert_equal(batch, jax.tree.map(jnp.asarray, encoded(time, env)))
    if sequence is not None:
        assert (np.diff(time, axis=-2) == 1).all() and (np.diff(env, axis=-2) == 0).all()


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


def final_state(seeds, interval=10**6):
    """The state of TINY on two Pendulums when the ring has wrapped."""
    require("gymnax")
    envs = make("gymnax/Pendulum-v1", 2)
    loop = compiled.run(TINY, envs, compiled.start(TINY, envs, seeds), steps=64, interval=interval)
    *_, (_, state, _) = loop
    return copied(state)


@pytest.fixture(scope="module")
def alone():
    """The run with seed 7."""
    return final_state([7])


def test_seed_i_of_many_is_the_single_run_with_its_ring(alone):
    many = final_state([6, 7])
    assert alone.replay.written == 32 and alone.replay.data.reward.shape == (20, 2)
    other, mine = (jax.tree.map(lambda x, i=i: x[i], many) for i in range(2))
    assert_equal(mine.algorithm, alone.algorithm, rtol=1e-5, atol=1e-5)
    assert_equal(mine.replay, alone.replay, rtol=1e-5, atol=1e-5)
    assert not np.isclose(other.replay.data.reward, alone.replay.data.reward).any()


def test_intervals_change_no_bit_of_learner_or_ring(alone):
    assert_equal(final_state([7], interval=12), alone)
