"""Projection against a quadratic program, Fisher products against dense Hessians and scores, natural steps against
linear algebra, and the line search against what it was to find."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from scipy.optimize import minimize

from duologue.networks import Networks
from duologue.trust_region import dot, fisher_product, line_search, natural_step, project
from duologue.types import Box, Discrete, EnvSpec

OBS = jnp.asarray(np.random.default_rng(0).normal(size=(6, 3)), jnp.float32)
SPACES = pytest.mark.parametrize("space", [Discrete(3), Box((2,))], ids=["categorical", "normal"])


@functools.cache
def policy_and_kl(space):
    """A small actor-critic, every parameter moved off its start, and θ ↦ E[KL(π_old ‖ π_θ)] over a few observations."""
    spec = EnvSpec("Test-v0", Box((3,)), space)
    start, unravel = ravel_pytree(Networks(hidden_sizes=(4,)).actor_critic(spec, key=jax.random.key(0)))
    params = unravel(start + 0.5 * jax.random.normal(jax.random.key(1), start.shape))
    old = params.policy(OBS)
    return params, lambda new: old.kl(new.policy(OBS)).mean()


def dense(kl, params):
    """The Hessian of `kl`, and the vector of the parameters' length that goes with a tree."""
    flat, unravel = ravel_pytree(params)
    return np.asarray(jax.jit(jax.hessian(lambda x: kl(unravel(x))))(flat), np.float64), unravel


def bits(x):
    return np.asarray(x).view(np.uint32)


@pytest.mark.parametrize("batch", [(), (500,), (20, 30)])
@pytest.mark.parametrize("delta", [0.0, 0.1, 1.0])
def test_the_projection_meets_the_constraint_and_moves_no_more_than_it_must(batch, delta):
    """KKT: z = g − μk with μ ≥ 0, kᵀz ≤ δ, and μ = 0 unless kᵀz = δ. So a second projection does nothing, and where the
    constraint held not one number changes."""
    g, k = jax.random.normal(jax.random.key(0), (2, *batch, 5))
    z = project(g, k, delta)
    assert z.shape == g.shape
    after, before = np.asarray((k * z).sum(-1)), np.asarray((k * g).sum(-1))
    mu = np.asarray(((g - z) * k).sum(-1) / (k * k).sum(-1))
    assert (after <= delta + 1e-5).all() and (mu >= 0).all()
    np.testing.assert_allclose(g - z, mu[..., None] * np.asarray(k), atol=1e-5)
    np.testing.assert_allclose(after[before > delta], delta, atol=1e-5)
    np.testing.assert_array_equal(z[before <= delta], g[before <= delta])
    np.testing.assert_allclose(project(z, k, delta), z, atol=1e-5)
    assert not batch or 0.2 < (before > delta).mean() < 0.8


def test_the_projection_solves_the_quadratic_program():
    generator = np.random.default_rng(1)
    for _ in range(40):
        g, k = generator.normal(size=(2, 4)).astype(np.float32)
        delta = float(generator.uniform(0.01, 1.5))
        program = minimize(
            lambda z, g=g: 0.5 * ((g - z) ** 2).sum(), np.zeros(4), jac=lambda z, g=g: z - g, method="SLSQP",
            constraints={"type": "ineq", "fun": lambda z, k=k, d=delta: d - k @ z, "jac": lambda z, k=k: -k},
        )  # fmt: skip
        assert program.success
        np.testing.assert_allclose(project(jnp.asarray(g), jnp.asarray(k), delta), program.x, atol=1e-4)


@pytest.mark.parametrize("delta", [0.0, 1.0])
def test_without_a_direction_the_gradient_stays_and_nothing_is_nan(delta):
    """k = 0, also beside rows where it is not; and the derivatives with respect to g and k."""
    g = jax.random.normal(jax.random.key(0), (3, 5))
    k = g.at[1].set(0.0)
    np.testing.assert_array_equal(project(g, k, delta)[1], g[1])
    for_g, for_k = jax.grad(lambda g, k: (project(g, k, delta) * jnp.arange(1.0, 6.0)[None]).sum(), (0, 1))(g, k)
    assert jnp.isfinite(for_g).all() and jnp.isfinite(for_k).all()
    np.testing.assert_array_equal(for_g[1], jnp.arange(1.0, 6.0))


@SPACES
def test_the_fisher_product_is_the_dense_hessian_times_the_vector(space):
    """At θ_old, where it is positive semidefinite, and anywhere else."""
    params, kl = policy_and_kl(space)
    moved = jax.tree.map(lambda x: x + 0.3, params)
    for at in (params, moved):
        hessian, unravel = dense(kl, at)
        product = jax.jit(lambda v, at=at: ravel_pytree(fisher_product(kl, at, v))[0])
        for key in jax.random.split(jax.random.key(2), 3):
            v = jax.random.normal(key, hessian.shape[:1])
            np.testing.assert_allclose(product(unravel(v)), hessian @ np.asarray(v), rtol=1e-4, atol=1e-5)
        if at is params:
            assert np.linalg.eigvalsh(hessian).min() > -1e-5 < 0.1 < np.linalg.eigvalsh(hessian).max()


def test_the_fisher_product_is_that_of_the_scores():
    """F = E[s sᵀ], s = ∇ log π(a|s) at θ_old, summed over every action of every observation."""
    params, kl = policy_and_kl(Discrete(3))
    flat, unravel = ravel_pytree(params)
    scores = jax.jacobian(lambda x: unravel(x).policy(OBS).log_probs)(flat)  # [6, 3, n]
    fisher = np.einsum("ba,bai,baj->ij", params.policy(OBS).probs, scores, scores) / len(OBS)
    v = jax.random.normal(jax.random.key(3), flat.shape)
    product = ravel_pytree(fisher_product(kl, params, unravel(v)))[0]
    np.testing.assert_allclose(product, fisher @ np.asarray(v), rtol=1e-4, atol=1e-5)


def quadratic(seed):
    """½ θᵀAθ of a tree of two leaves with a well-conditioned A, at any θ; a gradient."""
    generator = np.random.default_rng(seed)
    root = generator.normal(size=(5, 5))
    a = root @ root.T + np.eye(5)
    tree = {"a": jnp.zeros((1, 3)), "b": jnp.zeros(2)}
    unravel = ravel_pytree(tree)[1]

    def kl(theta):
        x = ravel_pytree(theta)[0]
        return 0.5 * jnp.dot(x, jnp.dot(jnp.asarray(a, jnp.float32), x))

    return a, kl, unravel(jnp.ones(5)), unravel(jnp.asarray(generator.normal(size=5), jnp.float32))


@pytest.mark.parametrize("damping", [0.0, 0.5])
@pytest.mark.parametrize("seed", range(3))
def test_the_natural_step_is_that_of_linear_algebra(seed, damping):
    """Along (F + damping I)⁻¹ g, uphill, of length ½ dᵀ(F + damping I)d = δ whatever the length of g."""
    a, kl, params, gradient = quadratic(seed)
    fisher, g = a + damping * np.eye(5), np.asarray(ravel_pytree(gradient)[0], np.float64)
    x = np.linalg.solve(fisher, g)
    for scale in (1.0, 100.0):
        scaled = jax.tree.map(lambda x, s=scale: x * s, gradient)
        step = natural_step(kl, params, scaled, delta=0.02, damping=damping, iterations=20)
        assert jax.tree.structure(step) == jax.tree.structure(params) and step["a"].shape == (1, 3)
        d = np.asarray(ravel_pytree(step)[0], np.float64)
        np.testing.assert_allclose(d, np.sqrt(2 * 0.02 / (x @ fisher @ x)) * x, rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(0.5 * d @ fisher @ d, 0.02, rtol=1e-4)


def test_iterations_are_those_of_conjugate_gradient():
    """One goes along the gradient itself; k of them find the best x of the Krylov space g, Fg, … Fᵏ⁻¹g."""
    a, kl, params, gradient = quadratic(3)
    g = np.asarray(ravel_pytree(gradient)[0], np.float64)
    for k in (1, 2, 3):
        space = np.stack([np.linalg.matrix_power(a, i) @ g for i in range(k)], 1)
        x = space @ np.linalg.solve(space.T @ a @ space, space.T @ g)
        d = ravel_pytree(natural_step(kl, params, gradient, delta=0.5, damping=0.0, iterations=k))[0]
        np.testing.assert_allclose(d, x / np.sqrt(x @ a @ x), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("damping", [0.0, 0.1])
def test_without_a_gradient_there_is_no_step(damping):
    _, kl, params, gradient = quadratic(0)
    nothing = jax.tree.map(jnp.zeros_like, gradient)
    step = natural_step(kl, params, nothing, delta=0.02, damping=damping, iterations=10)
    assert all((x == 0).all() for x in jax.tree.leaves(step))


@SPACES
def test_the_step_of_a_policy_has_the_kl_it_was_given(space):
    """And raises what it is to raise, more than any of many random steps of that KL does."""
    params, kl = policy_and_kl(space)
    delta = 1e-4
    action = params.policy(OBS).sample(jax.random.key(4))
    advantage = jnp.asarray([1.0, -1.0, 0.5, 2.0, -0.3, 0.1])
    gradient = jax.grad(lambda p: (advantage * p.policy(OBS).log_prob(action)).mean())(params)
    step = jax.jit(lambda: natural_step(kl, params, gradient, delta=delta, damping=1e-5, iterations=40))()
    np.testing.assert_allclose(kl(jax.tree.map(jnp.add, params, step)), delta, rtol=0.05)
    hessian, _ = dense(kl, params)
    others = np.random.default_rng(5).normal(size=(1000, len(hessian)))
    others *= np.sqrt(2 * delta / np.einsum("ni,ij,nj->n", others, hessian, others))[:, None]
    assert dot(gradient, step) > (others @ np.asarray(ravel_pytree(gradient)[0])).max() > 0


def test_the_line_search_tries_in_order_and_takes_the_first_accepted():
    """θ + βʲΔ for j = 0, 1, …; nothing after the first accepted, and no more than `tries`."""
    params, step = {"a": jnp.array([1.0, 2.0]), "b": jnp.array(3.0)}, {"a": jnp.array([1.0, -1.0]), "b": jnp.array(2.0)}

    def search(accepted, tries=6):
        seen = []

        def accept(at):
            seen.append(float(at["b"] - 3.0) / 2)
            assert bool(jnp.all(at["a"] == params["a"] + seen[-1] * step["a"]))
            return jnp.asarray(len(seen) - 1 in accepted)

        with jax.disable_jit():
            found, share = line_search(params, step, accept, shrink=0.5, tries=tries)
        assert share == (float(found["b"]) - 3.0) / 2
        np.testing.assert_array_equal(found["a"], params["a"] + share * step["a"])
        return seen, float(share)

    shares = [1.0, 0.5, 0.25, 0.125, 0.0625, 0.03125]
    assert search({0, 1, 2}) == (shares[:1], 1.0)
    assert search({2, 4}) == (shares[:3], 0.25)
    assert search({5}) == (shares, 0.03125)
    assert search({6}) == search(set()) == (shares, 0.0)
    assert search({3}, tries=3) == (shares[:3], 0.0)
    assert search({2}, tries=3) == (shares[:3], 0.25)


@pytest.mark.parametrize("refuse", [lambda at: jnp.asarray(False), lambda at: jnp.all(jnp.isfinite(at["odd"]))])
def test_when_none_is_accepted_the_parameters_are_the_same_to_the_bit(refuse):
    """-0, the largest, the smallest and a denormal float; whatever the step, NaN too."""
    odd = jnp.asarray(np.array([-0.0, 0.0, 3.4028235e38, 1.1754944e-38, 1e-45, 0.1], np.float32))
    params = {"odd": odd, "usual": jnp.array([[1 / 3]])}
    for size in (1.0, jnp.inf, jnp.nan):
        step = jax.tree.map(lambda x, s=size: jnp.full_like(x, s).at[..., 0].set(jnp.nan), params)
        found, share = jax.jit(lambda p, d: line_search(p, d, refuse, shrink=0.8, tries=5))(params, step)
        assert share == 0
        for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(params), strict=True):
            np.testing.assert_array_equal(bits(ours), bits(theirs))


def test_ten_thousand_line_searches_never_end_worse():
    """Random smooth surrogates and divergences, one vmap: each row goes its own number of shrinkings, to the first that
    improves within δ; where there is none it stays, to the bit."""
    rows, n, delta, shrink, tries = 10_000, 3, 0.05, 0.7, 8
    keys = jax.random.split(jax.random.key(6), 6)
    params, slope, wave, step = jax.random.normal(keys[0], (4, rows, n))
    root, bend = jax.random.normal(keys[1], (2, rows, n, n))
    step = step * jnp.exp(jax.random.normal(keys[2], (rows, 1)))

    def judge(start, slope, wave, root, bend, x):
        """How much better `x` is than the start, and how far from it."""

        def surrogate(x):
            return jnp.dot(slope, x) - jnp.dot(x, jnp.dot(bend, x)) + jnp.sin(3 * jnp.dot(wave, x))

        far = jnp.dot(root, x - start)
        return surrogate(x) - surrogate(start), 0.1 * jnp.dot(far, far) * (1 + 0.3 * jnp.sin(jnp.sum(far)))

    def accepted(gain_and_kl):
        return (gain_and_kl[0] > 0) & (gain_and_kl[1] <= delta)

    @jax.jit
    @jax.vmap
    def one(start, step, *problem):
        found, share = line_search(
            start, step, lambda x: accepted(judge(start, *problem, x)), shrink=shrink, tries=tries
        )
        each = jax.vmap(lambda s: judge(start, *problem, start + s * step))(jnp.float32(shrink) ** jnp.arange(tries))
        return found, share, judge(start, *problem, found), accepted(each)

    found, share, (gain, kl), acceptable = map(np.asarray, one(params, step, slope, wave, root, bend)[:2]), None, (0, 0), 0
