"""Tasks: several rewards for what an agent sees and does in one environment (Riedmiller et al., 2018, §3).

A task is a plain function of one step, in `jax.numpy`; a set of them is `Tasks`, the main task last:

    def upright(obs, action, reward, next_obs, terminated, info):
        return 1.0 - jnp.abs(next_obs[4])

    tasks = Tasks(upright, landed)

The reward of a step becomes a vector `[K]`, evaluated on the true successor, before any reset.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from duologue.envs.base import AbstractHostEnvs, AbstractJaxEnvs
from duologue.envs.spaces import array_type
from duologue.errors import ConfigError, EnvError, suggestion
from duologue.types import Dict, EnvSpec, Obs, PyTree, Space, Step, clip_to_bounds

Task: TypeAlias = Callable[[Obs, Any, Any, Obs, Any, dict[str, Any]], Any]
"""`(obs, action, reward, next_obs, terminated, info) -> reward` of one step, `[]`; vmapped over environments."""


class Tasks:
    """Named rewards, the main task last. `info` names the numeric entries of the environment's `info` that they read,
    NaN where a step has none; `name` is that of a ready set. Raises `ConfigError` for a name that cannot be one."""

    def __init__(self, *functions: Task, info: str | tuple[str, ...] = (), name: str = ""):
        if not functions:
            raise ConfigError("tasks: there must be one at least, the main task.")
        for function in functions:
            if not callable(function):
                raise ConfigError(
                    f"tasks: {function!r} is no function. Give functions, one after the other: Tasks(f, g)."
                )
        self.functions, self.name = functions, name
        self.info = (info,) if isinstance(info, str) else tuple(info)
        self.names = tuple(getattr(function, "__name__", type(function).__name__) for function in functions)
        for task in self.names:
            if not task.isidentifier():
                raise ConfigError(f"tasks: {task!r} is no name to call a task by. Write the function with `def`.")
            if self.names.count(task) > 1:
                raise ConfigError(f"tasks: {task!r} stands twice. Give each function a name of its own.")

    def __repr__(self) -> str:
        return f"Tasks({', '.join(self.names)})"

    @property
    def main(self) -> "Tasks":
        """The main task alone."""
        return Tasks(self.functions[-1], info=self.info)

    def attach(self, env: Any) -> "EnvWithTasks":
        """These tasks in an environment: an id, a callable or an adapter. What `train(tasks=…)` makes of its own."""
        if isinstance(env, EnvWithTasks):
            raise ConfigError(f"tasks: the environment has tasks already, {env.tasks}. Give one set.")
        return EnvWithTasks(env, self)

    def rewards(
        self, obs: Obs, action: Array, reward: Array, next_obs: Obs, terminated: Array, info: dict[str, Array]
    ) -> Float[Array, "B K"]:
        """rᵢ(s, a, s') of every task, for `B` environments."""

        def one(*step: Any) -> Float[Array, " K"]:
            return jnp.stack([jnp.asarray(task(*step), jnp.float32) for task in self.functions])

        return jax.vmap(one)(obs, action, reward, next_obs, terminated, info)

    def read(self, info: dict[str, Any]) -> dict[str, Any]:
        """The entries of `info` that are read. Raises `ConfigError` where an environment does not give one."""
        missing = [name for name in self.info if name not in info]
        if missing:
            given = ", ".join(info) or "nothing"
            raise ConfigError(f"tasks: info = {missing[0]!r} is not given by this environment; it gives {given}.")
        return {name: info[name] for name in self.info}

    def check(self, spec: EnvSpec) -> None:
        """Evaluate each task once on a step of zeros. Raises `ConfigError` for one that cannot be, or that gives
        anything but a number."""
        obs, zero = zero_element(spec.observation), np.float32(0)
        for name, task in zip(self.names, self.functions, strict=True):
            step = obs, zero_element(spec.action), zero, obs, np.bool_(False), dict.fromkeys(self.info, zero)
            try:
                with np.errstate(all="ignore"):  # on NumPy's arrays, which refuse an index that JAX quietly clamps
                    answer = task(*step)
                number = np.shape(answer) == () and np.asarray(answer).dtype.kind in "fiub"
                if number:
                    jax.eval_shape(task, *step)  # and as JAX will, without any values
            except (jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError) as error:
                raise ConfigError(
                    f"task {name!r} needs the numbers of a step in Python, as `if`, float() and NumPy do. It is "
                    "compiled: write jnp.where(condition, a, b), and jax.numpy for numpy."
                ) from error
            except Exception as error:
                raise ConfigError(
                    f"task {name!r} cannot be evaluated in {spec.id}: {type(error).__name__}: {error}. "
                    + task_hint(error, spec, self.info)
                ) from error
            if not number:
                raise ConfigError(f"task {name!r} gives {answer!r}: must be one number for one step, of shape ().")


def task_hint(error: Exception, spec: EnvSpec, info: tuple[str, ...]) -> str:
    """What a task can read, as far as the error asks for it."""
    match error:
        case KeyError():
            return f"info has {', '.join(info) or 'nothing'}; name what is read in Tasks(…, info=…)."
        case IndexError():
            return f"Observations are {describe_space(spec.observation)}, actions {describe_space(spec.action)}."
        case _:
            return "It is called as task(obs, action, reward, next_obs, terminated, info)."


def zero_element(space: Space) -> Any:
    """One element of a space."""
    if isinstance(space, Dict):
        return {name: zero_element(part) for name, part in space.spaces.items()}
    return np.zeros(*array_type(space))


def describe_space(space: Space) -> str:
    if isinstance(space, Dict):
        return "a dict of " + ", ".join(f"{name} {describe_space(part)}" for name, part in space.spaces.items())
    shape, dtype = array_type(space)
    return f"{dtype}{list(shape)}"


@dataclass(frozen=True)
class EnvWithTasks:
    """An environment with tasks. For an algorithm of one reward, that is the main task's, and no axis is there."""

    env: Any
    tasks: Tasks
    main_alone: bool = False

    def wrap(self, envs: AbstractHostEnvs | AbstractJaxEnvs) -> AbstractHostEnvs | AbstractJaxEnvs:
        """Adapters of the environment, with the rewards of the tasks. Raises `ConfigError`."""
        self.tasks.check(envs.spec)
        tasks = self.tasks.main if self.main_alone else self.tasks
        spec = replace(envs.spec, tasks=() if self.main_alone else tasks.names)
        return TaskedJaxEnvs(envs, tasks, spec) if isinstance(envs, AbstractJaxEnvs) else TaskedEnvs(envs, tasks, spec)


def strip_tasks(env: Any) -> Any:
    """The environment itself, without its tasks."""
    return env.env if isinstance(env, EnvWithTasks) else env


def select_rewards(rewards: Any, spec: EnvSpec) -> Any:
    """Rewards `[B, K]` as they are, where the spec has tasks, else those of the only one, `[B]`."""
    return rewards if spec.tasks else rewards[:, 0]


class TaskedEnvs(AbstractHostEnvs):
    """Environments on the host whose rewards are those of tasks, in one jitted call a step."""

    def __init__(self, envs: AbstractHostEnvs, tasks: Tasks, spec: EnvSpec):
        self._envs, self._tasks = envs, tasks
        self.spec, self.num_envs = spec, envs.num_envs
        self._rewards = jax.jit(tasks.rewards)

    def reset(self) -> Obs:
        self._obs = self._envs.reset()
        return self._obs

    def step(self, action: np.ndarray) -> Step:
        seen = self._envs.step(action)
        info = self._tasks.read(seen.info)
        done = clip_to_bounds(self.spec.action, action)  # what the environment did
        rewards = np.array(self._rewards(self._obs, done, seen.reward, seen.next_obs, seen.terminated, info))
        if not np.isfinite(rewards).all():
            i, task = np.argwhere(~np.isfinite(rewards))[0]
            lacking = [name for name, values in info.items() if np.isnan(values[i])]
            hint = f" The step's info had no number {', '.join(map(repr, lacking))}." if lacking else ""
            raise EnvError(f"task {self._tasks.names[task]!r} gave {rewards[i, task]} in environment {i}.{hint}")
        self._obs = seen.obs
        return seen._replace(reward=select_rewards(rewards, self.spec))

    def snapshot(self) -> dict[str, np.ndarray]:
        return self._envs.snapshot()

    def restore(self, snapshot: dict[str, np.ndarray]) -> tuple[Obs, str | None]:
        self._obs, message = self._envs.restore(snapshot)
        return self._obs, message

    def close(self) -> None:
        self._envs.close()


class TaskedJaxEnvs(AbstractJaxEnvs):
    """Environments written in JAX whose rewards are those of tasks."""

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
        done = clip_to_bounds(self.spec.action, action)  # what the environment did
        rewards = self._tasks.rewards(obs, done, seen.reward, seen.next_obs, seen.terminated, info)
        return (inner, seen.obs), seen._replace(reward=select_rewards(rewards, self.spec))


# Ready sets


def touch(obs, action, reward, next_obs, terminated, info):
    """Legs on the ground, 0 to 2."""
    return next_obs[6] + next_obs[7]


def hover_planar(obs, action, reward, next_obs, terminated, info):
    """Slow: 2 − |vₓ| − |v_y|."""
    return 2 - jnp.abs(next_obs[2]) - jnp.abs(next_obs[3])


def hover_angular(obs, action, reward, next_obs, terminated, info):
    """Not turning: 2 − |ω|."""
    return 2 - jnp.abs(next_obs[5])


def upright(obs, action, reward, next_obs, terminated, info):
    """2 − |θ|."""
    return 2 - jnp.abs(next_obs[4])


def goal_distance(obs, action, reward, next_obs, terminated, info):
    """Near the pad: 2 − |x| − |y|, of the position; the source's code has the velocity, its text the distance."""
    return 2 - jnp.abs(next_obs[0]) - jnp.abs(next_obs[1])


def landed(obs, action, reward, next_obs, terminated, info):
    """100 for coming to rest, the environment's own bonus, and nothing else: −100 for a crash is not there."""
    return jnp.where(terminated & (reward >= 100), 100.0, 0.0)


def fast(obs, action, reward, next_obs, terminated, info):
    """Speed in units of its limit, |v|/0.07."""
    return jnp.abs(next_obs[1]) / 0.07


def left(obs, action, reward, next_obs, terminated, info):
    """1 on the slope on the left, x ≤ −0.9."""
    return jnp.where(next_obs[0] <= -0.9, 1.0, 0.0)


def right(obs, action, reward, next_obs, terminated, info):
    """1 on the slope on the right, x ≥ 0."""
    return jnp.where(next_obs[0] >= 0.0, 1.0, 0.0)


def goal(obs, action, reward, next_obs, terminated, info):
    """100 at the flag, x ≥ 0.45, and nothing else: acting is free."""
    return jnp.where(next_obs[0] >= 0.45, 100.0, 0.0)


lunar_lander = Tasks(touch, hover_planar, hover_angular, upright, goal_distance, landed, name="lunar-lander")
"""Those of `LunarLander-v3`, discrete or continuous; main task: a landing."""
mountain_car = Tasks(fast, left, right, goal, name="mountain-car")
"""Those of `MountainCarContinuous-v0`, Gymnasium's and gymnax's; main task: the flag."""

READY_TASKS = {tasks.name: tasks for tasks in (lunar_lander, mountain_car)}
"""The sets that have a name on the command line and in files."""


def ready_tasks(name: str) -> Tasks:
    """The set of this name. Raises `ConfigError`."""
    if name not in READY_TASKS:
        raise ConfigError(
            f"There are no tasks {name!r}. {suggestion(name, READY_TASKS)} In Python, tasks= takes your own."
        )
    return READY_TASKS[name]


def is_ready(tasks: Tasks) -> bool:
    """Whether its name says all of it."""
    return READY_TASKS.get(tasks.name) is tasks


def task_index(spec: EnvSpec, task: str) -> int:
    """Where a task stands in the rewards of `spec`. Raises `ConfigError`."""
    if task not in spec.tasks:
        known = suggestion(str(task), spec.tasks) if spec.tasks else "It learned one reward, a main task's or its own."
        raise ConfigError(f"task = {task!r}: this run has no such task. {known}")
    return spec.tasks.index(task)
