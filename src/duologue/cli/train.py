"""The work of the command `train`: start or continue a run, evaluate it, and draw its curve."""

import dataclasses
from typing import Any

from rich.console import Console
from rich.markup import escape

from duologue.algorithms.base import AbstractAlgorithm
from duologue.algorithms.normalized import Normalized
from duologue.cli import grid
from duologue.cli.commands import Train
from duologue.cli.progress import Stage, run_progress
from duologue.errors import ConfigError, DuologueError, MissingExtraError
from duologue.runs import config
from duologue.runs.display.curves import learning_curve
from duologue.runs.display.loggers import Logger, WandB
from duologue.runs.evaluation import Evaluation
from duologue.runs.options import RunOptions
from duologue.runs.planning import Sources, make_plan
from duologue.runs.run import Run, Runs, load
from duologue.runs.train import resume, train

TRAIN_ONLY = {
    "env", "algorithm", "normalize_obs", "normalize_reward", "final_episodes", "wandb", "config", "grid", "dry_run"
}  # fmt: skip
"""Fields of `Train` that are not arguments of `duologue.train` by the same name."""


def train_arguments(command: Train) -> dict[str, Any]:
    """The arguments of `duologue.train` by name, without loggers."""
    algorithm: AbstractAlgorithm = command.algorithm
    if command.normalize_obs or command.normalize_reward:
        algorithm = Normalized(algorithm=algorithm, obs=command.normalize_obs, reward=command.normalize_reward)
    same = {field.name for field in dataclasses.fields(command)} - TRAIN_ONLY
    return {"algorithm": algorithm, "env": command.env or None} | {name: getattr(command, name) for name in same}


def loggers(wandb: str | None, algorithm: AbstractAlgorithm) -> list[Logger]:
    """Loggers in addition to the run folder: one for a project of Weights & Biases, or none."""
    return [] if wandb is None else [WandB(wandb, config.to_dict(algorithm))]


def show_results(agent: Run | Runs, episodes: int, console: Console) -> Evaluation | None:
    """Evaluate the agent, draw its learning curve, and print the result and the paths."""
    path, score = agent.path, agent.evaluate(episodes=episodes) if episodes and agent.plan.env else None
    if score is not None:
        console.print(f"[bold green]score[/]   {score}")
    console.print(f"[bold]run[/]     {escape(str(path))}")
    try:
        if agent.plan.env:
            console.print(f"[bold]curve[/]   {escape(str(learning_curve([path], path / 'curve.png')))}")
    except DuologueError as error:  # no plotting extra, or nothing to draw yet; the run itself is complete
        console.print(f"curve   {error}", markup=False)
    return score


def grid_progress(run: grid.Combination) -> Stage:
    """Progress of one run of a grid. Raises `ConfigError` for a run that cannot be trained."""
    arguments = train_arguments(run.command)
    sources = Sources(*(arguments[name] for name in Sources._fields))
    plan, envs, _ = make_plan(arguments["algorithm"], sources, RunOptions.pick(arguments))
    envs.close()
    return run_progress(run.folder, plan)


def train_combination(run: grid.Combination, console: Console) -> grid.Result:
    """Train one run of a grid to its end, or skip it if it is finished, and evaluate it."""
    arguments: dict[str, Any] = {**train_arguments(run.command), "run_dir": run.folder}
    more = loggers(run.command.wandb, arguments["algorithm"])
    try:
        match grid_progress(run):
            case "finished":
                console.print("already finished, skipped")
                agent = load(run.folder)
            case "unfinished":
                agent = resume(run.folder, loggers=more)
            case "new":
                agent = train(**arguments, loggers=more)
        return grid.Result(run, show_results(agent, run.command.final_episodes, console))
    except (ConfigError, MissingExtraError):
        raise
    except DuologueError as error:
        Console(stderr=True).print(f"error: {error}", style="bold red", markup=False, highlight=False, soft_wrap=True)
        return grid.Result(run, problem=str(error))
