"""The arithmetic limit of SAC: every matrix product of one update timed alone, as large and in the same form.

What an update costs at least is the sum over its products of the best time of each. What it costs beside them are
activations, the optimiser, sampling, and products that wait for each other.
"""

import itertools
import time
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

TINY = 1e-6
REPEATS, TIMINGS = 100, 20


class Product(NamedTuple):
    """`times` products `[E, rows, inner] × [E, inner, columns]` in one update, with the left or the right one read
    transposed."""

    times: int
    members: int
    rows: int
    inner: int
    columns: int
    transposed: str
    """`"left"` in ∂W = xᵀg, `"right"` in ∂x = gWᵀ, `""` in xW."""

    @property
    def flops(self) -> int:
        return 2 * self.times * self.members * self.rows * self.inner * self.columns


def network(
    sizes: tuple[int, ...], *, batch: int, members: int, forward: int, weights: int, inputs: int
) -> Iterator[Product]:
    """The products of a network in an update: so many forward passes, gradients of its weights, and gradients that go
    down to its input."""
    for layer, (a, b) in enumerate(itertools.pairwise(sizes)):
        yield Product(forward, members, batch, a, b, "")
        yield Product(weights, members, a, batch, b, "left")
        yield Product(inputs + (weights if layer else 0), members, batch, b, a, "right")


def sac_update(obs: int, action: int, hidden: tuple[int, ...], batch: int) -> list[Product]:
    """π(s') and π(s); Q̄(s', ã'), Q(s, a) and Q(s, ã); gradients of Q's weights, of ã through Q, and of π's weights."""
    of_actor = network((obs, *hidden, 2 * action), batch=batch, members=1, forward=2, weights=1, inputs=0)
    of_critics = network((obs + action, *hidden, 1), batch=batch, members=2, forward=3, weights=1, inputs=1)
    return [product for product in (*of_actor, *of_critics) if product.times]


def seconds(products: list[Product]) -> float:
    """How long the products take alone, the best time of each."""
    return sum(product.times * best(product) for product in products)


def best(product: Product) -> float:
    """Seconds of one product: the best of so many timings of a loop in which each waits for the one before."""
    left = (product.inner, product.rows) if product.transposed == "left" else (product.rows, product.inner)
    right = (product.columns, product.inner) if product.transposed == "right" else (product.inner, product.columns)
    batch = ((0,), (0,))
    contract = ((1,) if product.transposed == "left" else (2,)), ((2,) if product.transposed == "right" else (1,))

    @jax.jit
    def run(x: Array, w: Array) -> Array:
        def once(_: int, x: Array) -> Array:
            y = jax.lax.optimization_barrier(jax.lax.dot_general(x, w, (contract, batch)))
            return jax.lax.dynamic_update_slice(x, TINY * y[:, :1, :1], (0, 0, 0))

        return jax.lax.fori_loop(0, REPEATS, once, x)

    x, w = jnp.ones((product.members, *left)), jnp.ones((product.members, *right))
    run(x, w).block_until_ready()
    times = []
    for _ in range(TIMINGS):
        began = time.perf_counter()
        run(x, w).block_until_ready()
        times.append(time.perf_counter() - began)
    return min(times) / REPEATS
