"""The offline loop: exact however it is cut, one copy of the data for all seeds, and what it refuses."""

import dataclasses
import io

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

import duologue as dl
from duologue.algorithms.base import AbstractAlgorithm
from duologue.algorithms.families import recorded_experience
from duologue.data.dataset import from_columns
from duologue.loops import dispatch as chunks
from duologue.loops import offline
from duologue.types import Transition

N = 41
"""Rows of the data."""
SMALL = dict(networks=dl.Networks(hidden_sizes=(8,)), batch_size=4)
BC, TD3 = dl.BC(**SMALL), dl.TD3(**SMALL)


def columns(seed=0, n=N):
    """Observation 0 is the number of the row."""
    generator = np.random.default_rng(seed)
    obs = np.float32(np.stack([np.arange(n), generator.normal(3.0, 2.0, n)], 1))
    ends = generator.random((2, n)) < 0.1
    return {
        "observations": obs,
        "actions": np.float32(generator.uniform(-1, 1, (n, 1))),
        "rewards": np.float32(generator.normal(size=n)),
        "terminals": ends[0],
        "timeouts": ends[1] & ~ends[0],
        "next_observations": obs + np.float32([1.0, 0.0]),
    }


def data(seed=0):
    return from_columns(columns(seed), source="made.npz")


class WatchState(eqx.Module):
    rows: jax.Array
    count: jax.Array


class Watch(AbstractAlgorithm):
    """Learns nothing, and remembers which rows it was given."""

    discount: float = 0.99
    calls: int = 64

    @property
    def experience(self):
        return recorded_experience(4)

    def init(self, spec, *, key):
        return WatchState(jnp.full((self.calls, 4), -1), jnp.int32(0))

    def act(self, state, carry, obs, *, key, explore):
        return jnp.zeros((len(obs), 1)), {}, carry

    def update(self, state, batch, *, key):
        rows = state.rows.at[state.count].set(batch.obs[:, 0].astype(jnp.int32))
        return WatchState(rows, state.count + 1), {"reward": jnp.mean(batch.reward)}


def finished(algorithm, source, seeds, steps, interval=10**9, state=None):
    """The last state, copied, and each interval's count of updates."""
    counts = []
    state = offline.start(algorithm, source, seeds) if state is None else state
    for step, state, updates in offline.run(algorithm, source, state, steps=steps, interval=interval):  # noqa: B020
        kept = jax.tree.map(np.array, state.algorithm), np.array(state.step)
        counts.append((step, updates))
    return *kept, counts


def assert_equal(a, b, **tolerance):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, **tolerance) if tolerance else np.testing.assert_array_equal(x, y)


# The loop.


def test_chunks_and_intervals_change_no_bit(monkeypatch):
    """Chunks of one call, or as long as they may be; yielding every 7 steps, or once."""
    source = offline.prepare_data(BC, data())
    monkeypatch.setattr(chunks, "CHUNK_SECONDS", 0.0)
    whole, step, counts = finished(BC, source, [4], 30)
    assert step == 30 and [each for each, _ in counts] == [30] and counts[0][1].updates == 30
    monkeypatch.setattr(chunks, "CHUNK_SECONDS", 1e9)
    cut, _, counts = finished(BC, source, [4], 30, interval=7)
    assert [each for each, _ in counts] == [7, 14, 21, 28, 30]
    assert [int(updates.updates) for _, updates in counts] == [7, 7, 7, 7, 2]
    assert_equal(whole, cut)
    *_, (_, half, _) = offline.run(BC, source, offline.start(BC, source, [4]), steps=11, interval=11)
    assert_equal(whole, finished(BC, source, None, 30, state=half)[0])


def test_seeds_share_one_copy_of_the_data_and_are_the_single_runs():
    """On one device (three seeds) and spread over two. Nothing on a device holds the rows but the one ring; the data
    are what they were."""
    given = data()
    before = jax.tree.map(np.copy, given.rows)
    alone = {seed: finished(BC, offline.prepare_data(BC, data()), [seed], 12) for seed in (7, 8)}
    for seeds in ([7, 8, 9], [7, 8]):
        source = offline.prepare_data(BC, given)
        loop = offline.run(BC, source, offline.start(BC, source, seeds), steps=12, interval=6)
        _, state, _ = next(loop)
        held = [x.shape for x in jax.live_arrays() if N in x.shape and not x.is_deleted()]
        assert all(shape[:2] == (N, 1) for shape in held) and len(held) >= 6
        _, state, updates = next(loop)
        assert updates.updates.tolist() == [12 - 6] * len(seeds)
        for i, seed in enumerate([7, 8]):
            assert_equal(jax.tree.map(lambda x, i=i: x[i], state.algorithm), alone[seed][0], rtol=1e-5, atol=1e-5)
    assert_equal(given.rows, before)
    assert any((a != b).any() for a, b in zip(*(jax.tree.leaves(alone[s][0]) for s in (7, 8)), strict=True))


def test_every_row_is_drawn_alike_and_no_two_calls_the_same():
    watch = Watch(calls=2_000)
    state, _, (_, _) = *finished(watch, offline.prepare_data(watch, data()), [3], 2_000)[:2], (None, None)
    counts = np.bincount(state.rows.ravel(), minlength=N)
    assert len(counts) == N and ((counts - 8_000 / N) ** 2 / (8_000 / N)).sum() < 80  # χ² of 40 degrees
    assert len(np.unique(state.rows, axis=0)) > 1_990


def test_a_step_is_a_step_of_the_critics():
    """TD3 makes two of them in a call; five are rounded up to six."""
    source = offline.prepare_data(TD3, data())
    state, calls, counts = finished(TD3, source, [0], 5)
    assert calls == 3 and counts[-1][0] == 6
    assert int(state.critics.opt_state[0].count) == 6 and int(state.actor.opt_state[0].count) == 3


def test_a_window_serves_its_calls_and_then_the_next_one_comes(monkeypatch):
    """Nine rows, so two calls of four; the same wherever the run is cut or taken up again."""
    watch = Watch()
    source = offline.prepare_data(watch, data(), window=9)
    assert source.calls == 2
    rows = finished(watch, source, [3], 40)[0].rows
    starts = []
    for call in range(40):
        ring, until = source.at(call)
        numbers = np.asarray(ring.data.obs)[:, 0, 0]
        assert until == (call // 2 + 1) * 2 and len(ring.data.reward) == 9
        np.testing.assert_array_equal(numbers, (numbers[0] + np.arange(9)) % N)
        assert np.isin(rows[call], numbers).all()
        starts.append(numbers[0])
    assert len(set(starts)) > 10 and min(starts) < 9 and max(starts) > N - 9
    monkeypatch.setattr(chunks, "CHUNK_SECONDS", 1e9)
    *_, (_, half, _) = offline.run(watch, source, offline.start(watch, source, [3]), steps=17, interval=3)
    np.testing.assert_array_equal(rows, finished(watch, source, None, 40, interval=11, state=half)[0].rows)


def test_runs_of_other_seeds_see_other_windows():
    """Else the order of the data would be no part of what intervals over seeds are of."""

    def starts(seed):
        source = offline.prepare_data(Watch(), data(), window=9, seed=seed)
        return [int(np.asarray(source.at(call)[0].data.obs)[0, 0, 0]) for call in range(0, 40, 2)]

    assert starts(1) == starts(1) != starts(2)


def test_what_takes_note_has_seen_each_row_once():
    """Normalized: moments of the observations from the first update on, against NumPy's."""
    algorithm, given = dl.Normalized(dl.TD3BC(**SMALL), reward=False), data()
    source, steps = offline.prepare_data(algorithm, given), []
    for step, state, _ in offline.run(algorithm, source, offline.start(algorithm, source, [0]), steps=8, interval=2):
        moments, _ = state.algorithm.current
        assert moments.count == N
        np.testing.assert_allclose(moments.mean, given.rows.obs.mean(0, dtype=np.float64), rtol=1e-5)
        np.testing.assert_allclose(moments.variance, given.rows.obs.var(0, dtype=np.float64), rtol=1e-4)
        assert state.algorithm.pending[0].count == 0
        steps.append(step)
    assert steps == [2, 4, 6, 8]


def test_sac_learns_from_data_as_it_is():
    """No warming up, whatever `learning_starts` is; sequences never run past the end of the rows."""
    algorithm = dl.SAC(**SMALL, n_step=3)
    source = offline.prepare_data(algorithm, data())
    begun = offline.start(algorithm, source, [0])
    before = jax.tree.map(np.array, begun.algorithm.actor)
    state, _, counts = finished(algorithm, source, None, 6, state=begun)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(state)) and counts[-1][1].updates == 6
    assert any((a != b).any() for a, b in zip(*map(jax.tree.leaves, (state.actor, before)), strict=True))
    assert all(np.isfinite(value) for value in counts[-1][1].summary().values())


# What it refuses.


@pytest.mark.parametrize(
    ("algorithm", "window", "words"),
    [
        (dl.A2C(), None, "A2C learns from its own rollouts, not from recorded data"),
        (dl.ACER(), None, "ACER learns from its own rollouts"),
        (dl.Normalized(dl.PPO()), None, "PPO learns from its own rollouts"),
        (dl.SAC(n_step=50), None, "made.npz has 41 rows, fewer than the 50 of one sequence"),
        (dl.SAC(n_step=5), 4, r"window = 4: must be in \[5, 41\]"),
        (BC, 42, r"window = 42: must be in \[1, 41\]"),
        (BC, 0, r"window = 0"),
    ],
)
def test_what_cannot_learn_from_the_data_is_told_why(algorithm, window, words):
    with pytest.raises(dl.ConfigError, match=words):
        offline.prepare_data(algorithm, data(), window=window)


class Curious(Watch):
    @property
    def experience(self):
        return recorded_experience(4, extras=("log_prob", "mood"))


def test_extras_that_the_data_lack_are_named_and_those_there_are_carried():
    given = from_columns(columns() | {"extras/log_prob": np.zeros(N, np.float32)}, source="made.npz")
    with pytest.raises(dl.ConfigError, match=r"Curious reads mood of each row.* made.npz lacks .* log_prob"):
        offline.prepare_data(Curious(), given)
    rows = given.rows._replace(extras={**given.rows.extras, "mood": np.ones(N, np.float32), "more": np.ones(N)})
    held = offline.prepare_data(Curious(), dataclasses.replace(given, rows=rows)).data.rows.extras
    assert held.keys() == {"log_prob", "mood"}
    assert isinstance(given.rows, Transition)


def test_a_mask_of_the_data_is_used_and_a_drawn_one_only_where_there_is_none():
    bear = dl.BEAR(mask_probability=0.5, batch_size=4)
    mask = np.zeros((N, 2), np.int32)
    mask[:, 0] = 1
    held = lambda **more: offline.prepare_data(bear, from_columns(columns() | more, source="made.npz"))  # noqa: E731
    np.testing.assert_array_equal(held(**{"extras/mask": mask}).data.rows.extras["mask"], mask)
    drawn = held().data.rows.extras["mask"]
    assert 0 < np.mean(drawn) < 1
    other = offline.prepare_data(bear, data(), seed=5).data.rows.extras["mask"]
    np.testing.assert_array_equal(drawn, other)  # a row's own, and not a run's
    with pytest.raises(
        dl.ConfigError, match=r"extras/mask of made.npz has shape \[41, 3\]: must have \[41, 2\] for BEAR"
    ):
        held(**{"extras/mask": np.ones((N, 3), np.int32)})


def test_a_window_does_not_change_what_is_seen_before_the_first_update():
    """The discounted sum of rewards, by which Normalized scales them, runs on from one block to the next."""
    running = columns()
    running["next_observations"] = np.roll(running["observations"], -1, axis=0)
    algorithm, given = dl.Normalized(dl.TD3BC(**SMALL)), from_columns(running, source="made.npz")
    assert given.rows.truncated.sum() < 10
    for seeds in ([0], [0, 1]):
        whole, cut = (
            offline.start(algorithm, offline.prepare_data(algorithm, given, window=window), seeds)
            for window in (None, 6)
        )
        for a, b in zip(*(jax.tree.leaves(state.algorithm.pending) for state in (whole, cut)), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6)


# Whole runs.


def options(path):
    return {"console": Console(file=io.StringIO()), "run_dir": path, "log_every": 4, "save_every": 4}


def test_a_run_goes_on_bit_for_bit_from_its_file(tmp_path):
    """With a window, in its midst; a file that has changed meanwhile is refused, and so is playing nowhere."""
    np.savez(tmp_path / "made.npz", **columns())
    from_file = {"dataset": tmp_path / "made.npz", "window": 13, "seed": 3}
    whole = dl.train(TD3, steps=24, **from_file, **options(tmp_path / "whole"))
    dl.train(TD3, steps=10, **from_file, **options(tmp_path / "cut"))
    np.savez(tmp_path / "made.npz", **columns(seed=1))
    with pytest.raises(dl.CheckpointError, match=r"made\.npz: the data set has changed since this run started"):
        dl.resume(tmp_path / "cut", steps=24)
    np.savez(tmp_path / "made.npz", **columns())
    gone_on = dl.resume(tmp_path / "cut", steps=24, console=Console(file=io.StringIO()))
    assert whole.step == gone_on.step == 24
    assert_equal(whole.state, gone_on.state)
    assert_equal(whole.state, dl.load(tmp_path / "cut").state)
    with pytest.raises(dl.ConfigError, match="environment"):
        gone_on.evaluate()


def test_evaluation_needs_an_environment(tmp_path):
    with pytest.raises(dl.ConfigError, match=r"evaluate_every = 4: there is no environment\. Pass env"):
        dl.train(BC, dataset=data(), steps=8, evaluate_every=4, **options(tmp_path / "run"))
    assert not (tmp_path / "run").exists()
    with pytest.raises(dl.ConfigError, match="nothing to learn from"):
        dl.train(BC, steps=8, **options(tmp_path / "run"))
