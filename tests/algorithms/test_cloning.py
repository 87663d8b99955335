"""What clones: BC, TD3BC and KLControl. Gradients through `update` against float64, and what must not change them."""

from functools import partial

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
    L,
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
    perturbed,
    q,
)  # fmt: skip
from scipy.special import log_softmax

import duologue as dl
from duologue.algorithms import kl_control, td3_bc
from duologue.ops.distributions import TanhNormal
from duologue.types import Box, Discrete, EnvSpec, MultiDiscrete

DELAYED = dict(
    networks=SMALL, discount=0.9, tau=0.3, n_step=L, policy_delay=2, actor_learning_rate=0.01, critic_learning_rate=0.01
)


def started(algorithm, names, key, spec=SPEC):
    """A state whose networks all differ and are far from their initial values."""
    state = begun(algorithm, spec, key)
    return eqx.tree_at(
        lambda s: [getattr(s, n) for n in names], state, [perturbed(getattr(state, n), i) for i, n in enumerate(names)]
    )


def transitions(seed=0):
    """A batch `[N]` that begins: goes on, terminated, truncated, both."""
    return jax.tree.map(lambda x: x[0], a_batch(seed=seed))


@pytest.mark.parametrize("algorithm", [dl.BC, dl.BCQDiscrete, dl.KLControl])
def test_what_explores_samples_and_what_is_tested_does_not(algorithm, key):
    spec = EnvSpec("", SPEC.observation, Discrete(3)) if algorithm is dl.BCQDiscrete else SPEC
    algorithm, obs = algorithm(networks=SMALL), jnp.zeros((500, 3))
    state = begun(algorithm, spec, key)
    tried, tested = (np.asarray(algorithm.act(state, None, obs, key=key, explore=x)[0]) for x in (True, False))
    assert (np.ptp(tested, axis=0) == 0).all() and (np.ptp(tried, axis=0) > 0).all()


# BC.


def normal(leaves, obs, action):
    """N(c + h m, (h σ)²), one σ."""
    *mean, log_std = leaves
    z = (action - CENTRE - HALF * mlp(mean, obs)) / (HALF * np.exp(log_std))
    return (-0.5 * z**2 - log_std - np.log(HALF) - 0.5 * np.log(2 * np.pi)).sum(-1)


def categorical(leaves, obs, action):
    return np.take_along_axis(log_softmax(mlp(leaves, obs), -1), action[:, None], -1)[:, 0]


def multi_categorical(leaves, obs, action):
    logits = np.split(mlp(leaves, obs), [3], -1)
    return sum(
        np.take_along_axis(log_softmax(x, -1), a[:, None], -1)[:, 0] for x, a in zip(logits, action.T, strict=True)
    )


@pytest.mark.parametrize(
    ("space", "log_prob"),
    [(SPEC.action, normal), (Discrete(3), categorical), (MultiDiscrete((3, 2)), multi_categorical)],
    ids=["box", "discrete", "multi-discrete"],
)
def test_bc_climbs_the_likelihood_of_the_data(space, log_prob, key):
    spec, algorithm, batch = EnvSpec("any", SPEC.observation, space), dl.BC(networks=SMALL), transitions()
    generator = np.random.default_rng(4)
    if isinstance(space, Discrete):
        batch = batch._replace(action=jnp.asarray(generator.integers(3, size=N), jnp.int32))
    if isinstance(space, MultiDiscrete):
        batch = batch._replace(action=jnp.asarray(generator.integers([3, 2], size=(N, 2)), jnp.int32))
    state = started(algorithm, ["actor"], key, spec)
    after, metrics = jax.jit(algorithm.update)(state, batch, key=key)
    obs, action = np.asarray(batch.obs, np.float64), np.asarray(batch.action)
    assert_gradient(after.actor, lambda leaves: -log_prob(leaves, obs, action).mean(), state.actor)
    np.testing.assert_allclose(metrics["cloning_loss"], -log_prob(float64(state.actor), obs, action).mean(), rtol=1e-4)
    np.testing.assert_allclose(
        algorithm.log_prob(state, batch.obs, batch.action), log_prob(float64(state.actor), obs, action), rtol=1e-4
    )


def test_bc_ends_at_the_frequencies_of_the_data(key):
    """Two states, three actions: 6 : 3 : 1 in one and 0.5 : 4.5 : 5 in the other."""
    algorithm = dl.BC(networks=dl.Networks(hidden_sizes=(8,)), learning_rate=dl.Linear(0.05, 0.0, updates=600))
    counts = np.array([[12, 6, 2], [1, 9, 10]])
    states, actions = (np.repeat(x, counts.ravel()) for x in np.indices(counts.shape).reshape(2, -1))
    batch = a_batch()
    rows = jax.tree.map(lambda x: jnp.zeros((len(states), *x.shape[2:]), x.dtype), batch)
    obs = jnp.eye(2, 3)[states]
    rows = rows._replace(obs=obs, action=jnp.asarray(actions, jnp.int32))
    state = begun(algorithm, EnvSpec("two", Box((3,)), Discrete(3)), key)
    end = jax.jit(
        lambda state: jax.lax.fori_loop(0, 600, lambda _, s: algorithm.update(s, rows, key=key)[0], state)
    )(state)  # fmt: skip
    np.testing.assert_allclose(end.actor(jnp.eye(2, 3)).probs, counts / 20, atol=0.01)
    greedy, _, _ = algorithm.act(end, None, jnp.eye(2, 3), key=key, explore=False)
    assert greedy.tolist() == [0, 2]


# TD3BC.


def mu(leaves, obs):
    return CENTRE + HALF * np.tanh(mlp(leaves, obs))


def test_td3bc_changes_the_actors_loss_alone(key):
    """λ = α/E|Q₁| is a constant, the cloning counts in half-ranges; all else is TD3's, to the last bit."""
    ours, td3 = dl.TD3BC(alpha=2.5, **DELAYED), dl.TD3(**DELAYED)
    state, batch = started(ours, ("actor", "critics", "target_actor", "target_critics"), key), a_batch(2)
    both = jax.jit(lambda *args: [algorithm.update(*args, key=key) for algorithm in (ours, td3)])(state, batch)
    (after, metrics), (plain, _) = both
    assert_same(*(jax.tree.leaves((x.critics, x.target_critics)) for x in (after, plain)))
    rows, new, old = as_numpy(batch), float64(after.critics), float64(state.actor)
    obs, action = rows.obs[-1, 0], rows.action[-1, 0]
    weight = 2.5 / np.abs(q(new, obs, mu(old, obs))[0]).mean()

    def loss(leaves):
        chosen = mu(leaves, obs)
        return -weight * q(new, obs, chosen)[0].mean() + (((chosen - action) / HALF) ** 2).mean()

    assert_gradient(after.actor, loss, state.actor)
    assert_polyak(after.target_actor, state.target_actor, after.actor, 0.3)
    np.testing.assert_allclose(metrics["actor_loss"], loss(old), rtol=1e-4)
    np.testing.assert_allclose(metrics["cloning_loss"], (((mu(old, obs) - action) / HALF) ** 2).mean(), rtol=1e-4)


def test_td3bc_does_not_feel_the_scale_of_q_and_is_cloning_without_it(key):
    """Q times 10, or times 10⁴: the same gradient. With α = 0 that of cloning, whatever Q says; Q = 0 is no fault."""
    state = started(dl.TD3BC(**DELAYED), ("actor", "critics"), key)
    batch, half = transitions(), jnp.asarray(HALF, jnp.float32)

    @partial(jax.jit, static_argnums=1)
    def gradient(scale, alpha):
        critics = lambda obs, action: scale * state.critics(obs, action)  # noqa: E731
        return jax.grad(
            lambda actor: td3_bc.actor_loss(actor, critics, batch.obs, batch.action, alpha=alpha, half_range=half)[0]
        )(state.actor.net)  # fmt: skip

    once, alone = gradient(1.0, 2.5), gradient(1.0, 0.0)
    for scale in (10.0, 1e4):
        assert_same(gradient(scale, 2.5), once, rtol=1e-3, atol=1e-5)
        assert_same(gradient(scale, 0.0), alone, rtol=1e-3, atol=1e-6)
    assert max(np.abs(a - b).max() for a, b in zip(float64(once), float64(alone), strict=True)) > 0.05
    assert_same(gradient(0.0, 2.5), alone, rtol=1e-3, atol=1e-6)
    # Against finite differences: cloning alone.
    rows, h = as_numpy(batch), 1e-6
    leaves = float64(state.actor)
    along = [np.random.default_rng(0).normal(size=x.shape) for x in leaves]
    up, down = (
        (((mu([x + s * h * v for x, v in zip(leaves, along, strict=True)], rows.obs) - rows.action) / HALF) ** 2).mean()
        for s in (1, -1)
    )
    ours = sum((g * v).sum() for g, v in zip(float64(alone), along, strict=True))
    np.testing.assert_allclose(ours, (up - down) / (2 * h), rtol=1e-3)


def test_td3bc_counts_in_half_ranges(key):
    """The same network on [−1, 1] and on [0, 10], with the same data in either's units: the same loss."""
    of_unit, of_ten = (
        EnvSpec("any", Box((3,)), Box((D,), low=(low,) * D, high=(high,) * D))
        for low, high in ((-1.0, 1.0), (0.0, 10.0))
    )
    batch, losses = transitions(), []
    unit = jnp.asarray((as_numpy(batch).action - CENTRE) / HALF, jnp.float32)
    for spec, action in ((of_unit, unit), (of_ten, 5 + 5 * unit)):
        state = started(dl.TD3BC(**DELAYED), ("actor", "critics"), key, spec)
        low, high = state.bounds
        loss = jax.jit(partial(td3_bc.actor_loss, alpha=2.5, half_range=0.5 * (high - low)))
        losses.append(loss(state.actor, state.critics, batch.obs, action))
    (one, of_one), (other, of_other) = losses
    np.testing.assert_allclose([one, of_one["cloning_loss"]], [other, of_other["cloning_loss"]], rtol=1e-4)


# KLControl.


def raw_normal(leaves, obs):
    loc, log_std = np.split(mlp(leaves, obs), 2, -1)
    return loc, np.exp(np.clip(log_std, -20, 2))


def log_density(loc, std, u):
    return (-0.5 * ((u - loc) / std) ** 2 - np.log(std)).sum(-1)


def drawn(actor, clone, obs, eps):
    """ã and log π(ã|s) − log β(ã|s): what tanh does cancels."""
    (loc, std), other = raw_normal(actor, obs), raw_normal(clone, obs)
    u = loc + std * eps
    return CENTRE + HALF * np.tanh(u), log_density(loc, std, u) - log_density(*other, u)


def test_kl_control_gradients_are_those_of_its_losses_in_order(key):
    """Clone: the data's likelihood alone. Critics: y = r + γ(1 − term)(min Q̄ − α(log π − log β)) with the new clone.
    Actor: the same divergence, and the new critics."""
    algorithm = dl.KLControl(networks=SMALL, discount=0.9, tau=0.3, learning_rate=0.05, alpha=0.4)
    state, batch = started(algorithm, ("clone", "actor", "critics", "target_critics"), key), transitions()
    after, metrics = jax.jit(algorithm.update)(state, batch, key=key)
    rows, (of_target, of_actor) = as_numpy(batch), jax.random.split(key)
    obs, action, new_clone, actor = rows.obs, rows.action, float64(after.clone), float64(state.actor)
    unit = (action - CENTRE) / HALF

    def clone_loss(leaves):
        u = np.arctanh(unit)
        log_prob = log_density(*raw_normal(leaves, obs), u) - (np.log1p(-(unit**2)) + np.log(HALF)).sum(-1)
        return -(log_prob - 0.5 * D * np.log(2 * np.pi)).mean()

    eps = noise(of_target, (N, D))
    next_action, ratio = drawn(actor, new_clone, rows.next_obs, eps)
    _, stale = drawn(actor, float64(state.clone), rows.next_obs, eps)
    assert np.abs(ratio - stale).min() > 1e-3
    value = q(float64(state.target_critics), rows.next_obs, next_action).min(0) - 0.4 * ratio
    target = rows.reward + 0.9 * np.where(rows.terminated, 0.0, value)

    def actor_loss(leaves):
        chosen, ratio = drawn(leaves, new_clone, obs, noise(of_actor, (N, D)))
        return (0.4 * ratio - q(float64(after.critics), obs, chosen).min(0)).mean()

    assert_gradient(after.clone, clone_loss, state.clone)
    assert_gradient(
        after.critics, lambda x: (0.5 * (q(x, obs, action) - target) ** 2).mean(-1).sum(), state.critics
    )  # fmt: skip
    assert_gradient(after.actor, actor_loss, state.actor)
    assert_polyak(after.target_critics, state.target_critics, after.critics, 0.3)
    np.testing.assert_allclose(metrics["cloning_loss"], clone_loss(float64(state.clone)), rtol=1e-4)
    for trained in (after.clone, after.actor, after.critics):
        assert len(gradients(trained)) > 0


def test_kl_control_rests_where_the_policy_is_the_clone_and_q_is_flat(key):
    """On average over draws; elsewhere it descends the divergence of the two normals, by its closed form."""
    count, bounds = 40_000, (jnp.array([0.0]), jnp.array([5.0]))

    def policy(parameters):
        return lambda obs: TanhNormal(*(jnp.broadcast_to(x, (count, 1)) for x in parameters), *bounds)

    flat, obs, clone = (lambda obs, action: jnp.zeros((2, count))), jnp.zeros((count, 1)), (0.2, 0.7)

    @jax.jit
    def gradient(parameters):
        return jax.grad(
            lambda p: kl_control.actor_loss(policy(p), policy(clone), flat, 0.5, obs, key)[0]
        )(parameters)  # fmt: skip

    np.testing.assert_allclose(gradient((0.2, 0.7)), 0.0, atol=0.02)
    loc, scale = 0.6, 1.1
    expected = 0.5 * (loc - 0.2) / 0.49, 0.5 * (scale / 0.49 - 1 / scale)
    np.testing.assert_allclose(gradient((loc, scale)), expected, atol=0.03)
