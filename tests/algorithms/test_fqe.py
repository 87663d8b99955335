"""FQE: its fixed point is Q^π of the policy it was given, by linear equations; that policy never changes."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from algorithms.by_hand import assert_polyak, assert_same, begun, perturbed

import duologue as dl
from duologue.algorithms.base import AbstractAlgorithm
from duologue.algorithms.families import recorded_experience
from duologue.types import Box, Discrete, EnvSpec, Transition

GAMMA, STATES, ACTIONS = 0.8, 3, 2
SPEC = EnvSpec("table", Box((STATES,)), Discrete(ACTIONS))
POLICY = np.array([1, 0, 1])
ROWS = [  # s, a, r, s', terminated, truncated: each as likely as any other of its (s, a)
    (0, 0, 1.0, 1, False, False),
    (0, 1, 0.0, 2, False, False),
    (0, 1, 0.5, 0, False, True),
    (1, 0, -1.0, 0, False, True),
    (1, 1, 3.0, 1, True, False),
    (2, 0, 2.0, 2, True, True),
    (2, 1, -0.5, 1, False, False),
]


class Tabled(AbstractAlgorithm):
    """A policy that is a table, and explores by doing the opposite. Its updates would change it."""

    discount: float = 0.99

    @property
    def experience(self):
        return recorded_experience(4)

    def init(self, spec, *, key):
        return jnp.asarray(POLICY, jnp.int32)

    def act(self, state, carry, obs, *, key, explore):
        action = state[jnp.argmax(obs, -1)]
        return 1 - action if explore else action, {}, carry

    def update(self, state, batch, *, key):
        return state + 1, {}


def the_batch():
    """All rows at once; behind a termination is nothing that may be read."""
    s, a, r, after, terminated, truncated = (np.array(column) for column in zip(*ROWS, strict=True))
    next_obs = np.where(terminated[:, None], np.nan, np.eye(STATES)[after])
    rows = Transition(
        np.float32(np.eye(STATES)[s]), np.int32(a), np.float32(r), terminated, truncated, np.float32(next_obs), {}
    )
    return jax.tree.map(jnp.asarray, rows)


def q_of_policy():
    """Q = r̄ + γ P Q(·, π), where a termination has no successor and a truncation has."""
    size = STATES * ACTIONS
    reward, follows, seen = np.zeros(size), np.zeros((size, size)), np.zeros(size)
    for s, a, r, after, terminated, _ in ROWS:
        i = s * ACTIONS + a
        seen[i] += 1
        reward[i] += r
        follows[i, after * ACTIONS + POLICY[after]] += not terminated
    return np.linalg.solve(np.eye(size) - GAMMA * follows / seen[:, None], reward / seen).reshape(STATES, ACTIONS)


def evaluated(algorithm, key, updates):
    batch = the_batch()

    def many(state):
        step = lambda i, state: algorithm.update(state, batch, key=jax.random.fold_in(key, i))[0]  # noqa: E731
        return jax.lax.fori_loop(0, updates, step, state)

    return jax.jit(many)(begun(algorithm, SPEC, key))


FQE = dl.FQE(
    Tabled(), networks=dl.Networks(hidden_sizes=()), discount=GAMMA, tau=0.2,
    learning_rate=dl.Linear(0.05, 0.0, updates=3_000),
)  # fmt: skip


def test_its_fixed_point_is_q_of_the_policy(key):
    """Not of the best policy, not of the one that explores; and the policy stays as it is."""
    state = evaluated(FQE, key, 3_000)
    states = jnp.repeat(jnp.eye(STATES), ACTIONS, axis=0)
    ours = FQE.q(state, states, jnp.tile(jnp.arange(ACTIONS, dtype=jnp.int32), STATES)).reshape(STATES, ACTIONS)
    expected = q_of_policy()
    assert (expected.argmax(-1) != POLICY).any()
    np.testing.assert_allclose(ours, expected, atol=0.01)
    np.testing.assert_allclose(FQE.v(state, jnp.eye(STATES)), expected[np.arange(STATES), POLICY], atol=0.01)
    np.testing.assert_array_equal(state.policy, POLICY)
    np.testing.assert_allclose(ours[1, 1], 3.0, atol=0.01)  # terminated: its reward alone


def test_it_plays_the_test_policy_whatever_it_is_asked(key):
    state = begun(FQE, SPEC, key)
    for explore in (True, False):
        action, extras, carry = FQE.act(state, None, jnp.eye(STATES), key=key, explore=explore)
        assert action.tolist() == POLICY.tolist() and not extras and carry is None


def test_real_actions_are_inside_the_box_as_the_environment_executes_them(key):
    spec = EnvSpec("", Box((3,)), Box((2,), low=(-1.0, 0.0), high=(1.0, 0.5)))
    algorithm = dl.FQE(dl.BC(networks=dl.Networks(hidden_sizes=(4,))), networks=dl.Networks(hidden_sizes=(4,)))
    state = jax.tree.map(lambda x: 3000 * x, begun(algorithm, spec, key))
    state = eqx.tree_at(lambda s: s.bounds, state, jax.tree.map(lambda x: x / 3000, state.bounds))
    obs = jax.random.normal(key, (50, 3))
    free, _, _ = algorithm.algorithm.act(state.policy, None, obs, key=key, explore=False)
    action, _, _ = algorithm.act(state, None, obs, key=key, explore=False)
    low, high = np.array([-1.0, 0.0]), np.array([1.0, 0.5])
    assert (np.asarray(free) > high).any() and (np.asarray(free) < low).any()
    np.testing.assert_array_equal(action, np.clip(free, low, high))
    np.testing.assert_allclose(algorithm.v(state, obs), algorithm.q(state, obs, action)[0], rtol=1e-6)


def test_the_target_is_that_of_the_slow_copy(key):
    """One step of both by hand, where the two critics differ."""
    state = begun(FQE, SPEC, key)
    moved = perturbed(state.critics, 1), perturbed(state.target_critics, 2)
    state, batch = eqx.tree_at(lambda s: (s.critics, s.target_critics), state, moved), the_batch()
    after, metrics = jax.jit(FQE.update)(state, batch, key=key)
    successors = np.nan_to_num(np.asarray(batch.next_obs))
    of_policy = np.arange(len(ROWS)), POLICY[successors.argmax(-1)]
    slow = np.asarray(state.target_critics(jnp.asarray(successors)))[0][of_policy]
    target = batch.reward + GAMMA * np.where(batch.terminated, 0, slow)
    taken = np.asarray(state.critics(batch.obs))[0][of_policy[0], np.asarray(batch.action)]
    np.testing.assert_allclose(metrics["critic_loss"], ((taken - target) ** 2).mean(), rtol=1e-4)
    assert_polyak(after.target_critics, state.target_critics, after.critics, 0.2)


def test_a_trained_state_takes_the_policys_place(key):
    """It is read, and another policy has another value."""
    state = begun(FQE, SPEC, key)
    other = eqx.tree_at(lambda s: s.policy, state, 1 - state.policy)
    step = jax.jit(FQE.update)
    (one, _), (two, _) = step(state, the_batch(), key=key), step(other, the_batch(), key=key)
    assert_same(two.policy, 1 - POLICY)
    differ = [bool((a != b).any()) for a, b in zip(*map(jax.tree.leaves, (one.critics, two.critics)), strict=True)]
    assert any(differ)
