"""What a planted bug is."""

from typing import NamedTuple


class Mutant(NamedTuple):
    """A bug: in `file`, below `src/duologue`, `old` (which stands there once) becomes `new`; `tests` are to notice."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
