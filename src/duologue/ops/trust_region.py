"""Limits on the step of a policy: projected gradients (ACER), and the natural step with its line search (TRPO)."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from duologue.types import PyTree


def project(
    gradient: Float[Array, "*batch n"], direction: Float[Array, "*batch n"], delta: float
) -> Float[Array, "*batch n"]:
    """Project an ascent direction g: the nearest z that raises the KL divergence by at most δ to first order, in each
    sample (Wang et al., 2017, eq. 12).

    z* = argmin ½‖g − z‖² subject to kᵀz ≤ δ  =  g − max(0, (kᵀg − δ)/‖k‖²) k,   k = ∇_φ KL(f(·|φ_avg) ‖ f(·|φ))
    """
    excess = jnp.maximum(0.0, jnp.sum(direction * gradient, axis=-1, keepdims=True) - delta)
    norm = jnp.sum(direction**2, axis=-1, keepdims=True)
    # Where k = 0 the excess is 0; a norm of 1 avoids 0/0, which is NaN.
    return gradient - excess / jnp.where(norm > 0, norm, 1.0) * direction


def fisher_product(kl: Callable[[PyTree], Float[Array, ""]], params: PyTree, vector: PyTree) -> PyTree:
    """F v, where F is the Hessian of θ ↦ `kl(θ)` = E[KL(π_old ‖ π_θ)] at `params`. At θ_old, F is the Fisher
    information. Forward-over-reverse differentiation gives F v without the matrix F."""
    return jax.jvp(jax.grad(kl), (params,), (vector,))[1]


def natural_step(
    kl: Callable[[PyTree], Float[Array, ""]], params: PyTree, gradient: PyTree,
    *, delta: float, damping: float, iterations: int,
) -> PyTree:  # fmt: skip
    """The ascent step along the natural gradient, of length δ in KL with the damping included (Schulman et al., 2015,
    appendix C).

    Δ = √(2δ / xᵀ(F + κI)x) x,   x ≈ (F + κI)⁻¹g by `iterations` of conjugate gradient, κ = `damping`
    """

    def product(vector: PyTree) -> PyTree:
        return jax.tree.map(lambda f, v: f + damping * v, fisher_product(kl, params, vector), vector)

    x, _ = jax.scipy.sparse.linalg.cg(product, gradient, tol=1e-10, maxiter=iterations)
    curvature = dot(x, product(x))
    # The step is 0 if the gradient is 0, or if conjugate gradient failed.
    length = jnp.sqrt(2 * delta / curvature)
    return jax.tree.map(lambda x: jnp.where(curvature > 0, length * x, 0.0), x)


def line_search(
    params: PyTree, step: PyTree, accept: Callable[[PyTree], Bool[Array, ""]], *, shrink: float, tries: int
) -> tuple[PyTree, Float[Array, ""]]:
    """The first of θ + βʲΔ, j = 0 … `tries` − 1, for which `accept` is true, and its βʲ; θ and 0 if there is none."""

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
