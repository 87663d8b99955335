"""Tasks: several rewards in one environment (Riedmiller et al., 2018, §3).

A task is a plain function of one step, in `jax.numpy`. `Tasks` is a set of them, the main task last:

    def upright(obs, action, reward, next_obs, terminated, info):
        return 1.0 - jnp.abs(next_obs[4])

    tasks = Tasks(upright, landed)

The reward of a step becomes a vector `[K]`. Tasks read the true successor, before any reset.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from duologue.envs.base import AbstractHostEnvs, AbstractJaxEnvs
from duologue.envs.results import GAME_RETURN
from duologue.envs.spaces import array_type
from duologue.envs.task_rewards import (
    fast,
    goal,
    goal_distance,
    hover_angular,
    hover_planar,
    landed,
    left,
    right,
    touch,
    upright,
)
from duologue.errors import ConfigError, EnvError, suggestion
from duologue.types import Dict, EnvSpec, Obs, PyTree, Space, Step, bounded_actions

Task: TypeAlias = Callable[[Obs, Any, Any, Obs, Any, dict[str, Any]], Any]
"""`(obs, action, reward, next_obs, terminated, info) -> reward` for one step, `[]`. It is vmapped over environments."""


class Tasks:
    """Rewards with names, the main task last. `info` names the numbers of a step's `info` that the tasks read; a
    missing number is NaN. `name` is for ready sets. Raises `ConfigError` for a task that is no function, or that has no
    name of its own."""

    def __init__(self, *functions: Task, info: str | tuple[str, ...] = (), name: str = ""):
        if not functions:
            raise ConfigError("tasks: must be at least one function, the main task.")
        for function in functions:
            if not callable(function):
                raise ConfigError(
                    f"tasks: {function!r} is no function. Pass each function as a separate argument: Tasks(f, g)."
                )
        self.functions, self.name = functions, name
        self.info = (info,) if isinstance(info, str) else tuple(info)
        self.names = tuple(getattr(function, "__name__", type(function).__name__) for function in functions)
        for task in self.names:
            if not task.isidentifier():
                raise ConfigError(
                    f"tasks: a task has the name of its function, and {task!r} cannot be a name. Define the function "
                    "with `def`."
                )
            if self.names.count(task) > 1:
                raise ConfigError(f"tasks: two functions have the name {task!r}. Give each function its own name.")

    def __repr__(self) -> str:
        return f"Tasks({', '.join(self.names)})"

    @property
    def main(self) -> "Tasks":
        """The main task alone."""
        return Tasks(self.functions[-1], info=self.info)

    def attach(self, env: Any) -> "EnvWithTasks":
        """An environment (an id, a callable or an adapter) with these tasks, as `train(tasks=…)` makes it."""
        if isinstance(env, EnvWithTasks):
            raise ConfigError(f"tasks: the environment has tasks already, {env.tasks}. Pass one set.")
        return EnvWithTasks(env, self)

    def rewards(
        self, obs: Obs, action: Array, reward: Array, next_obs: Obs, terminated: Array, info: dict[str, Array]
    ) -> Float[Array, "B K"]:
        """rᵢ(s, a, s') `[B, K]` of every task."""

        def one(*step: Any) -> Float[Array, " K"]:
            return jnp.stack([jnp.asarray(task(*step), jnp.float32) for task in self.functions])

        return jax.vmap(one)(obs, action, reward, next_obs, terminated, info)

    def read(self, info: dict[str, Any]) -> dict[str, Any]:
        """The entries of `info` that the tasks read. Raises `ConfigError` if the environment does not give one."""
        missing = [name for name in self.info if name not in info]
        if missing:
            given = ", ".join(info) or "nothing"
            raise ConfigError(
                f"tasks: info = {missing[0]!r}: must be one of the numbers that this environment gives: {given}."
            )
        return {name: info[name] for name in self.info}

    def check(self, spec: EnvSpec) -> None:
        """Evaluate each task once on a step of zeros. Raises `ConfigError` if it fails, or returns no number."""
        obs, zero = zero_element(spec.observation), np.float32(0)
        for name, task in zip(self.names, self.functions, strict=True):
            step = obs, zero_element(spec.action), zero, obs, np.bool_(False), dict.fromkeys(self.info, zero)
            try:
                with np.errstate(all="ignore"):  # NumPy raises for an index that JAX would silently clamp
                    result = task(*step)
                number = np.shape(result) == () and np.asarray(result).dtype.kind in "fiub"
                if number:
                    jax.eval_shape(task, *step)  # as JAX evaluates it, without values
            except (jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError) as error:
                raise ConfigError(
                    f"task {name!r} needs the numbers of a step in Python, as `if`, float() and NumPy do, but JAX "
                    "compiles it. Write jnp.where(condition, a, b), and jax.numpy in place of numpy."
                ) from error
            except Exception as error:
                raise ConfigError(
                    f"task {name!r} cannot be evaluated in {spec.id}: {type(error).__name__}: {error}. "
                    + task_hint(error, spec, self.info)
                ) from error
            if not number:
                raise ConfigError(f"task {name!r} gives {result!r}: must be one number for one step, of shape ().")


def task_hint(error: Exception, spec: EnvSpec, info: tuple[str, ...]) -> str:
    """Remedy for the kind of error: what the task can read, or how it is called."""
    match error:
        case KeyError():
            return f"info has {', '.join(info) or 'nothing'}. Name what the task reads in Tasks(…, info=…)."
        case IndexError():
            return f"Observations are {describe_space(spec.observation)}, actions {describe_space(spec.action)}."
        case _:
            return "It is called as task(obs, action, reward, next_obs, terminated, info)."


def zero_element(space: Space) -> Any:
    """One element of a space: zeros."""
    if isinstance(space, Dict):
        return {name: zero_element(part) for name, part in space.spaces.items()}
    return np.zeros(*array_type(space))


def describe_space(space: Space) -> str:
    """Dtype and shape of a space, in words."""
    if isinstance(space, Dict):
        return "a dict of " + ", ".join(f"{name} {describe_space(part)}" for name, part in space.spaces.items())
    shape, dtype = array_type(space)
    return f"{dtype}{list(shape)}"


@dataclass(frozen=True)
class EnvWithTasks:
    """An environment with tasks. With `main_alone` only the main task gives a reward, `[B]` without the axis K."""

    env: Any
    tasks: Tasks
    main_alone: bool = False

    def wrap(self, envs: AbstractHostEnvs | AbstractJaxEnvs) -> AbstractHostEnvs | AbstractJaxEnvs:
        """Adapters `envs` of this environment, with the rewards of the tasks. Raises `ConfigError`."""
        self.tasks.check(envs.spec)
        tasks = self.tasks.main if self.main_alone else self.tasks
        spec = replace(envs.spec, tasks=() if self.main_alone else tasks.names)
        return TaskedJaxEnvs(envs, tasks, spec) if isinstance(envs, AbstractJaxEnvs) else TaskedEnvs(envs, tasks, spec)


def strip_tasks(env: Any) -> Any:
    """The environment without its tasks."""
    return env.env if isinstance(env, EnvWithTasks) else env


def select_rewards(rewards: Any, spec: EnvSpec) -> Any:
    """Rewards `[B, K]` unchanged if the spec has tasks; else the rewards of the only task, `[B]`."""
    return rewards if spec.tasks else rewards[:, 0]


class TaskedEnvs(AbstractHostEnvs):
    """Environments on the host with the rewards of tasks. One jitted call in each step computes the rewards."""

    def __init__(self, envs: AbstractHostEnvs, tasks: Tasks, spec: EnvSpec):
        self._envs, self._tasks = envs, tasks
        self.spec, self.num_envs, self.notes = spec, envs.num_envs, envs.notes
        self._rewards = jax.jit(tasks.rewards)

    def reset(self) -> Obs:
        self._obs = self._envs.reset()
        return self._obs

    def step(self, action: np.ndarray) -> Step:
        seen = self._envs.step(action)
        info = self._tasks.read(seen.info)
        done = bounded_actions(self.spec.action, action)  # the action that the environment made
        rewards = np.array(self._rewards(self._obs, done, seen.reward, seen.next_obs, seen.terminated, info))
        if "restarted" in seen.info:  # the step failed, and no task can say what it was worth
            rewards[seen.info["restarted"]] = 0
        if not np.isfinite(rewards).all():
            i, task = np.argwhere(~np.isfinite(rewards))[0]
            lacking = [name for name, values in info.items() if np.isnan(values[i])]
            hint = f" The step's info had no number {', '.join(map(repr, lacking))}." if lacking else ""
            raise EnvError(f"task {self._tasks.names[task]!r} gave {rewards[i, task]} in environment {i}.{hint}")
        self._obs = seen.obs
        seen.info.pop(GAME_RETURN, None)  # of the environment's own reward: returns here are those of the tasks
        return seen._replace(reward=select_rewards(rewards, self.spec))

    def snapshot(self) -> dict[str, np.ndarray]:
        return self._envs.snapshot()

    @property
    def restarts(self) -> Any:
        return self._envs.restarts

    def mark(self) -> None:
        self._envs.mark()

    def marked_snapshot(self) -> dict[str, np.ndarray]:
        return self._envs.marked_snapshot()

    def report_replay(self, report: Callable[[int, int], None]) -> None:
        self._envs.report_replay(report)

    def take_notes(self) -> list[str]:
        return self._envs.take_notes()

    def restore(self, snapshot: dict[str, np.ndarray]) -> tuple[Obs, str | None]:
        self._obs, message = self._envs.restore(snapshot)
        return self._obs, message

    def close(self) -> None:
        self._envs.close()

    def cut_episodes(self, which: Sequence[int]) -> Obs:
        self._obs = self._envs.cut_episodes(which)
        return self._obs

    def reset_notes(self) -> list[str]:
        return self._envs.reset_notes()


class TaskedJaxEnvs(AbstractJaxEnvs):
    """Environments written in JAX with the rewards of tasks."""

    spec: EnvSpec
    num_envs: int
    _envs: AbstractJaxEnvs
    _tasks: Tasks

    def __init__(self, envs: AbstractJaxEnvs, tasks: Tasks, spec: EnvSpec):
        self._envs, self._tasks, self.spec, self.num_envs = envs, tasks, spec, envs.num_envs

    def reset(self, key: Key[Array, ""]) -> tuple[PyTree, Obs]:
        env_state, obs = self._envs.reset(key)
        return (env_state, obs), obs

    def step(self, env_state: PyTree, action: Array, *, key: Key[Array, ""]) -> tuple[PyTree, Step]:
        inner, obs = env_state
        inner, seen = self._envs.step(inner, action, key=key)
        info = self._tasks.read(seen.info)
        done = bounded_actions(self.spec.action, action)  # the action that the environment made
        rewards = self._tasks.rewards(obs, done, seen.reward, seen.next_obs, seen.terminated, info)
        return (inner, seen.obs), seen._replace(reward=select_rewards(rewards, self.spec))


# Ready sets


lunar_lander = Tasks(touch, hover_planar, hover_angular, upright, goal_distance, landed, name="lunar-lander")
"""Tasks of `LunarLander-v3`, discrete or continuous. Main task: a landing."""
mountain_car = Tasks(fast, left, right, goal, name="mountain-car")
"""Tasks of `MountainCarContinuous-v0`, Gymnasium's and gymnax's. Main task: the flag."""

READY_TASKS = {tasks.name: tasks for tasks in (lunar_lander, mountain_car)}
"""The sets with a name on the command line and in files."""


def ready_tasks(name: str) -> Tasks:
    """The set with this name. Raises `ConfigError` for an unknown one."""
    if name not in READY_TASKS:
        raise ConfigError(
            f"There are no tasks {name!r}. {suggestion(name, READY_TASKS)} In Python, pass your own with tasks=."
        )
    return READY_TASKS[name]


def is_ready(tasks: Tasks) -> bool:
    """Whether `tasks` is a ready set, so that its name identifies it."""
    return READY_TASKS.get(tasks.name) is tasks


def task_index(spec: EnvSpec, task: str) -> int:
    """Index of a task in the rewards of `spec`. Raises `ConfigError` for an unknown one."""
    if task not in spec.tasks:
        known = suggestion(str(task), spec.tasks) if spec.tasks else "It learned one reward."
        raise ConfigError(f"task = {task!r}: this run has no such task. {known}")
    return spec.tasks.index(task)
