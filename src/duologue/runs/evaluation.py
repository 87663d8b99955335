"""The score of an agent on test episodes, with its interval."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from duologue.envs.make import AbstractHostEnvs, AbstractJaxEnvs
from duologue.envs.tasks import strip_tasks
from duologue.errors import EnvError
from duologue.fields import Count, check
from duologue.loops.evaluate import compile_evaluation, host_evaluation
from duologue.loops.keys import key_for, run_key
from duologue.ops.statistics import bootstrap_interval, iqm
from duologue.runs.display.screen import print_warning
from duologue.runs.environments import Envs, EnvSource, close_envs, env_notes, is_in_jax, open_envs
from duologue.runs.plan import Plan
from duologue.types import PyTree

MAX_HOST_ENVS, MAX_JAX_ENVS = 16, 1024
"""Largest number of environments that play test episodes together: Gymnasium's, and those written in JAX."""


@dataclass(frozen=True)
class Evaluation:
    """Returns and lengths of test episodes, `[episodes]`, or `[S, episodes]` for several seeds.

    Returns are those that the environment reports in `info["episode"]`, if it reports one for every episode. Else they
    are sums of the rewards that the agent learns from.
    """

    returns: np.ndarray
    lengths: np.ndarray
    tasks: dict[str, np.ndarray] = field(default_factory=dict)
    """Returns under the reward of each task, with several tasks."""
    task: str = ""
    """Task whose policy played, with several tasks. `returns` are those of this task."""
    successes: np.ndarray | None = None
    """Whether each episode succeeded, as the environment reports it at the last step (`is_success` or `success` of its
    `info`): 1 or 0, also 0 where this episode has no report. `None` where no episode has one."""
    reported: int = 0
    """Number of episodes whose return the environment reports."""

    @property
    def scores(self) -> np.ndarray:
        """The samples of the interval: the return of each episode, or the mean return of each seed."""
        returns = np.asarray(self.returns, np.float64)
        return returns if returns.ndim == 1 else returns.mean(1)

    @property
    def sample_size(self) -> str:
        """Number of samples in words: `"100 episodes"` of one agent, or `"5 seeds"`."""
        count, unit = len(self.scores), "episode" if self.returns.ndim == 1 else "seed"
        return f"{count} {unit}{'s' if count != 1 else ''}"

    @property
    def mean(self) -> float:
        return float(self.scores.mean())

    @property
    def iqm(self) -> float:
        """The interquartile mean of the same scores."""
        return float(iqm(self.scores))

    @property
    def success_rate(self) -> float:
        """Share of the episodes that succeeded; NaN where the environment reports no success."""
        return np.nan if self.successes is None else float(np.mean(self.successes))

    @property
    def report_note(self) -> str:
        """In words, that the environment reports the returns of some episodes and not of others; else empty."""
        if self.reported in (0, self.lengths.size):
            return ""
        return f"learned returns, because only {self.reported:,} of {self.lengths.size:,} episodes have info['episode']"

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % bootstrap interval of the mean; NaN for a single score."""
        return bootstrap_interval(self.scores, statistic=np.mean) if len(self.scores) > 1 else (np.nan, np.nan)

    def __str__(self) -> str:
        low, high = self.interval
        interval = f", 95 % interval [{low:,.1f}, {high:,.1f}]" if len(self.scores) > 1 else ""
        task = f" of {self.task}" if self.task else ""
        success = "" if self.successes is None else f", success rate {100 * self.success_rate:.0f} %"
        each_task = ", ".join(f"{name} {np.mean(returns):,.1f}" for name, returns in self.tasks.items())
        return (
            f"mean return{task} {self.mean:,.1f}{interval} over {self.sample_size}"
            f" (interquartile mean {self.iqm:,.1f}, mean length {self.lengths.mean():,.0f}{success}"
            f"{self.report_note and f'; {self.report_note}'})"
            f"{each_task and f'; under each task: {each_task}'}"
        )


Evaluator = Callable[[PyTree], Evaluation]
"""A function from the algorithm's state to its score."""


@contextmanager
def open_evaluator(
    plan: Plan, source: EnvSource | None, *, seeds: list[int], episodes: int, purpose: str, explore: bool = False,
    interrupted: Callable[[], bool] = lambda: False, note: Callable[[str], object] = print_warning,
) -> Iterator[Evaluator]:  # fmt: skip
    """A context with a function from the algorithm's state to its score. The context makes its own environments, and
    episodes start in the same way in every evaluation.

    Keys and seeds depend on `purpose`. So an evaluation never changes the training, or evaluations with another
    purpose. With several `seeds` the state has a leading axis S. At its end the context closes the environments, except
    an adapter of the user. The function raises `Interrupted` once `interrupted()` is true, because episodes may never
    end. `note` receives the remarks on the environments.
    """
    check(Count, episodes=episodes)
    keys = [key_for(run_key(seed), purpose) for seed in seeds]
    num_envs = min(episodes, MAX_JAX_ENVS if is_in_jax(plan, source) else MAX_HOST_ENVS)
    adapter = strip_tasks(source)
    if isinstance(adapter, AbstractHostEnvs | AbstractJaxEnvs):
        num_envs = adapter.num_envs
    with ExitStack() as opened:

        def open_one(seed: int) -> Envs:
            envs = open_envs(plan, source, purpose=purpose, num_envs=num_envs, seed=seed)
            opened.callback(close_envs, envs, source)
            return envs

        how = {"episodes": episodes, "explore": explore, "interrupted": interrupted}
        first = open_one(seeds[0])
        for text in env_notes(first):
            note(text)
        if isinstance(first, AbstractJaxEnvs):
            yield _compiled_evaluator(plan, first, keys, **how)
        else:
            envs = [each for each in (first, *map(open_one, seeds[1:])) if isinstance(each, AbstractHostEnvs)]
            yield _host_evaluator(plan, envs, keys, **how)


def _compiled_evaluator(
    plan: Plan, envs: AbstractJaxEnvs, keys: list[Array],
    *, episodes: int, explore: bool, interrupted: Callable[[], bool],
) -> Evaluator:  # fmt: skip
    """An evaluator that plays all seeds in one program."""
    seeds, rounds = len(keys), -(-episodes // envs.num_envs)
    play = compile_evaluation(
        plan.algorithm, envs, seeds=None if seeds == 1 else seeds, explore=explore, interrupted=interrupted
    )
    round_keys = [jnp.stack([jax.random.fold_in(key, r) for key in keys]) for r in range(rounds)]

    def evaluate(state: PyTree) -> Evaluation:
        played = [play(state, each if seeds > 1 else each[0]) for each in round_keys]
        axis = int(seeds > 1)  # of episodes
        cut = (slice(None),) * axis + (slice(episodes),)
        return make_evaluation(plan, *(np.concatenate(part, axis)[cut] for part in zip(*played, strict=True)))

    return evaluate


def _host_evaluator(
    plan: Plan, envs: list[AbstractHostEnvs], keys: list[Array],
    *, episodes: int, explore: bool, interrupted: Callable[[], bool],
) -> Evaluator:  # fmt: skip
    """An evaluator that plays one seed after the other."""
    play = host_evaluation(plan.algorithm, episodes=episodes, explore=explore, interrupted=interrupted)

    def evaluate(state: PyTree) -> Evaluation:
        if len(keys) == 1:
            return make_evaluation(plan, *play(state, envs[0], keys[0]))
        played = [play(jax.tree.map(lambda x: x[i], state), envs[i], keys[i]) for i in range(len(keys))]  # noqa: B023
        return make_evaluation(plan, *map(np.stack, zip(*played, strict=True)))

    return evaluate


def make_evaluation(
    plan: Plan, returns: np.ndarray, lengths: np.ndarray, reported: np.ndarray, games: np.ndarray | None = None
) -> Evaluation:
    """The evaluation of returns `[*seeds, episodes]`. With several tasks, returns are `[*seeds, episodes, K]`, and the
    task whose policy played decides the score. Successes are as the environment `reported` them, and so are the returns
    of `games`, NaN where it did not. Raises `EnvError` for a return that is not finite."""
    tasks = plan.spec.tasks
    known = 0 if games is None else int((~np.isnan(games)).sum())
    returns = games if games is not None and known == games.size else returns
    if not np.isfinite(returns).all():
        raise EnvError(
            f"A test episode in {plan.spec.id} has a return that is not finite: the environment gave a NaN or infinite "
            "reward, or the policy has diverged. Correct the reward, or lower the learning rate."
        )
    successes = None if np.isnan(reported).all() else np.nan_to_num(reported)
    if not tasks:
        return Evaluation(returns, lengths, successes=successes, reported=known)
    each_task = {name: returns[..., i] for i, name in enumerate(tasks)}
    return Evaluation(returns[..., plan.test_task], lengths, each_task, tasks[plan.test_task], successes)
