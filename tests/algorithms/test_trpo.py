"""TRPO: its step against dense linear algebra, its line search against a plain one, its critic against a plain loop."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from algorithms.by_hand import assert_same, gradients
from algorithms.on_policy import BOX, DISCRETE, SMALL, B, T, a_rollout, assert_equal, by_loop, differ, flat, started
from jax.flatten_util import ravel_pytree

import duologue as dl
from duologue.errors import ConfigError
from duologue.networks.builder import SeparateActorCritic
from duologue.ops.optim import minibatch_rows
from duologue.types import Box, Discrete, EnvSpec

SIZE = dict(networks=SMALL, rollout_length=T, num_envs=B, minibatch_size=8, epochs=2, discount=0.9, lambda_=0.8)
EXACT = dict(SIZE, conjugate_gradient_steps=100)
"""So many iterations that conjugate gradient is as good as a dense solve."""


def updated(algorithm, state, batch, key):
    return jax.jit(algorithm.update)(state, batch, key=key)


def actor(networks):
    """All that the policy depends on, as one vector."""
    return ravel_pytree((networks.actor_encoder, networks.actor, networks.head))


def moved(before, after):
    return np.asarray(actor(after)[0], np.float64) - np.asarray(actor(before)[0], np.float64)


@functools.cache
def linear_algebra(spec, normalize=True):
    """`(F, g)` at θ_old, F from the model and not from a divergence: JᵀJ with J the Jacobian of √p log p of every
    action, or of μ/σ and √2 log σ of a normal; g from the log-probabilities of the actions taken."""
    algorithm, batch = dl.TRPO(**SIZE), a_rollout(spec)
    networks = started(algorithm, spec, jax.random.key(0)).networks
    start, unravel = actor(networks)
    advantage, _, _ = by_loop(networks, batch, 0.9, 0.8)
    if normalize:
        advantage = (advantage - advantage.mean()) / advantage.std()
    old, obs, action = networks.policy(flat(batch.obs)), flat(batch.obs), flat(batch.action)

    def policy(x):
        encoder, mlp, head = unravel(x)
        return head(mlp(encoder(obs)), obs)

    def root(x):
        if spec is DISCRETE:
            return jnp.sqrt(old.probs) * policy(x).log_probs
        return jnp.concatenate([policy(x).loc / old.scale, 2**0.5 * jnp.log(policy(x).scale)], 1)

    jacobian, scores = jax.jit(
        lambda x: (jax.jacobian(root)(x), jax.jacobian(lambda x: policy(x).log_prob(action))(x))
    )(start)
    jacobian = np.asarray(jacobian, np.float64).reshape(-1, len(start))
    return jacobian.T @ jacobian / (T * B), (np.asarray(scores, np.float64) * advantage[:, None]).mean(0)


def natural(spec, delta, damping, normalize=True):
    """√(2δ / xᵀ(F + cI)x) x,   (F + cI) x = g."""
    fisher, gradient = linear_algebra(spec, normalize)
    damped = fisher + damping * np.eye(len(fisher))
    x = np.linalg.solve(damped, gradient)
    return np.sqrt(2 * delta / (x @ damped @ x)) * x


def judge(spec, networks, step, normalize=True):
    """The surrogate's gain and KL(π_old ‖ π) after a step of the actor, in NumPy from the policy's numbers."""
    batch = a_rollout(spec)
    start, unravel = actor(networks)
    encoder, mlp, head = unravel(start + jnp.asarray(step, jnp.float32))
    obs, action = flat(batch.obs), flat(batch.action)
    old, new = networks.policy(obs), head(mlp(encoder(obs)), obs)
    advantage = by_loop(networks, batch, 0.9, 0.8)[0].astype(np.float64)
    if normalize:
        advantage = (advantage - advantage.mean()) / advantage.std()
    ratio = np.exp(np.asarray(new.log_prob(action) - old.log_prob(action), np.float64))
    if spec is DISCRETE:
        p, q = (np.asarray(x.log_probs, np.float64) for x in (old, new))
        kl = (np.exp(p) * (p - q)).sum(1).mean()
    else:
        (m, s), (n, r) = ((np.asarray(x.loc, np.float64), np.asarray(x.scale, np.float64)) for x in (old, new))
        kl = (np.log(r / s) + (s**2 + (m - n) ** 2) / (2 * r**2) - 0.5).sum(1).mean()
    return (ratio * advantage).mean() - advantage.mean(), kl


# The step.


@pytest.mark.parametrize(("spec", "damping"), [(DISCRETE, 0.1), (DISCRETE, 2.0), (BOX, 0.1)], ids=lambda x: str(x)[:10])
def test_the_step_solves_the_damped_fisher_system(spec, damping, key):
    """Of the rollout's normalised advantages, uphill, and of length δ in the damped metric."""
    algorithm = dl.TRPO(**EXACT, damping=damping, max_kl=1e-3)
    state, batch = started(algorithm, spec, key), a_rollout(spec)
    after, metrics = updated(algorithm, state, batch, key)
    assert float(metrics["line_search"]) == 1.0
    expected = natural(spec, 1e-3, damping)
    np.testing.assert_allclose(moved(state.networks, after.networks), expected, atol=2e-3 * np.linalg.norm(expected))
    np.testing.assert_allclose(metrics["actor_gradient_norm"], np.linalg.norm(linear_algebra(spec)[1]), rtol=1e-3)
    gain, kl = judge(spec, state.networks, expected)
    np.testing.assert_allclose(metrics["policy_objective"], gain, rtol=0.01)
    np.testing.assert_allclose(metrics["kl"], kl, rtol=0.01)


def test_with_little_damping_a_small_step_is_as_long_as_it_may_be(key):
    """½ dᵀFd = δ, so the divergence of the whole step is δ to first order."""
    algorithm = dl.TRPO(**EXACT, damping=1e-3, max_kl=1e-5)
    state = started(algorithm, DISCRETE, key)
    after, metrics = updated(algorithm, state, a_rollout(DISCRETE), key)
    kl = judge(DISCRETE, state.networks, moved(state.networks, after.networks) / float(metrics["line_search"]))[1]
    np.testing.assert_allclose(kl, 1e-5, rtol=0.15)
    assert float(metrics["kl"]) <= 1e-5 and float(metrics["line_search"]) >= 0.6


def test_its_gradient_is_a2cs(key):
    """One iteration of conjugate gradient goes along the gradient itself: that which A2C descends."""
    algorithm = dl.TRPO(**SIZE, conjugate_gradient_steps=1, max_kl=1e-3, normalize_advantage=False)
    a2c = dl.A2C(
        networks=SMALL, rollout_length=T, num_envs=B, discount=0.9, lambda_=0.8, entropy_coefficient=0.0,
        max_gradient_norm=None, optimizer=dl.Adam(),
    )  # fmt: skip
    state, other = started(algorithm, DISCRETE, key), started(a2c, DISCRETE, key)
    after, metrics = updated(algorithm, state, a_rollout(DISCRETE), key)
    theirs, _ = updated(a2c, other, a_rollout(DISCRETE), key)
    ours = moved(state.networks, after.networks)
    gradient = -gradients(theirs.networks)[0][: len(ours)]  # encoders have no parameters: the actor comes first
    np.testing.assert_allclose(metrics["actor_gradient_norm"], np.linalg.norm(gradient), rtol=1e-4)
    np.testing.assert_allclose(ours / np.linalg.norm(ours), gradient / np.linalg.norm(gradient), atol=1e-3)
    np.testing.assert_allclose(linear_algebra(DISCRETE, False)[1], gradient, atol=1e-5)


@pytest.mark.parametrize(
    ("spec", "delta", "damping", "reason"),
    [(DISCRETE, 3.0, 0.001, "kl"), (BOX, 300.0, 10.0, "surrogate")],
    ids=["kl", "surrogate"],
)
def test_the_first_length_is_taken_that_gains_and_stays_within_delta(spec, delta, damping, reason, key):
    """Both conditions refuse: one step gains but goes too far, another stays near but gains nothing."""
    algorithm = dl.TRPO(**EXACT, damping=damping, max_kl=delta, line_search_shrink=0.7, line_search_steps=25)
    state, batch = started(algorithm, spec, key), a_rollout(spec)
    after, metrics = updated(algorithm, state, batch, key)
    step = natural(spec, delta, damping)
    tried = [judge(spec, state.networks, 0.7**j * step) for j in range(25)]
    first = next(j for j, (gain, kl) in enumerate(tried) if gain > 0 and kl <= delta)
    assert first > 0
    assert any(gain > 0 if reason == "kl" else kl <= delta for gain, kl in tried[:first])
    np.testing.assert_allclose(metrics["line_search"], 0.7**first, rtol=1e-4)
    np.testing.assert_allclose(
        moved(state.networks, after.networks), 0.7**first * step, atol=5e-3 * np.linalg.norm(0.7**first * step)
    )
    gain, kl = judge(spec, state.networks, moved(state.networks, after.networks))
    assert gain > 0 and kl <= delta * (1 + 1e-5)
    np.testing.assert_allclose(metrics["kl"], kl, rtol=1e-3)  # KL(π_old ‖ π), far from the reverse here
    np.testing.assert_allclose(metrics["policy_objective"], gain, rtol=1e-3)


def test_without_an_acceptable_step_the_actor_stays_to_the_bit_and_the_critic_moves(key):
    refused = dl.TRPO(**EXACT, max_kl=300.0, damping=10.0, line_search_steps=2, line_search_shrink=0.99)
    state = started(refused, BOX, key)
    after, metrics = updated(refused, state, a_rollout(BOX), key)
    assert float(metrics["line_search"]) == 0.0
    np.testing.assert_allclose([metrics["kl"], metrics["policy_objective"]], 0.0, atol=1e-6)
    assert float(metrics["actor_gradient_norm"]) > 0.01
    assert_equal(actor(after.networks)[0], actor(state.networks)[0])
    assert differ(after.networks.critic, state.networks.critic)


def test_without_a_gradient_the_actor_stays_to_the_bit_and_the_critic_moves(key):
    """Where all advantages are equal, and normalised so are 0."""
    algorithm = dl.TRPO(**SIZE)
    state = started(algorithm, DISCRETE, key)
    state = eqx.tree_at(lambda s: s.networks.critic, state, jax.tree.map(jnp.zeros_like, state.networks.critic))
    batch = a_rollout(DISCRETE)._replace(reward=jnp.ones((T, B)), terminated=jnp.ones((T, B), bool))
    after, metrics = updated(algorithm, state, batch, key)
    assert float(metrics["actor_gradient_norm"]) == float(metrics["line_search"]) == 0.0
    assert_equal(actor(after.networks)[0], actor(state.networks)[0])
    assert differ(after.networks.critic, state.networks.critic)


# The critic.


@pytest.mark.parametrize("optimizer", [dl.Adam(), dl.RMSProp()], ids=["adam", "rmsprop"])
def test_the_critic_is_fitted_by_a_plain_loop_that_leaves_the_actor_alone(optimizer, key):
    """To the targets of before; and to the bit, the actor is the same after two passes and after five."""
    fields = dict(SIZE, optimizer=optimizer, learning_rate=0.02)
    short, long = dl.TRPO(**fields), dl.TRPO(**dict(fields, epochs=5))
    state, batch = started(short, DISCRETE, key), a_rollout(DISCRETE)
    after, metrics = updated(short, state, batch, key)
    other, _ = updated(long, state, batch, key)
    assert_equal(actor(other.networks)[0], actor(after.networks)[0])
    assert differ(actor(after.networks)[0], actor(state.networks)[0])
    assert differ(other.networks.critic, after.networks.critic)

    _, target, _ = by_loop(state.networks, batch, 0.9, 0.8)
    critic, obs, target, losses = state.networks.critic, flat(batch.obs), jnp.asarray(target), []
    plain = optimizer.build(0.02)
    opt_state = plain.init(critic)

    @jax.jit
    def step(critic, opt_state, rows):
        loss, gradient = jax.value_and_grad(lambda c: ((target[rows] - c(obs[rows])[:, 0]) ** 2).mean())(critic)
        with jax.numpy_dtype_promotion("standard"):
            moves, opt_state = plain.update(gradient, opt_state)
        return optax.apply_updates(critic, moves), opt_state, loss

    for rows in minibatch_rows(T * B, 8, 2, key=key):
        critic, opt_state, loss = step(critic, opt_state, rows)
        losses.append(float(loss))
    assert_same(after.networks.critic, critic, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(metrics["value_loss"], np.mean(losses), rtol=1e-4)
    assert int(metrics["steps"]) == len(losses) == short.experience.gradient_steps
    count = [x for x in jax.tree.leaves(other.critic_opt) if x.dtype == jnp.int32]
    assert not count or int(count[0]) == long.experience.gradient_steps == 15


def test_a_shared_trunk_is_refused(key, tmp_path):
    algorithm = dl.TRPO(networks=dl.Networks(shared_trunk=True))
    with pytest.raises(ConfigError, match=r"builds SharedActorCritic: actor and critic must share"):
        algorithm.init(DISCRETE, key=key)
    with pytest.raises(ConfigError, match=r"Set shared_trunk to False"):
        dl.train(dl.Normalized(algorithm), "probe/both", steps=2048, run_dir=tmp_path / "run")
    assert not list(tmp_path.iterdir())


def test_networks_that_leave_the_choice_to_an_image_are_separate(key):
    spec = EnvSpec("images", Box((8, 8, 3), "uint8", (0.0,), (255.0,)), Discrete(2))
    for networks in (dl.Networks(), dl.Networks(vector_sizes=(4,)), dl.Networks(shared_trunk=False)):
        state = jax.eval_shape(lambda key, networks=networks: dl.TRPO(networks=networks).init(spec, key=key), key)
        assert isinstance(state.networks, SeparateActorCritic)
    with pytest.raises(dl.ConfigError, match=r"Set shared_trunk to False"):
        dl.TRPO(networks=dl.Networks(shared_trunk=True)).init(spec, key=key)
