"""Stacks of frames of which a ring holds each frame once, against a plain list of whole transitions."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from data.rollouts import ADD, SAMPLE, assert_uniform, part
from data.rollouts import filled as plain_ring
from envs.scripted import Counting
from gymnasium.wrappers import FrameStackObservation
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from loops.recorder import Recorder

import duologue as dl
from duologue.data import frames
from duologue.data import ring as rings
from duologue.envs.gymnasium import GymnasiumEnvs
from duologue.envs.many_seeds import SeedEnvs
from duologue.envs.spaces import mark_stacked, stack_depths
from duologue.loops import host, replay_ring
from duologue.types import Box, Dict, Discrete, EnvSpec, Replay, Transition

CUT = jax.jit(rings.cut)


def history(steps, envs, depth, chance, seed, shape=(2, 1)):
    """Everything that happens in `steps` steps: all frames differ, and the flags come out of an independent model, one
    environment and one step after the other, with a stack for each that begins anew."""
    generator, code = np.random.default_rng(seed), itertools.count(1)

    def frame():
        value = next(code)
        image = np.zeros(shape, np.uint8)
        image.ravel()[:2] = value // 256, value % 256
        return image

    rows = []
    now = [[frame()] * depth for _ in range(envs)]
    for t in range(steps):
        ended = generator.random(envs) < chance
        terminated = ended & (generator.random(envs) < 0.5)
        after = [[*stack[1:], frame()] for stack in now]
        reward, action = (t * envs + np.arange(envs)).astype(np.float32), np.arange(envs, dtype=np.int32)
        both = [
            {"x": np.array(each), "y": np.array([[t, e] for e in range(envs)], np.float32)} for each in (now, after)
        ]
        rows.append(Transition(both[0], action, reward, terminated, ended & ~terminated, both[1], {}))
        now = [[frame()] * depth if over else stack for over, stack in zip(ended, after, strict=True)]
    return jax.tree.map(lambda *column: np.array(column), *rows)


def marks(depth):
    return {"x": depth, "y": 1}


def filled(past, capacity, length, depth, hidden=None):
    """A ring to which `past` was added, `length` rows at a time. Truncations of the last rows of a rollout that are
    `hidden` are told to it only afterwards."""
    ring = rings.init(part(past, 0), capacity, marks(depth))
    for began in range(0, len(past.reward), length):
        rollout = part(past, slice(began, began + length))
        if hidden is None:
            ring = ADD(ring, rollout)
            continue
        late = hidden & rollout.truncated[-1]
        ring = ADD(
            ring, rollout._replace(truncated=np.concatenate([rollout.truncated[:-1], [rollout.truncated[-1] & ~late]]))
        )
        ring = CUT(ring, late | rollout.terminated[-1])  # what had ended before is no second cut
    return ring


# Without shrinking, which would compile programs for minutes.
@settings(max_examples=25, deadline=None, phases=(Phase.explicit, Phase.reuse, Phase.generate))
@given(
    depth=st.integers(2, 5), room=st.integers(0, 9), envs=st.integers(1, 3), length=st.integers(1, 4),
    rollouts=st.integers(1, 14), sequence=st.sampled_from([None, 1, 3]), chance=st.sampled_from([0.0, 0.1, 0.3, 0.9]),
    hides=st.booleans(), seed=st.integers(0, 999),
)  # fmt: skip
def test_what_is_sampled_is_what_a_list_holds(
    depth, room, envs, length, rollouts, sequence, chance, hides, seed
):  # fmt: skip
    """Both observations and all else, of every row that may come first and of no other, whatever ends where."""
    size = sequence or 1
    capacity = -(-(size + depth - 1 + room) // length) * length
    rollouts = max(rollouts, -(-size // length))
    past = history(length * rollouts, envs, depth, chance, seed)
    ring = filled(past, capacity, length, depth, np.arange(envs) % 2 == 0 if hides else None)
    batch = SAMPLE(ring, jax.random.key(seed), 512, sequence)
    time, env = np.divmod(np.asarray(batch.reward).astype(int), envs)
    rows = jax.tree.map(lambda x: x[time, env], past)
    lost = np.isin(time * envs + env, lost_cuts(past, len(ring.frames.cuts[0]), length, hides))
    lost |= past.terminated[time, env]  # needs no successor
    wanted = np.where(lost[..., None, None, None], rows.obs["x"], rows.next_obs["x"])
    jax.tree.map(np.testing.assert_array_equal, batch, rows._replace(next_obs={**rows.next_obs, "x": wanted}))
    oldest = max(0, length * rollouts - capacity)
    first = oldest + (depth - 1 if oldest else 0)
    starts = range(first, length * rollouts - size + 1)
    seen = set(np.ravel(time if sequence is None else time[0]).tolist())
    assert seen <= set(starts) and (seen == set(starts) or len(starts) * envs > 40)


def lost_cuts(past, slots, length, hides):
    """The rows of cuts but the newest `slots`, as `time · B + environment`. They are numbered in the order in which
    they are told: those that are hidden come after all others of their rollout."""
    numbered, envs = [], past.truncated.shape[1]
    for began in range(0, len(past.reward), length):
        late = []
        for t, e in itertools.product(range(began, began + length), range(envs)):
            if past.truncated[t, e]:
                hidden = hides and e % 2 == 0 and t == began + length - 1
                (late if hidden else numbered).append(t * envs + e)
        numbered += late
    return numbered[:-slots]


@pytest.mark.parametrize("size", [None, 2])
@pytest.mark.parametrize("rollouts", [6, 11], ids=["partly filled", "wrapped"])
def test_rows_whose_frames_are_there_are_drawn_uniformly(size, rollouts, key):
    """All others of a ring that has wrapped are not drawn at all."""
    ring = filled(history(rollouts, 2, 4, 0.3, 0), 8, 1, 4)
    reward = np.asarray(SAMPLE(ring, key, 20_000, size).reward)
    oldest = max(0, rollouts - 8)
    first = oldest and oldest + 3
    starts = (reward if size is None else reward[0]).astype(int) - 2 * first
    assert_uniform(starts, 2 * (rollouts - first - (size or 1) + 1))


def test_seeds_are_apart(key):
    """Rings of several seeds, written, cut and read under `vmap`, are those of each alone."""
    pasts = [history(9, 2, 3, 0.3, seed) for seed in range(2)]
    alone = [filled(past, 6, 1, 3, np.array([True, False])) for past in pasts]
    both = jax.tree.map(lambda *x: jnp.stack(x), *alone)
    rollout = jax.tree.map(lambda *x: np.stack(x), *(part(past, slice(0, 1)) for past in pasts))
    where = np.array([[True, False], [False, True]])
    both = jax.jit(jax.vmap(lambda ring, news, where: rings.cut(rings.add(ring, news), where)))(both, rollout, where)
    batch = jax.jit(jax.vmap(lambda ring: rings.sample(ring, key, 32, 2)))(both)
    for i, ring in enumerate(alone):
        ring = CUT(ADD(ring, part(pasts[i], slice(0, 1))), where[i])
        jax.tree.map(np.testing.assert_array_equal, part(both, i), ring)
        jax.tree.map(np.testing.assert_array_equal, part(batch, i), SAMPLE(ring, key, 32, 2))


@pytest.mark.parametrize("seeds", [None, 2])
@pytest.mark.parametrize("rollouts", [0, 3, 9])
def test_what_is_kept_comes_back(rollouts, seeds):
    past = history(9, 2, 3, 0.4, 1)
    empty, ring = (
        filled(part(past, slice(0, n)), 6, 1, 3) if n else rings.init(part(past, 0), 6, marks(3)) for n in (0, rollouts)
    )
    if seeds is not None:
        empty, ring = (jax.tree.map(lambda x: jnp.stack([x] * seeds), each) for each in (empty, ring))
    again = rings.unpack(rings.pack(ring), jax.eval_shape(lambda: empty))
    assert jax.tree.structure(again) == jax.tree.structure(ring)
    jax.tree.map(np.testing.assert_array_equal, again, ring)


def test_a_cut_of_nothing_is_none():
    """Of an empty ring, of no environment, of one whose episode has ended."""
    past = history(3, 2, 3, 1.0, 1)
    for ring in (rings.init(part(past, 0), 6, marks(3)), filled(past, 6, 1, 3)):
        jax.tree.map(np.testing.assert_array_equal, CUT(ring, np.ones(2, bool)), ring)
    ring = filled(history(3, 2, 3, 0.0, 1), 6, 1, 3)
    jax.tree.map(np.testing.assert_array_equal, CUT(ring, np.zeros(2, bool)), ring)


def test_a_ring_without_stacks_is_cut_too():
    """Where the episode had not ended; nothing else changes."""
    ring = plain_ring(7, length=1, envs=4, capacity=5)
    assert ring.frames is None
    where, row = np.array([True, True, False, False]), 6 % 5
    ended = np.asarray(ring.data.terminated | ring.data.truncated)[row]
    assert ended.tolist() == [True, False, True, True]
    after = CUT(ring, where)
    truncated = np.array(ring.data.truncated)
    truncated[row, 1] = True
    wanted = rings.Ring(ring.data._replace(truncated=truncated), ring.written)
    jax.tree.map(np.testing.assert_array_equal, after, wanted)


def atari_step(envs=2):
    obs = jax.ShapeDtypeStruct((envs, 4, 84, 84), np.uint8)
    number, flag = (jax.ShapeDtypeStruct((envs,), kind) for kind in (np.float32, np.bool_))
    probs = jax.ShapeDtypeStruct((envs, 6), np.float32)
    return Transition(obs, jax.ShapeDtypeStruct((envs,), np.int32), number, flag, flag, obs, {"probs": probs})


def test_a_stack_takes_a_quarter():
    """Each frame once, one more in eight, and the newest."""
    step, rows = atari_step(), 1000
    once, whole = rings.nbytes(step, rows, 4), rings.nbytes(step, rows)
    images = 84 * 84 * (2 * rows + 2 * rows // frames.TRANSITIONS_PER_CUT + 2)
    assert images < once < images + 2 * rows * 60 and once < 0.26 * whole
    assert rings.nbytes(step, rows, 1) == whole  # where nobody says that they are stacks


def test_coloured_stacks_and_stacks_in_parts_of_an_observation():
    """A stack of images of three axes is one of images too; a stack of vectors stays as it is. Each frame of a stack
    that nobody marked is stored with the whole stack."""
    image = np.zeros((2, 3, 4, 5, 6), np.uint8)
    obs = {"colours": image, "grey": image[..., 0], "flat": image[..., 0, 0], "plain": image[:, 0]}
    assert frames.frame_depths(obs, {"colours": 3, "grey": 3, "flat": 3, "plain": 1}) == (3, 0, 3, 1)
    assert frames.frame_depths(obs) == (1, 1, 1, 1)
    assert frames.frame_depths({"floats": np.zeros((2, 4, 5, 6)), "ram": np.zeros((2, 128), np.uint8)}) == (0, 0)
    assert frames.history((3, 0, 3, 1)) == 2 and frames.history((0, 1)) == frames.history(()) == 0
    past = history(12, 2, 3, 0.3, 3, shape=(2, 1, 3))
    ring = filled(past, 8, 2, 3)
    assert ring.data.obs["x"].shape == (8, 2, 2, 1, 3)
    batch = SAMPLE(ring, jax.random.key(0), 64, None)
    time, env = np.divmod(np.asarray(batch.reward).astype(int), 2)
    np.testing.assert_array_equal(batch.obs["x"], past.obs["x"][time, env])


def test_ages_are_counted_from_the_last_flag():
    """The first row of all begins an episode too; the second time round it is as any other."""
    flags = jnp.array([0, 0, 0, 1, 0, 0, 0, 0], bool)[:, None]

    def ages(rows, most):
        row, env = jnp.array(rows)[:, None], jnp.zeros((1, 1), jnp.int32)
        both = [
            frames.episode_ages(*each, row, env, most) for each in ((flags, ~flags & False), (flags & False, flags))
        ]
        np.testing.assert_array_equal(*both)
        return both[0].ravel().tolist()

    assert ages(range(8), 3) == [0, 1, 2, 3, 0, 1, 2, 3]
    assert ages([8, 9, 11, 12, 13], 2) == [2, 2, 2, 0, 1]


def test_the_ring_is_written_in_place():
    """And rebuilt stacks are as large as the batch, not as the ring."""
    step = atari_step(1)
    ring = jax.eval_shape(lambda: rings.init(step, 4096, 4))
    rollout = jax.tree.map(lambda x: jax.ShapeDtypeStruct((1, *x.shape), x.dtype), step)

    def learn(ring, rollout, count, key):
        ring = rings.add(ring, rollout)
        mean = lambda x: jnp.mean(x.astype(jnp.float32))  # noqa: E731

        def once(i, total):
            batch = rings.sample(ring, jax.random.fold_in(key, i), 4)
            return total + mean(batch.next_obs) * mean(batch.obs)

        return ring, jax.lax.fori_loop(0, count, once, 0.0)

    key = jax.eval_shape(lambda: jax.random.key(0))
    found = jax.jit(learn, donate_argnums=0).lower(ring, rollout, jnp.int32(1), key).compile().memory_analysis()
    assert found.temp_size_in_bytes < rings.nbytes(step, 4096, 4) / 20
    cut = jax.jit(rings.cut, donate_argnums=0).lower(ring, jax.ShapeDtypeStruct((1,), bool)).compile()
    assert cut.memory_analysis().temp_size_in_bytes < rings.nbytes(step, 4096, 4) / 20


# In a run.


def envs_of(seed, drifts=False):
    return GymnasiumEnvs(lambda: FrameStackObservation(Counting(drifts), 3), 2, seed=seed)


def watched(envs, began):
    """Has every transition of `envs` noted; `began` holds the observations to act on."""
    step, seen = envs.step, []

    def noted(action):
        out = step(action)
        seen.append(Transition(began[0], action, out.reward, out.terminated, out.truncated, out.next_obs, {}))
        began[0] = out.obs
        return out

    envs.step = noted
    return seen


def assert_seen(ring, seen, key):
    """Sequences of the ring are what was seen, found again by their rewards. A terminated row has itself as its
    successor, because it needs none."""
    past = jax.tree.map(lambda *x: np.stack(x), *seen)
    past = past._replace(next_obs=np.where(past.terminated[..., None, None, None], past.obs, past.next_obs))
    batch = jax.tree.map(np.asarray, SAMPLE(ring, key, 256, 3))
    where = {float(reward): at for at, reward in np.ndenumerate(past.reward)}
    at = np.array([where[float(reward)] for reward in batch.reward.ravel()]).reshape(*batch.reward.shape, -1)
    assert (np.diff(at[..., 0], axis=0) == 1).all() and (at[..., 1:] == at[:1, :, 1:]).all()
    rows = jax.tree.map(lambda x: x[tuple(np.moveaxis(at, -1, 0))], past)
    for name in ("obs", "next_obs", "terminated", "truncated"):
        np.testing.assert_array_equal(getattr(batch, name), getattr(rows, name), err_msg=name)
    return batch


ALGORITHM = Recorder(Replay(60, 4, sequence_length=3, updates=1, learning_starts=8))


def test_what_a_host_loop_keeps_is_what_was_seen(key):
    """Before and after the ring has wrapped."""
    for steps in (40, 160):
        envs = envs_of(0)
        state = host.start(ALGORITHM, envs, [0])
        seen = watched(envs, [state.obs])
        *_, (_, state, _) = host.run(ALGORITHM, envs, state, steps=steps, interval=steps)
        assert state.replay.data.obs.shape == (30, 2, 2, 2)
        batch = assert_seen(state.replay, seen, key)
        assert batch.obs.shape == (3, 256, 3, 2, 2) and (batch.terminated | batch.truncated).any()


@pytest.mark.parametrize("seeds", [1, 2])
def test_an_episode_that_is_dropped_on_resuming_ends_there(seeds, key):
    """Neither stacks nor sequences run on into the next one; the last row's successor stays its own."""

    def fresh():
        many = [envs_of(seed, drifts=True) for seed in range(seeds)]
        return many[0] if seeds == 1 else SeedEnvs(many)

    envs, keys = fresh(), list(range(seeds))
    state = host.start(ALGORITHM, envs, keys)
    seen = watched(envs, [state.obs])
    *_, (_, state, _) = host.run(ALGORITHM, envs, state, steps=20, interval=20)
    envs = fresh()
    state, message = host.restore(ALGORITHM, envs, state)
    assert "did not come back" in message
    last = seen[-1]
    seen[-1] = last._replace(truncated=~last.terminated)
    more = watched(envs, [state.obs])
    *_, (_, state, _) = host.run(ALGORITHM, envs, state, steps=40, interval=40)
    seen += more
    assert len(seen) == 20
    for i in range(seeds):
        one = (lambda x: x) if seeds == 1 else (lambda x, i=i: x[i])
        assert_seen(jax.tree.map(one, state.replay), [jax.tree.map(one, each) for each in seen], key)


def test_the_spec_decides_and_the_capacity_knows():
    """A ring too small for a sequence and the rows that its first stack reaches back to is refused."""
    stack = Box((4, 5, 5), "uint8")
    assert (
        stack_depths(mark_stacked(Dict({"a": stack, "b": Discrete(3)}))) == {"a": 4, "b": 1}
        and stack_depths(stack) == 1
    )
    plain, spec = (EnvSpec("", space, Box((1,))) for space in (stack, mark_stacked(stack)))
    of = lambda capacity: Recorder(Replay(capacity, 1, 3), rollout_length=2)  # noqa: E731
    assert replay_ring.ring_bytes(of(8), plain, 2, 1) > 0
    with pytest.raises(dl.ConfigError, match=r"replay_capacity = 11: must be at least 12 here"):
        replay_ring.ring_bytes(of(11), spec, 2, 1)
    assert replay_ring.ring_bytes(of(12), spec, 2, 1) < replay_ring.ring_bytes(of(12), plain, 2, 1)
