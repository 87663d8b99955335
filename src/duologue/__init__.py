"""Duologue: actor-critic reinforcement learning in JAX.

A public name is imported when it is first used, so that `import duologue` and the command line start without JAX.
`__init__.pyi` shows the same names to type checkers.
"""

from importlib import import_module
from importlib.metadata import version
from typing import Any

from duologue.algorithms import CLASSES

__version__ = version("duologue")

PLACES: dict[str, str] = {
    **{name: f"algorithms.{module}" for name, module in CLASSES.items()},
    **dict.fromkeys(("Clip", "KLPenalty"), "algorithms.ppo"),
    **dict.fromkeys(("DiscountedRewards", "PolicyGradient", "Retrace"), "algorithms.sac_x.targets"),
    "AbstractAlgorithm": "algorithms.base",
    **dict.fromkeys(("DataSet", "from_columns"), "data.dataset"),
    "ActionMask": "envs.masks",
    **dict.fromkeys(("CheckpointError", "ConfigError", "DuologueError", "EnvError", "MissingExtraError"), "errors"),
    **dict.fromkeys(("AbstractNetworks", "Networks"), "networks.builder"),
    **dict.fromkeys(("KL", "MMD"), "ops.divergences"),
    **dict.fromkeys(("Adam", "Linear", "RMSProp"), "ops.optim"),
    "collect_random": "runs.collect",
    "read_data": "runs.data_sources",
    "learning_curve": "runs.display.curves",
    "Evaluation": "runs.evaluation",
    **dict.fromkeys(("Run", "Runs", "load"), "runs.run"),
    **dict.fromkeys(("resume", "train"), "runs.train"),
    "Transition": "types",
}
"""Module of each public name."""
MODULES: dict[str, str] = {
    "task_schedulers": "algorithms.sac_x.task_schedulers", "tasks": "envs.tasks", "temperature": "ops.temperature",
}  # fmt: skip
"""Public modules."""


def __getattr__(name: str) -> Any:
    """The public object of this name (PEP 562)."""
    if name in MODULES:
        value = import_module(f"duologue.{MODULES[name]}")
    elif name in PLACES:
        value = getattr(import_module(f"duologue.{PLACES[name]}"), name)
    else:
        raise AttributeError(f"module 'duologue' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *PLACES, *MODULES])
