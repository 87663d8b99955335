"""The reader of each kind of recorded data: `.npz`, HDF5 as D4RL lays it out, a Minari folder or id.

Columns are returned as the file has them. A file from another person may be broken or harmful. So the readers execute
nothing in it, follow no link out of it, and compare the size of an array with that of the file before they read it.
"""

import os
import re
from pathlib import Path

from duologue.data.hdf5 import read_hdf5, read_minari
from duologue.data.npz import read_npz
from duologue.data.recording import Recording
from duologue.errors import ConfigError

MINARI_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)*-v\d+")


def read_recording(source: str | Path) -> Recording:
    """The recording at a path, or of a Minari id. Raises `ConfigError` for a source that cannot be read,
    `MissingExtraError` for HDF5 without the extra `minari`."""
    path = Path(source).expanduser()
    if not path.exists() and MINARI_ID.fullmatch(str(source)):
        path = _minari_folder(str(source))
    if path.is_dir():
        return read_minari(path)
    if not path.is_file():
        raise ConfigError(f"no recorded data at {source}: must be a .npz or HDF5 file, a Minari folder or a Minari id.")
    match path.suffix:
        case ".npz":
            return read_npz(path)
        case ".hdf5" | ".h5":
            return read_hdf5(path)
    raise ConfigError(f"{path} must be a .npz, .hdf5 or .h5 file, or a Minari folder.")


def _minari_folder(name: str) -> Path:
    """The folder into which Minari has downloaded the data set of this id. Raises `ConfigError`."""
    root = Path(os.environ.get("MINARI_DATASETS_PATH") or "~/.minari/datasets").expanduser()
    if not (root / name).is_dir():
        raise ConfigError(f"the data set {name} is not in {root}. Fetch it first: minari download {name}")
    return root / name
