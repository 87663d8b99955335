"""Readers of HDF5 files with D4RL's layout, and of Minari's folders. They refuse links and external storage."""

import math
import os
import re
from pathlib import Path
from typing import Any

import jax
import numpy as np

from duologue.data.recording import Recording, convert_read_errors, is_column, parse_env, parse_metadata, unread_notes
from duologue.errors import ConfigError, MissingExtraError

MAX_EXPANSION = 10_000
"""Largest number of bytes that one stored byte may expand to."""


def read_hdf5(path: Path) -> Recording:
    """The columns of an HDF5 file with D4RL's layout. Raises `ConfigError`."""
    with convert_read_errors(path), import_h5py(f"reading {path}").File(path, "r") as file:
        names = [name for name in file if name not in ("infos", "extras")]
        for group in {"infos", "extras"} & set(file):
            inside = _open_item(file, group, path)
            names += (
                [f"{group}/{name}" for name in inside]
                if isinstance(inside, import_h5py(f"reading {path}").Group)
                else [group]
            )
        columns = {name: _read_item(file, name, path) for name in filter(is_column, names)}
        env, action = parse_env(dict(file.attrs), str(path), "env")
    return Recording(columns, env, action, unread_notes(set(names) - columns.keys()))


def read_minari(folder: Path) -> Recording:
    """The episodes of a Minari data set, one after another. Raises `ConfigError`."""
    path = folder / "data" / "main_data.hdf5"
    if not path.is_file():
        raise ConfigError(f"{folder} is no Minari data set in HDF5: must hold data/main_data.hdf5.")
    with convert_read_errors(path), import_h5py(f"reading {path}").File(path, "r") as file:
        names = [name for name in file if re.fullmatch(r"episode_\d+", name)]
        if not names:
            raise ConfigError(f"{path} holds no episodes.")
        names.sort(key=lambda name: int(name.removeprefix("episode_")))
        episodes = [_read_episode(_open_item(file, name, path), f"{path}: {name}") for name in names]
        columns = {name: _concatenate([each[name] for each in episodes], name) for name in episodes[0]}
        unread = {part for name in names for part in file[name]} - MINARI_COLUMNS.keys() | set(file) - set(names)
        metadata = dict(file.attrs)
    for place in (folder / "data" / "metadata.json", folder / "metadata.json"):
        if place.is_file():
            with convert_read_errors(place):
                metadata = parse_metadata(place.read_text(encoding="utf-8"), str(place), finite=False)
            break
    env, action = parse_env(metadata, str(folder), "env_spec")
    return Recording(columns, env, action, unread_notes(unread))


MINARI_COLUMNS = {name: name for name in ("observations", "actions", "rewards")}
MINARI_COLUMNS |= {"terminations": "terminals", "truncations": "timeouts"}
"""Minari's names, and D4RL's for them."""


def _read_episode(group: Any, where: str) -> dict[str, Any]:
    """The columns of one episode, `[T, …]`, from observations `[T + 1, …]`."""
    columns = {ours: _read_item(group, theirs, where) for theirs, ours in MINARI_COLUMNS.items()}
    observations, steps = columns["observations"], len(columns["rewards"])
    for name in ("terminals", "timeouts"):
        if columns[name].dtype.kind not in "biu" or columns[name].shape != (steps,):
            raise ConfigError(f"{where}: {name} must be one truth value for each of {steps} rewards.")
    if any(len(part) != steps + 1 for part in jax.tree.leaves(observations)):
        raise ConfigError(f"{where}: {steps} rewards need {steps + 1} observations, including the last one.")
    columns["observations"] = jax.tree.map(lambda x: x[:-1], observations)
    return columns | {"next_observations": jax.tree.map(lambda x: x[1:], observations)}


def _concatenate(parts: list[Any], name: str) -> Any:
    """Arrays, or dicts of arrays, joined along the first axis. Raises `ConfigError` for dicts with other keys."""
    if not isinstance(parts[0], dict):
        return np.concatenate(parts)
    if any(part.keys() != parts[0].keys() for part in parts):
        raise ConfigError(f"episodes differ in the parts of their {name}.")
    return {key: _concatenate([part[key] for part in parts], f"{name}/{key}") for key in parts[0]}


def import_h5py(task: str) -> Any:
    """The module h5py. Raises a `MissingExtraError` that names `task` if it is not installed."""
    try:
        import h5py
    except ImportError:
        raise MissingExtraError("minari", task) from None
    return h5py


def _open_item(group: Any, name: str, where: Path | str) -> Any:
    """The item `name` of this file. Raises `ConfigError` for a link."""
    link = group.get(name, getlink=True)
    if link is None:
        raise ConfigError(f"{where} has no {name!r}.")
    if type(link) is not import_h5py(f"reading {where}").HardLink:
        raise ConfigError(f"{where}: {name!r} is a link to another place: must be in the file itself.")
    return group[name]


def _read_item(group: Any, name: str, where: Path | str, depth: int = 0) -> Any:
    """A data set as an array, or a group as a dict of arrays."""
    item, where_it_is = _open_item(group, name, where), f"{where}: {name!r}"
    if isinstance(item, import_h5py(f"reading {where}").Group):
        if depth == 4:  # a group may contain itself
            raise ConfigError(f"{where_it_is} is nested deeper than 4.")
        return {part: _read_item(item, part, where_it_is, depth + 1) for part in item}
    if item.is_virtual or item.external:
        raise ConfigError(f"{where_it_is} keeps its numbers in another file: must be in the file itself.")
    if item.shape is None or item.dtype.kind not in "fiub":
        raise ConfigError(f"{where_it_is} has dtype {item.dtype}: must be real numbers or booleans.")
    # HDF5 returns zeros for data that were never written, as many as the shape says.
    stored, size = item.id.get_storage_size(), math.prod(item.shape) * item.dtype.itemsize
    allowed = stored if item.chunks is None else MAX_EXPANSION * stored
    whole = math.prod(-(-n // chunk) for n, chunk in zip(item.shape, item.chunks or (), strict=False))
    missing = item.chunks is not None and item.id.get_num_chunks() < whole
    if size > allowed or missing or stored > os.path.getsize(item.file.filename):
        raise ConfigError(
            f"{where_it_is} claims {item.dtype}{list(item.shape)}, but the file has {stored:,} bytes of it."
        )
    return item[()]
