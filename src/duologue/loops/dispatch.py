"""Device calls at little cost: long enough to be efficient, short enough to show progress, and with few arguments."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from duologue.types import PyTree

CHUNK_SECONDS = 0.5
"""Approximate longest time of a device call, so that a person sees progress and can interrupt."""


class GrowingChunks:
    """Splits iterations into calls. The first call makes one iteration; the length doubles as long as a full call takes
    less than half of `CHUNK_SECONDS`."""

    def __init__(self) -> None:
        self.length = 1

    def split(self, first: int, until: int, interrupted: Callable[[], bool]) -> Iterator[tuple[int, int]]:
        """Yield `(first, count)` of each call. The generator measures the time of the caller's loop body, so this body
        must wait for the result of its call."""
        while first < until and not interrupted():
            count, began = min(self.length, until - first), time.perf_counter()
            yield first, count
            first += count
            if count == self.length and time.perf_counter() - began < CHUNK_SECONDS / 2:
                self.length *= 2


def find_read_leaves(function: Callable[..., Any], tree: PyTree, *args: Any) -> list[int]:
    """Indices of the leaves of `tree` on which `function(tree, *args)` depends."""
    jaxpr = jax.make_jaxpr(function)(tree, *args).jaxpr
    used = {id(variable) for equation in jaxpr.eqns for variable in equation.invars} | set(map(id, jaxpr.outvars))
    return [i for i in range(len(jax.tree.leaves(tree))) if id(jaxpr.invars[i]) in used]


def find_changed_leaves(function: Callable[..., Any], leaves: list[Any], *args: Any) -> list[int]:
    """Indices of the leaves that `function(leaves, *args)`, a list of the new leaves, does not return unchanged."""
    jaxpr = jax.make_jaxpr(function)(leaves, *args).jaxpr
    return [i for i, new in enumerate(jaxpr.outvars) if new is not jaxpr.invars[i]]


def drop_unread_leaves(function: Callable[..., Any], tree: PyTree, *args: Any) -> tuple[list[int], Callable[..., Any]]:
    """`(read, call)`: `call(leaves, *args)` equals `function(tree, *args)`. Its `leaves` are the leaves of `tree` with
    indices in `read`. The caller jits `call`. In this function, shapes may replace arrays."""
    read, (leaves, structure) = find_read_leaves(function, tree, *args), jax.tree.flatten(tree)
    shapes = [jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in leaves]

    def call(leaves: list[Any], *args: Any) -> Any:
        known = dict(zip(read, leaves, strict=True))
        # Leaves that `function` does not read become zeros. The compiler removes these zeros.
        full = [known[i] if i in known else jnp.zeros(x.shape, x.dtype) for i, x in enumerate(shapes)]
        return function(jax.tree.unflatten(structure, full), *args)

    return read, call
