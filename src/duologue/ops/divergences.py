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
    """MMD² = mean k(x, x') + mean k(y, y') − 2 mean k(x, y), over all pairs, including x = x' and y = y' (the biased
    estimate; Gretton et al., 2012, eq. 5). After rounding, the result may be slightly below 0."""

    def mean(x: Array, y: Array) -> Array:
        return jnp.mean(KERNELS[kernel](x[:, None] - y[None], sigma), axis=(0, 1))

    return mean(x, x) + mean(y, y) - 2 * mean(x, y)


class AbstractDivergence(Configurable):
    """The divergence that a constraint on a policy limits."""

    @abstractmethod
    def __call__(self, data: RawActions, policy: Normal, samples: RawActions) -> Float[Array, "*batch"]:
        """The divergence in each state between `data` and `policy`. `data` are raw actions like those of the recording;
        `samples` are draws of `policy`, a distribution over raw actions."""


class MMD(AbstractDivergence):
    """√(max(MMD², 0) + 1e-6): support matching (Kumar et al., 2019, §5.1). The constant keeps the gradient of the root
    finite at MMD² = 0. Identical samples give 1e-3."""

    kernel: Literal["laplacian", "gaussian"] = "gaussian"
    """Kernel k: Laplacian, exp(−‖·‖₁/2σ), or Gaussian, exp(−‖·‖²/2σ)."""
    sigma: Positive = 20.0
    """Bandwidth of the kernel in raw actions, not squared (σ)."""

    def __call__(self, data: RawActions, policy: Normal, samples: RawActions) -> Float[Array, "*batch"]:
        squared = mmd_squared(data, samples, kernel=self.kernel, sigma=self.sigma)
        return jnp.sqrt(jnp.maximum(squared, 0.0) + 1e-6)


class KL(AbstractDivergence):
    """−E[log π(a|s)] over actions a = tanh(u), in half-ranges, that resemble the data. This is KL(data ‖ π) plus the
    entropy of the data, which does not depend on π. Distribution matching, for comparison with MMD. Its threshold may
    be negative."""

    def __call__(self, data: RawActions, policy: Normal, samples: RawActions) -> Float[Array, "*batch"]:
        log_prob = jax.vmap(policy.log_prob)(data) - jnp.sum(tanh_log_slope(data), axis=-1)
        return -jnp.mean(log_prob, axis=0)
