"""The one table of public algorithms. Exports, configuration and command line are derived from this table.

The table is text, and this module imports no algorithm. So the command line lists all algorithms without JAX.
"""

from importlib import import_module
from typing import NamedTuple


class Entry(NamedTuple):
    """One public algorithm."""

    cls: str
    """Name of its class."""
    module: str
    """Its module, below `duologue.algorithms`."""
    summary: str
    """First line of the docstring of the class. With a scheduler: "SACX with ", then the first line of the docstring of
    the scheduler."""
    scheduler: str | None = None
    """Scheduler of SAC-X that this entry has by default."""


COMMANDS: dict[str, Entry] = {
    "a2c": Entry(
        "A2C",
        "a2c",
        "Synchronous advantage actor-critic (Mnih et al., 2016), with the coefficients of OpenAI Baselines.",
    ),
    "ppo": Entry(
        "PPO", "ppo", "Proximal policy optimisation (Schulman et al., 2017), with the defaults of Stable-Baselines3."
    ),
    "trpo": Entry(
        "TRPO", "trpo", "Trust region policy optimisation (Schulman et al., 2015), with the defaults of sb3-contrib."
    ),
    "acer": Entry(
        "ACER",
        "acer",
        "Actor-critic with experience replay (Wang et al., 2017), with the coefficients of OpenAI Baselines.",
    ),
    "acer-continuous": Entry(
        "ACERContinuous",
        "acer_continuous",
        "Actor-critic with experience replay for continuous actions (Wang et al., 2017, algorithm 3).",
    ),
    "sac": Entry(
        "SAC", "sac", "Soft actor-critic with twin critics and a learned temperature (Haarnoja et al., 2018b)."
    ),
    "sac-v1": Entry(
        "SACv1", "sac_v1", "Soft actor-critic with a value network and a fixed temperature (Haarnoja et al., 2018a)."
    ),
    "sac-discrete": Entry(
        "SACDiscrete", "sac_discrete", "Soft actor-critic with sums over discrete actions (Christodoulou, 2019)."
    ),
    "td3": Entry("TD3", "td3", "Twin delayed deep deterministic policy gradient (Fujimoto et al., 2018)."),
    "ddpg": Entry("DDPG", "ddpg", "Deep deterministic policy gradient (Lillicrap et al., 2016)."),
    "bear": Entry(
        "BEAR", "bear", "Bootstrapping error accumulation reduction (Kumar et al., 2019), for recorded data."
    ),
    "bcq": Entry("BCQ", "bcq", "Batch-constrained Q-learning (Fujimoto et al., 2019), for recorded data."),
    "bcq-discrete": Entry(
        "BCQDiscrete",
        "bcq_discrete",
        "Batch-constrained Q-learning over discrete actions (Fujimoto et al., 2019b), for recorded data.",
    ),
    "bc": Entry("BC", "bc", "Behaviour cloning by maximum likelihood, for recorded data."),
    "td3-bc": Entry(
        "TD3BC",
        "td3_bc",
        "TD3 with a behaviour-cloning term (Fujimoto and Gu, 2021), for recorded data and for going on online.",
    ),
    "cql": Entry(
        "CQL", "cql", "Conservative Q-learning on SAC (Kumar et al., 2020), for recorded data and for going on online."
    ),
    "iql": Entry(
        "IQL", "iql", "Implicit Q-learning (Kostrikov et al., 2022), for recorded data and for going on online."
    ),
    "kl-control": Entry(
        "KLControl",
        "kl_control",
        "Soft actor-critic against a clone of the data (Jaques et al., 2019), for recorded data.",
    ),
    "sac-x": Entry(
        "SACX",
        "sac_x.sac_x",
        "Scheduled auxiliary control (Riedmiller et al., 2018): one intention for each of several tasks.",
    ),
    "sac-u": Entry("SACX", "sac_x.sac_x", "SACX with SAC-U: every task with probability 1/K.", scheduler="Uniform"),
    "sac-q": Entry(
        "SACX",
        "sac_x.sac_x",
        "SACX with SAC-Q: a Boltzmann policy over a table of the main task's return after each choice.",
        scheduler="QTable",
    ),
}
"""Algorithms by the name that the command `train` uses."""

CLASSES: dict[str, str] = {
    **{entry.cls: entry.module for entry in COMMANDS.values()},
    **{"FQE": "fqe", "Normalized": "normalized"},  # wrappers of another algorithm, without a command
}
"""Module of each public class, below `duologue.algorithms`."""


def load_class(name: str) -> type:
    """Import and return the class `name`. Raises `KeyError` if the table has no class with this name."""
    return getattr(import_module(f"duologue.algorithms.{CLASSES[name]}"), name)
