"""The first rollout under normalisation: acted on the moments so far, learned on its own moments."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from algorithms.by_hand import SMALL, assert_same, begun
from algorithms.test_normalized import DISCOUNT, VECTOR, B, OnHost, Recorder, Scripted, T, a_rollout, observed
from runs.helpers import ITERATION, TINY, assert_same_run, resume, train
from runs.helpers import rows as metrics

import duologue as dl
from duologue.algorithms.normalized import Normalized
from duologue.loops import compiled, host
from duologue.types import Box, Replay

LEARNERS = dict(networks=dl.Networks(hidden_sizes=(6,)), rollout_length=T, num_envs=B, discount=DISCOUNT)
ONE_STEP = dict(LEARNERS, epochs=1, minibatch_size=T * B)
ACER = dl.ACER(**LEARNERS, batch_size=2, replay_capacity=100)
CONTINUOUS = dataclasses.replace(VECTOR, action=Box((2,), low=(-1.0, -1.0), high=(1.0, 1.0)))
SAC = dl.SAC(networks=SMALL, batch_size=4, num_envs=3, rollout_length=4, replay_capacity=120, start_steps=0)


def scales(values):
    """The mean of each column, and 1/√(σ² + ε), or 1 for a constant column. A loop in float64."""
    mean = np.zeros(values.shape[1])
    variance = np.zeros(values.shape[1])
    for row in values:
        mean += row / len(values)
    for row in values:
        variance += (row - mean) ** 2 / len(values)
    constant = variance <= (1e-4 * mean) ** 2 + 1e-14
    return mean, np.where(constant, 1.0, 1 / np.sqrt(variance + 1e-8))


def by_own_moments(batch):
    """A rollout `[T, B]`, normalised by its own moments in NumPy."""
    obs, reward = np.asarray(batch.obs, np.float64), np.asarray(batch.reward, np.float64)
    mean, scale = scales(obs.reshape(-1, obs.shape[-1]))
    running, sums = np.zeros(B), []
    for t in range(T):
        running = DISCOUNT * running + reward[t]
        sums += list(running)
        running = np.where(np.asarray(batch.terminated | batch.truncated)[t], 0.0, running)
    reward = np.clip(reward * scales(np.array(sums)[:, None])[1][0], -10, 10)

    def normal(x):
        return jnp.asarray(np.clip((np.asarray(x, np.float64) - mean) * scale, -10, 10), jnp.float32)

    return batch._replace(
        obs=normal(batch.obs), next_obs=normal(batch.next_obs), reward=jnp.asarray(reward, jnp.float32)
    )


def far(seed, *, shift, size, reward):
    """A rollout in units of its own: observations in `shift` ± 2 `size`, rewards of a size of 10 `reward`."""
    raw = a_rollout(seed)

    def move(x):
        return shift + size * x

    return raw._replace(obs=move(raw.obs), next_obs=move(raw.next_obs), reward=reward * raw.reward)


def acted(algorithm, state, carry, rollout, key):
    """Act and observe along a rollout, in one program: the state, the carry, and the rollout with its actions."""

    def step(now, row):
        action, extras, carry = algorithm.act(*now, row.obs, key=key, explore=True)
        row = row._replace(action=action, extras=extras)
        return algorithm.observe(now[0], carry, row), row

    (state, carry), rollout = jax.lax.scan(step, (state, carry), rollout)
    return state, carry, rollout


@pytest.mark.parametrize("inner", [dl.A2C(**LEARNERS), dl.PPO(**ONE_STEP), dl.TRPO(**ONE_STEP), ACER])
def test_the_first_update_is_that_on_the_rollouts_own_moments(inner, key):
    """Also where an observation lies far from 0 or in tiny units, and where a reward does. Recorded probabilities stay
    those of the policy that acted."""
    algorithm = Normalized(inner)
    state, carry = begun(algorithm, VECTOR, key), algorithm.initial_carry(B)

    @jax.jit
    def both(rollout, learned):
        now, _, rollout = acted(algorithm, state, carry, rollout, key)
        ours = algorithm.update(now, rollout, key=key)
        theirs = inner.update(state.algorithm, learned._replace(action=rollout.action, extras=rollout.extras), key=key)
        return ours, theirs

    for shift, size, reward in ((0.0, 1.0, 50.0), (500.0, 1.0, 1000.0), (-3e4, 700.0, 1e-3), (1.0, 0.01, 0.0)):
        raw = far(0, shift=shift, size=size, reward=reward)
        (after, metrics), (expected, expected_metrics) = both(raw, by_own_moments(raw))
        assert_same(after.algorithm, expected, rtol=1e-3, atol=1e-5)
        for name in metrics.keys() & {"value_loss", "critic_loss", "actor_loss", "rho_mean", "rho"}:
            np.testing.assert_allclose(metrics[name], expected_metrics[name], rtol=1e-3, atol=1e-4, err_msg=name)
        assert float(metrics.get("value_loss", metrics.get("critic_loss"))) < 30


def test_the_first_ratio_is_one_in_each_of_the_first_rollouts(key):
    algorithm = Normalized(dl.PPO(**ONE_STEP, normalize_advantage=False))
    state, carry = begun(algorithm, CONTINUOUS, key), algorithm.initial_carry(B)

    @jax.jit
    def program(state, carry, rollout, key):
        state, carry, rollout = acted(algorithm, state, carry, rollout, key)
        return *algorithm.update(state, rollout, key=key), carry

    for k in range(3):
        rollout = far(k, shift=500.0, size=30.0, reward=100.0)
        state, metrics, carry = program(state, carry, rollout, jax.random.fold_in(key, k))
        np.testing.assert_allclose(metrics["approx_kl"], 0.0, atol=1e-6)
        assert float(metrics["clip_fraction"]) == 0.0 and float(metrics["value_loss"]) < 10


@pytest.mark.parametrize(("env", "seeds"), [("Pendulum-v1", 2), ("gymnax/Pendulum-v1", 1), ("gymnax/Pendulum-v1", 2)])
def test_the_first_ratio_is_one_in_both_loops(env, seeds, tmp_path):
    algorithm = Normalized(dl.PPO(**ONE_STEP))
    run = train(env, tmp_path / "run", iterations=3, every=1, algorithm=algorithm, seeds=seeds)
    seen = metrics(run.path)
    assert len(seen) == 3 * seeds
    for row in seen:
        np.testing.assert_allclose(row["train/approx_kl"], 0.0, atol=1e-6)
        assert row["train/clip_fraction"] == 0.0
        assert row["train/value_loss"] < 100  # of raw rewards: up to a thousand


def test_the_first_rollout_is_acted_on_the_moments_so_far(unchecked, key):
    """The first step knows none, and its observation stays as it is, up to the clip."""
    algorithm = Normalized(Recorder())
    state, carry = algorithm.init(VECTOR, key=key), algorithm.initial_carry(B)
    raw = far(1, shift=40.0, size=3.0, reward=1.0)
    _, _, rollout = observed(algorithm, state, carry, raw, key)
    so_far = np.asarray(raw.obs, np.float64)
    np.testing.assert_array_equal(rollout.extras["seen"][0], np.clip(so_far[0], -10, 10))
    for t in range(1, T):
        mean, scale = scales(so_far[:t].reshape(-1, 2))
        expected = np.clip((so_far[t] - mean) * scale, -10, 10)
        np.testing.assert_allclose(rollout.extras["seen"][t], expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("constant", "change"), [(0.0, 1e-3), (7.0, 1e-3), (-2000.0, 0.5), (0.1, -0.02)])
def test_what_never_changed_is_not_scaled(constant, change, unchecked, key):
    """The second column and the rewards stay the same in the first rollout. In the second rollout they change a little.
    Rewards are constant where they are 0."""
    log = []
    algorithm = Normalized(Recorder(log=log))
    state, carry = algorithm.init(VECTOR, key=key), algorithm.initial_carry(B)
    for k, second in enumerate((constant, constant + change)):
        raw = a_rollout(k)
        obs = jnp.stack([raw.obs[..., 0], jnp.full((T, B), second)], -1)
        raw = raw._replace(obs=obs, next_obs=obs, reward=jnp.full((T, B), k * change))
        state, carry, rollout = observed(algorithm, state, carry, raw, key)
        state, _ = algorithm.update(state, rollout, key=key)
    batch = log[-1][1]
    np.testing.assert_allclose(rollout.extras["seen"][..., 1], np.full((T, B), change), rtol=1e-2)
    np.testing.assert_allclose(batch.obs[..., 1], np.full((T, B), change), rtol=1e-2)
    np.testing.assert_allclose(batch.reward, np.full((T, B), change), rtol=1e-6)
    first = a_rollout(0).obs[..., 0]
    np.testing.assert_allclose(batch.obs[..., 0], (a_rollout(1).obs[..., 0] - first.mean()) / first.std(), rtol=1e-3)


class Replayed(Recorder):
    """Learns from replay alone, from the third rollout on."""

    @property
    def experience(self):
        replay = Replay(capacity=100, batch_size=2, learning_starts=3 * T * B)
        return dataclasses.replace(super().experience, learn_from_rollout=False, replay=replay)


def test_before_its_first_batch_an_algorithm_of_replay_acts_and_tests_on_the_moments_so_far(unchecked, key):
    algorithm, seen = Normalized(Replayed()), []
    state, carry = algorithm.init(VECTOR, key=key), algorithm.initial_carry(B)
    for k in range(2):
        raw = far(k, shift=40.0, size=3.0, reward=1.0)
        seen += [np.asarray(raw.obs, np.float64).reshape(-1, 2)]
        state, carry, rollout = observed(algorithm, state, carry, raw, key)
    mean, scale = scales(np.concatenate(seen)[:-B])
    np.testing.assert_allclose(
        rollout.extras["seen"][-1], np.clip((np.asarray(raw.obs[-1]) - mean) * scale, -10, 10), rtol=1e-3, atol=1e-3
    )


@pytest.mark.parametrize(("loop", "seeds"), [(host, [0]), (compiled, [0]), (compiled, [0, 1])])
def test_both_loops_act_on_the_same_moments(loop, seeds, unchecked):
    """Environment i at its step t sees (i, t). Acting normalises it by the steps before, learning by all steps."""
    algorithm = Normalized(Recorder())
    envs = OnHost() if loop is host else Scripted(VECTOR, B)
    ((_, _, totals),) = loop.run(algorithm, envs, loop.start(algorithm, envs, seeds), steps=T * B, interval=T * B)
    every = np.array([[(i, t) for i in range(B)] for t in range(T)], np.float64)
    mean, scale = scales(every.reshape(-1, 2))
    acting = [np.zeros(2), np.ones(2)], *(scales(every[:t].reshape(-1, 2)) for t in range(1, T))
    apart = [np.abs((x - m) * s - (x - mean) * scale).max() for x, (m, s) in zip(every, acting, strict=True)]
    np.testing.assert_allclose(np.ravel(totals.metrics["difference"]), [max(apart)] * len(seeds), rtol=1e-4)


@pytest.mark.parametrize("env", ["Pendulum-v1", "gymnax/Pendulum-v1"])
@pytest.mark.parametrize(
    ("inner", "after"), [(TINY, 1), (dataclasses.replace(SAC, learning_starts=4 * ITERATION), 2)], ids=["a2c", "sac"]
)
def test_a_run_resumed_after_its_first_rollout_is_the_same_run(inner, after, env, tmp_path):
    """SAC has not learned yet by then: its moments are still pending."""
    options = dict(algorithm=Normalized(inner), every=1)
    whole = train(env, tmp_path / "whole", iterations=6, **options)
    train(env, tmp_path / "parts", iterations=6, **options, callbacks=[lambda step, row: step < after * ITERATION])
    again = resume(tmp_path / "parts")
    assert again.step == whole.step == 6 * ITERATION
    assert_same_run(whole.path, again.path)
