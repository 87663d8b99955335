"""Wrappers of Gymnasium that keep running statistics over episodes. A new environment begins with new statistics."""

from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np

REMEDIES = {
    gym.wrappers.NormalizeObservation: ("duologue.Normalized(algorithm, reward=False)", "--normalize-obs"),
    gym.wrappers.NormalizeReward: ("duologue.Normalized(algorithm, obs=False)", "--normalize-reward"),
    gym.Env: ("duologue.Normalized(algorithm)", "--normalize-obs, --normalize-reward"),
}
"""What replaces statistics of each kind, in Python and on the command line."""


def statistics_notes(env: gym.Env) -> tuple[str, ...]:
    """A remark on each wrapper of `env`, and on `env` itself, whose running statistics change while it steps."""
    return tuple(_note(each) for each in wrapper_chain(env) if has_running_statistics(each))


def wrapper_chain(env: gym.Env) -> Iterator[gym.Env]:
    """The wrappers of an environment from the outermost on, and last the environment itself."""
    yield env
    while isinstance(env, gym.Wrapper):
        env = env.env
        yield env


def find_return_counter(env: gym.Env) -> gym.wrappers.RecordEpisodeStatistics | None:
    """The wrapper of `env` that reports the return of each episode as `info["episode"]["r"]`; `None` without one."""
    kind = gym.wrappers.RecordEpisodeStatistics
    found = (each for each in wrapper_chain(env) if isinstance(each, kind))
    return next((each for each in found if getattr(each, "_stats_key", "episode") == "episode"), None)


def has_running_statistics(env: gym.Env) -> bool:
    """Whether one wrapper, or environment, holds moments that change while it steps. `update_running_mean = False`
    means that they stay as they are."""
    held = getattr(env, "__dict__", {}).values()
    parts = [part for value in held for part in (value.values() if isinstance(value, dict) else [value])]
    return any(map(is_running_moments, parts)) and bool(getattr(env, "update_running_mean", True))


def is_running_moments(value: Any) -> bool:
    """Whether `value` is like Gymnasium's `RunningMeanStd`: it has a mean, a variance and a count, and an `update`."""
    numbers = (getattr(value, name, None) for name in ("mean", "var", "count"))
    return callable(getattr(value, "update", None)) and all(
        isinstance(each, float | int | np.ndarray | np.generic) for each in numbers
    )


def _note(env: gym.Env) -> str:
    kind = next(kind for kind in REMEDIES if isinstance(env, kind))
    name, (python, option) = type(env).__name__, REMEDIES[kind]
    known = "" if kind in (type(env), gym.Env) else f", a {kind.__name__},"
    return (
        f"{name}{known} keeps running statistics, and every evaluation begins with new ones: use {python} in its "
        f"place, on the command line {option}. Else the agent sees other numbers in evaluations, videos and resumed "
        "runs than in training, and its scores are wrong. With update_running_mean = False the statistics stay as they "
        "are, and this remark is left out."
    )
