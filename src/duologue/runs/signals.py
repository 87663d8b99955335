"""Ctrl-C and SIGTERM: the first asks the loop to stop at its next boundary and save; the second leaves at once."""

import os
import signal
import threading
from contextlib import suppress
from types import FrameType

EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}
"""What the command line returns after saving: 128 + the signal's number."""


class Interruption:
    """A context in which signals set a flag. Outside of the main thread it does nothing: signals do not arrive
    there."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._before: dict[int, object] = {}

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in EXIT_CODES}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # pyright: ignore[reportArgumentType]

    def __call__(self) -> bool:
        return self.signal is not None

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None:
            os._exit(EXIT_CODES[signal.Signals(number)])
        self.signal = number
        with suppress(OSError):  # by the system's call: a handler may not print
            os.write(2, b"\nstopping at the next boundary, saved; once more leaves at once, unsaved\n")

    def raise_again(self) -> None:
        """What an uncaught signal would have raised, once everything is saved."""
        if self.signal == signal.SIGINT:
            raise KeyboardInterrupt
        if self.signal == signal.SIGTERM:
            raise SystemExit(EXIT_CODES[signal.SIGTERM])
