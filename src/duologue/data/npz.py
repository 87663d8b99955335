"""Recorded data as files hold it: `.npz`, HDF5 as D4RL lays it out, and Minari's folders. Columns come out untouched.

A file from elsewhere may be broken or made to harm. Nothing in it is run, nothing outside it is followed, and no array
is read before its size has been compared with the file's own.
"""

import math
import zipfile
from pathlib import Path

import numpy as np

from duologue.data.recording import Recording, convert_read_errors, is_column, parse_env, parse_metadata, unread_notes
from duologue.errors import ConfigError
from duologue.types import Space

MAX_DEFLATE = 1_100
"""Deflate expands no byte to more than this."""


def read_npz(path: Path) -> Recording:
    """The columns of a `.npz` file; an entry `metadata` may hold JSON about the environment. Raises `ConfigError`."""
    with convert_read_errors(path), zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        names = [member.filename.removesuffix(".npy") for member in members]
        for name, member in zip(names, members, strict=True):
            if not member.filename.endswith(".npy"):
                raise ConfigError(f"{path} holds {member.filename!r}, which is no .npy array.")
            if names.count(name) > 1:
                raise ConfigError(f"{path} holds {name!r} twice.")
        if sum(member.compress_size for member in members) > path.stat().st_size:
            raise ConfigError(f"{path} says that it holds more bytes than it has.")
        read = {
            name: member for name, member in zip(names, members, strict=True) if is_column(name) or name == "metadata"
        }
        columns = {name: _read_member(path, archive, member) for name, member in read.items()}
    env, action = _read_metadata(columns.pop("metadata", None), path)
    return Recording(columns, env, action, unread_notes(set(names) - read.keys()))


def _read_member(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    """One array. Its header is read first: NumPy allocates what that says."""
    where = f"{path}: {member.filename!r}"
    plausible = member.file_size <= MAX_DEFLATE * (member.compress_size + 1)
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or not plausible:
        raise ConfigError(f"{where} is compressed as NumPy never does.")
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        if version not in header:
            raise ConfigError(f"{where} has version {version} of the .npy format: must be 1.0 or 2.0.")
        shape, _, dtype = header[version](file)
        if dtype.hasobject:
            raise ConfigError(f"{where} holds Python objects, which are never read. Save plain arrays.")
        if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != member.file_size - file.tell():
            raise ConfigError(f"{where} does not hold the {dtype}{list(shape)} that its header says.")
    with archive.open(member) as file:
        array = np.lib.format.read_array(file)
        file.read(1)  # only at the end of a member is its checksum compared
    return array


def _read_metadata(array: np.ndarray | None, path: Path) -> tuple[str | None, Space | None]:
    if array is None:
        return None, None
    if array.shape or array.dtype.kind != "U":
        raise ConfigError(f"{path}: 'metadata' is {array.dtype}{list(array.shape)}: must be one string of JSON.")
    return parse_env(parse_metadata(str(array), f"{path}: 'metadata'"), f"{path}: 'metadata'", "env")
