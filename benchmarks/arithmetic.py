"""The arithmetic limit: how fast A2C could go if its matrix products were all there is.

Both count and speed are of the same products, so the share that a training loop reaches says what everything else costs
it: environments, sampling, dispatch, activations, the optimiser, logging.
"""

import itertools
import time
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array

Sizes = Sequence[int]
"""Units of each layer, from the input to the output."""

Agent = tuple[list[Array], list[Array], Array]
"""Matrices of the actor, matrices of the critic, and T × B observations."""


def forward_flops(sizes: Sizes, rows: int) -> int:
    """2 · rows · Σ nᵢ nᵢ₊₁: a product and a sum for every weight and row."""
    return 2 * rows * sum(a * b for a, b in itertools.pairwise(sizes))


def backward_flops(sizes: Sizes, rows: int) -> int:
    """∂W = xᵀg of each layer, and ∂x = gWᵀ of each but the first."""
    return 2 * forward_flops(sizes, rows) - forward_flops(sizes[:2], rows)


def a2c_flops(actor: Sizes, critic: Sizes, *, num_envs: int, rollout_length: int) -> int:
    """One iteration: act for T × B rows, V of the successors, and one step of actor and critic on all of them.

    V(sₜ), for the targets and for the loss, is counted once: it is the same product.
    """
    rows = num_envs * rollout_length
    acting, successors = forward_flops(actor, rows), forward_flops(critic, rows)
    learning = sum(forward_flops(sizes, rows) + backward_flops(sizes, rows) for sizes in (actor, critic))
    return acting + successors + learning


def products_per_second(
    actor: Sizes, critic: Sizes, *, num_envs: int, rollout_length: int, agents: int = 1, repeats: int = 20
) -> float:
    """FLOP/s of exactly the products that `a2c_flops` counts, for `agents` side by side: the best of `repeats`."""
    iterations, rows = 200, num_envs * rollout_length

    def agent(key: Array) -> Agent:
        first, second, third = jax.random.split(key, 3)
        return weights(actor, first), weights(critic, second), jax.random.normal(third, (rows, actor[0]))

    def iterate(state: Agent) -> Agent:
        pi, v, x = state
        # One batch of B rows after the other, as acting must; each waits for the one before.
        for _ in range(rollout_length):
            x = jax.lax.dynamic_update_slice(x, TINY * chain(pi, x[:num_envs])[-1][:, :1], (0, 0))
        x = jax.lax.dynamic_update_slice(x, TINY * chain(v, x)[-1], (0, 0))
        return descend(pi, x), descend(v, x), x

    @jax.jit
    def run(keys: Array) -> Array:
        state = jax.lax.fori_loop(0, iterations, lambda _, state: jax.vmap(iterate)(state), jax.vmap(agent)(keys))
        return jax.tree.reduce(lambda total, leaf: total + leaf.sum(), state, jnp.zeros(()))

    keys = jax.random.split(jax.random.key(0), agents)
    run(keys).block_until_ready()
    seconds = min(timed(lambda: run(keys).block_until_ready()) for _ in range(repeats))
    flops = a2c_flops(actor, critic, num_envs=num_envs, rollout_length=rollout_length)
    return agents * iterations * flops / seconds


TINY = 1e-6
"""What keeps the products dependent on each other, so that none is left out, and changes nothing."""


def weights(sizes: Sizes, key: Array) -> list[Array]:
    keys = jax.random.split(key, len(sizes) - 1)
    return [jax.random.normal(k, (a, b)) / a**0.5 for k, (a, b) in zip(keys, itertools.pairwise(sizes), strict=True)]


def chain(matrices: list[Array], x: Array) -> list[Array]:
    """`x` and its products with one matrix after the other: a network without biases and activations."""
    outputs = [x]
    for matrix in matrices:
        outputs.append(outputs[-1] @ matrix)
    return outputs


def descend(matrices: list[Array], x: Array) -> list[Array]:
    """The products of a forward and a backward pass, with a tiny step so that they are not dead code."""
    inputs = chain(matrices, x)
    gradient, stepped = inputs[-1], []
    for layer in reversed(range(len(matrices))):
        stepped.insert(0, matrices[layer] - TINY * (inputs[layer].T @ gradient))
        gradient = gradient @ matrices[layer].T if layer else gradient
    return stepped


def timed(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began
