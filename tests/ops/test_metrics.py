"""What a row makes of many updates: means, and the smallest and the largest where a name says so."""

import jax.numpy as jnp
import numpy as np
import pytest

import duologue as dl
from duologue.ops import metrics

UPDATES = [
    {"loss": 1.0, "q_mean": 2.0, "q_min": -5.0, "q_max": 3.0, "q_min/land": 4.0},
    {"loss": 5.0, "q_mean": 4.0, "q_min": -1.0, "q_max": 9.0, "q_min/land": -2.0},
    {"loss": 3.0, "q_mean": 3.0, "q_min": -2.0, "q_max": 1.0, "q_min/land": 8.0},
]
ROW = {"loss": 3.0, "q_mean": 3.0, "q_min": -5.0, "q_max": 9.0, "q_min/land": -2.0}


def arrays(update):
    return {name: jnp.asarray(value) for name, value in update.items()}


def test_means_and_extrema_of_an_interval():
    gathered = metrics.empty_sums(arrays(UPDATES[0]))
    for update in UPDATES:
        gathered = metrics.add_metrics(gathered, arrays(update))
    assert metrics.train_row(gathered, 3) == {f"train/{name}": value for name, value in ROW.items()}
    assert metrics.join_steps({name: jnp.stack([arrays(u)[name] for u in UPDATES]) for name in ROW}) == ROW


def test_a_seed_without_updates_tells_zeros():
    several = {name: jnp.broadcast_to(x, (2,)) for name, x in metrics.empty_sums(arrays(UPDATES[0])).items()}
    first = metrics.add_metrics(several, {name: jnp.asarray([value, value]) for name, value in UPDATES[0].items()})
    one = {name: jnp.stack([first[name][0], several[name][0]]) for name in several}
    told = metrics.train_row(one, np.asarray([1, 0]))
    for name, value in UPDATES[0].items():
        np.testing.assert_array_equal(told[f"train/{name}"], [value, 0.0])


def test_described_is_numpys():
    x = np.random.default_rng(0).normal(size=(2, 50)).astype(np.float32)
    told = metrics.summary_metrics("q", jnp.asarray(x))
    for name, value in {"q_mean": x.mean(), "q_std": x.std(), "q_min": x.min(), "q_max": x.max()}.items():
        np.testing.assert_allclose(told[name], value, rtol=1e-5)


class Telling(dl.A2C):
    """A2C whose updates tell how many there were before; the same in each loop."""

    def init(self, spec, *, key):
        return super().init(spec, key=key), jnp.zeros(())

    def act(self, state, carry, obs, *, key, explore):
        return super().act(state[0], carry, obs, key=key, explore=explore)

    def update(self, state, batch, *, key):
        inner, _ = super().update(state[0], batch, key=key)
        return (inner, state[1] + 1), metrics.summary_metrics("count", state[1][None])


@pytest.mark.parametrize(
    ("env", "seeds"),
    [("CartPole-v1", 1), ("CartPole-v1", 2), pytest.param("gymnax/CartPole-v1", 2, marks=pytest.mark.needs("gymnax"))],
)
def test_loops_tell_the_extrema_of_the_interval(tmp_path, env, seeds):
    """Updates are numbered from 0; a row has those since the one before."""
    rows = []
    algorithm = Telling(num_envs=1, rollout_length=4, networks=dl.Networks(hidden_sizes=(4,)))
    dl.train(
        algorithm, env, steps=32, seeds=seeds, log_every=16, evaluate_every=16, save_every=16,
        run_dir=tmp_path / "run", callbacks=[lambda step, row: rows.append((step, row))],
    )  # fmt: skip
    assert len(rows) > 1
    first = 0
    for step, row in rows:
        last = step // 4 - 1
        for name, value in {"mean": (first + last) / 2, "std": 0.0, "min": first, "max": last}.items():
            found = row[f"train/count_{name}"]
            np.testing.assert_array_equal(found, np.full(np.shape(found), value))
        first = last + 1
