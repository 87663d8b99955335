"""Strict JAX for every test: two CPU devices, no silent broadcasting or promotion, programs cached between runs."""

import gc
import os
from contextlib import nullcontext
from pathlib import Path

import jax
import jaxtyping
import pytest
from oracles import require

jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_compilation_cache_dir", str(Path(__file__).parent.parent / ".cache" / "jax"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")  # for processes that tests start
# Most of a test's time in a fresh clone is XLA's. With these flags it makes the same program, polished less.
# XLA ends the process on a flag that it does not know, and jaxlib 0.11.1 dropped the one of the fusion emitters.
QUICKLY = "--xla_cpu_use_fusion_emitters=false " if jax.__version_info__ < (0, 11, 1) else ""
os.environ.setdefault("XLA_FLAGS", f"{QUICKLY}--xla_cpu_parallel_codegen_split_count=1")
gc.set_threshold(200_000, 50, 100)  # tracing makes many objects that stay: looking through them takes 8 % of the time
jax.devices()  # the client, with these settings: `prepare_jax` leaves it as it is


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Compile for speed where a test is slow, and quickly elsewhere. Skip a test marked `needs("name")` where that
    package is not installed, and say so."""
    jax.config.update("jax_disable_most_optimizations", item.get_closest_marker("slow") is None)
    for marker in item.iter_markers("needs"):
        for name in marker.args:
            require(name)


@pytest.fixture
def key() -> jax.Array:
    return jax.random.key(0)


@pytest.fixture
def optimized():
    """Programs as users have them: rounded in the last bit as there, and faster once compiled."""
    jax.clear_caches()  # an earlier test may have compiled the same program in the other way
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture
def unchecked():
    """Without the types checked at run time: to see what a user sees, or to trace a float."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def fake_loop(request):
    """Runs that compile no learner, except in tests marked `learns`."""
    from runs.fake_loop import (
        no_learning,
    )  # here: an import of the package before its types are checked stays unchecked

    with nullcontext() if request.node.get_closest_marker("learns") else no_learning():
        yield
