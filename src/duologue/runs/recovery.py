"""Recovery of a run after errors and stops: options for its environments, and messages about it."""

import shlex
from dataclasses import fields
from pathlib import Path
from typing import Any

import jax
import numpy as np

from duologue.envs.base import AbstractHostEnvs
from duologue.envs.journaled import Restarts
from duologue.envs.make import is_compiled
from duologue.envs.tasks import strip_tasks
from duologue.errors import ConfigError, EnvError
from duologue.runs.options import RunOptions
from duologue.runs.plan import Plan
from duologue.types import PyTree

OPTIONS = ("exact", "replay_limit", "on_env_error", "max_env_restarts")
"""Options that need Gymnasium environments which the run makes itself."""


def recovery_arguments(options: RunOptions) -> dict[str, Any]:
    """The arguments of `make` for environments that train: the longest episode that they replay, and their restarts."""
    return {
        "replay_limit": options.replay_limit if options.exact else None,
        "restarts": Restarts(options.max_env_restarts if options.on_env_error == "restart" else 0),
    }


def check_recovery(options: RunOptions, env: Any) -> None:
    """Raise `ConfigError` for options that would have no effect in `env`, the environment that trains or `None`."""
    defaults = {field.name: field.default for field in fields(RunOptions) if field.name in OPTIONS}
    changed = {name: getattr(options, name) for name in OPTIONS if getattr(options, name) != defaults[name]}
    why = no_effect(env)
    if why is None and not options.exact and "replay_limit" in changed:
        changed.pop("exact")
        why = "with exact = False nothing is replayed"
    if why is None and options.on_env_error == "raise" and "max_env_restarts" in changed:
        changed = {"max_env_restarts": options.max_env_restarts}
        why = "without on_env_error = 'restart' no environment is replaced"
    if changed and why is not None:
        name, value = next(iter(changed.items()))
        raise ConfigError(f"{name} = {value!r}: {why}. Leave it out.")


def no_effect(env: Any) -> str | None:
    """Why the options have no effect in `env`, the environment that trains; `None` where they have."""
    if env is None:
        return "a run on recorded data steps no environment"
    if isinstance(strip_tasks(env), AbstractHostEnvs):
        return "an adapter restores and restarts its environments itself, and its own arguments say how"
    if is_compiled(env):
        return "a checkpoint holds the whole state of environments written in JAX, and these cannot raise"
    return None


def grade_note(message: str | None) -> str:
    """How exactly the environments of a resumed run were restored: `exact`, or `after reset` with the reason."""
    if message is None:
        return "environments: exact, each as it was saved"
    return f"environments: after reset. {message}"


def resume_command(path: Path, plan: Plan) -> str:
    """The command that continues a run; the call in Python if an environment was a Python object. It names what a
    person passes again: Python objects, and ids with a module."""
    sources = {"env": plan.env, "evaluate_env": plan.evaluate_env or ""}
    if (plan.tasks or "").startswith("<"):
        sources["env"] = "<tasks>"
    again = {name: source for name, source in sources.items() if source.startswith("<") or ":" in source}
    if any(source.startswith("<") for source in again.values()):
        arguments = [f"{name}={'…' if source.startswith('<') else repr(source)}" for name, source in again.items()]
        return f"duologue.resume({', '.join([repr(str(path)), *arguments])})"
    options = [f"--{name.replace('_', '-')} {shlex.quote(source)}" for name, source in again.items()]
    return " ".join(["duologue resume", shlex.quote(str(path)), *options])


def add_place(error: EnvError, step: int, command: str) -> None:
    """Add to the message of an error at which step the run is saved, and how it is continued."""
    error.args = (f"{error}\nThe run is saved at step {step:,}; continue with: {command}",)


def is_valid(state: PyTree) -> bool:
    """Whether all arrays of a state are still there: none was donated to a later call."""
    return not any(isinstance(x, jax.Array) and x.is_deleted() for x in jax.tree.leaves(state))


def restarts_since(envs: Any, before: Any) -> Any:
    """Number of environments replaced since there were `before`; `[S]` for several seeds."""
    return np.asarray(envs.restarts - before, np.float64)
