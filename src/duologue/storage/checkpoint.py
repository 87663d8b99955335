"""Checkpoints: a folder `step-000000012345`, which is complete or absent.

`state.safetensors` holds the leaves of a PyTree by name. `manifest.json`, written last, holds their hash and their
origin. The structure is not stored: the caller of `load_tree` passes it. Nothing here executes what it reads.
"""

import dataclasses
import hashlib
import os
import platform
import re
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from duologue.errors import CheckpointError
from duologue.storage import files, json_text
from duologue.types import PyTree

SCHEMA = 1
STATE, MANIFEST = "state.safetensors", "manifest.json"
STEP_NAME = re.compile(r"step-(\d{12,})")

JAX_FLAGS = ("jax_default_prng_impl", "jax_threefry_partitionable", "jax_enable_x64", "jax_default_matmul_precision")


@dataclass(frozen=True)
class Manifest:
    """Facts about a checkpoint, which `manifest.json` holds."""

    step: int
    info: dict[str, Any]
    """The caller's own facts, such as the score."""
    fingerprint: dict[str, Any]
    """Result of `fingerprint`: versions, device, flags and PRNG of the process that saved it."""
    keys: dict[str, str]
    """The implementation of each leaf that is a typed PRNG key."""
    files: dict[str, dict[str, Any]]
    """`size` and `sha256` of each file."""
    schema: int = SCHEMA


def fingerprint() -> dict[str, Any]:
    """Facts that change the bits of results, besides program and input: versions, device, flags and the PRNG."""
    device = jax.devices()[0]
    return {
        **{package: version(package) for package in ("jax", "jaxlib", "numpy")},
        "backend": jax.default_backend(),
        "device": f"{jax.device_count()} x {device.device_kind}",
        **{flag: getattr(jax.config, flag) for flag in JAX_FLAGS},
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "cpus": os.cpu_count(),
        "threads": cpu_threads(),
        "platform": f"{platform.system()} {platform.machine()}",
    }


def cpu_threads() -> int:
    """Number of threads of JAX's CPU client. With another number, large matrix products round differently."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return int(os.environ.get("NPROC") or cores)


def fingerprint_changes(manifest: Manifest) -> list[str]:
    """Differences between the fingerprint of the checkpoint and the present one, in words. If any, bits may differ."""
    saved, now = manifest.fingerprint, fingerprint()
    return [f"{name}: {saved.get(name)} then, {now[name]} now" for name in now if saved.get(name) != now[name]]


def checkpoint_path(directory: Path, step: int, kind: Literal["step", "post-mortem"] = "step") -> Path:
    """The path of the checkpoint of a step, whether it exists or not."""
    return directory / f"{kind}-{step:012d}"


def save_tree(directory: Path, step: int, tree: PyTree, *, info: dict[str, Any], check: PyTree = None) -> Path:
    """Write `tree` as `directory/step-…`. Returns that path once the checkpoint would survive a power cut.

    A valid checkpoint of this step stays as it is. `check` is the part that must be finite; by default the whole tree.
    If a floating leaf of `check` holds NaN or infinity, the state is written to `post-mortem-…`, which `find_latest`
    never returns, and `CheckpointError` is raised. It is also raised if the disk cannot be written. Earlier checkpoints
    stay.
    """
    arrays, keys = _host_arrays(tree)
    checked = arrays if check is None else _host_arrays(check)[0]
    broken = [name for name, x in checked.items() if jnp.issubdtype(x.dtype, jnp.inexact) and not np.isfinite(x).all()]
    path = checkpoint_path(directory, step, "post-mortem" if broken else "step")
    files.make_folder(directory)
    if os.path.lexists(path) and verify(path) is not None:
        files.discard(path)
    if not path.exists():
        with files.build_folder(path) as folder:
            files.save_arrays(folder / STATE, arrays)
            state = {"size": (folder / STATE).stat().st_size, "sha256": files.sha256(folder / STATE)}
            manifest = Manifest(step=step, info=info, fingerprint=fingerprint(), keys=keys, files={STATE: state})
            files.write_text(folder / MANIFEST, _seal(dataclasses.asdict(manifest)))
    if broken:
        raise CheckpointError(
            f"NaN or infinity at step {step} in {_list_names(broken)}. The state is kept in {path} for inspection. "
            "Earlier checkpoints are intact."
        )
    return path


def load_tree(path: Path, like: PyTree, *, part: str = "") -> PyTree:
    """The tree saved at `path`, in the structure of `like`, whose leaves are arrays or `jax.ShapeDtypeStruct`, also of
    typed keys.

    `part` names the subtree that `like` describes, such as `".algorithm"`; by default everything. A leaf `...` of
    `like` takes the NumPy array of its name, with any shape and dtype. Leaves that are JAX's in `like` come back as JAX
    arrays, all others as NumPy arrays. Raises `CheckpointError` for a damaged checkpoint, and for every difference in
    names, shapes or dtypes: nothing is cast.
    """
    problem = verify(path)
    if problem:
        raise CheckpointError(f"{path} cannot be loaded: {problem}.")
    whole = _wrap_keys(files.load_arrays(path / STATE), read_manifest(path).keys, path)
    values = {name.removeprefix(part): leaf for name, leaf in whole.items() if _is_below(part, name)}
    named = _leaves_by_name(like)
    wanted = {name: _dtype_and_shape(leaf) for name, leaf in named.items() if leaf is not ...}
    saved = {name: _dtype_and_shape(leaf) for name, leaf in values.items() if named.get(name) is not ...}
    wanted |= {name: "any array" for name, leaf in named.items() if leaf is ... and name not in values}
    differences = [
        f"{name} ({saved.get(name, 'absent')} in the checkpoint, {wanted.get(name, 'absent')} in this run)"
        for name in sorted(saved.keys() | wanted.keys())
        if saved.get(name) != wanted.get(name)
    ]
    if differences:
        raise CheckpointError(
            f"{path} was saved by another configuration. {len(differences)} leaves differ: {_list_names(differences)}. "
            "Use the algorithm, networks, environment, number of environments and seeds of the run that saved it."
        )
    restored = [jnp.array(values[name]) if _is_jax(leaf) else values[name] for name, leaf in named.items()]
    return jax.tree.unflatten(jax.tree.structure(like), restored)


def verify(path: Path) -> str | None:
    """The fault of a checkpoint, in words; `None` if every byte is as written."""
    if path.is_symlink() or not path.is_dir():
        return "it is not a folder"
    try:
        for entry in path.iterdir():
            if entry.is_symlink() or not entry.is_file():
                return f"{entry.name} is not a plain file"
        manifest = read_manifest(path)
        found, wanted = set(os.listdir(path)), {MANIFEST, *manifest.files}
        if found != wanted:
            extra, missing = sorted(found - wanted), sorted(wanted - found)
            return "; ".join([f"{name} is missing" for name in missing] + [f"{name} does not belong" for name in extra])
        for name, expected in manifest.files.items():
            size = (path / name).stat().st_size
            if size != expected["size"]:
                return f"{name} holds {size:,} bytes instead of {expected['size']:,}"
            if files.sha256(path / name) != expected["sha256"]:
                return f"{name} was altered after it was written (its SHA-256 differs)"
    except (CheckpointError, OSError) as error:
        return str(error).rstrip(".")
    return None


def read_manifest(path: Path) -> Manifest:
    """The manifest of a checkpoint. Raises `CheckpointError` if it was altered. It does not look at the arrays."""
    where = path / MANIFEST
    data = files.read_bytes(where)
    content = json_text.parse_json(data, where)
    if not isinstance(content, dict):
        raise CheckpointError(f"{where} is not a JSON object.")
    if content.get("schema") != SCHEMA:
        raise CheckpointError(
            f"{where} has format version {content.get('schema')!r}: must be {SCHEMA} for this version of Duologue. "
            "Use the version of Duologue that wrote it, or a newer one."
        )
    content.pop("sha256", None)
    if _seal(content).encode() != data:
        raise CheckpointError(f"{where} was altered after it was written (its SHA-256 differs).")
    if not _is_well_formed(content):
        raise CheckpointError(f"{where} does not hold the fields of a checkpoint's manifest.")
    return Manifest(**content)


def has_checkpoint(run: Path) -> bool:
    """Whether a run folder has a checkpoint to resume from, valid or not."""
    return bool(_newest_first(run / "checkpoints" / "latest"))


def find_latest(directory: Path) -> tuple[Path, list[str]]:
    """The newest valid checkpoint, to resume from, and a warning for each newer one that is damaged.

    Raises `CheckpointError` if there is no valid one, so that no run silently begins again.
    """
    warnings: list[str] = []
    for path in _newest_first(directory):
        problem = verify(path)
        if problem is None:
            return path, warnings
        warnings.append(f"{path} is damaged and was skipped: {problem}.")
    raise CheckpointError(" ".join([f"{directory} has no checkpoint that can be loaded.", *warnings]))


def prune(directory: Path, *, keep: int = 2) -> None:
    """Delete all checkpoints older than the newest `keep` valid ones, and unfinished files of dead processes."""
    valid = 0
    for path in _newest_first(directory):
        if valid >= keep:
            files.discard(path)
        elif verify(path) is None:
            valid += 1
    files.remove_leftovers(directory)


def _newest_first(directory: Path) -> list[Path]:
    """The paths of all `step-…`, valid or not, the newest first."""
    names = [path for path in directory.iterdir() if STEP_NAME.fullmatch(path.name)] if directory.is_dir() else []
    return sorted(names, key=lambda path: int(path.name.removeprefix("step-")), reverse=True)


def _leaves_by_name(tree: PyTree) -> dict[str, Any]:
    """The leaves of a tree by their paths, such as `.algorithm.step`."""
    return {jax.tree_util.keystr(where): leaf for where, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]}


def _host_arrays(tree: PyTree) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The leaves by name, on the host, with the data of typed keys; and the implementations of these keys."""
    named = _leaves_by_name(tree)
    keys = {name: str(jax.random.key_impl(leaf)) for name, leaf in named.items() if _is_key(leaf)}
    plain = {name: jax.random.key_data(leaf) if name in keys else leaf for name, leaf in named.items()}
    return {name: np.asarray(leaf) for name, leaf in jax.device_get(plain).items()}, keys


def _wrap_keys(arrays: dict[str, np.ndarray], keys: dict[str, str], path: Path) -> dict[str, Any]:
    """The inverse of `_host_arrays`."""
    try:
        return arrays | {name: jax.random.wrap_key_data(jnp.array(arrays[name]), impl=keys[name]) for name in keys}
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} holds PRNG keys that this version of JAX cannot use: {error}") from error


def _is_below(part: str, name: str) -> bool:
    """Whether the leaf `name` belongs to the subtree `part`."""
    return name.startswith(part) and name[len(part) : len(part) + 1] in ("", ".", "[")


def _is_key(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _is_jax(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | jax.ShapeDtypeStruct) and not _is_key(leaf)


def _dtype_and_shape(leaf: Any) -> str:
    """Dtype and shape as text. A dtype that JAX would narrow to 32 bits appears with 32 bits."""
    dtype = leaf.dtype if hasattr(leaf, "dtype") else np.asarray(leaf).dtype
    if _is_jax(leaf):
        dtype = jax.dtypes.canonicalize_dtype(dtype)
    return f"{dtype}{list(np.shape(leaf))}"


def _seal(content: dict[str, Any]) -> str:
    """The text of a manifest with its own hash, so that every change of a byte is found."""
    digest = hashlib.sha256(json_text.to_json(content, MANIFEST).encode()).hexdigest()
    return json_text.to_json({**content, "sha256": digest}, MANIFEST, indent=2) + "\n"


def _is_well_formed(content: dict[str, Any]) -> bool:
    """Whether a manifest has the fields of `Manifest`, with their types: a valid hash does not prove that."""
    kinds = {"step": int, "info": dict, "fingerprint": dict, "keys": dict, "files": dict, "schema": int}
    return (
        content.keys() == kinds.keys()
        and all(isinstance(content[name], kind) for name, kind in kinds.items())
        and content["files"].keys() == {STATE}
        and all(isinstance(entry, dict) and entry.keys() == {"size", "sha256"} for entry in content["files"].values())
        and all(isinstance(entry["size"], int) for entry in content["files"].values())
        and all(isinstance(implementation, str) for implementation in content["keys"].values())
    )


def _list_names(names: list[str], limit: int = 10) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
