"""What a planted bug is."""

from typing import NamedTuple


class Mutant(NamedTuple):
    """A bug: in `file`, below `src/duologue`, `old` (which stands there once) becomes `new`; `tests` are to notice."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


def of(file: str, *names: str) -> tuple[str, ...]:
    """Tests by their names in a file of tests."""
    return tuple(f"{file}::test_{name}" for name in names)


def of_algorithm(algorithm: str, *names: str) -> tuple[str, ...]:
    """Tests by their names in the file of an algorithm."""
    return of(f"algorithms/test_{algorithm}.py", *names)
