"""Ctrl-C and SIGTERM: the first signal stops the loop soon and saves; the second quits at once without saving."""

import os
import signal
import threading
from contextlib import suppress
from types import FrameType

EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}
"""Exit code of the command line after saving: 128 + the signal's number."""


class Interruption:
    """A context in which signals set a flag; a call of the object returns the flag. Outside of the main thread it does
    nothing, because signals do not arrive there."""

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
        with suppress(OSError):  # a system call, because a handler may not print
            os.write(2, b"\nstopping soon and saving; press Ctrl-C again to quit now without saving\n")

    def raise_again(self) -> None:
        """Raise the exception of the signal, once everything is saved: `KeyboardInterrupt`, or `SystemExit(143)`."""
        if self.signal == signal.SIGINT:
            raise KeyboardInterrupt
        if self.signal == signal.SIGTERM:
            raise SystemExit(EXIT_CODES[signal.SIGTERM])
