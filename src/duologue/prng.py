"""Random keys: the bits of JAX's Threefry, from programs that a CPU runs faster.

For CPUs JAX makes a loop of five rounds of every hash, to compile sooner. In small programs these loops are a good part
of everything: without them A2C makes 1.2 times the steps a second and PPO 1.4 times (docs/design.md).
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.random import define_prng_impl, threefry_prng_impl
from jaxtyping import Array, Key, UInt, UInt32

Words = UInt32[Array, "..."]

ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
PARITY = np.uint32(0x1BD11BDA)


def threefry(key: UInt32[Array, "2"], high: Words, low: Words) -> tuple[Words, Words]:
    """Threefry-2x32 in 20 rounds (Salmon et al., 2011, §4.2): two words for each counter of two words."""
    words = key[0], key[1], key[0] ^ key[1] ^ PARITY
    x, y = high + words[0], low + words[1]
    for i in range(5):
        for r in ROTATIONS[i % 2]:
            x = x + y
            y = x ^ (y << np.uint32(r) | y >> np.uint32(32 - r))
        x, y = x + words[(i + 1) % 3], y + words[(i + 2) % 3] + np.uint32(i + 1)
    return x, y


def counted(key: UInt32[Array, "2"], shape: tuple[int, ...]) -> tuple[Words, Words]:
    """The words of the counters 0, 1, … in `shape`."""
    assert math.prod(shape) < 2**32, "a counter of this length would begin anew"
    low = jnp.arange(math.prod(shape), dtype=jnp.uint32).reshape(shape)
    return threefry(key, jnp.zeros_like(low), low)


@partial(jax.jit, static_argnums=1, inline=True)
def split(key: UInt32[Array, "2"], shape: tuple[int, ...]) -> UInt32[Array, "*shape 2"]:
    """Keys: the words of each counter."""
    return jnp.stack(counted(key, shape), axis=-1)


@partial(jax.jit, inline=True)
def fold_in(key: UInt32[Array, "2"], number: UInt32[Array, ""]) -> UInt32[Array, "2"]:
    """The key of a number: the words of that counter."""
    low = jnp.asarray(number, jnp.uint32)
    return jnp.stack(threefry(key, jnp.zeros_like(low), low))


@partial(jax.jit, static_argnums=(1, 2), inline=True)
def random_bits(key: UInt32[Array, "2"], width: int, shape: tuple[int, ...]) -> UInt[Array, "*shape"]:
    """`width` bits each: both words of a counter side by side for 64, and else their exclusive or."""
    high, low = (words.astype(f"uint{width}") for words in counted(key, shape))
    return high << np.uint64(32) | low if width == 64 else high ^ low


THREEFRY = define_prng_impl(
    key_shape=(2,), seed=threefry_prng_impl.seed, split=split, random_bits=random_bits, fold_in=fold_in,
    name="duologue threefry2x32", tag="fry",
)  # fmt: skip
"""What `jax.random.key` takes as `impl`. JAX's own, `"threefry2x32"`, gives the same bits."""

IMPLEMENTATIONS = {"duologue threefry2x32": THREEFRY}
"""Those that JAX does not know by name."""


def name_of(key: Key[Array, "..."]) -> str:
    """The name of a key's implementation."""
    found = jax.random.key_impl(key)
    return next((name for name, known in IMPLEMENTATIONS.items() if known == found), str(found))


def named(data: UInt32[Array, "..."], name: str) -> Key[Array, "..."]:
    """Keys of `data` by the name of their implementation. Raises `ValueError` for an unknown one."""
    return jax.random.wrap_key_data(data, impl=IMPLEMENTATIONS.get(name, name))


def standard(key: Key[Array, "..."]) -> Key[Array, "..."]:
    """The same key for JAX's own implementation: for environments, which are anybody's code, and for
    `jax.random.poisson`, which takes no other."""
    return named(jax.random.key_data(key), "threefry2x32")
