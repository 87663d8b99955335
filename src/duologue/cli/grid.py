"""`train --grid`: one run for every combination of values, each in its own folder.

All combinations are checked before the first one trains. No file describes a grid. The same command finds its folders
by their names, and checks the configurations in them.
"""

import dataclasses
import difflib
import hashlib
import itertools
import re
import typing
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
"""Fields of `Train` that a grid cannot vary."""
OPTION = re.compile(r"--|-h$|algorithm\.[\w.-]+:")
"""A word that ends the values of a `--grid`: another option, or the kind of an object."""
LONGEST_NAME = 120
USAGE = "--grid takes a field and one or more values, as in --grid algorithm.discount 0.98 0.99."


class Axis(NamedTuple):
    """One `--grid`: a field, and its values as the user typed them."""

    field: str
    values: tuple[str, ...]


class Combination(NamedTuple):
    """One run of a grid."""

    values: dict[str, str]
    """The values that vary, by the name of the column."""
    command: Train
    folder: Path

    def __str__(self) -> str:
        return ", ".join(f"{name}={value}" for name, value in self.values.items())


class Result(NamedTuple):
    """The evaluation of a run, or the message of its failure."""

    run: Combination
    score: Evaluation | None = None
    problem: str = ""


# From words to combinations


def split(arguments: Sequence[str]) -> tuple[list[str], list[Axis]]:
    """Split a command line into the words without `--grid`, and the axes, whose values end at the next option."""
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
    return rest, [Axis(field_name(field), tuple(values)) for field, *values in found]


def combinations(name: str, arguments: list[str], axes: Sequence[Axis]) -> list[Combination]:
    """Every combination of the axes. The last axis varies fastest. Each is parsed as its own command line, so a value
    means the same with and without a grid.

    Raises `ConfigError` for a field that does not exist, is given twice, or cannot vary; for a value given twice; and
    for all that `parse_train` refuses.
    """
    settings, base = parse_train(name, arguments, env_later=any(axis.field == "env" for axis in axes))
    check_axes(axes, arguments, settings, base)
    chosen = list(itertools.product(*(axis.values for axis in axes)))
    commands = [parse_train(name, spelled(arguments, axes, values, base))[1] for values in chosen]
    texts = [
        tuple(value_text(value_at(command, axis.field), typed) for axis, typed in zip(axes, values, strict=True))
        for values, command in zip(chosen, commands, strict=True)
    ]
    check_values(axes, chosen, texts)
    columns = column_names([axis.field for axis in axes])
    differ = [dict(zip(columns, each, strict=True)) for each in texts]
    parent = grid_folder(base, axes)
    return [
        Combination(values, command, parent / file)
        for values, command, file in zip(differ, commands, file_names(differ), strict=True)
    ]


def check_axes(axes: Sequence[Axis], arguments: list[str], settings: dict[str, config.Setting], base: Train) -> None:
    """Raise `ConfigError` for an axis whose field does not exist, cannot vary, or is given twice."""
    options = {field_name(word.partition("=")[0].removeprefix("--")) for word in arguments if word.startswith("--")}
    kinds = {field_name(word.partition(":")[0]) for word in arguments if ":" in word and not word.startswith("-")}
    options |= {option.replace(".no_", ".").removeprefix("no_") for option in options}
    if "env" in settings and settings["env"].source == "command line":
        options.add("env")
    for field, times in Counter(axis.field for axis in axes).items():
        if field in FIXED:
            raise ConfigError(f"--grid {field}: cannot vary in a grid. Run several commands instead.")
        value = value_at(base, field)
        if times > 1:
            raise ConfigError(f"--grid {field} is given {times} times. Give all its values to one --grid.")
        if field in options or (is_kind(value) and field in kinds):
            raise ConfigError(f"{field} is given both as an option and by --grid. Leave one of them out.")


def check_values(axes: Sequence[Axis], chosen: Sequence[tuple[str, ...]], texts: Sequence[tuple[str, ...]]) -> None:
    """Raise `ConfigError` for an axis with one value twice, also where it is written in two ways."""
    for i, axis in enumerate(axes):
        known: dict[str, str] = {}
        for typed, value in sorted({(values[i], each[i]) for values, each in zip(chosen, texts, strict=True)}):
            if (first := known.setdefault(value, typed)) != typed:
                raise ConfigError(f"--grid {axis.field}: {first} and {typed} are one value. Leave one of them out.")
        twice = [value for value, times in Counter(axis.values).items() if times > 1]
        if twice:
            raise ConfigError(f"--grid {axis.field}: {twice[0]} is given twice. Leave one of them out.")


def spelled(arguments: list[str], axes: Sequence[Axis], values: Sequence[str], base: Train) -> list[str]:
    """The command line of one combination: environment, kinds of objects, given words, varied values."""
    env: list[str] = []
    kinds: list[str] = []
    last: list[str] = []
    for (field, _), value in zip(axes, values, strict=True):
        before, dot, name = field.rpartition(".")
        before, word = before.replace("_", "-") + dot, name.rstrip("_").replace("_", "-") + "_" * name.endswith("_")
        now, types = value_at(base, field), types_at(base, field)
        if field == "env":
            env.append(value)
        elif is_kind(now):
            kinds.append(f"{before}{word}:{value.lower()}")
        elif bool in types:
            allowed = ("True", "False", "None") if type(None) in types else ("True", "False")
            if value.capitalize() not in allowed:
                raise ConfigError(f"--grid {field} {value}: must be {' or '.join(allowed)}.")
            if len(allowed) == 2:
                last.append(f"--{before}{'' if value.lower() == 'true' else 'no-'}{word}")
            else:
                last += [f"--{before}{word}", value.capitalize()]
        else:
            several = any(typing.get_origin(kind) is tuple for kind in types)
            last += [f"--{before}{word}", *(value.split() if several else [value])]
    named = int(bool(arguments) and not arguments[0].startswith("-"))
    return [*env, *arguments[:named], *kinds, *arguments[named:], *last]


def value_at(command: Train, field: str) -> Any:
    """The value of a dotted field. Raises `ConfigError` with the nearest name if there is no such field."""
    node: Any = command
    *parents, _ = names = field.split(".")
    for depth, name in enumerate(names):
        known = members(node)
        if name not in known:
            before = "".join(f"{parent}." for parent in parents[:depth])
            full = {each: before + each for each in known if before or each not in FIXED}
            if node is command:  # a hyperparameter without its prefix `algorithm.`
                full = {each: f"algorithm.{each}" for each in members(command.algorithm)} | full
            near = difflib.get_close_matches(synonym(name, full) or name, full, n=1)
            hint = f"Did you mean {full[near[0]]!r}?" if near else f"Choose one of: {', '.join(sorted(full.values()))}."
            hint = hint if full else f"{before.rstrip('.')} is a plain value."
            raise ConfigError(f"--grid {field}: there is no such field. {hint}")
        node = getattr(node, name)
    return node


def types_at(command: Train, field: str) -> list[Any]:
    """The types that a dotted field allows, of which its value has one."""
    before, _, name = field.rpartition(".")
    parent = value_at(command, before) if before else command
    return list(config.union_members(typing.get_type_hints(type(parent), include_extras=True)[name]))


def members(value: Any) -> set[str]:
    """Names of the fields of an object; of a plain value, none."""
    return {field.name for field in dataclasses.fields(value)} if dataclasses.is_dataclass(value) else set()


def is_kind(value: Any) -> bool:
    """Whether the command line chooses an object by a separate word, as in `algorithm.optimizer:adam`."""
    return dataclasses.is_dataclass(value) and not isinstance(value, Linear)


def field_name(name: str) -> str:
    """An option as the name of a field."""
    return name.replace("-", "_")


# Names


def value_text(value: Any, typed: str) -> str:
    """A value as text, the same for all ways of typing it."""
    if isinstance(value, tuple):
        return " ".join(map(str, value)) or "none"
    if isinstance(value, Linear):
        return f"linear:{value.start}:{value.end}"
    return typed.lower() if is_kind(value) else str(value)


def column_names(fields: Sequence[str]) -> list[str]:
    """The last part of each dotted name, or the whole name where two last parts are equal."""
    last = [field.rpartition(".")[2] for field in fields]
    return [field if last.count(name) > 1 else name for field, name in zip(fields, last, strict=True)]


def file_names(differ: Sequence[dict[str, str]]) -> list[str]:
    """Name of the folder of each combination: letters, digits and `=,.+-_`. A name that is too long, or that two
    combinations share, ends in a hash of the values."""
    whole = [",".join(f"{name}={value}" for name, value in values.items()) for values in differ]
    plain = [re.sub(r"[^A-Za-z0-9=,.+_-]", "-", name) for name in whole]
    return [
        name
        if len(name) <= LONGEST_NAME and plain.count(name) == 1
        else f"{name[:LONGEST_NAME]}-{hashlib.sha256(full.encode()).hexdigest()[:8]}"
        for name, full in zip(plain, whole, strict=True)
    ]


def grid_folder(base: Train, axes: Sequence[Axis]) -> Path:
    """Folder that holds the runs of a grid: `run_dir`, by default `runs/ALGORITHM/ENV`, without ENV if that varies."""
    if base.run_dir is not None:
        path = Path(base.run_dir)
        if (path / "config.json").exists():
            raise ConfigError(f"run_dir = {base.run_dir!r} is the folder of a run. Give another folder for the grid.")
        return path
    varied = {axis.field for axis in axes}
    named = "" if "env" in varied else base.env
    where = named or ("" if varied & {"env", "dataset"} else Path(base.dataset or "").name)
    algorithm = getattr(base.algorithm, "algorithm", base.algorithm)  # the algorithm in `Normalized`
    return parent_folder(type(algorithm).__name__, where)


# Results


def table(results: Sequence[Result], *, scores: bool = True) -> Table:
    """Table with one row for each combination, in the order of the grid."""
    rows = Table(*results[0].run.values, *(["mean return, 95 % interval"] if scores else []), "run", box=None)
    for run, score, problem in results:
        words = problem.splitlines()[0] if problem else "-" if score is None else score_text(score)
        rows.add_row(*run.values.values(), *([Text(words)] if scores else []), Text(str(run.folder)))
    return rows


def score_text(score: Evaluation) -> str:
    """Mean with its interval, which one episode does not have, and the number of cut episodes, if there are any."""
    low, high = score.interval
    interval = f" [{low:,.1f}, {high:,.1f}]" if len(score.scores) > 1 else ""
    return f"{score.mean:,.1f}{interval}{score.cut_note and f', {score.cut_note}'}"


def interval_note(results: Sequence[Result]) -> str:
    """Note below the table: what its intervals are over, and what they do not show."""
    scores = [result.score for result in results if result.score is not None]
    episodes = sorted({score.sample_size for score in scores if score.returns.ndim == 1})
    if not episodes:
        return f"Intervals are over {' or '.join(sorted({score.sample_size for score in scores}))}." if scores else ""
    more = "`duologue plot` averages the seeds." if "seed" in results[0].run.values else "Add --grid seed 0 1 2 3 4."
    return (
        f"Intervals are over {' or '.join(episodes)} of one agent. They do not show which settings "
        f"learn better: for that you need several seeds. {more}"
    )
