"""The options of a run: one record from `train()` and the command line to the plan."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from duologue.data.cleaning import TimeoutAndTerminal
from duologue.envs.base import REPLAY_LIMIT
from duologue.errors import ConfigError
from duologue.fields import Count, NonNegativeInt, Seed, check_fields

OnEnvError = Literal["raise", "restart"]
MOST_RESTARTS = 10
NO_KWARGS: dict[str, Any] = {}
"""Default of `env_kwargs` and `evaluate_env_kwargs`. Nothing changes it."""


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Length, seeds, evaluations and checkpoints of a run. Steps are environment steps of one seed; in a run that
    learns from recorded data alone, gradient steps. Raises `ConfigError` for a value out of range.

    A new option is one field here and one parameter of `duologue.train`; `Train` (the command line) and `Plan` inherit
    it.
    """

    steps: Count
    """Number of environment steps of each seed. With --dataset: gradient steps."""
    seed: Seed = 0
    """Seed of all random numbers."""
    seeds: Count = 1
    """Number of agents trained in one program, with seeds SEED, SEED + 1, …"""
    num_envs: Count | None = None
    """Number of environments of each agent. None: the algorithm's own number."""
    # The command line takes the first type that a word fits, and every word fits `str`.
    env_kwargs: dict[str, bool | int | float | None | str] = field(default_factory=NO_KWARGS.copy)  # noqa: RUF036
    """Arguments for gymnasium.make in addition to the id, for example is_slippery False."""
    asynchronous: bool = False
    """Step each Gymnasium environment in a process of its own; faster for slow simulators only."""
    max_episode_steps: Count | None = None
    """Time limit of an episode, in steps. None: the environment's own."""
    exact: bool = True
    """Replay the actions of the running episodes when the run is resumed, so that it continues bit for bit. Without it,
    resumed environments begin new episodes: for robots, and all that must never be replayed."""
    replay_limit: NonNegativeInt = REPLAY_LIMIT
    """Longest running episode that is replayed when the run is resumed, in steps of one environment. A longer episode
    is cut, and the next one begins."""
    on_env_error: OnEnvError = "raise"
    """After an error of an environment: save and stop, or replace the environment, cut its episode and continue."""
    max_env_restarts: Count = MOST_RESTARTS
    """Largest number of environments replaced in a run. The next error stops it."""
    evaluate_every: Count | None = None
    """Steps between evaluations during training. None: no evaluation; with --dataset and an environment, ten in the
    run."""
    evaluate_episodes: Count = 10
    """Number of episodes of each evaluation during training."""
    evaluate_num_envs: Count | None = None
    """Largest number of environments open at once in an evaluation. None: 16, or 1,024 in JAX."""
    evaluate_env_kwargs: dict[str, bool | int | float | None | str] = field(default_factory=NO_KWARGS.copy)  # noqa: RUF036
    """Arguments for gymnasium.make of the evaluation environment, in place of the environment arguments of training."""
    save_every: Count | None = None
    """Steps between checkpoints. None: ten in the run."""
    log_every: Count | None = None
    """Steps between rows of metrics. None: 200 in the run. Checkpoints and evaluations add rows."""
    log_info: tuple[str, ...] = ()
    """Names of numbers in the info of a step. Rows have the mean of each as info/NAME."""
    timeout_and_terminal: TimeoutAndTerminal = "timeout"
    """How to read rows of the data set flagged both timeout and terminal."""
    window: Count | None = None
    """Number of rows of the data set on the device at a time. None: all rows."""

    def __post_init__(self):
        check_fields(self)
        if twice := [name for name in self.log_info if self.log_info.count(name) > 1]:
            raise ConfigError(f"log_info = {self.log_info}: {twice[0]!r} is there twice. Name each number once.")

    @classmethod
    def pick(cls, arguments: Mapping[str, Any]) -> "RunOptions":
        """The options among `arguments`, such as the parameters of a function (`locals()`). `log_info` may be one name,
        or any sequence of names."""
        given = {field.name: arguments[field.name] for field in fields(cls) if field.name in arguments}
        match given.get("log_info"):
            case str(name):
                given["log_info"] = (name,)
            case [*names]:
                given["log_info"] = tuple(names)
        return cls(**given)
