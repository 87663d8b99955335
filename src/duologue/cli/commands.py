"""What the command line takes: one dataclass a command, read by tyro, and for `train` a YAML file below it."""

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
    """Environment id: CartPole-v1 (Gymnasium), gymnax/CartPole-v1 (JAX), module:Env-v0 (yours). With --dataset it only
    evaluates, and may be left out."""
    algorithm: AbstractAlgorithm
    """Hyperparameters."""
    steps: Count = 1_000_000
    """Environment steps of each seed; with --dataset, gradient steps."""
    dataset: str | None = None
    """Recorded data to learn from: .npz or .hdf5 with D4RL's names, a Minari folder or id, a run folder."""
    tasks: str | None = None
    """Several rewards, the main task's last: a ready set (lunar-lander, mountain-car). An algorithm of one reward
    learns the main task alone."""
    normalize_obs: bool = False
    """Learn from observations of mean 0 and variance 1."""
    normalize_reward: bool = False
    """Learn from rewards divided by the standard deviation of their discounted sum."""
    run_dir: str | None = None
    """The new folder of this run; None for runs/ALGORITHM/ENV/N."""
    final_episodes: NonNegativeInt = 100
    """Episodes of the evaluation at the end; 0 for none."""
    wandb: str | None = None
    """Weights & Biases project to log to as well (extra: wandb)."""
    config: str | None = None
    """A YAML file with values for these options; options on the command line win."""
    grid: Annotated[tuple[str, ...], tyro.conf.arg(metavar="FIELD VALUE [VALUE ...]")] = ()
    """Train every combination of values, for example algorithm.discount 0.98 0.99, below RUN_DIR. May be repeated."""
    dry_run: bool = False
    """Print the merged configuration, each value with its source, and stop."""


@dataclass(frozen=True)
class Evaluate:
    """Play test episodes with a trained agent, in environments of their own."""

    run: Positional[Path]
    """A run folder."""
    episodes: int = 100
    """Episodes to play, for each seed."""
    checkpoint: Literal["latest", "best"] = "latest"
    """The last state, or that of the best evaluation while training."""
    explore: bool = False
    """Act as in training, instead of with the test policy."""
    task: str | None = None
    """Of several tasks, the one whose intention plays and is scored; None for the main one."""
    env: str | None = None
    """An environment of the same spaces; None for the run's own. Required where it was made from data alone."""
    dataset: str | None = None
    """Play nothing, and evaluate the test policy by fitted Q evaluation on these recorded data."""
    fit_steps: int = 20_000
    """Updates of that evaluation."""
    timeout_and_terminal: Literal["timeout", "terminal"] | None = None
    """How to read rows flagged both timeout and terminal; None for as in the run."""


@dataclass(frozen=True)
class Watch:
    """Look at a trained agent: in a window, or as a video."""

    run: Positional[Path]
    """A run folder."""
    episodes: int = 1
    """Episodes to play."""
    out: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None
    """A video, .gif or .mp4 (extra: video), in place of the window. Without a display, None for videos/step-N.mp4 in
    the run folder."""
    checkpoint: Literal["latest", "best"] = "latest"
    """The last state, or that of the best evaluation while training."""
    task: str | None = None
    """Of several tasks, the one whose intention plays; None for the main one."""
    agent: int = 0
    """Which of a run with several seeds, counted from 0."""
    explore: bool = False
    """Act as in training, instead of with the test policy."""
    env: str | None = None
    """A Gymnasium environment of the same spaces; None for the run's own. Those written in JAX cannot be watched."""
    seed: int = 0
    """Of where episodes start, and of everything random."""
    fps: float | None = None
    """Pictures a second of the video; None for the environment's own number, or 30."""
    max_steps: int | None = None
    """Steps after which it ends, whatever is going on; None for 10,000 of a video, and no limit in a window."""


@dataclass(frozen=True)
class Collect:
    """Record transitions of a policy, as data that others can learn from."""

    run: Positional[str]
    """A run folder, or `random` for uniformly random actions."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """The new file: .npz, or .hdf5 (extra: minari)."""
    steps: int = 100_000
    """Transitions."""
    env: str | None = None
    """Environment id; None for the run's own. Required for `random`."""
    checkpoint: Literal["latest", "best"] = "latest"
    """The last state of the run, or that of its best evaluation."""
    agent: int = 0
    """Which of a run with several seeds, counted from 0."""
    test: bool = False
    """Act with the test policy, instead of as in training."""
    noise: float = 0.0
    """Noise on top: σ in half-ranges of a Box, the share of random actions of discrete ones."""
    after: str | None = None
    """Data whose rows come first in the new file: a mixture."""
    seed: int = 0
    """Of everything random."""


@dataclass(frozen=True)
class Data:
    """Show what recorded data hold, and what was repaired or dropped."""

    data: Positional[str]
    """A .npz or .hdf5 file with D4RL's names, a Minari folder or id, or a run folder."""
    timeout_and_terminal: Literal["timeout", "terminal"] = "timeout"
    """How to read rows flagged both timeout and terminal."""


@dataclass(frozen=True)
class Resume:
    """Go on with a run from its newest good checkpoint."""

    run: Positional[Path]
    """A run folder."""
    steps: int | None = None
    """Environment steps to reach, on recorded data gradient steps; None for the number it was started with."""
    dataset: str | None = None
    """Where the recorded data of the run lie now, if elsewhere."""
    env: str | None = None
    """The environment of the run, where its id names a module: module:Env-v0 is not imported because a file says so."""
    wandb: str | None = None
    """Also log to this Weights & Biases project (extra: wandb), which no run folder remembers."""
    final_episodes: int = 100
    """Episodes of the evaluation at the end; 0 for none."""


@dataclass(frozen=True)
class Plot:
    """Draw learning curves: runs of one algorithm and environment become a mean with its interval."""

    runs: Positional[tuple[Path, ...]]
    """Run folders."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("curves.png")
    """The picture: .png, .svg or .pdf."""


@dataclass(frozen=True)
class Completion:
    """Print the completion script of a shell: bash, zsh or fish."""

    shell: Positional[Literal["bash", "zsh", "fish"]]
    """The shell. See docs/command-line.md for where its script belongs."""


COMMANDS: dict[str, type] = {
    "train": Train, "evaluate": Evaluate, "watch": Watch, "resume": Resume, "collect": Collect, "data": Data,
    "plot": Plot, "completion": Completion,
}  # fmt: skip
"""The options of each command but `list`, which needs no JAX (`listing.List`)."""
