"""Random keys of a run, derived by purpose and counter, never by the order of calls."""

import zlib
from collections.abc import Sequence

import jax
from jaxtyping import Array, Int, Key


def run_key(seed: int) -> Key[Array, ""]:
    """The key from which all other keys of a run are derived. It fixes the PRNG, so JAX's default has no effect."""
    return jax.random.key(seed, impl="threefry2x32")


def purpose_key(key: Key[Array, ""], purpose: str) -> Key[Array, ""]:
    """The key from which all keys of one purpose are folded."""
    return jax.random.fold_in(key, zlib.crc32(purpose.encode()))


def purpose_keys(key: Key[Array, ""], purposes: Sequence[str]) -> dict[str, Key[Array, ""]]:
    """The key of each purpose. Loops make them once, outside their programs' inner loops."""
    return {purpose: purpose_key(key, purpose) for purpose in purposes}


def key_for(key: Key[Array, ""], purpose: str, step: int | Int[Array, ""] = 0) -> Key[Array, ""]:
    """The key of one purpose at one step. It does not depend on the order of calls, so logs and evaluations change
    nothing."""
    return jax.random.fold_in(purpose_key(key, purpose), step)
