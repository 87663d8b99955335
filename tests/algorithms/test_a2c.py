"""A2C against NumPy through `update`, and against the exact policy gradient of a process that can be enumerated."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from duologue.algorithms.a2c import A2C, loss
from duologue.networks.builder import Networks
from duologue.ops.optim import Adam, Linear, Trained
from duologue.ops.returns import gae, vmap_envs
from duologue.ops.statistics import explained_variance
from duologue.types import Box, Discrete, EnvSpec, Transition

STATES, ACTIONS, T, B = 3, 2, 5, 4
SPEC = EnvSpec("table", Discrete(STATES), Discrete(ACTIONS))
TABULAR = Networks(hidden_sizes=())
"""A linear layer on a one-hot observation: softmax(W[s] + b) and V(s) = w[s] + c, so that gradients fit on a line."""


def a_rollout(seed=0):
    generator = np.random.default_rng(seed)
    obs = generator.integers(STATES, size=(T + 1, B)).astype(np.int32)
    ends = generator.random((2, T, B)) < 0.25
    rollout = Transition(
        obs=obs[:-1],
        action=generator.integers(ACTIONS, size=(T, B)).astype(np.int32),
        reward=generator.normal(size=(T, B)).astype(np.float32),
        terminated=ends[0],
        truncated=ends[1],
        next_obs=generator.integers(STATES, size=(T, B)).astype(np.int32),
        extras={},
    )
    return jax.tree.map(jnp.asarray, rollout)


def numpy_gradient(algorithm, networks, batch):
    """∇ of −E[log π Â] + c_V E[(G − V)²] − c_H E[H], by hand, one sample at a time."""
    actor_w, actor_b = (np.asarray(x, np.float64) for x in (networks.actor.output.weight, networks.actor.output.bias))
    critic_w, critic_b = (
        np.asarray(x, np.float64) for x in (networks.critic.output.weight, networks.critic.output.bias)
    )
    gradient = [np.zeros_like(x) for x in (actor_w, actor_b, critic_w, critic_b)]

    def value(s):
        return critic_w[s, 0] + critic_b[0]

    batch = jax.tree.map(np.asarray, batch)
    for b in range(B):
        advantage = 0.0
        for t in reversed(range(T)):
            s, a, s_next = batch.obs[t, b], batch.action[t, b], batch.next_obs[t, b]
            reward = batch.reward[t, b] * algorithm.reward_scale
            if algorithm.reward_clip is not None:
                reward = min(max(reward, -algorithm.reward_clip), algorithm.reward_clip)
            bootstrap = 0.0 if batch.terminated[t, b] else value(s_next)
            delta = reward + algorithm.discount * bootstrap - value(s)
            cut = batch.terminated[t, b] or batch.truncated[t, b]
            advantage = delta + algorithm.discount * algorithm.lambda_ * (0.0 if cut else advantage)
            logits = actor_w[s] + actor_b
            pi = np.exp(logits - logits.max())
            pi /= pi.sum()
            entropy = -(pi * np.log(pi)).sum()
            d_logits = advantage * (pi - np.eye(ACTIONS)[a])
            d_logits += algorithm.entropy_coefficient * pi * (np.log(pi) + entropy)
            d_value = -2 * algorithm.value_coefficient * advantage  # ∂(G − V)²/∂V = −2(G − V), and G − V = Â
            gradient[0][s] += d_logits / (T * B)
            gradient[1] += d_logits / (T * B)
            gradient[2][s, 0] += d_value / (T * B)
            gradient[3][0] += d_value / (T * B)
    return gradient


def numpy_rmsprop(algorithm, gradient, learning_rate):
    """The first step: clip by the global norm, then −η g/√(0.99 · 1 + 0.01 g² + ε)."""
    norm = np.sqrt(sum((g**2).sum() for g in gradient))
    clip = 1.0 if algorithm.max_gradient_norm is None else min(1.0, algorithm.max_gradient_norm / norm)
    decay, eps = algorithm.optimizer.decay, algorithm.optimizer.eps
    return [-learning_rate * g * clip / np.sqrt(decay + (1 - decay) * (g * clip) ** 2 + eps) for g in gradient], norm


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"lambda_": 0.6, "discount": 0.8, "value_coefficient": 0.3, "entropy_coefficient": 0.2},
        {"reward_scale": 10.0, "reward_clip": 3.0, "max_gradient_norm": 0.05},
        {"max_gradient_norm": None, "learning_rate": Linear(start=0.1, end=0.0, updates=10)},
    ],
    ids=["defaults", "coefficients", "rewards-and-clip", "no-clip-schedule"],
)
def test_the_gradient_that_update_applies_is_the_one_by_hand(options, key):
    algorithm = A2C(networks=TABULAR, **options)
    state, batch = algorithm.init(SPEC, key=key), a_rollout()
    # Away from zero, so that every term counts.
    networks = jax.tree.map(lambda x: x + 0.3 * jax.random.normal(jax.random.key(x.size), x.shape), state.networks.net)
    state = type(state)(Trained(networks, state.networks.opt_state))
    after, metrics = jax.jit(algorithm.update)(state, batch, key=key)
    gradient = numpy_gradient(algorithm, networks, batch)
    rate = 0.1 if isinstance(algorithm.learning_rate, Linear) else algorithm.learning_rate
    expected, norm = numpy_rmsprop(algorithm, gradient, rate)
    moved = jax.tree.map(lambda new, old: np.asarray(new) - np.asarray(old), after.networks.net, networks)
    ours = moved.actor.output.weight, moved.actor.output.bias, moved.critic.output.weight, moved.critic.output.bias
    for a, b in zip(ours, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-7)
    np.testing.assert_allclose(metrics["gradient_norm"], norm, rtol=1e-4)


def test_a_schedule_moves_with_the_gradient_steps(key):
    """With a rate that falls to 0 over two updates, the third changes nothing."""
    algorithm = A2C(networks=TABULAR, learning_rate=Linear(start=0.1, updates=2))
    state = algorithm.init(SPEC, key=key)
    for _ in range(2):
        state, _ = algorithm.update(state, a_rollout(), key=key)
    after, _ = algorithm.update(state, a_rollout(), key=key)
    assert all(jax.tree.leaves(jax.tree.map(lambda a, b: bool((a == b).all()), after.networks.net, state.networks.net)))


def test_the_expected_gradient_is_the_policy_gradient():
    """Over every trajectory of a 3-step process, weighted by its probability: E[Σ ∇log π Â] = ∇J with γ = λ = 1."""
    generator = np.random.default_rng(3)
    dynamics = generator.dirichlet(np.ones(STATES), size=(STATES, ACTIONS))  # P[s, a, s']
    rewards, begin, horizon = generator.normal(size=(STATES, ACTIONS)), generator.dirichlet(np.ones(STATES)), 3
    algorithm = A2C(networks=TABULAR, discount=1.0, lambda_=1.0, entropy_coefficient=0.0, value_coefficient=0.0)
    networks = algorithm.init(SPEC, key=jax.random.key(1)).networks.net
    networks = jax.tree.map(lambda x: x + jax.random.normal(jax.random.key(x.size + 7), x.shape), networks)

    def objective(networks):
        """J(θ) by dynamic programming."""
        pi = networks.policy(jnp.arange(STATES, dtype=jnp.int32)).probs
        value = jnp.zeros(STATES)
        for _ in range(horizon):
            q = jnp.asarray(rewards, jnp.float32) + jnp.einsum("sat,t->sa", jnp.asarray(dynamics, jnp.float32), value)
            value = (pi * q).sum(-1)
        return (jnp.asarray(begin, jnp.float32) * value).sum()

    walks = list(itertools.product(range(STATES), *[range(ACTIONS), range(STATES)] * horizon))
    pi = np.asarray(networks.policy(jnp.arange(STATES, dtype=jnp.int32)).probs, np.float64)
    walks = np.array(walks, np.int32)
    s, a, s_next = walks[:, 0:-1:2], walks[:, 1::2], walks[:, 2::2]
    probability = begin[s[:, 0]] * (pi[s, a] * dynamics[s, a, s_next]).prod(1)
    terminated = np.broadcast_to(np.arange(horizon) == horizon - 1, s.shape)

    @jax.jit
    @jax.vmap
    def gradient(s, a, r, s_next, terminated):
        """`horizon` times the gradient `update` would apply to this one trajectory: its loss is a mean over time."""
        columns = [
            x[:, None] for x in (r, networks.value(s), networks.value(s_next), terminated, jnp.zeros_like(terminated))
        ]
        advantage = vmap_envs(gae)(*columns, discount=1.0, lambda_=1.0)
        g = jax.grad(lambda n: loss(
            n, s[:, None], a[:, None], advantage, advantage, value_coefficient=0.0, entropy_coefficient=0.0
        )[0])(networks)  # fmt: skip
        return jax.tree.map(lambda x: -horizon * x, g)

    each = gradient(s, a, rewards[s, a].astype(np.float32), s_next, terminated)
    expected = jax.tree.map(lambda g: np.tensordot(probability, np.asarray(g, np.float64), 1), each)
    exact = jax.grad(objective)(networks)
    np.testing.assert_allclose(probability.sum(), 1, atol=1e-6)
    np.testing.assert_allclose(expected.actor.output.weight, exact.actor.output.weight, atol=2e-5)
    np.testing.assert_allclose(expected.actor.output.bias, exact.actor.output.bias, atol=2e-5)
    assert np.abs(expected.actor.output.weight).max() > 0.01


def test_which_loss_moves_which_parameter(key):
    """With separate trunks the policy loss and entropy leave the critic alone, the value loss the actor, to the bit."""
    networks = Networks().actor_critic(SPEC, key=key)
    batch = a_rollout()
    advantage = jnp.ones((T, B))

    def gradient(value_coefficient, advantage):
        return jax.grad(lambda n: loss(
            n, batch.obs, batch.action, advantage, jnp.ones((T, B)),
            value_coefficient=value_coefficient, entropy_coefficient=0.0,
        )[0])(networks)  # fmt: skip

    only_policy, only_value = gradient(0.0, advantage), gradient(1.0, jnp.zeros((T, B)))
    assert all(bool((g == 0).all()) for g in jax.tree.leaves(only_policy.critic))
    assert all(bool((g == 0).all()) for g in jax.tree.leaves(only_value.actor))
    assert any(bool((g != 0).any()) for g in jax.tree.leaves(only_policy.actor))
    assert any(bool((g != 0).any()) for g in jax.tree.leaves(only_value.critic))


def test_greedy_is_the_mode_and_sampled_is_a_draw(key):
    obs = jnp.zeros(1000, jnp.int32)
    greedy, sampled = A2C(networks=TABULAR), A2C(networks=TABULAR, test_policy="sampled")
    state = greedy.init(SPEC, key=key)
    best = int(jnp.argmax(state.networks.net.policy(obs[:1]).probs))
    assert bool((greedy.act(state, None, obs, key=key, explore=False)[0] == best).all())
    for algorithm, explore in ((sampled, False), (greedy, True)):
        share = float((algorithm.act(state, None, obs, key=key, explore=explore)[0] == best).mean())
        assert 0.4 < share < 0.65


def test_explained_variance():
    target = jnp.array([[1.0, 2.0], [3.0, 6.0]])
    assert explained_variance(target, target) == 1.0
    assert explained_variance(jnp.full((2, 2), 5.0), target) == 0.0
    assert float(explained_variance(-target, target)) == pytest.approx(-3.0)
    assert explained_variance(target, jnp.ones((2, 2))) < 0  # a constant target divides by one, not by zero


def test_continuous_actions_are_scaled_to_their_box(key):
    spec = EnvSpec("box", Box((2,)), Box((2,), low=(-2.0, 0.0), high=(2.0, 10.0)))
    algorithm = A2C(optimizer=Adam())
    state = algorithm.init(spec, key=key)
    action, _, _ = algorithm.act(state, None, jnp.zeros((20_000, 2)), key=key, explore=True)
    np.testing.assert_allclose(action.mean(0), [0.0, 5.0], atol=0.15)
    np.testing.assert_allclose(action.std(0), [2.0, 5.0], rtol=0.03)
