"""Rows of JSON in a file that is only ever appended to: metrics, one line at a time."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from duologue.errors import CheckpointError
from duologue.storage import files, json_text


class JsonRows:
    """An append-only file with one JSON object a line, each handed to the system as it comes.

    Opening it cuts a last line that a crash left without its end.
    """

    def __init__(self, path: Path):
        self.path = path
        with files.convert_write_errors(path):
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
            truncate_after(path, lambda row: True)

    def append(self, row: dict[str, Any]) -> None:
        """Raises `CheckpointError` for NaN, infinities and a full disk."""
        line = json_text.to_json(row, self.path).encode() + b"\n"
        with files.convert_write_errors(self.path):
            files.write_all(self._fd, line)

    def sync(self) -> None:
        """Make every row so far durable: before the checkpoint that will not produce them again."""
        with files.convert_write_errors(self.path):
            os.fsync(self._fd)

    def close(self) -> None:
        os.close(self._fd)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a `JsonRows` file; a last line that is still being written is left out.

    Raises `CheckpointError` naming the line that is not a JSON object.
    """
    return [row for _, row in _parse_lines(path)]


def truncate_after(path: Path, keep: Callable[[dict[str, Any]], bool]) -> None:
    """Keep the rows up to the first that `keep` refuses, and cut the file there: so a resumed run writes none twice."""
    end = 0
    for after, row in _parse_lines(path):
        if not keep(row):
            break
        end = after
    if end < path.stat().st_size:
        os.truncate(path, end)
        files.sync(path)


def _parse_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Each whole line's end in the file, and its row."""
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
