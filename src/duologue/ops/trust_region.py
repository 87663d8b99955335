"""Limits on the step of a policy: projected gradients (ACER), and the natural step with its line search (TRPO)."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from duologue.types import PyTree


def project(
    gradient: Float[Array, "*batch n"], direction: Float[Array, "*batch n"], delta: float
) -> Float[Array, "*batch n"]:
    """The direction z nearest to an ascent direction g that raises the KL divergence by δ at most, to first order, in
    each sample (Wang et al., 2017, eq. 12).

    z* = argmin ½‖g − z‖² subject to kᵀz ≤ δ  =  g − max(0, (kᵀg − δ)/‖k‖²) k,   k = ∇_φ KL(f(·|φ_avg) ‖ f(·|φ))
    """
    excess = jnp.maximum(0.0, jnp.sum(direction * gradient, axis=-1, keepdims=True) - delta)
    norm = jnp.sum(direction**2, axis=-1, keepdims=True)
    # Where k = 0 there is no excess, and 0/0 would be NaN.
    return gradient - excess / jnp.where(norm > 0, norm, 1.0) * direction


def fisher_product(kl: Callable[[PyTree], Float[Array, ""]], params: PyTree, vector: PyTree) -> PyTree:
    """F v, F the Hessian of θ ↦ `kl(θ)` = E[KL(π_old ‖ π_θ)] at `params`: at θ_old, the Fisher information. It is
    differentiated forward over reverse, so F is never built."""
    return jax.jvp(jax.grad(kl), (params,), (vector,))[1]


def natural_step(
    kl: Callable[[PyTree], Float[Array, ""]], params: PyTree, gradient: PyTree,
    *, delta: float, damping: float, iterations: int,
) -> PyTree:  # fmt: skip
    """The ascent step of length δ in KL, damping counted in, along the natural gradient (Schulman et al., 2015,
    appendix C).

    Δ = √(2δ / xᵀ(F + κI)x) x,   x ≈ (F + κI)⁻¹g by `iterations` of conjugate gradient, κ = `damping`
    """

    def product(vector: PyTree) -> PyTree:
        return jax.tree.map(lambda f, v: f + damping * v, fisher_product(kl, params, vector), vector)

    x, _ = jax.scipy.sparse.linalg.cg(product, gradient, tol=1e-10, maxiter=iterations)
    curvature = dot(x, product(x))
    # Without a gradient there is no step, nor if the search broke down.
    length = jnp.sqrt(2 * delta / curvature)
    return jax.tree.map(lambda x: jnp.where(curvature > 0, length * x, 0.0), x)


def line_search(
    params: PyTree, step: PyTree, accept: Callable[[PyTree], Bool[Array, ""]], *, shrink: float, tries: int
) -> tuple[PyTree, Float[Array, ""]]:
    """The first of θ + βʲΔ, j = 0 … `tries` − 1, that `accept` takes, and its βʲ; if it takes none, θ itself and 0."""

    def at(share: Array) -> PyTree:
        return jax.tree.map(lambda x, d: jnp.where(share > 0, x + share * d, x), params, step)

    def refused(now: tuple[Array, Array]) -> Array:
        j, share = now
        return (j < tries) & ~accept(at(share))

    def shorter(now: tuple[Array, Array]) -> tuple[Array, Array]:
        return now[0] + 1, now[1] * shrink

    j, share = jax.lax.while_loop(refused, shorter, (jnp.int32(0), jnp.float32(1.0)))
    share = jnp.where(j < tries, share, 0.0)
    return at(share), share


def dot(a: PyTree, b: PyTree) -> Float[Array, ""]:
    """Σ aᵢ bᵢ over all leaves."""
    return jnp.sum(jnp.stack([jnp.sum(x * y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)]))
