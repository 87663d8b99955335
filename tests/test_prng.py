"""Random keys: the published hash, and JAX's bits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from duologue import prng
from duologue.loops.state import run_key

OURS, JAXS = (jax.random.key(3, impl=impl) for impl in (prng.THREEFRY, "threefry2x32"))


@pytest.mark.parametrize(
    ("key", "counter", "words"),
    [
        ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
        ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
        ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
    ],
)
def test_known_answers(key, counter, words):
    """Of the authors' library, Random123."""
    got = prng.threefry(jnp.array(key, jnp.uint32), *(jnp.uint32(word) for word in counter))
    assert tuple(map(int, got)) == words


DRAWS = {
    "keys": lambda key: jax.random.key_data(jax.random.split(key, (2, 3))),
    "a folded key": lambda key: jax.random.key_data(jax.random.fold_in(key, 2**32 - 3)),
    "a key folded from a traced number": lambda key: jax.random.key_data(
        jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(5))
    ),
    "8 bits": lambda key: jax.random.bits(key, (7,), "uint8"),
    "16 bits": lambda key: jax.random.bits(key, (), "uint16"),
    "32 bits": lambda key: jax.random.bits(key, (3, 5)),
    "no bits": lambda key: jax.random.bits(key, (0,)),
    "normals": lambda key: jax.random.normal(key, (4, 6)),
    "integers": lambda key: jax.random.randint(key, (9,), -3, 100),
    "categories": lambda key: jax.random.categorical(key, jnp.zeros((5, 3))),
    "permutation": lambda key: jax.random.permutation(key, 100),
    "gammas": lambda key: jax.random.gamma(key, 2.0, (3,)),
    "normals of many keys": lambda key: jax.vmap(lambda key: jax.random.normal(key, (2,)))(jax.random.split(key, 4)),
}


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_the_bits_are_those_of_jax(draw):
    ours = draw(OURS)
    np.testing.assert_array_equal(ours, draw(JAXS))
    np.testing.assert_array_equal(ours, jax.jit(draw)(OURS))


def test_64_bits_are_those_of_jax():
    with jax.enable_x64(True):
        np.testing.assert_array_equal(*(jax.random.bits(key, (5,), "uint64") for key in (OURS, JAXS)))


def test_seeds_are_those_of_jax():
    for seed in (0, 1, 2**31 - 1):
        np.testing.assert_array_equal(*map(jax.random.key_data, (run_key(seed), jax.random.key(seed))))


def test_a_key_is_known_by_name_and_comes_back():
    for key in (OURS, JAXS, jax.random.key(3, impl="rbg")):
        again = prng.named(jax.random.key_data(key), prng.name_of(key))
        assert again.dtype == key.dtype and jax.random.key_impl(again) == jax.random.key_impl(key)
    assert prng.name_of(OURS) != prng.name_of(JAXS) == "threefry2x32"


def test_others_get_the_key_in_the_form_they_know():
    assert jax.random.key_impl(prng.standard(OURS)) == "threefry2x32"
    np.testing.assert_array_equal(*map(jax.random.key_data, (prng.standard(OURS), OURS)))
    np.testing.assert_array_equal(*(jax.random.poisson(prng.standard(key), 4.0, (9,)) for key in (OURS, JAXS)))


def test_a_draw_has_no_loop():
    program = jax.jit(lambda key: jax.random.normal(jax.random.fold_in(key, 1), (8,)))
    assert " while(" not in program.lower(OURS).compile().as_text()
    assert {prng.name_of(OURS): prng.THREEFRY} == prng.IMPLEMENTATIONS
