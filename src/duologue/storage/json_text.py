"""Strict JSON: numbers are finite, and no object has a key twice."""

import json
import math
from pathlib import Path
from typing import Any

from duologue.errors import CheckpointError

MAX_NESTING = 64


def loads(text: str, *, finite: bool = True) -> Any:
    """The value of JSON in which no object has a key twice; with `finite`, all numbers are finite. Raises `ValueError`,
    or `RecursionError` if it is nested too deep."""
    number = _finite_number if finite else float
    return json.loads(text, object_pairs_hook=_unique_keys, parse_constant=number, parse_float=number)


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a key is twice in one object")
    return dict(pairs)


def _finite_number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):  # 1e999 is an infinity too
        raise ValueError(f"{text} is not a finite number")
    return value


def to_json(value: Any, name: Path | str, *, indent: int | None = None) -> str:
    """`value` as strict JSON in ASCII. Raises a `CheckpointError` with `name`."""
    try:
        return json.dumps(value, indent=indent, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(f"cannot write {name}: {error}") from error


def parse_json(data: bytes, name: Path | str) -> Any:
    """The value of strict JSON in UTF-8, nested at most 64 deep. Raises a `CheckpointError` with `name`."""
    try:
        value = loads(data.decode())
    except RecursionError as error:
        raise CheckpointError(f"{name} is nested deeper than {MAX_NESTING}.") from error
    except ValueError as error:
        raise CheckpointError(f"{name} is not strict JSON: {error}") from error
    level, depth = [value], 0
    while level := [x for x in level if isinstance(x, dict | list)]:
        level = [part for x in level for part in (x.values() if isinstance(x, dict) else x)]
        depth += 1
        if depth > MAX_NESTING:
            raise CheckpointError(f"{name} is nested deeper than {MAX_NESTING}.")
    return value
