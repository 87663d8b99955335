"""What a person sees while an agent learns: a live screen in a terminal, plain lines everywhere else.

A screen keeps a `frame.Progress` and decides when and where it is drawn; the drawing itself is pure, in `frame`.
"""

import contextlib
import math
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, runtime_checkable

from rich.console import Console, RenderableType
from rich.live import Live

from duologue.runs.display.picture import Progress, progress_line, render


@runtime_checkable
class Screen(Protocol):
    """Where progress is shown; also a context manager. No method raises for what a terminal cannot do."""

    def start(self, step: int = 0) -> None:
        """Begin, at `step` where a run goes on. Entering the context begins at 0; a second call moves the beginning."""
        ...

    def update(self, step: int, metrics: Mapping[str, float]) -> None:
        """Show `metrics` (means over the seeds, where there are several) at environment step `step`."""
        ...

    def note(self, text: str) -> None:
        """Show one line of words: what is going on, what was saved, a warning."""
        ...

    def stop(self) -> None: ...
    def __enter__(self) -> "Screen": ...
    def __exit__(self, *exception: object) -> None: ...


def make_screen(total_steps: int, title: str, *, folder: Path | None = None, console: Console | None = None) -> Screen:
    """The live screen where the terminal can show it, else plain lines. `title` names algorithm, environment, seeds and
    device."""
    console = console or Console()
    live = console.is_terminal and not console.is_dumb_terminal and console.encoding.lower().startswith("utf")
    return (LiveScreen if live else PlainScreen)(Progress(total_steps, title, folder), console)


class LiveScreen:
    """The full picture, drawn twice a second by a thread of its own; the last frame stays when it stops."""

    def __init__(self, progress: Progress, console: Console):
        self.progress, self._console, self._began = progress, console, time.perf_counter()
        self._lock = threading.Lock()  # the drawing thread reads what training writes
        self._live = Live(get_renderable=self._frame, console=console, refresh_per_second=2)

    def _seconds(self) -> float:
        return time.perf_counter() - self._began

    def _frame(self) -> RenderableType:
        with self._lock:
            return render(self.progress, self._seconds(), width=self._console.width, height=self._console.height)

    def start(self, step: int = 0) -> None:
        self.progress.start = self.progress.step = step
        self._began = time.perf_counter()
        with contextlib.suppress(OSError, UnicodeError):
            self._live.start(refresh=True)

    def update(self, step: int, metrics: Mapping[str, float]) -> None:
        with self._lock:
            self.progress.update(step, metrics, self._seconds())

    def note(self, text: str) -> None:
        with self._lock:
            self.progress.notes.append(text)

    def stop(self) -> None:
        with contextlib.suppress(OSError, UnicodeError):
            self._live.stop()
            if self.progress.notes and len(self.progress.notes[-1]) > self._console.width:  # it was cut in the frame
                self._console.print(self.progress.notes[-1], markup=False, highlight=False, soft_wrap=True)

    def __enter__(self) -> "LiveScreen":
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()


class PlainScreen:
    """A line for an update, one a second at most, and always for the first and the last; no escapes, flushed."""

    def __init__(self, progress: Progress, console: Console):
        self.progress, self._console, self._began = progress, console, time.perf_counter()
        self._headed, self._printed, self._pending = False, -math.inf, False

    def start(self, step: int = 0) -> None:
        self.progress.start = self.progress.step = step
        self._began = time.perf_counter()
        if not self._headed:
            self._headed = True
            self.note(self.progress.title)
            if self.progress.folder is not None:
                self.note(str(self.progress.folder))

    def update(self, step: int, metrics: Mapping[str, float]) -> None:
        seconds = time.perf_counter() - self._began
        self.progress.update(step, metrics, seconds)
        self._pending = seconds - self._printed < 1
        if not self._pending:
            self._printed = seconds
            self.note(progress_line(self.progress, seconds))

    def note(self, text: str) -> None:
        if self._pending:  # what happened before is said before
            self._pending = False
            self.note(progress_line(self.progress, time.perf_counter() - self._began))
        encoding = self._console.encoding
        safe = text.replace("·", "|").replace("…", "...").encode(encoding, "replace").decode(encoding)
        with contextlib.suppress(OSError):
            self._console.file.write(safe + "\n")
            self._console.file.flush()

    def stop(self) -> None:
        if self._pending:
            self._pending = False
            self.note(progress_line(self.progress, time.perf_counter() - self._began))

    def __enter__(self) -> "PlainScreen":
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()
