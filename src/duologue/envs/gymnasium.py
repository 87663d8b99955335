"""Gymnasium environments in this process, stepped by a Python loop. It is faster than Gymnasium's vector environments,
and it can choose the seed of every episode."""

import difflib
import functools
import inspect
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.util import find_spec
from typing import Any, TypeGuard

import gymnasium as gym
import numpy as np

from duologue.envs.atari import atari_spec, begin_new_game, is_atari
from duologue.envs.base import REPLAY_LIMIT, open_all
from duologue.envs.differences import check_same_spec
from duologue.envs.journal import StepArrays
from duologue.envs.journaled import Failures, JournaledEnvs, Restarts
from duologue.envs.masks import gives_mask, unused_mask_notes
from duologue.envs.results import OLD, read_reset
from duologue.envs.spaces import action_space, mark_stacked, obs_writer, observation_space, split_actions
from duologue.envs.wrappers import find_return_counter, statistics_notes, wrapper_chain
from duologue.errors import ConfigError, EnvError, MissingExtraError
from duologue.types import EnvSpec, Obs, to_env_actions

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


class GymnasiumEnvs(JournaledEnvs):
    """`num_envs` Gymnasium environments in this process.

    `render_mode` is for an id; `wrapper` wraps each environment; `info` names the numbers that a step copies from the
    `info` of each environment into its own. `replay_limit` is the length of the longest episode that `restore` replays,
    `None` for environments that must never be replayed; `restarts` are those that are left after errors.

    Raises `ConfigError` for an unknown id or a space that is not supported, `MissingExtraError` for a missing
    simulator, and `EnvError` if an environment cannot be made.
    """

    def __init__(
        self, make: GymSource, num_envs: int, *, seed: int, purpose: str = "train",
        max_episode_steps: int | None = None, render_mode: str | None = None,
        wrapper: Callable[[gym.Env], gym.Env] | None = None, info: tuple[str, ...] = (),
        replay_limit: int | None = REPLAY_LIMIT, restarts: Restarts | None = None,
    ):  # fmt: skip
        factory = factory_of(make, max_episode_steps, render_mode)
        self._make_one = lambda: open_env(factory, make, max_episode_steps)
        self._wrap, self._source = wrapper, make
        envs = open_all(self._make_one() for _ in range(num_envs))
        if len({id(env.unwrapped) for env in envs}) < num_envs:
            raise ConfigError(
                f"{name_of(make)} returned the same environment {num_envs} times: it must make a new one in each "
                "call, for example `lambda: gymnasium.make(…)`."
            )
        self._envs = envs if wrapper is None else [wrapper(env) for env in envs]
        spec = self._first = env_spec(self._envs[0], make)
        for i, env in enumerate(self._envs):
            check_same_spec(i, env_spec(env, make), spec)
        self.notes = statistics_notes(self._envs[0])
        self._gives_mask = False
        self._counters = [find_return_counter(env) for env in self._envs]
        self._start_journal(
            spec, num_envs, obs_writer(self._envs[0].observation_space),
            seed=seed, purpose=purpose, limit=replay_limit, restarts=restarts, info=info,
            counts_returns=any(self._counters),
        )  # fmt: skip

    def reset(self) -> Obs:
        for env in self._envs:
            begin_new_game(env)
        return super().reset()

    def cut_episodes(self, which: Sequence[int]) -> Obs:
        for i in which:
            begin_new_game(self._envs[i])
        return super().cut_episodes(which)

    def close(self) -> None:
        for env in self._envs:
            env.close()

    def reset_notes(self) -> list[str]:
        return unused_mask_notes(self.spec, self._envs[0], in_info=self._gives_mask)

    def _reset(self, indices: Sequence[int], obs: Obs) -> Failures:
        failures: Failures = {}
        for i in indices:
            try:
                first, info = read_reset(self._envs[i].reset(seed=self._journal.seed(i)))
                self._write(obs, i, first)
                self._gives_mask = self._gives_mask or gives_mask(info)
            except (Exception, SystemExit) as error:
                failures[i] = self._journal.failure(i, error)
        return failures

    def _step(self, indices: Sequence[int], action: np.ndarray, rows: StepArrays) -> Failures:
        commands, failures = split_actions(self.spec.action, to_env_actions(self.spec.action, action)), {}
        for i in indices:
            try:
                rows.put(i, self._envs[i].step(commands[i]), self._counters[i])
            except (Exception, SystemExit) as error:
                failures[i] = self._journal.failure(i, error)
                if len(failures) > self._restarts.left:
                    break
        return failures

    def _replace(self, i: int) -> None:
        with suppress(Exception, SystemExit):  # it has failed already
            self._envs[i].close()
        env = self._make_one()
        self._envs[i] = env if self._wrap is None else self._wrap(env)
        self._counters[i] = find_return_counter(self._envs[i])
        check_same_spec(i, env_spec(self._envs[i], self._source), self._first)


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
    except (Exception, SystemExit) as error:
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
