"""The matrix products that benchmarks read off a program, against a count by hand."""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def products(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield __import__("products")
    sys.modules.pop("products", None)


def test_a_layer_and_its_gradient(products):
    """y = x W and ∂W = xᵀ g: one product each, the second with its left side transposed."""
    x, w = jnp.ones((5, 3)), jnp.ones((3, 4))
    found = products.of(jax.grad(lambda w: jnp.sum((x @ w) ** 2)), w)
    assert sum(product.flops for product in found) == 2 * (2 * 5 * 3 * 4)
    assert products.Product(1, 1, 5, 3, 4, "") in found


def test_loops_count_their_turns_and_ensembles_are_members(products):
    w = jnp.ones((2, 4, 4))

    def turns(x):
        step = jax.jit(lambda x, _: (jax.vmap(jnp.matmul)(x, w), None))
        return jax.lax.scan(step, x, None, length=7)[0]

    assert products.of(turns, jnp.ones((2, 5, 4))) == [products.Product(7, 2, 5, 4, 4, "")]
