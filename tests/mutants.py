"""Planted bugs, each of which must die: `python tests/mutants.py [--only SUBSTRING] [--jobs 2] [--results FILE]`.

Each mutant is one known mistake of reinforcement learning, as a replacement of text in a copy of the project; the tests
named with it are run there, and one of them must fail. A mutant that survives is a missing test.

`--results FILE` keeps one JSON line for each judged mutant, written as it falls. The same command, given again after an
interruption, skips the mutants that the file counts as killed, and judges the rest.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from queue import Queue
from typing import Any

from planted import (
    door_atari,
    door_boxes,
    door_evaluation,
    door_images,
    door_masks,
    door_metrics,
    door_normalized,
    door_recovery,
    door_spaces,
    door_wrappers,
    first,
    found,
    house,
    intentions,
    kept,
    offline,
    recorded,
    stacked,
    trust,
)
from planted.mutant import Mutant

ROOT = Path(__file__).parent.parent
TIMEOUT = 240
"""Seconds; a mutant that hangs its tests is dead too."""


DOOR = (
    door_atari, door_boxes, door_evaluation, door_images, door_masks, door_metrics, door_normalized,
    door_recovery, door_spaces, door_wrappers,
)  # fmt: skip
PARTS = (first, trust, recorded, offline, intentions, stacked, found, kept, house, *DOOR)
MUTANTS = [mutant for part in PARTS for mutant in part.MUTANTS]


def copied(into: Path) -> Path:
    """The project's sources and tests, with the cache of compiled programs shared between all copies."""
    for name in ("src", "tests"):
        shutil.copytree(ROOT / name, into / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", into)
    cache = ROOT / ".cache" / "mutants"
    cache.mkdir(parents=True, exist_ok=True)
    (into / ".cache").symlink_to(cache)
    return into


def python(
    copy: Path, *arguments: str, keep_bytecode: bool = False, timeout: int | None = TIMEOUT
) -> subprocess.CompletedProcess:
    """Run Python where the copy's package shadows the installed one. Bytecode of a mutant must never stay."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(copy / "src"),
        "PYTHONDONTWRITEBYTECODE": "" if keep_bytecode else "1",
    }
    return subprocess.run(
        [sys.executable, *arguments], cwd=copy, env=environment, capture_output=True, text=True, timeout=timeout
    )


def pytest(copy: Path, tests: tuple[str, ...], **options: Any) -> subprocess.CompletedProcess:
    where = [f"tests/{test}" for test in tests]
    return python(copy, "-m", "pytest", "-x", "-q", "--tb=no", "-p", "no:cacheprovider", *where, **options)


def baseline(copy: Path, tests: tuple[str, ...]) -> None:
    """Exit unless the copy is what is imported and its tests pass as they are."""
    origin = python(copy, "-c", "import importlib.util as u; print(u.find_spec('duologue').origin)").stdout.strip()
    if Path(origin).resolve() != (copy / "src" / "duologue" / "__init__.py").resolve():
        sys.exit(f"The copy is not what is imported, but {origin!r}.")
    run = pytest(copy, tests, keep_bytecode=True, timeout=None)  # all of them, and nothing compiled yet
    if run.returncode:
        sys.exit(f"The tests fail without any mutant:\n{run.stdout[-3000:]}{run.stderr[-3000:]}")


def outcome(copy: Path, mutant: Mutant) -> tuple[bool, str]:
    """Whether the mutant died, and of what."""
    path = copy / "src" / "duologue" / mutant.file
    original, times = path.read_text(), path.stat()
    if original.count(mutant.old) != 1:
        return False, f"its text occurs {original.count(mutant.old)} times"
    path.write_text(original.replace(mutant.old, mutant.new))
    try:
        run = pytest(copy, mutant.tests)
    except subprocess.TimeoutExpired:
        return True, "timeout"
    finally:
        path.write_text(original)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    failed = re.search(r"^(?:FAILED|ERROR) tests/(.{1,150})", run.stdout, re.MULTILINE)
    died = run.returncode == 1 and failed is not None
    return died, failed[1] if died else f"exit code {run.returncode}: {run.stdout[-300:].strip() or run.stderr[-300:]}"


def append_result(path: Path, mutant: Mutant, killed: bool, cause: str) -> None:
    """Append one line for a judged mutant."""
    row = {"file": mutant.file, "name": mutant.name, "old": mutant.old, "new": mutant.new}
    with path.open("a") as file:
        if file.tell() and not path.read_text().endswith("\n"):  # an interruption cut the last line short
            file.write("\n")
        file.write(json.dumps(row | {"killed": killed, "cause": cause}) + "\n")


def read_killed(path: Path) -> set[tuple[str, str, str, str]]:
    """File, name, old and new text of every mutant that the file counts as killed. A line cut short is left out."""
    rows = []
    for line in path.read_text().splitlines() if path.exists() else []:
        with suppress(json.JSONDecodeError):
            rows.append(json.loads(line))
    return {(row["file"], row["name"], row["old"], row["new"]) for row in rows if row["killed"]}


def mutants_to_judge(only: str, results: Path | None) -> list[Mutant]:
    """Mutants with `only` in their name or file, without those that `results` counts as killed with the same text."""
    killed = read_killed(results) if results else set()
    chosen = [mutant for mutant in MUTANTS if only in f"{mutant.file} {mutant.name}"]
    if not chosen:
        sys.exit(f"No mutant's name or file has {only!r} in it.")
    left = [mutant for mutant in chosen if (mutant.file, mutant.name, mutant.old, mutant.new) not in killed]
    if len(left) < len(chosen):
        print(f"{len(chosen) - len(left)} of {len(chosen)} mutants are killed already, says {results}", flush=True)
    return left


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", metavar="SUBSTRING", help="of the mutant's name or file")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--results", type=Path, metavar="FILE", help="JSON lines to append to, and to go on from")
    options = parser.parse_args()
    mutants = mutants_to_judge(options.only, options.results)
    if not mutants:
        return 0
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        first = copied(Path(folder, "0"))
        baseline(first, tuple(sorted({test for mutant in mutants for test in mutant.tests})))
        copies: Queue[Path] = Queue()
        copies.put(first)
        for job in range(1, options.jobs):
            copies.put(shutil.copytree(first, Path(folder, str(job)), symlinks=True))
        print(f"{len(mutants)} mutants; without them the tests pass ({time.perf_counter() - began:.0f} s)", flush=True)

        def judge(mutant: Mutant) -> bool:
            copy = copies.get()
            died, cause = outcome(copy, mutant)
            copies.put(copy)
            if options.results:
                append_result(options.results, mutant, died, cause)
            print(f"{'killed  ' if died else 'SURVIVED'}  {mutant.file}: {mutant.name} — {cause}", flush=True)
            return died

        with ThreadPoolExecutor(options.jobs) as pool:
            dead = sum(pool.map(judge, mutants))
    print(f"{dead} of {len(mutants)} killed in {time.perf_counter() - began:.0f} s")
    return 0 if dead == len(mutants) else 1


if __name__ == "__main__":
    sys.exit(main())
