"""Checks of a plan before a run makes anything. Each raises an error that names what cannot work."""

import os
from pathlib import Path
from typing import Any

import jax

from duologue.algorithms.base import AbstractAlgorithm, AnyAlgorithm
from duologue.data.dataset import DataSet
from duologue.errors import ConfigError
from duologue.fields import Decay, check
from duologue.loops.keys import run_key
from duologue.loops.offline import RecordedData
from duologue.loops.replay_ring import ring_bytes
from duologue.runs.plan import Plan
from duologue.types import ACTION_MASK, Box, Dict, EnvSpec, Space, mask_sizes

CONTROL_GROUP = Path("/sys/fs/cgroup/memory.max")
"""File with the memory limit of the control group, on Linux: bytes, or `max`."""


def check_algorithm(algorithm: Any) -> None:
    """Raise `ConfigError` for anything but an algorithm object, such as its class."""
    if not isinstance(algorithm, AbstractAlgorithm):
        raise ConfigError(f"algorithm = {algorithm!r}: must be an algorithm object, like duologue.A2C().")


def check_init(plan: Plan) -> None:
    """Raise `ConfigError` for spaces that the algorithm does not support."""
    check_mask(plan.spec)
    try:
        jax.eval_shape(lambda key: plan.algorithm.init(plan.spec, key=key), run_key(0))
    except ConfigError as error:
        raise ConfigError(*error.args) from None  # without the notes that JAX adds to errors


def check_replay(plan: Plan) -> int:
    """Bytes of the replay of all seeds. Raises `ConfigError` for a replay that cannot work or does not fit into
    memory."""
    try:
        needed = ring_bytes(plan.algorithm, plan.spec, plan.num_envs, plan.seeds)
    except ConfigError as error:
        raise ConfigError(*error.args) from None
    replay, available = plan.algorithm.experience.replay, device_memory()
    if replay is not None and needed > available:
        raise ConfigError(
            f"replay_capacity = {replay.capacity:,}: the replay needs {format_bytes(needed)}, and "
            f"{format_bytes(available)} are available. Give less than {replay.capacity * available // needed:,}, or "
            "fewer seeds."
        )
    return needed


def check_data(rows: RecordedData) -> None:
    """Raise `ConfigError` for data that do not fit on the device: all rows, or the old window and the new window."""
    data, available = rows.data, device_memory()
    needed = data.nbytes if rows.window is None else 2 * data.nbytes * rows.window // len(data)
    if needed > available:
        part = "all rows" if rows.window is None else "two windows, the old and the new,"
        raise ConfigError(
            f"window = {rows.window}: {part} of {data.source} need {format_bytes(needed)} of the device, and "
            f"{format_bytes(available)} are available. Give at most {len(data) * available // (2 * data.nbytes):,}."
        )


def check_data_and_replay(plan: Plan, data: DataSet, replay_bytes: int) -> None:
    """Raise `ConfigError` for recorded data that do not fit on the device together with the replay of the run."""
    available = device_memory()
    if data.nbytes + replay_bytes > available:
        raise ConfigError(
            f"offline_fraction = {plan.offline_fraction:g}: all rows of {data.source} must lie on the device, even "
            f"with a window. They need {format_bytes(data.nbytes)}, the replay needs {format_bytes(replay_bytes)}, and "
            f"{format_bytes(available)} are available. Give 0, or train on fewer rows or with a smaller "
            "replay_capacity."
        )


def check_offline_fraction(share: float, algorithm: AnyAlgorithm) -> None:
    """Raise `ConfigError` for an `offline_fraction` outside [0, 1), or one so near to 0 or 1 that a batch would hold no
    row of the data or of the environment."""
    check(Decay, offline_fraction=share)
    replay = algorithm.experience.replay
    if replay is not None and share and (rows := round(share * (size := replay.batch_size))) in (0, size):
        remedy = f"Give 0, or from {1 / size:.2g} to {1 - 1 / size:.2g}." if size > 1 else "Give 0."
        raise ConfigError(
            f"offline_fraction = {share:g}: with batch_size = {size:,} this is {rows:,} rows, and leaves out "
            f"{'the environment' if rows else 'the data'}. {remedy}"
        )


def check_mask(spec: EnvSpec) -> None:
    """Raise `ConfigError` for an action mask that would not be read: at another place than on top of a `Dict`, with
    another length than the number of actions, or for actions that no mask can limit."""
    if not isinstance(spec.observation, Dict):
        return
    parts = spec.observation.spaces
    if inner := next((name for name, part in parts.items() if holds_mask(part)), None):
        raise ConfigError(
            f"{ACTION_MASK} of {spec.id} lies inside the part {inner!r} of the observation: a mask must be a part of "
            "the whole observation. Move it out, or give it another name."
        )
    if (mask := parts.get(ACTION_MASK)) is None:
        return
    if not (sizes := mask_sizes(spec.action)):
        raise ConfigError(
            f"{ACTION_MASK}: a mask is not possible for actions of {spec.action}. Give this observation another name."
        )
    if not isinstance(mask, Box) or mask.shape != (sum(sizes),):
        raise ConfigError(
            f"{ACTION_MASK} of {spec.id} is {mask}: must be a Box of shape {(sum(sizes),)} for {spec.action}."
        )


def holds_mask(space: Space) -> bool:
    """Whether a space has a part of the name of an action mask, at any depth."""
    return isinstance(space, Dict) and (ACTION_MASK in space.spaces or any(map(holds_mask, space.spaces.values())))


def device_memory() -> int:
    """Largest memory of a replay, in bytes: on a GPU the memory that JAX may use; on a CPU the machine's memory, or the
    limit of its control group."""
    allowed = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")
    if allowed is None:
        allowed = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        if CONTROL_GROUP.is_file() and (limit := CONTROL_GROUP.read_text().strip()).isdigit():
            allowed = min(allowed, int(limit))
    return allowed


def format_bytes(count: int) -> str:
    """A number of bytes in MiB or GiB."""
    return f"{count / 2**30:,.1f} GiB" if count >= 2**30 else f"{count / 2**20:,.1f} MiB"
