"""Where two environments differ, part by part and in a few words."""

from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from duologue.errors import ConfigError
from duologue.types import Dict, EnvSpec, Space

FEW = 4
"""Largest number of values that a message shows whole."""


def check_same_spec(i: int, spec: EnvSpec, first: EnvSpec, name: str = "environment 0") -> None:
    """Raise `ConfigError` where environment `i` has another spec than the `first`, which has this name."""
    if differences := list(spec_differences(spec, first)):
        raise ConfigError(
            f"environment {i} differs from {name}: {'; '.join(differences)}. All environments of a run must be alike."
        )


def spec_differences(now: EnvSpec, then: EnvSpec) -> Iterator[str]:
    """The parts in which two environments differ: `observation.shape = (4,), not (3,)`."""
    yield from space_differences("observation", now.observation, then.observation)
    yield from space_differences("action", now.action, then.action)
    for name in ("max_episode_steps", "reward_threshold", "tasks"):
        yield from value_difference(name, getattr(now, name), getattr(then, name))


def space_differences(name: str, now: Space, then: Space) -> Iterator[str]:
    """The parts in which two spaces of this name differ."""
    if type(now) is not type(then):
        yield f"{name} is a {type(now).__name__}, not a {type(then).__name__}"
    elif isinstance(now, Dict) and isinstance(then, Dict):
        for part in [*now.spaces, *(part for part in then.spaces if part not in now.spaces)]:
            if part not in now.spaces or part not in then.spaces:
                yield f"{name}[{part!r}] is {'new' if part in now.spaces else 'missing'}"
            else:
                yield from space_differences(f"{name}[{part!r}]", now.spaces[part], then.spaces[part])
    else:
        for part in fields(now):
            yield from value_difference(f"{name}.{part.name}", getattr(now, part.name), getattr(then, part.name))


def value_difference(name: str, now: Any, then: Any) -> Iterator[str]:
    """The difference of two values, or nothing. Of many numbers, it shows the first that differ."""
    if now == then:
        return
    if isinstance(now, tuple) and isinstance(then, tuple) and len(now) == len(then) > FEW:
        where = [i for i, pair in enumerate(zip(now, then, strict=True)) if pair[0] != pair[1]]
        more = f" (and {len(where) - 1} more)" if len(where) > 1 else ""
        yield f"{name}[{where[0]}] = {now[where[0]]}, not {then[where[0]]}{more}"
    else:
        yield f"{name} = {_shorten(now)}, not {_shorten(then)}"


def _shorten(value: Any) -> str:
    return f"{len(value)} values" if isinstance(value, tuple) and len(value) > FEW else repr(value)
