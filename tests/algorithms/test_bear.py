"""BEAR: every gradient through `update` against the paper's losses in float64."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from algorithms.by_hand import (
    CENTRE,
    HALF,
    SMALL,
    SPEC,
    D,
    N,
    a_batch,
    as_numpy,
    assert_gradient,
    assert_polyak,
    assert_same,
    begun,
    float64,
    gradients,
    mlp,
    noise,
    q,
)  # fmt: skip
from networks.vae_by_hand import LATENT, far, generated, loss_by_hand

import duologue as dl
from duologue.algorithms.bear import LATER
from duologue.errors import ConfigError
from duologue.ops.temperature import Dual, Fixed

SETTINGS = dict(
    networks=SMALL, vae_networks=SMALL, discount=0.9, tau=0.3, samples=4, target_candidates=5, minimum_weight=0.7,
    actor_learning_rate=0.01, critic_learning_rate=0.02, vae_learning_rate=0.03,
)  # fmt: skip
VARIANTS = {
    "min": dl.BEAR(
        **SETTINGS, q_samples=3, ensemble_size=3, mask_probability=0.5, warm_start=2, distance=dl.MMD(sigma=0.5),
        multiplier=Dual(threshold=0.1, initial=0.7, learning_rate=0.1),
    ),
    "max": dl.BEAR(
        **SETTINGS, q_samples=2, ensemble="max", ensemble_size=4, variance_weight=0.6, target_actor=False, warm_start=0,
        distance=dl.MMD(kernel="laplacian", sigma=0.8), multiplier=Fixed(2.0),
    ),
    "mean": dl.BEAR(
        **SETTINGS, ensemble="mean", warm_start=0, distance=dl.KL(),
        multiplier=Dual(threshold=-2.0, initial=0.2, learning_rate=0.1),
    ),
}  # fmt: skip
UPDATES = {name: jax.jit(algorithm.update) for name, algorithm in VARIANTS.items()}
NETWORKS = "vae", "actor", "critics", "target_actor", "target_critics"


def batch_for(algorithm):
    batch = jax.tree.map(lambda x: x[0], a_batch())
    mask = np.random.default_rng(4).random((N, algorithm.ensemble_size)) < 0.5
    return batch if algorithm.mask_probability is None else batch._replace(extras={"mask": jnp.float32(mask)})


def started(algorithm, key, step=0):
    """All networks, targets too, differ and are far from their initial values; `step` updates were done."""

    return far(algorithm, NETWORKS, key, multiplier=algorithm.multiplier.init(), step=jnp.int32(step))


def raw_actions(leaves, obs, draws):
    """`(loc, σ, u)` of the actor's normal before tanh."""
    loc, log_std = np.split(mlp(leaves, obs), 2, -1)
    std = np.exp(np.clip(log_std, -20, 2))
    return loc, std, loc + std * draws


def squash(raw):
    return CENTRE + HALF * np.tanh(raw)


def draws_of(key, count, size=D):
    """Of `count` policies' samples, a key each."""
    return np.stack([noise(k, (N, size)) for k in jax.random.split(key, count)])


def over(obs, count):
    return np.broadcast_to(obs, (count, *obs.shape))


def divergence(algorithm, data, loc, std, raw):
    """`[N]`: √(MMD² + 1e-6) by a double loop over samples, or −E log π(tanh u) of the data."""
    if isinstance(algorithm.distance, dl.KL):
        z = (data - loc) / std
        normal = -(0.5 * z**2 + np.log(std) + 0.5 * np.log(2 * np.pi))
        return -(normal - np.log1p(-(np.tanh(data) ** 2))).sum(-1).mean(0)
    sigma, power = algorithm.distance.sigma, {"laplacian": 1, "gaussian": 2}[algorithm.distance.kernel]

    def mean(x, y):
        return sum(np.exp(-(np.abs(a - b) ** power).sum(-1) / (2 * sigma)) for a in x for b in y) / (len(x) * len(y))

    return np.sqrt(np.maximum(mean(data, data) + mean(raw, raw) - 2 * mean(data, raw), 0) + 1e-6)


class ByHand:
    """What the losses of one update are, from the state before it and the critics and the VAE after it."""

    def __init__(self, algorithm, state, after, batch, key):
        self.algorithm, self.rows, self.state = algorithm, as_numpy(batch), state
        self.keys = jax.random.split(key, 4)
        self.data = generated(
            float64(after.vae), self.rows.obs, np.clip(noise(self.keys[2], (algorithm.samples, N, LATENT)), -0.5, 0.5)
        )
        self.critics, self.weight = float64(after.critics), float(algorithm.multiplier.weight(state.multiplier))

    def target(self):
        a, rows = self.algorithm, self.rows
        actor = self.state.target_actor if a.target_actor else self.state.actor
        draws = draws_of(self.keys[1], a.target_candidates)
        actions = squash(raw_actions(float64(actor), rows.next_obs, draws)[2])
        values = q(float64(self.state.target_critics), over(rows.next_obs, len(actions)), actions)
        mixed = a.minimum_weight * values.min(0) + (1 - a.minimum_weight) * values.max(0)
        best = values.max(1)  # the other order gives another number
        assert not np.allclose(mixed.max(0), a.minimum_weight * best.min(0) + (1 - a.minimum_weight) * best.max(0))
        return rows.reward + a.discount * ~rows.terminated * mixed.max(0)

    def critic_loss(self, leaves):
        error = (q(leaves, self.rows.obs, self.rows.action) - self.target()) ** 2
        return (error * self.rows.extras["mask"].T if self.rows.extras else error).mean(-1).sum()

    def parts(self, leaves):
        """`(E Qₑ, √((1 − δ)/δ) E std Q, E D)`."""
        a = self.algorithm
        loc, std, raw = raw_actions(leaves, self.rows.obs, draws_of(self.keys[3], a.samples))
        asked = squash(raw[: a.q_samples])
        values = q(self.critics, over(self.rows.obs, len(asked)), asked)
        of_ensemble = getattr(np, a.ensemble)
        if a.ensemble != "mean":
            assert not np.allclose(of_ensemble(values.mean(1), axis=0), of_ensemble(values, axis=0).mean(0))
        spread = 3 * np.sqrt(values.mean(1).var(0) + 1e-6).mean()
        return of_ensemble(values.mean(1), axis=0).mean(), spread, divergence(a, self.data, loc, std, raw).mean()

    def distances(self, leaves):
        """Of the data's and the actor's actions, pair by pair, before and after squashing, `[2, n, N]`."""
        raw = raw_actions(leaves, self.rows.obs, draws_of(self.keys[3], self.algorithm.samples))[2]
        return np.stack([((x - y) ** 2).sum(-1) for x, y in ((self.data, raw), (squash(self.data), squash(raw)))])

    def actor_loss(self, leaves):
        value, spread, distance = self.parts(leaves)
        return -value + self.algorithm.variance_weight * spread + self.weight * distance

    def constraint(self, leaves):
        return self.weight * self.parts(leaves)[2]

    def vae_loss(self, leaves):
        return loss_by_hand(leaves, self.rows.obs, self.rows.action, noise(self.keys[0], (N, LATENT)))[0]


def updated(name, key, step=2):
    algorithm = VARIANTS[name]
    state, batch = started(algorithm, key, step), batch_for(algorithm)
    after, metrics = UPDATES[name](state, batch, key=key)
    return state, after, metrics, ByHand(algorithm, state, after, batch, key)


@pytest.mark.parametrize("name", VARIANTS)
def test_gradients_are_those_of_the_papers_losses(name, key):
    """Critics: max over candidates of the mixture of the slow critics, a mask for each. Actor: mean over samples, then
    over the ensemble. The VAE: its own loss and nothing of the actor's."""
    state, after, metrics, hand = updated(name, key)
    assert_gradient(after.critics, hand.critic_loss, state.critics)
    assert_gradient(after.actor, hand.actor_loss, state.actor)
    assert_gradient(after.vae, hand.vae_loss, state.vae)
    np.testing.assert_allclose(metrics["critic_loss"], hand.critic_loss(float64(state.critics)), rtol=1e-4)
    np.testing.assert_allclose(metrics["actor_loss"], hand.actor_loss(float64(state.actor)), rtol=1e-4)
    _, spread, distance = hand.parts(float64(state.actor))
    np.testing.assert_allclose([metrics["q_spread"], metrics["divergence_mean"]], [spread, distance], rtol=1e-4)
    np.testing.assert_allclose(metrics["multiplier"], hand.weight, rtol=1e-6)
    for name, of in zip(("raw_action_distance", "action_distance"), hand.distances(float64(state.actor)), strict=True):
        told = [metrics[f"{name}_{what}"] for what in ("mean", "std", "min", "max")]
        np.testing.assert_allclose(told, [of.mean(), of.std(), of.min(), of.max()], rtol=1e-3, atol=1e-6)


def test_the_actor_follows_the_constraint_alone_for_as_many_updates_as_asked(key):
    """`warm_start` = 2: before the first and the second update, not before the third; all else learns meanwhile."""
    for step in (0, 1):
        state, after, _, hand = updated("min", key, step)
        assert_gradient(after.actor, hand.constraint, state.actor)
        assert_gradient(after.critics, hand.critic_loss, state.critics)
        assert int(after.step) == step + 1
    with pytest.raises(AssertionError):
        assert_gradient(updated("min", key, 2)[1].actor, hand.constraint, state.actor)


@pytest.mark.parametrize("name", ["min", "mean"])
def test_the_multiplier_ascends_by_the_divergence_of_the_actors_own_samples(name, key):
    """∂/∂log λ of what Adam descends is −λ (E D − ε)."""
    state, after, _, hand = updated(name, key)
    algorithm = VARIANTS[name]
    excess = hand.parts(float64(state.actor))[2] - algorithm.multiplier.threshold
    (gradient,) = gradients(after.multiplier[1])
    np.testing.assert_allclose(gradient, -hand.weight * excess, rtol=1e-4)
    moved = after.multiplier[0] - state.multiplier[0]
    np.testing.assert_allclose(moved, 0.1 * np.sign(excess), rtol=1e-4)


@pytest.mark.parametrize("name", VARIANTS)
def test_targets_move_by_polyak_and_every_optimiser_counts_one(name, key):
    state, after, _, _ = updated(name, key)
    assert_polyak(after.target_actor, state.target_actor, after.actor, 0.3)
    assert_polyak(after.target_critics, state.target_critics, after.critics, 0.3)
    rates = {"actor": 0.01, "critics": 0.02, "vae": 0.03}
    for network in rates:
        assert int(getattr(after, network).opt_state[0].count) == 1
        pairs = zip(float64(getattr(state, network)), float64(getattr(after, network)), strict=True)
        np.testing.assert_allclose(max(np.abs(x - y).max() for x, y in pairs), rates[network], rtol=1e-3)


def test_equal_critics_and_a_weight_of_their_deviation_give_no_nan(key):
    algorithm = VARIANTS["max"]
    state = started(algorithm, key)
    equal = jax.tree.map(lambda x: jnp.broadcast_to(x[:1], x.shape), (state.critics.net, state.target_critics))
    state = eqx.tree_at(lambda s: (s.critics.net, s.target_critics), state, equal)
    after, metrics = UPDATES["max"](state, batch_for(algorithm), key=key)
    np.testing.assert_allclose(metrics["q_spread"], 3e-3, rtol=1e-3)
    for leaf in float64((after, metrics)):
        assert np.isfinite(leaf).all()


def test_a_row_that_no_mask_has_teaches_no_critic_and_all_ones_teach_all(key):
    algorithm = VARIANTS["min"]
    state, batch = started(algorithm, key), batch_for(algorithm)
    nothing = batch._replace(extras={"mask": jnp.zeros((N, 3)).at[:, 1].set(1.0)})
    after, _ = UPDATES["min"](state, nothing, key=key)
    moved = [np.abs(g).reshape(3, -1).max(1) > 0 for g in gradients(after.critics)]
    assert np.array(moved).any(0).tolist() == [False, True, False]


def test_targets_begin_as_copies_and_critics_apart(key):
    state = begun(VARIANTS["min"], SPEC, key)
    assert_same(state.actor, state.target_actor)
    assert_same(state.critics, state.target_critics)
    weight = np.asarray(state.critics.net.members.mlp.output.weight)
    assert len(np.unique(weight[:, 0, 0])) == 3
    assert (int(state.step), float(state.multiplier[0])) == (0, float(jnp.log(0.7)))


# Acting.


def test_the_test_policy_is_the_best_candidate_by_the_first_critic_or_the_mode(key):
    state, obs = started(VARIANTS["min"], key), jnp.asarray(as_numpy(a_batch()).obs[0], jnp.float32)
    of_action, _ = jax.random.split(key)
    rows, leaves = np.asarray(obs, np.float64), float64(state.actor)
    actions = squash(raw_actions(leaves, rows, draws_of(of_action, 10))[2])
    values = q(float64(state.critics), over(rows, 10), actions)
    assert (values[0].argmax(0) != values.min(0).argmax(0)).any()
    assert (values[0].argmax(0) != values[1].argmax(0)).any()
    best = actions[values[0].argmax(0), np.arange(N)]
    loc, std, _ = raw_actions(leaves, rows, 0.0)
    drawn = squash(loc + std * noise(of_action, (N, D)))
    for candidates, explore, expected in ((10, False, best), (0, False, squash(loc)), (10, True, drawn)):
        algorithm = dl.BEAR(**SETTINGS, q_samples=1, candidates=candidates)
        action, extras, carry = algorithm.act(state, None, obs, key=key, explore=explore)
        np.testing.assert_allclose(action, expected, rtol=1e-4, atol=1e-4)
        assert (extras, carry) == ({}, None)


def test_masks_are_drawn_once_for_each_row_and_critic(key):
    algorithm = dl.BEAR(**SETTINGS, q_samples=1, ensemble_size=4, mask_probability=0.8)
    assert algorithm.experience.extras == ("mask",)
    assert dl.BEAR().experience.extras == ()
    assert dl.BEAR().drawn_extras(5, key=key) == {}
    mask = np.asarray(algorithm.drawn_extras(20_000, key=key)["mask"])
    assert mask.shape == (20_000, 4)
    assert mask.dtype == np.float32
    assert set(np.unique(mask)) == {0.0, 1.0}
    np.testing.assert_allclose(mask.mean(0), 0.8, atol=0.015)
    np.testing.assert_allclose(np.corrcoef(mask.T), np.eye(4), atol=0.03)
    _, extras, _ = VARIANTS["min"].act(started(VARIANTS["min"], key), None, jnp.zeros((6, 3)), key=key, explore=True)
    assert extras["mask"].shape == (6, 3)


def test_settings_are_those_of_the_authors_codes():
    first = dl.BEAR()
    assert (first.batch_size, first.samples, first.multiplier.threshold, first.minimum_weight) == (100, 5, 0.05, 0.75)
    assert (LATER.batch_size, LATER.samples, LATER.q_samples, LATER.candidates) == (256, 4, 1, 100)
    assert (LATER.warm_start, LATER.target_actor, LATER.distance.kernel) == (40_000, False, "laplacian")
    with pytest.raises(ConfigError, match="q_samples"):
        dl.BEAR(samples=2, q_samples=3)
