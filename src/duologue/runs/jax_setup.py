"""Settings of JAX for speed, made before its first use of a device: threads, devices, and the cache of programs."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from duologue.algorithms.base import AnyAlgorithm, network_builders, unwrapped
from duologue.images import find_image
from duologue.types import Dict, Space

SMALL_PRODUCT = 2_000_000
"""Largest number of multiplications in a matrix product for which one thread is faster (docs/notes.md)."""
_one_thread = False
"""Whether `prepare_jax` chose one thread in this process."""


def prepare_jax(algorithms: Sequence[AnyAlgorithm], *, seeds: int = 1, images: bool = False) -> None:
    """Set up JAX for all runs that this process is known to make. `images`: whether one of them observes images.

    On a CPU: one thread if all matrix products are small; no asynchronous dispatch for algorithms without replay,
    because they wait for each update; for several seeds, as many devices as divide them, at most one for each core; and
    a private cache of compiled programs. The cache is in `$DUOLOGUE_CACHE`, by default the user's cache folder; an
    empty variable switches the cache off. Its programs are executed, so only the user may write there. Settings of the
    user stay, and nothing changes after JAX has used a device.
    """
    global _one_thread
    if client_exists():
        return
    if seeds == 1 and not images and all(map(is_small, algorithms)) and "NPROC" not in os.environ:
        # XLA sizes its pool of threads by this variable, once, when the client is made.
        os.environ["NPROC"], _one_thread = "1", True
    if all(algorithm.experience.replay is None for algorithm in algorithms):
        jax.config.update("jax_cpu_enable_async_dispatch", False)
    if seeds > 1 and getattr(jax.config, "jax_num_cpu_devices", -1) == -1:
        cores = os.cpu_count() or 1
        jax.config.update("jax_num_cpu_devices", max(n for n in range(1, cores + 1) if seeds % n == 0))
    if getattr(jax.config, "jax_compilation_cache_dir", None) is None and (folder := cache_folder()) is not None:
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def thread_note(algorithm: AnyAlgorithm, observation: Space) -> list[str]:
    """A note for a run that is larger than the one for which this process chose one thread."""
    if not _one_thread or (is_small(algorithm) and not has_images(observation)):
        return []
    return ["JAX has one thread in this process, chosen for a smaller run; start this run in a new process to use all"]


def is_small(algorithm: AnyAlgorithm) -> bool:
    """Whether all matrix products of an update on vectors are small; networks of the user's own count as large."""
    inner, experience = unwrapped(algorithm), algorithm.experience
    builders = network_builders(inner)
    if not builders:
        return False
    replay, rollout = experience.replay, experience.num_envs * experience.rollout_length
    rows = [getattr(inner, "minibatch_size", rollout)] if experience.learn_from_rollout else []
    rows += [replay.batch_size * (replay.sequence_length or 1)] if replay is not None else []
    width = max((size for builder in builders for size in builder.behind_vectors), default=1)
    return max(rows) * width * width <= SMALL_PRODUCT


def has_images(space: Space) -> bool:
    """Whether a part of an observation is an image."""
    match space:
        case Dict(spaces):
            return any(map(has_images, spaces.values()))
        case _:
            return find_image(space) is not None


def images_in_name(env: Any) -> bool:
    """Whether an environment that is not made yet is known to show images, by its id or its spec."""
    if isinstance(env, str):
        return env.startswith("ALE/") or "MinAtar" in env
    return hasattr(env, "spec") and hasattr(env.spec, "observation") and has_images(env.spec.observation)


def client_exists() -> bool:
    """Whether JAX has used a device in this process. JAX has only a private function for this; if missing, True."""
    from jax._src import xla_bridge

    initialized = getattr(xla_bridge, "backends_are_initialized", None)
    return True if initialized is None else initialized()


def cache_folder() -> Path | None:
    """The folder of compiled programs; `None` if the cache is switched off, or if others may write to the folder."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    name = os.environ.get("DUOLOGUE_CACHE", str(home / "duologue" / "programs"))
    if not name:
        return None
    folder = Path(name)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
    except OSError:
        return None
    return folder if status.st_uid == os.getuid() and not status.st_mode & 0o022 else None
