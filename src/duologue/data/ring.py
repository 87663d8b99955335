"""Replay: one ring over any PyTree of transitions, time-major, so that what follows in time lies behind in memory.

Pure functions of a `Ring`. Donate it: written in place, it is never copied. XLA fuses a write with a gather that
follows in the same program into a copy of the whole ring, unless the gather stands in a loop whose length is not
known when the program is compiled: loops sample inside `fori_loop(0, K, …)` with a traced K (`loops/learning.py`).
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
    """Leaves `[capacity, B, …]`. Of a stack of images only the newest is kept, and `next_obs` holds numbers that
    `frames` resolves."""
    written: Int[Array, "*seeds"]
    """Rows written so far; the ring is full from `capacity` on."""
    frames: Frames | None = None
    """Next images that no other row holds; `None` without images."""

    @property
    def capacity(self) -> int:
        return self.data.reward.shape[0]

    @property
    def rows(self) -> Int[Array, ""]:
        """Rows that can be read."""
        return jnp.minimum(self.written, self.capacity)


def init(transition: Transition, capacity: int, stacked: PyTree = None) -> Ring:
    """An empty ring for `capacity` rows like `transition`, whose leaves `[B, …]` may be arrays or their shapes. Where
    observations are stacks of frames, `stacked` says of how many each leaf is. The first row begins an episode, and so
    does each one after a flag."""
    stored, kept = frames.init_frames(transition, capacity, stacked)
    data = jax.tree.map(lambda x: jnp.zeros((capacity, *x.shape), x.dtype), stored)
    return Ring(data, jnp.zeros((), jnp.int32), kept)


def nbytes(transition: Transition, capacity: int, stacked: PyTree = None) -> int:
    """What `init` will take."""
    ring = jax.eval_shape(lambda: init(transition, capacity, stacked))
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(ring))


def add(ring: Ring, rollout: Transition) -> Ring:
    """Overwrite the oldest rows with `rollout`, `[T, B]`. The capacity must be a multiple of T, so that no write is cut
    by the end of the array."""
    length = rollout.reward.shape[0]
    if ring.capacity % length:
        raise ValueError(f"a ring of {ring.capacity} rows cannot be written {length} at a time")
    start, kept = ring.written % ring.capacity, ring.frames
    if kept is not None:
        rollout, kept = frames.add_frames(kept, rollout)
    data = jax.tree.map(lambda old, new: jax.lax.dynamic_update_slice_in_dim(old, new, start, 0), ring.data, rollout)
    return Ring(data, ring.written + length, kept)


def sample(ring: Ring, key: Key[Array, ""], batch_size: int, length: int | None = None) -> Transition:
    """`batch_size` transitions `[N]`, uniformly and with replacement; or as many sequences `[L, N]` of `length` rows of
    one environment, none of which crosses the write head."""
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
    """Rows, counted from the first that was ever written, and environments of uniform sequences. The oldest row whose
    stacks of frames are there is the first that can begin one."""
    of_row, of_env = jax.random.split(key)
    num_envs = ring.data.reward.shape[1]
    oldest = ring.written - ring.rows
    behind = 0 if ring.frames is None else frames.history(ring.frames.depths)
    first = jnp.where(oldest > 0, oldest + behind, 0)  # nothing came before row 0
    starts = jax.random.randint(of_row, (1, batch_size), 0, ring.written - first - length + 1)
    envs = jax.random.randint(of_env, (1, batch_size), 0, num_envs)
    return first + starts + jnp.arange(length)[:, None], envs


def cut(ring: Ring, envs: Bool[Array, " B"]) -> Ring:
    """The newest row of these environments ends its episode, truncated, if it did not anyway: what is added next is no
    successor of it."""
    data, kept, row = ring.data, ring.frames, (ring.written - 1) % ring.capacity
    ends = envs & ~(data.terminated[row] | data.truncated[row]) & (ring.written > 0)
    data = data._replace(truncated=data.truncated.at[row].set(data.truncated[row] | ends))
    if kept is not None:
        next_obs, kept = frames.cut_frames(kept, data.next_obs, row, ends)
        data = data._replace(next_obs=next_obs)
    return Ring(data, ring.written, kept)


def pack(ring: Ring) -> Ring:
    """Only the rows that hold something, as NumPy arrays: what is worth keeping of a ring that is not full yet. Leaves
    may lead with a seeds axis."""
    axis, kept = np.ndim(ring.written), ring.frames

    def first(tree: PyTree, count: Array) -> PyTree:
        where = (slice(None),) * axis + (slice(int(np.max(count))),)
        return jax.tree.map(lambda x: _copy_to_host(x, where), tree)

    kept = kept and dataclasses.replace(kept, cuts=first(kept.cuts, kept.count))
    return Ring(first(ring.data, ring.written), ring.written, kept)


def _copy_to_host(x: Array, where: tuple[slice, ...]) -> np.ndarray:
    """`x[where]` without a copy of all of it: NumPy reads in place what lies on one device, and would gather what lies
    on several. These lead with the seeds axis."""
    parts = [np.asarray(shard.data)[where] for shard in x.addressable_shards]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def unpack(ring: Ring, like: Ring) -> Ring:
    """The inverse of `packed`: a ring like `like`, whose leaves may be shapes. Raises `ValueError` if it does not fit
    there."""
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
    """`like` with `...` for the arrays that `packed` may cut."""
    cut = lambda ring: (ring.data, ring.frames and ring.frames.cuts)  # noqa: E731
    return eqx.tree_at(cut, like, jax.tree.map(lambda _: ..., cut(like)))
