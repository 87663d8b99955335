"""Divergences of samples against double loops and closed forms, and the multiplier of a constraint on them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import multivariate_normal

from duologue.ops import divergences
from duologue.ops.distributions import Normal
from duologue.ops.divergences import KL, MMD, mmd_squared
from duologue.ops.temperature import Dual, Fixed, Learned

KERNELS = "laplacian", "gaussian"


def kernel(name, a, b, sigma):
    """As the authors' code has them: neither squares σ."""
    distance = sum(abs(p - q) if name == "laplacian" else (p - q) ** 2 for p, q in zip(a, b, strict=True))
    return np.exp(-distance / (2 * sigma))


def by_loops(name, x, y, sigma):
    """MMD² of one state: 1/n² Σ k(xᵢ, xⱼ) − 2/nm Σ k(xᵢ, yⱼ) + 1/m² Σ k(yᵢ, yⱼ), diagonals included."""

    def mean(a, b):
        return sum(kernel(name, p, q, sigma) for p in a for q in b) / (len(a) * len(b))

    return mean(x, x) - 2 * mean(x, y) + mean(y, y)


def samples(n, *shape, seed=0, loc=0.0):
    return jnp.asarray(np.random.default_rng(seed).normal(loc, size=(n, *shape)), jnp.float32)


def somewhere(*shape):
    """Any policy, for divergences that read samples alone."""
    return Normal(jnp.zeros(shape), jnp.ones(shape))


@pytest.mark.parametrize("name", KERNELS)
def test_mmd_is_the_double_sum_of_each_state_by_itself(name):
    x, y = samples(4, 3, 2), samples(5, 3, 2, seed=1, loc=0.5)
    squared = mmd_squared(x, y, kernel=name, sigma=0.7)
    expected = [by_loops(name, *(np.asarray(z[:, i], np.float64) for z in (x, y)), 0.7) for i in range(3)]
    np.testing.assert_allclose(squared, expected, rtol=1e-5, atol=1e-6)
    assert np.ptp(expected) > 0.05
    np.testing.assert_allclose(mmd_squared(y, x, kernel=name, sigma=0.7), squared, rtol=1e-5, atol=1e-7)
    root = MMD(kernel=name, sigma=0.7)(x, somewhere(3, 2), y[:4])
    np.testing.assert_allclose(root, jnp.sqrt(mmd_squared(x, y[:4], kernel=name, sigma=0.7) + 1e-6), rtol=1e-6)


def test_an_estimate_below_zero_counts_as_zero(monkeypatch):
    """Rounding can leave one there, and its root would be NaN."""
    monkeypatch.setattr(divergences, "mmd_squared", lambda *_, **__: jnp.full(3, -1e-5))
    np.testing.assert_allclose(MMD()(samples(4, 3, 2), somewhere(3, 2), samples(4, 3, 2)), 1e-3, rtol=1e-4)


def test_the_gaussian_kernel_gives_the_closed_form_between_normals():
    """E exp(−‖x − y‖²/2σ) = Πᵢ √(σ/(σ + v)) exp(−δᵢ²/2(σ + v)), v the variance of x − y; E k(x, x) = 1 on n of n²."""
    n, sigma, shift, x_std, y_std = 1500, 1.5, np.array([0.8, -0.3]), 0.6, 1.2

    def expected(delta, variance):
        return (sigma / (sigma + variance)) ** (len(delta) / 2) * np.exp(-(delta @ delta) / (2 * (sigma + variance)))

    x, y = x_std * samples(n, 1, 2), y_std * samples(n, 1, 2, seed=1, loc=shift / y_std)
    same = [1 / n + (1 - 1 / n) * expected(np.zeros(2), 2 * std**2) for std in (x_std, y_std)]
    closed = sum(same) - 2 * expected(shift, x_std**2 + y_std**2)
    assert closed > 0.05
    np.testing.assert_allclose(mmd_squared(x, y, kernel="gaussian", sigma=sigma)[0], closed, rtol=0.1)


@pytest.mark.parametrize("name", KERNELS)
def test_identical_samples_give_a_thousandth_and_a_finite_gradient(name):
    x = samples(6, 4, 2)
    measure = MMD(kernel=name, sigma=20.0)

    def total(y):
        return jnp.sum(measure(x, somewhere(4, 2), y))

    np.testing.assert_allclose(mmd_squared(x, x, kernel=name, sigma=20.0), 0.0, atol=1e-6)
    np.testing.assert_allclose(measure(x, somewhere(4, 2), x), 1e-3, rtol=0.5)
    np.testing.assert_allclose(measure(x[:1], somewhere(4, 2), x[:1]), 1e-3, rtol=1e-6)
    for y in (x, x[::-1], jnp.zeros_like(x)):
        assert bool(jnp.isfinite(jax.grad(total)(y)).all())
    apart = jax.grad(total)(x + 1.0)
    assert bool((apart > 0).all())  # the way back to the data


def test_mmd_compares_states_never_the_batch():
    """One state's samples permuted change nothing; another state's replaced change that state alone."""
    x, y = samples(4, 3, 2), samples(4, 3, 2, seed=1)
    before = MMD(sigma=1.0)(x, somewhere(3, 2), y)
    np.testing.assert_allclose(MMD(sigma=1.0)(x[::-1], somewhere(3, 2), y), before, rtol=1e-5)
    after = MMD(sigma=1.0)(x, somewhere(3, 2), y.at[:, 1].add(2.0))
    assert [bool(a == b) for a, b in zip(before, after, strict=True)] == [True, False, True]


def test_the_kl_term_is_minus_the_mean_log_density_of_the_squashed_data():
    policy = Normal(samples(3, 2), jnp.exp(0.3 * samples(3, 2, seed=2)))
    data = 2.0 * samples(4, 3, 2, seed=1)  # beyond ±1 as raw actions are
    value = KL()(data, policy, jnp.full_like(data, jnp.nan))  # never reads the policy's samples
    for i in range(3):
        density = multivariate_normal(np.asarray(policy.loc[i]), np.diag(np.asarray(policy.scale[i]) ** 2))
        log_slope = np.log1p(-(np.tanh(np.asarray(data[:, i], np.float64)) ** 2)).sum(-1)
        np.testing.assert_allclose(value[i], -(density.logpdf(np.asarray(data[:, i])) - log_slope).mean(), rtol=1e-4)


def test_the_kl_term_is_least_at_the_policy_of_the_data():
    """−E log π has its minimum over μ and log σ at the moments of the data."""
    data = samples(50, 1, 2, loc=0.7)
    loc, log_std = data.mean(0), jnp.log(data.std(0))
    at = jax.grad(lambda p: KL()(data, Normal(p[0], jnp.exp(p[1])), data)[0])((loc, log_std))
    np.testing.assert_allclose(jax.tree.leaves(at), 0.0, atol=1e-5)


# The multiplier.


@pytest.mark.parametrize(("excess", "sign"), [(0.0, 0), (0.5, 1), (-0.5, -1)], ids=["at", "above", "below"])
def test_the_multiplier_rises_above_the_threshold_falls_below_and_stays_at_it(excess, sign):
    dual = Dual(threshold=0.25, initial=0.5, learning_rate=0.1)
    after, _ = dual.update(dual.init(), jnp.array(0.25 + excess))
    np.testing.assert_allclose(after[1][0].mu / 0.1, -0.5 * excess, rtol=1e-6)
    assert after[1][0].count == 1
    np.testing.assert_allclose(dual.weight(after), 0.5 * np.exp(0.1 * sign), rtol=1e-5)


def test_the_multiplier_stops_at_both_clamps_and_comes_back():
    dual = Dual(threshold=0.05, initial=1.0, learning_rate=0.3, lowest=0.5, highest=3.0)

    def after(state, divergence, steps):
        return jax.lax.fori_loop(0, steps, lambda _, s: dual.update(s, jnp.float32(divergence))[0], state)

    high = after(dual.init(), 1.0, 20)
    np.testing.assert_allclose(dual.weight(high), 3.0, rtol=1e-5)
    low = after(dual.init(), 0.0, 20)
    np.testing.assert_allclose(dual.weight(low), 0.5, rtol=1e-5)
    assert float(dual.weight(after(low, 5.0, 5))) > 0.6
    free = Learned(initial=1.0, learning_rate=0.3)
    state = free.init()
    for _ in range(20):
        state, _ = free.update(state, jnp.float32(1.0 - 0.05))
    assert float(free.weight(state)) > 3.0


def test_a_sweep_may_trace_the_multiplier(unchecked):
    one = jax.vmap(lambda initial: Dual(threshold=0.0, initial=initial).init()[0])(jnp.array([0.5, 2.0]))
    np.testing.assert_allclose(one, np.log([0.5, 2.0]), rtol=1e-6)


def test_the_clamps_are_those_of_the_authors_unless_they_are_given():
    np.testing.assert_allclose(np.log([Dual.lowest, Dual.highest]), [-5, 10], rtol=1e-9)


def test_a_fixed_multiplier_stays():
    fixed = Fixed(7.0)
    assert fixed.update(fixed.init(), jnp.array(9.0)) == ((), {})
    assert fixed.weight(()) == np.float32(7.0)
