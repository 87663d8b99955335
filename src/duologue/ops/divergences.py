"""Divergences of two policies from their samples: the maximum mean discrepancy, and a likelihood in place of a KL.

In each state, `n` raw actions `[n, *batch, d]` of one policy are compared with those of the other.
"""

from abc import abstractmethod
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from duologue.fields import Configurable, Positive
from duologue.ops.distributions import Normal, tanh_log_slope

RawActions = Float[Array, "n *batch d"]


def laplacian(difference: Float[Array, "*batch d"], sigma: float) -> Float[Array, "*batch"]:
    """k(x, y) = exp(−‖x − y‖₁ / 2σ)."""
    return jnp.exp(-jnp.sum(jnp.abs(difference), axis=-1) / (2 * sigma))


def gaussian(difference: Float[Array, "*batch d"], sigma: float) -> Float[Array, "*batch"]:
    """k(x, y) = exp(−‖x − y‖² / 2σ): σ is not squared, as in BEAR's code; its article writes 2σ²."""
    return jnp.exp(-jnp.sum(difference**2, axis=-1) / (2 * sigma))


KERNELS = {"laplacian": laplacian, "gaussian": gaussian}


def mmd_squared(
    x: RawActions, y: Float[Array, "m *batch d"], *, kernel: Literal["laplacian", "gaussian"], sigma: float
) -> Float[Array, "*batch"]:
    """MMD² = mean k(x, x') + mean k(y, y') − 2 mean k(x, y), over all pairs, each with itself too (the biased estimate;
    Gretton et al., 2012, eq. 5). Rounding may leave it a little below 0."""

    def mean(x: Array, y: Array) -> Array:
        return jnp.mean(KERNELS[kernel](x[:, None] - y[None], sigma), axis=(0, 1))

    return mean(x, x) + mean(y, y) - 2 * mean(x, y)


class AbstractDivergence(Configurable):
    """The divergence that a constraint on a policy limits."""

    @abstractmethod
    def __call__(self, data: RawActions, policy: Normal, samples: RawActions) -> Float[Array, "*batch"]:
        """The divergence in each state, between raw actions that resemble the `data` and the policy over raw actions,
        whose draws are `samples`."""


class MMD(AbstractDivergence):
    """√(max(MMD², 0) + 1e-6): support matching (Kumar et al., 2019, §5.1). The constant guards the root, whose slope
    at 0 is infinite; identical samples give 1e-3."""

    kernel: Literal["laplacian", "gaussian"] = "gaussian"
    """Kernel k: Laplacian, exp(−‖·‖₁/2σ), or Gaussian, exp(−‖·‖²/2σ)."""
    sigma: Positive = 20.0
    """Bandwidth of the kernel in raw actions, not squared (σ)."""

    def __call__(self, data: RawActions, policy: Normal, samples: RawActions) -> Float[Array, "*batch"]:
        squared = mmd_squared(data, samples, kernel=self.kernel, sigma=self.sigma)
        return jnp.sqrt(jnp.maximum(squared, 0.0) + 1e-6)


class KL(AbstractDivergence):
    """−E[log π(a|s)] of actions a = tanh(u), in half-ranges, that resemble the data: KL(data ‖ π) up to the entropy of
    the data, which no policy changes. Distribution matching, for comparison. Its threshold may be negative."""

    def __call__(self, data: RawActions, policy: Normal, samples: RawActions) -> Float[Array, "*batch"]:
        log_prob = jax.vmap(policy.log_prob)(data) - jnp.sum(tanh_log_slope(data), axis=-1)
        return -jnp.mean(log_prob, axis=0)
