"""Metrics between two rows: folded on the way, so that memory stays as it is, and the row as it would be."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from envs.probe_env import ProbeEnv

from duologue.algorithms.base import AbstractAlgorithm
from duologue.envs.make import make_seeds
from duologue.loops import host
from duologue.loops.host_learner import ROWS_ON_DEVICE
from duologue.ops.metrics import train_row
from duologue.types import Experience


class Counting(AbstractAlgorithm[dict]):
    """Update t, from 0, has the metrics of `told(t)`; `seed` is one number for each seed."""

    broken: int = -1

    @property
    def experience(self):
        return Experience(1, 1)

    def init(self, spec, *, key):
        return {"t": jnp.int32(0), "seed": jax.random.uniform(key)}

    def act(self, state, carry, obs, *, key, explore):
        return jnp.zeros(obs.shape[0], jnp.int32), {}, carry

    def update(self, state, batch, *, key):
        x = jnp.sin(state["t"].astype(jnp.float32) * (1 + state["seed"])) * 1e3
        return state | {"t": state["t"] + 1}, told(jnp.where(state["t"] == self.broken, jnp.nan, x))


def told(x):
    return {"x": x, "x_min": x, "x_max": x, "offset": x + 1e6}


def rows_of(updates, interval, *, seeds=1, broken=-1, watch=lambda: None):
    """The sums of each row of a run, and `watch()` after each step."""
    algorithm = Counting(broken=broken)
    envs, watched = make_seeds(lambda: ProbeEnv("constant"), 1, seed=0, seeds=seeds), []
    step = envs.step

    def spied(action):
        watched.append(watch())
        return step(action)

    envs.step = spied
    loop = host.run(algorithm, envs, host.start(algorithm, envs, list(range(seeds))), steps=updates, interval=interval)
    return [(totals.updates, totals.metrics) for _, _, totals in loop], watched


def by_hand(first, last, seed, broken=-1):
    """The row of updates `first` … `last - 1`, from a list of all their metrics."""
    x = np.sin(np.arange(first, last, dtype=np.float32) * np.float32(1 + seed)) * np.float32(1e3)
    x[np.arange(first, last) == broken] = np.nan
    every = {name: np.asarray(value, np.float32).astype(np.float64) for name, value in told(x).items()}
    reduce = {"x": np.mean, "x_min": np.min, "x_max": np.max, "offset": np.mean}
    return {f"train/{name}": reduce[name](every[name]) for name in every}


def seed_numbers(count):
    """What `Counting.init` draws for each seed."""
    algorithm, envs = Counting(), make_seeds(lambda: ProbeEnv("constant"), 1, seed=0, seeds=count)
    return np.ravel(host.start(algorithm, envs, list(range(count))).algorithm["seed"])


@pytest.mark.parametrize("interval", [1, ROWS_ON_DEVICE, ROWS_ON_DEVICE + 1, 3 * ROWS_ON_DEVICE + 7])
def test_a_row_is_that_of_all_its_updates_however_they_are_folded(interval):
    updates = max(interval, 2 * ROWS_ON_DEVICE)
    rows, _ = rows_of(updates, interval)
    assert [int(count) for count, _ in rows] == [min(interval, updates - i) for i in range(0, updates, interval)]
    for i, (count, sums) in enumerate(rows):
        expected = by_hand(i * interval, i * interval + int(count), *seed_numbers(1))
        row = train_row(sums, count)
        assert row.keys() == expected.keys()
        for name in row:
            np.testing.assert_allclose(row[name], expected[name], rtol=1e-5, atol=1e-4, err_msg=name)


def test_each_seed_is_folded_alone():
    updates = 2 * ROWS_ON_DEVICE + 3
    [(count, sums)], _ = rows_of(updates, updates, seeds=2)
    assert count.tolist() == [updates] * 2
    row = train_row(sums, count)
    for i, seed in enumerate(seed_numbers(2)):
        for name, value in by_hand(0, updates, seed).items():
            np.testing.assert_allclose(row[name][i], value, rtol=1e-5, atol=1e-4, err_msg=name)


@pytest.mark.parametrize("broken", [0, ROWS_ON_DEVICE - 1, ROWS_ON_DEVICE, 2 * ROWS_ON_DEVICE])
def test_one_update_that_is_not_finite_is_found_in_its_row(broken):
    updates = 2 * ROWS_ON_DEVICE + 1
    [(count, sums)], _ = rows_of(updates, updates, broken=broken)
    assert all(np.isnan(value) for value in train_row(sums, count).values())


def test_arrays_stay_as_many_and_nothing_is_compiled_for_them(caplog):
    """From the first updates on; the row is the last."""
    with jax.log_compiles(), caplog.at_level("WARNING", "jax"):
        _, watched = rows_of(6 * ROWS_ON_DEVICE, 10**9, watch=lambda: (len(jax.live_arrays()), len(caplog.records)))
    held, compiled = np.transpose(watched)
    assert held.max() <= held[5] + ROWS_ON_DEVICE
    assert compiled[-1] == compiled[5]
