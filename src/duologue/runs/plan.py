"""What a run is: the arguments of `train` with every default filled in, checked, and written to config.json."""

import dataclasses
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import jax

from duologue.algorithms.base import AbstractAlgorithm, AnyAlgorithm, unwrapped
from duologue.data.dataset import TimeoutAndTerminal
from duologue.envs.gymnasium import name_of
from duologue.envs.make import AbstractHostEnvs, AbstractJaxEnvs, Source, is_compiled, make_seeds
from duologue.envs.spaces import stack_depths
from duologue.envs.tasks import READY_TASKS, EnvWithTasks, strip_tasks, task_index
from duologue.errors import CheckpointError, ConfigError
from duologue.fields import Decay, Range, mismatch
from duologue.runs import config
from duologue.runs.horizon import with_field
from duologue.storage import files
from duologue.types import Box, Dict, EnvSpec, Space

Envs = AbstractHostEnvs | AbstractJaxEnvs
EnvSource = Source
MOST = 2**31 - 1
"""Of steps, seeds and every other count of a run."""


@dataclass(frozen=True)
class Plan:
    """One run, or `seeds` runs in one program. All counts of steps are environment steps of one seed; where there are
    only data to learn from, gradient steps."""

    algorithm: AbstractAlgorithm
    env: str
    spec: EnvSpec
    steps: int
    seed: int = 0
    seeds: int = 1
    num_envs: int = 1
    asynchronous: bool = False
    max_episode_steps: int | None = None
    evaluate_every: int | None = None
    evaluate_episodes: int = 10
    save_every: int = 1
    log_every: int = 1
    dataset: str | None = None
    """Recorded data to learn from: in place of environments, or beside them (`offline_fraction`)."""
    digest: str = ""
    """Of these data, by which they are known again."""
    timeout_and_terminal: TimeoutAndTerminal = "timeout"
    window: int | None = None
    """Rows of the data on the device at a time; `None` for all."""
    offline_fraction: Decay | None = None
    """Of each batch of a run in environments, the share that comes from the data."""
    tasks: str | None = None
    """The ready set of tasks that the rewards are of; in angle brackets, one of the user's."""
    learned: int = 0
    """Gradient steps that were made on the data before: what a fine-tuned agent's schedules have counted already."""

    def __post_init__(self):
        numbers = (
            "steps", "seed", "seeds", "num_envs", "max_episode_steps", "evaluate_every", "evaluate_episodes",
            "save_every", "log_every", "window", "learned",
        )  # fmt: skip
        check_arguments(**{name: getattr(self, name) for name in numbers})

    @property
    def offline(self) -> bool:
        """Whether there are only data to learn from."""
        return self.dataset is not None and self.offline_fraction is None

    @property
    def unit(self) -> int:
        """Steps that users see in one step of a loop's state: environment steps, or gradient steps on data."""
        return self.algorithm.experience.gradient_steps if self.offline else self.num_envs

    @property
    def name(self) -> str:
        """The algorithm's class, without the wrapper."""
        return type(unwrapped(self.algorithm)).__name__

    def compiled(self, source: EnvSource | None) -> bool:
        """Whether the environments are written in JAX."""
        return is_compiled(self.env if source is None else source)

    def envs(
        self, source: EnvSource | None, *, purpose: str, num_envs: int | None = None, seed: int | None = None
    ) -> Envs:
        """Environments for one purpose. `source` is needed where the run was not made from an id. Raises `ConfigError`,
        with nothing left open."""
        self.check_source(source)
        envs = self.made(source, purpose=purpose, num_envs=num_envs, seed=seed)
        with closed_on_failure(envs, source):
            self.check_spec(envs.spec)
            if purpose == "train" and isinstance(envs, AbstractHostEnvs):
                envs.spec = self.stacking(envs.spec)
        return envs

    def source(self, source: EnvSource | None) -> EnvSource:
        """What environments are made from, with the rewards that the algorithm reads."""
        env = self.env if source is None else source
        if self.tasks in READY_TASKS and not isinstance(env, EnvWithTasks):
            env = READY_TASKS[self.tasks].attach(env)
        return rewarded(env, self.algorithm)

    @property
    def played(self) -> int:
        """Where the task that tests play stands among the rewards."""
        return getattr(unwrapped(self.algorithm), "test_task", -1)

    def check_source(self, source: EnvSource | None) -> None:
        """Raise `ConfigError` where there is nothing to make environments from."""
        if source is None and not self.env:
            raise ConfigError("This run was made from data alone. Give an environment to play in: env=..., or --env.")
        module, named, _ = self.env.partition(":")
        if source is None and named and module not in sys.modules:
            raise ConfigError(
                f"The environment of this run, {self.env}, would import the module {module} because a file says so. If "
                f"you trust it, say it yourself: --env {self.env}, in Python env={self.env!r}."
            )
        tasked = isinstance(source, EnvWithTasks)
        if (source is None and self.env.startswith("<")) or (self.tasks not in (None, *READY_TASKS) and not tasked):
            if self.tasks in (None, *READY_TASKS):
                raise ConfigError(
                    f"The environment of this run was a Python object, {self.env}. Pass it again: "
                    "duologue.load(path, env=...), or run.evaluate(env=...)."
                )
            raise ConfigError(
                f"The tasks of this run were a Python object, {self.tasks}, which the command line cannot make again. "
                f"In Python, pass them: duologue.load(path, env=tasks.attach({self.env!r})), or run.evaluate(env=...)."
            )

    @property
    def per_rollout(self) -> int:
        """Environment steps of a rollout."""
        return self.num_envs * self.algorithm.experience.rollout_length

    @property
    def rollouts(self) -> int:
        """How many there are in a run in environments."""
        return -(-self.steps // self.per_rollout)

    def same_spaces(self, spec: EnvSpec) -> bool:
        """Whether an environment has the spaces that the run was made with."""
        return (form(spec.observation), spec.action) == (form(self.spec.observation), self.spec.action)

    def check_spec(self, spec: EnvSpec) -> None:
        """Raise `ConfigError` for an environment of other spaces than the run was made with."""
        if not self.same_spaces(spec):
            raise ConfigError(f"The environment is not the one this run was made with. Now: {spec}. Then: {self.spec}.")
        if spec.tasks != self.spec.tasks:
            raise ConfigError(f"tasks: this run has {', '.join(self.spec.tasks)}, not {', '.join(spec.tasks)}.")

    def stacking(self, spec: EnvSpec) -> EnvSpec:
        """`spec` with stacks of frames as the run's replay has them: whole in one that was begun before they were known
        to be stacks. Raises `ConfigError` where frames are not stacked any more."""
        now, then = (jax.tree.leaves(stack_depths(each.observation)) for each in (spec, self.spec))
        if any(frames < kept for frames, kept in zip(now, then, strict=True)):
            raise ConfigError(
                "The replay of this run holds each frame of a stack once, and the environment is not known to stack "
                f"them. Put FrameStackObservation outermost, as then. Now: {spec}. Then: {self.spec}."
            )
        return spec if now == then else dataclasses.replace(spec, observation=self.spec.observation)

    def made(
        self, source: EnvSource | None, *, purpose: str, num_envs: int | None = None, seed: int | None = None
    ) -> Envs:
        """Environments as `envs` has them, without a look at their spec."""
        training = purpose == "train"
        return make_seeds(
            self.source(source),
            self.num_envs if num_envs is None else num_envs,
            seed=self.seed if seed is None else seed,
            seeds=self.seeds if training else 1,
            purpose=purpose,
            max_episode_steps=self.max_episode_steps,
            asynchronous=self.asynchronous and training,
        )


def rewarded(env: EnvSource, algorithm: AnyAlgorithm) -> EnvSource:
    """`env` with the rewards that the algorithm reads: all of its tasks', or the main one's alone. Raises `ConfigError`
    for an algorithm of tasks without any."""
    if isinstance(env, EnvWithTasks):
        return dataclasses.replace(env, main_alone=not algorithm.experience.tasks)
    if algorithm.experience.tasks:
        raise ConfigError(
            f"tasks: {type(algorithm).__name__} learns several tasks. Give them, tasks=duologue.tasks.lunar_lander "
            f"say, or on the command line --tasks; there are {', '.join(READY_TASKS)}."
        )
    return env


def close(envs: Any, source: EnvSource | None) -> None:
    """Close environments, or data, but for an adapter, which is the user's to close."""
    if not isinstance(strip_tasks(source), AbstractHostEnvs):
        envs.close()


@contextmanager
def closed_on_failure(envs: Any, source: EnvSource | None) -> Iterator[None]:
    """`close` them where what is inside raises."""
    try:
        yield
    except BaseException:
        close(envs, source)
        raise


def in_words(nbytes: int) -> str:
    return f"{nbytes / 2**30:,.1f} GiB" if nbytes >= 2**30 else f"{nbytes / 2**20:,.1f} MiB"


def check_arguments(**arguments: Any) -> None:
    """Ranges of `train`'s own arguments. Raises `ConfigError` for the first that does not fit."""
    lowest = {"seed": 0, "learned": 0, **dict.fromkeys(("steps", "seeds", "num_envs", "evaluate_episodes"), 1)}
    optional = {"evaluate_every", "save_every", "log_every", "max_episode_steps", "num_envs", "window"}
    for name, value in arguments.items():
        if value is None and name in optional:
            continue
        low = Range(lowest.get(name, 1), MOST)
        if mismatch(value, Annotated[int, low]):
            raise ConfigError(f"{name} = {value!r}: must be an integer {low}.")


def form(space: Space) -> Any:
    """A space without the bounds of its boxes, which no algorithm reads of an observation."""
    match space:
        case Dict(spaces):
            return {name: form(part) for name, part in spaces.items()}
        case Box(shape, dtype):
            return shape, dtype
        case _:
            return space


def with_task(plan: Plan, task: str) -> Plan:
    """The plan of a run whose tests play this task's intention. Raises `ConfigError`."""
    return dataclasses.replace(plan, algorithm=with_field(plan.algorithm, test_task=task_index(plan.spec, task)))


def describe(source: EnvSource) -> str:
    """An id as it is; anything else by its name in angle brackets, which cannot be made again from a file."""
    return name_of(strip_tasks(source))


def read_plan(path: Path, algorithm: type | Sequence[type] = ()) -> Plan:
    """What a run folder says it is. Raises `CheckpointError` where it says nothing."""
    if not (path / "config.json").is_file():
        raise CheckpointError(f"{path} is not the folder of a run: it has no config.json.")
    classes: tuple[Any, ...] = tuple(algorithm) if isinstance(algorithm, tuple | list) else (algorithm,)
    if wrong := [each for each in classes if not isinstance(each, type)]:
        raise ConfigError(f"algorithm = {wrong[0]!r}: must be the class of your algorithm, or several in a list.")
    extra = (Plan, *classes)
    content = files.read_json(path / "config.json")
    plan = config.from_dict(content, extra=extra) if isinstance(content, dict) else None
    if not isinstance(plan, Plan):
        raise CheckpointError(f"{path / 'config.json'} does not describe a run.")
    return plan
