"""Append-only files of JSON rows, one in each line: the metrics of a run."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from duologue.errors import CheckpointError
from duologue.storage import files, json_text


class JsonRows:
    """An append-only file with one JSON object in each line. Each row is written in one piece.

    When it is opened, a last line that a crash left incomplete is cut off. Raises `CheckpointError`.
    """

    def __init__(self, path: Path):
        self.path = path
        with files.convert_write_errors(path):
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
            truncate_after(path, lambda row: True)

    def append(self, row: dict[str, Any]) -> None:
        """Write a row. Raises `CheckpointError` for NaN, infinities and a full disk."""
        line = json_text.to_json(row, self.path).encode() + b"\n"
        with files.convert_write_errors(self.path):
            files.write_all(self._fd, line)

    def sync(self) -> None:
        """Sync all rows to disk. Call this before a checkpoint: a run resumed from it does not write the rows again."""
        with files.convert_write_errors(self.path):
            os.fsync(self._fd)

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a `JsonRows` file, without a last line that is incomplete.

    Raises a `CheckpointError` that names the line which is not a JSON object.
    """
    return [row for _, row in _parse_lines(path)]


def truncate_after(path: Path, keep: Callable[[dict[str, Any]], bool]) -> None:
    """Cut the file before the first row that `keep` refuses, so that a resumed run writes no row twice."""
    end = 0
    for after, row in _parse_lines(path):
        if not keep(row):
            break
        end = after
    if end < path.stat().st_size:
        os.truncate(path, end)
        files.sync(path)


def _parse_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The position after each complete line, and its row."""
    end = 0
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return
            row = json_text.parse_json(line, f"{path}, line {number},")
            if not isinstance(row, dict):
                raise CheckpointError(f"{path}, line {number}, is not a JSON object.")
            end += len(line)
            yield end, row
