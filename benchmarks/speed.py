"""How fast Duologue trains, beside its peers, on this machine.

    python benchmarks/speed.py [CASE ...] [--rounds 5] [--scale 1] [--out benchmarks]

Every measurement is a process of its own, and the contestants take turns: ours, peer, ours, peer, … for each round. A
ratio is taken within a round, where the machine was the same, and the median over rounds is quoted with the smallest and
the largest. Time runs from the first tenth of a run to its end, so that importing, compiling and starting environments
are excluded on both sides; logging and checkpoints of ours, at their defaults, are included.

The peers live in an environment of their own (`make peers`), whose Python is `$DUOLOGUE_PEERS` or `.peers/bin/python`.
"""

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PEERS = Path(os.environ.get("DUOLOGUE_PEERS", HERE.parent / ".peers" / "bin" / "python"))


@dataclass(frozen=True)
class Contestant:
    """A process that measures once."""

    script: str
    steps: int
    """Environment steps of each seed."""
    options: tuple[str, ...] = ()

    @property
    def python(self) -> Path:
        return PEERS if self.script == "sb3.py" else Path(sys.executable)


CONTESTANTS = {
    "host": Contestant("ours.py", 500_000, ("--env", "CartPole-v1")),
    "host, one core": Contestant("ours.py", 500_000, ("--env", "CartPole-v1", "--core", "0")),
    "compiled": Contestant("ours.py", 3_000_000, ("--env", "gymnax/CartPole-v1")),
    "16 seeds": Contestant("ours.py", 500_000, ("--env", "gymnax/CartPole-v1", "--seeds", "16", "--devices", "2")),
    "3 seeds in turn": Contestant("ours.py", 1_000_000, ("--env", "gymnax/CartPole-v1", "--turns", "3")),
    "SB3, 1 thread": Contestant("sb3.py", 100_000, ("--env", "CartPole-v1", "--threads", "1")),
    "SB3, 2 threads": Contestant("sb3.py", 100_000, ("--env", "CartPole-v1", "--threads", "2")),
    "SB3, one core": Contestant("sb3.py", 100_000, ("--env", "CartPole-v1", "--threads", "1", "--core", "0")),
}


@dataclass(frozen=True)
class Case:
    """A row of the table: ours against the fastest of the others in the same round."""

    name: str
    what: str
    ours: str
    others: tuple[str, ...]
    target: float | None = None
    """The ratio it should reach."""


SB3 = ("SB3, 1 thread", "SB3, 2 threads")
CASES = (
    Case("a2c-host", "A2C, CartPole-v1, host loop, against Stable-Baselines3", "host", SB3, 4),
    Case("a2c-host", "the same, both on one core", "host, one core", ("SB3, one core",), 4),
    Case("a2c-compiled", "A2C, gymnax/CartPole-v1, compiled loop, against Stable-Baselines3", "compiled", SB3, 25),
    Case(
        "a2c-seeds", "16 seeds in one program, two devices, against 16 runs in turn", "16 seeds", ("3 seeds in turn",)
    ),
)

NOTES = """\
A2C with 8 environments × 5 steps and 64-64 tanh networks on both sides; steps/s are environment steps over all seeds,
medians over rounds. A ratio is the median of the ratios within a round, with the smallest and the largest. Time runs
from the first tenth of a run to its end: importing, compiling and starting up are excluded on both sides; our logging
(200 rows, TensorBoard) and checkpoints (10 in a run) are included. Stable-Baselines3 runs `learn` on a DummyVecEnv on
the CPU with 1 and with 2 torch threads, of which the faster counts. The 16 runs in turn are extrapolated from 3, each
warm. The share of the limit is our rate over the rate at which the same machine, in the same process, does the matrix
products of A2C alone (best of 20). Compilations are all of a process, and those of them after the first tenth.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = list(dict.fromkeys(case.name for case in CASES))
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"by default all: {', '.join(names)}")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0, help="times the steps of every run; below 1 for a trial")
    parser.add_argument("--out", type=Path, default=HERE, help="where results/speed.json and RESULTS.md are")
    options = parser.parse_args(arguments)
    unknown = set(options.cases) - set(names)
    if unknown:
        parser.error(f"no case {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    cases = [case for case in CASES if case.name in (options.cases or names)]
    rounds = measure(contestants(cases), rounds=options.rounds, scale=options.scale)
    records = [{**record(case, rounds), **circumstances(rounds), "scale": options.scale} for case in cases]
    write(options.out, records)
    print("\n" + table(records))
    if not PEERS.exists():
        print(f"\nStable-Baselines3 was left out: there is no {PEERS}. To measure beside it: make peers")
    print(f"\nwrote {options.out / 'results' / 'speed.json'} and {options.out / 'RESULTS.md'}")
    return 0


# Measuring


def contestants(cases: Sequence[Case]) -> list[str]:
    """Who takes part, each once, ours and its peers beside each other; peers only where they are installed."""
    names = dict.fromkeys(name for case in cases for name in (case.ours, *case.others))
    return [name for name in names if CONTESTANTS[name].python.exists()]


def measure(names: Sequence[str], *, rounds: int, scale: float) -> list[dict[str, dict[str, Any]]]:
    """One dictionary a round, from contestants to what their processes said. A contestant that fails is left out."""
    results = []
    for index in range(rounds):
        results.append({})
        for name in names:
            result = child(CONTESTANTS[name], scale)
            if result is not None:
                results[-1][name] = result
                print(
                    f"round {index + 1} of {rounds}   {name:<18}{result['steps_per_second']:>12,.0f} steps/s",
                    flush=True,
                )
    return results


def child(contestant: Contestant, scale: float) -> dict[str, Any] | None:
    """What the process printed last, or `None` with its own words on the screen where it failed."""
    steps = str(int(contestant.steps * scale))
    command = [str(contestant.python), str(HERE / contestant.script), "--steps", steps, *contestant.options]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        print(f"failed with exit code {done.returncode}: {' '.join(command)}", file=sys.stderr)
        return None
    return json.loads(done.stdout.splitlines()[-1])


def ratios(case: Case, rounds: Sequence[dict[str, dict[str, Any]]]) -> list[float]:
    """Ours over the fastest of the others, in every round that has both."""
    return [
        one[case.ours]["steps_per_second"] / max(others)
        for one in rounds
        if case.ours in one and (others := rates(case.others, one))
    ]


def rates(names: Sequence[str], one: dict[str, dict[str, Any]]) -> list[float]:
    return [one[name]["steps_per_second"] for name in names if name in one]


def record(case: Case, rounds: Sequence[dict[str, dict[str, Any]]]) -> dict[str, Any]:
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
        "share_of_limit": median([result["steps_per_second"] / result["limit"] for result in ours]),
        "compilations": median([result["compilations"] for result in ours]),
        "compilations_when_warm": median([result["compilations_when_warm"] for result in ours]),
        "seconds_with_start": median([result["seconds_with_start"] for result in ours]),
        "rounds": [{name: one[name] for name in (case.ours, *case.others) if name in one} for one in rounds],
    }


def median(numbers: Sequence[float]) -> float | None:
    return statistics.median(numbers) if numbers else None


def circumstances(rounds: Sequence[dict[str, dict[str, Any]]]) -> dict[str, Any]:
    results = [result for one in rounds for result in one.values()]
    versions = {name: version for result in results for name, version in result["versions"].items()}
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": f"{processor()}, {os.cpu_count()} cores",
        "device": ", ".join(sorted({result["device"] for result in results})),
        "versions": {"python": platform.python_version(), **versions},
    }


def commit() -> str:
    """The commit that is checked out, with a + where files differ from it."""
    git = ["git", "-C", str(HERE)]
    head = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False).stdout
    changed = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=False).stdout
    return (head.strip() or "unknown") + ("+" if changed.strip() else "")


def processor() -> str:
    """The processor's name where Linux tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


# Writing


def write(out: Path, records: Sequence[dict[str, Any]]) -> None:
    """Append to results/speed.json, and make RESULTS.md of the newest record of every row."""
    path = out / "results" / "speed.json"
    known = json.loads(path.read_text()) if path.exists() else []
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([*known, *records], indent=1) + "\n")
    newest = {record["what"]: record for record in [*known, *records]}
    rows = [newest[case.what] for case in CASES if case.what in newest]
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
    lines = [
        f"{r['date'][:10]}, commit {r['commit']}, {r['machine']}, JAX on {r['device']}, {len(r['rounds'])} rounds"
        + (f", a trial of {r['scale']:g} times the steps" if r["scale"] != 1 else "")
        + ", " + ", ".join(f"{name} {version}" for name, version in r["versions"].items())
        for r in records
    ]  # fmt: skip
    return "".join(f"* {line}\n" for line in dict.fromkeys(lines))


if __name__ == "__main__":
    sys.exit(main())
