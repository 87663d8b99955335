"""What `speed.py` writes: a record of every row, with all the numbers behind it, and a table for people."""

import datetime
import json
import os
import platform
import statistics
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent

Round = dict[str, dict[str, Any]]
"""From contestants to what their processes said."""

NOTES = """\
A2C with 8 environments × 5 steps and 64-64 tanh networks on both sides; SAC and TD3 with batches of 256, 256-256 relu
networks, and one update of the critics a step from step 500 on. steps/s are environment steps over all seeds, medians
over rounds. A ratio is the median of the ratios within a round, with the smallest and the largest. Time runs from the
first tenth of a run (a quarter with replay) to its end: importing, compiling and starting up are excluded on both
sides; our logging (200 rows, TensorBoard) and checkpoints (10 in a run) are included. The peers run `learn` on a
DummyVecEnv on the CPU: Stable-Baselines3's A2C with 1 and with 2 torch threads, of which the faster counts; PPO and
TRPO with 1, SAC and TD3 with 2; TD3 of the others makes an update of its critics after every step, ours two after every
second. The 16 runs in turn are extrapolated from 3, each warm. The share of the limit is our rate over the rate at
which the same machine, in the same process, does the matrix products of an update alone (best of 20), of A2C and of
what learns from recorded data; that of SAC is in [UPDATES.md](UPDATES.md). Compilations are all of a process, and those
of them after the first tenth.
"""


@dataclass(frozen=True)
class Case:
    """A row of the table: ours against the fastest of the others in the same round."""

    name: str
    what: str
    ours: str
    others: tuple[str, ...]
    target: float | None = None
    """The ratio it should reach."""


def ratios(case: Case, rounds: Sequence[Round]) -> list[float]:
    """Ours over the fastest of the others, in every round that has both."""
    return [
        one[case.ours]["steps_per_second"] / max(others)
        for one in rounds
        if case.ours in one and (others := rates(case.others, one))
    ]


def rates(names: Sequence[str], one: Round) -> list[float]:
    return [one[name]["steps_per_second"] for name in names if name in one]


def record(case: Case, rounds: Sequence[Round]) -> dict[str, Any]:
    """Everything about one row, numbers of single rounds included."""
    ours = [one[case.ours] for one in rounds if case.ours in one]
    others = [max(found) for one in rounds if (found := rates(case.others, one))]
    return {
        "case": case.name,
        "what": case.what,
        "target": case.target,
        "ours": median([result["steps_per_second"] for result in ours]),
        "others": median(others),
        "ratio": median(ratios(case, rounds)),
        "ratios": ratios(case, rounds),
        "share_of_limit": median([result["steps_per_second"] / result["limit"] for result in ours if result["limit"]]),
        "compilations": median([result["compilations"] for result in ours]),
        "compilations_when_warm": median([result["compilations_when_warm"] for result in ours]),
        "seconds_with_start": median([result["seconds_with_start"] for result in ours]),
        "rounds": [{name: one[name] for name in (case.ours, *case.others) if name in one} for one in rounds],
    }


def median(numbers: Sequence[float]) -> float | None:
    return statistics.median(numbers) if numbers else None


def circumstances(rounds: Sequence[Round]) -> dict[str, Any]:
    results = [result for one in rounds for result in one.values()]
    versions = {name: version for result in results for name, version in result["versions"].items()}
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": f"{processor()}, {os.cpu_count()} cores",
        "devices": sorted({result["device"] for result in results if "device" in result}),
        "versions": {"python": platform.python_version(), **versions},
    }


def commit() -> str:
    """The commit that is checked out, with a + where the library differs from it."""
    git = ["git", "-C", str(HERE)]
    head = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False).stdout
    changed = subprocess.run(
        [*git, "status", "--porcelain", "../src"], capture_output=True, text=True, check=False
    ).stdout
    return (head.strip() or "unknown") + ("+" if changed.strip() else "")


def processor() -> str:
    """The processor's name where Linux tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def write(out: Path, records: Sequence[dict[str, Any]], *, order: Sequence[str]) -> None:
    """Append to results/speed.json, and make RESULTS.md of the newest record of every row, in the order of `what`."""
    path = out / "results" / "speed.json"
    known = json.loads(path.read_text()) if path.exists() else []
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([*known, *records], indent=1) + "\n")
    newest = {record["what"]: record for record in [*known, *records]}
    rows = [newest[what] for what in order if what in newest]
    (out / "RESULTS.md").write_text(
        f"# Speed\n\n`python benchmarks/speed.py`\n\n{table(rows)}\n\n{NOTES}\n{made(rows)}"
    )


COLUMNS = ("", "ours, steps/s", "other, steps/s", "ratio", "target", "share of limit", "compilations")


def table(records: Sequence[dict[str, Any]]) -> str:
    """A Markdown table, aligned so that it reads well in a terminal too."""
    rows = [COLUMNS, *(cells(record) for record in records)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(COLUMNS))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])


def cells(record: dict[str, Any]) -> tuple[str, ...]:
    def number(value: float | None) -> str:
        return "–" if value is None else f"{value:,.0f}"

    ratio, target, share = record["ratio"], record["target"], record["share_of_limit"]
    spread = f" [{min(record['ratios']):.2f}–{max(record['ratios']):.2f}]" if record["ratios"] else ""
    reached = "" if ratio is None or target is None else ", reached" if ratio >= target else ", missed"
    return (
        record["what"],
        number(record["ours"]),
        number(record["others"]),
        "–" if ratio is None else f"× {ratio:.2f}{spread}",
        "" if target is None else f"× {target:g}{reached}",
        "–" if share is None else f"{share:.1%}",
        f"{number(record['compilations'])}, {number(record['compilations_when_warm'])} when warm",
    )


def made(records: Sequence[dict[str, Any]]) -> str:
    """When, where and with what the rows were measured, each set of circumstances once."""
    lines = dict.fromkeys(circumstances_line(record) for record in records)
    return "".join(f"* {line}\n" for line in lines)


def circumstances_line(record: dict[str, Any]) -> str:
    return ", ".join(
        [
            record["date"][:10],
            f"commit {record['commit']}",
            record["machine"],
            f"JAX on {' and '.join(record['devices'])}",
            f"rounds: {len(record['rounds'])}",
            *([f"a trial of {record['scale']:g} times the steps"] if record["scale"] != 1 else []),
            *(f"{name} {version}" for name, version in record["versions"].items()),
        ]
    )
