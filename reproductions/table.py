"""RESULTS.md: what the finished cells say, beside targets and published figures."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from cells import EPISODES, FIRST_TUNING_SEED, PeerCell, Row, Task

from duologue.ops.statistics import bootstrap_interval, iqm

HEAD = f"""\
The score of a seed is the mean return of {EPISODES} greedy episodes with its final weights, of Pong the last 50
episodes of training: never the best weights, never the best seed. Quoted are the interquartile mean (IQM) over seeds
with its 95 % bootstrap interval over seeds, and the mean. Scores of `sac-x-…` are percentages: the share of the
episodes that reached the goal. Settings were chosen on seeds from {FIRST_TUNING_SEED} on, which count in no table,
unless a source says otherwise. Every setting that is not a default is listed, with its source. Seeds on an NVIDIA H200
had products in TF32, all others in float32 (docs/notes.md).
"""

COLUMNS = ("task", "steps", "seeds", "IQM [95 % interval]", "mean", "target", "published")
BESIDE = ("task", "theirs, IQM [95 % interval]", "ours − theirs", "", "the seeds could have shown")
ABOUT_PEERS = """\
SBX, and on recorded data d3rlpy, learned the same tasks for as many steps with the settings that we have, as far as
they can be set there (`reproductions/offline.py` says where not), and played as many greedy episodes. The interval of
the difference of the two IQMs is a bootstrap over seeds on both sides. Ours is "below" or "above" where that interval
lies wholly on one side of 0, else "not told apart". Half its width is about the smallest difference that so few seeds
could have shown.
"""


def results(done: dict[str, tuple[Sequence[Task], Sequence[Row]]], peers: Sequence[Row], *, command: str) -> str:
    """The page. Only lines with the settings of today count; the others stay in the files."""
    found = [(task, known(task.name, task.digest, rows)) for tasks, rows in done.values() for task in tasks]
    lines = [COLUMNS, ("---",) * len(COLUMNS), *(line(task, scores_of(rows)) for task, rows in found)]
    parts = ["# Learning results", HEAD, f"`{command}`\n", markdown(lines)]
    if beside := [row for task, rows in found if (row := against_peer(task, rows, peers))]:
        lines = [BESIDE, ("---",) * len(BESIDE), *beside]
        parts += ["## Beside others", ABOUT_PEERS, f"`{command} --peer`\n", markdown(lines)]
    return "\n".join(parts + [section(task, rows, command) for task, rows in found])


def markdown(rows: Sequence[Sequence[str]]) -> str:
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def against_peer(task: Task, rows: Sequence[Row], peers: Sequence[Row]) -> tuple[str, ...] | None:
    """Ours beside the peer's; `None` where one of them has not learned the task yet, or has from other data."""
    if task.peer is None:
        return None
    data = {row.get("data_digest") for row in rows}
    beside = [row for row in known(*PeerCell(task, 0).key[:2], peers) if row.get("data_digest") in data]
    scores, theirs = scores_of(rows), scores_of(beside)
    if not scores or not theirs:
        return None
    mine, others = (np.asarray(list(of_seed.values())) for of_seed in (scores, theirs))
    seeds = f"{len(mine)} seeds against {len(others)}"
    if min(len(mine), len(others)) < 2:
        return f"{task.name} ({seeds})", score(others), f"{iqm(mine) - iqm(others):,.1f}", "no interval", "–"
    low, high = difference_interval(mine, others)
    verdict = "below" if high < 0 else "above" if low > 0 else "not told apart"
    difference = f"{iqm(mine) - iqm(others):,.1f} [{low:,.1f}, {high:,.1f}]"
    return f"{task.name} ({seeds})", score(others), difference, verdict, f"{(high - low) / 2:,.0f}"


def difference_interval(ours: np.ndarray, theirs: np.ndarray, samples: int = 2000) -> tuple[float, float]:
    """The 95 % percentile bootstrap interval of IQM(ours) − IQM(theirs), each resampled on its own."""
    generator = np.random.default_rng(0)
    mine, others = (
        iqm(values[generator.integers(len(values), size=(samples, len(values)))], axis=1) for values in (ours, theirs)
    )
    low, high = np.quantile(np.subtract(mine, others), [0.025, 0.975])
    return float(low), float(high)


def known(name: str, digest: str, rows: Sequence[Row]) -> list[Row]:
    """Those of a task with these settings, by their seeds."""
    return sorted((row for row in rows if (row["name"], row["digest"]) == (name, digest)), key=lambda row: row["seed"])


def scores_of(rows: Sequence[Row]) -> dict[int, float]:
    """The score of each seed that is not for tuning."""
    return {row["seed"]: row["mean"] for row in rows if row["seed"] < FIRST_TUNING_SEED}


def line(task: Task, scores: dict[int, float]) -> tuple[str, ...]:
    values = np.asarray(list(scores.values()))
    figures = [score(values), f"{values.mean():,.1f}"] if len(values) else ["–", "–"]
    reached = (
        "" if task.target is None or not len(values) else ", reached" if iqm(values) >= task.target else ", missed"
    )
    target = "none: reported" if task.target is None else f"≥ {task.target:g}{reached}"
    return f"{task.name} ({task.env})", f"{task.steps:,}", str(len(values)), *figures, target, task.published


def score(values: np.ndarray) -> str:
    """`IQM [low, high]`; one seed has no interval."""
    if len(values) == 1:
        return f"{iqm(values):,.1f}"
    low, high = bootstrap_interval(values)
    return f"{iqm(values):,.1f} [{low:,.1f}, {high:,.1f}]"


def section(task: Task, rows: Sequence[Row], command: str) -> str:
    scores = scores_of(rows)
    seeds = ", ".join(f"{seed}: {value:,.1f}" for seed, value in scores.items()) or "none yet"
    devices = sorted({row.get("device", "cpu") for row in rows})
    seeds += f", on {' and '.join(devices)}" if scores and devices != ["cpu"] else ""
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
