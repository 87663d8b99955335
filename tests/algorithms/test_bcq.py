"""BCQ, continuous and discrete: gradients through `update` against float64, and both ends of what constrains it."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from algorithms.by_hand import (
    CENTRE,
    HALF,
    HIGH,
    LOW,
    SMALL,
    SPEC,
    D,
    N,
    a_batch,
    as_numpy,
    assert_gradient,
    assert_polyak,
    assert_same,
    float64,
    gradients,
    mlp,
    noise,
    q,
)  # fmt: skip
from networks.vae_by_hand import LATENT, far, loss_by_hand, proposed
from scipy.special import log_softmax, softmax

import duologue as dl
from duologue.algorithms.bcq_discrete import loss
from duologue.networks.heads import box_bounds
from duologue.types import Box, Dict, Discrete, EnvSpec

PHI, K, RATE = 0.3, 5, 0.01
SETTINGS = dict(
    networks=SMALL, vae_networks=SMALL, discount=0.9, tau=0.3, learning_rate=RATE, minimum_weight=0.7,
    target_candidates=K, candidates=4,
)  # fmt: skip
PERTURBING, CLONING = dl.BCQ(**SETTINGS, perturbation_limit=PHI), dl.BCQ(**SETTINGS, perturbation_limit=0.0)
NETWORKS = "vae", "perturbation", "critics", "target_perturbation", "target_critics"
UPDATE = jax.jit(PERTURBING.update)


def started(key):
    """All networks, targets too, differ and are far from their initial values."""

    return far(PERTURBING, NETWORKS, key, bounds=box_bounds(SPEC.action))


def single(batch):
    """Its first rows, `[N]`."""
    return jax.tree.map(lambda x: x[0], batch)


def shifted(leaves, obs, actions, limit=PHI):
    """a + Φ h ξ(s, a), inside the box."""
    inputs = np.concatenate([np.broadcast_to(obs, (*actions.shape[:-1], 3)), (actions - CENTRE) / HALF], -1)
    return np.clip(actions + limit * HALF * np.tanh(mlp(leaves, inputs)), LOW, HIGH)


def values_of(critics, obs, actions):
    return q(float64(critics), np.broadcast_to(obs, (*actions.shape[:-1], 3)), actions)


def test_gradients_are_those_of_the_papers_losses(key):
    """The target is the best of K perturbed actions of the new VAE, by a mixture of the slow critics; ξ climbs the
    first new critic; the VAE learns from the data alone."""
    state, batch = started(key), single(a_batch())
    after, metrics = UPDATE(state, batch, key=key)
    rows, (of_vae, of_target, of_actor) = as_numpy(batch), jax.random.split(key, 3)

    actions = proposed(float64(after.vae), rows.next_obs, noise(of_target, (K, N, LATENT)))
    actions = shifted(float64(state.target_perturbation), rows.next_obs, actions)
    values = values_of(state.target_critics, rows.next_obs, actions)
    mixed = (0.7 * values.min(0) + 0.3 * values.max(0)).max(0)
    assert not np.allclose(mixed, 0.7 * values.max(1).min(0) + 0.3 * values.max(1).max(0))
    target = rows.reward + 0.9 * ~rows.terminated * mixed
    generated = proposed(float64(after.vae), rows.obs, noise(of_actor, (1, N, LATENT)))[0]

    def critic_loss(leaves):
        return ((q(leaves, rows.obs, rows.action) - target) ** 2).mean(-1).sum()

    def actor_loss(leaves):
        return -values_of(after.critics, rows.obs, shifted(leaves, rows.obs, generated))[0].mean()

    def vae_loss(leaves):
        return loss_by_hand(leaves, rows.obs, rows.action, noise(of_vae, (N, LATENT)))[0]

    assert_gradient(after.critics, critic_loss, state.critics)
    assert_gradient(after.perturbation, actor_loss, state.perturbation)
    assert_gradient(after.vae, vae_loss, state.vae)
    np.testing.assert_allclose(metrics["critic_loss"], critic_loss(float64(state.critics)), rtol=1e-4)
    np.testing.assert_allclose(metrics["actor_loss"], actor_loss(float64(state.perturbation)), rtol=1e-4)
    np.testing.assert_allclose(metrics["vae_loss"], vae_loss(float64(state.vae)), rtol=1e-4)
    assert_polyak(after.target_critics, state.target_critics, after.critics, 0.3)
    assert_polyak(after.target_perturbation, state.target_perturbation, after.perturbation, 0.3)
    assert_same(after.bounds, state.bounds)
    assert [int(getattr(after, x).opt_state[0].count) for x in ("vae", "perturbation", "critics")] == [1, 1, 1]


def test_the_successor_of_a_termination_is_never_read(key):
    state, batch = started(key), single(a_batch())
    poisoned = batch._replace(next_obs=jnp.where(batch.terminated[:, None], jnp.nan, batch.next_obs))
    assert_same(UPDATE(state, poisoned, key=key)[0].critics, UPDATE(state, batch, key=key)[0].critics)


def test_an_action_moves_by_no_more_than_the_limit_and_stays_in_the_box(key):
    state, obs = started(key), jnp.asarray(as_numpy(single(a_batch())).obs, jnp.float32)
    algorithm = dl.BCQ(**SETTINGS | {"candidates": 1}, perturbation_limit=1.0)
    base = np.asarray(state.vae.net.sample(obs, 1, key=key)[0], np.float64)
    stopped = []
    for bias, sign in ((30.0, 1), (-30.0, -1)):
        pushed = eqx.tree_at(lambda s: s.perturbation.net.mlp.output.bias, state, jnp.full(D, bias))
        action = np.asarray(algorithm.act(pushed, None, obs, key=key, explore=False)[0])
        np.testing.assert_allclose(action, np.clip(base + sign * HALF, LOW, HIGH), rtol=1e-4, atol=1e-4)
        assert (action >= LOW).all()
        assert (action <= HIGH).all()
        stopped.append((action == LOW) | (action == HIGH))
    assert (stopped[0] != stopped[1]).all()  # Φ = 1: each action would leave the box on one side


def test_the_test_policy_is_the_best_perturbed_candidate_by_the_first_critic(key):
    state, rows = started(key), as_numpy(single(a_batch()))
    obs = jnp.asarray(rows.obs, jnp.float32)
    actions = proposed(float64(state.vae), rows.obs, noise(key, (4, N, LATENT)))
    actions = shifted(float64(state.perturbation), rows.obs, actions)
    first, second = values_of(state.critics, rows.obs, actions)
    assert (first.argmax(0) != second.argmax(0)).any()
    chosen, extras, carry = PERTURBING.act(state, None, obs, key=key, explore=False)
    np.testing.assert_allclose(chosen, actions[first.argmax(0), np.arange(N)], rtol=1e-4, atol=1e-4)
    assert (extras, carry) == ({}, None)
    drawn = shifted(float64(state.perturbation), rows.obs, proposed(
        float64(state.vae), rows.obs, noise(key, (1, N, LATENT)),
    ))[0]  # fmt: skip
    np.testing.assert_allclose(PERTURBING.act(state, None, obs, key=key, explore=True)[0], drawn, rtol=1e-4, atol=1e-4)


def test_without_a_perturbation_one_candidate_is_a_clone_of_the_data(key):
    """The test policy is a draw of the VAE whatever the critics are, and the actor's loss moves nothing."""
    state, rows = started(key), as_numpy(single(a_batch()))
    clone = dl.BCQ(**SETTINGS | {"candidates": 1}, perturbation_limit=0.0)
    action, _, _ = clone.act(state, None, jnp.asarray(rows.obs, jnp.float32), key=key, explore=False)
    expected = proposed(float64(state.vae), rows.obs, noise(key, (1, N, LATENT)))[0]
    np.testing.assert_allclose(action, expected, rtol=1e-4, atol=1e-4)
    after, _ = jax.jit(CLONING.update)(state, single(a_batch()), key=key)
    assert_same(after.perturbation, state.perturbation)
    assert_same(after.vae, UPDATE(state, single(a_batch()), key=key)[0].vae)
    assert max(np.abs(g).max() for g in gradients(after.vae)) > 0


# Discrete actions.

CHOICES = 4
CHOOSING = EnvSpec("choices", Box((3,)), Discrete(CHOICES))
MASKED = EnvSpec(
    "masked", Dict({"action_mask": Box((CHOICES,), "int8", (0.0,) * CHOICES, (1.0,) * CHOICES), "x": Box((3,))}),
    Discrete(CHOICES),
)  # fmt: skip


def choosing(threshold, **options):
    return dl.BCQDiscrete(networks=SMALL, discount=0.9, tau=0.3, learning_rate=RATE, threshold=threshold, **options)


def begun_apart(spec, key):
    """Clone, Q and their slow copies, all far from their initial values."""
    return far(choosing(0.0), ("networks", "target_networks"), key, spec)


def choices():
    batch = single(a_batch())
    action = jnp.asarray([0, 1, 2, 3, 0, 2, 1], jnp.int32)
    return batch._replace(action=action, reward=batch.reward * jnp.asarray([3.0, -3, 0.3, -0.3, 6, -6, 0.1]))


def by_hand(leaves, obs):
    """Logits of the clone, Q."""
    return mlp(leaves[: len(leaves) // 2], obs), mlp(leaves[len(leaves) // 2 :], obs)


@pytest.mark.parametrize("threshold", [0.0, 0.5, 1.0])
def test_the_discrete_gradient_is_that_of_double_q_learning_among_likely_actions_and_of_cloning(threshold, key):
    """Threshold 0: double Q-learning, all actions; 1: the value of the likeliest action. Q chooses, the slow Q rates;
    Huber loss, cross-entropy, and 0.02 of the squared logits."""
    algorithm, state, batch = choosing(threshold, regularisation=0.02), begun_apart(CHOOSING, key), choices()
    after, metrics = jax.jit(algorithm.update)(state, batch, key=key)
    rows, each = as_numpy(batch), np.arange(N)
    logits, values = by_hand(float64(state.networks), rows.next_obs)
    probs, slow = softmax(logits, -1), by_hand(float64(state.target_networks), rows.next_obs)[1]
    likely = probs >= threshold * probs.max(-1, keepdims=True)
    best = np.where(likely, values, -np.inf).argmax(-1)
    assert (likely.sum(-1) == {0.0: CHOICES, 1.0: 1}.get(threshold, likely.sum(-1))).all()
    assert (best != slow.argmax(-1)).any()
    if threshold:
        assert (best != values.argmax(-1)).any()
    if threshold == 0.5:
        assert (best != logits.argmax(-1)).any()
    target = rows.reward + 0.9 * ~rows.terminated * slow[each, best]

    def parts(leaves):
        logits, values = by_hand(leaves, rows.obs)
        error = values[each, rows.action.astype(int)] - target
        huber = np.where(np.abs(error) <= 1, error**2 / 2, np.abs(error) - 0.5).mean()
        cloning = -log_softmax(logits, -1)[each, rows.action.astype(int)].mean()
        return error, huber, cloning, 0.02 * (logits**2).mean()

    error, huber, cloning, _ = parts(float64(state.networks))
    assert all(found.any() for found in (error < -1, (error > -1) & (error < 1), error > 1))
    assert_gradient(after.networks, lambda leaves: sum(parts(leaves)[1:]), state.networks)
    np.testing.assert_allclose([metrics["critic_loss"], metrics["cloning_loss"]], [huber, cloning], rtol=1e-4)
    assert_polyak(after.target_networks, state.target_networks, after.networks, 0.3)


@pytest.mark.parametrize("masked", [False, True], ids=["all allowed", "masked"])
@pytest.mark.parametrize("threshold", [0.0, 0.5, 1.0])
def test_the_discrete_test_policy_is_the_best_of_the_likely_and_allowed(threshold, masked, key):
    state, x = begun_apart(MASKED if masked else CHOOSING, key), jax.random.normal(key, (200, 3))
    mask = np.random.default_rng(0).random((200, CHOICES)) < 0.5
    mask[:, 2] = True
    obs = {"action_mask": jnp.asarray(mask, jnp.int8), "x": x} if masked else x
    action, _, _ = choosing(threshold).act(state, None, obs, key=key, explore=False)
    clone, values = state.networks.net.policy_and_q(obs)
    clone, values = np.asarray(clone.logits, np.float64), np.asarray(values, np.float64)
    allowed = mask if masked else np.ones_like(mask)
    probs = softmax(np.where(allowed, clone, -np.inf), -1)
    likely = allowed & (probs >= threshold * probs.max(-1, keepdims=True))
    assert (np.asarray(action) == np.where(likely, values, -np.inf).argmax(-1)).all()
    if masked:
        assert not allowed[np.arange(200), values.argmax(-1)].all()
    if threshold == 1.0:
        assert (np.asarray(action) == probs.argmax(-1)).all()
        assert (values.argmax(-1) != probs.argmax(-1)).any()


def test_a_masked_logit_weighs_nothing_in_the_discrete_loss(key):
    state, batch = begun_apart(MASKED, key), choices()
    mask = jnp.ones((N, CHOICES), jnp.int8).at[:, 3].set(0)
    batch = batch._replace(
        obs={"action_mask": mask, "x": batch.obs}, next_obs={"action_mask": mask, "x": batch.next_obs},
        action=jnp.minimum(batch.action, 2),
    )  # fmt: skip
    after, metrics = jax.jit(choosing(0.3).update)(state, batch, key=key)
    assert float(metrics["loss"]) < 100
    for leaf in float64((after, metrics)):
        assert np.isfinite(leaf).all()


def test_the_discrete_target_is_of_an_action_that_the_successors_mask_allows(key):
    state, batch = begun_apart(MASKED, key), choices()
    of_obs, of_next = (jnp.ones((N, CHOICES), jnp.int8).at[:, i].set(0) for i in (2, 0))
    masked = batch._replace(
        obs={"action_mask": of_obs, "x": batch.obs}, next_obs={"action_mask": of_next, "x": batch.next_obs},
        action=jnp.minimum(batch.action, 1),
    )  # fmt: skip
    _, metrics = jax.jit(choosing(0.0).update)(state, masked, key=key)
    rows = as_numpy(batch)
    now, slow = (by_hand(float64(n), rows.next_obs)[1] for n in (state.networks, state.target_networks))
    best = np.where(np.asarray(of_next) > 0, now, -np.inf).argmax(-1)
    assert (best == 2).any() and (now.argmax(-1) == 0).any()
    target = rows.reward + 0.9 * np.where(rows.terminated, 0, slow[np.arange(N), best])
    taken = by_hand(float64(state.networks), rows.obs)[1][np.arange(N), np.asarray(masked.action)]
    error = np.abs(taken - target)
    np.testing.assert_allclose(
        metrics["critic_loss"], np.where(error < 1, 0.5 * error**2, error - 0.5).mean(), rtol=1e-4
    )  # fmt: skip


def test_a_logit_that_only_is_unlikely_weighs_in_the_discrete_loss(key):
    # A probability may underflow without being masked: `clone.probs > 0` would leave this logit out.
    state, batch = begun_apart(CHOOSING, key), choices()
    networks = eqx.tree_at(
        lambda n: n.network.actor.output.bias, state.networks.net, jnp.asarray([0.0, 0.0, 0.0, -200.0])
    )
    batch = batch._replace(action=jnp.minimum(batch.action, 2))
    total, metrics = loss(networks, batch.obs, batch.action, batch.reward, 1.0)
    logits, _ = by_hand(float64(networks), as_numpy(batch).obs)
    weight = total - metrics["critic_loss"] - metrics["cloning_loss"]
    np.testing.assert_allclose(weight, (logits**2).mean(), rtol=1e-3)
