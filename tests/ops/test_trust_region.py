"""Projection against a quadratic program, Fisher products against dense Hessians and scores, natural steps against
linear algebra, and the line search against what it was to find."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from scipy.optimize import minimize

from duologue.networks.builder import Networks
from duologue.ops.trust_region import dot, fisher_product, line_search, natural_step, project
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


@functools.cache
def hessian(space):
    """The compiled dense Hessian of that divergence, a function of the flattened parameters."""
    params, kl = policy_and_kl(space)
    unravel = ravel_pytree(params)[1]
    return jax.jit(jax.hessian(lambda x: kl(unravel(x))))


def bits(x):
    return np.asarray(x).view(np.uint32)


@pytest.mark.parametrize("batch", [(), (500,), (20, 30)])
@pytest.mark.parametrize("delta", [0.0, 0.1, 1.0])
def test_the_projection_meets_the_constraint_and_moves_no_more_than_it_must(batch, delta):
    """KKT: z = g − μk with μ ≥ 0, kᵀz ≤ δ, and μ = 0 unless kᵀz = δ. So a second projection does nothing, and where the
    constraint held not one number changes."""
    g, k = np.random.default_rng(0).normal(size=(2, *batch, 5)).astype(np.float32)
    z = np.asarray(project(jnp.asarray(g), jnp.asarray(k), delta))
    assert z.shape == g.shape
    after, before, norm = ((k * x).sum(-1) for x in (z, g, k))
    mu = ((g - z) * k).sum(-1) / norm
    assert (after <= delta + 1e-5).all() and (mu >= 0).all()
    np.testing.assert_allclose(g - z, mu[..., None] * k, atol=1e-5)
    np.testing.assert_allclose(after[before > delta], delta, atol=1e-5)
    np.testing.assert_array_equal(z[before <= delta], g[before <= delta])
    np.testing.assert_allclose(project(jnp.asarray(z), jnp.asarray(k), delta), z, atol=1e-5)
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
    flat, unravel = ravel_pytree(params)
    product = jax.jit(lambda x, v: ravel_pytree(fisher_product(kl, unravel(x), unravel(v)))[0])
    for at in (flat, flat + 0.3):
        matrix = np.asarray(hessian(space)(at))
        for v in np.random.default_rng(2).normal(size=(3, len(flat))).astype(np.float32):
            np.testing.assert_allclose(product(at, jnp.asarray(v)), matrix @ v, rtol=1e-4, atol=1e-5)
    eigenvalues = np.linalg.eigvalsh(np.asarray(hessian(space)(flat)))
    assert eigenvalues[0] > -1e-5 and eigenvalues[-1] > 0.1


def test_the_fisher_product_is_that_of_the_scores():
    """F = E[s sᵀ], s = ∇ log π(a|s) at θ_old, summed over every action of every observation."""
    params, kl = policy_and_kl(Discrete(3))
    flat, unravel = ravel_pytree(params)
    scores = jax.jit(jax.jacobian(lambda x: unravel(x).policy(OBS).log_probs))(flat)  # [6, 3, n]
    fisher = np.einsum("ba,bai,baj->ij", params.policy(OBS).probs, scores, scores) / len(OBS)
    v = jax.random.normal(jax.random.key(3), flat.shape)
    product = jax.jit(lambda v: ravel_pytree(fisher_product(kl, params, unravel(v)))[0])(v)
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
    take = jax.jit(lambda g: natural_step(kl, params, g, delta=0.02, damping=damping, iterations=20))
    for scale in (1.0, 100.0):
        step = take(jax.tree.map(lambda x, s=scale: x * s, gradient))
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
    """Nor where the divergence, for rounding, curves downwards along it: zeros, and not NaN."""
    _, kl, params, gradient = quadratic(0)
    nothing = jax.tree.map(jnp.zeros_like, gradient)
    for divergence, g in ((kl, nothing), (lambda theta: -0.5 * dot(theta, theta), gradient)):
        step = natural_step(divergence, params, g, delta=0.02, damping=damping, iterations=10)
        assert all((x == 0).all() for x in jax.tree.leaves(step))


@SPACES
def test_the_step_of_a_policy_has_the_kl_it_was_given(space):
    """KL(old ‖ new) + ½ damping ‖Δ‖² is δ; and of a thousand random steps of that size none goes further uphill."""
    params, kl = policy_and_kl(space)
    delta, damping = 1e-4, 1e-2
    action = params.policy(OBS).sample(jax.random.key(4))
    advantage = jnp.asarray([1.0, -1.0, 0.5, 2.0, -0.3, 0.1])

    @jax.jit
    def gradient_step_and_kl(params):
        gradient = jax.grad(lambda p: (advantage * p.policy(OBS).log_prob(action)).mean())(params)
        step = natural_step(kl, params, gradient, delta=delta, damping=damping, iterations=40)
        flat = (ravel_pytree(tree)[0] for tree in (gradient, step))
        return *flat, dot(gradient, step), kl(jax.tree.map(jnp.add, params, step))

    gradient, step, uphill, distance = map(np.asarray, gradient_step_and_kl(params))
    np.testing.assert_allclose(distance + 0.5 * damping * step @ step, delta, rtol=0.02)
    metric = np.asarray(hessian(space)(ravel_pytree(params)[0])) + damping * np.eye(len(step))
    others = np.random.default_rng(5).normal(size=(1000, len(step)))
    others *= np.sqrt(2 * delta / np.einsum("ni,ij,nj->n", others, metric, others))[:, None]
    assert uphill > (others @ gradient).max() > 0


def test_the_line_search_tries_in_order_and_takes_the_first_accepted():
    """θ + βʲΔ for j = 0, 1, …; nothing after the first accepted, and no more than `tries`."""
    params = {"a": jnp.array([1.0, 2.0]), "b": jnp.array(3.0)}
    step = {"a": jnp.array([1.0, -1.0]), "b": jnp.array(2.0)}

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
        return seen[:tries], float(share)  # what it makes of one try more is seen in the share

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

    shares = np.cumprod([1.0] + [shrink] * (tries - 1), dtype=np.float32)

    @jax.jit
    @jax.vmap
    def one(start, step, *problem):
        found, share = line_search(
            start, step, lambda x: accepted(judge(start, *problem, x)), shrink=shrink, tries=tries
        )
        each = jax.vmap(lambda s: accepted(judge(start, *problem, start + s * step)))(jnp.asarray(shares))
        return found, share, each, *judge(start, *problem, found)

    found, share, each, gain, kl = map(np.asarray, one(params, step, slope, wave, root, bend))
    assert (gain >= -1e-5).all() and (kl <= delta + 1e-6).all()
    none = share == 0
    np.testing.assert_array_equal(bits(found)[none], bits(params)[none])
    np.testing.assert_allclose(found, params + share[:, None] * step, rtol=1e-5, atol=1e-6)
    # A rounding of the surrogate may tip a row that is all but indifferent.
    expected = np.where(each.any(1), shares[each.argmax(1)], 0)
    assert (share != expected).sum() <= 5
    assert (gain > 0)[~none].mean() > 0.999
    assert all((expected == s).sum() > 100 for s in (*shares, 0))


def test_the_dot_is_the_sum_over_all_leaves():
    a, b = {"x": jnp.array([[1.0, 2.0]]), "y": jnp.array(3.0)}, {"x": jnp.array([[4.0, -5.0]]), "y": jnp.array(7.0)}
    assert dot(a, b) == 4 - 10 + 21
    with pytest.raises(ValueError):
        dot(a, {"x": a["x"]})
