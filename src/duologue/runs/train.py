"""The public functions that begin a run and continue one."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from duologue.algorithms.base import AnyAlgorithm
from duologue.data.cleaning import TimeoutAndTerminal
from duologue.envs.base import REPLAY_LIMIT
from duologue.runs import drive
from duologue.runs.data_sources import DataSource
from duologue.runs.display.loggers import Logger
from duologue.runs.environments import EnvSource
from duologue.runs.options import MOST_RESTARTS, NO_KWARGS, OnEnvError, RunOptions
from duologue.runs.planning import Sources, TaskSource
from duologue.runs.run import Run, Runs, wrap_agent
from duologue.runs.session import Callback, Listeners


def train(
    algorithm: AnyAlgorithm,
    env: EnvSource | None = None,
    *,
    steps: int,
    dataset: DataSource | None = None,
    tasks: TaskSource | None = None,
    seed: int = 0,
    seeds: int = 1,
    num_envs: int | None = None,
    asynchronous: bool = False,
    env_kwargs: dict[str, Any] = NO_KWARGS,
    run_dir: str | Path | None = None,
    evaluate_every: int | None = None,
    evaluate_episodes: int = 10,
    evaluate_num_envs: int | None = None,
    evaluate_env: EnvSource | None = None,
    evaluate_env_kwargs: dict[str, Any] = NO_KWARGS,
    save_every: int | None = None,
    log_every: int | None = None,
    log_info: Sequence[str] = (),
    callbacks: Sequence[Callback] = (),
    loggers: Sequence[Logger] = (),
    max_episode_steps: int | None = None,
    exact: bool = True,
    replay_limit: int = REPLAY_LIMIT,
    on_env_error: OnEnvError = "raise",
    max_env_restarts: int = MOST_RESTARTS,
    timeout_and_terminal: TimeoutAndTerminal = "timeout",
    window: int | None = None,
    console: Console | None = None,
) -> Run | Runs:
    """Train an agent, or `seeds` of them in one program, and return it. Steps are environment steps of one seed.

    Arguments:
        algorithm: an algorithm object; its fields are its hyperparameters.
        env: an id (`"CartPole-v1"`, `"gymnax/CartPole-v1"`), a callable that returns a Gymnasium environment, or an
            adapter. With a `dataset` the environment is only for evaluations, and may be left out.
        steps: environment steps of each seed, over all its environments; rounded up to whole rollouts. With a
            `dataset`, gradient steps.
        dataset: recorded data to learn from instead of an environment: an `.npz` or `.hdf5` file with D4RL's names, a
            Minari folder or id, or a result of `duologue.read_data`. All seeds share the data.
        tasks: several rewards, the main task's last: the name of a ready set (`"lunar-lander"`) or a set
            (`duologue.tasks.Tasks`). An algorithm of one reward learns the main task alone.
        seed: seed of all random numbers. Agent i of `seeds` uses the keys of `seed + i`, and equals the single run with
            that seed, up to rounding.
        seeds: number of agents that train side by side, each in environments of its own.
        num_envs: environments of each agent; by default the algorithm's own number.
        env_kwargs: arguments for `gymnasium.make` by name, in addition to an id: `{"is_slippery": False}`. The plan of
            the run keeps them, so that resumed runs and evaluations have them too.
        asynchronous: step each Gymnasium environment in a process of its own; faster for slow simulators only.
        run_dir: the new folder of this run; by default `runs/ALGORITHM/ENV/N`.
        evaluate_every: steps between evaluations on separate environments; by default none, and ten in a run on a
            `dataset` with an environment.
        evaluate_episodes: episodes of each evaluation.
        evaluate_num_envs: largest number of environments open at once in an evaluation, during training and after it;
            by default 16, or 1,024 in JAX.
        evaluate_env: environment of evaluations, as `env`; by default the environment of training. It has the same
            spaces. Its rewards and its time limit may differ, for whole games instead of lives or without shaped
            rewards. Evaluations during training, `best` and `run.evaluate` use it.
        evaluate_env_kwargs: arguments for `gymnasium.make` in addition to the id `evaluate_env`, in place of
            `env_kwargs`.
        save_every: steps between checkpoints; by default ten in a run. The last state is always saved.
        log_every: steps between rows of metrics; by default 200 in a run. Checkpoints and evaluations add rows.
        log_info: names of numbers in the `info` of a step, such as `("x_velocity",)`. Rows have the mean of each over
            all steps that give it, as `info/x_velocity`.
        callbacks: plain functions `(step, metrics) -> bool | None`, called after every row; `False` stops the run.
        loggers: further receivers of metrics, such as `duologue.runs.display.loggers.WandB`.
        max_episode_steps: time limit of an episode; by default the environment's own. `evaluate_env` has its own.
        exact: whether `resume` replays the actions of the running episodes, so that a Gymnasium run continues bit for
            bit. `False` for environments that must never be replayed, such as robots: they begin new episodes.
        replay_limit: steps of the longest running episode that is replayed. A longer one is cut, and the next begins.
        on_env_error: what follows an error of an environment. `"raise"`: the last rollout boundary is saved and the
            error raised. `"restart"`: a new environment replaces it, its episode is cut, and the run continues.
        max_env_restarts: largest number of environments replaced in a run; the next error is raised.
        timeout_and_terminal: how to read rows of the data with both flags: `"timeout"` for files that also mark every
            timeout as terminal; `"terminal"` if such a row is a true end.
        window: rows of the data on the device at a time, for data larger than its memory; by default all.
        console: a Rich console that shows progress; by default the terminal.

    Raises `ConfigError` for arguments that cannot work, before anything is made; `EnvError` where an environment fails,
    with all but the running rollout saved; `KeyboardInterrupt` after Ctrl-C, with everything saved.
    """
    options = RunOptions.pick(locals())
    listeners = Listeners(callbacks, loggers, console)
    return wrap_agent(
        drive.begin_run(algorithm, Sources(env, dataset, tasks, evaluate_env), options, run_dir, listeners)
    )


def resume(
    path: str | Path,
    *,
    steps: int | None = None,
    env: EnvSource | None = None,
    evaluate_env: EnvSource | None = None,
    dataset: DataSource | None = None,
    algorithm: type | Sequence[type] = (),
    exact: bool | None = None,
    callbacks: Sequence[Callback] = (),
    loggers: Sequence[Logger] = (),
    console: Console | None = None,
) -> Run | Runs:
    """Continue a run from its newest good checkpoint to `steps`, by default to the planned end.

    A run in environments written in JAX continues bit for bit. Gymnasium environments replay the actions of their
    running episodes, up to the run's `replay_limit`. The screen shows `exact`, or `after reset` with the environments
    that begin a new episode, and why. `exact=False` replays nothing, now and whenever this run is resumed. A run on
    recorded data reads the data again; pass `dataset` if the data have moved. Pass `env` if the environment was a
    Python object, `evaluate_env` if the environment of evaluations was one, and `algorithm` (a class, or several) if
    the configuration names classes of your own.

    Raises `ConfigError` for arguments that cannot work, `CheckpointError` where there is no good checkpoint or the data
    have changed.
    """
    listeners = Listeners(callbacks, loggers, console)
    agent = drive.resume_run(
        Path(path), steps=steps, env=env, dataset=dataset, algorithm=algorithm, exact=exact, listeners=listeners,
        evaluate_env=evaluate_env,
    )  # fmt: skip
    return wrap_agent(agent)
