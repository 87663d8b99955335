"""How many iterations a device call makes: enough to be fat, few enough that a person sees progress."""

import time
from collections.abc import Callable, Iterator

CHUNK_SECONDS = 0.5
"""A device call is made about this long, so that a person sees progress and can interrupt."""


class Chunks:
    """Calls that grow: from one iteration on, twice as many while a full call takes less than half of
    `CHUNK_SECONDS`."""

    def __init__(self) -> None:
        self.length = 1

    def between(self, first: int, until: int, interrupted: Callable[[], bool]) -> Iterator[tuple[int, int]]:
        """`(first, count)` of each call; what is timed is the body of the loop over them, which has to wait for its
        call."""
        while first < until and not interrupted():
            count, began = min(self.length, until - first), time.perf_counter()
            yield first, count
            first += count
            if count == self.length and time.perf_counter() - began < CHUNK_SECONDS / 2:
                self.length *= 2
