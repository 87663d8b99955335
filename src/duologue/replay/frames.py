"""Images kept once: the successor of a row is the next row's observation, unless an episode was cut there.

A ring stores, in place of a next frame, the number of the cut that the row is (−1 for none). The true successors of
cuts are kept apart, the newest of them, and so is what follows the newest row.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from duologue.types import Obs, Transition

SHARE = 8
"""One successor is kept apart for so many transitions. Where episodes are shorter than that on average, those of the
oldest cuts are lost, and a truncated row among them bootstraps from its own observation."""


class Frames(eqx.Module):
    """What the rows themselves do not tell, for each leaf of the observations that is an image."""

    newest: list[Any]
    """Successors of the newest row, `[B, …]`."""
    cuts: list[Any]
    """Successors of cuts, `[M, …]`; number c lies in row c % M."""
    count: Int[Array, "*seeds"]
    """Cuts so far."""


def is_frame(x: Any) -> bool:
    """Whether a leaf `[B, …]` is an image: three axes of bytes."""
    return x.dtype == jnp.uint8 and x.ndim == 4


def init(transition: Transition, capacity: int) -> tuple[Transition, Frames | None]:
    """`transition` as a ring stores it, with numbers in place of next frames, and nothing kept apart yet."""
    images = [x for x in jax.tree.leaves(transition.next_obs) if is_frame(x)]
    if not images:
        return transition, None
    envs = images[0].shape[0]
    slots = max(envs, capacity * envs // SHARE)
    newest = [jnp.zeros(x.shape, x.dtype) for x in images]
    cuts = [jnp.zeros((slots, *x.shape[1:]), x.dtype) for x in images]
    number = jax.ShapeDtypeStruct((envs,), jnp.int32)
    next_obs = jax.tree.map(lambda x: number if is_frame(x) else x, transition.next_obs)
    return transition._replace(next_obs=next_obs), Frames(newest, cuts, jnp.zeros((), jnp.int32))


def add(frames: Frames, rollout: Transition) -> tuple[Transition, Frames]:
    """The rollout `[T, B]` as a ring stores it, and the successors of its cuts kept."""
    ended = (rollout.terminated | rollout.truncated).ravel()
    numbers = frames.count + jnp.cumsum(ended, dtype=jnp.int32) - 1
    count = frames.count + jnp.sum(ended, dtype=jnp.int32)
    slots = frames.cuts[0].shape[0]
    # Out of range, and so not written: what is no cut, and what a later one of the same rollout would overwrite.
    row = jnp.where(ended & (numbers >= count - slots), numbers % slots, slots)
    numbers = jnp.where(ended, numbers, -1).reshape(rollout.reward.shape)
    images = [x for x in jax.tree.leaves(rollout.next_obs) if _is_rollout_of_frames(x)]
    newest = [x[-1] for x in images]
    cuts = [
        kept.at[row].set(x.reshape(-1, *x.shape[2:]), mode="drop") for kept, x in zip(frames.cuts, images, strict=True)
    ]
    next_obs = jax.tree.map(lambda x: numbers if _is_rollout_of_frames(x) else x, rollout.next_obs)
    return rollout._replace(next_obs=next_obs), Frames(newest, cuts, count)


def successors(
    frames: Frames, stored: Obs, obs: Obs, following: Obs, env: Int[Array, "1 N"], newest: Bool[Array, "L N"]
) -> Obs:
    """The next observations `[L, N]` of sampled rows, from what is `stored` in their place, their own observations, and
    those of the rows that follow. `newest` marks the newest row of all."""
    kept = iter(zip(frames.newest, frames.cuts, strict=True))

    def successor(stored: Array, own: Array, after: Array) -> Array:
        if not _is_rollout_of_frames(own):
            return stored
        head, cuts = next(kept)
        flag = lambda x: x.reshape(*x.shape, *(1,) * (own.ndim - x.ndim))  # noqa: E731
        slots, number = len(cuts), jnp.broadcast_to(stored, newest.shape)
        lost = number < frames.count - slots
        running = jnp.where(flag(newest), head[jnp.broadcast_to(env, newest.shape)], after)
        cut = jnp.where(flag(lost), own, cuts[number % slots])
        return jnp.where(flag(number < 0), running, cut)

    return jax.tree.map(successor, stored, obs, following)


def _is_rollout_of_frames(x: Any) -> bool:
    return x.dtype == jnp.uint8 and x.ndim == 5
