"""How many iterations a device call makes: enough to be fat, few enough that a person sees progress."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from duologue.types import PyTree

CHUNK_SECONDS = 0.5
"""A device call is made about this long, so that a person sees progress and can interrupt."""


class GrowingChunks:
    """Calls that grow: from one iteration on, twice as many while a full call takes less than half of
    `CHUNK_SECONDS`."""

    def __init__(self) -> None:
        self.length = 1

    def split(self, first: int, until: int, interrupted: Callable[[], bool]) -> Iterator[tuple[int, int]]:
        """`(first, count)` of each call; what is timed is the body of the loop over them, which has to wait for its
        call."""
        while first < until and not interrupted():
            count, began = min(self.length, until - first), time.perf_counter()
            yield first, count
            first += count
            if count == self.length and time.perf_counter() - began < CHUNK_SECONDS / 2:
                self.length *= 2


def find_read_leaves(function: Callable[..., Any], tree: PyTree, *args: Any) -> list[bool]:
    """For each leaf of `tree`, whether `function(tree, *args)` depends on it."""
    jaxpr = jax.make_jaxpr(function)(tree, *args).jaxpr
    used = {id(variable) for equation in jaxpr.eqns for variable in equation.invars} | set(map(id, jaxpr.outvars))
    return [id(variable) in used for variable in jaxpr.invars[: len(jax.tree.leaves(tree))]]


def drop_unread_leaves(
    function: Callable[..., Any], tree: PyTree, *args: Any
) -> tuple[Callable[[PyTree], list[Any]], Callable[..., Any]]:
    """`(view, call)` such that `call(view(tree), *args)` is `function(tree, *args)`; jit the call, and take the view
    once for every change of `tree`. Arrays here may be their shapes."""
    read = find_read_leaves(function, tree, *args)
    leaves, structure = jax.tree.flatten(tree)
    shapes = [jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in leaves]
    del leaves

    def view(tree: PyTree) -> list[Any]:
        return [leaf for leaf, keep in zip(jax.tree.leaves(tree), read, strict=True) if keep]

    def call(seen: list[Any], *args: Any) -> Any:
        rest = iter(seen)
        # What is not read is filled with zeros, which the compiler throws away.
        full = [next(rest) if keep else jnp.zeros(s.shape, s.dtype) for s, keep in zip(shapes, read, strict=True)]
        return function(jax.tree.unflatten(structure, full), *args)

    return view, call
