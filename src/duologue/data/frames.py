"""Images of a ring. Each is stored once, because a row's successor is the next row's observation, except at cuts.

In place of a next frame, a ring stores a number: if the row is truncated, the number of this cut, counted from 0;
else `RUNNING` or `TERMINATED`. The successors of the newest cuts and of the newest row are stored separately. A
terminated row needs no successor, whose value is zero: it gets its own observation. For a stack of frames, a row stores
only the newest frame; earlier frames are in earlier rows.

Observation t of a stack of depth k is `[k, *frame]`: the frames of rows t − k + 1 … t, oldest first. If the episode is
shorter, its first frame replaces the missing frames. The flags of the rows show where episodes begin.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from duologue.images import find_image
from duologue.types import Box, Obs, PyTree, Transition

RUNNING, TERMINATED = -1, -2
"""Numbers of rows that are no cut: the next row has the successor, or no successor is needed."""
TRANSITIONS_PER_CUT = 8
"""Number of transitions for which a ring keeps one successor of a cut. If more rows are truncated, the successors of
the oldest cuts are lost. These rows bootstrap from their own observation, and `ring.lost_successors` counts them."""


class Frames(eqx.Module):
    """The successors that no row stores, for each leaf of the observations that is an image or a stack of images."""

    newest: list[Any]
    """Successors of the newest row, `[B, *frame]`."""
    cuts: list[Any]
    """Successors of cuts, `[M, *frame]`. Cut number c is in row c % M."""
    count: Int[Array, "*seeds"]
    """Number of cuts so far."""
    depths: tuple[int, ...] = eqx.field(static=True)
    """Number of frames of each leaf of the observations: 1 for an image, 0 for a leaf without images."""


def frame_depths(obs: Obs, stacked: PyTree = None) -> tuple[int, ...]:
    """Number of frames of each leaf `[B, …]` of `obs`: 0 unless it has images of bytes, of any size. `stacked` has the
    number of frames of each leaf, if there are stacks."""

    def depth(x: Any, frames: int) -> int:
        space = Box(x.shape[1:], x.dtype.name, stacked=frames > 1)
        return frames if x.dtype == jnp.uint8 and find_image(space, smallest=1) else 0

    leaves = jax.tree.leaves(obs)
    return tuple(map(depth, leaves, [1] * len(leaves) if stacked is None else jax.tree.leaves(stacked)))


def history(depths: tuple[int, ...]) -> int:
    """Largest number of earlier rows that an observation needs."""
    return max((1, *depths)) - 1


def init_frames(transition: Transition, capacity: int, stacked: PyTree = None) -> tuple[Transition, Frames | None]:
    """`transition` `[B]` as a ring stores it, with one frame of each stack and numbers in place of next frames; and
    empty `Frames`, or `None` without images."""
    depths = frame_depths(transition.obs, stacked)
    if not any(depths):
        return transition, None

    def frame(x: Any, depth: int) -> Any:
        return jax.ShapeDtypeStruct((*x.shape[:1], *x.shape[1 + (depth > 1) :]), x.dtype)

    obs = _map_images(depths, frame, transition.obs)
    images = _images(depths, obs)
    envs = images[0].shape[0]
    slots = max(envs, capacity * envs // TRANSITIONS_PER_CUT)
    newest = [jnp.zeros(x.shape, x.dtype) for x in images]
    cuts = [jnp.zeros((slots, *x.shape[1:]), x.dtype) for x in images]
    number = jax.ShapeDtypeStruct((envs,), jnp.int32)
    next_obs = _map_images(depths, lambda x, depth: number, transition.next_obs)
    return transition._replace(obs=obs, next_obs=next_obs), Frames(newest, cuts, jnp.zeros((), jnp.int32), depths)


def add_frames(frames: Frames, rollout: Transition) -> tuple[Transition, Frames]:
    """The rollout `[T, B]` as a ring stores it, and `frames` with the successors of its cuts."""
    single = lambda x, depth: x if depth == 1 else latest_frame(x)  # noqa: E731
    obs, successors = (_map_images(frames.depths, single, x) for x in (rollout.obs, rollout.next_obs))
    images = _images(frames.depths, successors)
    numbers, frames = _keep_cuts(frames, rollout.truncated & ~rollout.terminated, images)
    numbers = jnp.where(rollout.terminated, TERMINATED, numbers)
    next_obs = _map_images(frames.depths, lambda x, depth: numbers, successors)
    frames = dataclasses.replace(frames, newest=[x[-1] for x in images])
    return rollout._replace(obs=obs, next_obs=next_obs), frames


def cut_frames(frames: Frames, stored: Obs, row: Int[Array, ""], envs: Bool[Array, " B"]) -> tuple[Obs, Frames]:
    """Make the newest row of the ring, `row`, a cut in these environments. Returns the `stored` next observations and
    `frames` after this change."""
    numbers, frames = _keep_cuts(frames, envs[None], [x[None] for x in frames.newest])
    put = lambda x, depth: x.at[row].set(jnp.where(envs, numbers[0], x[row]))  # noqa: E731
    return _map_images(frames.depths, put, stored), frames


def _keep_cuts(frames: Frames, cut: Bool[Array, "T B"], successors: list[Array]) -> tuple[Int[Array, "T B"], Frames]:
    """The numbers of the cuts, `RUNNING` where there is none, and `frames` with their successors `[T, B, *frame]`."""
    flat = cut.ravel()
    numbers = frames.count + jnp.cumsum(flat, dtype=jnp.int32) - 1
    count = frames.count + jnp.sum(flat, dtype=jnp.int32)
    slots = frames.cuts[0].shape[0]
    # Rows out of range are not written: rows without a cut, and cuts that a later cut of the rollout overwrites.
    row = jnp.where(flat & (numbers >= count - slots), numbers % slots, slots)
    cuts = [
        kept.at[row].set(x.reshape(-1, *x.shape[2:]), mode="drop")
        for kept, x in zip(frames.cuts, successors, strict=True)
    ]
    numbers = jnp.where(flat, numbers, RUNNING).reshape(cut.shape)
    return numbers, dataclasses.replace(frames, cuts=cuts, count=count)


def rebuild_observations(
    frames: Frames, data: Transition, sampled: Obs, row: Int[Array, "L N"], env: Int[Array, "1 N"]
) -> Obs:
    """The observations `[L, N]` of the rows `row` of a ring's `data`, counted from the first ever written. `sampled`
    are the parts of these observations that the ring stores."""
    most = history(frames.depths)
    if not most:
        return sampled
    age = episode_ages(data.terminated, data.truncated, row, env, most)

    def rebuilt(x: Array, depth: int, stored: Array) -> Array:
        return x if depth == 1 else read_stacks(stored, row, env, age, depth)

    return _map_images(frames.depths, rebuilt, sampled, data.obs)


def rebuild_successors(
    frames: Frames, stored: Obs, obs: Obs, following: Obs, env: Int[Array, "1 N"], newest: Bool[Array, "L N"]
) -> Obs:
    """The next observations `[L, N]` of sampled rows, from the entries `stored` in their place, the rows' own `obs`,
    and the stored parts of the `following` observations. `newest` marks the newest row of the ring."""
    kept = iter(zip(frames.newest, frames.cuts, strict=True))

    def successor(stored: Array, depth: int, own: Array, after: Array) -> Array:
        head, cuts = next(kept)
        flag = lambda x: x.reshape(*x.shape, *(1,) * (own.ndim - x.ndim))  # noqa: E731
        whole = lambda frame: frame if depth == 1 else push_frame(own, frame)  # noqa: E731
        slots, number = len(cuts), jnp.broadcast_to(stored, newest.shape)
        lost = (number == TERMINATED) | are_lost(frames, number)
        head = head[jnp.broadcast_to(env, newest.shape)]
        running = jnp.where(flag(newest), whole(head), whole(after))
        cut = jnp.where(flag(lost), own, whole(cuts[number % slots]))
        return jnp.where(flag(number == RUNNING), running, cut)

    return _map_images(frames.depths, successor, stored, obs, following)


def cut_numbers(frames: Frames, stored: Obs) -> Array:
    """The numbers that a ring stores in place of next frames. All images of a row have the same number."""
    return _images(frames.depths, stored)[0]


def are_lost(frames: Frames, number: Int[Array, "*batch"]) -> Bool[Array, "*batch"]:
    """Which of the cuts with these numbers have lost their successors to later cuts."""
    return (number >= 0) & (number < frames.count - len(frames.cuts[0]))


def _images(depths: tuple[int, ...], obs: Obs) -> list[Any]:
    return [x for x, depth in zip(jax.tree.leaves(obs), depths, strict=True) if depth]


def _map_images(depths: tuple[int, ...], function: Callable[..., Any], obs: Obs, *others: Obs) -> Obs:
    """`obs` with `function(leaf, depth, *leaves of others)` in place of each leaf that is an image."""
    leaves, tree = jax.tree.flatten(obs)
    columns = zip(leaves, depths, *map(jax.tree.leaves, others), strict=True)
    return jax.tree.unflatten(tree, [function(*column) if column[1] else column[0] for column in columns])


def latest_frame(x: Array) -> Array:
    """The newest frames `[T, B, *frame]` of stacks `[T, B, k, *frame]`."""
    return x[:, :, -1]


def push_frame(stack: Array, frame: Array) -> Array:
    """The next stacks `[L, N, k, *frame]`: without the oldest frame, and with `frame` `[L, N, *frame]` last."""
    return jnp.concatenate([stack[:, :, 1:], frame[:, :, None]], axis=2)


def episode_ages(
    terminated: Bool[Array, "C B"], truncated: Bool[Array, "C B"], row: Int[Array, "L N"], env: Int[Array, "1 N"],
    most: int,
) -> Int[Array, "L N"]:  # fmt: skip
    """Steps since the episode of each row began, at most `most`. Row t, counted from the first ever written, lies at t
    modulo C, and row 0 begins an episode."""
    before = row[..., None] - jnp.arange(1, most + 1)[None, None]
    at = before % len(terminated), env[..., None]
    runs_on = (before >= 0) & ~(terminated[at] | truncated[at])
    return jnp.sum(jnp.cumprod(runs_on, axis=-1, dtype=jnp.int32), axis=-1)


def read_stacks(
    frames: Array, row: Int[Array, "L N"], env: Int[Array, "1 N"], age: Int[Array, "L N"], depth: int
) -> Array:
    """The stacks `[L, N, k, *frame]` of the rows `row` of `frames` `[C, B, *frame]`."""
    back = jnp.minimum(jnp.arange(depth - 1, -1, -1)[None, None], age[..., None])
    return frames[(row[..., None] - back) % len(frames), env[..., None]]
