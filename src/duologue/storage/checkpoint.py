"""Checkpoints: a folder `step-000000012345` that is whole or is not there.

`state.safetensors` holds the leaves of a PyTree by name; `manifest.json`, written last, holds what they must hash to
and where they came from. The structure is never stored: whoever loads brings it. Nothing here executes what it reads.
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
    """What a checkpoint says of itself."""

    step: int
    info: dict[str, Any]
    """The caller's own facts, such as the score."""
    fingerprint: dict[str, Any]
    """What the bits depend on beside the program; see `fingerprint`."""
    keys: dict[str, str]
    """The implementation of each leaf that is a typed PRNG key."""
    files: dict[str, dict[str, Any]]
    """`size` and `sha256` of each file."""
    schema: int = SCHEMA


def fingerprint() -> dict[str, Any]:
    """What bits depend on beside the program and its input: versions, device, flags and the PRNG."""
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
    """Threads of JAX's CPU client: large matrix products round differently with another number."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return int(os.environ.get("NPROC") or cores)


def fingerprint_changes(manifest: Manifest) -> list[str]:
    """What is different here from where the checkpoint was made, in words. If anything is, bits may differ too."""
    then, now = manifest.fingerprint, fingerprint()
    return [f"{name}: {then.get(name)} then, {now[name]} now" for name in now if then.get(name) != now[name]]


def checkpoint_path(directory: Path, step: int, kind: Literal["step", "post-mortem"] = "step") -> Path:
    """Where the checkpoint of a step is, or would be."""
    return directory / f"{kind}-{step:012d}"


def save_tree(directory: Path, step: int, tree: PyTree, *, info: dict[str, Any], check: PyTree = None) -> Path:
    """Write `tree` as `directory/step-…` and return that path, once it would survive a power cut.

    A valid checkpoint of this step is left as it is. Where a floating leaf of `check` (the part that must be finite;
    the whole tree by default) holds NaN or infinity, the state goes to `post-mortem-…`, which `latest` never returns,
    and `CheckpointError` is raised. A disk that refuses raises it too, and leaves every earlier checkpoint.
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
            f"NaN or infinity at step {step} in {_list_names(broken)}. The state is kept in {path} to look into; "
            "checkpoints before it are intact."
        )
    return path


def load_tree(path: Path, like: PyTree, *, part: str = "") -> PyTree:
    """The tree saved at `path`, in the structure of `like`: arrays or `jax.ShapeDtypeStruct`, typed keys included.

    `part` names the subtree that `like` stands for, such as `".algorithm"`; everything by default. A leaf `...` of
    `like` takes the NumPy array of its name, whatever its shape and dtype.
    Leaves that are JAX's in `like` come back as JAX arrays, all others as NumPy arrays. Raises `CheckpointError` for
    a damaged checkpoint, and for any difference of names, shapes or dtypes: nothing is ever cast.
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
            "Use the algorithm, networks, environment and number of environments and seeds it was made with."
        )
    restored = [jnp.array(values[name]) if _is_jax(leaf) else values[name] for name, leaf in named.items()]
    return jax.tree.unflatten(jax.tree.structure(like), restored)


def verify(path: Path) -> str | None:
    """What is wrong with a checkpoint, in words; `None` if every byte is as it was written."""
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
    """What the checkpoint says of itself; its arrays are not looked at. Raises `CheckpointError` if it was altered."""
    where = path / MANIFEST
    data = files.read_bytes(where)
    content = json_text.parse_json(data, where)
    if not isinstance(content, dict):
        raise CheckpointError(f"{where} is not a JSON object.")
    if content.get("schema") != SCHEMA:
        raise CheckpointError(
            f"{where} has format version {content.get('schema')!r}, and this version of Duologue reads {SCHEMA}. "
            "Use the version of Duologue that wrote it, or a newer one."
        )
    content.pop("sha256", None)
    if _seal(content).encode() != data:
        raise CheckpointError(f"{where} was altered after it was written (its SHA-256 differs).")
    if not _is_well_formed(content):
        raise CheckpointError(f"{where} does not hold the fields of a checkpoint's manifest.")
    return Manifest(**content)


def has_checkpoint(run: Path) -> bool:
    """Whether a run folder has a checkpoint to go on from, whole or not."""
    return bool(_newest_first(run / "checkpoints" / "latest"))


def find_latest(directory: Path) -> tuple[Path, list[str]]:
    """The checkpoint to resume from: the newest that is whole, and a warning for each newer one that is not.

    Raises `CheckpointError` if there is none: never a fresh start in silence.
    """
    warnings: list[str] = []
    for path in _newest_first(directory):
        problem = verify(path)
        if problem is None:
            return path, warnings
        warnings.append(f"{path} is damaged and was passed over: {problem}.")
    raise CheckpointError(" ".join([f"{directory} has no checkpoint that can be loaded.", *warnings]))


def prune(directory: Path, *, keep: int = 2) -> None:
    """Delete all that is older than the newest `keep` valid checkpoints, and what dead processes left unfinished."""
    valid = 0
    for path in _newest_first(directory):
        if valid >= keep:
            files.discard(path)
        elif verify(path) is None:
            valid += 1
    files.remove_leftovers(directory)


def _newest_first(directory: Path) -> list[Path]:
    """Every `step-…`, whatever is in it."""
    names = [path for path in directory.iterdir() if STEP_NAME.fullmatch(path.name)] if directory.is_dir() else []
    return sorted(names, key=lambda path: int(path.name.removeprefix("step-")), reverse=True)


def _leaves_by_name(tree: PyTree) -> dict[str, Any]:
    return {jax.tree_util.keystr(where): leaf for where, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]}


def _host_arrays(tree: PyTree) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The leaves by name on the host, typed keys as their data, and the implementations of these keys."""
    named = _leaves_by_name(tree)
    keys = {name: str(jax.random.key_impl(leaf)) for name, leaf in named.items() if _is_key(leaf)}
    plain = {name: jax.random.key_data(leaf) if name in keys else leaf for name, leaf in named.items()}
    return {name: np.asarray(leaf) for name, leaf in jax.device_get(plain).items()}, keys


def _wrap_keys(arrays: dict[str, np.ndarray], keys: dict[str, str], path: Path) -> dict[str, Any]:
    """The inverse of `_arrays`."""
    try:
        return arrays | {name: jax.random.wrap_key_data(jnp.array(arrays[name]), impl=keys[name]) for name in keys}
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} holds PRNG keys that this version of JAX cannot use: {error}") from error


def _is_below(part: str, name: str) -> bool:
    return name.startswith(part) and name[len(part) : len(part) + 1] in ("", ".", "[")


def _is_key(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _is_jax(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | jax.ShapeDtypeStruct) and not _is_key(leaf)


def _dtype_and_shape(leaf: Any) -> str:
    """Dtype and shape, as compared and as shown. What JAX would narrow to 32 bits here has 32."""
    dtype = leaf.dtype if hasattr(leaf, "dtype") else np.asarray(leaf).dtype
    if _is_jax(leaf):
        dtype = jax.dtypes.canonicalize_dtype(dtype)
    return f"{dtype}{list(np.shape(leaf))}"


def _seal(content: dict[str, Any]) -> str:
    """The one text of a manifest, its own hash included: any other byte shows."""
    digest = hashlib.sha256(json_text.to_json(content, MANIFEST).encode()).hexdigest()
    return json_text.to_json({**content, "sha256": digest}, MANIFEST, indent=2) + "\n"


def _is_well_formed(content: dict[str, Any]) -> bool:
    """Whether a sealed manifest has the fields of `Manifest`, of their types: anyone can seal."""
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
