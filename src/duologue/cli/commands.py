"""Options of the command line: one dataclass for each command, which tyro reads."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import Positional

from duologue.algorithms import COMMANDS as ALGORITHMS
from duologue.algorithms import load_class
from duologue.algorithms.base import AbstractAlgorithm
from duologue.algorithms.sac_x import task_schedulers
from duologue.errors import ConfigError, suggestion
from duologue.fields import Count, NonNegativeInt
from duologue.runs.options import RunOptions


def default_algorithm(name: str) -> AbstractAlgorithm:
    """The algorithm of this name on the command line, with its default hyperparameters. Raises `ConfigError`."""
    if name not in ALGORITHMS:
        raise ConfigError(f"There is no algorithm {name!r}. {suggestion(name, ALGORITHMS)}")
    entry = ALGORITHMS[name]
    options = {} if entry.scheduler is None else {"scheduler": getattr(task_schedulers, entry.scheduler)()}
    return load_class(entry.cls)(**options)


@dataclass(frozen=True, kw_only=True)
class Train(RunOptions):
    """Train an agent: one command to a run folder with curves, checkpoints and a policy."""

    env: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="ENV", help_behavior_hint="(required)")]
    """Environment id: CartPole-v1 (Gymnasium), gymnax/CartPole-v1 (JAX), module:Env-v0 (yours). With --dataset it is
    optional, and used for evaluation only."""
    algorithm: AbstractAlgorithm
    """Hyperparameters."""
    steps: Count = 1_000_000
    """Environment steps of each seed; with --dataset, gradient steps."""
    evaluate_env: str | None = None
    """Environment id for evaluations: the same spaces, with rewards and a time limit of its own. None: the environment
    of training."""
    dataset: str | None = None
    """Recorded data to learn from: .npz or .hdf5 with D4RL's names, a Minari folder or id, a run folder."""
    tasks: str | None = None
    """Ready set of several rewards, the main task last: lunar-lander or mountain-car. An algorithm for one reward
    learns the main task."""
    normalize_obs: bool = False
    """Scale observations to mean 0 and variance 1 before learning."""
    normalize_reward: bool = False
    """Divide rewards by the standard deviation of their discounted sum before learning."""
    run_dir: str | None = None
    """Folder for this run, which must not exist. None: runs/ALGORITHM/ENV/N."""
    final_episodes: NonNegativeInt = 100
    """Number of episodes in the evaluation at the end. 0: none."""
    wandb: str | None = None
    """Weights & Biases project to log to, in addition to the run folder (extra: wandb)."""
    config: str | None = None
    """YAML file with values for these options. Options on the command line override it."""
    grid: Annotated[tuple[str, ...], tyro.conf.arg(metavar="FIELD VALUE [VALUE ...]")] = ()
    """Train every combination of values, for example algorithm.discount 0.98 0.99, each in a folder in RUN_DIR. May be
    repeated."""
    dry_run: bool = False
    """Print the merged configuration, each value with its source, and stop."""


@dataclass(frozen=True)
class Evaluate:
    """Play test episodes with a trained agent, in new environments."""

    run: Positional[Path]
    """Run folder."""
    episodes: int = 100
    """Number of episodes for each seed."""
    num_envs: int | None = None
    """Largest number of environments open at once. None: 16, or 1,024 in JAX."""
    max_episode_steps: int | None = None
    """Steps after which an episode is cut. None: the time limit of the environment, 100,000 at the latest."""
    checkpoint: Literal["latest", "best"] = "latest"
    """Checkpoint to load: the latest, or the one with the best evaluation during training."""
    explore: bool = False
    """Act with the training policy instead of the test policy."""
    task: str | None = None
    """Task whose policy plays and whose reward is scored, where the run has several. None: the main task."""
    env: str | None = None
    """Environment with the same spaces. None: the evaluation environment of the run. Required if the run has only
    data."""
    dataset: str | None = None
    """Recorded data on which fitted Q evaluation estimates the value of the test policy. No episode is played."""
    fit_steps: int = 20_000
    """Number of gradient steps of fitted Q evaluation."""
    timeout_and_terminal: Literal["timeout", "terminal"] | None = None
    """How to read rows flagged both timeout and terminal. None: the choice of the run."""


@dataclass(frozen=True)
class Watch:
    """Watch a trained agent in a window, or as a video."""

    run: Positional[Path]
    """Run folder."""
    episodes: int = 1
    """Number of episodes to play."""
    out: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None
    """Video file to write instead of opening a window: .gif or .mp4 (extra: video). None: a window, or
    videos/step-N.mp4 in the run folder if there is no display."""
    checkpoint: Literal["latest", "best"] = "latest"
    """Checkpoint to load: the latest, or the one with the best evaluation during training."""
    task: str | None = None
    """Task whose policy plays, where the run has several. None: the main task."""
    agent: int = 0
    """Number of the agent in a run with several seeds, counted from 0."""
    explore: bool = False
    """Act with the training policy instead of the test policy."""
    env: str | None = None
    """Gymnasium environment with the same spaces. None: the environment of the run. Not for environments written
    in JAX."""
    seed: int = 0
    """Seed of all random numbers."""
    fps: float | None = None
    """Frames per second of the video. None: the rate that the environment gives, or 30."""
    max_steps: int | None = None
    """Largest number of steps. None: 10,000 in a video and no limit in a window."""


@dataclass(frozen=True)
class Collect:
    """Record transitions of a policy as data to learn from."""

    run: Positional[str]
    """Run folder, or `random` for uniformly random actions."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """File to write: .npz, or .hdf5 (extra: minari)."""
    steps: int = 100_000
    """Number of transitions."""
    env: str | None = None
    """Environment id. None: the environment of the run. Required for `random`."""
    checkpoint: Literal["latest", "best"] = "latest"
    """Checkpoint to load: the latest, or the one with the best evaluation during training."""
    agent: int = 0
    """Number of the agent in a run with several seeds, counted from 0."""
    test: bool = False
    """Act with the test policy instead of the training policy."""
    noise: float = 0.0
    """Noise to add to actions. Continuous: standard deviation σ in half-ranges of the Box. Discrete: share of random
    actions."""
    after: str | None = None
    """Data whose rows come first in the new file, to make a mixture."""
    seed: int = 0
    """Seed of all random numbers."""


@dataclass(frozen=True)
class Data:
    """Show what recorded data contain, and which repairs reading them needs."""

    data: Positional[str]
    """Recorded data: .npz or .hdf5 file with the names of D4RL, Minari folder or id, or run folder."""
    timeout_and_terminal: Literal["timeout", "terminal"] = "timeout"
    """How to read rows flagged both timeout and terminal."""


@dataclass(frozen=True)
class Resume:
    """Continue a run from its newest valid checkpoint."""

    run: Positional[Path]
    """Run folder."""
    steps: int | None = None
    """Total number of environment steps to reach (gradient steps on recorded data). None: the number of the run."""
    dataset: str | None = None
    """New place of the recorded data, if they have moved."""
    env: str | None = None
    """Environment of the run. Required for an id with a module (module:Env-v0): no name in a file is ever imported."""
    evaluate_env: str | None = None
    """The same for the evaluation environment of the run."""
    exact: bool | None = None
    """False: running episodes are never replayed, and new ones begin. None: the run's own choice."""
    wandb: str | None = None
    """Weights & Biases project to log to (extra: wandb). The run folder does not store it."""
    final_episodes: int = 100
    """Number of episodes in the evaluation at the end. 0: none."""


@dataclass(frozen=True)
class Plot:
    """Draw learning curves: one mean with its interval for all runs of an algorithm and environment."""

    runs: Positional[tuple[Path, ...]]
    """Run folders to draw."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("curves.png")
    """Picture to write: .png, .svg or .pdf."""


@dataclass(frozen=True)
class Completion:
    """Print the completion script of a shell: bash, zsh or fish."""

    shell: Positional[Literal["bash", "zsh", "fish"]]
    """Shell to complete in. docs/command-line.md says where to put the script."""


COMMANDS: dict[str, type] = {
    "train": Train, "evaluate": Evaluate, "watch": Watch, "resume": Resume, "collect": Collect, "data": Data,
    "plot": Plot, "completion": Completion,
}  # fmt: skip
"""The options of each command except `list`, which needs no JAX (`listing.List`)."""
