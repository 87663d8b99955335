"""One function for each command: it takes the options, does the work, and prints the next useful command."""

import dataclasses
import math
import os
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from duologue.cli import grid
from duologue.cli.commands import (
    COMMANDS,
    Collect,
    Completion,
    Data,
    Evaluate,
    Plot,
    Resume,
    Watch,
    default_algorithm,
)  # fmt: skip
from duologue.cli.listing import quoted
from duologue.cli.parse import parse_train, registry
from duologue.cli.train import grid_progress, loggers, show_results, train_arguments, train_combination
from duologue.data.summary import data_card
from duologue.errors import ConfigError
from duologue.fields import MOST, NonNegativeInt, check
from duologue.runs.collect import collect_random
from duologue.runs.data_sources import read_data
from duologue.runs.display.curves import learning_curve
from duologue.runs.horizon import ended_schedules
from duologue.runs.jax_setup import images_in_name, prepare_jax
from duologue.runs.plan import Plan, read_plan
from duologue.runs.run import Run, Runs, load
from duologue.runs.train import resume, train
from duologue.runs.watch import HEADLESS_VARIABLES, has_display
from duologue.types import Discrete


def run_command(name: str, arguments: list[str]) -> int:
    """Run the command `name` with these arguments, and return the exit code. Raises `DuologueError`."""
    if name == "train":
        return run_train(arguments)
    command = tyro.cli(COMMANDS[name], args=arguments, prog=f"duologue {name}", registry=registry)
    return ACTIONS[type(command)](command)


# Train


def run_train(arguments: list[str]) -> int:
    """Train one run, or a grid of runs."""
    name, *rest = arguments
    default_algorithm(name)  # raises for an unknown name
    rest, axes = grid.split(rest)
    if axes:
        return run_grid(grid.combinations(name, rest, axes), arguments)
    settings, command = parse_train(name, rest)
    if command.dry_run:
        for path, setting in settings.items():
            print(f"{path} = {setting.value!r}  ({setting.source})")
        return 0
    options = train_arguments(command)
    return finish(train(**options, loggers=loggers(command.wandb, options["algorithm"])), command.final_episodes)


def finish(agent: Run | Runs, episodes: int) -> int:
    """Show the results of an agent, and print the next useful command."""
    console, path = Console(highlight=False, soft_wrap=True), agent.path
    show_results(agent, episodes, console)
    further = min(2 * agent.step, MOST)
    following = f"resume {quoted(path)} --steps {further}"
    if ended_schedules(dataclasses.replace(agent.plan, steps=further)):  # a schedule has ended, perhaps at 0
        following = f"evaluate {quoted(path)} --episodes 1000"
    console.print(f"[bold]next[/]    duologue {following}")
    return 0


def run_grid(runs: list[grid.Combination], arguments: list[str]) -> int:
    """Train every unfinished run of a grid in order, and print a table. A run that fails does not stop the others."""
    console, first = Console(highlight=False, soft_wrap=True), runs[0].command
    if not console.is_terminal:
        console.width = 1000
    if first.dry_run:
        console.print(grid.table([grid.Result(run) for run in runs], scores=False))
        return 0
    commands = [run.command for run in runs]
    seeds = math.gcd(*(command.seeds for command in commands))
    images = any(images_in_name(command.env) for command in commands)
    prepare_jax([command.algorithm for command in commands], seeds=seeds, images=images)
    for run in runs:  # raises before anything is trained
        grid_progress(run)
    results: list[grid.Result] = []
    try:
        for number, run in enumerate(runs, 1):
            console.print(f"\n[bold]\\[{number} of {len(runs)}][/] {escape(str(run))}")
            results.append(train_combination(run, console))
    except (KeyboardInterrupt, SystemExit):
        again = shlex.join(["duologue", "train", *arguments])
        console.print(f"[bold]next[/]    {escape(again)}")
        raise
    console.print()
    console.print(grid.table(results))
    console.print(f"\n{grid.interval_note(results)}".rstrip(), markup=False)
    good = [str(result.run.folder) for result in results if not result.problem]
    drawn = ["plot", *good, "-o", "curves.png"] if good and first.env else ["list", str(runs[0].folder.parent)]
    console.print(f"[bold]next[/]    duologue {escape(shlex.join(drawn))}")
    return 0 if len(good) == len(results) else 1


# The other commands


def run_evaluate(command: Evaluate) -> int:
    agent = load(command.run, which=command.checkpoint)
    console = Console(highlight=False, soft_wrap=True)
    if command.dataset is not None:
        played = ("episodes", "num_envs", "max_episode_steps", "explore", "env")
        refuse(command, played, "has no effect with --dataset, because no episode is played")
        refuse(command, ("task",), "has no effect with --dataset, because recorded data have the main task only")
        for one in [agent] if isinstance(agent, Run) else agent:
            value = one.fitted_q(
                command.dataset, steps=command.fit_steps, timeout_and_terminal=command.timeout_and_terminal
            )
            console.print(f"[bold green]value[/]   {value}")
        return 0
    refuse(command, ("fit_steps", "timeout_and_terminal"), "needs --dataset")
    options = ("episodes", "num_envs", "max_episode_steps", "explore", "task", "env")
    score = agent.evaluate(**{name: getattr(command, name) for name in options})
    console.print(f"[bold green]score[/]   {score}")
    console.print(f"[bold]next[/]    duologue plot {quoted(command.run)} -o curve.png")
    return 0


def refuse(command: Evaluate | Collect, options: Sequence[str], why: str) -> None:
    """Raise `ConfigError` for the first of these options that is not at its default: it has no effect here."""
    for name in options:
        if (value := getattr(command, name)) != getattr(type(command), name):
            raise ConfigError(f"{name} = {value!r}: this option {why}. Leave it out.")


def run_watch(command: Watch) -> int:
    if not has_display():
        for name, value in HEADLESS_VARIABLES.items():
            os.environ.setdefault(name, value)
    plan = read_plan(command.run)
    check_agent(command.agent, plan)
    agent = load(command.run, which=command.checkpoint)
    one, console = agent if isinstance(agent, Run) else agent[command.agent], Console(highlight=False, soft_wrap=True)
    options = ("episodes", "out", "explore", "task", "env", "seed", "fps", "max_steps")
    watched = one.watch(**{name: getattr(command, name) for name in options}, console=console)
    if watched.out is not None:
        console.print(f"[bold]video[/]   {escape(str(watched.out))}")
    console.print(f"[bold]next[/]    duologue evaluate {quoted(command.run)} --episodes 100")
    return 0


def check_agent(agent: int, plan: Plan) -> None:
    """Raise `ConfigError` if the run has no agent of this number."""
    if not 0 <= agent < plan.seeds:
        raise ConfigError(
            f"agent = {agent}: must be from 0 to {plan.seeds - 1}, for the {plan.seeds} agents of this run."
        )


def run_resume(command: Resume) -> int:
    plan = read_plan(command.run)
    check(NonNegativeInt, final_episodes=command.final_episodes)
    more = {
        "steps": command.steps, "dataset": command.dataset, "env": command.env,
        "evaluate_env": command.evaluate_env, "exact": command.exact,
        "loggers": loggers(command.wandb, plan.algorithm),
    }  # fmt: skip
    return finish(resume(command.run, **more), command.final_episodes)


def run_collect(command: Collect) -> int:
    if command.run == "random":
        if command.env is None:
            raise ConfigError("collect random needs --env, for example --env HalfCheetah-v5.")
        of_policies = ("noise", "test", "checkpoint", "agent")
        refuse(command, of_policies, "has no effect on random actions")
        out = collect_random(command.env, command.steps, command.out, seed=command.seed, after=command.after)
    else:
        plan = read_plan(Path(command.run))
        check_agent(command.agent, plan)
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


def run_completion(command: Completion) -> int:
    """Print the completion script of a shell."""
    from duologue.cli.completion import completion_script  # takes seconds: it builds the options of all algorithms

    print(completion_script(command.shell), end="")
    return 0


ACTIONS: dict[type, Callable[[Any], int]] = {
    Evaluate: run_evaluate, Watch: run_watch, Resume: run_resume, Collect: run_collect, Data: run_data, Plot: run_plot,
    Completion: run_completion,
}  # fmt: skip
"""The function of each command except `train` and `list`."""
