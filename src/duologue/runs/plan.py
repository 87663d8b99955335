"""A run as a record: the arguments of `train` with every default filled in, as config.json holds them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from duologue.algorithms.base import AbstractAlgorithm, unwrapped
from duologue.errors import CheckpointError, ConfigError
from duologue.fields import Count, Decay, NonNegativeInt
from duologue.runs import config
from duologue.runs.options import RunOptions
from duologue.storage import files
from duologue.types import EnvSpec


@dataclass(frozen=True, kw_only=True)
class Plan(RunOptions):
    """One run, or `seeds` runs in one program, with every default filled in."""

    algorithm: AbstractAlgorithm
    env: str
    """Id of the environment; in angle brackets the name of a Python object; empty in a run that has only data."""
    spec: EnvSpec
    evaluate_env: str | None = None
    """Environment of evaluations, as `env`. `None`: the environment of training."""
    num_envs: Count = 1
    save_every: Count = 1
    log_every: Count = 1
    dataset: str | None = None
    """Recorded data to learn from: instead of environments, or together with them (`offline_fraction`)."""
    digest: str = ""
    """SHA-256 of these data."""
    offline_fraction: Decay | None = None
    """Share of each batch that comes from the data, in a run that also learns in environments."""
    tasks: str | None = None
    """Name of the ready set of tasks; in angle brackets the tasks of the user's own set."""
    learned: NonNegativeInt = 0
    """Gradient steps made on the data before fine-tuning began; schedules have counted them."""

    @property
    def offline(self) -> bool:
        """Whether the run learns from recorded data alone."""
        return self.dataset is not None and self.offline_fraction is None

    @property
    def unit(self) -> int:
        """Steps that users see for one step of a loop's state: environment steps, or gradient steps on data."""
        return self.algorithm.experience.gradient_steps if self.offline else self.num_envs

    @property
    def name(self) -> str:
        """Class of the algorithm, without its wrapper."""
        return type(unwrapped(self.algorithm)).__name__

    @property
    def per_rollout(self) -> int:
        """Environment steps of a rollout."""
        return self.num_envs * self.algorithm.experience.rollout_length

    @property
    def rollouts(self) -> int:
        """Number of rollouts of a run in environments."""
        return -(-self.steps // self.per_rollout)

    @property
    def test_task(self) -> int:
        """Index of the task whose policy plays evaluations, among the rewards."""
        return getattr(unwrapped(self.algorithm), "test_task", -1)

    @property
    def seed_numbers(self) -> list[int]:
        """The seed of each agent."""
        return list(range(self.seed, self.seed + self.seeds))


def read_plan(path: Path, algorithm: type | Sequence[type] = ()) -> Plan:
    """The plan in a run folder. `algorithm` holds classes of the user's own that the plan names. Raises
    `CheckpointError` if there is no plan."""
    if not (path / "config.json").is_file():
        raise CheckpointError(f"{path} is not the folder of a run: it has no config.json.")
    classes: tuple[Any, ...] = tuple(algorithm) if isinstance(algorithm, tuple | list) else (algorithm,)
    if wrong := [each for each in classes if not isinstance(each, type)]:
        raise ConfigError(f"algorithm = {wrong[0]!r}: must be the class of your algorithm, or several in a list.")
    content = files.read_json(path / "config.json")
    plan = config.from_dict(content, extra=(Plan, *classes)) if isinstance(content, dict) else None
    if not isinstance(plan, Plan):
        raise CheckpointError(f"{path / 'config.json'} does not describe a run.")
    return plan
