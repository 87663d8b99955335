"""Parser of `duologue train`: defaults, a YAML file over them, and the command line over both."""

import dataclasses
import itertools
import re
from pathlib import Path
from typing import Any

import tyro

from duologue.algorithms.base import AbstractAlgorithm
from duologue.cli.commands import Train, default_algorithm
from duologue.errors import ConfigError
from duologue.fields import synonym
from duologue.ops.optim import LearningRate, Linear
from duologue.runs import config

registry = tyro.constructors.ConstructorRegistry()


@registry.primitive_rule
def learning_rate(info: tyro.constructors.PrimitiveTypeInfo) -> tyro.constructors.PrimitiveConstructorSpec | None:
    """Parse `7e-4`, or `linear:7e-4:0` for a schedule from the first number to the second over the whole run."""
    if info.type != LearningRate:
        return None

    def parse(words: list[str]) -> float | Linear:
        kind, *numbers = words[0].split(":")
        if kind != "linear":
            return float(words[0])
        if len(numbers) not in (1, 2):
            raise ValueError("a schedule is linear:START or linear:START:END")
        start, end = map(float, [*numbers, 0][:2])
        return Linear(start, end)

    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="FLOAT|linear:START:END",
        instance_from_str=parse,
        is_instance=lambda value: isinstance(value, float | Linear),
        str_from_instance=lambda value: [
            f"linear:{value.start}:{value.end}" if isinstance(value, Linear) else str(value)
        ],
    )


@registry.struct_rule
def in_one_paragraph(info: tyro.constructors.StructTypeInfo) -> tyro.constructors.StructConstructorSpec | None:
    """Remove the line breaks of the source from the help of fields. tyro keeps those before an indented line."""
    if in_one_paragraph in info.markers:  # the call below, which wants the rules of tyro
        return None
    spec = registry.get_struct_spec(dataclasses.replace(info, markers=(*info.markers, in_one_paragraph)))
    if not isinstance(spec, tyro.constructors.StructConstructorSpec):
        return None

    def unbroken(field: tyro.constructors.StructFieldSpec) -> tyro.constructors.StructFieldSpec:
        def text() -> str | None:
            words = field.helptext() if callable(field.helptext) else field.helptext
            return words and re.sub(r"(?<!\n)\n(?!\n) *", " ", words)

        return dataclasses.replace(field, helptext=text)

    return dataclasses.replace(spec, fields=tuple(map(unbroken, spec.fields)))


def parse_train(name: str, arguments: list[str], *, env_later: bool = False) -> tuple[dict[str, config.Setting], Train]:
    """Parse the command `train`. Returns the merged configuration, each value with its source, and the command.

    `env_later` allows a command without an environment, which a grid adds. Raises `ConfigError`.
    """
    algorithm = default_algorithm(name)
    check_words(algorithm, arguments)
    default = Train(env="", algorithm=algorithm)
    layers = [("default", config.to_dict(default))]
    path = config_path(arguments)
    if path is not None:
        values = config.read_yaml(Path(path))
        layers.append((f"config file {path}", values | {"config": path}))
        default = config.from_dict(config.nest(config.merge(layers)), extra=(Train,))
        if type(default.algorithm) is not type(algorithm):
            raise ConfigError(
                f"config file {path}: its algorithm is {type(default.algorithm).__name__}, and {name} is "
                f"{type(algorithm).__name__}."
            )
    sources, before = config.merge(layers), config.to_dict(default)
    command = tyro.cli(
        Train,
        args=arguments,
        default=default,
        prog=f"duologue train {name}",
        description=Train.__doc__,
        registry=registry,
        config=(tyro.conf.CascadeSubcommandArgs,),
    )
    if not command.env and command.dataset is None and not env_later:
        raise ConfigError(f"train needs an environment, for example duologue train {name} CartPole-v1.")
    if command.grid:  # `grid.split` has removed --grid from the command line
        raise ConfigError(f"config file {path}: grid is not allowed in a file. Use --grid on the command line.")
    after = config.to_dict(command)
    given = config.merge([("command line", difference(before, after))])
    return {
        key: given.get(key) or config.Setting(value, sources[key].source if key in sources else "default")
        for key, (value, _) in config.merge([("", after)]).items()
    }, command


def check_words(algorithm: AbstractAlgorithm, arguments: list[str]) -> None:
    """Raise `ConfigError` for the name that another library uses for a hyperparameter, with ours.

    The suggestion of tyro may name an unrelated hyperparameter.
    """
    fields = {field.name: field for field in dataclasses.fields(algorithm)}
    for word, after in itertools.zip_longest(arguments, arguments[1:]):
        option, _, value = word.partition("=")
        name = option.removeprefix("--algorithm.").replace("-", "_")
        if not option.startswith("--algorithm."):
            continue
        if name not in fields and (ours := synonym(name, fields)):
            right = ours.rstrip("_").replace("_", "-") + ("_" if ours.endswith("_") else "")
            raise ConfigError(f"{type(algorithm).__name__} has no {option}. Did you mean --algorithm.{right}?")
        if name in fields and dataclasses.is_dataclass(fields[name].default):
            kind = (value or after or "KIND").lower()
            raise ConfigError(
                f"{option} is an object and takes no value. Choose its kind with a separate word, "
                f"algorithm.{name.replace('_', '-')}:{kind}; its fields follow as {option}.FIELD."
            )


def difference(before: Any, after: dict[str, Any]) -> dict[str, Any]:
    """The values of `after` that differ from `before`; in an object of another type, from the defaults of its class."""
    before = before if isinstance(before, dict) else {}
    changed = {"type": after["type"]} if before.get("type") != after.get("type") else {}
    if changed and after["type"] in config.PUBLIC:  # "type" may also be an argument of an environment
        required = [f for f in dataclasses.fields(config.PUBLIC[after["type"]]) if f.default is dataclasses.MISSING]
        before = {} if required else config.to_dict(config.PUBLIC[after["type"]]())
    for name, value in after.items():
        if isinstance(value, dict):
            if inner := difference(before.get(name), value):
                changed[name] = inner
        elif name != "type" and (name not in before or before[name] != value):
            changed[name] = value
    return changed


def config_path(arguments: list[str]) -> str | None:
    """The value of `--config`. It is needed before tyro reads the rest."""
    found = [
        word.partition("=")[2] if "=" in word else after
        for word, after in itertools.zip_longest(arguments, arguments[1:])
        if word == "--config" or word.startswith("--config=")
    ]
    if len(found) > 1:
        raise ConfigError(f"config takes one file. Here are {len(found)}: {', '.join(map(str, found))}.")
    return found[0] if found else None
