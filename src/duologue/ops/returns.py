"""Returns and advantages. Each function is one equation for one trajectory, without networks.

Index `t` runs along the only axis, `[T]`; for more axes, apply `jax.vmap` or `vmap_envs`. `next_value[t]` is V(s'ₜ) of
the true successor. All functions distinguish two facts of a step:

* *terminated*: the successor has the value 0, so γ(1 − termₜ) multiplies V(s'ₜ);
* *cut* = terminated or truncated: the next row belongs to another episode, so no recursion may cross it. A truncated
  step is cut and still bootstraps from its successor. Where both flags are set, terminated wins.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from duologue.types import Obs, Transition

Rewards = Float[Array, " T"]
Flags = Bool[Array, " T"]
Scalar = float | Float[Array, ""]


def td_target(
    reward: Float[Array, "*batch"],
    terminated: Bool[Array, "*batch"],
    next_value: Float[Array, "*batch"],
    discount: Scalar,
) -> Float[Array, "*batch"]:
    """yₜ = rₜ + γ(1 − termₜ) V(s'ₜ). Only this function combines termination and discount."""
    # `where` instead of a product, because the value of a terminal successor may be NaN.
    return reward + discount * jnp.where(terminated, 0.0, next_value)


def gae(
    reward: Rewards, value: Rewards, next_value: Rewards, terminated: Flags, truncated: Flags,
    *, discount: Scalar, lambda_: Scalar,
) -> Rewards:  # fmt: skip
    """Generalised advantage estimation (Schulman et al., 2016, eq. 16), cut at episode ends.

    Âₜ = δₜ + γλ(1 − cutₜ) Âₜ₊₁,   δₜ = rₜ + γ(1 − termₜ) V(s'ₜ) − V(sₜ),   Â_T = 0
    """
    delta = td_target(reward, terminated, next_value, discount) - value
    decay = jnp.where(terminated | truncated, 0.0, discount * lambda_)
    return _accumulate(delta, decay)


def lambda_return(
    reward: Rewards, next_value: Rewards, terminated: Flags, truncated: Flags, *, discount: Scalar, lambda_: Scalar
) -> Rewards:
    """The λ-return (Sutton and Barto, 2018, §12.1), cut at episode ends; λ = 0 is one-step TD, λ = 1 bootstraps at the
    cut only.

    Gₜ = rₜ + γ(1 − termₜ) [(1 − λₜ) V(s'ₜ) + λₜ Gₜ₊₁],   λₜ = λ(1 − cutₜ),   G_T = V(s'_{T−1})
    """
    mix = jnp.where(terminated | truncated, 0.0, lambda_)

    def step(after: Array, now: tuple[Array, ...]) -> Array:
        reward_t, next_value_t, terminated_t, mix_t = now
        return td_target(reward_t, terminated_t, (1 - mix_t) * next_value_t + mix_t * after, discount)

    return _scan_backward(step, next_value[-1], (reward, next_value, terminated, mix))


def n_step(
    reward: Rewards, next_value: Rewards, terminated: Flags, truncated: Flags, *, discount: Scalar, n: int
) -> Rewards:
    """The n-step return (Sutton and Barto, 2018, eq. 7.1); fewer steps where the episode is cut or the trajectory ends.

    G⁽ⁿ⁾ₜ = rₜ + γ(1 − termₜ) G⁽ⁿ⁻¹⁾ₜ₊₁,   and V(s'ₜ) in place of G⁽ⁿ⁻¹⁾ₜ₊₁ where n = 1, at a cut, and at t = T − 1
    """
    target = td_target(reward, terminated, next_value, discount)
    cut = (terminated | truncated).at[-1].set(True)
    for _ in range(min(n, len(reward)) - 1):
        target = td_target(reward, terminated, jnp.where(cut, next_value, jnp.roll(target, -1)), discount)
    return target


def general_off_policy_returns(
    reward: Rewards, q: Rewards, next_value: Rewards, trace: Rewards, terminated: Flags, truncated: Flags,
    *, discount: Scalar,
) -> Rewards:  # fmt: skip
    """The general off-policy return of action values (Munos et al., 2016, eq. 3), cut at episode ends.

    Gₜ = rₜ + γ(1 − termₜ) [V(s'ₜ) + cₜ₊₁(Gₜ₊₁ − Q(sₜ₊₁, aₜ₊₁))],   cₜ₊₁ = 0 at a cut and at t = T − 1

    `q[t]` is Q(sₜ, aₜ), `trace[t]` is cₜ, `next_value[t]` is Σₐ π(a|s'ₜ) Q(s'ₜ, a). c = 1 is Q^opc of ACER.
    """
    # The trace and the value are those of the next row, never of this one.
    after_trace = jnp.where((terminated | truncated).at[-1].set(True), 0.0, jnp.roll(trace, -1))

    def step(after: Array, now: tuple[Array, ...]) -> Array:
        reward_t, terminated_t, next_value_t, trace_after, q_after = now
        return td_target(reward_t, terminated_t, next_value_t + trace_after * (after - q_after), discount)

    return _scan_backward(
        step, jnp.zeros_like(reward[0]), (reward, terminated, next_value, after_trace, jnp.roll(q, -1))
    )


def retrace(
    reward: Rewards, q: Rewards, next_value: Rewards, ratio: Rewards, terminated: Flags, truncated: Flags,
    *, discount: Scalar, lambda_: Scalar = 1.0,
) -> Rewards:  # fmt: skip
    """Retrace(λ) (Munos et al., 2016): `general_off_policy_returns` with cₜ = λ min(1, ρₜ), ρₜ = π(aₜ|sₜ)/μ(aₜ|sₜ).

    This 1 is not the constant that truncates a policy gradient.
    """
    trace = lambda_ * jnp.minimum(1.0, ratio)
    return general_off_policy_returns(reward, q, next_value, trace, terminated, truncated, discount=discount)


def vtrace(
    reward: Rewards, value: Rewards, next_value: Rewards, ratio: Rewards, terminated: Flags, truncated: Flags,
    *, discount: Scalar, lambda_: Scalar = 1.0, clip_rho: Scalar = 1.0, clip_c: Scalar = 1.0,
) -> Rewards:  # fmt: skip
    """V-trace (Espeholt et al., 2018, eq. 1), cut at episode ends.

    vₜ = V(sₜ) + ρ̄ₜ δₜ + γ(1 − cutₜ) c̄ₜ (vₜ₊₁ − V(sₜ₊₁)),   δₜ = rₜ + γ(1 − termₜ) V(s'ₜ) − V(sₜ)

    with ρ̄ₜ = min(ρ̄, ρₜ) and c̄ₜ = λ min(c̄, ρₜ).
    """
    delta = jnp.minimum(clip_rho, ratio) * (td_target(reward, terminated, next_value, discount) - value)
    decay = jnp.where(terminated | truncated, 0.0, discount * lambda_ * jnp.minimum(clip_c, ratio))
    return value + _accumulate(delta, decay)


def scale_and_clip(reward: Float[Array, "*batch"], *, scale: float, clip: float | None) -> Float[Array, "*batch"]:
    """The reward for learning: `scale` times `reward`, then clipped to ± `clip`. `clip = None`: not clipped."""
    reward = reward * scale
    return reward if clip is None else jnp.clip(reward, -clip, clip)


def vmap_envs(function: Callable[..., Array]) -> Callable[..., Array]:
    """Convert a function of trajectories `[T]` to one of rollouts `[T, B]` or sequences `[L, N]`. All trajectories
    share the keyword arguments."""
    return lambda *trajectories, **shared: jax.vmap(lambda *columns: function(*columns, **shared), 1, 1)(*trajectories)


def n_step_target(batch: Transition, next_value: Float[Array, "n N"], discount: Scalar) -> Float[Array, " N"]:
    """y = G⁽ⁿ⁾₀ of N replayed sequences of n steps, `[n, N]`; for n = 1 the one-step target."""
    return vmap_envs(n_step)(
        batch.reward, next_value, batch.terminated, batch.truncated, discount=discount, n=len(batch.reward)
    )[0]


def first_row(batch: Transition) -> tuple[Obs, Array]:
    """First observations and actions `[N]` of N sequences of n steps, `[n, N]`: the pairs (s, a) of `n_step_target`."""
    return jax.tree.map(lambda x: x[0], (batch.obs, batch.action))


def _accumulate(delta: Rewards, decay: Rewards) -> Rewards:
    """xₜ = δₜ + decayₜ xₜ₊₁,   x_T = 0."""
    return _scan_backward(lambda after, now: now[0] + now[1] * after, jnp.zeros_like(delta[0]), (delta, decay))


def _scan_backward(step: Callable[..., Array], last: Array, now: tuple[Array, ...]) -> Array:
    """xₜ = step(xₜ₊₁, nowₜ) from the end of the trajectory to its beginning, x_T = `last`."""

    def body(after: Array, row: tuple[Array, ...]) -> tuple[Array, Array]:
        x = step(after, row)
        return x, x

    return jax.lax.scan(body, last, now, reverse=True)[1]
