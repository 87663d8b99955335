"""Trained agents: load them, evaluate them, act with them, train them further."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console

from duologue.data.cleaning import TimeoutAndTerminal
from duologue.errors import CheckpointError, ConfigError, suggestion
from duologue.loops.keys import key_for, run_key
from duologue.runs import drive
from duologue.runs.actor import Actor
from duologue.runs.collect import record_policy
from duologue.runs.data_sources import DataSource, open_source, read_data
from duologue.runs.display.loggers import Logger
from duologue.runs.display.screen import print_warning
from duologue.runs.drive import Agent
from duologue.runs.environments import EnvSource, check_evaluate_env, evaluation_env, open_envs
from duologue.runs.evaluation import Evaluation
from duologue.runs.evaluator import EvaluationOptions, choose_task, open_evaluator
from duologue.runs.fitted_q import FittedQ, fitted_q
from duologue.runs.jax_setup import has_images, prepare_jax
from duologue.runs.options import RunOptions
from duologue.runs.plan import Plan, read_plan
from duologue.runs.planning import Sources
from duologue.runs.policy import TrainedPolicy
from duologue.runs.session import Callback, Listeners
from duologue.runs.watch import WatchResult, frames, watch
from duologue.storage import checkpoint
from duologue.types import Obs, PyTree


def load(
    path: str | Path,
    *,
    which: str = "latest",
    env: EnvSource | None = None,
    evaluate_env: EnvSource | None = None,
    algorithm: type | Sequence[type] = (),
) -> "Run | Runs":
    """Load the agent in a run folder: its `"latest"` or its `"best"` checkpoint (the best evaluation while training).

    Pass `env` (or `evaluate_env`) to evaluate a run whose environment (of evaluations) was a Python object, and
    `algorithm` (a class, or several) if the configuration names classes of your own. This makes no environment. Raises
    `CheckpointError` for a folder without a good checkpoint.
    """
    path = Path(path)
    plan = read_plan(path, algorithm)
    check_evaluate_env(plan, evaluate_env)
    if which not in ("latest", "best"):
        raise ConfigError(f"which = {which!r}: must be 'latest' or 'best'.")
    if which == "best" and not (path / "checkpoints" / "best").is_dir():
        raise CheckpointError(
            f"{path} has no best checkpoint, because it was trained without evaluate_every. Load the latest."
        )
    found, warnings = checkpoint.find_latest(path / "checkpoints" / which)
    for warning in warnings:
        print_warning(warning)
    prepare_jax([plan.algorithm], seeds=plan.seeds, images=has_images(plan.spec.observation))
    keys = [run_key(seed) for seed in plan.seed_numbers]
    init = lambda key: plan.algorithm.init(plan.spec, key=key)  # noqa: E731
    like = jax.eval_shape(init, keys[0]) if plan.seeds == 1 else jax.eval_shape(jax.vmap(init), jax.numpy.stack(keys))
    state = checkpoint.load_tree(found, like, part=".algorithm")
    return wrap_agent(Agent(path, plan, checkpoint.read_manifest(found).step, state, env, evaluate_env))


@dataclass(frozen=True)
class Run:
    """One trained agent. Its folder holds configuration, metrics and checkpoints."""

    path: Path
    plan: Plan
    seed: int
    step: int
    """Environment steps of its training; on recorded data, gradient steps."""
    state: PyTree = field(repr=False)
    """The algorithm's state."""
    env: EnvSource | None = None
    """The Python object that makes its environments; `None` for the plan's id."""
    evaluate_env: EnvSource | None = None
    """The same for the environments of its evaluations."""

    def evaluate(
        self, *, episodes: int = 20, env: EnvSource | None = None, explore: bool = False, task: str | None = None,
        num_envs: int | None = None, max_episode_steps: int | None = None,
    ) -> Evaluation:  # fmt: skip
        """Play `episodes` episodes in environments of their own, with the test policy or with `explore` as in training.

        The environment is `env`, by default the run's `evaluate_env`, or that of training. At most `num_envs` of them
        are open at once, by default 16, or 1,024 in JAX. `max_episode_steps` cuts an episode, which counts with its
        return up to there, by default after 100,000 steps; the score has the number of cut episodes. With several
        tasks, the policy of `task` plays under the reward of `task`, by default the main one.

        Agents of several seeds play `episodes` episodes each, and the interval is over seeds. With `num_envs` they play
        one after the other.
        """
        options = EvaluationOptions(
            episodes=episodes, explore=explore, num_envs=num_envs, max_episode_steps=max_episode_steps
        )
        return score_agent(self, env, task, options)

    def policy(self, obs: Obs, *, step: int = 0, task: str | None = None) -> np.ndarray | np.generic:
        """Actions of the test policy for NumPy observations, one or a batch, in the environment's own units: ready for
        `env.step`. In a loop, use `actor`, which also supports a policy that remembers the episode.

        For most algorithms the test policy is the mean or the likeliest action. Where it samples, `step` numbers the
        draw: the same number gives the same action. With several tasks, `task` names the policy. Raises `ConfigError`
        for observations of another shape, and for a policy that remembers the episode.
        """
        trained = self._for_task(task)._policy
        return trained.act(obs, key=key_for(run_key(self.seed), "policy", step), explore=False)

    def sample(self, obs: Obs, *, step: int = 0) -> np.ndarray | np.generic:
        """Actions as in training, with its noise; `step` numbers the draw. With several tasks, the scheduler draws the
        task too."""
        return self._policy.act(obs, key=key_for(run_key(self.seed), "policy", step), explore=True)

    def actor(self, *, explore: bool = False, task: str | None = None) -> Actor:
        """The test policy, or with `explore` the policy of training, for a loop of your own: `actor.reset()` where an
        episode begins, `actor(obs)` at each step. It remembers the episode. With several tasks, `task` names the
        policy."""
        agent = replace(self, plan=choose_task(self.plan, task, explore))
        return Actor(agent._policy, key=run_key(self.seed), explore=explore)

    def log_prob(self, obs: Obs, action: Any, *, task: str | None = None) -> np.ndarray | np.generic:
        """log π(a|s) of actions in the environment's own units; with several tasks, for the policy of `task`. Raises
        `ConfigError` for a policy that is not a distribution."""
        return self._for_task(task)._policy.evaluate_actions("log_prob", obs, action)

    def q(self, obs: Obs, action: Any, *, task: str | None = None) -> np.ndarray:
        """Qᵢ(s, a) of each critic, `[E]` for one observation, `[E, n]` for n; with several tasks, for `task`. Raises
        `ConfigError` for an algorithm without Q."""
        return self._for_task(task)._policy.evaluate_actions("q", obs, action)

    def v(self, obs: Obs) -> np.ndarray | np.generic:
        """V(s). Raises `ConfigError` for an algorithm without V."""
        return self._policy.value(obs)

    def collect(
        self, steps: int, out: str | Path, *, explore: bool = True, noise: float = 0.0, env: EnvSource | None = None,
        seed: int = 0, after: DataSource | None = None, console: Console | None = None,
    ) -> Path:  # fmt: skip
        """Record `steps` transitions of this policy in an environment of its own to `out` (`.npz` or `.hdf5`), after
        the rows of the data `after`, if any.

        It acts as in training, or with `explore=False` as in tests. For Box actions, `noise` is the σ of added noise,
        in half-ranges; for discrete actions, the probability of a uniformly random action. `console` shows progress, by
        default the terminal. Raises `ConfigError`; `EnvError` if the environment fails; `KeyboardInterrupt` after
        Ctrl-C. The rows so far are written in each case.
        """
        source = self.env if env is None else env
        act = self._policy.make_act(key=key_for(run_key(seed), "collect"), explore=explore)
        made = lambda: open_envs(self.plan, source, purpose="collect", num_envs=1, seed=seed)  # noqa: E731
        how = {"noise": noise, "seed": seed, "policy": self.plan.name, "after": after, "console": console}
        return record_policy(made, act, steps, out, source=self.plan.env if source is None else source, **how)

    def watch(
        self, *, episodes: int = 1, out: str | Path | None = None, env: EnvSource | None = None,
        explore: bool = False, task: str | None = None, seed: int = 0, fps: float | None = None,
        max_steps: int | None = None, console: Console | None = None,
    ) -> WatchResult:  # fmt: skip
        """Play episodes with the test policy, or with `explore` as in training, in a window or into a video.

        With a display and without `out`, they appear in the environment's own window. Else they become a video at
        `out`, `.gif` or `.mp4` (extra: `video`), by default `videos/step-N.mp4` in the run's folder, with `fps`
        pictures a second (`None`: the environment's own). It ends after `max_steps` steps at the latest; the default
        for a video is 10,000. With several tasks, `task` names the policy. `seed` decides how episodes start. Raises
        `ConfigError`.
        """
        number, agent = self.seed - self.plan.seed, replace(self, plan=choose_task(self.plan, task, explore))
        name = f"step-{self.step}{f'-agent-{number}' if self.plan.seeds > 1 else ''}{f'-{task}' if task else ''}.mp4"
        return watch(
            agent._policy, agent.plan, self.env if env is None else env, out=out, default=self.path / "videos" / name,
            episodes=episodes, explore=explore, seed=seed, fps=fps, max_steps=max_steps, console=console or Console(),
        )  # fmt: skip

    def frames(
        self, *, episodes: int = 1, env: EnvSource | None = None, explore: bool = False, task: str | None = None,
        seed: int = 0, max_steps: int = 1_000,
    ) -> np.ndarray:  # fmt: skip
        """Pictures of the episodes that `watch` plays, uint8 `[T, H, W, 3]`, without a file."""
        source, how = self.env if env is None else env, {"explore": explore, "seed": seed, "max_steps": max_steps}
        agent = replace(self, plan=choose_task(self.plan, task, explore))
        return frames(agent._policy, agent.plan, source, episodes=episodes, **how)

    def fitted_q(
        self,
        dataset: DataSource,
        *,
        steps: int = 20_000,
        seed: int = 0,
        timeout_and_terminal: TimeoutAndTerminal | None = None,
    ) -> FittedQ:
        """Value of the test policy by fitted Q evaluation on recorded data, without an environment.
        `timeout_and_terminal` says how to read rows with both flags, by default as in the run. Raises `ConfigError`,
        and `DuologueError` if the fit diverges."""
        data = (
            open_source(dataset, self.plan.timeout_and_terminal)
            if timeout_and_terminal is None
            else read_data(dataset, timeout_and_terminal=timeout_and_terminal)
        )
        return fitted_q(self.plan, self.state, data, steps=steps, seed=seed)

    def finetune(
        self, env: EnvSource | None = None, *, steps: int, offline_fraction: float = 0.5,
        dataset: DataSource | None = None, evaluate_env: EnvSource | None = None, run_dir: str | Path | None = None,
        callbacks: Sequence[Callback] = (), loggers: Sequence[Logger] = (), console: Console | None = None,
        **options: Any,
    ) -> "Run":  # fmt: skip
        """Continue to train an agent of recorded data in an environment, in a new run folder. It keeps networks and
        optimisers, and a share `offline_fraction` of each batch still comes from the data. `options` are further
        options of `train`, except `seeds` and those for data. Raises `ConfigError`."""
        source = (self.env or self.plan.env) if env is None else env
        if not source:
            raise ConfigError("env = None: must be an environment to train in. Pass env=...")
        listeners = Listeners(callbacks, loggers, console)
        chosen = finetune_options(self.seed, steps=steps, **options)
        agent = Agent(self.path, self.plan, self.step, self.state, self.env)
        sources = Sources(source, dataset, evaluate_env=evaluate_env)
        again = wrap_agent(drive.finetune_run(agent, sources, offline_fraction, chosen, run_dir, listeners))
        assert isinstance(again, Run)
        return again

    def _for_task(self, task: str | None) -> "Run":
        """This run with the test policy of `task`, by default of the main task."""
        return replace(self, plan=choose_task(self.plan, task, False))

    @property
    def _policy(self) -> TrainedPolicy:
        return TrainedPolicy(self.plan.algorithm, self.plan.spec, self.state)

    def resume(
        self, *, steps: int | None = None, dataset: DataSource | None = None, algorithm: type | Sequence[type] = (),
        env: EnvSource | None = None, evaluate_env: EnvSource | None = None, exact: bool | None = None,
        callbacks: Sequence[Callback] = (),
        loggers: Sequence[Logger] = (), console: Console | None = None,
    ) -> "Run | Runs":  # fmt: skip
        """Continue this run in its folder: `duologue.resume` with its arguments."""
        source, listeners = self.env if env is None else env, Listeners(callbacks, loggers, console)
        agent = drive.resume_run(
            self.path, steps=steps, env=source, dataset=dataset, algorithm=algorithm, exact=exact, listeners=listeners,
            evaluate_env=self.evaluate_env if evaluate_env is None else evaluate_env,
        )  # fmt: skip
        return wrap_agent(agent)


@dataclass(frozen=True)
class Runs(Sequence[Run]):
    """Several seeds trained in one program: `runs[i]` is the agent of `seed + i`."""

    path: Path
    plan: Plan
    step: int
    state: PyTree = field(repr=False)
    """The algorithm's states; every leaf leads with the seeds axis."""
    env: EnvSource | None = None
    evaluate_env: EnvSource | None = None

    def __len__(self) -> int:
        return self.plan.seeds

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"run {index} of {len(self)}")
        one = jax.tree.map(lambda x: x[index], self.state)
        seed = self.plan.seed + index % len(self)
        return Run(self.path, self.plan, seed, self.step, one, self.env, self.evaluate_env)

    evaluate = Run.evaluate
    resume = Run.resume


def score_agent(
    agent: Run | Runs, env: EnvSource | None, task: str | None, options: EvaluationOptions
) -> Evaluation:  # fmt: skip
    """The score of an agent, or of the agents of several seeds, in `env`, by default in the environment of their
    evaluations."""
    plan, source = agent.plan, env
    if env is None:
        plan, source = evaluation_env(plan, agent.env, agent.evaluate_env)
    elif isinstance(env, str) and env == plan.evaluate_env:  # with its arguments
        plan, source = evaluation_env(plan, None, env)
    plan = choose_task(plan, task, options.explore)
    seeds = [agent.seed] if isinstance(agent, Run) else plan.seed_numbers
    with open_evaluator(plan, source, options, seeds=seeds, purpose="evaluate") as evaluate:
        return evaluate(agent.state)


def wrap_agent(agent: Agent) -> Run | Runs:
    """The agent as `Run`, or the agents of several seeds as `Runs`."""
    path, plan, step, state, *sources = agent
    if plan.seeds > 1:
        return Runs(path, plan, step, state, *sources)
    return Run(path, plan, plan.seed, step, state, *sources)


def finetune_options(seed: int, **options: Any) -> RunOptions:
    """The options of `Run.finetune`. Raises `ConfigError` for an option that it does not take."""
    known = {field.name for field in fields(RunOptions)} - {"seeds", "timeout_and_terminal", "window"}
    if unknown := [name for name in options if name not in known]:
        raise ConfigError(f"finetune has no option {unknown[0]!r}. {suggestion(unknown[0], known)}")
    return RunOptions.pick({"seed": seed, **{name: value for name, value in options.items() if value is not None}})
