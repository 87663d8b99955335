"""Files and folders that survive a kill and a power cut. Every byte that a run writes goes through here.

A file is written under a temporary name and synced to disk, then renamed to its own name, and its folder is synced
last. So a kill or a power cut at any moment leaves the old file or the new one, never a part of one. POSIX only.
"""

import fcntl
import hashlib
import os
import re
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from duologue.errors import CheckpointError
from duologue.storage.json_text import parse_json, to_json

MAX_JSON_BYTES = 16 * 2**20
TEMPORARY_NAME = re.compile(r".+\.tmp-(?P<host>.+)-(?P<pid>\d+)")
DTYPES = re.compile("bool|u?int(8|16|32|64)|b?float16|float32|float64|complex64")
"""Dtypes that safetensors both writes and reads."""


def sync(path: Path) -> None:
    """Sync a file, or the names in a folder, to disk. Returns when it would survive a power cut."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def temporary_path(path: Path) -> Path:
    """The temporary path, in the same folder, under which this process writes `path`."""
    return path.with_name(f"{path.name}.tmp-{socket.gethostname()}-{os.getpid()}")


@contextmanager
def convert_write_errors(path: Path) -> Iterator[None]:
    """Convert errors of the system while it writes `path` into a `CheckpointError` with the reason."""
    try:
        yield
    except OSError as error:
        raise CheckpointError(f"cannot write {path}: {error}") from error


def make_folder(path: Path) -> None:
    """Make a folder and its parents, unless they exist. Raises `CheckpointError`."""
    with convert_write_errors(path):
        if not path.is_dir():
            make_folder(path.parent)
            with suppress(FileExistsError):  # another process was faster, or a file has this name
                os.mkdir(path)
            sync(path.parent)


def try_make_folder(path: Path) -> bool:
    """Make a folder. Returns False if something has its name already. Raises `CheckpointError`."""
    make_folder(path.parent)
    with convert_write_errors(path):
        try:
            os.mkdir(path)
        except FileExistsError:
            return False
        sync(path.parent)
    return True


@contextmanager
def replace_file(path: Path) -> Iterator[Path]:
    """A temporary path for a new file. When the block ends, this file replaces `path`. If the block raises, `path`
    stays unchanged."""
    draft = temporary_path(path)
    with convert_write_errors(path):
        try:
            yield draft
            sync(draft)
            os.replace(draft, path)
            sync(path.parent)
        except BaseException:
            with suppress(OSError):
                os.unlink(draft)
            raise


@contextmanager
def build_folder(path: Path) -> Iterator[Path]:
    """A temporary empty folder to fill. When the block ends, one rename makes it `path`, which must not exist yet."""
    draft = temporary_path(path)
    if os.path.lexists(path):  # rename would replace an empty folder
        raise CheckpointError(f"cannot write {path}: it exists already.")
    with convert_write_errors(path):
        try:
            _remove(draft)
            os.mkdir(draft)
            yield draft
            for inside in sorted(draft.rglob("*")):
                sync(inside)
            sync(draft)
            os.rename(draft, path)
            sync(path.parent)
        except BaseException:
            with suppress(OSError):
                _remove(draft)
            raise


def discard(path: Path) -> None:
    """Rename a file or folder, then remove it. So under its own name it is always complete or absent."""
    draft = temporary_path(path)
    with convert_write_errors(path):
        _remove(draft)
        os.rename(path, draft)
        sync(path.parent)
        _remove(draft)


def remove_leftovers(folder: Path) -> None:
    """Remove unfinished files of this process and of dead processes of this machine. Never call it while saving."""
    with convert_write_errors(folder):
        for entry in sorted(folder.iterdir()):
            match = TEMPORARY_NAME.fullmatch(entry.name)
            if match and match["host"] == socket.gethostname() and not _is_alive_elsewhere(int(match["pid"])):
                _remove(entry)


def _remove(path: Path) -> None:
    """Remove a file, or a folder with its content, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        with suppress(FileNotFoundError):
            os.unlink(path)


def _is_alive_elsewhere(pid: int) -> bool:
    """Whether another process has this id. This process may have the id of a dead one: then False."""
    if pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def write_text(path: Path, text: str) -> None:
    """Replace a file by `text`, in UTF-8. Raises `CheckpointError` if that fails, and leaves the old file as it was."""
    with replace_file(path) as draft:
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o666)
        try:
            write_all(fd, text.encode())
        finally:
            os.close(fd)


def write_json(path: Path, value: Any) -> None:
    """Replace a file by `value` in strict JSON. Raises `CheckpointError` for NaN, infinity and unknown types."""
    write_text(path, to_json(value, path, indent=2) + "\n")


def read_json(path: Path, *, max_bytes: int = MAX_JSON_BYTES) -> Any:
    """The value of a strict JSON file. Raises `CheckpointError` for a file that is missing, too large, or nested deeper
    than 64, and for duplicate keys, NaN and infinities."""
    return parse_json(read_bytes(path, max_bytes=max_bytes), path)


def read_bytes(path: Path, *, max_bytes: int = MAX_JSON_BYTES) -> bytes:
    """The content of a small file. Raises `CheckpointError` if it cannot be read, or holds more than `max_bytes`."""
    try:
        with open(path, "rb") as file:
            data = file.read(max_bytes + 1)
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from error
    if len(data) > max_bytes:
        raise CheckpointError(f"{path} is too large for a file of its kind: must hold at most {max_bytes:,} bytes.")
    return data


def write_all(fd: int, data: bytes) -> None:
    """Write all bytes to an open file: `os.write` may write only some."""
    left = memoryview(data)
    while left:
        left = left[os.write(fd, left) :]


def save_arrays(path: Path, arrays: dict[str, Any]) -> None:
    """Replace a safetensors file by NumPy `arrays`. Raises `CheckpointError` for a dtype that could not be read
    back."""
    import numpy as np  # late, as safetensors: `duologue list` starts without them
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    # safetensors silently writes the memory of a strided array in the wrong order.
    arrays = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    for name, array in arrays.items():
        if not DTYPES.fullmatch(array.dtype.name):
            raise CheckpointError(
                f"cannot write {path}: {name} has dtype {array.dtype}, which safetensors cannot hold."
            )
    with replace_file(path) as draft:
        try:
            save_file(arrays, draft)
        except SafetensorError as error:
            raise CheckpointError(f"cannot write {path}: {error}") from error


def load_arrays(path: Path) -> dict[str, Any]:
    """The NumPy arrays of a safetensors file. Raises `CheckpointError` for any other file. Altered numbers raise no
    error."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"cannot read {path}: {error}") from error


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class RunLock:
    """A context that locks a folder for this process. Raises `CheckpointError` if another process holds the lock.

    The kernel releases the lock when the process ends, in any way, so the lock of a dead run needs no cleaning.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def __enter__(self) -> "RunLock":
        with convert_write_errors(self.folder / "lock"):
            self._fd = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = "".join(filter(str.isprintable, os.pread(self._fd, 300, 0).decode(errors="replace")))
            os.close(self._fd)
            raise CheckpointError(
                f"{self.folder} is in use by {holder or 'another process'}. "
                "Wait for it, stop it, or use another folder."
            ) from error
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
        return self

    def __exit__(self, *_: object) -> None:
        os.ftruncate(self._fd, 0)
        os.close(self._fd)
