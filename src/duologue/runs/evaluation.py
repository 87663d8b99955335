"""The score of an agent on test episodes, with its interval."""

from dataclasses import dataclass, field

import numpy as np

from duologue.errors import EnvError
from duologue.loops.evaluate import Scores
from duologue.ops.statistics import bootstrap_interval, iqm
from duologue.runs.plan import Plan


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
    was_cut: np.ndarray | None = None
    """Whether the evaluation cut each episode at its limit of steps. `None` means that no episode was cut."""

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
    def cut(self) -> int:
        """Number of episodes that the evaluation cut. The return of such an episode is the sum of its rewards up to
        there."""
        return 0 if self.was_cut is None else int(self.was_cut.sum())

    @property
    def cut_note(self) -> str:
        """The number of cut episodes in words; empty if there are none."""
        if self.was_cut is None or not self.cut:
            return ""
        return f"{self.cut:,} of {self.was_cut.size:,} episodes cut after {self.lengths[self.was_cut].max():,} steps"

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
            f"{self.report_note and f'; {self.report_note}'}{self.cut_note and f', {self.cut_note}'})"
            f"{each_task and f'; under each task: {each_task}'}"
        )


def make_evaluation(plan: Plan, scores: Scores) -> Evaluation:
    """The evaluation of test episodes `[*seeds, episodes]`. The returns are those that the environment reports, if it
    reports one for each episode. With several tasks they are `[*seeds, episodes, K]`, of the tasks' own rewards, and
    the task whose policy played decides the score. Raises `EnvError` for a return that is not finite."""
    tasks, known = plan.spec.tasks, int((~np.isnan(scores.games)).sum())
    returns = scores.games if known == scores.games.size and not tasks else scores.returns
    if not np.isfinite(returns).all():
        raise EnvError(
            f"A test episode in {plan.spec.id} has a return that is not finite: the environment gave a NaN or infinite "
            "reward, or the policy has diverged. Correct the reward, or lower the learning rate."
        )
    successes = None if np.isnan(scores.successes).all() else np.nan_to_num(scores.successes)
    facts = {"successes": successes, "was_cut": scores.cut}
    if not tasks:
        return Evaluation(returns, scores.lengths, reported=known, **facts)
    each_task = {name: returns[..., i] for i, name in enumerate(tasks)}
    return Evaluation(returns[..., plan.test_task], scores.lengths, each_task, tasks[plan.test_task], **facts)
