"""Several seeds in one program: `vmap` over their axis, which is spread over as many devices as divide it."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Key

from duologue.loops.keys import run_key
from duologue.types import PyTree

SEED_AXIS = "seeds"


def init_seeds(begin: Callable[[Key[Array, ""]], PyTree], seeds: Sequence[int]) -> PyTree:
    """What `begin` makes of the key of a run, in one program; of several seeds every leaf leads with their axis.

    One seed after the other, and not by `vmap`: that batches the QR of orthogonal weights, and two batched QRs at a
    time may wait for each other for ever in the CPU's thread pool (jaxlib 0.10.2).
    """
    keys = [run_key(seed) for seed in seeds]
    if len(keys) == 1:
        return jax.jit(begin)(keys[0])
    return jax.jit(partial(jax.lax.map, begin))(jnp.stack(keys))


def vmap_seeds(function: Callable, seeds: int | None, in_axes: Sequence[int | None]) -> Callable:
    """`function` of one seed for all of them: `in_axes` says where their axis is in each argument, `None` where there
    is none. All results lead with it. For `None` seeds, `function` as it is."""
    if seeds is None:
        return function
    lifted, mesh = jax.vmap(function, in_axes=tuple(in_axes)), seed_sharding(seeds).mesh
    if mesh.size == 1:
        return lifted
    specs = tuple(PartitionSpec() if axis is None else PartitionSpec(*[None] * axis, SEED_AXIS) for axis in in_axes)
    return jax.shard_map(lifted, mesh=mesh, in_specs=specs, out_specs=PartitionSpec(SEED_AXIS), check_vma=False)


def seed_sharding(seeds: int) -> NamedSharding:
    """The leading seeds axis over as many devices as divide it."""
    devices = max(n for n in range(1, len(jax.devices()) + 1) if seeds % n == 0)
    return NamedSharding(Mesh(np.asarray(jax.devices()[:devices]), (SEED_AXIS,)), PartitionSpec(SEED_AXIS))


def place_seeds(tree: PyTree, seeds: int | None) -> PyTree:
    """`tree` on the devices where its seeds will be computed."""
    return tree if seeds is None else jax.device_put(tree, seed_sharding(seeds))


def one_seed_shape(tree: PyTree, seeds: int | None) -> PyTree:
    """What belongs to one seed of `tree`, whose leaves lead with the seeds axis, as `jax.ShapeDtypeStruct`."""
    return jax.eval_shape(lambda tree: tree if seeds is None else jax.tree.map(lambda x: x[0], tree), tree)


def seed_count(step: Any) -> int | None:
    """How many seeds a loop's state is of, by its counter of steps; `None` where it has no seeds axis."""
    return step.shape[0] if np.ndim(step) else None
