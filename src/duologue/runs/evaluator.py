"""Play the test episodes of a run: their number, their environments, their limit of steps."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from duologue.envs.make import AbstractJaxEnvs, find_adapter
from duologue.envs.tasks import task_index
from duologue.errors import ConfigError, EnvError
from duologue.fields import Count, check_fields
from duologue.loops.evaluate import LONGEST_EPISODE, Scores, compile_evaluation, host_evaluation
from duologue.loops.keys import key_for, run_key
from duologue.runs.display.screen import print_warning
from duologue.runs.environments import Envs, EnvSource, close_envs, env_notes, is_in_jax, open_envs
from duologue.runs.evaluation import Evaluation, make_evaluation
from duologue.runs.horizon import replace_field
from duologue.runs.plan import Plan
from duologue.types import EnvSpec, PyTree

MAX_HOST_ENVS, MAX_JAX_ENVS = 16, 1024
"""Largest number of environments that play test episodes together: Gymnasium's, and those written in JAX."""
NOTE_EVERY = 10.0
"""Seconds between two notes on the progress of an evaluation."""


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions:
    """How test episodes are played. Raises `ConfigError` for a value out of range."""

    episodes: Count
    explore: bool = False
    """Act with the policy of training instead of the test policy."""
    num_envs: Count | None = None
    """Largest number of environments that are open at once. `None`: the plan's `evaluate_num_envs`, else 16 of
    Gymnasium or 1,024 in JAX."""
    max_episode_steps: Count | None = None
    """Steps after which an episode is cut. `None`: the time limit of training or of the environment, and 100,000 steps
    at the latest."""

    def __post_init__(self):
        check_fields(self)


Evaluator = Callable[[PyTree], Evaluation]
"""A function from the algorithm's state to its score."""


@contextmanager
def open_evaluator(
    plan: Plan, source: EnvSource | None, options: EvaluationOptions, *, seeds: list[int], purpose: str,
    fewer: str = "Pass num_envs=1, on the command line --num-envs 1, if only one can be open.",
    interrupted: Callable[[], bool] = lambda: False, note: Callable[[str], object] = print_warning,
) -> Iterator[Evaluator]:  # fmt: skip
    """A context with a function from the algorithm's state to its score. The context makes its own environments, and
    episodes start in the same way in every evaluation.

    Keys and seeds depend on `purpose`. So an evaluation never changes the training, or evaluations with another
    purpose. With several `seeds` the state has a leading axis S. At its end the context closes the environments, except
    an adapter of the user. The function raises `Interrupted` once `interrupted()` is true. `note` receives the remarks
    on the environments and on the progress. `fewer` is the remedy if not enough environments can be open at once.
    """
    keys = [key_for(run_key(seed), purpose) for seed in seeds]
    num_envs = count_test_envs(plan, source, options)
    limit = options.max_episode_steps or max(LONGEST_EPISODE, plan.max_episode_steps or 0)
    limited = plan if options.max_episode_steps is None else set_time_limit(plan, source, options.max_episode_steps)
    one_by_one = bool(options.num_envs or plan.evaluate_num_envs)  # one seed after the other, to open no more
    together = num_envs if one_by_one else num_envs * len(seeds)

    @contextmanager
    def open_one(seed: int) -> Iterator[Envs]:
        try:
            envs = open_envs(limited, source, purpose=purpose, num_envs=num_envs, seed=seed)
        except EnvError as error:
            count = f"{together} environment{'s' if together > 1 else ''} at once"
            raise EnvError(f"{str(error).rstrip('.')}. An evaluation opens {count}. {fewer}") from error
        try:
            yield envs
        finally:
            close_envs(envs, source)

    with ExitStack() as opened:
        first = opened.enter_context(open_one(seeds[0]))
        for text in (*env_notes(first), *limit_notes(first.spec, options.max_episode_steps, limit)):
            note(text)
        progress = ProgressNotes(options.episodes * len(seeds), note)
        how: dict[str, Any] = {"limit": limit, "explore": options.explore, "interrupted": interrupted}
        if isinstance(first, AbstractJaxEnvs):
            yield compiled_evaluator(plan, first, keys, options.episodes, progress, **how)
        elif len(seeds) > 1 and one_by_one:
            opened.close()
            yield host_evaluator(plan, lambda: map(open_one, seeds), keys, options.episodes, progress, **how)
        else:
            envs = [first, *(opened.enter_context(open_one(seed)) for seed in seeds[1:])]
            yield host_evaluator(plan, lambda: map(nullcontext, envs), keys, options.episodes, progress, **how)


def choose_task(plan: Plan, task: str | None, explore: bool) -> Plan:
    """The plan of a run whose test policy is that of `task`; unchanged for `None`. Raises `ConfigError` for an unknown
    task, and for a task together with `explore`."""
    if task is None:
        return plan
    if explore:
        raise ConfigError(
            f"task = {task!r}: with explore, the scheduler chooses the task, as in training. Leave out one of the two "
            "options."
        )
    return replace(plan, algorithm=replace_field(plan.algorithm, test_task=task_index(plan.spec, task)))


def set_time_limit(plan: Plan, source: EnvSource | None, steps: int) -> Plan:
    """The plan whose environments end their episodes after this number of steps. An adapter keeps its own limit."""
    return replace(plan, max_episode_steps=steps if find_adapter(source) is None else None)


def count_test_envs(plan: Plan, source: EnvSource | None, options: EvaluationOptions) -> int:
    """Number of environments that play test episodes together: at most one for each episode, and at most the chosen
    number. An adapter has its own number. Raises `ConfigError` for another one."""
    if (adapter := find_adapter(source)) is not None:
        if options.num_envs not in (None, adapter.num_envs):
            raise ConfigError(
                f"num_envs = {options.num_envs}: the adapter has {adapter.num_envs} environments. Leave it out."
            )
        return adapter.num_envs
    most = MAX_JAX_ENVS if is_in_jax(plan, source) else MAX_HOST_ENVS
    return min(options.episodes, options.num_envs or plan.evaluate_num_envs or most)


def limit_notes(spec: EnvSpec, given: int | None, limit: int) -> list[str]:
    """A remark where test episodes may be longer than `limit` steps, and nobody has `given` this limit. Raises
    `ConfigError` for a given limit that the environment does not reach."""
    own = spec.max_episode_steps
    if given is not None and own is not None and own < given:
        raise ConfigError(
            f"max_episode_steps = {given}: must be at most {own}, where {spec.id} ends its episodes. Set a longer "
            "limit where you make the environment."
        )
    if given is not None or (own is not None and own <= limit):
        return []
    known = "no time limit is known" if own is None else f"the time limit is {own:,} steps"
    return [
        f"{spec.id}: {known}. An evaluation cuts an episode after {limit:,} steps. Choose the limit with "
        "max_episode_steps=…, on the command line --max-episode-steps, or set one in the environment."
    ]


class ProgressNotes:
    """Says every `NOTE_EVERY` seconds how far an evaluation is."""

    def __init__(self, episodes: int, note: Callable[[str], object]):
        self.episodes, self._note = episodes, note
        self.begin()

    def begin(self) -> None:
        """Begin an evaluation."""
        self.steps, self.ends, self._last = 0, 0, time.monotonic()

    def __call__(self, steps: int, ends: int) -> None:
        """Add steps, and episodes that ended in them."""
        self.steps, self.ends = self.steps + steps, self.ends + ends
        if time.monotonic() - self._last >= NOTE_EVERY:
            self._last = time.monotonic()
            ended = min(self.ends, self.episodes)  # the last round in JAX plays more
            self._note(f"evaluation: {ended:,} of {self.episodes:,} episodes have ended after {self.steps:,} steps")


def compiled_evaluator(
    plan: Plan, envs: AbstractJaxEnvs, keys: list[Array], episodes: int, progress: ProgressNotes, **how: Any
) -> Evaluator:
    """An evaluator that plays all seeds in one program. `how` holds further arguments of `compile_evaluation`."""
    seeds, rounds = len(keys), -(-episodes // envs.num_envs)
    play = compile_evaluation(plan.algorithm, envs, seeds=None if seeds == 1 else seeds, progress=progress, **how)
    round_keys = [jnp.stack([jax.random.fold_in(key, r) for key in keys]) for r in range(rounds)]

    def evaluate(state: PyTree) -> Evaluation:
        progress.begin()
        played = [play(state, each if seeds > 1 else each[0]) for each in round_keys]
        axis = int(seeds > 1)  # of episodes
        first = (slice(None),) * axis + (slice(episodes),)
        return make_evaluation(plan, Scores(*(np.concatenate(part, axis)[first] for part in zip(*played, strict=True))))

    return evaluate


def host_evaluator(
    plan: Plan, each_seed: Callable[[], Iterable[AbstractContextManager[Any]]], keys: list[Array], episodes: int,
    progress: ProgressNotes, **how: Any,
) -> Evaluator:  # fmt: skip
    """An evaluator that plays one seed after the other. `each_seed()` gives the environments of each seed, as contexts.
    `how` holds further arguments of `host_evaluation`."""
    play = host_evaluation(plan.algorithm, episodes=episodes, progress=progress, **how)

    def evaluate(state: PyTree) -> Evaluation:
        progress.begin()
        states = [state] if len(keys) == 1 else [jax.tree.map(lambda x: x[i], state) for i in range(len(keys))]  # noqa: B023
        played: list[Scores] = []
        for one, opening, key in zip(states, each_seed(), keys, strict=True):
            with opening as envs:
                played.append(play(one, envs, key))
        return make_evaluation(plan, played[0] if len(keys) == 1 else Scores(*map(np.stack, zip(*played, strict=True))))

    return evaluate
