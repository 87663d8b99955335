"""Returns of action values and of behaviour that is not the policy: against plain loops of the papers' sums on every
pattern of terminated × truncated × position, matrices of a whole tabular process, hand constants, rlax."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import import_rlax

from duologue.ops.returns import gae, general_off_policy_returns, lambda_return, retrace, vtrace

T, DISCOUNT, LAMBDA = 4, 0.9, 0.7
PATTERNS = list(itertools.product([(False, False), (True, False), (False, True), (True, True)], repeat=T))
TERMINATED, TRUNCATED = np.moveaxis(np.array(PATTERNS), -1, 0)  # [256, T] each
GENERATOR = np.random.default_rng(0)
REWARD, Q, NEXT_VALUE = GENERATOR.normal(size=(3, len(PATTERNS), T)).astype(np.float32)
RATIO = np.exp(GENERATOR.normal(size=(len(PATTERNS), T))).astype(np.float32)  # below 1 and above
FACTS = REWARD, Q, NEXT_VALUE, RATIO, TERMINATED, TRUNCATED
LAMBDAS = pytest.mark.parametrize("lambda_", [1.0, LAMBDA])
CLIPS = {"clip_rho": 1.5, "clip_c": 0.8}


def each_pattern(function, *rows, **shared):
    """`function` of every row, by vmap over the patterns."""
    return np.asarray(jax.vmap(lambda *row: function(*row, discount=DISCOUNT, **shared))(*rows))


def loop_general(r, q, v_next, c, term, trunc):
    """Q(sₜ, aₜ) + Σ over k of γᵏ⁻ᵗ (Π of cⱼ, t < j ≤ k) δₖ, until and with the step that ends the episode."""
    target = q.astype(np.float64)
    for t in range(T):
        weight = 1.0
        for k in range(t, T):
            if k > t:
                weight *= DISCOUNT * c[k]
            target[t] += weight * (r[k] + (0.0 if term[k] else DISCOUNT * v_next[k]) - q[k])
            if term[k] or trunc[k]:
                break
    return target


def loop_vtrace(r, v, v_next, rho, c, term, trunc):
    """V(sₜ) + Σ over k of γᵏ⁻ᵗ (Π of cⱼ, t ≤ j < k) ρₖ δₖ, until and with the step that ends the episode."""
    target = v.astype(np.float64)
    for t in range(T):
        weight = 1.0
        for k in range(t, T):
            target[t] += weight * rho[k] * (r[k] + (0.0 if term[k] else DISCOUNT * v_next[k]) - v[k])
            weight *= DISCOUNT * c[k]
            if term[k] or trunc[k]:
                break
    return target


def loop_q_lambda(r, q, v_next, term, trunc):
    """(1 − λ) Σ λⁿ⁻¹ G⁽ⁿ⁾ and the rest of the weight on the longest return there is, each action after the first
    replaced by its expectation: G⁽ⁿ⁾ₜ = Σ γᵏ (rₜ₊ₖ + γ[V(s'ₜ₊ₖ) − Q(sₜ₊ₖ₊₁, aₜ₊ₖ₊₁)]), without −Q at its end."""
    target = np.zeros(T)
    for t in range(T):
        steps = next((k - t + 1 for k in range(t, T) if term[k] or trunc[k]), T - t)
        for n in range(1, steps + 1):
            share = LAMBDA ** (n - 1) * (1.0 if n == steps else 1 - LAMBDA)
            for k in range(t, t + n):
                after = 0.0 if term[k] else v_next[k] - (q[k + 1] if k < t + n - 1 else 0.0)
                target[t] += share * DISCOUNT ** (k - t) * (r[k] + DISCOUNT * after)
    return target


def test_general_off_policy_returns_against_the_loop():
    """The trace may be anything, above 1 too."""
    theirs = [loop_general(*row) for row in zip(*FACTS, strict=True)]
    np.testing.assert_allclose(each_pattern(general_off_policy_returns, *FACTS), theirs, rtol=2e-6, atol=5e-6)


@LAMBDAS
def test_retrace_against_the_loop(lambda_):
    trace = lambda_ * np.minimum(1, RATIO)
    theirs = [loop_general(*row) for row in zip(REWARD, Q, NEXT_VALUE, trace, TERMINATED, TRUNCATED, strict=True)]
    np.testing.assert_allclose(each_pattern(retrace, *FACTS, lambda_=lambda_), theirs, atol=2e-6)


@LAMBDAS
def test_vtrace_against_the_loop(lambda_):
    rho, c = np.minimum(1.5, RATIO), lambda_ * np.minimum(0.8, RATIO)
    theirs = [loop_vtrace(*row) for row in zip(REWARD, Q, NEXT_VALUE, rho, c, TERMINATED, TRUNCATED, strict=True)]
    np.testing.assert_allclose(each_pattern(vtrace, *FACTS, lambda_=lambda_, **CLIPS), theirs, atol=4e-6)


def test_the_constants_that_need_not_be_given_are_one():
    np.testing.assert_array_equal(each_pattern(retrace, *FACTS), each_pattern(retrace, *FACTS, lambda_=1.0))
    ones = {"lambda_": 1.0, "clip_rho": 1.0, "clip_c": 1.0}
    np.testing.assert_array_equal(each_pattern(vtrace, *FACTS), each_pattern(vtrace, *FACTS, **ones))


def test_hand_constants():
    """Three steps of reward 1, 2, 3, the last terminates; once as they are, once with the second truncated."""
    reward, q, next_value = jnp.array([1.0, 2.0, 3.0]), jnp.array([4.0, 5.0, 6.0]), jnp.array([5.0, 10.0, 99.0])
    ratio, terminated = jnp.array([7.0, 0.5, 2.0]), jnp.array([False, False, True])
    going, truncated = jnp.zeros(3, bool), jnp.array([False, True, False])

    def check(function, flags, expected, **constants):
        target = function(reward, q, next_value, ratio, terminated, flags, discount=0.5, **constants)
        np.testing.assert_allclose(target, expected, rtol=1e-6)

    check(general_off_policy_returns, going, [1 + 0.5 * (5 + 0.5 * (4 - 5)), 2 + 0.5 * (10 + 2 * (3 - 6)), 3])
    check(general_off_policy_returns, truncated, [1 + 0.5 * (5 + 0.5 * (7 - 5)), 2 + 0.5 * 10, 3])
    check(retrace, going, [1 + 0.5 * (5 + 0.5 * (5.5 - 5)), 2 + 0.5 * (10 + 1 * (3 - 6)), 3])
    check(retrace, truncated, [1 + 0.5 * (5 + 0.25 * (7 - 5)), 7, 3], lambda_=0.5)
    #   ρ̄ δ = 2 (1 + ½5 − 4),  ½ (2 + ½10 − 5),  2 (3 − 6)
    check(vtrace, going, [4 - 1 + 0.5 * (4.5 - 5), 5 + 1 + 0.25 * (0 - 6), 6 - 6], clip_rho=2.0)
    check(vtrace, truncated, [4 - 1 + 0.5 * 3 * (6 - 5), 5 + 1, 6 - 6], clip_rho=2.0, clip_c=3.0)


def test_against_rlax():
    """rlax has no truncation: on rows without it, its discount is γ(1 − term). What it calls `t` is our t + 1; it never
    reads the first ratio."""
    rlax = import_rlax()
    rows = ~TRUNCATED.any(1)
    count, discount = rows.sum(), (DISCOUNT * ~TERMINATED[rows]).astype(np.float32)
    reward, terminated, truncated = REWARD[rows], TERMINATED[rows], TRUNCATED[rows]
    table = GENERATOR.normal(size=(count, T + 1, 3)).astype(np.float32)
    pi, mu = GENERATOR.dirichlet(np.ones(3), size=(2, count, T + 1)).astype(np.float32) + np.float32(0.05)
    action = GENERATOR.integers(3, size=(count, T + 1)).astype(np.int32)

    def taken(x):
        return np.take_along_axis(x, action[..., None], -1)[..., 0]

    ratio, q, next_value = taken(pi) / taken(mu), taken(table), (pi * table).sum(-1)[:, 1:]
    facts = reward, q[:, :-1], next_value, ratio[:, :-1], terminated, truncated
    ours = each_pattern(general_off_policy_returns, *facts)
    theirs = jax.vmap(rlax.general_off_policy_returns_from_action_values)(
        table[:, 1:], action[:, 1:], reward, discount, ratio[:, 1:], pi[:, 1:]
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
    theirs = jax.vmap(rlax.general_off_policy_returns_from_q_and_v)(
        q[:, 1:-1], next_value, reward, discount, ratio[:, 1:-1]
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
    ours = each_pattern(retrace, *facts, lambda_=LAMBDA) - q[:, :-1]
    theirs = jax.vmap(lambda *row: rlax.retrace(*row, LAMBDA))(
        table[:, :-1], table[:, 1:], action[:, :-1], action[:, 1:], reward, discount, pi[:, 1:], taken(mu)[:, 1:]
    )
    np.testing.assert_allclose(ours, theirs, atol=4e-6)
    ours = each_pattern(vtrace, *facts, lambda_=LAMBDA, clip_rho=1.5) - q[:, :-1]
    with jax.numpy_dtype_promotion("standard"):  # it multiplies by booleans
        theirs = jax.vmap(lambda *row: rlax.vtrace(*row, LAMBDA, 1.5))(
            q[:, :-1], next_value, reward, discount, ratio[:, :-1]
        )
    np.testing.assert_allclose(ours, theirs, atol=4e-6)


def test_on_policy_each_is_its_namesake():
    """Ratio 1: with one action, V(s'ₜ) = Q(sₜ₊₁, aₜ₊₁), Retrace(λ) is the λ-return; with more, the expected Q(λ);
    V-trace is V + Â of GAE."""
    ones, flags = np.ones_like(RATIO), (TERMINATED, TRUNCATED)
    inside = np.where((TERMINATED | TRUNCATED)[:, :-1], NEXT_VALUE[:, :-1], Q[:, 1:])
    next_value = np.concatenate([inside, NEXT_VALUE[:, -1:]], 1)
    ours = each_pattern(retrace, REWARD, Q, next_value, ones, *flags, lambda_=LAMBDA)
    theirs = each_pattern(lambda_return, REWARD, next_value, *flags, lambda_=LAMBDA)
    np.testing.assert_allclose(ours, theirs, atol=2e-6)
    ours = each_pattern(retrace, REWARD, Q, NEXT_VALUE, ones, *flags, lambda_=LAMBDA)
    theirs = [loop_q_lambda(*row) for row in zip(REWARD, Q, NEXT_VALUE, *flags, strict=True)]
    np.testing.assert_allclose(ours, theirs, atol=2e-6)
    ours = each_pattern(vtrace, REWARD, Q, NEXT_VALUE, ones, *flags, lambda_=LAMBDA)
    theirs = Q + each_pattern(gae, REWARD, Q, NEXT_VALUE, *flags, lambda_=LAMBDA)
    np.testing.assert_allclose(ours, theirs, atol=2e-6)


def test_the_weight_is_that_of_the_next_step():
    """In one episode, ratio[j] < 1 moves G₀ … Gⱼ₋₁ of Retrace and nothing else; of V-trace also Gⱼ."""
    ratio, flags = jnp.array([0.5, 0.6, 0.7, 0.8]), jnp.zeros((2, T), bool)
    facts = [jnp.asarray(x[0]) for x in (REWARD, Q, NEXT_VALUE)]
    for function, upper in [(retrace, 1), (vtrace, 0)]:
        moved = jax.jacobian(lambda x, f=function: f(*facts, x, *flags, discount=DISCOUNT))(ratio) != 0
        np.testing.assert_array_equal(moved, np.triu(np.ones((T, T), bool), upper))
        clipped = jax.jacobian(lambda x, f=function: f(*facts, x, *flags, discount=DISCOUNT))(ratio + 1.0)
        assert not clipped.any(), "a ratio above the constant is cut off"


@pytest.mark.parametrize("function", [general_off_policy_returns, retrace, vtrace])
def test_nothing_crosses_a_cut(function):
    """Where t is cut, G₀ … Gₜ stay the same to the bit whatever the rows after t hold; elsewhere something changes."""
    before, cut = each_pattern(function, *FACTS), TERMINATED | TRUNCATED
    for t in range(T - 1):
        later = np.arange(T) > t
        other = [np.where(later, x[::-1] * 1000 + 1, x) for x in FACTS[:4]]
        after = each_pattern(function, *other, TERMINATED ^ later, TRUNCATED)
        np.testing.assert_array_equal(after[cut[:, t], : t + 1], before[cut[:, t], : t + 1])
        assert (after[~cut[:, t], t] != before[~cut[:, t], t]).all()


@pytest.mark.parametrize("function", [general_off_policy_returns, retrace, vtrace])
def test_the_value_of_a_terminal_successor_is_never_read(function):
    """Neither it, were it NaN, nor its gradient; and every other successor's value is."""

    def targets(next_value):
        return each_pattern(function, REWARD, Q, next_value, RATIO, TERMINATED, TRUNCATED)

    np.testing.assert_array_equal(targets(np.where(TERMINATED, np.float32(np.nan), NEXT_VALUE)), targets(NEXT_VALUE))
    for t in range(T):
        moved = targets(NEXT_VALUE + 10 * np.eye(T, dtype=np.float32)[t])[:, t] != targets(NEXT_VALUE)[:, t]
        np.testing.assert_array_equal(moved, ~TERMINATED[:, t])
    gradient = jax.grad(
        lambda v: jax.vmap(lambda *row: function(*row, discount=DISCOUNT))(
            REWARD, Q, v, RATIO, TERMINATED, TRUNCATED
        ).sum()
    )(jnp.asarray(NEXT_VALUE))
    np.testing.assert_array_equal(np.asarray(gradient) == 0, TERMINATED)


STATES, ACTIONS, STEPS = 4, 3, 3
PROCESS = np.random.default_rng(3)
# The state after the last is the terminal one. What comes after it, and is worth 1000 there, is another episode's.
MOVES = PROCESS.dirichlet(np.ones(STATES + 1), size=(STATES + 1, ACTIONS))
PAYS = PROCESS.normal(size=(STATES + 1, ACTIONS, STATES + 1))
PI, *BEHAVIOURS = PROCESS.dirichlet(np.full(ACTIONS, 0.7), size=(3, STATES + 1)) * 0.94 + 0.02
# Every way of three steps: s₀ a₀ s₁ a₁ s₂ a₂ s₃.
WAYS = np.indices((STATES, *(ACTIONS, STATES + 1) * STEPS)).reshape(2 * STEPS + 1, -1)
S, A, S_NEXT = WAYS[:-1:2], WAYS[1::2], WAYS[2::2]
MEAN_PAY = (MOVES * PAYS).sum(-1)[:STATES]
MOVES_ON = MOVES[:STATES, :, :STATES]


def expected(function, values, next_values, mu, limited, **constants):
    """E[G₀ | s₀, a₀] of behaviour μ, all ways weighed by their probability; arriving in state 0 truncates if `limited`.
    `values` are those of (s, a), `next_values` of s'."""
    probability = MOVES[S, A, S_NEXT].prod(0) * mu[S[1:], A[1:]].prod(0)
    columns = PAYS[S, A, S_NEXT], values[S, A], next_values[S_NEXT], (PI / mu)[S, A]
    flags = S_NEXT == STATES, (S_NEXT == 0) & limited
    rows = *(x.T.astype(np.float32) for x in columns), *(x.T for x in flags)
    first = probability * each_pattern(function, *rows, **constants)[:, 0].astype(np.float64)
    return np.bincount(S[0] * ACTIONS + A[0], first).reshape(STATES, ACTIONS)


def applied(q, mu, limited, lambda_):
    """Retrace's operator as expected targets of `q`."""
    garbage = np.full((1, ACTIONS), 1000.0)
    next_value = np.append((PI[:STATES] * q).sum(1), np.nan)
    return expected(retrace, np.concatenate([q, garbage]), next_value, mu, limited, lambda_=lambda_)


@pytest.mark.parametrize("limited", [False, True])
@pytest.mark.parametrize("mu", BEHAVIOURS, ids=["one", "another"])
@LAMBDAS
def test_expected_retrace_is_the_papers_operator(mu, limited, lambda_):
    """Munos et al. (2016), eq. 4 and theorem 1: R Q = Q + Σ (γ P^cμ)ᵏ (T^π Q − Q) for any Q, whose fixed point is Q^π
    whatever the behaviour, and which it approaches by γ at least."""
    n, trace = STATES * ACTIONS, lambda_ * np.minimum(mu, PI)[:STATES]
    trace[0] *= not limited
    go_on = (MOVES_ON[..., None] * trace).reshape(n, n)
    follow = (MOVES_ON[..., None] * PI[:STATES]).reshape(n, n)
    q_pi = np.linalg.solve(np.eye(n) - DISCOUNT * follow, MEAN_PAY.ravel())
    np.testing.assert_allclose(applied(q_pi.reshape(STATES, ACTIONS), mu, limited, lambda_).ravel(), q_pi, atol=1e-5)
    for seed in range(5):
        q = q_pi + np.random.default_rng(seed).normal(size=n)
        error = MEAN_PAY.ravel() + DISCOUNT * follow @ q - q
        operator = q + sum(np.linalg.matrix_power(DISCOUNT * go_on, k) @ error for k in range(STEPS))
        ours = applied(q.reshape(STATES, ACTIONS), mu, limited, lambda_).ravel()
        np.testing.assert_allclose(ours, operator, atol=1e-5)
        assert abs(ours - q_pi).max() <= DISCOUNT * abs(q - q_pi).max()


@pytest.mark.parametrize("clip_rho", [0.6, 1.0, 100.0])
@pytest.mark.parametrize("mu", BEHAVIOURS, ids=["one", "another"])
def test_expected_vtrace_stays_at_the_value_of_the_clipped_policy(mu, clip_rho):
    """Espeholt et al. (2018), theorem 1: the fixed point is the value of π_ρ̄ ∝ min(ρ̄ μ, π); of π, if ρ̄ is large."""
    clipped = np.minimum(clip_rho * mu, PI)[:STATES]
    clipped /= clipped.sum(1, keepdims=True)
    follow = np.einsum("sa,sax->sx", clipped, MOVES_ON)
    value = np.linalg.solve(np.eye(STATES) - DISCOUNT * follow, (clipped * MEAN_PAY).sum(1))
    values = np.repeat(np.append(value, 1000.0)[:, None], ACTIONS, 1)
    constants = {"clip_rho": clip_rho, "clip_c": 0.8, "lambda_": LAMBDA}
    ours = (mu[:STATES] * expected(vtrace, values, np.append(value, np.nan), mu, True, **constants)).sum(1)
    np.testing.assert_allclose(ours, value, atol=2e-5)
