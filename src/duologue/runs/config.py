"""Configuration as plain data: objects to JSON and back with a closed table of classes, YAML files, and layers.

No name in a file is ever imported. A class must be in `PUBLIC`, or the user must pass it.
"""

import dataclasses
import re
import types
import typing
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import yaml
from yaml.composer import ComposerError
from yaml.constructor import ConstructorError

from duologue.algorithms import CLASSES, load_class
from duologue.algorithms.ppo import Clip, KLPenalty
from duologue.algorithms.sac_x.targets import DiscountedRewards, PolicyGradient, Retrace
from duologue.algorithms.sac_x.task_schedulers import FixedTask, QTable, Sequential, Uniform
from duologue.errors import ConfigError, suggestion
from duologue.fields import mismatch, synonym
from duologue.networks.builder import Networks
from duologue.ops.divergences import KL, MMD
from duologue.ops.optim import Adam, Linear, RMSProp
from duologue.ops.temperature import Dual, Fixed, Learned
from duologue.types import Box, Dict, Discrete, EnvSpec, MultiDiscrete

PUBLIC: dict[str, type] = {
    cls.__name__: cls
    for cls in (
        *map(load_class, CLASSES),
        *(MMD, KL, Dual),
        *(Retrace, DiscountedRewards, PolicyGradient, QTable, Uniform, FixedTask, Sequential),
        *(Networks, Learned, Fixed, Clip, KLPenalty),
        *(Adam, Linear, RMSProp),
        *(Box, Dict, Discrete, EnvSpec, MultiDiscrete),
    )
}
"""Every class that a configuration may name: all algorithms of the table, and the objects of their fields."""

MAX_YAML_BYTES = 256 * 2**10


# Objects


def to_dict(value: Any, *, at: str = "") -> Any:
    """Plain data for JSON: an object becomes `{"type": its class, field: …}`, a tuple a list.

    Raises `ConfigError` with the path of a value that is neither a dataclass nor plain, such as an array or a function.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        cls, fields = type(value), [field.name for field in dataclasses.fields(value) if field.init]
        if PUBLIC.get(cls.__name__, cls) is not cls or "type" in fields:
            raise ConfigError(
                f"{at or 'the configuration'}: the class {cls.__name__} cannot be written. Rename the class if "
                "Duologue has one of this name, or rename its field 'type'."
            )
        return {"type": cls.__name__} | {name: to_dict(getattr(value, name), at=_join(at, name)) for name in fields}
    if isinstance(value, dict) and all(isinstance(name, str) for name in value):
        return {name: to_dict(part, at=_join(at, name)) for name, part in value.items()}
    if isinstance(value, tuple | list):
        return [to_dict(part, at=f"{at}[{i}]") for i, part in enumerate(value)]
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | str) or (isinstance(value, float) and np.isfinite(value)):
        return value
    raise ConfigError(
        f"{at or 'the configuration'} = {value!r}: must be a finite number, text, or an object of fields."
    )


def from_dict(data: dict[str, Any], *, extra: Sequence[type] = (), at: str = "") -> Any:
    """The object that `to_dict` wrote; missing fields take the defaults of their class.

    `extra` holds classes of your own that the data may name; `at` is the path of `data`, for messages. Raises
    `ConfigError` with the path of an unknown type, an unknown or missing field, or a value that does not fit.
    """
    for cls in extra:
        if PUBLIC.get(cls.__name__, cls) is not cls:
            raise ConfigError(f"Duologue has its own class {cls.__name__}. Rename yours.")
    try:
        return _object(data, PUBLIC | {cls.__name__: cls for cls in extra}, at)
    except RecursionError as error:
        raise ConfigError(f"{at or 'the configuration'} is nested too deeply.") from error
    except OverflowError as error:
        raise ConfigError(f"{at or 'the configuration'} holds an integer that is too large for its field.") from error


def _object(data: dict[str, Any], table: dict[str, type], at: str) -> Any:
    where = at or "the configuration"
    name = data.get("type")
    if not isinstance(name, str):
        raise ConfigError(
            f"{where} = {data!r}: it must have a field 'type' with the name of a class, as in "
            f"{{'type': 'Networks', …}}."
        )
    if name not in table:
        raise ConfigError(
            f"{_join(at, 'type')} = {name!r}: must be a public class of Duologue. If the class is yours, pass it: "
            f"load(…, algorithm={name}). {suggestion(name, table)}"
        )
    cls = table[name]
    hints = typing.get_type_hints(cls, include_extras=True)
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}
    values = {field: value for field, value in data.items() if field != "type"}
    unknown = next((field for field in values if field not in fields), None)
    if unknown is not None:
        ours = synonym(unknown, fields)
        hint = f"Did you mean {ours!r}?" if ours else suggestion(unknown, fields)
        raise ConfigError(f"{_join(at, unknown)}: {name} has no such field. {hint}")
    for field in fields.values():
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and field.name not in values:
            raise ConfigError(f"{_join(at, field.name)} is missing: {name} has no default for it.")
    arguments = {field: _value(value, hints[field], table, _join(at, field)) for field, value in values.items()}
    try:
        return cls(**arguments)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error


def _value(data: Any, hint: Any, table: dict[str, type], at: str) -> Any:
    """`data` converted to a value of a field with the annotation `hint`."""
    value = data
    if isinstance(data, dict):
        parts = next((typing.get_args(arm)[1] for arm in union_members(hint) if typing.get_origin(arm) is dict), None)
        if parts is None:
            value = _object(data, table, at)
        else:
            value = {name: _value(part, parts, table, _join(at, name)) for name, part in data.items()}
    elif isinstance(data, list):
        parts = next((typing.get_args(arm)[0] for arm in union_members(hint) if typing.get_origin(arm) is tuple), None)
        if parts is not None:
            value = tuple(_value(part, parts, table, f"{at}[{i}]") for i, part in enumerate(data))
    elif type(data) is int and float in (arms := union_members(hint)) and int not in arms:
        value = float(data)  # JSON and people write 1 for 1.0
    problem = mismatch(value, hint)
    if problem:
        raise ConfigError(f"{at} = {data!r}: must be {problem}.")
    return value


def union_members(hint: Any) -> Iterable[Any]:
    """The members of a union; any other hint alone."""
    origin = typing.get_origin(hint)
    if origin is Annotated:
        return union_members(typing.get_args(hint)[0])
    if origin in (typing.Union, types.UnionType):
        return [arm for part in typing.get_args(hint) for arm in union_members(part)]
    return [hint]


def _join(at: str, name: str) -> str:
    return f"{at}.{name}" if at else name


# YAML


class _PlainLoader(yaml.SafeLoader):
    """Refuses aliases, because nested copies can fill the memory, and names that occur twice in a mapping."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise ComposerError(None, None, "aliases are not allowed", self.peek_event().start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if len(set(names)) < len(names):
            raise ConstructorError(None, None, "a name stands twice in this mapping", node.start_mark)
        return super().construct_mapping(node, deep)


# YAML 1.1 reads 1e-3, without a point, as text.
EXPONENT = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$")
_PlainLoader.add_implicit_resolver("tag:yaml.org,2002:float", EXPONENT, list("-+0123456789"))


def read_yaml(path: Path) -> dict[str, Any]:
    """The nested values of a YAML file: text, numbers, lists, mappings. An empty file gives an empty dict.

    Raises `ConfigError` for a file that is missing, above 256 KiB, or not YAML, and for aliases, tags of Python
    objects, dates, and a name that occurs twice.
    """
    try:
        with open(path, "rb") as file:
            text = file.read(MAX_YAML_BYTES + 1)
        if len(text) > MAX_YAML_BYTES:
            raise ConfigError(f"{path} holds more than {MAX_YAML_BYTES:,} bytes, too many for a configuration.")
        loader = _PlainLoader(text)
        try:
            value = loader.get_single_data()
        finally:
            loader.dispose()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}.") from error
    except RecursionError as error:
        raise ConfigError(f"{path} is nested too deeply.") from error
    except (yaml.YAMLError, ValueError, TypeError) as error:
        raise ConfigError(f"{path} is not a plain YAML file: {error}") from error
    value = {} if value is None else value
    if not isinstance(value, dict):
        raise ConfigError(
            f"{path} holds a {type(value).__name__}. The file must hold fields with values, as in `seed: 1`."
        )
    return _plain(value, path, "")


def _plain(value: Any, path: Path, at: str) -> Any:
    """`value` unchanged. Raises `ConfigError` where it holds a type that JSON does not have."""
    if isinstance(value, dict):
        for name in value:
            if not isinstance(name, str):
                raise ConfigError(
                    f"{path}: the key {name!r} in {at or 'the file'} is not a string. Put it in quotation marks."
                )
        return {name: _plain(part, path, _join(at, name)) for name, part in value.items()}
    if isinstance(value, list):
        return [_plain(part, path, f"{at}[{i}]") for i, part in enumerate(value)]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ConfigError(f"{path}: {at} = {value!r} is a {type(value).__name__}. Put it in quotation marks if it is text.")


# Layers


class Setting(NamedTuple):
    """A value, and the layer it came from."""

    value: Any
    source: str


def merge(layers: Sequence[tuple[str, dict[str, Any]]]) -> dict[str, Setting]:
    """The values of nested `(source, values)` layers by dotted path, each with its source; later layers win.

    A later list replaces the whole earlier list. If a layer gives another `type` of object, or a plain value in place
    of the object, the fields that earlier layers gave to this object are removed.
    """
    merged: dict[str, Setting] = {}
    for source, values in layers:
        for path, value in sorted(_values_by_path(values), key=_types_first):
            known = merged.get(path)
            if _is_type(path) and known is not None and known.value != value:
                _clear(merged, path.rpartition(".")[0])
            _clear(merged, path)
            for parent in _parents(path):
                merged.pop(parent, None)
            merged[path] = Setting(value, source)
    return merged


def nest(settings: dict[str, Setting]) -> dict[str, Any]:
    """The merged values as nested dicts, which `from_dict` reads."""
    root: dict[str, Any] = {}
    for path, setting in settings.items():
        *parents, name = path.split(".")
        node = root
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = setting.value
    return root


def _values_by_path(values: dict[str, Any], at: str = "") -> list[tuple[str, Any]]:
    """Pairs of dotted path and value."""
    items: list[tuple[str, Any]] = []
    for name, value in values.items():
        path = _join(at, name)
        items += _values_by_path(value, path) if isinstance(value, dict) else [(path, value)]
    return items


def _is_type(path: str) -> bool:
    return path.rpartition(".")[2] == "type"


def _types_first(item: tuple[str, Any]) -> tuple[bool, int]:
    """Sort key: outer types, inner types, then fields. So a new type clears the paths below it before its layer fills
    them."""
    return not _is_type(item[0]), item[0].count(".")


def _parents(path: str) -> list[str]:
    parts = path.split(".")
    return [".".join(parts[:i]) for i in range(1, len(parts))]


def _clear(merged: dict[str, Setting], path: str) -> None:
    """Remove all paths below `path`."""
    for below in [other for other in merged if not path or other.startswith(f"{path}.")]:
        del merged[below]
