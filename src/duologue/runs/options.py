"""The options of a run: one record from `train()` and the command line to the plan."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from duologue.data.cleaning import TimeoutAndTerminal
from duologue.fields import Count, Seed, check_fields


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Length, seeds, evaluations and checkpoints of a run. Steps are environment steps of one seed; in a run that
    learns from recorded data alone, gradient steps. Raises `ConfigError` for a value out of range.

    A new option is one field here and one parameter of `duologue.train`; `Train` (the command line) and `Plan` inherit
    it.
    """

    steps: Count
    """Environment steps of each seed; with --dataset, gradient steps."""
    seed: Seed = 0
    """Seed of all random numbers."""
    seeds: Count = 1
    """Agents trained in one program, with seeds SEED, SEED + 1, …"""
    num_envs: Count | None = None
    """Environments of each agent; None for the algorithm's own number."""
    asynchronous: bool = False
    """Step each Gymnasium environment in a process of its own; faster for slow simulators only."""
    max_episode_steps: Count | None = None
    """Time limit of an episode, in steps; None for the environment's own."""
    evaluate_every: Count | None = None
    """Steps between evaluations during training; None for no evaluation, with --dataset for ten in the run."""
    evaluate_episodes: Count = 10
    """Episodes of each of these evaluations."""
    save_every: Count | None = None
    """Steps between checkpoints; None for ten in the run."""
    log_every: Count | None = None
    """Steps between rows of metrics; None for 200 in the run. Checkpoints and evaluations add rows."""
    timeout_and_terminal: TimeoutAndTerminal = "timeout"
    """How to read rows of the data set flagged both timeout and terminal."""
    window: Count | None = None
    """Rows of the data set on the device at a time; None for all."""

    def __post_init__(self):
        check_fields(self)

    @classmethod
    def pick(cls, arguments: Mapping[str, Any]) -> "RunOptions":
        """The options among `arguments`, such as the parameters of a function (`locals()`)."""
        return cls(**{field.name: arguments[field.name] for field in fields(cls) if field.name in arguments})
