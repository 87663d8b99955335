"""Every pattern of terminated × truncated × position: against a plain loop in the papers' indices, hand constants,
rlax."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import import_rlax

from duologue.ops.returns import gae, lambda_return, n_step, td_target, vmap_envs

T, DISCOUNT, LAMBDA = 4, 0.9, 0.7
PATTERNS = list(itertools.product([(False, False), (True, False), (False, True), (True, True)], repeat=T))
TERMINATED, TRUNCATED = np.moveaxis(np.array(PATTERNS), -1, 0)  # [256, T] each
GENERATOR = np.random.default_rng(0)
REWARD, VALUE, NEXT_VALUE = GENERATOR.normal(size=(3, len(PATTERNS), T)).astype(np.float32)


def each_pattern(function, *rows):
    """`function` of every row, by vmap over the patterns."""
    return np.asarray(jax.vmap(function)(*rows))


def loop_gae(r, v, v_next, term, trunc):
    """Σ over k of (γλ)ᵏ δₜ₊ₖ, until and with the step that ends the episode."""
    advantage = np.zeros(T)
    for t in range(T):
        weight = 1.0
        for k in range(t, T):
            bootstrap = 0.0 if term[k] else DISCOUNT * v_next[k]
            advantage[t] += weight * (r[k] + bootstrap - v[k])
            weight *= DISCOUNT * LAMBDA
            if term[k] or trunc[k]:
                break
    return advantage


def loop_n_step(r, v_next, term, trunc, n):
    """Σ γᵏ rₜ₊ₖ + γᵐ V(s'ₜ₊ₘ₋₁) over m ≤ n steps of the same episode."""
    target = np.zeros(T)
    for t in range(T):
        weight = 1.0
        for k in range(t, min(t + n, T)):
            target[t] += weight * r[k]
            weight *= DISCOUNT
            last = k == min(t + n, T) - 1
            if term[k]:
                break
            if trunc[k] or last:
                target[t] += weight * v_next[k]
                break
    return target


def loop_lambda_return(r, v_next, term, trunc):
    """(1 − λ) Σ λⁿ⁻¹ G⁽ⁿ⁾ and the rest of the weight on the longest return there is (Sutton and Barto, eq. 12.3)."""
    target = np.zeros(T)
    for t in range(T):
        steps = next((k - t + 1 for k in range(t, T) if term[k] or trunc[k]), T - t)
        for n in range(1, steps):
            target[t] += (1 - LAMBDA) * LAMBDA ** (n - 1) * loop_n_step(r, v_next, term, trunc, n)[t]
        target[t] += LAMBDA ** (steps - 1) * loop_n_step(r, v_next, term, trunc, steps)[t]
    return target


def test_gae_against_the_loop():
    ours = each_pattern(
        lambda *row: gae(*row, discount=DISCOUNT, lambda_=LAMBDA), REWARD, VALUE, NEXT_VALUE, TERMINATED, TRUNCATED
    )
    theirs = [loop_gae(*row) for row in zip(REWARD, VALUE, NEXT_VALUE, TERMINATED, TRUNCATED, strict=True)]
    np.testing.assert_allclose(ours, theirs, atol=2e-6)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 9])
def test_n_step_against_the_loop(n):
    ours = each_pattern(lambda *row: n_step(*row, discount=DISCOUNT, n=n), REWARD, NEXT_VALUE, TERMINATED, TRUNCATED)
    theirs = [loop_n_step(*row, n) for row in zip(REWARD, NEXT_VALUE, TERMINATED, TRUNCATED, strict=True)]
    np.testing.assert_allclose(ours, theirs, atol=2e-6)


def test_lambda_return_against_the_loop():
    ours = each_pattern(
        lambda *row: lambda_return(*row, discount=DISCOUNT, lambda_=LAMBDA), REWARD, NEXT_VALUE, TERMINATED, TRUNCATED
    )
    theirs = [loop_lambda_return(*row) for row in zip(REWARD, NEXT_VALUE, TERMINATED, TRUNCATED, strict=True)]
    np.testing.assert_allclose(ours, theirs, atol=2e-6)


def test_hand_constants():
    """Three steps of reward 1, 2, 3; the second is truncated with V(s') = 10, the third terminates."""
    reward, value, next_value = jnp.array([1.0, 2.0, 3.0]), jnp.array([4.0, 5.0, 6.0]), jnp.array([5.0, 10.0, 99.0])
    terminated, truncated = jnp.array([False, False, True]), jnp.array([False, True, False])
    #   δ = 1 + ½5 − 4,  2 + ½10 − 5,  3 − 6
    advantage = gae(reward, value, next_value, terminated, truncated, discount=0.5, lambda_=0.5)
    np.testing.assert_allclose(advantage, [-0.5 + 0.25 * 2.0, 2.0, -3.0])
    np.testing.assert_allclose(
        lambda_return(reward, next_value, terminated, truncated, discount=0.5, lambda_=0.5),
        [1 + 0.5 * (0.5 * 5 + 0.5 * 7), 7.0, 3.0],
    )
    np.testing.assert_allclose(n_step(reward, next_value, terminated, truncated, discount=0.5, n=2), [4.5, 7.0, 3.0])


def test_against_rlax():
    """rlax has no truncation: on rows without it, its discount is γ(1 − term) and its values lie at T + 1 times."""
    rlax = import_rlax()
    rows = ~TRUNCATED.any(1)
    values = GENERATOR.normal(size=(rows.sum(), T + 1)).astype(np.float32)
    discount = (DISCOUNT * ~TERMINATED[rows]).astype(np.float32)
    facts = REWARD[rows], values[:, :-1], values[:, 1:], TERMINATED[rows], TRUNCATED[rows]
    ours = each_pattern(lambda *row: gae(*row, discount=DISCOUNT, lambda_=LAMBDA), *facts)
    theirs = jax.vmap(lambda r, d, v: rlax.truncated_generalized_advantage_estimation(r, d, LAMBDA, v))(
        REWARD[rows], discount, values
    )
    np.testing.assert_allclose(ours, theirs, atol=2e-6)
    reward, _, next_value, terminated, truncated = facts
    facts = reward, next_value, terminated, truncated
    ours = each_pattern(lambda *row: lambda_return(*row, discount=DISCOUNT, lambda_=LAMBDA), *facts)
    theirs = jax.vmap(lambda r, d, v: rlax.lambda_returns(r, d, v, LAMBDA))(reward, discount, next_value)
    np.testing.assert_allclose(ours, theirs, atol=2e-6)
    ours = each_pattern(lambda *row: n_step(*row, discount=DISCOUNT, n=3), *facts)
    theirs = jax.vmap(lambda r, d, v: rlax.n_step_bootstrapped_returns(r, d, v, 3))(reward, discount, next_value)
    np.testing.assert_allclose(ours, theirs, atol=2e-6)


def test_a_rollout_is_its_columns():
    """`vmap_envs` is the function of each environment's column; environments never mix."""
    facts = [jnp.asarray(x[:3].T) for x in (REWARD, VALUE, NEXT_VALUE, TERMINATED, TRUNCATED)]
    rollout = vmap_envs(gae)(*facts, discount=DISCOUNT, lambda_=LAMBDA)
    columns = [gae(*(x[:, b] for x in facts), discount=DISCOUNT, lambda_=LAMBDA) for b in range(3)]
    np.testing.assert_allclose(rollout, np.stack(columns, 1), atol=1e-6)


def test_the_value_of_a_terminal_successor_is_never_read():
    """Neither its value nor its gradient, were it NaN."""

    def target(next_value):
        return td_target(jnp.ones(()), jnp.asarray(True), next_value, 0.9)

    assert target(jnp.asarray(jnp.nan)) == 1.0
    assert jax.grad(target)(jnp.asarray(3.0)) == 0.0


def test_a_random_walk_has_the_closed_form_value():
    """On the 5-state random walk, V(s) = s/6 is the fixed point of expected λ-returns of whole episodes."""
    generator, values = np.random.default_rng(1), np.arange(7) / 6 * (np.arange(7) < 6)
    walks = []
    for _ in range(4000):
        s, walk = 3, []
        while 0 < s < 6:
            after = s + (1 if generator.random() < 0.5 else -1)
            walk.append((float(after == 6), values[after], after in (0, 6)))
            s = after
        walks.append((walk + [(0.0, 0.0, True)] * 200)[:200])
    r, v_next, term = (np.array(column, np.float32) for column in np.moveaxis(np.array(walks), -1, 0))
    returns = jax.vmap(lambda *row: lambda_return(*row, discount=1.0, lambda_=0.8))(
        r, v_next, term.astype(bool), np.zeros_like(term, bool)
    )
    assert abs(returns[:, 0].mean() - 0.5) < 3 * returns[:, 0].std() / 4000**0.5
