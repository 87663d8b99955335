"""IQL: the expectile by its own equation, gradients through `update` against float64, and no action but the data's."""

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
    mlp,
    perturbed,
    q,
)  # fmt: skip

import duologue as dl
from duologue.algorithms import iql

OPTIONS = dict(
    networks=SMALL, discount=0.9, tau=0.3, actor_learning_rate=0.01, value_learning_rate=0.3, critic_learning_rate=0.01
)
NAMES = "actor", "value", "critics", "target_critics"


def started(algorithm, key):
    """A state whose networks all differ and are far from their initial values; one log σ is beyond its clip."""
    state = begun(algorithm, SPEC, key)
    state = eqx.tree_at(
        lambda s: [getattr(s, n) for n in NAMES], state, [perturbed(getattr(state, n), i) for i, n in enumerate(NAMES)]
    )
    return eqx.tree_at(lambda s: s.actor.net.log_std, state, jnp.array([-0.3, 2.5]))


def transitions(seed=0):
    """A batch `[N]` that begins: goes on, terminated, truncated, both."""
    return jax.tree.map(lambda x: x[0], a_batch(seed=seed))


# The expectile.


@pytest.mark.parametrize("tau", [0.1, 0.5, 0.7, 0.9])
def test_the_loss_is_least_at_the_expectile(tau):
    """τ E[(x − m)₊] = (1 − τ) E[(m − x)₊], by bisection; for τ = ½ the mean. V is a constant here."""
    x = np.random.default_rng(3).gamma(2.0, size=500)
    low, high = x.min(), x.max()
    for _ in range(100):
        m = (low + high) / 2
        above, below = np.maximum(x - m, 0).mean(), np.maximum(m - x, 0).mean()
        low, high = (m, high) if tau * above > (1 - tau) * below else (low, m)
    if tau == 0.5:
        np.testing.assert_allclose(m, x.mean(), rtol=1e-9)
    obs, given = jnp.zeros((500, 1)), jnp.asarray(x, jnp.float32)

    def loss(v):
        return iql.value_loss(lambda obs: jnp.broadcast_to(v, obs.shape[:1]), obs, given, tau)[0]

    slope = jax.jit(jax.grad(loss))
    assert abs(slope(jnp.float32(m))) < 1e-5
    assert slope(jnp.float32(m - 0.1)) < -0.01 and slope(jnp.float32(m + 0.1)) > 0.01
    np.testing.assert_allclose(loss(jnp.float32(1.0)), (np.where(x < 1, 1 - tau, tau) * (x - 1) ** 2).mean(), rtol=1e-5)


# Through `update`.


def v(leaves, obs):
    return mlp(leaves, obs)[..., 0]


def log_prob(leaves, obs, action):
    """Of N(c + h tanh μ, (h σ)²), log σ clipped to [−5, 2]."""
    *mean, log_std = leaves
    std = HALF * np.exp(np.clip(log_std, -5, 2))
    z = (action - CENTRE - HALF * np.tanh(mlp(mean, obs))) / std
    return (-0.5 * z**2 - np.log(std) - 0.5 * np.log(2 * np.pi)).sum(-1)


def test_gradients_are_those_of_the_papers_losses_in_its_order(key):
    """V from the slow critics, the smaller; the actor's weights from these and the new V, some cut; the critics'
    targets from the new V, which a termination alone cuts; then the slow critics."""
    algorithm = dl.IQL(expectile=0.8, inverse_temperature=2.0, max_weight=3.0, **OPTIONS)
    state, batch = started(algorithm, key), transitions()
    after, metrics = jax.jit(algorithm.update)(state, batch, key=key)
    rows = as_numpy(batch)
    obs, action = rows.obs, rows.action
    both = q(float64(state.target_critics), obs, action)
    assert 0 < (both[0] < both[1]).sum() < N
    slow, new = both.min(0), float64(after.value)
    assert np.abs(v(new, obs) - v(float64(state.value), obs)).min() > 0.05

    def value_loss(leaves):
        u = slow - v(leaves, obs)
        return (np.abs(0.8 - (u < 0)) * u**2).mean()

    u = slow - v(float64(state.value), obs)
    assert 0 < (u < 0).sum() < N
    raw = np.exp(2.0 * (slow - v(new, obs)))
    assert 0 < (raw > 3.0).sum() < N
    weight = np.minimum(raw, 3.0)
    assert [(t, c) for t, c in zip(rows.terminated[:4], rows.truncated[:4], strict=True)] == [
        (False, False), (True, False), (False, True), (True, True)
    ]  # fmt: skip
    target = rows.reward + 0.9 * np.where(rows.terminated, 0.0, v(new, rows.next_obs))

    assert_gradient(after.value, value_loss, state.value)
    assert_gradient(after.actor, lambda x: -(weight * log_prob(x, obs, action)).mean(), state.actor)
    assert_gradient(
        after.critics, lambda x: ((q(x, obs, action) - target) ** 2).mean(-1).sum(), state.critics
    )  # fmt: skip
    assert_polyak(after.target_critics, state.target_critics, after.critics, 0.3)
    assert after.actor.net.log_std[1] == state.actor.net.log_std[1]  # no gradient beyond the clip
    np.testing.assert_allclose(metrics["weight"], weight.mean(), rtol=1e-4)
    np.testing.assert_allclose(metrics["value_loss"], value_loss(float64(state.value)), rtol=1e-4)
    assert_same(after.bounds.half_range, HALF)


DATA = transitions()


class Honest(eqx.Module):
    """A critic that answers NaN unless it is asked of a row of `DATA`, by observation and action."""

    inner: eqx.Module

    def __call__(self, obs, action):
        same = (obs == DATA.obs).all(-1) & (action == DATA.action).all(-1)
        return jnp.where(same[None], self.inner(obs, action), jnp.nan)


def test_no_action_outside_the_data_is_asked_for(key):
    algorithm = dl.IQL(**OPTIONS)
    state = started(algorithm, key)
    watched = eqx.tree_at(lambda s: (s.critics.net, s.target_critics), state, replace_fn=Honest)
    opt = jax.tree.map(lambda x: x, begun(algorithm, SPEC, key).critics.opt_state)
    watched = eqx.tree_at(lambda s: s.critics.opt_state, watched, dl.Adam().build(0.01).init(watched.critics.net))
    assert int(opt[0].count) == 0
    after, metrics = jax.jit(algorithm.update)(watched, DATA, key=key)
    expected, _ = jax.jit(algorithm.update)(state, DATA, key=key)
    assert all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves((after, metrics)))
    assert_same(after, expected, rtol=1e-5, atol=1e-6)
    other = DATA.action.at[0, 0].add(0.01)
    assert bool(jnp.isnan(watched.critics(DATA.obs, other)[:, 0]).all())


def test_nothing_is_sampled_and_what_terminates_is_never_looked_behind(key):
    """The same whatever the key; the successor of a termination may be NaN, any other counts."""
    algorithm = dl.IQL(**OPTIONS)
    state, step = started(algorithm, key), jax.jit(algorithm.update)
    after, _ = step(state, DATA, key=key)
    assert_same(after, step(state, DATA, key=jax.random.key(9))[0])
    behind = DATA.terminated[:, None]
    poisoned, _ = step(state, DATA._replace(next_obs=jnp.where(behind, jnp.nan, DATA.next_obs)), key=key)
    assert_same(after, poisoned)
    moved, _ = step(state, DATA._replace(next_obs=DATA.next_obs.at[2].add(1.0)), key=key)  # row 2 was truncated
    assert any(bool((a != b).any()) for a, b in zip(*map(jax.tree.leaves, (after.critics, moved.critics)), strict=True))
    assert_same((after.value, after.actor), (moved.value, moved.actor))


def test_acting_and_asking_are_of_the_same_policy(key):
    algorithm = dl.IQL(**OPTIONS)
    state = started(algorithm, key)
    wide = eqx.tree_at(lambda s: s.actor.net.log_std, state, jnp.array([1.0, 1.0]))
    state = eqx.tree_at(lambda s: s.actor.net.log_std, state, jnp.array([-2.3, -3.0]))
    obs = jnp.broadcast_to(jnp.array([0.3, -1.0, 2.0]), (20_000, 3))
    mode, _, _ = algorithm.act(state, None, obs, key=key, explore=False)
    drawn, _, _ = algorithm.act(state, None, obs, key=key, explore=True)
    np.testing.assert_allclose(mode, np.broadcast_to(np.asarray(drawn).mean(0), (20_000, D)), atol=0.05)
    np.testing.assert_allclose(np.asarray(drawn).std(0), HALF * np.exp([-2.3, -3.0]), rtol=0.03)
    low, high = map(np.asarray, state.bounds)
    clipped = np.asarray(algorithm.act(wide, None, obs, key=key, explore=True)[0])
    assert (clipped.min(0) == low).all() and (clipped.max(0) == high).all()  # what the critics learn from, too
    expected = log_prob(float64(state.actor), as_numpy(obs), as_numpy(drawn))
    np.testing.assert_allclose(algorithm.log_prob(state, obs, drawn), expected, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(algorithm.v(state, obs), v(float64(state.value), as_numpy(obs)), rtol=1e-4)
