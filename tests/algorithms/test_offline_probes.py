"""What learns from recorded data, on four situations whose answers are known, many seeds in one program."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import duologue as dl
from duologue.loops import offline
from duologue.ops.temperature import Fixed

ROWS, UPDATES, DISCOUNT = 4000, 2000, 0.8
SEEDS = pytest.mark.parametrize("seeds", [4, pytest.param(10, marks=pytest.mark.slow)])
RIGHT, LEFT, GAP, ENDLESS = range(4)
"""Situations, each an observation of its own: one pays 1 − (a − ½)², one 1 − (a + ½)², one pays a, of which the data
have [−½, ½] alone, and one pays 1 until a time limit cuts it off."""

SMALL = dl.Networks(hidden_sizes=(32,), init="lecun", activation="relu")
SHARED = dict(batch_size=64, discount=DISCOUNT, tau=0.1, networks=SMALL)
RATES = dict(actor_learning_rate=3e-3, critic_learning_rate=1e-2)
CAREFUL = {
    "bear": dl.BEAR(vae_networks=SMALL, warm_start=500, vae_learning_rate=1e-2, candidates=50, **RATES, **SHARED),
    "bcq": dl.BCQ(vae_networks=SMALL, learning_rate=3e-3, perturbation_limit=0.3, **SHARED),
    "cql": dl.CQL(conservatism=Fixed(0.3), alpha=Fixed(0.02), proposals=4, **RATES, **SHARED),
    "iql": dl.IQL(expectile=0.9, inverse_temperature=20.0, value_learning_rate=1e-2, **RATES, **SHARED),
    "td3-bc": dl.TD3BC(alpha=0.5, target_noise=0.0, **RATES, **SHARED),
}
CARELESS = {
    "sac": dl.SAC(alpha=Fixed(0.0), **RATES, **SHARED),
    "td3": dl.TD3(target_noise=0.0, **RATES, **SHARED),
}


def recorded_in(*situations):
    generator = np.random.default_rng(0)
    situation = generator.choice(situations, size=ROWS)
    action = generator.uniform(-1, 1, ROWS) * np.where(situation == GAP, 0.5, 1.0)
    pay = [1 - (action - 0.5) ** 2, 1 - (action + 0.5) ** 2, action, np.ones(ROWS)]
    obs, endless = np.eye(4, dtype=np.float32)[situation], situation == ENDLESS
    return dl.from_columns({
        "observations": obs, "actions": action[:, None].astype(np.float32),
        "rewards": np.choose(situation, pay).astype(np.float32), "terminals": ~endless, "timeouts": endless,
        "next_observations": obs,
    })  # fmt: skip


def learned(algorithm, data, seeds):
    """`(choice, value)` of each seed in each situation, `[S, 4]`: the test policy's action, and the critics' mean of
    it."""
    source = offline.prepare_data(algorithm, data)
    state = offline.start(algorithm, source, list(range(seeds)))
    *_, (_, state, _) = offline.run(algorithm, source, state, steps=UPDATES, interval=UPDATES)

    def ask(learner):
        action, _, _ = algorithm.act(learner, None, jnp.eye(4), key=jax.random.key(0), explore=False)
        return action[:, 0], jnp.mean(algorithm.q(learner, jnp.eye(4), action), axis=0)

    return [np.asarray(x) for x in jax.jit(jax.vmap(ask))(state.algorithm)]


@SEEDS
@pytest.mark.parametrize("name", CAREFUL)
def test_the_best_of_the_data_is_found_and_nothing_beyond(name, seeds):
    choice, value = learned(CAREFUL[name], recorded_in(RIGHT, LEFT, GAP, ENDLESS), seeds)
    # A uniform action pays 0.42 in the mean, and its mean, 0, pays 0.75.
    assert np.all(1 - (choice[:, RIGHT] - 0.5) ** 2 > 0.8) and np.all(1 - (choice[:, LEFT] + 0.5) ** 2 > 0.8)
    assert np.all(choice[:, GAP] > 0.0) and np.all(choice[:, GAP] < 0.7)
    assert np.all(np.abs(value[:, ENDLESS] - 1 / (1 - DISCOUNT)) < 0.3)  # a time limit is no end


@SEEDS
@pytest.mark.parametrize("name", CARELESS)
def test_who_does_not_ask_what_the_data_hold_leaves_them(name, seeds):
    choice, value = learned(CARELESS[name], recorded_in(GAP), seeds)
    assert np.all(choice[:, GAP] > 0.9) and np.all(value[:, GAP] > 0.55)  # which nobody has seen to pay
