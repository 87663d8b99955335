"""Replay ring over any PyTree of transitions, time-major: the next row in time is the next in memory.

Pure functions of a `Ring`. Donate it, so that it is written in place and never copied. If a gather follows a write in
one program, XLA fuses them into a copy of the whole ring, unless the gather is in a loop whose length is unknown when
the program is compiled. So loops sample inside `fori_loop(0, K, …)` with a traced K (`loops/learning.py`).
"""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, Key

from duologue.data import frames
from duologue.data.frames import Frames
from duologue.types import PyTree, Transition


class Ring(eqx.Module):
    """The newest `capacity` rows of B transitions each; row `written % capacity` is the next to be overwritten."""

    data: Transition
    """Leaves `[capacity, B, …]`. A stack of images is stored as its newest image, and `next_obs` holds numbers that
    `frames` resolves."""
    written: Int[Array, "*seeds"]
    """Number of rows written so far; from `capacity` on the ring is full."""
    frames: Frames | None = None
    """Next images that no row stores; `None` without images."""

    @property
    def capacity(self) -> int:
        """Number of rows that fit."""
        return self.data.reward.shape[0]

    @property
    def rows(self) -> Int[Array, ""]:
        """Number of rows that hold transitions."""
        return jnp.minimum(self.written, self.capacity)


def init(transition: Transition, capacity: int, stacked: PyTree = None) -> Ring:
    """An empty ring for `capacity` rows like `transition`, whose leaves `[B, …]` may be arrays or their shapes.

    If observations are stacks of frames, `stacked` has the number of frames of each leaf. The first row must begin an
    episode, and so must each row after a flag.
    """
    stored, kept = frames.init_frames(transition, capacity, stacked)
    data = jax.tree.map(lambda x: jnp.zeros((capacity, *x.shape), x.dtype), stored)
    return Ring(data, jnp.zeros((), jnp.int32), kept)


def nbytes(transition: Transition, capacity: int, stacked: PyTree = None) -> int:
    """Bytes of the ring that `init` makes."""
    ring = jax.eval_shape(lambda: init(transition, capacity, stacked))
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(ring))


def add(ring: Ring, rollout: Transition) -> Ring:
    """Overwrite the oldest rows with `rollout` `[T, B]`. Raises `ValueError` unless T divides the capacity: else a
    write could cross the end of the array."""
    length = rollout.reward.shape[0]
    if ring.capacity % length:
        raise ValueError(f"a ring of {ring.capacity} rows cannot be written {length} at a time")
    start, kept = ring.written % ring.capacity, ring.frames
    if kept is not None:
        rollout, kept = frames.add_frames(kept, rollout)
    data = jax.tree.map(lambda old, new: jax.lax.dynamic_update_slice_in_dim(old, new, start, 0), ring.data, rollout)
    return Ring(data, ring.written + length, kept)


def sample(ring: Ring, key: Key[Array, ""], batch_size: int, length: int | None = None) -> Transition:
    """Draw `batch_size` transitions `[N]`, uniformly and with replacement. With `length`, draw as many sequences
    `[L, N]` of `length` rows; each is from one environment, and none crosses the write head."""
    rows, envs = sample_indices(ring, key, batch_size, 1 if length is None else length)
    batch: Transition = jax.tree.map(lambda x: x[rows % ring.capacity, envs], ring.data)
    if ring.frames is not None:
        obs = frames.rebuild_observations(ring.frames, ring.data, batch.obs, rows, envs)
        after = jax.tree.map(lambda x: x[(rows + 1) % ring.capacity, envs], ring.data.obs)
        next_obs = frames.rebuild_successors(ring.frames, batch.next_obs, obs, after, envs, rows == ring.written - 1)
        batch = batch._replace(obs=obs, next_obs=next_obs)
    return jax.tree.map(lambda x: x[0], batch) if length is None else batch


def sample_indices(
    ring: Ring, key: Key[Array, ""], batch_size: int, length: int
) -> tuple[Int[Array, "L N"], Int[Array, "1 N"]]:
    """Rows, counted from the first ever written, and environments of uniform sequences. A sequence begins no earlier
    than the oldest row whose whole stack of frames is in the ring."""
    of_row, of_env = jax.random.split(key)
    num_envs = ring.data.reward.shape[1]
    oldest = ring.written - ring.rows
    history = 0 if ring.frames is None else frames.history(ring.frames.depths)
    first = jnp.where(oldest > 0, oldest + history, 0)  # row 0 needs no earlier row
    starts = jax.random.randint(of_row, (1, batch_size), 0, ring.written - first - length + 1)
    envs = jax.random.randint(of_env, (1, batch_size), 0, num_envs)
    return first + starts + jnp.arange(length)[:, None], envs


def lost_successors(ring: Ring) -> tuple[Int[Array, ""], Int[Array, ""]]:
    """`(lost, truncated)`: how many of the ring's truncated rows have lost the image of their successor, and how many
    there are. Both are 0 without images, because only images are stored once."""
    if ring.frames is None:
        return jnp.int32(0), jnp.int32(0)
    numbers = frames.cut_numbers(ring.frames, ring.data.next_obs)
    written = (jnp.arange(ring.capacity) < ring.rows)[:, None]
    lost, truncated = frames.are_lost(ring.frames, numbers), numbers >= 0
    return jnp.sum(written & lost, dtype=jnp.int32), jnp.sum(written & truncated, dtype=jnp.int32)


def cut(ring: Ring, envs: Bool[Array, " B"]) -> Ring:
    """Truncate the newest row of these environments, if its episode has not ended, because the next row that is added
    is not its successor."""
    data, kept, row = ring.data, ring.frames, (ring.written - 1) % ring.capacity
    ends = envs & ~(data.terminated[row] | data.truncated[row]) & (ring.written > 0)
    data = data._replace(truncated=data.truncated.at[row].set(data.truncated[row] | ends))
    if kept is not None:
        next_obs, kept = frames.cut_frames(kept, data.next_obs, row, ends)
        data = data._replace(next_obs=next_obs)
    return Ring(data, ring.written, kept)


def pack(ring: Ring) -> Ring:
    """The ring with only its written rows, as NumPy arrays, to save a ring that is not full. Leaves may have a leading
    axis of seeds."""
    axis, kept = np.ndim(ring.written), ring.frames

    def first(tree: PyTree, count: Array) -> PyTree:
        where = (slice(None),) * axis + (slice(int(np.max(count))),)
        return jax.tree.map(lambda x: _copy_to_host(x, where), tree)

    kept = kept and dataclasses.replace(kept, cuts=first(kept.cuts, kept.count))
    return Ring(first(ring.data, ring.written), ring.written, kept)


def _copy_to_host(x: Array, where: tuple[slice, ...]) -> np.ndarray:
    """`x[where]` without a copy of all of `x`. NumPy reads an array on one device in place, but would copy an array
    that several devices share. Such an array is split along the axis of seeds, and each part is read in place."""
    parts = [np.asarray(shard.data)[where] for shard in x.addressable_shards]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def unpack(ring: Ring, like: Ring) -> Ring:
    """The inverse of `pack`: a ring like `like`, whose leaves may be shapes. Raises `ValueError` if `ring` does not fit
    into it."""
    axis = np.ndim(ring.written)

    def put(part: Array | np.ndarray, whole: jax.ShapeDtypeStruct) -> Array:
        rest = lambda x: (x.dtype, x.shape[:axis], x.shape[axis + 1 :])  # noqa: E731
        if part.ndim <= axis or rest(part) != rest(whole) or part.shape[axis] > whole.shape[axis]:
            raise ValueError(f"{part.dtype}{list(part.shape)} does not fit into {whole.dtype}{list(whole.shape)}")
        return jax.lax.dynamic_update_slice(jnp.zeros(whole.shape, whole.dtype), part, (0,) * part.ndim)

    data, kept = jax.tree.map(put, ring.data, like.data), ring.frames
    if kept is not None and like.frames is not None:
        kept = dataclasses.replace(kept, cuts=jax.tree.map(put, kept.cuts, like.frames.cuts))
    return Ring(data, ring.written, kept)


def open_template(like: Ring) -> Ring:
    """`like` with `...` in place of the arrays that `pack` may shorten."""
    cut = lambda ring: (ring.data, ring.frames and ring.frames.cuts)  # noqa: E731
    return eqx.tree_at(cut, like, jax.tree.map(lambda _: ..., cut(like)))
