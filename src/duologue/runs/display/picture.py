"""The progress of a run as a record, and pure functions that draw it: a frame, its chart, one plain line."""

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from duologue.ops.metrics import EVALUATION, LEARNED_RETURN, RETURN

LABELS = {
    RETURN: "return",
    EVALUATION: "evaluation",
    "rollout/ep_len_mean": "episode length",
    "rollout/success_rate": "success rate",
    "eval/success_rate": "test success",
    LEARNED_RETURN: "learned return",
    **{f"train/{name}": name.replace("_", " ") for name in (
        "entropy", "value_loss", "actor_loss", "critic_loss", "cloning_loss", "alpha", "approx_kl",
    )},
    "train/explained_variance": "explained var.",
}  # fmt: skip
"""Labels of the most important metrics, in the order of the screen."""
MAX_POINTS = 2000
"""Largest number of points that each curve keeps: far more than the columns of a terminal."""


@dataclass
class Progress:
    """Everything that a screen shows. Times are seconds since the start."""

    total: int
    title: str
    folder: Path | None = None
    start: int = 0
    step: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    training: list[tuple[int, float]] = field(default_factory=list)
    evaluation: list[tuple[int, float]] = field(default_factory=list)
    notes: deque[str] = field(default_factory=lambda: deque(maxlen=3))
    marks: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=20))
    """Time and step of the latest updates."""

    def update(self, step: int, metrics: Mapping[str, float], seconds: float) -> None:
        """Add the metrics of a step."""
        self.step = step
        self.marks.append((seconds, step))
        # If no episode ends in an interval, its return is NaN, and the last known return stays. A loss of NaN is shown.
        news = {name: value for name, value in metrics.items() if name.startswith("train/") or math.isfinite(value)}
        self.metrics = {**self.metrics, **news}
        for points, name in ((self.training, RETURN), (self.evaluation, EVALUATION)):
            if name in news:
                points.append((step, news[name]))
            if len(points) > MAX_POINTS:
                del points[1::2]

    @property
    def rate(self) -> float:
        """Steps a second over the latest updates. The first update, which waited for the compiler, counts only while
        it is the only one."""
        if not self.marks:
            return 0.0
        (began, first), (seconds, step) = self.marks[0] if len(self.marks) > 1 else (0.0, self.start), self.marks[-1]
        return (step - first) / (seconds - began) if seconds > began else 0.0

    def left(self, seconds: float) -> float:
        """Seconds left at the latest rate. NaN before the second update, because the first includes the compiler's
        time."""
        rate = self.rate if len(self.marks) > 1 else 0.0
        return max(0.0, (self.total - self.step) / rate + self.marks[-1][0] - seconds) if rate > 0 else math.nan

    def numbers(self) -> list[tuple[str, float]]:
        """Labels and values: the important ones first, then all others, without clocks."""
        shown = ("rollout/", "eval/", "info/", "replay/", "train/")
        rest = [name for name in self.metrics if name not in LABELS and name.startswith(shown)]
        return [(metric_label(name), self.metrics[name]) for name in [*LABELS, *rest] if name in self.metrics]


def metric_label(name: str) -> str:
    """Name of a metric in words. For one of several tasks, `rollout/ep_rew_mean/TASK` is `return of TASK`."""
    whole, _, task = name.rpartition("/")
    if whole in LABELS:
        return f"{LABELS[whole]} of {task.replace('_', ' ')}"
    return LABELS.get(name) or name.partition("/")[2].replace("_", " ")


def progress_line(progress: Progress, seconds: float) -> str:
    """Progress as one line of ASCII: step, steps a second, time left, and the first six numbers."""
    numbers = "  ".join(f"{label} {format_number(value)}" for label, value in progress.numbers()[:6])
    return (
        f"step {progress.step:,}/{progress.total:,} ({progress_share(progress):.0%})  {progress.rate:,.0f} steps/s  "
        f"left {format_duration(progress.left(seconds))}  {numbers}"
    ).rstrip()


def render(progress: Progress, seconds: float, *, width: int = 100, height: int = 24) -> RenderableType:
    """One frame of the live screen for a terminal of this size. From 80 columns on, the numbers are at the right of the
    chart; from 60 on, below it; in fewer columns there is no chart."""
    notes = [Text(text, "yellow", no_wrap=True, overflow="ellipsis") for text in progress.notes]
    if progress.folder is not None:
        notes.append(Text(str(progress.folder), "dim", no_wrap=True, overflow="ellipsis"))
    if width < 60:
        title = Text(progress.title, "bold", no_wrap=True, overflow="ellipsis")
        return Group(title, _header(progress, seconds), _table(progress.numbers()[:4], columns=1), *notes)
    width, wide = min(width, 120), width >= 80
    room = max(1, height - 7 - len(notes))
    numbers = progress.numbers()[: min(10, room) if wide else min(8, 2 * room)]
    table = _table(numbers, columns=1 if wide else 2)
    rows = min(8, room - 3 - (0 if wide else 1 + (len(numbers) + 1) // 2))
    if rows < 3:
        body: list[RenderableType] = [table]
    elif wide:
        grid = Table.grid(expand=True, padding=(0, 0, 0, 3))
        grid.add_column(ratio=1)
        grid.add_column(width=30)
        grid.add_row(draw_chart(progress, width - 39, rows), table)
        body = [grid]
    else:
        body = [draw_chart(progress, width - 6, rows), Text(), table]
    parts = [_header(progress, seconds), Text(), *body, *([Text(), *notes] if notes else [])]
    title = Text(f" {progress.title} ", "bold")
    return Panel(Group(*parts), title=title, title_align="left", border_style="grey39", padding=(0, 2), width=width)


def draw_chart(progress: Progress, width: int, height: int) -> RenderableType:
    """Chart of episode returns against steps: training as a line, evaluations as points, with axes and a legend."""
    values = np.asarray([value for _, value in progress.training + progress.evaluation], np.float64)
    values = values[np.isfinite(values)]
    if not values.size:
        return Padding(Text("no episode has ended yet", "dim"), (0, 0, height + 2, 0))
    low, high = float(values.min()), float(values.max())
    labels = {0: format_number(high), height - 1: format_number(low)}
    margin = max(map(len, labels.values()))
    columns = width - margin - 2
    first, last = progress.start, max(progress.step, progress.start + 1)
    curve = resample(progress.training, 2 * columns, first, last)
    rows = [
        Text.assemble(
            (labels.get(row, "").rjust(margin), "dim"), (" ┤" if row in labels else " │", "grey39"), (cells, "cyan")
        )
        for row, cells in enumerate(braille(curve, columns, height, low=low, high=high))
    ]
    points = [(step, value) for step, value in progress.evaluation if math.isfinite(value)]
    dots = _dot_rows(np.asarray([value for _, value in points]), 4 * height, low, high)
    for (step, _), dot in zip(points, dots, strict=True):
        row, column = int(dot) // 4, margin + 2 + round((step - first) / (last - first) * (columns - 1))
        rows[row] = Text.assemble(rows[row][:column], ("●", "bright_magenta"), rows[row][column + 1 :])
    ends = f"{first:,}", f"{progress.step:,} steps"
    legend = Text.assemble(" " * (margin + 2), ("━ ", "cyan"), ("return in training", "dim"))
    if points:
        legend.append_text(Text.assemble(("   ● ", "bright_magenta"), ("in evaluation", "dim")))
    rows += [
        Text(" " * (margin + 1) + "└" + "─" * columns, "grey39"),
        Text(" " * (margin + 2) + ends[0] + ends[1].rjust(columns - len(ends[0])), "dim"),
        legend,
    ]
    return Group(*rows)


def resample(points: Sequence[tuple[int, float]], count: int, first: int, last: int) -> np.ndarray:
    """Values at `count` even places from `first` to `last`. Each is the mean of the points nearest to its place.
    Between places with points the values are linear; outside of all points they are NaN."""
    steps, values = np.asarray(points, np.float64).reshape(-1, 2).T
    steps, values = steps[np.isfinite(values)], values[np.isfinite(values)]
    places = np.rint((steps - first) / (last - first) * (count - 1)).astype(int)
    sums, hits = np.bincount(places, values, count), np.bincount(places, minlength=count)
    found = np.flatnonzero(hits)
    if not found.size:
        return np.full(count, np.nan)
    return np.interp(np.arange(count), found, sums[found] / hits[found], left=np.nan, right=np.nan)


def braille(
    values: Sequence[float] | np.ndarray,
    width: int,
    height: int,
    *,
    low: float | None = None,
    high: float | None = None,
) -> list[str]:
    """A line through `values`, at even distances, in `height` rows of `width` braille cells of 2 × 4 dots each.

    `low` and `high` are the values of the lowest and the highest dots, by default those of the data. A value that is
    not finite leaves a gap.
    """
    across, down = 2 * width, 4 * height
    if len(values) != across:
        values = resample(list(enumerate(values)), across, 0, max(1, len(values) - 1))
    at = _dot_rows(np.asarray(values, np.float64), down, low, high)
    before = np.concatenate([at[:1], at[:-1]])
    before = np.where(np.isnan(before), at, before)
    # Each column ends one dot before the height of the previous column, so the line is thin.
    reach = before + np.sign(at - before)
    y = np.arange(down)[:, None]
    dots = (np.minimum(at, reach) <= y) & (y <= np.maximum(at, reach))
    weights = np.asarray([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]])
    cells = np.einsum("hywx,yx->hw", dots.reshape(height, 4, width, 2), weights)
    return ["".join(chr(0x2800 + int(cell)) for cell in row) for row in cells]


def _dot_rows(values: np.ndarray, down: int, low: float | None, high: float | None) -> np.ndarray:
    """Row of each value among `down` rows of dots, 0 at the top; NaN for a value that is not finite."""
    values = np.where(np.isfinite(values), values, np.nan)
    if np.isnan(values).all():
        return values
    bottom = float(np.nanmin(values)) if low is None else low
    top = float(np.nanmax(values)) if high is None else high
    depth = (top - values) / (top - bottom) if top > bottom else values * 0 + 0.5
    return np.rint(np.clip(depth, 0, 1) * (down - 1))


def format_number(value: float) -> str:
    """A number with four significant digits, and commas between thousands."""
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e7 else f"{value:.4g}"


def format_duration(seconds: float) -> str:
    """`m:ss` or `h:mm:ss`; `-` for NaN."""
    if math.isnan(seconds):
        return "-"
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"


def progress_share(progress: Progress) -> float:
    """Share of the steps that are done, in [0, 1]."""
    return min(1.0, progress.step / max(1, progress.total))


def _header(progress: Progress, seconds: float) -> RenderableType:
    """The bar, and below it speed and times."""
    bar = Table.grid(expand=True, padding=(0, 2, 0, 0))
    bar.add_column(ratio=1)
    bar.add_column(justify="right", no_wrap=True)
    bar.add_row(
        ProgressBar(total=progress.total, completed=progress.step, style="grey30", complete_style="cyan"),
        Text.assemble(
            (f"{progress_share(progress):.0%}", "bold"), (f"  {progress.step:,} / {progress.total:,} steps", "dim")
        ),
    )
    speed = Text.assemble(
        f"{progress.rate:,.0f}", (" steps/s", "dim"), ("   elapsed ", "dim"), format_duration(seconds),
        ("   left ", "dim"), format_duration(progress.left(seconds)), no_wrap=True, overflow="ellipsis",
    )  # fmt: skip
    return Group(bar, speed)


def _table(numbers: Sequence[tuple[str, float]], *, columns: int) -> Table:
    """Labels and numbers, one pair or two a row."""
    grid = Table.grid(expand=True, padding=(0, 2, 0, 0))
    for _ in range(columns):
        grid.add_column(style="dim", no_wrap=True, ratio=1)
        grid.add_column(justify="right", no_wrap=True)
    cells = [
        (Text(label, overflow="ellipsis"), Text(format_number(value), "bold" if math.isfinite(value) else "bold red"))
        for label, value in numbers
    ]
    for at in range(0, len(cells), columns):
        grid.add_row(*[part for pair in cells[at : at + columns] for part in pair])
    return grid
