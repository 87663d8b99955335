"""Running moments for normalisation (JAX), and statistics of scores for reports (NumPy)."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

SPREAD, ROUNDING = 1e-4, 1e-7
"""Smallest standard deviation of a column that varies: a share of its mean, and an absolute size. Numbers of size 1
that float32 computes are off by 1e-7, so a smaller spread around 0 is noise. With ε = 1e-8 under the root,
normalisation counts a deviation of 1e-4 as small in a column of size 1. `SPREAD` says the same for every size."""


class RunningMoments(eqx.Module):
    """Count, mean and sum of squared deviations of a stream of arrays of one shape (Welford; merged as in
    Chan et al., 1983)."""

    count: Int[Array, ""]
    mean: Float[Array, "*shape"]
    m2: Float[Array, "*shape"]

    @classmethod
    def empty(cls, shape: tuple[int, ...] = ()) -> "RunningMoments":
        """The moments of an empty stream."""
        # Two separate arrays: a donated buffer may occur only once in a tree.
        return cls(jnp.zeros((), jnp.int32), jnp.zeros(shape), jnp.zeros(shape))

    @classmethod
    def from_batch(cls, batch: Float[Array, " N *shape"]) -> "RunningMoments":
        """The moments of a batch, along its first axis, in float32: float16 ends at 65,504, a deviation of 256."""
        batch = batch.astype(jnp.float32)
        mean = batch.mean(0)
        deviation = batch - jnp.broadcast_to(mean, batch.shape)
        return cls(jnp.asarray(batch.shape[0], jnp.int32), mean, (deviation**2).sum(0))

    def merge(self, other: "RunningMoments") -> "RunningMoments":
        """The moments of both streams together. An empty stream changes nothing.

        n = nᵃ + nᵇ,  δ = μᵇ − μᵃ,  μ = μᵃ + δ nᵇ/n,  M₂ = M₂ᵃ + M₂ᵇ + δ² nᵃnᵇ/n
        """
        count = self.count + other.count
        own, others = self.count.astype(jnp.float32), other.count.astype(jnp.float32)
        share = others / jnp.maximum(own + others, 1.0)
        delta = other.mean - self.mean
        return RunningMoments(count, self.mean + delta * share, self.m2 + other.m2 + delta**2 * (own * share))

    @property
    def variance(self) -> Float[Array, "*shape"]:
        """The population variance; 1 while the stream is empty."""
        count = self.count.astype(jnp.float32)
        return jnp.where(self.count > 0, self.m2 / jnp.maximum(count, 1.0), 1.0)

    def or_else(self, other: "RunningMoments") -> "RunningMoments":
        """These moments; `other` while this stream is empty."""
        return jax.tree.map(lambda own, others: jnp.where(self.count > 0, own, others), self, other)

    def scale(self, *, eps: float = 1e-8) -> Float[Array, "*shape"]:
        """1/√(σ² + ε) for a column that varies; 1 for a constant column, where σ² ≤ (10⁻⁴ μ)² + (10⁻⁷)².

        Without this limit, the first small change of a constant column would become 1/√ε = 10,000 times as large.
        """
        varies = self.variance > (SPREAD * self.mean) ** 2 + ROUNDING**2
        return jnp.where(varies, jax.lax.rsqrt(self.variance + eps), 1.0)

    def normalize(self, x: Float[Array, "*batch_and_shape"], *, clip: float, eps: float = 1e-8) -> Array:
        """(x − μ) · `scale`, clipped to ±clip, for `x` with any leading axes, in float32."""
        x = x.astype(jnp.float32)
        mean, scale = (jnp.broadcast_to(a, x.shape) for a in (self.mean, self.scale(eps=eps)))
        return jnp.clip((x - mean) * scale, -clip, clip)


def explained_variance(value: Float[Array, "*batch"], target: Float[Array, "*batch"]) -> Float[Array, ""]:
    """1 − Var[G − V]/Var[G]: 1 for a perfect critic, 0 for a constant, negative for a critic worse than a constant."""
    variance = jnp.var(target)
    return 1 - jnp.var(target - value) / jnp.where(variance > 0, variance, 1.0)


def standardize(advantage: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    """(Â − mean)/(σ + 1e-8), with the mean and the population σ of all values."""
    return (advantage - jnp.mean(advantage)) / (jnp.std(advantage) + 1e-8)


def iqm(scores: np.ndarray, axis: int | None = None) -> np.ndarray | float:
    """The interquartile mean: the mean of the middle half, robust and less noisy than the median (Agarwal et al.,
    2021).

    The quarter cut from each end is rounded down to whole scores, as `scipy.stats.trim_mean(scores, 0.25)` does.
    """
    scores = np.asarray(scores, np.float64)
    ordered = np.sort(scores.ravel() if axis is None else np.moveaxis(scores, axis, 0), axis=0)
    cut = len(ordered) // 4
    return ordered[cut : len(ordered) - cut].mean(0)


def bootstrap_interval(
    scores: np.ndarray,
    *,
    statistic: Callable[..., np.ndarray | float] = iqm,
    level: float = 0.95,
    samples: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """`(low, high)`: the percentile bootstrap interval of `statistic` over the first axis of `scores`.

    `scores` is `[n]`, one score for each run or episode, or `[n, tasks]`. With tasks, each column is resampled alone
    (the stratified bootstrap of Agarwal et al., 2021), and the statistic reads all resampled scores together.
    """
    scores = np.asarray(scores, np.float64)
    generator = np.random.default_rng(seed)
    columns = scores.reshape(len(scores), -1)
    block = max(1, 2**22 // columns.size)  # number of resamples at a time, to limit the memory
    found = []
    for first in range(0, samples, block):
        picks = generator.integers(len(columns), size=(min(block, samples - first), *columns.shape))
        resampled = np.take_along_axis(columns[None], picks, axis=1).reshape(len(picks), -1)
        found.append(statistic(resampled, axis=1))
    low, high = np.quantile(np.concatenate(found), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
