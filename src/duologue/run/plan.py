"""What a run is: the arguments of `train` with every default filled in, checked, and written to config.json."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium as gym

from duologue.algorithms.base import AbstractAlgorithm, AnyAlgorithm
from duologue.envs import AbstractHostEnvs, AbstractJaxEnvs, make
from duologue.errors import ConfigError
from duologue.fields import Range, mismatch
from duologue.optim import Linear
from duologue.types import EnvSpec

Envs = AbstractHostEnvs | AbstractJaxEnvs
EnvSource = str | Callable[[], gym.Env] | AbstractHostEnvs | AbstractJaxEnvs
"""An id, a callable that returns a Gymnasium environment, or an adapter."""

INTERVALS = 200
"""Rows of metrics in a run, unless `log_every` says otherwise."""


@dataclass(frozen=True)
class Plan:
    """One run, or `seeds` runs in one program. All counts of steps are environment steps of one seed."""

    algorithm: AbstractAlgorithm
    env: str
    spec: EnvSpec
    steps: int
    seed: int = 0
    seeds: int = 1
    num_envs: int = 1
    asynchronous: bool = False
    max_episode_steps: int | None = None
    evaluate_every: int | None = None
    evaluate_episodes: int = 10
    save_every: int | None = None
    log_every: int = 1

    @property
    def name(self) -> str:
        """The algorithm's class, without the wrapper."""
        return type(getattr(self.algorithm, "algorithm", self.algorithm)).__name__

    def envs(self, source: EnvSource | None, *, purpose: str, num_envs: int | None = None) -> Envs:
        """Environments of this run for one purpose. `source` is needed where the run was not made from an id."""
        if source is None and self.env.startswith("<"):
            raise ConfigError(
                f"This run's environment was a Python object, {self.env}. Pass it again: "
                "duologue.load(path, env=...), or run.evaluate(env=...)."
            )
        return make(
            self.env if source is None else source,
            self.num_envs if num_envs is None else num_envs,
            seed=self.seed,
            purpose=purpose,
            max_episode_steps=self.max_episode_steps,
            asynchronous=self.asynchronous and purpose == "train",
        )


def check_arguments(**arguments: Any) -> None:
    """Ranges of `train`'s own arguments. Raises `ConfigError` for the first that does not fit."""
    lowest = {"seed": 0, **dict.fromkeys(("steps", "seeds", "num_envs", "evaluate_episodes"), 1)}
    optional = {"evaluate_every", "save_every", "log_every", "max_episode_steps", "num_envs"}
    for name, value in arguments.items():
        if value is None and name in optional:
            continue
        low = Range(lowest.get(name, 1), 2**31 - 1)
        if mismatch(value, int) or value not in low:
            raise ConfigError(f"{name} = {value!r}: must be an integer {low}.")


def with_horizon(algorithm: AnyAlgorithm, updates: int) -> AnyAlgorithm:
    """The algorithm with the length of the run written into every `Linear` schedule that left it out."""

    def fill(value: Any) -> Any:
        if isinstance(value, Linear):
            return dataclasses.replace(value, updates=updates) if value.updates is None else value
        if dataclasses.is_dataclass(value):
            return dataclasses.replace(value, **{f.name: fill(getattr(value, f.name)) for f in dataclasses.fields(value)})
        return value

    return fill(algorithm)


def describe(source: EnvSource) -> str:
    """An id as it is; anything else by its name in angle brackets, which cannot be made again from a file."""
    if isinstance(source, str):
        return source
    named = source if hasattr(source, "__qualname__") else type(source)
    return f"<{named.__module__}.{named.__qualname__}>"
