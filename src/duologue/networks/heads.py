"""Heads, from network outputs to policies: one for each kind of action space.

A head reads `size` outputs and returns a distribution over actions in environment units, or the action itself.
"""

from abc import abstractmethod

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from duologue.errors import ConfigError
from duologue.ops.distributions import AbstractDistribution, Bounds, Categorical, MultiCategorical, Normal, TanhNormal
from duologue.types import ACTION_MASK, Box, Discrete, MultiDiscrete, Obs, Space, box_sides, has_mask

LOG_STD_RANGE = (-20.0, 2.0)
"""Log σ of a squashed normal is clipped to this (as in Haarnoja's code, Spinning Up, Stable-Baselines3)."""

LARGEST_BOUND, LEAST_WIDTH = 1e37, 1e-37
"""Largest bound of an action, and smallest distance of two bounds: float32 holds sums and halves of such numbers."""


class AbstractHead(eqx.Module):
    """Turns `size` network outputs into a distribution over actions in environment units."""

    @property
    @abstractmethod
    def size(self) -> int:
        """Number of network outputs that it reads."""

    @abstractmethod
    def __call__(self, outputs: Float[Array, "*batch size"], obs: Obs) -> AbstractDistribution:
        """The policy. A head reads only the action mask of `obs`."""


class CategoricalHead(AbstractHead):
    """Logits, masked if the observation holds an action mask."""

    n: int = eqx.field(static=True)

    @property
    def size(self) -> int:
        return self.n

    def __call__(self, outputs: Float[Array, "*batch size"], obs: Obs) -> Categorical:
        return Categorical.with_mask(outputs, obs[ACTION_MASK]) if has_mask(obs) else Categorical(outputs)


class MultiCategoricalHead(AbstractHead):
    """Logits of all components side by side. The action mask of an observation has the same order, if there is one."""

    nvec: tuple[int, ...] = eqx.field(static=True)

    @property
    def size(self) -> int:
        return sum(self.nvec)

    def __call__(self, outputs: Float[Array, "*batch size"], obs: Obs) -> MultiCategorical:
        if has_mask(obs):
            return MultiCategorical.with_mask(outputs, obs[ACTION_MASK], self.nvec)
        return MultiCategorical(outputs, self.nvec)


class NormalHead(AbstractHead):
    """μ = c + h · output,  σ = h · exp(log_std), with c and h of `scaled_normal` and one `log_std` for all states."""

    log_std: Float[Array, " d"]
    space: Box = eqx.field(static=True)

    @property
    def size(self) -> int:
        return self.space.size

    def __call__(self, outputs: Float[Array, "*batch size"], obs: Obs) -> Normal:
        return scaled_normal(self.space, outputs, jnp.broadcast_to(self.log_std, outputs.shape))


class StateDependentNormalHead(AbstractHead):
    """As `NormalHead`, with log_std = initial_log_std + the second half of the outputs."""

    initial_log_std: float = eqx.field(static=True)
    space: Box = eqx.field(static=True)

    @property
    def size(self) -> int:
        return 2 * self.space.size

    def __call__(self, outputs: Float[Array, "*batch size"], obs: Obs) -> Normal:
        loc, log_std = jnp.split(outputs, 2, axis=-1)
        return scaled_normal(self.space, loc, self.initial_log_std + log_std)


def scaled_normal(space: Box, loc: Float[Array, "*batch d"], log_std: Float[Array, "*batch d"]) -> Normal:
    """A normal in units of the box: 0 is the centre c of a component, ±1 are its bounds, h away.

    A component without one of its bounds has h = 1, and c is the point of the component that is nearest to 0.
    """
    scale = jnp.exp(log_std)
    if space.low is None and space.high is None:
        return Normal(loc, scale)
    low, high = box_sides(space)
    finite = np.isfinite(low) & np.isfinite(high)
    with np.errstate(invalid="ignore"):  # of infinite sides, which `where` leaves out
        centre = np.where(finite, 0.5 * (high + low), np.clip(np.float32(0), low, high))
        half_range = np.where(finite, 0.5 * (high - low), np.float32(1))
    centre, half_range = (jnp.broadcast_to(jnp.asarray(each), loc.shape) for each in (centre, half_range))
    return Normal(centre + half_range * loc, half_range * scale)


class SquashedNormalHead(eqx.Module):
    """A normal behind tanh: a = c + h tanh(u), u ~ N(loc, σ²), log σ clipped to [−20, 2].

    The first half of the outputs is loc, the second half is log σ − `initial_log_std`. If the head has its own
    `log_std`, which is the same for all states, all outputs are loc.
    """

    log_std: Float[Array, " d"] | None
    initial_log_std: float = eqx.field(static=True)
    space: Box = eqx.field(static=True)

    @property
    def size(self) -> int:
        return self.space.size * (2 if self.log_std is None else 1)

    def __call__(self, outputs: Float[Array, "*batch size"], obs: Obs) -> TanhNormal:
        if self.log_std is None:
            loc, log_std = jnp.split(outputs, 2, axis=-1)
            log_std = self.initial_log_std + log_std
        else:
            loc, log_std = outputs, jnp.broadcast_to(self.log_std, outputs.shape)
        return TanhNormal(loc, jnp.exp(jnp.clip(log_std, *LOG_STD_RANGE)), *box_bounds(self.space))


class TanhHead(eqx.Module):
    """The action itself, without noise: a = c + h tanh(outputs)."""

    space: Box = eqx.field(static=True)

    @property
    def size(self) -> int:
        return self.space.size

    def __call__(self, outputs: Float[Array, "*batch size"], obs: Obs) -> Float[Array, "*batch size"]:
        return from_unit(self.space, jnp.tanh(outputs))


def box_bounds(space: Box) -> Bounds:
    """Low and high of a bounded box, `[d]` each."""
    return Bounds(*map(jnp.asarray, box_sides(space)))


def from_unit(space: Box, unit: Float[Array, "*batch d"]) -> Float[Array, "*batch d"]:
    """Convert actions in [−1, 1] to environment units."""
    box = box_bounds(space).broadcast(unit)
    return box.centre + box.half_range * unit


def to_unit(space: Box, action: Float[Array, "*batch d"]) -> Float[Array, "*batch d"]:
    """Convert actions in environment units to [−1, 1]."""
    low, high = box_bounds(space).broadcast(action)
    return (2 * action - high - low) / (high - low)


def check_box_width(space: Box) -> None:
    """Raise `ConfigError` for a box with a component that can have only one value, or with bounds so large or so close
    that float32 cannot compute with them."""
    for i, (low, high) in enumerate(zip(*(side.tolist() for side in box_sides(space)), strict=True)):
        which = f"Action space {space} is not supported: component {i} has low = {low:g} and high = {high:g}"
        if not low < high:
            raise ConfigError(f"{which}, and each component must have low < high.")
        if high - low < LEAST_WIDTH or any(LARGEST_BOUND < abs(side) < np.inf for side in (low, high)):
            raise ConfigError(
                f"{which}: finite bounds must be at most {LARGEST_BOUND:g}, and at least {LEAST_WIDTH:g} apart. Use "
                "other units, gymnasium.wrappers.RescaleAction, or an infinite bound."
            )


def require_bounded_box(space: Space) -> Box:
    """`space` itself. Raises `ConfigError` unless it is a real Box with bounds for every component."""
    match space:
        case Box(dtype=dtype) if dtype.startswith("float") and space.bounded:
            check_box_width(space)
            return space
        case Box(dtype=dtype) if dtype.startswith("float") and space.size:
            low, high = (np.isfinite(side) for side in box_sides(space))
            missing = [name for name, side in (("low", low), ("high", high)) if not side[np.argmin(low & high)]]
            raise ConfigError(
                f"Action space {space} is not supported: it must be a bounded real Box, and component "
                f"{np.argmin(low & high)} has no bound {' and no bound '.join(missing)}. Give bounds with "
                "gymnasium.wrappers.RescaleAction or TransformAction."
            )
        case Discrete() | MultiDiscrete():
            raise ConfigError(
                f"Action space {space} is not supported: it must be a bounded real Box, because this "
                "algorithm uses the gradient of Q with respect to the action. For discrete actions use SACDiscrete, "
                "ACER, PPO or A2C."
            )
    raise ConfigError(f"Action space {space} is not supported: it must be a bounded real Box.")


def require_discrete(space: Space) -> Discrete:
    """`space` itself. Raises `ConfigError` unless it is Discrete."""
    if not isinstance(space, Discrete):
        raise ConfigError(
            f"Action space {space} is not supported: it must be Discrete, because this algorithm sums over actions. "
            "For a bounded Box use SAC, ACERContinuous or PPO; for all other spaces A2C or PPO."
        )
    return space


def largest_entropy(obs: Obs, n: int) -> Float[Array, ""]:
    """E[log |A(s)|], the mean entropy of the uniform policy over A(s), the actions that the mask allows."""
    if not has_mask(obs):
        return jnp.log(jnp.asarray(n, jnp.float32))
    allowed = jnp.maximum(jnp.sum(obs[ACTION_MASK] > 0, axis=-1), 1)  # a terminal state may allow no action
    return jnp.mean(jnp.log(allowed.astype(jnp.float32)))


def policy_head(space: Space, *, state_dependent_std: bool, initial_log_std: float) -> AbstractHead:
    """Head of an action space. Raises `ConfigError` unless it is Discrete, MultiDiscrete or a real Box."""
    match space:
        case Discrete(n):
            return CategoricalHead(n)
        case MultiDiscrete(nvec):
            return MultiCategoricalHead(nvec)
        case Box(dtype=dtype) if dtype.startswith("float") and space.size:
            check_box_width(space)
            if state_dependent_std:
                return StateDependentNormalHead(initial_log_std, space)
            return NormalHead(jnp.full(space.size, initial_log_std, jnp.float32), space)
    raise ConfigError(
        f"Action space {space} is not supported: it must be Discrete, MultiDiscrete or a real Box. "
        "Wrap the environment in gymnasium.wrappers.TransformAction to convert its actions."
    )
