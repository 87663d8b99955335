"""Errors that a user can correct. Each message names the problem, the expected value, and the remedy."""

import difflib
from collections.abc import Iterable


class DuologueError(Exception):
    """Parent of every error this library raises on purpose. The command line prints only its message."""


class ConfigError(DuologueError):
    """A field, a value, a space, or a combination of them that cannot work."""


class EnvError(DuologueError):
    """An environment that raised, or broke its own contract (NaN, changed shape)."""


class CheckpointError(DuologueError):
    """A run folder or checkpoint that is missing, altered or in use."""


def divergence_error(what: str) -> DuologueError:
    """Error for NaN or infinity that the learner produced, not the environment."""
    return DuologueError(
        f"Learning has diverged: {what}. The checkpoints before it are intact. A smaller learning rate may help, "
        "or smaller observations and rewards: duologue.Normalized(algorithm), --normalize-obs."
    )


class MissingExtraError(DuologueError):
    """An optional dependency that is not installed."""

    def __init__(self, extra: str, what: str):
        super().__init__(f'{what} needs an extra: pip install ".[{extra}]" in a checkout of Duologue')


def suggestion(name: str, choices: Iterable[str]) -> str:
    """A sentence that suggests the choice nearest to `name`, or lists all `choices` when none is near."""
    choices = sorted(choices)

    def likeness(choice: str) -> tuple[float, bool]:
        return difflib.SequenceMatcher(None, name, choice).ratio(), choice[:1] == name[:1]

    close = max(choices, key=likeness, default="")
    return f"Did you mean {close!r}?" if likeness(close)[0] >= 0.6 else f"Choose one of: {', '.join(choices)}."
