"""RESULTS.md: what the finished cells say, beside targets and published figures."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from cells import EPISODES, FIRST_TUNING_SEED, Row, Task

from duologue.statistics import bootstrap_interval, iqm

HEAD = f"""\
The score of a seed is the mean return of {EPISODES} greedy episodes with its final weights: never the best weights,
never the best seed. Quoted are the interquartile mean (IQM) over seeds with its 95 % bootstrap interval over seeds, and
the mean. Settings were chosen on seeds from {FIRST_TUNING_SEED} on, which count in no table. Every setting that is not
a default is listed, with its source.
"""

COLUMNS = ("task", "steps", "seeds", "IQM [95 % interval]", "mean", "target", "published")


def results(tasks: Sequence[Task], rows: Sequence[Row], *, command: str) -> str:
    """The page. Only lines with the settings of today count; the others stay in the file."""
    found = [(task, scores_of(task, rows)) for task in tasks]
    lines = [f"| {' | '.join(COLUMNS)} |", "|" + "---|" * len(COLUMNS)]
    lines += [f"| {' | '.join(line(task, scores))} |" for task, scores in found]
    parts = ["# Learning results", HEAD, f"`{command}`\n", "\n".join(lines) + "\n"]
    parts += [section(task, scores, command) for task, scores in found]
    return "\n".join(parts)


def scores_of(task: Task, rows: Sequence[Row]) -> dict[int, float]:
    """The score of each seed that is not for tuning."""
    known = [row for row in rows if (row["name"], row["digest"]) == (task.name, task.digest)]
    return {
        row["seed"]: row["mean"]
        for row in sorted(known, key=lambda row: row["seed"])
        if row["seed"] < FIRST_TUNING_SEED
    }


def line(task: Task, scores: dict[int, float]) -> tuple[str, ...]:
    values = np.asarray(list(scores.values()))
    known = [score(values), f"{values.mean():,.1f}"] if len(values) else ["–", "–"]
    reached = (
        "" if task.target is None or not len(values) else ", reached" if iqm(values) >= task.target else ", missed"
    )
    target = "none: reported" if task.target is None else f"≥ {task.target:g}{reached}"
    return f"{task.name} ({task.env})", f"{task.steps:,}", str(len(values)), *known, target, task.published


def score(values: np.ndarray) -> str:
    """`IQM [low, high]`; one seed has no interval."""
    if len(values) == 1:
        return f"{iqm(values):,.1f}"
    low, high = bootstrap_interval(values)
    return f"{iqm(values):,.1f} [{low:,.1f}, {high:,.1f}]"


def section(task: Task, scores: dict[int, float], command: str) -> str:
    seeds = ", ".join(f"{seed}: {value:,.1f}" for seed, value in scores.items()) or "none yet"
    return (
        f"## {task.name}\n\n`{command} --only {task.name}`\n\n"
        f"* Settings: `{expression(task.algorithm)}`\n* Source: {task.source}\n* Score of each seed: {seeds}\n"
    )


def expression(value: Any) -> str:
    """The Python that makes a configuration, with only the fields that are not defaults."""
    if not dataclasses.is_dataclass(value):
        return repr(value)
    shown = [
        f"{field.name}={expression(getattr(value, field.name))}"
        for field in dataclasses.fields(value)
        if field.default is dataclasses.MISSING or expression(field.default) != expression(getattr(value, field.name))
    ]
    return f"{type(value).__name__}({', '.join(shown)})"
