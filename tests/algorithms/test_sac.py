"""SAC, SACv1 and SACDiscrete: gradients through `update` against float64, and soft value iteration's fixed point."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from algorithms.by_hand import (
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
    n_step_target,
    noise,
    perturbed,
    q,
    squashed,
)  # fmt: skip
from scipy.special import logsumexp

import duologue as dl
from duologue.ops.temperature import Fixed, Learned
from duologue.types import ACTION_MASK, Box, Dict, Discrete, EnvSpec, Transition

OPTIONS = dict(networks=SMALL, discount=0.9, tau=0.3, n_step=L, actor_learning_rate=0.01, critic_learning_rate=0.01)
ALPHA = 0.3


def started(algorithm, key, **parts):
    """A state whose networks, targets too, all differ and are far from their initial values."""
    state = begun(algorithm, SPEC, key)
    names = [name for name in ("actor", "critics", "target_critics", "value", "target_value") if hasattr(state, name)]
    return eqx.tree_at(
        lambda s: [getattr(s, name) for name in names],
        state,
        [perturbed(getattr(state, name), i) for i, name in enumerate(names)],
    )


# SAC.


def test_sac_gradients_are_those_of_the_papers_losses(key):
    """Critics: the soft target of the slow critics, minimum of both. Actor: minimum of both new critics."""
    algorithm = dl.SAC(alpha=Fixed(ALPHA), **OPTIONS)
    state, batch = started(algorithm, key), a_batch()
    after, metrics = jax.jit(algorithm.update)(state, batch, key=key)
    rows, (of_target, of_actor) = as_numpy(batch), jax.random.split(key)
    obs, action = rows.obs[0], rows.action[0]

    next_action, next_log_prob = squashed(float64(state.actor), rows.next_obs, noise(of_target, (L, N, D)))
    next_value = q(float64(state.target_critics), rows.next_obs, next_action).min(0) - ALPHA * next_log_prob
    target = n_step_target(rows, next_value, 0.9)

    def critic_loss(leaves):
        return (0.5 * (q(leaves, obs, action) - target) ** 2).mean(-1).sum()

    def actor_loss(leaves):
        drawn, log_prob = squashed(leaves, obs, noise(of_actor, (N, D)))
        return (ALPHA * log_prob - q(float64(after.critics), obs, drawn).min(0)).mean()

    both = q(float64(after.critics), obs, squashed(float64(state.actor), obs, noise(of_actor, (N, D)))[0])
    assert 0 < (both[0] < both[1]).sum() < N  # each critic is the smaller one somewhere
    assert_gradient(after.critics, critic_loss, state.critics)
    assert_gradient(after.actor, actor_loss, state.actor)
    np.testing.assert_allclose(metrics["critic_loss"], critic_loss(float64(state.critics)), rtol=1e-4)
    np.testing.assert_allclose(metrics["actor_loss"], actor_loss(float64(state.actor)), rtol=1e-4)
    norms = [np.sqrt(sum((g**2).sum() for g in gradients(opt))) for opt in (after.critics, after.actor)]
    np.testing.assert_allclose([metrics["critic_gradient_norm"], metrics["actor_gradient_norm"]], norms, rtol=1e-4)
    assert metrics["alpha"] == np.float32(ALPHA)
    assert not any("alpha_loss" in name for name in metrics)


def test_sac_learns_alpha_from_the_log_probabilities_of_the_actors_own_draw(key):
    """∂J/∂log α = −(E[log π] + H̄), H̄ = −|A| unless it is given."""
    for given, entropy in ((None, -D), (1.5, 1.5)):
        algorithm = dl.SAC(alpha=Learned(initial=0.5), target_entropy=given, **OPTIONS)
        state, batch = started(algorithm, key), a_batch()
        after, metrics = jax.jit(algorithm.update)(state, batch, key=key)
        obs, draws = as_numpy(batch).obs[0], noise(jax.random.split(key)[1], (N, D))
        _, log_prob = squashed(float64(state.actor), obs, draws)
        np.testing.assert_allclose(metrics["alpha"], 0.5, rtol=1e-6)
        np.testing.assert_allclose(metrics["log_prob_mean"], log_prob.mean(), rtol=1e-4)
        (gradient,) = gradients(after.temperature[1])
        np.testing.assert_allclose(gradient, -(log_prob.mean() + entropy), rtol=1e-4)


def test_sac_target_critics_move_by_polyak_only(key):
    algorithm = dl.SAC(**OPTIONS)
    state = started(algorithm, key)
    after, _ = jax.jit(algorithm.update)(state, a_batch(), key=key)
    assert_polyak(after.target_critics, state.target_critics, after.critics, 0.3)
    still = dl.SAC(**OPTIONS | {"tau": 0.0, "critic_learning_rate": 1e-30, "actor_learning_rate": 1e-30})
    unmoved, _ = jax.jit(still.update)(state, a_batch(), key=key)
    for name in ("actor", "critics", "target_critics"):
        assert_same(getattr(unmoved, name), getattr(state, name))


def test_targets_begin_as_copies_and_the_second_critic_is_another(key):
    for algorithm, source, target in (
        (dl.SAC(networks=SMALL), "critics", "target_critics"),
        (dl.SACv1(networks=SMALL), "value", "target_value"),
        (dl.TD3(networks=SMALL), "critics", "target_critics"),
        (dl.TD3(networks=SMALL), "actor", "target_actor"),
    ):
        state = begun(algorithm, SPEC, key)
        assert_same(getattr(state, source), getattr(state, target))
        weight = state.critics.net.members.mlp.output.weight
        assert len(weight) == 2
        assert bool((weight[0] != weight[1]).all())


@pytest.mark.parametrize("kind", [dl.SAC, dl.CQL, dl.SACDiscrete])
def test_the_ensemble_has_the_size_of_its_field(kind, key):
    algorithm, spec = kind(networks=SMALL, ensemble_size=3), TABLE if kind is dl.SACDiscrete else SPEC
    state = jax.eval_shape(lambda key: algorithm.init(spec, key=key), key)
    obs = jnp.zeros(5, jnp.int32) if kind is dl.SACDiscrete else jnp.zeros((5, 3))
    action = jnp.zeros(5, jnp.int32) if kind is dl.SACDiscrete else jnp.zeros((5, D))
    assert jax.eval_shape(algorithm.q, state, obs, action).shape == (3, 5)


# The temperature.


@pytest.mark.parametrize(("excess", "sign"), [(0.0, 0), (0.7, 1), (-0.7, -1)], ids=["at", "above", "below"])
def test_alpha_falls_above_the_target_entropy_rises_below_and_stays_at_it(excess, sign):
    learned, target = Learned(initial=0.25, learning_rate=0.1), -2.0
    state = learned.init()
    after, metrics = learned.update(state, jnp.array([-target - 1.0, -target + 1.0]) - excess + target)
    (gradient,) = gradients(after[1])
    assert np.sign(gradient) == sign
    np.testing.assert_allclose(gradient, excess, rtol=1e-6)  # whatever α is: 0.25 here
    np.testing.assert_allclose(learned.weight(after), 0.25 * np.exp(-0.1 * sign), rtol=1e-5)
    assert set(metrics) == {"alpha_loss"}


def test_a_fixed_alpha_stays_and_reports_nothing():
    fixed = Fixed(0.7)
    assert fixed.update(fixed.init(), jnp.ones(3)) == ((), {})
    assert fixed.weight(()) == np.float32(0.7)


# SACv1.


def test_sac_v1_gradients_are_those_of_the_papers_losses(key):
    """The actor follows Q₁ alone, V the minimum of both, both critics the slow V; all with parameters of before."""
    algorithm = dl.SACv1(alpha=ALPHA, **OPTIONS)
    state, batch = started(algorithm, key), a_batch()
    after, metrics = jax.jit(algorithm.update)(state, batch, key=key)
    rows, (of_value, of_actor) = as_numpy(batch), jax.random.split(key)
    obs, action, critics = rows.obs[0], rows.action[0], float64(state.critics)

    drawn, log_prob = squashed(float64(state.actor), obs, noise(of_value, (N, D)))
    target_v = q(critics, obs, drawn).min(0) - ALPHA * log_prob
    target_q = n_step_target(rows, mlp(float64(state.target_value), rows.next_obs)[..., 0], 0.9)

    def actor_loss(leaves):
        drawn, log_prob = squashed(leaves, obs, noise(of_actor, (N, D)))
        return (ALPHA * log_prob - q(critics, obs, drawn)[0]).mean()

    both = q(critics, obs, drawn)
    assert 0 < (both[0] < both[1]).sum() < N
    assert_gradient(after.actor, actor_loss, state.actor)
    assert_gradient(after.critics, lambda x: (0.5 * (q(x, obs, action) - target_q) ** 2).mean(-1).sum(), state.critics)
    assert_gradient(after.value, lambda x: (0.5 * (mlp(x, obs)[..., 0] - target_v) ** 2).mean(), state.value)
    assert_polyak(after.target_value, state.target_value, after.value, 0.3)
    np.testing.assert_allclose(metrics["actor_loss"], actor_loss(float64(state.actor)), rtol=1e-4)


# SACDiscrete, on a process whose soft-optimal values are known.

STATES, ACTIONS, GAMMA = 4, 3, 0.8
TABLE = EnvSpec("table", Discrete(STATES), Discrete(ACTIONS))


def every_transition():
    """Each (s, a) of a deterministic process once, `[1, S A]`: some terminate, some are truncated, one is both."""
    generator = np.random.default_rng(5)
    s, a = (x.reshape(1, -1).astype(np.int32) for x in np.mgrid[:STATES, :ACTIONS])
    flags = np.zeros((2, 1, STATES * ACTIONS), bool)
    flags[0, 0, [1, 7, 10]], flags[1, 0, [2, 6, 7]] = True, True
    return Transition(
        obs=s,
        action=a,
        reward=generator.normal(size=s.shape).astype(np.float32),
        terminated=flags[0],
        truncated=flags[1],
        next_obs=generator.integers(STATES, size=s.shape).astype(np.int32),
        extras={},
    )


def soft_optimal(batch):
    """Q(s, a) = r + γ (1 − term) α log Σ exp(Q(s', ·)/α), iterated."""
    values = np.zeros((STATES, ACTIONS))
    for _ in range(300):
        v = ALPHA * logsumexp(values / ALPHA, axis=1)
        values = (batch.reward + GAMMA * ~batch.terminated * v[batch.next_obs]).reshape(STATES, ACTIONS)
    return values.astype(np.float32)


def at_optimum(algorithm, optimal, key):
    """Critics and slow critics Q*, actor softmax(Q*/α)."""
    state = begun(algorithm, TABLE, key)
    where = lambda s: (s.actor.net, s.critics.net, s.target_critics)  # noqa: E731
    state = eqx.tree_at(where, state, jax.tree.map(jnp.zeros_like, where(state)))
    values = jnp.asarray(optimal)

    def weights(state):
        actor, critics, target_critics = where(state)
        return tuple(mlp.output.weight for mlp in (actor.mlp, critics.members.mlp, target_critics.members.mlp))

    return eqx.tree_at(weights, state, (values / ALPHA, jnp.stack([values, values]), jnp.stack([values, values])))


def tabular(**options):
    return dl.SACDiscrete(alpha=Fixed(ALPHA), discount=GAMMA, networks=dl.Networks(hidden_sizes=()), **options)


def test_soft_value_iteration_is_the_fixed_point_of_the_discrete_version(key):
    algorithm, batch = tabular(critic_learning_rate=1e-30), every_transition()
    state = at_optimum(algorithm, soft_optimal(batch), key)
    update = jax.jit(lambda state: algorithm.update(state, jax.tree.map(jnp.asarray, batch), key=key)[1])

    at = update(state)
    assert float(at["critic_loss"]) < 1e-10
    assert float(at["critic_gradient_norm"]) < 1e-5
    assert float(at["actor_gradient_norm"]) < 1e-5
    for where in ("critics", "target_critics"):
        off = update(eqx.tree_at(lambda s, w=where: getattr(s, w), state, perturbed(getattr(state, where), 3, by=0.1)))
        assert float(off["critic_loss"]) > 1e-4
    off = update(eqx.tree_at(lambda s: s.actor, state, perturbed(state.actor, 3, by=1.0)))
    assert float(off["critic_loss"]) > 1e-4
    assert float(off["actor_gradient_norm"]) > 1e-2


def test_the_discrete_version_finds_the_soft_optimal_values_from_any_beginning(key):
    algorithm = tabular(critic_learning_rate=0.02, actor_learning_rate=0.05, tau=0.05)
    batch = every_transition()
    optimal, rows = soft_optimal(batch), jax.tree.map(jnp.asarray, batch)

    @jax.jit
    def trained(state):
        return jax.lax.scan(lambda s, _: (algorithm.update(s, rows, key=key)[0], None), state, length=3000)[0]

    state, obs = trained(begun(algorithm, TABLE, key)), jnp.arange(STATES, dtype=jnp.int32)
    for values in state.critics(obs):
        np.testing.assert_allclose(values, optimal, atol=0.01)
    probs = np.exp(optimal / ALPHA - logsumexp(optimal / ALPHA, axis=1, keepdims=True))
    np.testing.assert_allclose(state.actor(obs).probs, probs, atol=0.01)


def test_the_discrete_soft_value_takes_the_smaller_critic_of_each_action(key):
    """y = r + γ (1 − term) (Σ π(a'|s') min Q̄ + α H(π(·|s'))), through `update`, and the actor's gradient by hand."""
    algorithm, batch = tabular(critic_learning_rate=1e-30), every_transition()
    state = begun(algorithm, TABLE, key)
    names = "actor", "critics", "target_critics"
    state = eqx.tree_at(
        lambda s: [getattr(s, n) for n in names], state, [perturbed(getattr(state, n), i) for i, n in enumerate(names)]
    )
    after, metrics = jax.jit(algorithm.update)(state, jax.tree.map(jnp.asarray, batch), key=key)
    (w, b), (cw, cb), (tw, tb) = (float64(getattr(state, n)) for n in names)
    pi = np.exp(w + b - logsumexp(w + b, axis=1, keepdims=True))
    v = (pi * ((tw + tb[:, None]).min(0) - ALPHA * np.log(pi))).sum(1)
    target = (batch.reward + GAMMA * ~batch.terminated * v[batch.next_obs]).reshape(STATES, ACTIONS)
    loss = (0.5 * (cw + cb[:, None] - target) ** 2).mean((1, 2)).sum()
    np.testing.assert_allclose(metrics["critic_loss"], loss, rtol=1e-5)

    def actor_loss(leaves):
        logits = leaves[0] + leaves[1]
        log_pi = logits - logsumexp(logits, axis=1, keepdims=True)
        return (np.exp(log_pi) * (ALPHA * log_pi - (cw + cb[:, None]).min(0))).sum(1).mean()

    assert_gradient(after.actor, actor_loss, state.actor)


def test_the_discrete_version_moves_its_critics_first_and_bootstraps_after_n_rewards(key):
    """Targets of two rewards, the actor's values from critics that have moved, slow critics by Polyak alone."""
    algorithm, count = tabular(critic_learning_rate=0.1, tau=0.3, n_step=2), 40
    generator = np.random.default_rng(6)
    batch = Transition(
        obs=generator.integers(STATES, size=(2, count)).astype(np.int32),
        action=generator.integers(ACTIONS, size=(2, count)).astype(np.int32),
        reward=generator.normal(size=(2, count)).astype(np.float32),
        terminated=generator.random((2, count)) < 0.3,
        truncated=generator.random((2, count)) < 0.3,
        next_obs=generator.integers(STATES, size=(2, count)).astype(np.int32),
        extras={},
    )
    state, names = begun(algorithm, TABLE, key), ("actor", "critics", "target_critics")
    state = eqx.tree_at(
        lambda s: [getattr(s, n) for n in names], state, [perturbed(getattr(state, n), i) for i, n in enumerate(names)]
    )
    after, metrics = jax.jit(algorithm.update)(state, jax.tree.map(jnp.asarray, batch), key=key)
    (w, b), (tw, tb) = float64(state.actor), float64(state.target_critics)
    log_pi = w + b - logsumexp(w + b, axis=1, keepdims=True)
    v = (np.exp(log_pi) * ((tw + tb[:, None]).min(0) - ALPHA * log_pi)).sum(1)
    target = n_step_target(batch, v[batch.next_obs], GAMMA)

    def critic_loss(leaves):
        taken = (leaves[0] + leaves[1][:, None])[:, batch.obs[0], batch.action[0]]
        return (0.5 * (taken - target) ** 2).mean(-1).sum()

    def actor_loss(leaves):
        logits, (cw, cb) = (leaves[0] + leaves[1])[batch.obs[0]], float64(after.critics)
        log_pi = logits - logsumexp(logits, axis=1, keepdims=True)
        return (np.exp(log_pi) * (ALPHA * log_pi - (cw + cb[:, None]).min(0)[batch.obs[0]])).sum(1).mean()

    assert_gradient(after.critics, critic_loss, state.critics)
    assert_gradient(after.actor, actor_loss, state.actor)
    assert_polyak(after.target_critics, state.target_critics, after.critics, 0.3)
    np.testing.assert_allclose(metrics["critic_loss"], critic_loss(float64(state.critics)), rtol=1e-5)


def test_the_discrete_target_entropy_is_a_share_of_the_uniform_policys(key):
    """At a uniform policy ∂J/∂log α = (1 − share) log |A|: zero for a share of one."""
    for share in (1.0, 0.5):
        algorithm = dl.SACDiscrete(alpha=Learned(initial=ALPHA), target_entropy_fraction=share, networks=SMALL)
        state = begun(algorithm, TABLE, key)
        state = eqx.tree_at(lambda s: s.actor, state, jax.tree.map(jnp.zeros_like, state.actor))
        after, _ = jax.jit(algorithm.update)(state, jax.tree.map(jnp.asarray, every_transition()), key=key)
        np.testing.assert_allclose(gradients(after.temperature[1])[0], (1 - share) * np.log(ACTIONS), atol=1e-6)


def test_a_mask_lowers_the_discrete_target_entropy(key):
    """A share of log 2 where two of three actions are allowed: more cannot be reached."""
    algorithm = dl.SACDiscrete(alpha=Learned(initial=ALPHA), target_entropy_fraction=0.5, networks=SMALL)
    batch = jax.tree.map(jnp.asarray, every_transition())
    obs, next_obs = (
        {"x": x, ACTION_MASK: jnp.broadcast_to(jnp.array([1, 0, 1], jnp.int8), (*x.shape[:-1], ACTIONS))}
        for x in (batch.obs, batch.next_obs)
    )
    spec = EnvSpec("", Dict({"x": TABLE.observation, ACTION_MASK: Box((ACTIONS,), "int8")}), TABLE.action)
    state = begun(algorithm, spec, key)
    state = eqx.tree_at(lambda s: s.actor, state, jax.tree.map(jnp.zeros_like, state.actor))
    after, _ = jax.jit(algorithm.update)(state, batch._replace(obs=obs, next_obs=next_obs), key=key)
    np.testing.assert_allclose(gradients(after.temperature[1])[0], 0.5 * np.log(2), atol=1e-6)


@pytest.mark.parametrize("algorithm", [dl.SAC, dl.CQL, dl.SACX])
def test_a_target_that_nothing_moves_towards_is_refused(algorithm):
    with pytest.raises(dl.ConfigError, match=r"target_entropy = -2: must be None with a Fixed weight"):
        algorithm(alpha=Fixed(0.2), target_entropy=-2.0)
    assert algorithm(alpha=Learned(), target_entropy=-2.0).target_entropy == -2.0


def test_a_share_of_the_entropy_that_nothing_moves_towards_is_refused():
    with pytest.raises(dl.ConfigError, match=r"target_entropy_fraction = 0\.5: must be None with a Fixed weight"):
        dl.SACDiscrete(alpha=Fixed(0.1), target_entropy_fraction=0.5)
