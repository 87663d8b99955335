"""The screen while an agent learns: a live picture in a terminal, plain lines everywhere else.

A screen keeps a `picture.Progress` and decides when and where to draw it. The drawing functions, in `picture`, are
pure."""

import contextlib
import math
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol, runtime_checkable

from rich.console import Console, RenderableType
from rich.live import Live

from duologue.runs.display.picture import Progress, progress_line, render


@runtime_checkable
class Screen(Protocol):
    """Shows progress; also a context manager. No method raises for a terminal's limits."""

    def start(self, step: int = 0) -> None:
        """Begin at `step`: 0, or the steps so far of a resumed run. The context itself begins at 0; a later call of
        this method replaces that value."""
        ...

    def update(self, step: int, metrics: Mapping[str, float]) -> None:
        """Show `metrics` at `step`; with several seeds, means over them."""
        ...

    def note(self, text: str) -> None:
        """Show one line of text: an event, a saved file, a warning."""
        ...

    def stop(self) -> None:
        """Show the last state, and leave the terminal as it was."""
        ...

    def __enter__(self) -> "Screen": ...
    def __exit__(self, *exception: object) -> None: ...


def make_screen(total_steps: int, title: str, *, folder: Path | None = None, console: Console | None = None) -> Screen:
    """The live screen if the terminal can show it, else plain lines. `title` names algorithm, environment, seeds and
    device."""
    console = console or Console()
    live = console.is_terminal and not console.is_dumb_terminal and console.encoding.lower().startswith("utf")
    return (LiveScreen if live else PlainScreen)(Progress(total_steps, title, folder), console)


def print_warning(text: str) -> None:
    """Print a remark where there is no screen: to the standard error stream."""
    Console(stderr=True, soft_wrap=True).print(text, style="yellow", markup=False, highlight=False)


def replay_printer(console: Console | None, seconds: float = 2.0) -> Callable[[int, int], None]:
    """A function `(done, steps)` that prints how far a replay of running episodes is, every 2 `seconds`."""
    console, last = console or Console(), time.perf_counter()

    def report(done: int, steps: int) -> None:
        nonlocal last
        if time.perf_counter() - last >= seconds:
            last = time.perf_counter()
            console.print(f"replaying the running episodes: {done:,} of {steps:,} steps", highlight=False)

    return report


class LiveScreen:
    """The full picture. A thread draws it twice a second; the last frame stays after the stop."""

    def __init__(self, progress: Progress, console: Console):
        self.progress, self._console, self._began = progress, console, time.perf_counter()
        self._lock = threading.Lock()  # the drawing thread reads, the training thread writes
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
            if self.progress.notes and len(self.progress.notes[-1]) > self._console.width:  # the frame has cut it
                self._console.print(self.progress.notes[-1], markup=False, highlight=False, soft_wrap=True)

    def __enter__(self) -> "LiveScreen":
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()


class PlainScreen:
    """Prints one line for an update: at most one a second, and always for the first and the last update. It prints no
    escape codes, and flushes each line."""

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
        if self._pending:  # the update came before this note
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
