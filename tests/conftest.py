"""Strict JAX for every test: two CPU devices, no silent broadcasting or promotion, programs cached between runs."""

import os
from pathlib import Path

import jax
import jaxtyping
import pytest

jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_compilation_cache_dir", str(Path(__file__).parent.parent / ".cache" / "jax"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
# Three quarters of a test's time in a fresh clone were XLA's. With these it makes the same program, polished less.
QUICKLY = "--xla_cpu_use_fusion_emitters=false --xla_backend_optimization_level=1"
os.environ.setdefault("XLA_FLAGS", f"{QUICKLY} --xla_cpu_parallel_codegen_split_count=1")


@pytest.fixture
def key() -> jax.Array:
    return jax.random.key(0)


@pytest.fixture
def unchecked():
    """Without the types checked at run time: to see what a user sees, or to trace a float."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
