"""`train --grid`: every combination of values, each a run in a folder of its own, checked before the first is trained.

A grid is no object that is kept: its folders are found again by their names, and by what their runs say they are.
"""

import dataclasses
import difflib
import hashlib
import itertools
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.table import Table
from rich.text import Text

from duologue.cli.commands import Train
from duologue.cli.parse import parse_train
from duologue.errors import ConfigError
from duologue.fields import synonym
from duologue.ops.optim import Linear
from duologue.runs import config
from duologue.runs.evaluation import Evaluation
from duologue.runs.folders import parent_folder

FIXED = {"algorithm", "run_dir", "final_episodes", "wandb", "config", "grid", "dry_run"}
"""Fields of `Train` that say nothing of how a run learns, or cannot be varied."""
OPTION = re.compile(r"--|-h$|algorithm\.[\w.-]+:")
"""What is no value of a `--grid`: another option, or the kind of an object."""
LONGEST_NAME = 120
USAGE = "--grid takes a field and one or more values, as in --grid algorithm.discount 0.98 0.99."


class Axis(NamedTuple):
    """One `--grid`: a field, and the values as they were typed."""

    field: str
    values: tuple[str, ...]


class Combination(NamedTuple):
    """One run of a grid."""

    values: dict[str, str]
    """What differs, by the name of the column."""
    command: Train
    folder: Path

    def __str__(self) -> str:
        return ", ".join(f"{name}={value}" for name, value in self.values.items())


class Result(NamedTuple):
    """What became of a combination."""

    run: Combination
    score: Evaluation | None = None
    problem: str = ""


# What is asked for


def split(arguments: Sequence[str]) -> tuple[list[str], list[Axis]]:
    """A command line without its `--grid`, and those; the values of one end at the next option."""
    rest: list[str] = []
    found: list[list[str]] = []
    inside = False
    for word in arguments:
        option, equals, value = word.partition("=")
        if option == "--grid":
            found.append([value] if equals else [])
            inside = True
        elif inside and not OPTION.match(word):
            found[-1].append(word)
        else:
            rest.append(word)
            inside = False
    if {"-h", "--help"} & set(rest):
        return rest, []
    for words in found:
        if len(words) < 2:
            raise ConfigError(f"{' '.join(['--grid', *words])}: {USAGE}")
    return rest, [Axis(normal(field), tuple(values)) for field, *values in found]


def combinations(name: str, arguments: list[str], axes: Sequence[Axis]) -> list[Combination]:
    """Every combination, the last axis the fastest, each parsed as its own command line would be.

    Raises `ConfigError` for fields that are not there, are given twice or cannot vary, and for a value given twice;
    what the parser refuses, it refuses as ever.
    """
    settings, base = parse_train(name, arguments, env_later=any(axis.field == "env" for axis in axes))
    check(axes, arguments, settings, base)
    chosen = list(itertools.product(*(axis.values for axis in axes)))
    commands = [parse_train(name, spelled(arguments, axes, values, base))[1] for values in chosen]
    texts = [
        tuple(text(at(command, axis.field), typed) for axis, typed in zip(axes, values, strict=True))
        for values, command in zip(chosen, commands, strict=True)
    ]
    check_values(axes, chosen, texts)
    columns = short([axis.field for axis in axes])
    differ = [dict(zip(columns, each, strict=True)) for each in texts]
    parent = folder(base, axes)
    return [
        Combination(values, command, parent / file)
        for values, command, file in zip(differ, commands, file_names(differ), strict=True)
    ]


def check(axes: Sequence[Axis], arguments: list[str], settings: dict[str, config.Setting], base: Train) -> None:
    """Raise `ConfigError` for an axis that cannot be one."""
    options = {normal(word.partition("=")[0].removeprefix("--")) for word in arguments if word.startswith("--")}
    kinds = {normal(word.partition(":")[0]) for word in arguments if ":" in word and not word.startswith("-")}
    options |= {option.replace(".no_", ".").removeprefix("no_") for option in options}
    if "env" in settings and settings["env"].source == "command line":
        options.add("env")
    for field, times in Counter(axis.field for axis in axes).items():
        if field in FIXED:
            raise ConfigError(f"--grid {field}: cannot vary within a grid. Give it once, or start several commands.")
        value = at(base, field)
        if times > 1:
            raise ConfigError(f"--grid {field} stands {times} times. Give all its values to one --grid.")
        if field in options or (is_kind(value) and field in kinds):
            raise ConfigError(f"{field} is given by itself and by --grid. Leave one of them out.")


def check_values(axes: Sequence[Axis], chosen: Sequence[tuple[str, ...]], texts: Sequence[tuple[str, ...]]) -> None:
    """Raise `ConfigError` for an axis with one value twice, in whatever words."""
    for i, axis in enumerate(axes):
        known: dict[str, str] = {}
        for typed, value in sorted({(values[i], each[i]) for values, each in zip(chosen, texts, strict=True)}):
            if (first := known.setdefault(value, typed)) != typed:
                raise ConfigError(f"--grid {axis.field}: {first} and {typed} are one value. Leave one of them out.")
        twice = [value for value, times in Counter(axis.values).items() if times > 1]
        if twice:
            raise ConfigError(f"--grid {axis.field}: {twice[0]} stands twice. Leave one of them out.")


def spelled(arguments: list[str], axes: Sequence[Axis], values: Sequence[str], base: Train) -> list[str]:
    """The command line of one combination. Kinds of objects stand before their fields, and after the environment."""
    env: list[str] = []
    kinds: list[str] = []
    last: list[str] = []
    for (field, _), value in zip(axes, values, strict=True):
        before, dot, name = field.rpartition(".")
        before, word = before.replace("_", "-") + dot, name.rstrip("_").replace("_", "-") + "_" * name.endswith("_")
        now = at(base, field)
        if field == "env":
            env.append(value)
        elif is_kind(now):
            kinds.append(f"{before}{word}:{value.lower()}")
        elif isinstance(now, bool):
            if value.lower() not in ("true", "false"):
                raise ConfigError(f"--grid {field} {value}: must be True or False.")
            last.append(f"--{before}{'' if value.lower() == 'true' else 'no-'}{word}")
        else:
            last += [f"--{before}{word}", *(value.split() if isinstance(now, tuple) else [value])]
    named = int(bool(arguments) and not arguments[0].startswith("-"))
    return [*env, *arguments[:named], *kinds, *arguments[named:], *last]


def at(command: Train, field: str) -> Any:
    """The value of a dotted field. Raises `ConfigError` where there is none, with the nearest one."""
    node: Any = command
    *parents, _ = names = field.split(".")
    for depth, name in enumerate(names):
        known = members(node)
        if name not in known:
            before = "".join(f"{parent}." for parent in parents[:depth])
            full = {each: before + each for each in known if before or each not in FIXED}
            if node is command:  # a hyperparameter, without the word before it
                full = {each: f"algorithm.{each}" for each in members(command.algorithm)} | full
            near = difflib.get_close_matches(synonym(name, full) or name, full, n=1)
            hint = f"Did you mean {full[near[0]]!r}?" if near else f"Choose one of: {', '.join(sorted(full.values()))}."
            hint = hint if full else f"{before.rstrip('.')} is a plain value."
            raise ConfigError(f"--grid {field}: there is no such field. {hint}")
        node = getattr(node, name)
    return node


def members(value: Any) -> set[str]:
    return {field.name for field in dataclasses.fields(value)} if dataclasses.is_dataclass(value) else set()


def is_kind(value: Any) -> bool:
    """Whether a value is an object that the command line chooses by a word of its own, `algorithm.optimizer:adam`."""
    return dataclasses.is_dataclass(value) and not isinstance(value, Linear)


def normal(name: str) -> str:
    return name.replace("-", "_")


# What it is called


def text(value: Any, typed: str) -> str:
    """A value in one way of writing it, however it was typed."""
    if isinstance(value, tuple):
        return " ".join(map(str, value)) or "none"
    if isinstance(value, Linear):
        return f"linear:{value.start}:{value.end}"
    return typed.lower() if is_kind(value) else str(value)


def short(fields: Sequence[str]) -> list[str]:
    """The last parts of dotted names, or whole names where these are the same."""
    last = [field.rpartition(".")[2] for field in fields]
    return [field if last.count(name) > 1 else name for field, name in zip(fields, last, strict=True)]


def file_names(differ: Sequence[dict[str, str]]) -> list[str]:
    """A name of a folder for each combination, of letters, digits and `=,.+-_`. One that is too long, or that two
    would share, ends in a hash of what it stands for."""
    whole = [",".join(f"{name}={value}" for name, value in values.items()) for values in differ]
    plain = [re.sub(r"[^A-Za-z0-9=,.+_-]", "-", name) for name in whole]
    return [
        name
        if len(name) <= LONGEST_NAME and plain.count(name) == 1
        else f"{name[:LONGEST_NAME]}-{hashlib.sha256(full.encode()).hexdigest()[:8]}"
        for name, full in zip(plain, whole, strict=True)
    ]


def folder(base: Train, axes: Sequence[Axis]) -> Path:
    """Where the runs of a grid lie: `run_dir`, by default `runs/ALGORITHM/ENV`, or less where that is what varies."""
    if base.run_dir is not None:
        path = Path(base.run_dir)
        if (path / "config.json").exists():
            raise ConfigError(f"run_dir = {base.run_dir!r} is a run itself. Give another folder for a grid.")
        return path
    varied = {axis.field for axis in axes}
    named = "" if "env" in varied else base.env
    where = named or ("" if varied & {"env", "dataset"} else Path(base.dataset or "").name)
    algorithm = getattr(base.algorithm, "algorithm", base.algorithm)  # without a wrapper, as in a plan
    return parent_folder(type(algorithm).__name__, where)


# What came of it


def table(results: Sequence[Result], *, scores: bool = True) -> Table:
    """A row a combination, in the order given."""
    rows = Table(*results[0].run.values, *(["mean return, 95 % interval"] if scores else []), "run", box=None)
    for run, score, problem in results:
        said = problem.splitlines()[0] if problem else "-" if score is None else in_words(score)
        rows.add_row(*run.values.values(), *([Text(said)] if scores else []), Text(str(run.folder)))
    return rows


def in_words(score: Evaluation) -> str:
    low, high = score.interval
    return f"{score.mean:,.1f} [{low:,.1f}, {high:,.1f}]" if len(score.scores) > 1 else f"{score.mean:,.1f}"


def caution(results: Sequence[Result]) -> str:
    """What the intervals of a table are over, and what they cannot tell."""
    scores = [result.score for result in results if result.score is not None]
    episodes = sorted({score.sample_size for score in scores if score.returns.ndim == 1})
    if not episodes:
        return f"Intervals are over {' or '.join(sorted({score.sample_size for score in scores}))}." if scores else ""
    more = "`duologue plot` averages them." if "seed" in results[0].run.values else "Add --grid seed 0 1 2 3 4."
    return (
        f"Intervals are over {' or '.join(episodes)} of one agent each: how well that agent is known, not which "
        f"settings learn better. That takes several seeds. {more}"
    )
