"""Several seeds in one program, by `vmap`. The axis of seeds is split over as many devices as divide it."""

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


def init_seeds(init: Callable[[Key[Array, ""]], PyTree], seeds: Sequence[int]) -> PyTree:
    """Run `init(key)` for every seed in one program; with several seeds every leaf has a leading axis S.

    The program runs one seed after the other. `vmap` would batch the QR of orthogonal weights, and two batched QRs at
    the same time may wait for each other forever in the CPU's thread pool (jaxlib 0.10.2).
    """
    keys = [run_key(seed) for seed in seeds]
    if len(keys) == 1:
        return jax.jit(init)(keys[0])
    return jax.jit(partial(jax.lax.map, init))(jnp.stack(keys))


def vmap_seeds(function: Callable, seeds: int | None, in_axes: Sequence[int | None]) -> Callable:
    """Convert a `function` of one seed to a function of all seeds. `in_axes` gives the position of the axis S in each
    argument, `None` for an argument without S. In all results S is the first axis. `seeds = None`: `function` itself.
    """
    if seeds is None:
        return function
    lifted, mesh = jax.vmap(function, in_axes=tuple(in_axes)), seed_sharding(seeds).mesh
    if mesh.size == 1:
        return lifted
    specs = tuple(PartitionSpec() if axis is None else PartitionSpec(*[None] * axis, SEED_AXIS) for axis in in_axes)
    return jax.shard_map(lifted, mesh=mesh, in_specs=specs, out_specs=PartitionSpec(SEED_AXIS), check_vma=False)


def seed_sharding(seeds: int) -> NamedSharding:
    """The sharding that splits the leading axis S over as many devices as divide it."""
    devices = max(n for n in range(1, len(jax.devices()) + 1) if seeds % n == 0)
    return NamedSharding(Mesh(np.asarray(jax.devices()[:devices]), (SEED_AXIS,)), PartitionSpec(SEED_AXIS))


def place_seeds(tree: PyTree, seeds: int | None) -> PyTree:
    """Put `tree` on the devices that compute its seeds."""
    return tree if seeds is None else jax.device_put(tree, seed_sharding(seeds))


def one_seed_shape(tree: PyTree, seeds: int | None) -> PyTree:
    """One seed's part of `tree`, whose leaves have a leading axis S, as `jax.ShapeDtypeStruct`."""
    return jax.eval_shape(lambda tree: tree if seeds is None else jax.tree.map(lambda x: x[0], tree), tree)


def seed_count(step: Any) -> int | None:
    """Number of seeds in a loop's state, from its counter of steps; `None` for a state without a seeds axis."""
    return step.shape[0] if np.ndim(step) else None
