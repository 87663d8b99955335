"""Gymnasium environments in this process, stepped by a Python loop. It is faster than Gymnasium's vector environments,
and it can choose the seed of every episode."""

import difflib
import functools
import inspect
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any, TypeGuard

import gymnasium as gym
import numpy as np

from duologue.envs.atari import atari_spec, begin_new_game, is_atari
from duologue.envs.base import AbstractHostEnvs, open_all
from duologue.envs.differences import check_same_spec
from duologue.envs.journal import Journal, StepArrays, replay_episodes
from duologue.envs.masks import gives_mask, unused_mask_notes
from duologue.envs.results import GAME_RETURN, OLD, read_reset
from duologue.envs.spaces import (
    action_space,
    check_action,
    copy_obs,
    empty_arrays,
    mark_stacked,
    obs_writer,
    observation_space,
    split_actions,
)
from duologue.envs.wrappers import find_return_counter, statistics_notes, wrapper_chain
from duologue.errors import ConfigError, EnvError, MissingExtraError
from duologue.types import EnvSpec, Obs, Step, to_env_actions

GymSource = str | Callable[[], gym.Env]
"""A Gymnasium id, or a callable that returns one new environment."""

PACKAGES = {"box2d": "box2d", "mujoco": "mujoco", "ale": "atari", "atari": "atari"}
"""Words in Gymnasium's error about a missing package, and our extra that installs it."""
TRANSPARENT = (
    gym.wrappers.TimeLimit,
    gym.wrappers.OrderEnforcing,
    gym.wrappers.PassiveEnvChecker,
    gym.wrappers.RecordEpisodeStatistics,
)
"""Wrappers that leave observations as they are."""


class EnvId(str):
    """An id of Gymnasium with arguments for `gymnasium.make`. Everywhere else it is the id."""

    kwargs: dict[str, Any]

    def __new__(cls, name: str, kwargs: dict[str, Any]) -> "EnvId":
        env = super().__new__(cls, name)
        env.kwargs = dict(kwargs)
        return env


class GymnasiumEnvs(AbstractHostEnvs):
    """`num_envs` Gymnasium environments in this process.

    `render_mode` is for an id; `wrapper` wraps each environment; `info` names the numbers that a step copies from the
    `info` of each environment into its own.

    Raises `ConfigError` for an unknown id or a space that is not supported, `MissingExtraError` for a missing
    simulator, and `EnvError` if an environment cannot be made.
    """

    def __init__(
        self, make: GymSource, num_envs: int, *, seed: int, purpose: str = "train",
        max_episode_steps: int | None = None, render_mode: str | None = None,
        wrapper: Callable[[gym.Env], gym.Env] | None = None, info: tuple[str, ...] = (),
    ):  # fmt: skip
        factory = factory_of(make, max_episode_steps, render_mode)
        envs = open_all(open_env(factory, make, max_episode_steps) for _ in range(num_envs))
        if len({id(env.unwrapped) for env in envs}) < num_envs:
            raise ConfigError(
                f"{name_of(make)} returned the same environment {num_envs} times: it must make a new one in each "
                "call, for example `lambda: gymnasium.make(…)`."
            )
        self._envs = envs if wrapper is None else [wrapper(env) for env in envs]
        self.spec, self.num_envs = env_spec(self._envs[0], make), num_envs
        for i, env in enumerate(self._envs):
            check_same_spec(i, env_spec(env, make), self.spec)
        self.notes = statistics_notes(self._envs[0])
        self._write = obs_writer(self._envs[0].observation_space)
        self._journal = Journal(seed, purpose, num_envs)
        self._obs = empty_arrays(self.spec.observation, num_envs)
        self._counters = [find_return_counter(env) for env in self._envs]
        self._names, self._known = info, {*info, *([GAME_RETURN] if any(self._counters) else [])}
        self._gives_mask = False

    def reset(self) -> Obs:
        self._journal.restart()
        for env in self._envs:
            begin_new_game(env)
        self._obs = empty_arrays(self.spec.observation, self.num_envs)
        self._reset(range(self.num_envs), self._obs)
        self._journal.check_masks(self.spec.action, self._obs)
        return self._obs

    def step(self, action: np.ndarray) -> Step:
        action = check_action(action, self.spec.action, self.num_envs)
        self._journal.actions.append(action)
        rows = self._rows()
        self._step(range(self.num_envs), action, rows)
        self._obs = rows.obs
        if rows.ended:
            self._obs = copy_obs(rows.obs)
            for i in rows.ended:
                self._journal.next_episode(i)
            self._reset(rows.ended, self._obs)
        self._journal.check_masks(self.spec.action, self._obs)
        self._known |= rows.info.keys()
        return Step(self._obs, rows.obs, rows.reward, rows.terminated, rows.truncated, rows.info)

    def snapshot(self) -> dict[str, np.ndarray]:
        return self._journal.snapshot(self.spec.action, self._obs)

    def restore(self, snapshot: dict[str, np.ndarray]) -> tuple[Obs, str | None]:
        rows = self._rows()
        message = replay_episodes(self._journal, snapshot, rows, reset=self._reset, step=self._step)
        self._obs = rows.obs
        self._journal.check_masks(self.spec.action, self._obs)
        return self._obs, message

    def close(self) -> None:
        for env in self._envs:
            env.close()

    def cut_episodes(self, which: Sequence[int]) -> Obs:
        self._obs = copy_obs(self._obs)
        for i in which:
            self._journal.next_episode(i)
            begin_new_game(self._envs[i])
        self._reset(which, self._obs)
        self._journal.check_masks(self.spec.action, self._obs)
        return self._obs

    def reset_notes(self) -> list[str]:
        return unused_mask_notes(self.spec, self._envs[0], in_info=self._gives_mask)

    def _rows(self) -> StepArrays:
        obs = empty_arrays(self.spec.observation, self.num_envs)
        return StepArrays(obs, self.num_envs, self._write, self._names, self._known)

    def _reset(self, indices: Sequence[int], obs: Obs) -> None:
        """Begin the journal's episodes in these environments, and write their first observations into `obs`."""
        for i in indices:
            try:
                first, info = read_reset(self._envs[i].reset(seed=self._journal.seed(i)))
                self._write(obs, i, first)
                self._gives_mask = self._gives_mask or gives_mask(info)
            except Exception as error:
                raise self._journal.failure(i, error) from error

    def _step(self, indices: Sequence[int], action: np.ndarray, rows: StepArrays) -> None:
        """Step these environments, each with its row of `action`, and write the results into `rows`."""
        commands = split_actions(self.spec.action, to_env_actions(self.spec.action, action))
        envs, put, i = self._envs, rows.put, 0
        try:
            for i in indices:
                put(i, envs[i].step(commands[i]), self._counters[i])
        except Exception as error:
            raise self._journal.failure(i, error) from error


def factory_of(make: GymSource, max_episode_steps: int | None, render_mode: str | None = None) -> Callable[[], gym.Env]:
    """A function that makes one environment. The function also runs in a process without this library. `render_mode` is
    for ids; a callable chooses its own."""
    if isinstance(make, str):
        # Importing its package registers Atari's ids. If the package is missing, `open_env` raises the error.
        options = {} if render_mode is None else {"render_mode": render_mode}
        options |= make.kwargs if isinstance(make, EnvId) else {}
        if is_atari(make) and find_spec("ale_py"):
            return functools.partial(gym.make, atari_spec(make, max_episode_steps), disable_env_checker=True, **options)
        return functools.partial(
            gym.make, make, max_episode_steps=max_episode_steps, disable_env_checker=True, **options
        )
    if max_episode_steps is None:
        return make
    limit = gym.wrappers.TimeLimit
    return lambda: limit(make(), max_episode_steps)


def open_env(factory: Callable[[], gym.Env], make: GymSource, max_episode_steps: int | None) -> gym.Env:
    """One environment from `factory`. Raises `ConfigError`, `MissingExtraError` or `EnvError` in terms of `make`."""
    name = name_of(make)
    try:
        env = factory()
    except gym.error.DependencyNotInstalled as error:
        extra = next((extra for word, extra in PACKAGES.items() if word in str(error).lower()), None)
        if extra is None:
            raise ConfigError(f"{name} cannot be made: {error}") from error
        raise MissingExtraError(extra, name) from error
    except (gym.error.UnregisteredEnv, gym.error.DeprecatedEnv) as error:
        if is_atari(name) and not find_spec("ale_py"):
            raise MissingExtraError("atari", name) from error
        raise ConfigError(unknown_id_message(name, error)) from error
    except ImportError as error:
        if is_atari(name):
            raise MissingExtraError("atari", name) from error
        raise ConfigError(f"{name} cannot be made: {error}") from error
    except gym.error.Error as error:
        raise ConfigError(f"{name} cannot be made: {error}") from error
    except ConfigError:  # of a wrapper of ours
        raise
    except Exception as error:
        raise EnvError(f"{name} could not be made; it raised {type(error).__name__}: {error}") from error
    warn_once()
    if isinstance(env, gym.vector.VectorEnv):
        raise ConfigError(
            f"{name} makes a vector environment, {type(env).__name__}, which may insert dummy steps when it resets "
            "itself. Pass a callable that makes one environment, and num_envs."
        )
    if not isinstance(env, gym.Env):
        raise ConfigError(f"{name} makes {env!r}: must be a gymnasium.Env.")
    check_reset(env, name)
    for part in ("observation_space", "action_space"):
        if getattr(env, part, None) is None:
            raise ConfigError(f"{name} makes an environment without {part}. Give it one of gymnasium.spaces.")
    theirs = None if isinstance(make, str) or not isinstance(env, gym.wrappers.TimeLimit) else env.env
    own = None if theirs is None else time_limit(theirs)
    if own is not None and max_episode_steps is not None and own < max_episode_steps:
        raise ConfigError(
            f"max_episode_steps = {max_episode_steps}: must be at most {own}, where {name} ends its episodes. Set a "
            f"longer limit there, gymnasium.make(…, max_episode_steps={max_episode_steps})."
        )
    return env


def check_reset(env: gym.Env, name: str) -> None:
    """Raise `ConfigError` where the `reset` of an environment or of a wrapper takes no seed, as in Gym before 0.26."""
    for each in wrapper_chain(env):
        known = inspect.signature(each.reset).parameters.values()
        if not any(one.name == "seed" or one.kind is one.VAR_KEYWORD for one in known):
            raise ConfigError(
                f"{name}: {type(each).__name__}.reset takes no seed, {OLD}. Write `def reset(self, *, seed=None, "
                "options=None)`, call super().reset(seed=seed), and return (obs, info)."
            )


def name_of(source: Any) -> str:
    """An id unchanged; for any other source its name in angle brackets, which a file cannot turn into the source."""
    if isinstance(source, str):
        return source
    named = source if hasattr(source, "__qualname__") else type(source)
    return f"<{named.__module__}.{named.__qualname__}>"


def unknown_id_message(name: str, error: Exception) -> str:
    """Message about an unknown id, with the nearest ids and Gymnasium's own words."""
    close = difflib.get_close_matches(name, gym.registry, n=3, cutoff=0.6)
    hint = f"Closest: {', '.join(map(repr, close))}. " if close else ""
    return (
        f"There is no Gymnasium environment {name!r}. {hint}Gymnasium says: {error} Write an id that your own module "
        "registers as 'module:Name-v0'; an environment in JAX has a prefix, such as 'gymnax/CartPole-v1'."
    )


def time_limit(env: gym.Env) -> int | None:
    """Steps after which the outermost time limit of `env` truncates; `None` without a limit."""
    return env.get_wrapper_attr("_max_episode_steps") if env.has_wrapper_attr("_max_episode_steps") else None


def env_spec(env: gym.Env, make: GymSource) -> EnvSpec:
    """The spec of `env`, made from `make`. Raises `ConfigError` for spaces that are not supported."""
    threshold = None if env.spec is None else env.spec.reward_threshold
    observation = observation_space(env.observation_space)
    return EnvSpec(
        name_of(make),
        mark_stacked(observation) if stacks_frames(env) else observation,
        action_space(env.action_space),
        time_limit(env),
        None if threshold is None else float(threshold),
    )


def stacks_frames(env: gym.Env) -> bool:
    """Whether an observation is a stack of the newest frames of an episode, made by Gymnasium's wrapper with the first
    frame in place of missing ones. Wrappers around it must change neither observations nor the beginning of episodes.
    """
    while not isinstance(env, gym.wrappers.FrameStackObservation):
        if not _leaves_observations(env):
            return False
        env = env.env
    return type(env) is gym.wrappers.FrameStackObservation and env.padding_type == "reset"


def _leaves_observations(env: gym.Env) -> TypeGuard[gym.Wrapper]:
    """Whether `env` is a wrapper that is known to pass observations, and calls of `reset`, on unchanged."""
    if type(env) in TRANSPARENT:
        return True
    for kind in (gym.ActionWrapper, gym.RewardWrapper):
        if isinstance(env, kind):
            return (type(env).step, type(env).reset) == (kind.step, kind.reset)
    return False


def warn_once() -> None:
    """Make MuJoCo, if it is loaded, print each of its warnings once. By default it prints every warning, and appends it
    to a file in the current folder. A handler that is set already stays."""
    mujoco = sys.modules.get("mujoco")
    if mujoco is None or mujoco.get_mju_user_warning() is not None:
        return
    printed: set[str] = set()

    def print_new(warning: str) -> None:
        if warning not in printed:
            printed.add(warning)
            print(f"MuJoCo: {warning}", file=sys.stderr)

    mujoco.set_mju_user_warning(print_new)
