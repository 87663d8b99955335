"""TD3 and DDPG: gradients through `update` against float64, delays, noise; the heads and ensembles they stand on."""

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
    assert_polyak,
    assert_same,
    begun,
    float64,
    mlp,
    n_step_target,
    net,
    noise,
    perturbed,
    q,
)  # fmt: skip

import duologue as dl
from duologue.algorithms.td3 import add_noise
from duologue.networks.builder import AbstractNetworks
from duologue.networks.heads import SquashedNormalHead, TanhHead, box_bounds, from_unit, to_unit
from duologue.ops.losses import td_loss
from duologue.ops.optim import gradient_step
from duologue.ops.returns import first_row
from duologue.ops.returns import n_step_target as ours_n_step_target
from duologue.types import Box, Discrete, EnvSpec, MultiDiscrete

OPTIONS = dict(networks=SMALL, discount=0.9, tau=0.3, n_step=L, actor_learning_rate=0.01, critic_learning_rate=0.01)
NAMES = "actor", "critics", "target_actor", "target_critics"
BOUNDS = box_bounds(SPEC.action)


def started(algorithm, key):
    """A state whose four networks differ and are far from their initial values."""
    state = begun(algorithm, SPEC, key)
    return eqx.tree_at(
        lambda s: [getattr(s, n) for n in NAMES], state, [perturbed(getattr(state, n), i) for i, n in enumerate(NAMES)]
    )


def mu(leaves, obs):
    return CENTRE + HALF * np.tanh(mlp(leaves, obs))


def smoothed(state, rows, key, *, sigma, clip):
    """μ̄(s') and noise of σ half-ranges, clipped, and the sum clipped into the box."""
    epsilon = np.clip(sigma * noise(key, (L, N, D)), -clip, clip)
    return np.clip(mu(float64(state.target_actor), rows.next_obs) + HALF * epsilon, LOW, HIGH)


def test_td3_gradients_are_those_of_the_papers_losses(key):
    """Critics: clipped noise on the slow actor, minimum of the slow critics. Actor: the first new critic alone."""
    algorithm = dl.TD3(policy_delay=1, target_noise=1.0, target_noise_clip=0.2, **OPTIONS)
    state, batch = started(algorithm, key), a_batch(1)
    after, metrics = jax.jit(algorithm.update)(state, batch, key=key)
    rows = jax.tree.map(lambda x: x[0], as_numpy(batch))
    obs, action = rows.obs[0], rows.action[0]
    next_action = smoothed(state, rows, jax.random.split(key, 1)[0], sigma=1.0, clip=0.2)
    both = q(float64(state.target_critics), rows.next_obs, next_action)
    assert 0 < (both[0] < both[1]).sum() < both[0].size
    target = n_step_target(rows, both.min(0), 0.9)

    def loss_of_critics(leaves):
        return ((q(leaves, obs, action) - target) ** 2).mean(-1).sum()

    def actor_loss(leaves):
        return -q(float64(after.critics), obs, mu(leaves, obs))[0].mean()

    assert_gradient(after.critics, loss_of_critics, state.critics)
    assert_gradient(after.actor, actor_loss, state.actor)
    np.testing.assert_allclose(metrics["critic_loss"], loss_of_critics(float64(state.critics)), rtol=1e-4)
    np.testing.assert_allclose(metrics["actor_loss"], actor_loss(float64(state.actor)), rtol=1e-4)


def test_ddpg_gradients_are_those_of_the_papers_losses(key):
    algorithm = dl.DDPG(**OPTIONS)
    state, batch = started(algorithm, key), a_batch()
    after, _ = jax.jit(algorithm.update)(state, batch, key=key)
    rows = as_numpy(batch)
    obs, action = rows.obs[0], rows.action[0]
    next_action = mu(float64(state.target_actor), rows.next_obs)
    target = n_step_target(rows, q(float64(state.target_critics), rows.next_obs, next_action)[0], 0.9)
    assert len(float64(state.critics)[0]) == 1
    assert_gradient(after.critics, lambda x: ((q(x, obs, action)[0] - target) ** 2).mean(), state.critics)
    assert_gradient(
        after.actor, lambda x: -q(float64(after.critics), obs, mu(x, obs))[0].mean(), state.actor
    )  # fmt: skip
    assert_polyak(after.target_actor, state.target_actor, after.actor, 0.3)
    assert_polyak(after.target_critics, state.target_critics, after.critics, 0.3)


def test_ddpg_is_td3_without_its_three_changes(key):
    """One critic twice, no noise on targets and no delay: the same actor, critic and targets."""
    ddpg, td3 = dl.DDPG(**OPTIONS), dl.TD3(policy_delay=1, target_noise=0.0, **OPTIONS)
    one, batch = started(ddpg, key), a_batch()
    twice = jax.tree.map(lambda x: jnp.concatenate([x, x]), (one.critics.net, one.target_critics))
    two = eqx.tree_at(
        lambda s: (s.actor, s.target_actor, s.critics.net, s.target_critics),
        begun(td3, SPEC, key),
        (one.actor, one.target_actor, *twice),
    )
    one, _ = jax.jit(ddpg.update)(one, batch, key=key)
    two, _ = jax.jit(td3.update)(two, jax.tree.map(lambda x: x[None], batch), key=key)
    for name in ("actor", "target_actor"):
        assert_same(getattr(one, name), getattr(two, name), rtol=1e-4, atol=1e-5)
    for name in ("critics", "target_critics"):
        for member in range(2):
            member = jax.tree.map(lambda x, i=member: x[i : i + 1], net(getattr(two, name)))
            assert_same(getattr(one, name), member, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("delay", [2, 3])
def test_the_actor_and_the_targets_move_once_for_d_steps_of_the_critics(delay, key):
    """The D critic steps see D batches, D keys and the same targets; the actor sees the last batch."""
    algorithm = dl.TD3(policy_delay=delay, target_noise=0.6, **OPTIONS)
    state, batch = started(algorithm, key), a_batch(delay)
    after, _ = jax.jit(algorithm.update)(state, batch, key=key)
    assert int(after.critics.opt_state[0].count) == delay
    assert int(after.actor.opt_state[0].count) == 1
    assert_polyak(after.target_actor, state.target_actor, after.actor, 0.3)
    assert_polyak(after.target_critics, state.target_critics, after.critics, 0.3)
    obs = as_numpy(batch).obs[-1, 0]
    assert_gradient(after.actor, lambda x: -q(float64(after.critics), obs, mu(x, obs))[0].mean(), state.actor)

    critics, opt_state, rows = state.critics.net, state.critics.opt_state, as_numpy(batch)
    for d, step_key in enumerate(jax.random.split(key, delay)):
        row = jax.tree.map(lambda x, d=d: x[d], rows)
        next_action = smoothed(state, row, step_key, sigma=0.6, clip=0.5)
        target = n_step_target(row, q(float64(state.target_critics), row.next_obs, next_action).min(0), 0.9)
        critics, opt_state, _ = gradient_step(
            td_loss, critics, opt_state, dl.Adam().build(0.01),
            batch.obs[d, 0], batch.action[d, 0], jnp.asarray(target, jnp.float32),
        )  # fmt: skip
    assert_same(after.critics, critics, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", [dl.TD3, dl.TD3BC])
def test_the_actors_schedule_counts_the_steps_of_the_critics(kind, key):
    """Of two to the end of the schedule, D = 2 are made before the actor's second step, which so is none."""
    rate = dl.Linear(0.01, 0.0, updates=2)
    algorithm = kind(policy_delay=2, **{**OPTIONS, "actor_learning_rate": rate})
    state, batch, update = started(algorithm, key), a_batch(2), jax.jit(algorithm.update)
    once, _ = update(state, batch, key=key)
    twice, _ = update(once, batch, key=key)
    moved = lambda a, b: any(bool((x != y).any()) for x, y in zip(*map(float64, (a, b)), strict=True))  # noqa: E731
    assert moved(state.actor, once.actor) and not moved(once.actor, twice.actor)
    assert moved(once.critics, twice.critics)


def test_noise_is_in_half_ranges_clipped_and_inside_the_box(key):
    centre = jnp.broadcast_to(jnp.asarray(CENTRE, jnp.float32), (20_000, D))
    small = add_noise(centre, BOUNDS, key, noise=0.1)
    np.testing.assert_allclose(np.asarray(small - centre).std(0), 0.1 * HALF, rtol=0.03)
    np.testing.assert_allclose(np.asarray(small - centre).mean(0), 0.0, atol=0.01)
    cut = np.asarray(add_noise(centre, BOUNDS, key, noise=1.0, clip=0.3) - centre)
    np.testing.assert_allclose(np.abs(cut).max(0), 0.3 * HALF, rtol=1e-5)
    wide = np.asarray(add_noise(centre, BOUNDS, key, noise=5.0))
    np.testing.assert_array_equal(wide.min(0), LOW)
    np.testing.assert_array_equal(wide.max(0), HIGH)


@pytest.mark.parametrize("kind", [dl.TD3, dl.DDPG, dl.TD3BC])
def test_acting_adds_noise_only_while_exploring(kind, key):
    algorithm = kind(**OPTIONS, exploration_noise=0.25)
    state, obs = started(algorithm, key), jnp.zeros((5_000, 3))
    greedy, _, _ = algorithm.act(state, None, obs, key=key, explore=False)
    tried, _, _ = algorithm.act(state, None, obs, key=key, explore=True)
    np.testing.assert_allclose(greedy, mu(float64(state.actor), np.zeros((5_000, 3))), rtol=1e-5)
    np.testing.assert_allclose(tried, add_noise(greedy, BOUNDS, key, noise=0.25), rtol=1e-6)
    assert bool((tried != greedy).any())


# Heads.


@pytest.mark.parametrize("output", [-50.0, 0.0, 50.0])
def test_log_sigma_is_clipped_and_all_is_finite_at_extreme_outputs(output, key):
    """log σ in [−20, 2], and no gradient to it beyond."""
    head, outputs = SquashedNormalHead(None, 0.0, SPEC.action), jnp.full((4, 2 * D), output)
    np.testing.assert_allclose(head(outputs, None).scale, np.exp(np.clip(output, -20, 2)), rtol=1e-5)

    def log_prob(outputs):
        action, log_prob = head(outputs, None).sample_and_log_prob(key)
        return jnp.sum(log_prob) + jnp.sum(action)

    value, gradient = jax.value_and_grad(log_prob)(outputs)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()
    if output < -20:
        np.testing.assert_array_equal(gradient[:, D:], 0.0)
    mixed = jnp.concatenate([jnp.full((4, D), output), jnp.full((4, D), -output)], -1)
    assert np.isfinite(jax.grad(log_prob)(mixed)).all()


def test_log_sigma_counts_from_its_initial_value_and_may_be_one_for_all_states():
    both = SquashedNormalHead(None, -1.0, SPEC.action)(jnp.zeros((4, 2 * D)), None)
    own = SquashedNormalHead(jnp.array([0.5, 40.0]), -1.0, SPEC.action)(jnp.ones((4, D)), None)
    np.testing.assert_allclose(both.scale, np.exp(-1.0), rtol=1e-6)
    np.testing.assert_allclose(own.scale, np.broadcast_to(np.exp([0.5, 2.0]), (4, D)), rtol=1e-6)
    np.testing.assert_allclose(own.mode(), np.broadcast_to(CENTRE + HALF * np.tanh(1.0), (4, D)), rtol=1e-6)


def test_to_unit_and_from_unit_are_inverse_and_meet_the_bounds():
    unit = jnp.linspace(-1.0, 1.0, 22).reshape(11, D)
    np.testing.assert_allclose(to_unit(SPEC.action, from_unit(SPEC.action, unit)), unit, atol=1e-6)
    np.testing.assert_allclose(from_unit(SPEC.action, jnp.array([-1.0, -1.0])), LOW)
    np.testing.assert_allclose(from_unit(SPEC.action, jnp.array([1.0, 1.0])), HIGH)
    np.testing.assert_allclose(TanhHead(SPEC.action)(jnp.array([99.0, -99.0]), None), [HIGH[0], LOW[1]])


# Ensembles and targets.


def test_members_of_an_ensemble_differ_and_equal_single_modules(key):
    critics = jax.jit(lambda key: SMALL.critics(SPEC, 3, key=key))(key)
    batch = a_batch()
    together = critics(batch.obs, batch.action)
    assert together.shape == (3, L, N)
    for i in range(3):
        alone = jax.tree.map(lambda x, i=i: x[i], critics.members)
        np.testing.assert_allclose(together[i], alone(batch.obs, batch.action), rtol=1e-5, atol=1e-6)
        assert float(jnp.abs(together[i] - together[i - 1]).max()) > 0.01
    np.testing.assert_allclose(together, q(float64(critics), *as_numpy((batch.obs, batch.action))), atol=1e-5)


def test_three_step_targets_against_the_loop():
    generator = np.random.default_rng(2)
    shape = (3, 64)
    batch = a_batch()._replace(
        reward=jnp.asarray(generator.normal(size=shape), jnp.float32),
        terminated=jnp.asarray(generator.random(shape) < 0.3),
        truncated=jnp.asarray(generator.random(shape) < 0.3),
    )
    value = generator.normal(size=shape)
    ours = ours_n_step_target(batch, jnp.asarray(value, jnp.float32), 0.9)
    np.testing.assert_allclose(ours, n_step_target(as_numpy(batch), value, 0.9), rtol=1e-5, atol=1e-6)
    obs, action = first_row(batch)
    assert bool((obs == batch.obs[0]).all() & (action == batch.action[0]).all())


# Bad input, for all that learn from replay.


class ActorsOnly(AbstractNetworks):
    """Lacks critics."""

    def squashed_actor(self, spec, *, key):
        return SMALL.squashed_actor(spec, key=key)


OF_STATES = dl.Networks(state_dependent_std=True)


@pytest.mark.parametrize(
    ("algorithm", "action", "words"),
    [
        (dl.SAC(), Discrete(3), "bounded real Box, .* For discrete actions use SACDiscrete"),
        (dl.SACv1(), Box((2,)), "Give bounds with gymnasium.wrappers.RescaleAction"),
        (dl.SAC(), Box((2, 2), low=(-1.0,) * 4, high=(1.0,) * 3 + (None,)), "component 3 has no bound high"),
        (dl.TD3(), Box((2,)), "Give bounds"),
        (dl.TD3(), MultiDiscrete((2, 3)), "gradient of Q"),
        (dl.DDPG(), Discrete(3), "gradient of Q"),
        (dl.DDPG(), Box((1,), "int32", low=(0.0,), high=(5.0,)), "real Box"),
        (dl.SACDiscrete(), MultiDiscrete((2, 3)), "sums over actions"),
        (dl.SACDiscrete(), SPEC.action, "sums over actions. For a bounded Box use SAC, ACERContinuous or PPO"),
        (dl.SAC(networks=ActorsOnly()), SPEC.action, r"ActorsOnly has no method critics"),
        (
            dl.TD3(networks=OF_STATES),
            SPEC.action,
            r"networks\.state_dependent_std = True: must be False or None, because this policy has one σ",
        ),
        (dl.ACERContinuous(networks=OF_STATES), SPEC.action, r"networks\.state_dependent_std = True"),
    ],
)
def test_what_cannot_be_served_is_refused_with_words(algorithm, action, words, key):
    with pytest.raises(dl.ConfigError, match=words):
        algorithm.init(EnvSpec("no", Box((3,)), action), key=key)
