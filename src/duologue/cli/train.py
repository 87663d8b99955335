"""From a command `train` to its run: begun, gone on with, or found finished; then evaluated and drawn. And how JAX is
set up for it."""

import dataclasses
from typing import Any

from rich.console import Console
from rich.markup import escape

from duologue.algorithms.base import AbstractAlgorithm
from duologue.algorithms.normalized import Normalized
from duologue.cli import grid
from duologue.cli.commands import Train
from duologue.cli.progress import Standing, standing
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
    """What `duologue.train` is called with, by name, without loggers."""
    algorithm: AbstractAlgorithm = command.algorithm
    if command.normalize_obs or command.normalize_reward:
        algorithm = Normalized(algorithm=algorithm, obs=command.normalize_obs, reward=command.normalize_reward)
    same = {field.name for field in dataclasses.fields(command)} - TRAIN_ONLY
    return {"algorithm": algorithm, "env": command.env or None} | {name: getattr(command, name) for name in same}


def loggers(wandb: str | None, algorithm: AbstractAlgorithm) -> list[Logger]:
    """Further places for the metrics of a run: a project of Weights & Biases, or none."""
    return [] if wandb is None else [WandB(wandb, config.to_dict(algorithm))]


def show(agent: Run | Runs, episodes: int, console: Console) -> Evaluation | None:
    """Evaluate, draw the curve, and say where everything is."""
    path, score = agent.path, agent.evaluate(episodes=episodes) if episodes and agent.plan.env else None
    if score is not None:
        console.print(f"[bold green]score[/]   {score}")
    console.print(f"[bold]run[/]     {escape(str(path))}")
    try:
        if agent.plan.env:
            console.print(f"[bold]curve[/]   {escape(str(learning_curve([path], path / 'curve.png')))}")
    except DuologueError as error:  # no plotting extra, or nothing to draw yet: the run is good all the same
        console.print(f"curve   {error}", markup=False)
    return score


def standing_of(run: grid.Combination) -> Standing:
    """Whether a combination has been trained. Raises `ConfigError` for one that cannot be."""
    arguments = train_arguments(run.command)
    sources = Sources(*(arguments[name] for name in Sources._fields))
    plan, envs, _ = make_plan(arguments["algorithm"], sources, RunOptions.pick(arguments))
    envs.close()
    return standing(run.folder, plan)


def pursue(run: grid.Combination, console: Console) -> grid.Result:
    """Train one combination to its end, or skip it, and evaluate it."""
    asked: dict[str, Any] = {**train_arguments(run.command), "run_dir": run.folder}
    also = loggers(run.command.wandb, asked["algorithm"])
    try:
        match standing_of(run):
            case "finished":
                console.print("finished before, skipped")
                agent = load(run.folder)
            case "unfinished":
                agent = resume(run.folder, loggers=also)
            case "new":
                agent = train(**asked, loggers=also)
        return grid.Result(run, show(agent, run.command.final_episodes, console))
    except (ConfigError, MissingExtraError):
        raise
    except DuologueError as error:
        Console(stderr=True).print(f"error: {error}", style="bold red", markup=False, highlight=False, soft_wrap=True)
        return grid.Result(run, problem=str(error))
