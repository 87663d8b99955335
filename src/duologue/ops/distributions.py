"""Policies as distributions over actions. Each works elementwise over any leading axes `*batch`."""

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Shaped

MASKED_LOGIT = -1e9
"""Logit of a forbidden action. Its probability is exactly 0, because exp(-1e9) underflows. It is finite, so 0 · log 0
is 0 in values and in derivatives of every order, where -inf would give NaN."""


class AbstractDistribution(eqx.Module):
    """A distribution over actions: it samples, gives log-probabilities, and compares itself with another."""

    @abstractmethod
    def sample(self, key: Array) -> Array:
        """One draw for each element of the batch."""

    @abstractmethod
    def log_prob(self, x: Array) -> Float[Array, "*batch"]:
        """log p(x), a mass or a density."""

    @abstractmethod
    def entropy(self) -> Float[Array, "*batch"]:
        """H = -E[log p(x)], in nats."""

    @abstractmethod
    def kl(self, other: Any) -> Float[Array, "*batch"]:
        """KL(self ‖ other) = E_self[log p_self(x) - log p_other(x)], for an `other` of the same class."""

    @abstractmethod
    def mode(self) -> Array:
        """The most probable value."""

    # The next four matter only where actions are squashed raw actions. Elsewhere the raw action is the action itself.

    @property
    def base(self) -> "AbstractDistribution":
        """The distribution of raw actions."""
        return self

    def squash(self, raw: Array) -> Array:
        """Map a raw action to its action."""
        return raw

    def log_prob_raw(self, raw: Array) -> Float[Array, "*batch"]:
        """log p(squash(raw))."""
        return self.log_prob(raw)

    def to_half_ranges(self, log_prob: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
        """Convert a log-density of actions to that of actions in half-ranges of their box."""
        return log_prob


def tanh_log_slope(raw: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """log(1 − tanh² u) = 2 (log 2 − u − softplus(−2u)), in a numerically stable form."""
    return 2 * (math.log(2) - raw - jax.nn.softplus(-2 * raw))


def entry_at(x: Float[Array, "*batch n"], action: Int[Array, "*batch"]) -> Float[Array, "*batch"]:
    """x(a), the entry of x(·) `[*batch, n]` at an action `[*batch]`."""
    return jnp.take_along_axis(x, action[..., None], axis=-1)[..., 0]


class Categorical(AbstractDistribution):
    """pᵢ = exp(lᵢ) / Σⱼ exp(lⱼ) for logits l `[*batch, n]`, normalised or not. Samples are int32 `[*batch]`."""

    logits: Float[Array, "*batch n"]

    @staticmethod
    def with_mask(logits: Float[Array, "*batch n"], mask: Shaped[Array, "*trailing n"]) -> "Categorical":
        """Give actions where `mask` is 0 the probability 0, and their logits the gradient 0. Each mask must allow an
        action. The logits may have more leading axes than the mask."""
        return Categorical(jnp.where(jnp.broadcast_to(mask.astype(bool), logits.shape), logits, MASKED_LOGIT))

    @property
    def log_probs(self) -> Float[Array, "*batch n"]:
        return jax.nn.log_softmax(self.logits, axis=-1)

    @property
    def probs(self) -> Float[Array, "*batch n"]:
        return jax.nn.softmax(self.logits, axis=-1)

    def sample(self, key: Array) -> Int[Array, "*batch"]:
        return jax.random.categorical(key, self.logits).astype(jnp.int32)

    def log_prob(self, x: Int[Array, "*batch"]) -> Float[Array, "*batch"]:
        return entry_at(self.log_probs, x)

    def entropy(self) -> Float[Array, "*batch"]:
        """H = -Σᵢ pᵢ log pᵢ."""
        return -jnp.sum(self.probs * self.log_probs, axis=-1)

    def kl(self, other: "Categorical") -> Float[Array, "*batch"]:
        """Σᵢ pᵢ (log pᵢ - log qᵢ). If `other` forbids an action that `self` allows, its term is 1e9 · pᵢ, not ∞."""
        return jnp.sum(self.probs * (self.log_probs - other.log_probs), axis=-1)

    def mode(self) -> Int[Array, "*batch"]:
        return jnp.argmax(self.logits, axis=-1).astype(jnp.int32)


class MultiCategorical(AbstractDistribution):
    """Independent categoricals, p(x) = Πᵢ pᵢ(xᵢ). Their logits lie side by side, `[*batch, sum(nvec)]`.

    Samples are int32 `[*batch, k]`; log-probability, entropy and KL are sums over the `k = len(nvec)` components.
    """

    logits: Float[Array, "*batch n"]
    nvec: tuple[int, ...] = eqx.field(static=True)

    @staticmethod
    def with_mask(
        logits: Float[Array, "*batch n"], mask: Shaped[Array, "*batch n"], nvec: tuple[int, ...]
    ) -> "MultiCategorical":
        """`Categorical.with_mask` for each component. The masks lie side by side, as the logits do."""
        return MultiCategorical(Categorical.with_mask(logits, mask).logits, nvec)

    @property
    def components(self) -> tuple[Categorical, ...]:
        return tuple(map(Categorical, jnp.split(self.logits, np.cumsum(self.nvec)[:-1], axis=-1)))

    def sample(self, key: Array) -> Int[Array, "*batch k"]:
        keys = jax.random.split(key, len(self.nvec))
        return jnp.stack([c.sample(k) for c, k in zip(self.components, keys, strict=True)], axis=-1)

    def log_prob(self, x: Int[Array, "*batch k"]) -> Float[Array, "*batch"]:
        return sum_of([c.log_prob(x[..., i]) for i, c in enumerate(self.components)])

    def entropy(self) -> Float[Array, "*batch"]:
        return sum_of([c.entropy() for c in self.components])

    def kl(self, other: "MultiCategorical") -> Float[Array, "*batch"]:
        return sum_of([p.kl(q) for p, q in zip(self.components, other.components, strict=True)])

    def mode(self) -> Int[Array, "*batch k"]:
        return jnp.stack([c.mode() for c in self.components], axis=-1)


class Normal(AbstractDistribution):
    """Independent normals, p(x) = Πᵢ N(xᵢ; μᵢ, σᵢ²), with `loc` μ and `scale` σ `[*batch, d]`. Samples carry gradients.

    Log-probability, entropy and KL are sums over the last axis.
    """

    loc: Float[Array, "*batch d"]
    scale: Float[Array, "*batch d"]

    def sample(self, key: Array) -> Float[Array, "*batch d"]:
        """x = μ + σ ε,  ε ~ N(0, I)."""
        return self.loc + self.scale * jax.random.normal(key, self.loc.shape, self.loc.dtype)

    def log_prob(self, x: Float[Array, "*batch d"]) -> Float[Array, "*batch"]:
        """Σᵢ -½ ((xᵢ - μᵢ) / σᵢ)² - log σᵢ - ½ log 2π."""
        z = (x - self.loc) / self.scale
        return jnp.sum(-0.5 * z**2 - jnp.log(self.scale) - 0.5 * math.log(2 * math.pi), axis=-1)

    def entropy(self) -> Float[Array, "*batch"]:
        """Σᵢ log σᵢ + ½ log 2πe."""
        return jnp.sum(jnp.log(self.scale) + 0.5 * math.log(2 * math.pi * math.e), axis=-1)

    def kl(self, other: "Normal") -> Float[Array, "*batch"]:
        """Σᵢ log(σ'ᵢ / σᵢ) + (σᵢ² + (μᵢ - μ'ᵢ)²) / (2 σ'ᵢ²) - ½, primes for `other`."""
        z = (self.loc - other.loc) / other.scale
        ratio = self.scale / other.scale
        return jnp.sum(-jnp.log(ratio) + 0.5 * (ratio**2 + z**2 - 1), axis=-1)

    def mode(self) -> Float[Array, "*batch d"]:
        return self.loc


class Bounds(NamedTuple):
    """Low and high of a bounded box, `[d]` each, or `[*batch, d]` after `broadcast`."""

    low: Float[Array, "*batch d"]
    high: Float[Array, "*batch d"]

    @property
    def centre(self) -> Float[Array, "*batch d"]:
        """c = ½(high + low)."""
        return 0.5 * (self.high + self.low)

    @property
    def half_range(self) -> Float[Array, "*batch d"]:
        """h = ½(high − low)."""
        return 0.5 * (self.high - self.low)

    def broadcast(self, action: Float[Array, "*batch d"]) -> "Bounds":
        """The bounds repeated for every action of a batch, because this library forbids JAX's promotion of ranks."""
        return Bounds(*(jnp.broadcast_to(bound, action.shape) for bound in self))

    def clip(self, action: Float[Array, "*batch d"]) -> Float[Array, "*batch d"]:
        """Clip actions to the box."""
        return jnp.clip(action, *self.broadcast(action))


class TanhNormal(eqx.Module):
    """A normal squashed into a box: a = c + h tanh(u),  u ~ N(loc, scale²),  c = ½(high + low),  h = ½(high - low).

    log p(a) = log N(u) - Σᵢ log(1 - tanh² uᵢ) - Σᵢ log hᵢ   (Haarnoja et al. 2018, arXiv:1812.05905, appendix C)

    Bounds are `[d]`, the same for the whole batch. `u` is the *raw* action. Once tanh has rounded to 1, atanh cannot
    recover `u`, so code that has `u` keeps it. The entropy has no closed form, so this class has no `entropy` and is no
    `AbstractDistribution`. Minus the log-probability of a sample is an unbiased estimate of the entropy.
    """

    loc: Float[Array, "*batch d"]
    scale: Float[Array, "*batch d"]
    low: Float[Array, " d"]
    high: Float[Array, " d"]

    @property
    def base(self) -> Normal:
        """The distribution of the raw action u."""
        return Normal(self.loc, self.scale)

    @property
    def bounds(self) -> Bounds:
        return Bounds(self.low, self.high).broadcast(self.loc)

    def to_half_ranges(self, log_prob: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
        """Add Σᵢ log hᵢ. The result is the log-density of actions in half-ranges of the box, so units do not matter."""
        return log_prob + jnp.sum(jnp.log(self.bounds.half_range), axis=-1)

    def squash(self, raw: Float[Array, "*batch d"]) -> Float[Array, "*batch d"]:
        """a = c + h tanh(u)."""
        return self.bounds.centre + self.bounds.half_range * jnp.tanh(raw)

    def sample_and_log_prob(self, key: Array) -> tuple[Float[Array, "*batch d"], Float[Array, "*batch"]]:
        """A draw and its log-density, exact at any distance from the middle. Both carry gradients."""
        raw = self.base.sample(key)
        return self.squash(raw), self.log_prob_raw(raw)

    def sample(self, key: Array) -> Float[Array, "*batch d"]:
        return self.squash(self.base.sample(key))

    def log_prob_raw(self, raw: Float[Array, "*batch d"]) -> Float[Array, "*batch"]:
        """The log-density of the action `squash(raw)`."""
        slope = tanh_log_slope(raw) + jnp.log(self.bounds.half_range)
        return self.base.log_prob(raw) - jnp.sum(slope, axis=-1)

    def log_prob(self, action: Float[Array, "*batch d"]) -> Float[Array, "*batch"]:
        """The log-density of an action whose u is unknown: atanh gives u, after a clip to 1e-6 half-ranges inside the
        bounds."""
        unit = (action - self.bounds.centre) / self.bounds.half_range
        squashed = jnp.clip(unit, -1 + 1e-6, 1 - 1e-6)
        return self.log_prob_raw(jnp.arctanh(squashed))

    def kl(self, other: "TanhNormal") -> Float[Array, "*batch"]:
        """KL(self ‖ other) for equal bounds: the KL of the normals, because a bijection does not change it."""
        return self.base.kl(other.base)

    def mode(self) -> Float[Array, "*batch d"]:
        """The squashed mode of u: the deterministic action of the papers, and the median of the action."""
        return self.squash(self.loc)


def draws(sample: Callable[[Array], Any], count: int, *, key: Array) -> Any:
    """`count` independent draws of `sample(key)`, along a new first axis."""
    return jax.vmap(sample)(jax.random.split(key, count))


def sum_of(terms: list[Float[Array, "*batch"]]) -> Float[Array, "*batch"]:
    """Σᵢ termsᵢ, element by element."""
    return jnp.sum(jnp.stack(terms), axis=0)
