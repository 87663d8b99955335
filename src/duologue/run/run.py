"""A run from outside: train it, load it, evaluate it, act with it, go on with it."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console

from duologue.algorithms.base import AnyAlgorithm
from duologue.errors import CheckpointError, ConfigError
from duologue.loops.state import LoopState, key_for, run_key
from duologue.run import checkpoint, config, files, rows
from duologue.run.asked import Asked
from duologue.run.evaluation import Evaluation, evaluator
from duologue.run.log import Logger
from duologue.run.offline import Both, DataSource, data_of, make_offline_plan, recorded
from duologue.run.plan import EnvSource, Plan, check_arguments, horizon, make_plan
from duologue.run.session import Callback, Session
from duologue.types import Obs, PyTree


def train(
    algorithm: AnyAlgorithm,
    env: EnvSource | None = None,
    *,
    steps: int,
    dataset: DataSource | None = None,
    seed: int = 0,
    seeds: int = 1,
    num_envs: int | None = None,
    asynchronous: bool = False,
    run_dir: str | Path | None = None,
    evaluate_every: int | None = None,
    evaluate_episodes: int = 10,
    save_every: int | None = None,
    log_every: int | None = None,
    callbacks: Sequence[Callback] = (),
    loggers: Sequence[Logger] = (),
    max_episode_steps: int | None = None,
    both: Both = "timeout",
    window: int | None = None,
    console: Console | None = None,
) -> "Run | Runs":
    """Train an agent, or `seeds` of them in one program, and return it. Steps are environment steps of one seed.

    Arguments:
        algorithm: what learns; its fields are its hyperparameters.
        env: an id (`"CartPole-v1"`, `"gymnax/CartPole-v1"`), a callable that returns a Gymnasium environment, or an
            adapter. With a `dataset` it may be left out, and only evaluates.
        steps: environment steps of each seed, over all its environments; rounded up to whole rollouts. With a
            `dataset`, gradient steps.
        dataset: recorded data to learn from in place of an environment: an `.npz` or `.hdf5` file with D4RL's names, a
            Minari folder or id, or what `duologue.read_data` returned. All seeds share them.
        seed: of everything random. Agent i of `seeds` uses the keys of `seed + i`, and is the single run with that
            seed up to rounding.
        seeds: agents trained side by side, each in environments of its own.
        num_envs: environments of each agent; by default the algorithm's own number.
        asynchronous: step each Gymnasium environment in a process of its own, which pays for slow simulators only.
        run_dir: the new folder of this run; by default `runs/ALGORITHM/ENV/N`.
        evaluate_every: steps between evaluations on separate environments; by default none.
        evaluate_episodes: episodes of each of these.
        save_every: steps between checkpoints; by default ten in a run. The last state is always saved.
        log_every: steps between rows of metrics; by default 200 in a run.
        callbacks: plain functions `(step, metrics) -> bool | None`, called after every row; `False` stops the run.
        loggers: further places for metrics, like `duologue.run.log.WandB`.
        max_episode_steps: a time limit other than the environment's own.
        both: what a row of the data is whose two flags are set: `"timeout"` where every timeout is marked terminal
            too, or `"terminal"` always.
        window: rows of the data on the device at a time, for data larger than its memory; by default all.
        console: where progress is shown; by default the terminal.

    Raises `ConfigError` for arguments that cannot work, before anything is made; `EnvError` where an environment fails;
    `KeyboardInterrupt` after Ctrl-C, with everything saved.
    """
    shared = {
        "steps": steps, "seed": seed, "seeds": seeds, "evaluate_every": evaluate_every,
        "evaluate_episodes": evaluate_episodes, "save_every": save_every, "log_every": log_every,
        "max_episode_steps": max_episode_steps,
    }  # fmt: skip
    if dataset is not None:
        plan, envs = make_offline_plan(algorithm, dataset, env, both=both, window=window, **shared)
    elif env is not None:
        plan, envs = make_plan(algorithm, env, num_envs=num_envs, asynchronous=asynchronous, **shared)
    else:
        raise ConfigError("There is nothing to learn from: give an environment, or a dataset.")
    source = None if isinstance(env, str) else env
    path = new_folder(plan) if run_dir is None else Path(run_dir)
    if (path / "checkpoints").exists():
        raise ConfigError(f"run_dir = {str(path)!r} holds a run already. Give another folder, or `resume` that run.")
    files.make_folder(path)
    with files.RunLock(path):
        (path / "metrics.jsonl").unlink(missing_ok=True)  # of a run that failed before its first save
        files.write_json(path / "config.json", config.to_dict(plan))
        files.write_json(path / "versions.json", checkpoint.fingerprint())
        session = Session(path, plan, envs, source, callbacks, loggers, console)
        return _finished(session, session.drive(session.loop.start(plan.algorithm, envs, session.seeds)))


def resume(
    path: str | Path,
    *,
    steps: int | None = None,
    env: EnvSource | None = None,
    dataset: DataSource | None = None,
    algorithm: type | Sequence[type] = (),
    callbacks: Sequence[Callback] = (),
    loggers: Sequence[Logger] = (),
    console: Console | None = None,
) -> "Run | Runs":
    """Go on with a run from its newest good checkpoint to `steps`, by default to the planned end.

    In environments written in JAX the run goes on bit for bit; Gymnasium environments are brought back by replaying the
    actions of their running episodes, and one that does not come back the same is named on the screen. A run on
    recorded data reads them again; `dataset` says where they lie now, if elsewhere.
    """
    path = Path(path)
    plan = read_plan(path, algorithm)
    if steps is not None:
        check_arguments(steps=steps)
        plan = replace(plan, steps=steps)
    with files.RunLock(path):
        if plan.offline:
            envs = recorded(plan.algorithm, data_of(plan, dataset), window=plan.window)
        else:
            envs = plan.envs(env, purpose="train")
        session = Session(path, plan, envs, env, callbacks, loggers, console)
        found, notes = checkpoint.latest(path / "checkpoints" / "latest")
        step = checkpoint.read_manifest(found).step
        if step >= plan.steps:
            raise ConfigError(f"steps = {plan.steps:,}: this run has made {step:,} already. Give a larger number.")
        state, note = session.loop.restore(plan.algorithm, envs, session.load(found))
        notes += [note] if note else []
        notes += ended_schedules(plan)
        notes += [f"not bit-comparable: {change}" for change in checkpoint.changes(checkpoint.read_manifest(found))]
        rows.truncate_after(path / "metrics.jsonl", lambda row: row["step"] <= step)
        files.write_json(path / "config.json", config.to_dict(plan))
        return _finished(session, session.drive(state, notes=notes))


def load(
    path: str | Path,
    *,
    which: str = "latest",
    env: EnvSource | None = None,
    algorithm: type | Sequence[type] = (),
) -> "Run | Runs":
    """The agent in a run folder: its `"latest"` or its `"best"` checkpoint (the best evaluation while training).

    `env` is needed to evaluate a run whose environment was a Python object, `algorithm` (a class, or several) where the
    configuration names classes of your own. No environment is made. Raises `CheckpointError` where there is nothing
    good.
    """
    path = Path(path)
    plan = read_plan(path, algorithm)
    if which not in ("latest", "best"):
        raise ConfigError(f"which = {which!r}: must be 'latest' or 'best'.")
    if which == "best" and not (path / "checkpoints" / "best").is_dir():
        raise CheckpointError(f"{path} has no best checkpoint: it was trained without evaluate_every.")
    found, warnings = checkpoint.latest(path / "checkpoints" / which)
    for warning in warnings:
        Console(stderr=True, soft_wrap=True).print(warning, style="yellow")
    keys = [run_key(seed) for seed in range(plan.seed, plan.seed + plan.seeds)]
    init = lambda key: plan.algorithm.init(plan.spec, key=key)  # noqa: E731
    like = jax.eval_shape(init, keys[0]) if plan.seeds == 1 else jax.eval_shape(jax.vmap(init), jax.numpy.stack(keys))
    state = checkpoint.load(found, like, part=".algorithm")
    return _agents(path, plan, checkpoint.read_manifest(found).step, state, env)


@dataclass(frozen=True)
class Run:
    """One trained agent. Its folder holds everything: configuration, metrics, checkpoints."""

    path: Path
    plan: Plan
    seed: int
    step: int
    """Environment steps it has learned from."""
    state: PyTree = field(repr=False)
    """The algorithm's state."""
    env: EnvSource | None = None
    """The Python object its environments come from, where that is not an id."""

    def evaluate(self, *, episodes: int = 20, env: EnvSource | None = None, explore: bool = False) -> Evaluation:
        """Play `episodes` episodes in environments of their own, with the test policy or, to `explore`, as in
        training."""
        source = self.env if env is None else env
        with evaluator(
            self.plan, source, seeds=[self.seed], episodes=episodes, purpose="evaluate", explore=explore
        ) as evaluate:
            return evaluate(self.state)

    def policy(self, obs: Obs, *, step: int = 0) -> np.ndarray | np.generic:
        """Actions for NumPy observations, one or a batch, in the environment's own units: ready for `env.step`.

        The test policy, which for most algorithms is the mean or the likeliest action. Where that samples, `step` says
        which draw it is: the same one gives the same action. Raises `ConfigError` for observations of another shape.
        """
        return self._asked.act(obs, key=key_for(run_key(self.seed), "policy", step), explore=False)

    def sample(self, obs: Obs, *, step: int = 0) -> np.ndarray | np.generic:
        """Actions as in training, with its noise; `step` says which draw."""
        return self._asked.act(obs, key=key_for(run_key(self.seed), "policy", step), explore=True)

    def log_prob(self, obs: Obs, action: Any) -> np.ndarray | np.generic:
        """log π(a|s) of actions in the environment's own units. Raises `ConfigError` for a policy that is no
        distribution."""
        return self._asked.of_actions("log_prob", obs, action)

    def q(self, obs: Obs, action: Any) -> np.ndarray:
        """Qᵢ(s, a) of each critic, `[E]` for one observation, `[E, n]` for n. Raises `ConfigError` where none is
        learned."""
        return self._asked.of_actions("q", obs, action)

    def v(self, obs: Obs) -> np.ndarray | np.generic:
        """V(s). Raises `ConfigError` where no state value is learned."""
        return self._asked.value(obs)

    @property
    def _asked(self) -> Asked:
        return Asked(self.plan.algorithm, self.plan.spec, self.state)

    def resume(self, *, steps: int | None = None, **options: Any) -> "Run | Runs":
        """Go on with this run's folder: `duologue.resume` with its arguments."""
        return resume(self.path, steps=steps, env=self.env, **options)


@dataclass(frozen=True)
class Runs(Sequence[Run]):
    """Several seeds trained side by side: `runs[i]` is the agent of `seed + i`."""

    path: Path
    plan: Plan
    step: int
    state: PyTree = field(repr=False)
    """The algorithm's states; every leaf leads with the seeds axis."""
    env: EnvSource | None = None

    def __len__(self) -> int:
        return self.plan.seeds

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"run {index} of {len(self)}")
        one = jax.tree.map(lambda x: x[index], self.state)
        return Run(self.path, self.plan, self.plan.seed + index % len(self), self.step, one, self.env)

    def evaluate(self, *, episodes: int = 20, env: EnvSource | None = None, explore: bool = False) -> Evaluation:
        """Play `episodes` episodes with each seed's policy, as `Run.evaluate` does; the interval is over seeds."""
        source, seeds = self.env if env is None else env, [self.plan.seed + i for i in range(len(self))]
        with evaluator(
            self.plan, source, seeds=seeds, episodes=episodes, purpose="evaluate", explore=explore
        ) as evaluate:
            return evaluate(self.state)

    resume = Run.resume


def read_plan(path: Path, algorithm: type | Sequence[type] = ()) -> Plan:
    """What a run folder says it is. Raises `CheckpointError` where it says nothing."""
    if not (path / "config.json").is_file():
        raise CheckpointError(f"{path} is not the folder of a run: it has no config.json.")
    extra = (Plan, algorithm) if isinstance(algorithm, type) else (Plan, *algorithm)
    content = files.read_json(path / "config.json")
    plan = config.from_dict(content, extra=extra) if isinstance(content, dict) else None
    if not isinstance(plan, Plan):
        raise CheckpointError(f"{path / 'config.json'} does not describe a run.")
    return plan


def ended_schedules(plan: Plan) -> list[str]:
    """What is said of a run that goes on after a schedule of its learning has come to an end."""
    updates = horizon(plan.algorithm)
    if updates is None:
        return []
    experience = plan.algorithm.experience
    rollouts = updates / (experience.updates * experience.gradient_steps)
    end = updates if plan.offline else int(rollouts * plan.num_envs * experience.rollout_length)
    note = (
        f"a Linear schedule ends at step {end:,} and stays at its last value until {plan.steps:,}: where that is 0, "
        "nothing more is learned. It was made for the length planned first; to change it, train anew."
    )
    return [note] if end < plan.steps else []


def new_folder(plan: Plan) -> Path:
    """The first of `runs/ALGORITHM/ENV/1, 2, …` that does not exist."""
    where = plan.env or Path(plan.dataset or "").name
    env = "".join(c if c.isalnum() or c in "-._" else "-" for c in where).strip("-")
    parent = Path("runs") / plan.name.lower() / env
    return next(path for n in itertools.count(1) if not (path := parent / str(n)).exists())


def _finished(session: Session, state: LoopState) -> Run | Runs:
    step = int(np.ravel(state.step)[0]) * session.plan.unit
    return _agents(session.path, session.plan, step, state.algorithm, session.source)


def _agents(path: Path, plan: Plan, step: int, state: PyTree, env: EnvSource | None) -> Run | Runs:
    if plan.seeds > 1:
        return Runs(path, plan, step, state, env)
    return Run(path, plan, plan.seed, step, state, env)
