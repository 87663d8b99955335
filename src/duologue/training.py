"""From a command `train` to its run: begun, gone on with, or found finished; then evaluated and drawn."""

import dataclasses
from typing import Any

from rich.console import Console

from duologue import grid
from duologue.algorithms.base import AbstractAlgorithm
from duologue.algorithms.normalized import Normalized
from duologue.envs import AbstractHostEnvs
from duologue.errors import ConfigError, DuologueError, MissingExtraError
from duologue.options import Train
from duologue.run import config
from duologue.run.evaluation import Evaluation
from duologue.run.log import Logger, WandB
from duologue.run.report import learning_curve
from duologue.run.run import Run, Runs, load
from duologue.run.standing import Standing, standing
from duologue.run.train import planned, resume, train

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


def loggers(command: Train) -> list[Logger]:
    """Further places for the metrics of its run."""
    algorithm = train_arguments(command)["algorithm"]
    return [] if command.wandb is None else [WandB(command.wandb, config.to_dict(algorithm))]


def show(agent: Run | Runs, episodes: int, console: Console) -> Evaluation | None:
    """Evaluate, draw the curve, and say where everything is."""
    path, score = agent.path, agent.evaluate(episodes=episodes) if episodes and agent.plan.env else None
    if score is not None:
        console.print(f"[bold green]score[/]   {score}")
    console.print(f"[bold]run[/]     {path}", markup=True)
    try:
        if agent.plan.env:
            console.print(f"[bold]curve[/]   {learning_curve([path], path / 'curve.png')}")
    except DuologueError as error:  # no plotting extra, or nothing to draw yet: the run is good all the same
        console.print(f"curve   {error}", markup=False)
    return score


def standing_of(run: grid.Combination) -> Standing:
    """Whether a combination has been trained. Raises `ConfigError` for one that cannot be."""
    plan, envs = planned(**{name: x for name, x in train_arguments(run.command).items() if name != "run_dir"})
    if isinstance(envs, AbstractHostEnvs):
        envs.close()
    return standing(run.folder, plan)


def pursue(run: grid.Combination, console: Console) -> grid.Result:
    """Train one combination to its end, or skip it, and evaluate it."""
    try:
        match standing_of(run):
            case "finished":
                console.print("finished before, skipped")
                agent = load(run.folder)
            case "unfinished":
                agent = resume(run.folder, loggers=loggers(run.command))
            case "new":
                asked: dict[str, Any] = {**train_arguments(run.command), "run_dir": run.folder}
                agent = train(**asked, loggers=loggers(run.command))
        return grid.Result(run, show(agent, run.command.final_episodes, console))
    except (ConfigError, MissingExtraError):
        raise
    except DuologueError as error:
        Console(stderr=True).print(f"error: {error}", style="bold red", markup=False, highlight=False, soft_wrap=True)
        return grid.Result(run, problem=str(error))
