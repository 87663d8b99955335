"""CQL: SAC where its term weighs nothing, the integral against quadrature, gradients against float64, the bound."""

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
    L,
    N,
    a_batch,
    as_numpy,
    assert_gradient,
    assert_same,
    begun,
    float64,
    gradients,
    mlp,
    n_step_target,
    noise,
    perturbed,
    q,
    squashed,
)  # fmt: skip
from scipy.special import logsumexp

import duologue as dl
from duologue.algorithms import cql, sac
from duologue.ops.distributions import TanhNormal
from duologue.ops.temperature import Dual, Fixed, Learned

OPTIONS = dict(networks=SMALL, discount=0.9, tau=0.3, n_step=L, actor_learning_rate=0.01, critic_learning_rate=0.01)
COUNT, ALPHA, WEIGHT = 3, 0.3, 1.7


def started(algorithm, key):
    """A state whose networks all differ and are far from their initial values."""
    state = begun(algorithm, SPEC, key)
    names = "actor", "critics", "target_critics"
    moved = [perturbed(getattr(state.sac, name), i) for i, name in enumerate(names)]
    return eqx.tree_at(lambda s: [getattr(s.sac, name) for name in names], state, moved)


ALGORITHM = dl.CQL(
    alpha=Fixed(ALPHA), conservatism=Fixed(WEIGHT), proposals=COUNT, backup="soft", **OPTIONS
)  # fmt: skip


@pytest.fixture(scope="module")
def updated():
    """State and batch before, state and metrics after an update, and `(key, actions, log_probs)` that it weighed."""
    draw, key = cql.proposals, jax.random.key(0)
    state, batch = started(ALGORITHM, key), a_batch()

    def program(state, batch, key):
        seen = []

        def watched(actor, obs, next_obs, count, key):
            seen.append((key, *draw(actor, obs, next_obs, count, key)))
            return seen[-1][1:]

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(cql, "proposals", watched)
            after = ALGORITHM.update(state, batch, key=key)
        (only,) = seen
        return after, only

    return state, batch, *jax.jit(program)(state, batch, key)


# Against SAC.


def test_where_its_term_weighs_nothing_it_is_sac(key):
    """Same fields and keys, over three updates; both in one program, which rounds alike what they share."""
    options = dict(conservatism=Fixed(0.0), alpha=Learned(), proposals=2, backup="soft", **OPTIONS)
    ours, sac = dl.CQL(**options), dl.SAC(**OPTIONS)

    @jax.jit
    def both(state, theirs, batch, key):
        return ours.update(state, batch, key=key), sac.update(theirs, batch, key=key)

    state = started(ours, key)
    theirs = state.sac
    for i in range(3):
        (state, metrics), (theirs, expected) = both(state, theirs, a_batch(seed=i), jax.random.fold_in(key, i))
        assert_same(state.sac, theirs, rtol=1e-5, atol=1e-8)
        assert metrics.keys() == {*expected, "conservative_gap", "conservatism"}


def test_run_step_by_step_it_is_sac_to_the_last_bit(key):
    """No program, and so none that XLA could have rounded in its own way."""
    networks = dl.Networks(hidden_sizes=(4,))
    options = dict(OPTIONS, networks=networks)
    ours = dl.CQL(conservatism=Fixed(0.0), alpha=Learned(), proposals=1, backup="soft", **options)
    state, batch = started(ours, key), a_batch()
    with jax.disable_jit():
        after, _ = ours.update(state, batch, key=key)
        expected, _ = dl.SAC(**options).update(state.sac, batch, key=key)
    for a, b in zip(jax.tree.leaves(after.sac), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(a, b)


def test_it_begins_and_acts_as_sac(key):
    ours, sac = dl.CQL(**OPTIONS), dl.SAC(alpha=Learned(learning_rate=1e-4), **OPTIONS)

    @jax.jit
    def both(key, obs):
        state, theirs = ours.init(SPEC, key=key), sac.init(SPEC, key=key)
        tried, _, _ = ours.act(state, None, obs, key=key, explore=True)
        mode, _, _ = ours.act(state, None, obs, key=key, explore=False)
        of_sac, _, _ = sac.act(theirs, None, obs, key=key, explore=True)
        of_ours = ours.log_prob(state, obs, tried), ours.q(state, obs, tried)
        of_theirs = sac.log_prob(theirs, obs, of_sac), sac.q(theirs, obs, of_sac)
        return (state.sac, tried, of_ours), (theirs, of_sac, of_theirs), mode

    one, other, mode = both(key, jnp.ones((5, 3)))
    assert_same(one, other)
    assert bool((mode != one[1]).all())


# Proposals and the integral.


def test_proposals_lie_in_the_box_and_know_their_densities(key):
    """A third each of the uniform policy, π(·|s) and π(·|s'), in half-ranges by change of variables."""
    count = 400
    actor, batch = started(dl.CQL(**OPTIONS), key).sac.actor, a_batch()
    obs, next_obs = batch.obs[0], batch.next_obs[0]
    action, log_prob = map(np.asarray, jax.jit(cql.proposals, static_argnums=3)(actor, obs, next_obs, count, key))
    assert action.shape == (3 * count, N, D) and log_prob.shape == (3 * count, N)
    assert (action >= LOW).all() and (action <= HIGH).all()
    unit = (action.astype(np.float64) - CENTRE) / HALF

    np.testing.assert_allclose(log_prob[:count], -D * np.log(2), rtol=1e-6)
    np.testing.assert_allclose(unit[:count].mean((0, 1)), 0.0, atol=0.05)
    np.testing.assert_allclose((unit[:count] ** 2).mean((0, 1)), 1 / 3, atol=0.03)
    assert np.abs(np.corrcoef(unit[:count].reshape(-1, D).T)[0, 1]) < 0.1
    for part, seen in ((1, obs), (2, next_obs)):
        rows = slice(part * count, (part + 1) * count)
        loc, log_std = np.split(mlp(float64(actor), np.asarray(seen, np.float64)), 2, -1)
        log_std = np.clip(log_std, -20, 2)
        u = np.arctanh(np.clip(unit[rows], -1 + 1e-12, 1 - 1e-12))
        normal = -0.5 * ((u - loc) / np.exp(log_std)) ** 2 - log_std - 0.5 * np.log(2 * np.pi)
        expected = (normal - np.log1p(-(np.tanh(u) ** 2))).sum(-1)
        inside = (np.abs(unit[rows]) < 0.9).all(-1)  # nearer to a bound float32 has lost u
        assert inside.mean() > 0.2
        np.testing.assert_allclose(log_prob[rows][inside], expected[inside], rtol=1e-3, atol=5e-3)
        assert np.abs(np.diff(unit[rows][:, 0, 0])).min() > 0  # no draw twice


def a_policy(obs):
    """On actions in [0, 5], one dimension, wide enough to reach all of them."""
    return TanhNormal(0.5 * obs[..., :1], jnp.full((*obs.shape[:-1], 1), 0.9), jnp.array([0.0]), jnp.array([5.0]))


def known_q(obs, action):
    z = (action[..., 0] - 2.5) / 2.5
    offset, slope = jnp.moveaxis(jnp.broadcast_to(obs, (*z.shape, 2)), -1, 0)
    return jnp.stack([2 * jnp.sin(3 * z) + offset, z**2 * slope - z])


def test_the_gap_is_the_integral_by_quadrature(key):
    """log ∫ exp Q over half-ranges, from all proposals and from each third of them alone."""
    obs = jnp.array([[0.3, 1.0], [-0.6, 2.0], [1.0, -1.5]])
    count, at = 4_000, jnp.array([[1.0], [4.0], [2.0]])
    grid = np.linspace(-1, 1, 4001)
    values = np.asarray(known_q(jnp.repeat(obs[:, None], len(grid), 1), jnp.asarray(
        np.broadcast_to(2.5 + 2.5 * grid, (3, len(grid)))[..., None], jnp.float32)), np.float64)  # fmt: skip
    integral = np.log(np.trapezoid(np.exp(values), grid, axis=-1))
    expected = (integral - np.asarray(known_q(obs, at))).mean(-1)
    proposed, log_prob = jax.jit(lambda *args: cql.proposals(a_policy, *args, count, key))(obs, -obs)
    for part in (slice(None), *(slice(i * count, (i + 1) * count) for i in range(3))):
        gap = cql.conservative_gap(known_q, obs, at, proposed[part], log_prob[part])
        np.testing.assert_allclose(gap, expected, atol=0.1)


# Through `update`.


def gap_by_hand(leaves, obs, action, proposed, log_prob):
    """`[E]`."""
    values = q(leaves, np.broadcast_to(obs, (len(proposed), *obs.shape)), proposed)
    integral = logsumexp(values - log_prob, axis=1) - np.log(len(proposed))
    return (integral - q(leaves, obs, action)).mean(-1)


def test_gradients_are_those_of_the_papers_losses(updated, key):
    """Critics: α times the gap of each, and SAC's own loss. Actor: SAC's, with nothing from the gap."""
    state, batch, (after, metrics), (_, proposed, log_prob) = updated
    rows, (of_target, of_actor) = as_numpy(batch), jax.random.split(key)
    obs, action, proposed, log_prob = rows.obs[0], rows.action[0], *as_numpy((proposed, log_prob))
    assert proposed.shape == (3 * COUNT, N, D)

    next_action, next_log_prob = squashed(float64(state.sac.actor), rows.next_obs, noise(of_target, (L, N, D)))
    next_value = q(float64(state.sac.target_critics), rows.next_obs, next_action).min(0) - ALPHA * next_log_prob
    target = n_step_target(rows, next_value, 0.9)

    def critic_loss(leaves):
        bellman = (0.5 * (q(leaves, obs, action) - target) ** 2).mean(-1).sum()
        return bellman + WEIGHT * gap_by_hand(leaves, obs, action, proposed, log_prob).sum()

    def actor_loss(leaves):
        drawn, log_prob = squashed(leaves, obs, noise(of_actor, (N, D)))
        return (ALPHA * log_prob - q(float64(after.sac.critics), obs, drawn).min(0)).mean()

    assert_gradient(after.sac.critics, critic_loss, state.sac.critics)
    assert_gradient(after.sac.actor, actor_loss, state.sac.actor)
    gaps = gap_by_hand(float64(state.sac.critics), obs, action, proposed, log_prob)
    np.testing.assert_allclose(metrics["conservative_gap"], gaps.mean(), rtol=1e-4)
    assert metrics["conservatism"] == np.float32(WEIGHT)


@pytest.mark.parametrize("backup", ["sampled", "mean", "soft"])
def test_targets_hold_the_entropy_only_where_they_are_asked_to(backup, key):
    """The critics' gradient does not know α, or does; the actor's always does."""
    options = dict(proposals=2, backup=backup, **OPTIONS)
    little, much = (dl.CQL(alpha=Fixed(alpha), **options) for alpha in (0.1, 2.0))
    state = started(little, key)
    both = jax.jit(lambda *args: [each.update(*args, key=key)[0].sac for each in (little, much)])
    one, other = both(state, a_batch())
    same = [bool((a == b).all()) for a, b in zip(*map(gradients, (one.critics, other.critics)), strict=True)]
    assert all(same) if backup != "soft" else not any(same)
    assert not all((a == b).all() for a, b in zip(*map(gradients, (one.actor, other.actor)), strict=True))


def test_each_backup_is_the_smaller_value_of_its_own_action(key):
    """Of critics that know each state's action by heart: −|a − mean|, and 1 less."""
    state = started(ALGORITHM, key).sac
    obs = a_batch().next_obs
    policy = state.actor(obs)
    drawn, log_prob = sac.sample_in_half_ranges(policy, key)
    far = lambda _, action: jnp.stack([-jnp.abs(action - policy.mode()).sum(-1) - i for i in (0.0, 1.0)])  # noqa: E731
    of = {name: value(state.actor, far, jnp.float32(ALPHA), obs, key) for name, value in cql.BACKUPS.items()}
    away = -jnp.abs(drawn - policy.mode()).sum(-1) - 1.0
    np.testing.assert_allclose(of["mean"], -1.0)
    np.testing.assert_allclose(of["sampled"], away, rtol=1e-6)
    np.testing.assert_allclose(of["soft"], away - ALPHA * log_prob, rtol=1e-6)


def test_proposals_are_of_the_first_row_and_have_a_key_of_their_own(updated, key):
    """Neither of the two that SAC draws with: of JAX's keys, `split(key)[i]` is `fold_in(key, i)`."""
    state, batch, _, (own, proposed, log_prob) = updated
    expected = jax.jit(cql.proposals, static_argnums=3)(state.sac.actor, batch.obs[0], batch.next_obs[0], COUNT, own)
    assert_same((proposed, log_prob), expected, rtol=1e-4, atol=1e-5)
    of_sac = jax.random.key_data(jax.random.split(key)).tolist()
    assert jax.random.key_data(own).tolist() not in of_sac


def test_a_dual_weight_rises_above_the_threshold_and_falls_below_it(key):
    """By the first step of Adam, η along the sign; this update still had the weight of before."""
    low, high = (
        dl.CQL(conservatism=dual, proposals=2, alpha=Fixed(ALPHA), **OPTIONS)
        for dual in (Dual(threshold=threshold, initial=2.0, learning_rate=0.1) for threshold in (1.0, 2.0))
    )
    state = started(low, key)
    both = jax.jit(lambda *args: [algorithm.update(*args, key=key) for algorithm in (low, high)])(state, a_batch())
    for (after, metrics), way in zip(both, (1, -1), strict=True):
        assert 1 < metrics["conservative_gap"] < 2  # of the other sign it would be below both
        np.testing.assert_allclose(metrics["conservatism"], 2.0, rtol=1e-6)
        np.testing.assert_allclose(after.conservatism[0], np.log(2.0) + way * 0.1, rtol=1e-4)


# What the term is for.


class Table(eqx.Module):
    """Qᵢ of one state, with one number for each half of the box."""

    q: jax.Array

    def __call__(self, obs, action):
        left, right = self.q[:, 0], self.q[:, 1]
        shape = (2, *action.shape[:-1])
        spread = lambda x: jnp.broadcast_to(x.reshape(2, *[1] * (action.ndim - 1)), shape)  # noqa: E731
        return jnp.where(action[None, ..., 0] < 0, spread(left), spread(right))


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_what_was_lucky_once_is_not_believed(weight):
    """One state, γ = 0. The data take the left half nine times of ten, for 0; the right half is worth ½ on average and
    has paid 1 the one time. The loss is least where Qₖ = r̄ₖ − α (pₖ − βₖ)/βₖ, p ∝ exp Q, by bisection here: the value
    of the policy that goes right is overestimated without the term, and with it is not."""
    obs, action = jnp.zeros((10, 1)), jnp.array([[-0.5]] * 9 + [[0.5]])
    reward, grid = jnp.array([0.0] * 9 + [1.0]), jnp.linspace(-0.999, 0.999, 100)
    proposed, uniform = jnp.broadcast_to(grid[:, None, None], (100, 10, 1)), jnp.full((100, 10), -jnp.log(2.0))

    def step(_, critics):
        by = jax.grad(cql.critic_loss, has_aux=True)(
            critics, obs, action, reward, proposed=proposed, log_prob=uniform, weight=jnp.asarray(weight)
        )[0]
        return jax.tree.map(lambda x, g: x - 0.5 * g, critics, by)

    learned = np.asarray(jax.lax.fori_loop(0, 1_000, step, Table(jnp.array([[3.0, -2.0], [0.0, 5.0]]))).q)
    # Both equations in d = Q_right − Q_left: p_right = 1/(1 + e⁻ᵈ).
    low, high = -50.0, 50.0
    for _ in range(100):
        d = (low + high) / 2
        p = 1 / (1 + np.exp(-d))
        right, left = 1 - weight * (p - 0.1) / 0.1, -weight * (0.1 - p) / 0.9
        low, high = (d, high) if right - left > d else (low, d)
    np.testing.assert_allclose(learned, [[left, right]] * 2, atol=1e-3)
    assert (learned[:, 1] <= 0.5).all() == (weight > 0)


class OfStates(eqx.Module):
    """Q of each state and of each half of the actions, `[1, S, 2]`."""

    q: jax.Array

    def __call__(self, obs, action):
        return self.q[:, obs[..., 0].astype(jnp.int32), (action[..., 0] > 0).astype(jnp.int32)]


@pytest.mark.parametrize("weight", [0.0, 0.3, 2.0])
def test_its_values_are_a_lower_bound_on_a_process(weight):
    """Three states, γ = 0.8, π ∝ exp Q of its own critic, as its proposals are. At the fixed point
    Q(s, a) = r + γ V̂(s') − α (π − β)/β, so V̂ = Σ π Q lies below V^π by α Σ (π − β)²/β and what follows of it; without
    the term it is V^π, of a linear solve."""
    gamma, states = 0.8, 3
    after, rewards = np.array([[1, 2], [0, 2], [1, 0]]), np.array([[0.3, 1.0], [-0.5, 0.8], [0.0, 0.4]])
    times = np.array([[7, 3], [2, 8], [9, 1]])  # of ten visits to each state
    beta = times / 10
    s, a = (np.repeat(x.ravel(), times.ravel()) for x in np.mgrid[:states, :2])
    obs, action = jnp.asarray(s[:, None], jnp.float32), jnp.asarray(a[:, None] - 0.5, jnp.float32)
    reward, next_state = jnp.asarray(rewards[s, a], jnp.float32), jnp.asarray(after[s, a])
    grid, rows = jnp.linspace(-0.99, 0.99, 20), len(s)
    proposed, uniform = jnp.broadcast_to(grid[:, None, None], (20, rows, 1)), jnp.full((20, rows), -jnp.log(2.0))

    def step(_, critics):
        value = jnp.sum(jax.nn.softmax(critics.q[0]) * critics.q[0], axis=-1)
        by = jax.grad(cql.critic_loss, has_aux=True)(
            critics, obs, action, reward + gamma * value[next_state],
            proposed=proposed, log_prob=uniform, weight=jnp.asarray(weight),
        )[0]  # fmt: skip
        return jax.tree.map(lambda x, g: x - g, critics, by)

    learned = jax.lax.fori_loop(0, 3_000, step, OfStates(jnp.zeros((1, states, 2)))).q[0]
    q = np.asarray(learned, np.float64)
    policy = np.exp(q) / np.exp(q).sum(1, keepdims=True)
    claimed = (policy * q).sum(1)
    np.testing.assert_allclose(q, rewards + gamma * claimed[after] - weight * (policy - beta) / beta, atol=1e-3)
    moves = np.zeros((states, states))
    np.add.at(moves, (np.arange(states)[:, None], after), policy)
    true = np.linalg.solve(np.eye(states) - gamma * moves, (policy * rewards).sum(1))
    if weight:
        assert (claimed < true - 0.01).all()
    else:
        np.testing.assert_allclose(claimed, true, atol=1e-3)
