"""Random keys of a run, derived by purpose and counter, never by the order of calls."""

import zlib

import jax
from jaxtyping import Array, Int, Key


def run_key(seed: int) -> Key[Array, ""]:
    """The key all others of a run are derived from. The implementation is named, never left to a default."""
    return jax.random.key(seed, impl="threefry2x32")


def purpose_key(key: Key[Array, ""], purpose: str) -> Key[Array, ""]:
    """The key that all of one purpose are folded from; loops make it once, outside."""
    return jax.random.fold_in(key, zlib.crc32(purpose.encode()))


def key_for(key: Key[Array, ""], purpose: str, step: int | Int[Array, ""] = 0) -> Key[Array, ""]:
    """The key of one purpose at one step, never of the order of calls: so what is logged or evaluated changes
    nothing."""
    return jax.random.fold_in(purpose_key(key, purpose), step)
