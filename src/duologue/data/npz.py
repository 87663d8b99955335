"""Reader of `.npz` files. It compares the size of an array with that of the file before it reads the array."""

import math
import zipfile
from pathlib import Path

import numpy as np

from duologue.data.recording import Recording, convert_read_errors, is_column, parse_env, parse_metadata, unread_notes
from duologue.errors import ConfigError
from duologue.types import Space

MAX_DEFLATE = 1_100
"""Largest number of bytes that Deflate expands one byte to."""


def read_npz(path: Path) -> Recording:
    """The columns of a `.npz` file; an entry `metadata` may hold JSON about the environment. Raises `ConfigError`."""
    with convert_read_errors(path), zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        names = [member.filename.removesuffix(".npy") for member in members]
        for name, member in zip(names, members, strict=True):
            if not member.filename.endswith(".npy"):
                raise ConfigError(f"{path} holds {member.filename!r}, but each of its files must be a .npy array.")
            if names.count(name) > 1:
                raise ConfigError(f"{path} holds {name!r} twice.")
        if sum(member.compress_size for member in members) > path.stat().st_size:
            raise ConfigError(f"{path} is incomplete or damaged: its headers give a larger size than the file has.")
        read = {
            name: member for name, member in zip(names, members, strict=True) if is_column(name) or name == "metadata"
        }
        columns = {name: _read_member(path, archive, member) for name, member in read.items()}
    env, action = _read_metadata(columns.pop("metadata", None), path)
    return Recording(columns, env, action, unread_notes(set(names) - read.keys()))


def _read_member(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    """One array. Its header is checked first, because NumPy allocates what it says."""
    where = f"{path}: {member.filename!r}"
    plausible = member.file_size <= MAX_DEFLATE * (member.compress_size + 1)
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or not plausible:
        raise ConfigError(f"{where} is not compressed as NumPy does.")
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        if version not in header:
            raise ConfigError(f"{where} has version {version} of the .npy format: must be 1.0 or 2.0.")
        shape, _, dtype = header[version](file)
        if dtype.hasobject:
            raise ConfigError(f"{where} holds Python objects: must be a plain array.")
        if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != member.file_size - file.tell():
            raise ConfigError(f"{where} does not hold the {dtype}{list(shape)} of its header.")
    with archive.open(member) as file:
        array = np.lib.format.read_array(file)
        file.read(1)  # zipfile compares the checksum only at the end of a member
    return array


def _read_metadata(array: np.ndarray | None, path: Path) -> tuple[str | None, Space | None]:
    if array is None:
        return None, None
    if array.shape or array.dtype.kind != "U":
        raise ConfigError(f"{path}: 'metadata' is {array.dtype}{list(array.shape)}: must be one string of JSON.")
    return parse_env(parse_metadata(str(array), f"{path}: 'metadata'"), f"{path}: 'metadata'", "env")
