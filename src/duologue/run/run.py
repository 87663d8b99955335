"""A trained agent and its folder: evaluate it, act with it, go on with it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import jax
import numpy as np

from duologue.algorithms.base import AnyAlgorithm
from duologue.errors import ConfigError
from duologue.loops.state import key_for, run_key
from duologue.run.evaluation import Evaluation, evaluator
from duologue.run.plan import EnvSource, Plan
from duologue.types import Box, Dict, Discrete, Obs, PyTree, Space


@dataclass(frozen=True)
class Run:
    """One trained agent. Its folder holds everything: configuration, metrics, checkpoints."""

    path: Path
    plan: Plan
    seed: int
    step: int
    """Environment steps it has learned from."""
    state: PyTree
    """The algorithm's state."""
    env: EnvSource | None = None
    """The Python object its environments come from, where that is not an id."""

    @property
    def algorithm(self) -> AnyAlgorithm:
        return self.plan.algorithm

    def evaluate(self, *, episodes: int = 20, env: EnvSource | None = None) -> Evaluation:
        """Play `episodes` episodes with the test policy, in environments of their own."""
        source = self.env if env is None else env
        return evaluator(self.plan, source, seeds=[self.seed], episodes=episodes, purpose="evaluate")(self.state)

    def policy(self, obs: Obs) -> np.ndarray:
        """Actions for NumPy observations, one or a batch, in the environment's own units: ready for `env.step`.

        The test policy; where that samples, it draws anew from the same key at every call. Raises `ConfigError` for
        observations of another shape.
        """
        spec = self.plan.spec
        single = not has_batch_axis(spec.observation, obs)
        batch = jax.tree.map(lambda x: np.asarray(x)[None], obs) if single else jax.tree.map(np.asarray, obs)
        batch = in_dtype(spec.observation, batch)
        size = len(jax.tree.leaves(batch)[0])
        key = key_for(run_key(self.seed), "policy")
        action = np.asarray(_act(self.algorithm)(self.state, self.algorithm.initial_carry(size), batch, key))
        match spec.action:
            case Discrete(start=start):
                action = action + start
            case Box(low=low, high=high) if low is not None and high is not None:
                action = np.clip(action, np.float32(low), np.float32(high))
            case _:
                pass
        return action[0] if single else action

    def resume(self, *, steps: int | None = None, **options: Any) -> "Run | Runs":
        """Go on to `steps` environment steps, from the newest good checkpoint; to the planned end by default.

        Takes `callbacks`, `loggers` and `console` as `train` does.
        """
        from duologue.run.train import resume

        return resume(self.path, steps=steps, env=self.env, **options)


@dataclass(frozen=True)
class Runs(Sequence[Run]):
    """Several seeds trained side by side: `runs[i]` is the agent of `seed + i`."""

    path: Path
    plan: Plan
    step: int
    state: PyTree
    """The algorithm's states; every leaf leads with the seeds axis."""
    env: EnvSource | None = None

    @property
    def seeds(self) -> list[int]:
        return list(range(self.plan.seed, self.plan.seed + self.plan.seeds))

    def __len__(self) -> int:
        return self.plan.seeds

    def __getitem__(self, index: int) -> Run:
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        one = jax.tree.map(lambda x: x[index], self.state)
        return Run(self.path, self.plan, self.seeds[index], self.step, one, self.env)

    def evaluate(self, *, episodes: int = 20, env: EnvSource | None = None) -> Evaluation:
        """Play `episodes` episodes with each seed's test policy; the interval is over seeds."""
        source = self.env if env is None else env
        return evaluator(self.plan, source, seeds=self.seeds, episodes=episodes, purpose="evaluate")(self.state)

    resume = Run.resume
