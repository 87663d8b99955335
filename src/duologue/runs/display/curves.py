"""Learning curves of finished and running runs, as figures for a page."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from duologue.errors import CheckpointError, ConfigError, MissingExtraError, suggestion
from duologue.ops.metrics import EVALUATION, RETURN
from duologue.ops.statistics import bootstrap_interval
from duologue.runs.display import loggers as log
from duologue.storage import files

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""The colours of Okabe and Ito, which colour-blind people can distinguish, too."""
STYLES = ("-", "--", ":", "-.")
"""Line styles of the first seven groups, the next seven, and so on."""
FORMATS = ("png", "svg", "pdf")
LEARNING_OPTIONS = (
    "num_envs",
    "max_episode_steps",
    "evaluate_env",
    "tasks",
    "dataset",
    "timeout_and_terminal",
    "window",
    "offline_fraction",
)
"""Options that change learning or its scores, besides the algorithm and the environment."""
MAX_PLACES = 400
"""Largest number of steps at which curves are averaged over seeds."""

Curve = tuple[np.ndarray, np.ndarray]
"""`(steps, values)` of one seed."""


class Group(NamedTuple):
    """The identity of a group: runs that differ only in their seeds."""

    algorithm: str
    env: str = ""
    settings: tuple[tuple[str, str], ...] = ()
    """Every hyperparameter, `(path, value)`, as text."""


class Line(NamedTuple):
    """One metric of one group of runs: the mean over its seeds, and the interval around it."""

    steps: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    seeds: int


def learning_curve(paths: Sequence[Path], out: Path, *, key: str | None = None, title: str | None = None) -> Path:
    """Draw return against environment steps of the runs in `paths` into `out` (.png, .svg or .pdf), and return `out`.

    Runs of one algorithm with the same settings in one environment form a group; its seeds may be in one folder or in
    several. A seed in two folders counts once, with its longer curve, or with the last of equally long curves. The
    settings that differ give a group its name. The main line of a group shows its evaluations, and a thin line shows
    the return in training; without evaluations the return in training is the main line. With two seeds or more the main
    line is their mean, in a band of its 95 % bootstrap interval. `key` draws one other metric instead, like
    `"train/entropy"`.

    Raises `ConfigError` for another kind of file and for runs without anything to draw, `CheckpointError` for a folder
    without a run, `MissingExtraError` without the extra `plots`.
    """
    kind = out.suffix.removeprefix(".").lower()
    if kind not in FORMATS:
        raise ConfigError(f"out = {str(out)!r}: must end in .{', .'.join(FORMATS)}.")
    drawing = figure(paths, key=key, title=title)
    files.make_folder(out.parent)
    with files.replace_file(out) as temporary:
        drawing.savefig(temporary, format=kind, dpi=160)
    return out


def figure(paths: Sequence[Path], *, key: str | None = None, title: str | None = None) -> Any:
    """The `matplotlib.figure.Figure` that `learning_curve` writes. It does not use pyplot's global state."""
    try:
        from matplotlib.figure import Figure
        from matplotlib.ticker import FuncFormatter, MaxNLocator
    except ImportError as error:
        raise MissingExtraError("plots", "drawing learning curves") from error
    groups = group_curves(paths, [key] if key else [EVALUATION, RETURN])
    title_of_all, labels = title_and_labels(list(groups))
    thin = len(groups) <= 3  # whether each thin line has a name of its own
    entries = sum(max(len(curves), 1) if thin else 1 for curves in groups.values())
    drawing = Figure(figsize=(7.2, 4.4 + 0.21 * max(0, entries - 3)), layout="constrained")
    axes = drawing.add_subplot()
    for i, (label, curves) in enumerate(zip(labels, groups.values(), strict=True)):
        look = {"color": COLOURS[i % len(COLOURS)], "linestyle": STYLES[i // len(COLOURS) % len(STYLES)]}
        if not curves:
            axes.plot([], [], label=f"{label} (nothing to draw yet)".strip(), **look)  # pyright: ignore[reportArgumentType]
        for metric, seeds in curves.items():
            line, main = average_curves(list(seeds.values())), metric == next(iter(curves))
            name = f"{label} {_metric_words(metric)}".strip() if main or thin else ""
            _draw_line(axes, line, look, name, main=main)
    axes.set_title(title or title_of_all, loc="left", fontsize=13, fontweight="bold", color="#222222", pad=12)
    axes.set_xlabel(step_unit(list(groups)))
    explain = not thin and any(len(curves) > 1 for curves in groups.values())
    axes.set_ylabel(_metric_words(key) if key else f"episode return{' (thin lines: training)' if explain else ''}")
    axes.margins(x=0.01)
    axes.grid(axis="y", color="#e4e4e4", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#aaaaaa")
    axes.tick_params(color="#aaaaaa", labelcolor="#444444")
    axes.xaxis.set_major_locator(MaxNLocator(6))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
        axis.label.set_color("#444444")
    drawing.legend(loc="outside lower left", frameon=False, fontsize=9, labelcolor="#222222")
    return drawing


def step_unit(groups: Sequence[Group]) -> str:
    """Unit of the steps of all groups: gradient steps on recorded data alone, else environment steps."""

    def of_data(group: Group) -> bool:
        settings = dict(group.settings)
        return settings.get("dataset", "None") != "None" and settings.get("offline_fraction") in (None, "None")

    units = {"gradient steps" if of_data(group) else "environment steps" for group in groups}
    return units.pop() if len(units) == 1 else "steps"


def group_curves(paths: Sequence[Path], metrics: Sequence[str]) -> dict[Group, dict[str, dict[int, Curve]]]:
    """The curves of `metrics` by group of runs, metric and seed. A group in which no episode has ended has no curves.
    Raises `ConfigError` if no group has a curve."""
    groups: dict[Group, dict[str, dict[int, Curve]]] = {}
    seen: set[str] = set()
    for path in paths:
        rows = log.read_metrics(path / "metrics.jsonl")
        seen |= {name for row in rows for name in row if "/" in name}
        curves = groups.setdefault(read_group(path), {})
        for metric in metrics:
            found = {seed: log.metric_curve(rows, metric, seed) for seed in sorted({row["seed"] for row in rows})}
            found = {seed: curve for seed, curve in found.items() if len(curve[0])}
            if found:
                known = curves.setdefault(metric, {})
                further = {seed for seed in known.keys() & found.keys() if known[seed][0][-1] > found[seed][0][-1]}
                known.update({seed: curve for seed, curve in found.items() if seed not in further})
    if not paths:
        raise ConfigError("plot needs one run folder or more. `duologue list` shows the runs in runs/.")
    if not any(groups.values()):
        where, unknown = ", ".join(map(str, paths)), seen and seen.isdisjoint(metrics)
        why = f" {suggestion(metrics[0], seen)}" if unknown else ""
        raise ConfigError(f"There is no {' or '.join(metrics)} in {where} yet.{why}")
    # The main line of a group is the first of `metrics` that it has; the order of the folders does not count.
    return {name: {metric: of[metric] for metric in metrics if metric in of} for name, of in groups.items()}


def read_group(path: Path) -> Group:
    """The group of a run, from its config.json. Without this file the folder's name is the algorithm."""
    try:
        config = files.read_json(path / "config.json")
    except CheckpointError:
        return Group(path.name)
    config = config if isinstance(config, dict) else {}
    algorithm = config.get("algorithm")
    settings = {
        name: value for name, value in _settings_by_path(algorithm).items() if name.rpartition(".")[2] != "num_envs"
    }
    settings |= {name: str(config.get(name)) for name in LEARNING_OPTIONS}
    return Group(_algorithm_name(algorithm) or path.name, str(config.get("env") or ""), tuple(sorted(settings.items())))


def title_and_labels(groups: Sequence[Group]) -> tuple[str, list[str]]:
    """A title from the parts that all groups share, and a label for each group from the parts that differ."""
    algorithms, envs = {group.algorithm for group in groups}, {group.env for group in groups}
    shared = [next(iter(every)) for every in (algorithms, envs) if len(every) == 1]
    title = " on ".join(filter(None, shared))

    paths = {name.removesuffix(".type") for group in groups for name, _ in differing_settings(group, groups)}
    ends = [path.rpartition(".")[2] for path in paths]

    def called(name: str) -> str:
        path = name.removesuffix(".type")
        end = path.rpartition(".")[2]
        return end if ends.count(end) == 1 else path

    def label(group: Group) -> str:
        differ = [f"{called(name)}={value}" for name, value in differing_settings(group, groups)]
        name = group.algorithm if len(algorithms) > 1 else ""
        env = group.env if len(envs) > 1 else ""
        return " ".join(filter(None, [name, "on" if name and env else "", env, ", ".join(differ)]))

    return title or "Learning curves", [label(group) for group in groups]


def differing_settings(group: Group, groups: Sequence[Group]) -> list[tuple[str, str]]:
    """The settings in which a group differs from others of its algorithm and environment. Where an object has another
    type, only the type counts, not its fields."""
    mine = dict(group.settings)
    alike = [dict(other.settings) for other in groups if other[:2] == group[:2]]

    def above(name: str) -> list[str]:
        parts = name.split(".")
        parents = [".".join(parts[:i]) for i in range(1, len(parts))]
        return [each for parent in parents for each in (parent, f"{parent}.type") if each != name]

    return [
        (name, value)
        for name, value in group.settings
        if any(
            other.get(name) != value
            for other in alike
            if all(other.get(parent) == mine.get(parent) for parent in above(name))
        )
    ]


def average_curves(curves: Sequence[Curve]) -> Line:
    """Mean over seeds and its 95 % bootstrap interval, at the steps where all seeds have data.

    A curve is linear between its points. Raises `ConfigError` for curves without a common step.
    """
    first, last = max(steps[0] for steps, _ in curves), min(steps[-1] for steps, _ in curves)
    if first > last:
        raise ConfigError(
            f"The runs of one curve have no step in common: one ends at step {last:,}, another begins at {first:,}. "
            "Leave out the shorter run."
        )
    steps = np.unique(np.concatenate([steps for steps, _ in curves] + [[first, last]]))
    steps = steps[(steps >= first) & (steps <= last)]
    if len(steps) > MAX_PLACES:
        steps = np.linspace(first, last, MAX_PLACES)
    values = np.stack([np.interp(steps, *curve) for curve in curves])
    mean = values.mean(0)
    if len(curves) == 1:
        return Line(steps, mean, mean, mean, 1)
    low, high = np.asarray([bootstrap_interval(column, statistic=np.mean) for column in values.T]).T
    return Line(steps, mean, low, high, len(curves))


def _draw_line(axes: Any, line: Line, look: dict[str, str], label: str, *, main: bool) -> None:
    if not main:
        label = label and label + (" (mean)" if line.seeds > 1 else "")
        axes.plot(line.steps, line.mean, **look, linewidth=0.9, alpha=0.45, label=label)
        return
    label += f" (mean and 95 % bootstrap interval over {line.seeds} seeds)" if line.seeds > 1 else " (1 seed)"
    marks = {"marker": "o", "markersize": 3.5} if len(line.steps) <= 40 else {}
    axes.plot(line.steps, line.mean, **look, linewidth=1.8, zorder=3, label=label, **marks)
    if line.seeds > 1:
        axes.fill_between(line.steps, line.low, line.high, color=look["color"], alpha=0.16, linewidth=0)


def _metric_words(metric: str) -> str:
    """A metric's name in words."""
    words = {EVALUATION: "evaluation", RETURN: "training"}
    return words.get(metric) or metric.rpartition("/")[2].replace("_", " ")


def _settings_by_path(node: Any, at: str = "") -> dict[str, str]:
    """Path and value of every field of nested objects in config.json; a schedule is one value, as on the command
    line."""
    if not isinstance(node, dict):
        return {at: str(node)}
    if node.get("type") == "Linear":
        schedule = f"linear:{node.get('start')}:{node.get('end')}"
        return {at: schedule, f"{at}.updates": str(node.get("updates"))}
    parts = [_settings_by_path(value, f"{at}.{name}" if at else name) for name, value in node.items()]
    return {name: value for part in parts for name, value in part.items()}


def _algorithm_name(node: Any) -> str:
    """Name of an algorithm in config.json: `SAC`, or `Normalized(SAC)` for a wrapper."""
    if not isinstance(node, dict):
        return ""
    inner = _algorithm_name(node.get("algorithm"))
    return f"{node.get('type', '')}({inner})" if inner else str(node.get("type", ""))
