"""The command line: the same dataclasses as in Python, read by tyro.

Exit codes: 0 done; 1 a failure, with a message; 2 a mistake in the command or configuration; 130 after Ctrl-C and 143
after SIGTERM, with everything saved; 141 where the reader of a pipe has gone.
"""

import dataclasses
import math
import os
import shlex
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from duologue.algorithms.base import AbstractAlgorithm
from duologue.cli import grid
from duologue.cli.commands import ALGORITHMS as ALGORITHMS
from duologue.cli.commands import COMMANDS, Collect, Data, Evaluate, List, Plot, Resume, Watch
from duologue.cli.parse import parse_train, registry
from duologue.cli.train import loggers, prepare_jax, pursue, show, standing_of, train_arguments
from duologue.data.summary import data_card
from duologue.errors import ConfigError, DuologueError, EnvError, MissingExtraError, suggestion
from duologue.fields import MOST, NonNegativeInt, check
from duologue.ops.metrics import RETURN
from duologue.runs.collect import collect_random
from duologue.runs.data_sources import read_data
from duologue.runs.display.curves import learning_curve
from duologue.runs.display.loggers import read_metrics
from duologue.runs.horizon import ended_schedules
from duologue.runs.plan import Plan, read_plan
from duologue.runs.run import Run, Runs, load
from duologue.runs.train import resume, train
from duologue.runs.watch import HEADLESS_VARIABLES, has_display
from duologue.types import Discrete


def main(arguments: Sequence[str] | None = None) -> None:
    """The program `duologue`."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    sys.path.append(os.getcwd())  # the module of `module:Env-v0` lies here; last, lest a file stand for a package
    try:
        sys.exit(run(arguments))
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # the reader, `head` say, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except DuologueError as error:
        cause = error.__cause__
        if isinstance(error, EnvError) and cause is not None and not isinstance(cause, DuologueError):
            traceback.print_exception(cause.with_traceback(cause.__traceback__ and cause.__traceback__.tb_next))
        Console(stderr=True).print(f"error: {error}", style="bold red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(2 if isinstance(error, ConfigError | MissingExtraError) else 1)


def run(arguments: list[str]) -> int:
    """Do what `arguments` say. Raises `DuologueError`."""
    if not arguments or arguments[0] in ("-h", "--help"):
        overview("duologue COMMAND", COMMANDS)
        return 0
    name, *rest = arguments
    if name not in COMMANDS:
        raise ConfigError(f"duologue has no command {name!r}. {suggestion(name, COMMANDS)}")
    if name == "train":
        return run_train(rest)
    command = tyro.cli(COMMANDS[name], args=rest, prog=f"duologue {name}", registry=registry)
    runners: dict[type, Any] = {
        Evaluate: run_evaluate, Watch: run_watch, Resume: run_resume, Collect: run_collect, Data: run_data,
        Plot: run_plot, List: run_list,
    }  # fmt: skip
    return runners[type(command)](command)


def overview(usage: str, classes: Mapping[str, Any]) -> None:
    """How a command is used, and what it can be followed by."""
    console = Console()
    console.print(f"usage: {usage} [-h] ...\n", markup=False, highlight=False)
    console.print(described(classes))
    console.print(f"\n{usage} --help says more of each.", markup=False, highlight=False)


def summary(what: Any) -> str:
    """The first line of a class's docstring; of an algorithm with a scheduler of its own, of that one's."""
    if isinstance(what, AbstractAlgorithm):
        return f"{type(what).__name__} with {(what.scheduler.__doc__ or '').splitlines()[0]}"  # pyright: ignore
    return (what.__doc__ or "").splitlines()[0]


def described(classes: Mapping[str, Any]) -> Table:
    """Names with what they are, in one line."""
    table = Table(box=None, show_header=False, padding=(0, 2))
    for name, cls in classes.items():
        table.add_row(f"[bold]{name}[/bold]", summary(cls))
    return table


# Train


def run_train(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        overview("duologue train ALGORITHM ENV", ALGORITHMS)
        return 0
    name, *rest = arguments
    if name not in ALGORITHMS:
        raise ConfigError(f"There is no algorithm {name!r}. {suggestion(name, ALGORITHMS)}")
    rest, axes = grid.split(rest)
    if axes:
        return run_grid(grid.combinations(name, rest, axes), arguments)
    settings, command = parse_train(name, rest)
    if command.dry_run:
        for path, setting in settings.items():
            print(f"{path} = {setting.value!r}  ({setting.source})")
        return 0
    prepare_jax(command.algorithm, command.seeds)
    asked = train_arguments(command)
    return finish(train(**asked, loggers=loggers(command.wandb, asked["algorithm"])), command.final_episodes)


def finish(agent: Run | Runs, episodes: int) -> int:
    """Evaluate, draw the curve, and say where everything is and what to do next."""
    console, path = Console(highlight=False, soft_wrap=True), agent.path
    show(agent, episodes, console)
    further = min(2 * agent.step, MOST)
    more = f"resume {quoted(path)} --steps {further}"
    if ended_schedules(dataclasses.replace(agent.plan, steps=further)):  # it would learn nothing more
        more = f"evaluate {quoted(path)} --episodes 1000"
    console.print(f"[bold]next[/]    duologue {more}")
    return 0


def run_grid(runs: list[grid.Combination], arguments: list[str]) -> int:
    """Train what is not finished, one after the other, and say what came of it. One that fails stops no other."""
    console, first = Console(highlight=False, soft_wrap=True), runs[0].command
    if not console.is_terminal:
        console.width = 1000
    if first.dry_run:
        console.print(grid.table([grid.Result(run) for run in runs], scores=False))
        return 0
    prepare_jax(first.algorithm, math.gcd(*(run.command.seeds for run in runs)))
    for run in runs:  # raises before anything is trained
        standing_of(run)
    results: list[grid.Result] = []
    try:
        for number, run in enumerate(runs, 1):
            console.print(f"\n[bold]\\[{number} of {len(runs)}][/] {escape(str(run))}")
            results.append(pursue(run, console))
    except (KeyboardInterrupt, SystemExit):
        again = shlex.join(["duologue", "train", *arguments])
        console.print(f"[bold]next[/]    {escape(again)}")
        raise
    console.print()
    console.print(grid.table(results))
    console.print(f"\n{grid.caution(results)}".rstrip(), markup=False)
    good = [str(result.run.folder) for result in results if not result.problem]
    drawn = ["plot", *good, "-o", "curves.png"] if good and first.env else ["list", str(runs[0].folder.parent)]
    console.print(f"[bold]next[/]    duologue {escape(shlex.join(drawn))}")
    return 0 if len(good) == len(results) else 1


# The other commands


def run_evaluate(command: Evaluate) -> int:
    plan = read_plan(command.run)
    prepare_jax(plan.algorithm, plan.seeds)
    agent = load(command.run, which=command.checkpoint)
    console = Console(highlight=False, soft_wrap=True)
    if command.dataset is not None:
        played = ("episodes", "explore", "env")
        leave_out(command, played, "nothing is played on recorded data, and the test policy is valued")
        leave_out(command, ("task",), "recorded data hold one reward, the main task's")
        for one in [agent] if isinstance(agent, Run) else agent:
            value = one.fitted_q(
                command.dataset, steps=command.fit_steps, timeout_and_terminal=command.timeout_and_terminal
            )
            console.print(f"[bold green]value[/]   {value}")
        return 0
    leave_out(command, ("fit_steps", "timeout_and_terminal"), "belongs to recorded data, and there are none")
    how = {"explore": command.explore, "task": command.task, "env": command.env}
    score = agent.evaluate(episodes=command.episodes, **how)
    console.print(f"[bold green]score[/]   {score}")
    console.print(f"[bold]next[/]    duologue plot {quoted(command.run)} -o curve.png")
    return 0


def leave_out(command: Evaluate | Collect, options: Sequence[str], why: str) -> None:
    """Raises `ConfigError` for the first of these options that was given, which would do nothing."""
    for name in options:
        if (value := getattr(command, name)) != getattr(type(command), name):
            raise ConfigError(f"{name} = {value!r}: {why}. Leave it out.")


def run_watch(command: Watch) -> int:
    if not has_display():
        for name, value in HEADLESS_VARIABLES.items():
            os.environ.setdefault(name, value)
    plan = read_plan(command.run)
    check_agent(command.agent, plan)
    prepare_jax(plan.algorithm)
    agent = load(command.run, which=command.checkpoint)
    one, console = agent if isinstance(agent, Run) else agent[command.agent], Console(highlight=False, soft_wrap=True)
    options = ("episodes", "out", "explore", "task", "env", "seed", "fps", "max_steps")
    watched = one.watch(**{name: getattr(command, name) for name in options}, console=console)
    if watched.out is not None:
        console.print(f"[bold]video[/]   {escape(str(watched.out))}")
    console.print(f"[bold]next[/]    duologue evaluate {quoted(command.run)} --episodes 100")
    return 0


def check_agent(agent: int, plan: Plan) -> None:
    """Raises `ConfigError` for one that there is not."""
    if not 0 <= agent < plan.seeds:
        raise ConfigError(f"agent = {agent}: this run has {plan.seeds}, counted from 0.")


def run_resume(command: Resume) -> int:
    plan = read_plan(command.run)
    prepare_jax(plan.algorithm, plan.seeds)
    check(NonNegativeInt, final_episodes=command.final_episodes)
    more = {
        "steps": command.steps, "dataset": command.dataset, "env": command.env,
        "loggers": loggers(command.wandb, plan.algorithm),
    }  # fmt: skip
    return finish(resume(command.run, **more), command.final_episodes)


def run_collect(command: Collect) -> int:
    if command.run == "random":
        if command.env is None:
            raise ConfigError("Random in which environment? --env ENV, such as HalfCheetah-v5.")
        of_policies = ("noise", "test", "checkpoint", "agent")
        leave_out(command, of_policies, "belongs to the policy of a run, and actions are random")
        out = collect_random(command.env, command.steps, command.out, seed=command.seed, after=command.after)
    else:
        plan = read_plan(Path(command.run))
        check_agent(command.agent, plan)
        prepare_jax(plan.algorithm)
        agent = load(command.run, which=command.checkpoint)
        one = agent if isinstance(agent, Run) else agent[command.agent]
        how = {"explore": not command.test, "noise": command.noise, "env": command.env, "seed": command.seed}
        out = one.collect(command.steps, command.out, **how, after=command.after)
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"[bold]data[/]    {escape(str(out))}\n[bold]next[/]    duologue data {quoted(out)}")
    return 0


def run_data(command: Data) -> int:
    data = read_data(command.data, timeout_and_terminal=command.timeout_and_terminal)
    console, table = Console(highlight=False), Table(box=None, show_header=False, padding=(0, 2))
    for label, text in data_card(data).items():
        table.add_row(Text(label, "bold"), Text(text))
    console.print(table)
    env = "" if data.spec.id.startswith("<") else f" {quoted(data.spec.id)}"
    kind = "bcq-discrete" if isinstance(data.spec.action, Discrete) else "bear"
    console.print(f"[bold]next[/]    duologue train {kind}{env} --dataset {quoted(command.data)}", soft_wrap=True)
    return 0


def run_plot(command: Plot) -> int:
    out = learning_curve(command.runs, command.out)
    Console(highlight=False, soft_wrap=True).print(
        f"[bold]curve[/]   {escape(str(out))}\n[bold]next[/]    duologue evaluate {quoted(command.runs[0])}"
    )
    return 0


def run_list(command: List) -> int:
    console = Console(highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console.width = 1000  # in a pipe a table is folded at 80 columns, and grep finds half a path
    console.print(described(ALGORITHMS))
    console.print()
    runs = sorted(path.parent for path in command.folder.rglob("config.json"))
    table = Table("run", "algorithm", "environment", "steps", "seeds", "last return", box=None)
    for path in runs:
        table.add_row(*map(Text, (str(path), *cells(path))))
    if runs:
        console.print(table)
        console.print(f"\n[bold]next[/]    duologue evaluate {quoted(runs[-1])}")
    else:
        console.print(f"No runs below {escape(str(command.folder))}.\n[bold]next[/]    duologue train a2c CartPole-v1")
    return 0


def quoted(word: object) -> str:
    """A word of a command as a shell and rich's markup leave it."""
    return escape(shlex.quote(str(word)))


def cells(path: Path) -> list[str]:
    """What `list` says of a run; of one that cannot be read, why."""
    try:
        plan, rows = read_plan(path), read_metrics(path / "metrics.jsonl")
    except DuologueError as error:
        return [str(error)]
    step = rows[-1]["step"] if rows else 0
    returns = {row["seed"]: row[RETURN] for row in rows if row.get(RETURN) is not None}  # the last of each seed
    last = f"{sum(returns.values()) / len(returns):,.1f}" if returns else "-"
    return [plan.name, plan.env, f"{step:,} / {plan.steps:,}", str(plan.seeds), last]
