"""The arithmetic limit: every matrix product of one update, read off its program, timed alone, as large and in the
same form.

What an update costs at least is the sum over its products of the best time of each. What it costs beside them are
activations, the optimiser, sampling, and products that wait for each other.
"""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from duologue import AbstractAlgorithm, DataSet
from duologue.data.ring import Ring
from duologue.loops import offline
from duologue.loops.learning import sample_batch
from duologue.types import Metrics, PyTree

TINY = 1e-6
TIMINGS = 20


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


def of_update(algorithm: AbstractAlgorithm, data: DataSet) -> list[Product]:
    """The products of one update of what learns from recorded data."""
    source, key = offline.prepare_data(algorithm, data), jax.random.key(0)
    learner = jax.eval_shape(lambda key: algorithm.init(source.spec, key=key), key)

    def update(learner: PyTree, ring: Ring, key: Array) -> tuple[PyTree, Metrics]:
        replay = algorithm.experience.replay
        assert replay is not None
        return algorithm.update(learner, sample_batch(ring, replay, key), key=key)

    return of(update, learner, source.at(0)[0], key)


def of(function: Callable, *args: Any) -> list[Product]:
    """The products that a call of `function` makes, those of equal shape in one; of a `cond` those of all branches."""
    found: Counter[Product] = Counter()
    for product in walked(jax.make_jaxpr(function)(*args).jaxpr):
        found[product._replace(times=1)] += product.times
    return [product._replace(times=times) for product, times in found.items()]


def walked(jaxpr: Any, times: int = 1) -> Iterator[Product]:
    """The products of a program, and of the programs inside of it."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            yield product_of(*(variable.aval.shape for variable in equation.invars), equation.params, times)
        inner = times * equation.params.get("length", 1)  # of a scan
        for inside in jax.tree.leaves(list(equation.params.values()), is_leaf=is_program):
            if is_program(inside):
                yield from walked(getattr(inside, "jaxpr", inside), inner)


def is_program(x: Any) -> bool:
    return hasattr(x, "eqns") or hasattr(x, "jaxpr")


def product_of(left: tuple[int, ...], right: tuple[int, ...], params: dict[str, Any], times: int) -> Product:
    """`dot_general` of these shapes, its axes of each kind taken together."""
    (summed, of_right), (members, of_right_members) = params["dimension_numbers"]
    rows = [axis for axis in range(len(left)) if axis not in (*summed, *members)]
    columns = [axis for axis in range(len(right)) if axis not in (*of_right, *of_right_members)]
    transposed = "left" if rows and max(summed) < min(rows) else ""
    if columns and min(of_right) > max(columns):
        transposed = "right"
    sizes = (math.prod(left[axis] for axis in axes) for axes in (members, rows, summed))
    return Product(times, *sizes, math.prod(right[axis] for axis in columns), transposed)


def seconds(products: list[Product]) -> float:
    """How long the products take alone, the best time of each."""
    return sum(product.times * best(product) for product in products)


def best(product: Product) -> float:
    """Seconds of one product: the best of so many timings of a loop in which each waits for the one before."""
    left = (product.inner, product.rows) if product.transposed == "left" else (product.rows, product.inner)
    right = (product.columns, product.inner) if product.transposed == "right" else (product.inner, product.columns)
    batch, repeats = ((0,), (0,)), max(1, min(100, int(1e10 / product._replace(times=1).flops)))
    contract = ((1,) if product.transposed == "left" else (2,)), ((2,) if product.transposed == "right" else (1,))

    @jax.jit
    def run(x: Array, w: Array) -> Array:
        def once(_: int, x: Array) -> Array:
            y = jax.lax.optimization_barrier(jax.lax.dot_general(x, w, (contract, batch)))
            return jax.lax.dynamic_update_slice(x, TINY * y[:, :1, :1], (0, 0, 0))

        return jax.lax.fori_loop(0, repeats, once, x)

    x, w = jnp.ones((product.members, *left)), jnp.ones((product.members, *right))
    run(x, w).block_until_ready()
    times = []
    for _ in range(TIMINGS):
        began = time.perf_counter()
        run(x, w).block_until_ready()
        times.append(time.perf_counter() - began)
    return min(times) / repeats
