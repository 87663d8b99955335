"""Hyperparameter fields: types with a range, checked once, at construction."""

import dataclasses
import math
import types
import typing
from collections.abc import Collection
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args, get_origin

import equinox as eqx
import jax
import numpy as np
from jax.core import Tracer

from duologue.errors import ConfigError, suggestion


@dataclass(frozen=True)
class Range:
    """The closed interval of allowed values; `above` excludes the lower end, `below` the upper one."""

    low: int | float = -math.inf
    high: int | float = math.inf
    above: bool = False
    below: bool = False

    def __contains__(self, value: int | float | np.number) -> bool:
        over = value > self.low if self.above else value >= self.low
        return bool(np.all(over) and np.all(value < self.high if self.below else value <= self.high))

    def __str__(self) -> str:
        low, high = (f"{end:,}" if isinstance(end, int) else f"{end:g}" for end in (self.low, self.high))
        if self.high == math.inf:
            return f"{'>' if self.above else '>='} {low}"
        return f"in {'(' if self.above else '['}{low}, {high}{')' if self.below else ']'}"


Fraction = Annotated[float, Range(0, 1)]  # [0, 1]
Share = Annotated[float, Range(0, 1, above=True)]  # (0, 1]
Decay = Annotated[float, Range(0, 1, below=True)]  # [0, 1)
OpenFraction = Annotated[float, Range(0, 1, above=True, below=True)]  # (0, 1)
Positive = Annotated[float, Range(0, above=True)]
NonNegative = Annotated[float, Range(0)]
PositiveInt = Annotated[int, Range(1)]
NonNegativeInt = Annotated[int, Range(0)]
MOST = 2**31 - 1
"""Largest number of steps, of seeds, and of every other count in a run. The device counts in 32-bit integers."""
Count = Annotated[int, Range(1, MOST)]
Seed = Annotated[int, Range(0, MOST)]

# Names that other libraries use for our fields. An error suggests the first of our names that the class has.
SYNONYMS: dict[str, str | tuple[str, ...]] = {
    "gamma": "discount", "gae_lambda": "lambda_", "lambda": "lambda_", "lam": "lambda_", "lr": "learning_rate",
    "n_steps": "rollout_length", "num_steps": "rollout_length", "n_envs": "num_envs",
    "ent_coef": ("entropy_coefficient", "alpha"), "beta_entropy": "entropy_coefficient",
    "buffer_size": "replay_capacity", "train_freq": "rollout_length", "gradient_steps": "updates",
    "policy_noise": "target_noise", "target_policy_noise": "target_noise", "noise_clip": "target_noise_clip",
    "policy_frequency": "policy_delay", "policy_freq": "policy_delay", "q_lr": "critic_learning_rate",
    "policy_lr": "actor_learning_rate", "cql_alpha": "conservatism", "min_q_weight": "conservatism",
    "conservative_weight": "conservatism", "norm_adv": "normalize_advantage", "clip_range_vf": "value_clip",
    "vf_coef": "value_coefficient", "polyak": "tau", "clip_range": "objective", "clip_ratio": "objective",
    "clip_coef": "objective", "clip_epsilon": "objective", "n_epochs": "epochs", "n_critic_updates": "epochs",
    "target_kl": "max_kl", "batch_size": "minibatch_size", "max_grad_norm": "max_gradient_norm",
    "net_arch": "networks", "policy_kwargs": "networks", "hidden_sizes": "networks",
}  # fmt: skip


def synonym(name: str, known: Collection[str]) -> str | None:
    """Our name of the field that other libraries call `name`. `None`: the `known` names do not contain it."""
    ours = SYNONYMS.get(name, ())
    return next((each for each in ((ours,) if isinstance(ours, str) else ours) if each in known), None)


class Configurable(eqx.Module):
    """A frozen module whose fields are its hyperparameters. Unknown names, wrong types and values out of range raise
    `ConfigError`."""

    def __new__(cls, *args: Any, **kwargs: Any):
        known = cls.__dataclass_fields__
        for name in kwargs:
            if name not in known:
                ours = synonym(name, known)
                hint = f"Did you mean {ours!r}?" if ours else suggestion(name, known)
                raise ConfigError(f"{cls.__name__} has no field {name!r}. {hint}")
        return super().__new__(cls)

    def __check_init__(self):
        check_fields(self, prefix=f"{type(self).__name__}.")


def check_fields(record: Any, *, prefix: str = "") -> None:
    """Raise `ConfigError` for the first field of a dataclass whose value does not fit its annotation."""
    hints = typing.get_type_hints(type(record), include_extras=True)
    for field in dataclasses.fields(record):
        check(hints[field.name], **{field.name: getattr(record, field.name)}, prefix=prefix)


def check(hint: Any, *, prefix: str = "", **values: Any) -> None:
    """Raise `ConfigError` for the first of the named values that does not fit `hint`: `check(Count, steps=steps)`."""
    for name, value in values.items():
        if problem := mismatch(value, hint):
            raise ConfigError(f"{prefix}{name} = {value!r}: must be {problem}.")


def mismatch(value: Any, hint: Any) -> str | None:
    """The values that `hint` allows, in words; `None` if it allows `value`. Every range allows a traced number (a
    sweep)."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        problem = mismatch(value, args[0])
        ranges = [a for a in args[1:] if isinstance(a, Range)]
        if problem:
            return " ".join([problem, *map(str, ranges)])
        kind = "an integer" if args[0] is int else "a number"
        return next((f"{kind} {r}" for r in ranges if is_concrete(value) and value not in r), None)
    if origin in (typing.Union, types.UnionType):
        problems = [mismatch(value, arg) for arg in args]
        return None if None in problems else " or ".join(p for p in problems if p)
    if origin is Literal:
        # Compare the type first, because an array compares element by element, and True == 1.
        known = type(value) in map(type, args) and value in args
        return None if known else f"one of {', '.join(map(repr, args))}"
    if origin is dict:
        if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
            return "a dict with strings as its keys"
        return next((f"a dict, each value {p}" for p in (mismatch(v, args[1]) for v in value.values()) if p), None)
    if origin is tuple:
        problems = [mismatch(v, args[0]) for v in value] if isinstance(value, tuple) else ["a tuple"]
        return next(
            (f"a tuple, each {problem}" if problem != "a tuple" else problem for problem in problems if problem), None
        )
    if hint is float:
        number = isinstance(value, int | float | np.floating | jax.Array) and not isinstance(value, bool)
        return None if number and (isinstance(value, jax.Array) or is_finite(value)) else "a finite number"
    if hint is int:
        return None if isinstance(value, int | np.integer) and not isinstance(value, bool) else "an integer"
    if hint is type(None):
        return None if value is None else "None"
    if hint is bool:
        return None if isinstance(value, bool) else "True or False"
    if isinstance(hint, type) and hint is not Any:
        return None if isinstance(value, hint) else f"{'an' if hint.__name__[0] in 'AEIOU' else 'a'} {hint.__name__}"
    return None


def is_concrete(*values: Any) -> bool:
    """Whether JAX traces none of the values."""
    return not any(isinstance(value, Tracer) for value in values)


def is_finite(value: int | float | np.floating) -> bool:
    """Whether `value` is a finite float."""
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer larger than every float
        return False
