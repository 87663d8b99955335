"""The command line: the same dataclasses as in Python, read by tyro.

Exit codes: 0 done; 1 a failure, with a message; 2 a mistake in the command or configuration; 130 after Ctrl-C and 143
after SIGTERM, with everything saved.
"""

import dataclasses
import itertools
import os
import shlex
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import tyro
from rich.console import Console
from rich.table import Table
from tyro.conf import Positional

from duologue.algorithms.a2c import A2C
from duologue.algorithms.base import AbstractAlgorithm
from duologue.algorithms.normalized import Normalized
from duologue.errors import ConfigError, DuologueError, EnvError, MissingExtraError, nearest
from duologue.optim import LearningRate, Linear
from duologue.run import config
from duologue.run.log import WandB, read
from duologue.run.report import learning_curve
from duologue.run.run import Run, Runs, load, read_plan, resume, train

ALGORITHMS: dict[str, Any] = {"a2c": A2C}
"""By the name that the command line uses."""


@dataclass(frozen=True)
class Train:
    """Train an agent: one command to a run folder with curves, checkpoints and a policy."""

    env: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="ENV", help_behavior_hint="(required)")]
    """Environment id: CartPole-v1 (Gymnasium), gymnax/CartPole-v1 (JAX), module:Env-v0 (yours)."""
    algorithm: AbstractAlgorithm
    """Hyperparameters."""
    steps: int = 1_000_000
    """Environment steps of each seed."""
    seed: int = 0
    """Of everything random."""
    seeds: int = 1
    """Agents trained in one program, with seeds SEED, SEED + 1, … (environments written in JAX)."""
    num_envs: int | None = None
    """Environments of each agent; None for the algorithm's own number."""
    asynchronous: bool = False
    """Step each Gymnasium environment in a process of its own; pays for slow simulators only."""
    normalize_obs: bool = False
    """Learn from observations of mean 0 and variance 1."""
    normalize_reward: bool = False
    """Learn from rewards divided by the standard deviation of their discounted sum."""
    run_dir: str | None = None
    """The new folder of this run; None for runs/ALGORITHM/ENV/N."""
    evaluate_every: int | None = None
    """Steps between evaluations on separate environments while training."""
    evaluate_episodes: int = 10
    """Episodes of each of these."""
    final_episodes: int = 100
    """Episodes of the evaluation at the end; 0 for none."""
    save_every: int | None = None
    """Steps between checkpoints; None for ten in a run."""
    log_every: int | None = None
    """Steps between rows of metrics; None for 200 in a run."""
    max_episode_steps: int | None = None
    """A time limit other than the environment's own."""
    wandb: str | None = None
    """Also log to this Weights & Biases project (extra: wandb)."""
    config: str | None = None
    """A YAML file with values for these options; options on the command line win."""
    dry_run: bool = False
    """Print the merged configuration, each value with where it came from, and stop."""


@dataclass(frozen=True)
class Evaluate:
    """Play test episodes with a trained agent, in environments of their own."""

    run: Positional[Path]
    """A run folder."""
    episodes: int = 100
    """Episodes to play, for each seed."""
    checkpoint: Literal["latest", "best"] = "latest"
    """The last state, or that of the best evaluation while training."""


@dataclass(frozen=True)
class Resume:
    """Go on with a run from its newest good checkpoint."""

    run: Positional[Path]
    """A run folder."""
    steps: int | None = None
    """Environment steps to reach; None for the number it was started with."""


@dataclass(frozen=True)
class Plot:
    """Draw learning curves: runs of one algorithm and environment become a mean with its interval."""

    runs: Positional[tuple[Path, ...]]
    """Run folders."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("curves.png")
    """The picture: .png, .svg or .pdf."""


@dataclass(frozen=True)
class List:
    """List the algorithms, and the runs below a folder."""

    folder: Positional[Path] = Path("runs")
    """Where to look for runs."""


COMMANDS: dict[str, type] = {"train": Train, "evaluate": Evaluate, "resume": Resume, "plot": Plot, "list": List}

registry = tyro.constructors.ConstructorRegistry()


@registry.primitive_rule
def learning_rate(info: tyro.constructors.PrimitiveTypeInfo) -> tyro.constructors.PrimitiveConstructorSpec | None:
    """`7e-4`, or `linear:7e-4:0` for a schedule from the first number to the second over the whole run."""
    if info.type != LearningRate:
        return None

    def parse(words: list[str]) -> float | Linear:
        kind, *numbers = words[0].split(":")
        if kind != "linear":
            return float(words[0])
        if len(numbers) not in (1, 2):
            raise ValueError("a schedule is linear:START or linear:START:END")
        start, end = map(float, [*numbers, 0][:2])
        return Linear(start, end)

    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="FLOAT|linear:START:END",
        instance_from_str=parse,
        is_instance=lambda value: isinstance(value, float | Linear),
        str_from_instance=lambda value: [
            f"linear:{value.start}:{value.end}" if isinstance(value, Linear) else str(value)
        ],
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """The program `duologue`."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        sys.exit(run(arguments))
    except KeyboardInterrupt:
        sys.exit(130)
    except DuologueError as error:
        cause = error.__cause__
        if isinstance(error, EnvError) and cause is not None and not isinstance(cause, DuologueError):
            traceback.print_exception(cause.with_traceback(cause.__traceback__ and cause.__traceback__.tb_next))
        Console(stderr=True).print(f"error: {error}", style="bold red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(2 if isinstance(error, ConfigError | MissingExtraError) else 1)


def run(arguments: list[str]) -> int:
    """Do what `arguments` say. Raises `DuologueError`."""
    if not arguments or arguments[0] in ("-h", "--help"):
        overview("duologue COMMAND", {name: command.__doc__ for name, command in COMMANDS.items()})
        return 0
    name, *rest = arguments
    if name not in COMMANDS:
        raise ConfigError(f"duologue has no command {name!r}. {nearest(name, COMMANDS)}")
    if name == "train":
        return run_train(rest)
    command = tyro.cli(COMMANDS[name], args=rest, prog=f"duologue {name}")
    runners: dict[type, Any] = {Evaluate: run_evaluate, Resume: run_resume, Plot: run_plot, List: run_list}
    return runners[type(command)](command)


def overview(usage: str, entries: dict[str, str | None]) -> None:
    """Names with the first line of their docstrings."""
    table = Table(box=None, show_header=False, padding=(0, 2))
    for name, doc in entries.items():
        table.add_row(f"[bold]{name}[/bold]", (doc or "").splitlines()[0])
    console = Console()
    console.print(f"usage: {usage} [-h] ...\n", markup=False, highlight=False)
    console.print(table)
    console.print(f"\n{usage} --help says more of each.", markup=False, highlight=False)


# Train


def run_train(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        overview("duologue train ALGORITHM ENV", {name: cls.__doc__ for name, cls in ALGORITHMS.items()})
        return 0
    name, *rest = arguments
    if name not in ALGORITHMS:
        raise ConfigError(f"There is no algorithm {name!r}. {nearest(name, ALGORITHMS)}")
    settings, command = parse_train(name, rest)
    if command.dry_run:
        for path, setting in settings.items():
            print(f"{path} = {setting.value!r}  ({setting.source})")
        return 0
    prepare_jax(command.seeds)
    algorithm: AbstractAlgorithm = command.algorithm
    if command.normalize_obs or command.normalize_reward:
        algorithm = Normalized(algorithm=algorithm, obs=command.normalize_obs, reward=command.normalize_reward)
    options = {
        field.name: getattr(command, field.name)
        for field in dataclasses.fields(command)
        if field.name not in TRAIN_ONLY
    }
    loggers = [] if command.wandb is None else [WandB(command.wandb, config.to_dict(algorithm))]
    return finish(train(algorithm, command.env, loggers=loggers, **options), command.final_episodes)


TRAIN_ONLY = {"env", "algorithm", "normalize_obs", "normalize_reward", "final_episodes", "wandb", "config", "dry_run"}
"""Fields of `Train` that are not arguments of `duologue.train` by the same name."""


def parse_train(name: str, arguments: list[str]) -> tuple[dict[str, config.Setting], Train]:
    """The merged configuration with where each value came from, and the command it makes."""
    algorithm: Any = ALGORITHMS[name]
    default = Train(env="", algorithm=algorithm())
    layers = [("default", config.to_dict(default))]
    path = config_path(arguments)
    if path is not None:
        values = config.read_yaml(Path(path))
        layers.append((f"config file {path}", values | {"config": path}))
        default = config.from_dict(config.nested(config.merge(layers)), extra=(Train,))
    sources, before = config.merge(layers), config.to_dict(default)
    command = tyro.cli(
        Train,
        args=arguments,
        default=default,
        prog=f"duologue train {name}",
        description=Train.__doc__,
        registry=registry,
        config=(tyro.conf.CascadeSubcommandArgs,),
    )
    if not command.env:
        raise ConfigError(f"Which environment? duologue train {name} ENV, such as CartPole-v1.")
    after = config.to_dict(command)
    given = config.merge([("command line", difference(before, after))])
    return {
        key: given.get(key) or config.Setting(value, sources[key].source if key in sources else "default")
        for key, (value, _) in config.merge([("", after)]).items()
    }, command


def difference(before: Any, after: dict[str, Any]) -> dict[str, Any]:
    """What `after` says that `before` does not; of an object of another type, what is not that type's default."""
    before = before if isinstance(before, dict) else {}
    changed = {"type": after["type"]} if before.get("type") != after.get("type") else {}
    if changed:
        required = [f for f in dataclasses.fields(config.PUBLIC[after["type"]]) if f.default is dataclasses.MISSING]
        before = {} if required else config.to_dict(config.PUBLIC[after["type"]]())
    for name, value in after.items():
        if isinstance(value, dict):
            if inner := difference(before.get(name), value):
                changed[name] = inner
        elif name != "type" and (name not in before or before[name] != value):
            changed[name] = value
    return changed


def config_path(arguments: list[str]) -> str | None:
    """The value of `--config`, which is needed before the rest can be read."""
    for word, after in itertools.zip_longest(arguments, arguments[1:]):
        if word == "--config":
            return after
        if word.startswith("--config="):
            return word.partition("=")[2]
    return None


def finish(agent: Run | Runs, episodes: int) -> int:
    """Evaluate, draw the curve, and say where everything is and what to do next."""
    console, path = Console(highlight=False, soft_wrap=True), agent.path
    if episodes:
        console.print(f"[bold green]score[/]   {agent.evaluate(episodes=episodes)}")
    console.print(f"[bold]run[/]     {path}", markup=True)
    try:
        console.print(f"[bold]curve[/]   {learning_curve([path], path / 'curve.png')}")
    except DuologueError as error:  # no plotting extra, or nothing to draw yet: the run is good all the same
        console.print(f"curve   {error}", markup=False)
    console.print(f"[bold]next[/]    duologue resume {shlex.quote(str(path))} --steps {2 * agent.step}")
    return 0


# The other commands


def run_evaluate(command: Evaluate) -> int:
    prepare_jax(read_plan(command.run).seeds)
    agent = load(command.run, which=command.checkpoint)
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"[bold green]score[/]   {agent.evaluate(episodes=command.episodes)}")
    console.print(f"[bold]next[/]    duologue plot {shlex.quote(str(command.run))} -o curve.png")
    return 0


def run_resume(command: Resume) -> int:
    prepare_jax(read_plan(command.run).seeds)
    return finish(resume(command.run, steps=command.steps), 100)


def run_plot(command: Plot) -> int:
    out = learning_curve(command.runs, command.out)
    Console(highlight=False, soft_wrap=True).print(
        f"[bold]curve[/]   {out}\n[bold]next[/]    duologue evaluate {shlex.quote(str(command.runs[0]))}"
    )
    return 0


def run_list(command: List) -> int:
    console = Console(highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console.width = 1000  # in a pipe a table is folded at 80 columns, and grep finds half a path
    overview("duologue train ALGORITHM ENV", {name: cls.__doc__ for name, cls in ALGORITHMS.items()})
    runs = sorted(path.parent for path in command.folder.rglob("config.json"))
    table = Table("run", "algorithm", "environment", "steps", "seeds", "last return", box=None)
    for path in runs:
        table.add_row(str(path), *cells(path))
    if runs:
        console.print(table)
        console.print(f"\n[bold]next[/]    duologue evaluate {shlex.quote(str(runs[-1]))}")
    else:
        console.print(f"No runs below {command.folder}.\n[bold]next[/]    duologue train a2c CartPole-v1")
    return 0


def cells(path: Path) -> list[str]:
    """What `list` says of a run; of one that cannot be read, why."""
    try:
        plan, rows = read_plan(path), read(path / "metrics.jsonl")
    except DuologueError as error:
        return [str(error)]
    step = rows[-1]["step"] if rows else 0
    returns = [row["rollout/ep_rew_mean"] for row in rows if row.get("rollout/ep_rew_mean") is not None]
    last = f"{returns[-1]:,.1f}" if returns else "-"
    return [plan.name, plan.env, f"{step:,} / {plan.steps:,}", str(plan.seeds), last]


def prepare_jax(seeds: int = 1) -> None:
    """A private cache of compiled programs, and a CPU device for each seed as far as the cores go.

    The cache lies in `$DUOLOGUE_CACHE`, by default the user's cache folder; an empty variable switches it off. Whoever
    can write there can run code, so it belongs to the user alone.
    """
    # An on-policy agent waits for each update before it acts: another thread to run it on only costs the hand-over.
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    if seeds > 1:
        jax.config.update("jax_num_cpu_devices", max(n for n in range(1, (os.cpu_count() or 1) + 1) if seeds % n == 0))
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = os.environ.get("DUOLOGUE_CACHE", str(home / "duologue" / "programs"))
    if not folder:
        return
    try:
        Path(folder).mkdir(mode=0o700, parents=True, exist_ok=True)
        status = Path(folder).stat()
    except OSError:
        return
    if status.st_uid == os.getuid() and not status.st_mode & 0o022:
        jax.config.update("jax_compilation_cache_dir", folder)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
