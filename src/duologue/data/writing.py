"""Writers of recorded data: `.npz` or HDF5 files with D4RL's names."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from duologue.data.dataset import DataSet
from duologue.data.hdf5 import import_h5py
from duologue.errors import CheckpointError, ConfigError
from duologue.storage import files
from duologue.types import Box, Dict, Discrete, EnvSpec, MultiDiscrete, Space, box_sides, to_env_actions


def prepend_columns(first: dict[str, np.ndarray], columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """`columns`, each after the column of its name in `first`, if there is one."""
    return {name: np.concatenate([first.get(name, x[:0]), x]) for name, x in columns.items()}


def columns_of(data: DataSet) -> dict[str, np.ndarray]:
    """The columns of recorded data. Rows where the recording breaks off have no flag, because readers find them."""
    rows = data.rows
    timeouts = rows.truncated & ~np.isin(np.arange(len(data)), data.cut)
    return flatten_columns(data.spec, [rows.obs, rows.action, rows.reward, rows.terminated, timeouts, rows.next_obs])


def flatten_columns(spec: EnvSpec, columns: Sequence[Any]) -> dict[str, np.ndarray]:
    """Arrays in D4RL's order as columns under its names, with `observations/KEY` for dicts. Discrete values count from
    the environment's own start."""
    names = ("observations", "actions", "rewards", "terminals", "timeouts", "next_observations")
    seen = lambda column: add_start(spec.observation, column)  # noqa: E731
    made = lambda column: to_env_actions(spec.action, column)  # noqa: E731
    convert = {"observations": seen, "actions": made, "next_observations": seen}
    named = {
        name: convert[name](column) if name in convert else column for name, column in zip(names, columns, strict=True)
    }
    return {
        name + "".join(f"/{key.key}" for key in where): leaf
        for name, column in named.items()
        for where, leaf in jax.tree_util.tree_flatten_with_path(column)[0]
    }


def add_start(space: Space, x: Any) -> Any:
    """Convert discrete values 0 … n − 1 to the environment's own, which begin at `start`. Other values stay. NumPy
    only."""
    match space:
        case Discrete(start=start):
            return x + np.asarray(start, x.dtype)
        case MultiDiscrete():
            return x + space.starts.astype(x.dtype)
        case Dict(spaces=parts):
            return {name: add_start(part, x[name]) for name, part in parts.items()}
    return x


def write_columns(path: Path, columns: dict[str, np.ndarray], about: dict[str, Any]) -> None:
    """Write a `.npz` file, or with the extra `minari` a `.hdf5`, that `read_data` reads. `about` is its metadata. The
    file is complete or absent."""
    files.make_folder(path.parent)
    if path.suffix == ".npz":
        with files.replace_file(path) as draft, draft.open("wb") as file:
            np.savez(file, metadata=np.asarray(json.dumps(about, allow_nan=False)), **columns)  # pyright: ignore[reportArgumentType]
    else:
        h5py = import_h5py(f"writing {path}")
        with files.replace_file(path) as draft, h5py.File(draft, "w") as file:
            for name, column in columns.items():
                file.create_dataset(name, data=column)
            file.attrs.update(
                {name: value if isinstance(value, str) else json.dumps(value) for name, value in about.items()}
            )


def check_data_path(out: str | Path) -> Path:
    """The path of a new file of data. Raises `ConfigError` for another suffix than .npz, .hdf5 and .h5, for a file that
    exists, and for a place that cannot be written."""
    path = Path(out)
    if path.suffix not in (".npz", ".hdf5", ".h5"):
        raise ConfigError(f"out = {str(out)!r}: must end in .npz or .hdf5.")
    if path.exists():
        raise ConfigError(f"out = {str(out)!r} exists already. Choose another name, or delete the file.")
    if path.suffix != ".npz":
        import_h5py(f"writing {path}")
    try:
        files.make_folder(path.parent)
        with files.convert_write_errors(path):
            files.temporary_path(path).touch()
            files.temporary_path(path).unlink()
    except CheckpointError as error:
        raise ConfigError(f"out = {str(out)!r}: {error}") from error
    return path


def file_metadata(env: str, space: Space, **more: Any) -> dict[str, Any]:
    """The metadata of a file: environment, action space and `more`. Raises `ConfigError` for actions that are neither
    Box nor Discrete."""
    match space:
        case Discrete(n, start):
            action: dict[str, Any] = {"n": n, "start": start}
        case Box():
            low, high = (_nested_bounds(side, space.shape) for side in box_sides(space))
            action = {"low": low, "high": high}
        case _:
            raise ConfigError(f"actions of {space} cannot be recorded: must be Box or Discrete.")
    return {"env": env, "action_space": action, **more}


def _nested_bounds(side: np.ndarray, shape: tuple[int, ...]) -> Any:
    """The bounds of a side as nested lists of the shape of the box, `None` for an element without a bound."""
    bounds = np.asarray([float(bound) if np.isfinite(bound) else None for bound in side], object)
    return bounds.reshape(shape).tolist()
