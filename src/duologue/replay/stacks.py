"""Stacks of frames, rebuilt from rows that hold one frame each.

Observation t of depth k is `[k, *frame]`: the frames of rows t − k + 1 … t, oldest first; where its episode is younger
than that, the frame it began with stands in for those before. Where episodes begin, the flags of the rows say.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int


def latest(x: Array) -> Array:
    """The newest frames `[T, B, *frame]` of stacks `[T, B, k, *frame]`."""
    return x[:, :, -1]


def pushed(stack: Array, frame: Array) -> Array:
    """The stacks `[L, N, k, *frame]` that follow when these frames, `[L, N, *frame]`, come next: the oldest go."""
    return jnp.concatenate([stack[:, :, 1:], frame[:, :, None]], axis=2)


def ages(
    terminated: Bool[Array, "C B"], truncated: Bool[Array, "C B"], row: Int[Array, "L N"], env: Int[Array, "1 N"],
    most: int,
) -> Int[Array, "L N"]:  # fmt: skip
    """Steps since the episode of each row began, `most` where they are more. Row t, counted from the first that was
    ever written, lies at t modulo C, and row 0 begins an episode."""
    before = row[..., None] - jnp.arange(1, most + 1)[None, None]
    at = before % len(terminated), env[..., None]
    runs_on = (before >= 0) & ~(terminated[at] | truncated[at])
    return jnp.sum(jnp.cumprod(runs_on, axis=-1, dtype=jnp.int32), axis=-1)


def read(frames: Array, row: Int[Array, "L N"], env: Int[Array, "1 N"], age: Int[Array, "L N"], depth: int) -> Array:
    """The stacks `[L, N, k, *frame]` of rows of `frames`, `[C, B, *frame]`."""
    back = jnp.minimum(jnp.arange(depth - 1, -1, -1)[None, None], age[..., None])
    return frames[(row[..., None] - back) % len(frames), env[..., None]]
