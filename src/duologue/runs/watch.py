"""Watch an agent: its episodes in the environment's own window, in a video, or as an array of pictures."""

import itertools
import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Optional

import gymnasium as gym
import numpy as np
from rich.console import Console

from duologue.envs.make import AbstractHostEnvs, AbstractJaxEnvs
from duologue.envs.rendering import Camera, make_camera_env, make_window_env
from duologue.envs.results import GAME_RETURN
from duologue.envs.tasks import EnvWithTasks
from duologue.errors import ConfigError, EnvError, MissingExtraError
from duologue.fields import Count, Range, Seed, check
from duologue.loops.keys import key_for, run_key
from duologue.runs.display import video
from duologue.runs.display.screen import print_warning
from duologue.runs.environments import (
    EnvSource,
    check_source,
    check_spec,
    describe_source,
    env_notes,
    env_source,
    is_in_jax,
)
from duologue.runs.plan import Plan
from duologue.runs.policy import TrainedPolicy
from duologue.types import Step

MAX_STEPS = 10_000
"""Default for the largest number of steps in a video."""

PicturesPerSecond = Optional[Annotated[float, Range(0, 1000, above=True)]]  # noqa: UP045
HEADLESS_VARIABLES = {"MUJOCO_GL": "egl", "SDL_VIDEODRIVER": "dummy", "SDL_AUDIODRIVER": "dummy"}
"""Variables that let MuJoCo and pygame draw without a display and without warnings. Both read these at import."""


@dataclass(frozen=True)
class WatchResult:
    """The episodes that were watched."""

    out: Path | None
    """The video, `None` after a window."""
    returns: np.ndarray
    """Return of each episode, `[episodes]`."""
    lengths: np.ndarray
    """Steps of each episode, `[episodes]`."""
    cut: bool = False
    """Whether `max_steps` cut the last episode."""


def has_display() -> bool:
    """Whether a window can be opened."""
    return sys.platform == "darwin" or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))


def watch(
    agent: TrainedPolicy, plan: Plan, source: EnvSource | None, *, out: str | Path | None, default: Path, episodes: int,
    explore: bool, seed: int, fps: float | None, max_steps: int | None, console: Console,
) -> WatchResult:  # fmt: skip
    """Play `episodes` episodes of `agent` in an environment of `plan`, or of `source`: in a window if there is a
    display and no `out`, else into a video at `out` or `default`. Raises `ConfigError`, if possible before playing.
    """
    check_numbers(episodes, seed, max_steps)
    check(PicturesPerSecond, fps=fps)
    if out is None and has_display():
        if fps is not None:
            raise ConfigError(f"fps = {fps!r}: a window has the speed of its environment. Use fps with a file, out=...")
        with open_watched_env(plan, source, seed=seed) as envs:
            steps = play_steps(agent, envs, explore=explore, seed=seed)
            return watch_episodes(steps, episodes, max_steps, console, plan.test_task)
    path, camera = video.check_out(default if out is None else out), Camera()
    with (
        open_watched_env(plan, source, camera, seed=seed) as envs,
        video.open_video(path, camera.fps if fps is None else fps) as add,
        recording_status(console, path) as show,
    ):

        def film() -> Iterator[Step]:
            for t, step in enumerate(play_steps(agent, envs, explore=explore, seed=seed), 1):
                for picture in camera.take_pictures():
                    add(picture)
                show(t)
                yield step

        most = MAX_STEPS if max_steps is None else max_steps
        return watch_episodes(film(), episodes, most, console, plan.test_task, path)


def frames(
    agent: TrainedPolicy, plan: Plan, source: EnvSource | None, *, episodes: int = 1, explore: bool = False,
    seed: int = 0, max_steps: int = 1_000,
) -> np.ndarray:  # fmt: skip
    """Pictures of the episodes that `watch` plays, uint8 `[T, H, W, 3]`: one at the start of each episode, and one
    after each step.

    It plays at most `max_steps` steps.
    """
    check_numbers(episodes, seed, max_steps)
    camera = Camera()
    with open_watched_env(plan, source, camera, seed=seed) as envs:
        watch_episodes(play_steps(agent, envs, explore=explore, seed=seed), episodes, max_steps, Console(quiet=True))
    return np.stack(camera.take_pictures())


def check_numbers(episodes: int, seed: int, max_steps: int | None) -> None:
    """Raise `ConfigError` for numbers out of range."""
    check(Count, episodes=episodes)
    check(Seed, seed=seed)
    check(Count | None, max_steps=max_steps)


@contextmanager
def open_watched_env(
    plan: Plan, source: EnvSource | None, camera: Camera | None = None, *, seed: int
) -> Iterator[AbstractHostEnvs]:
    """A context with one environment: in a window, or with a `camera` that takes its pictures. Raises `ConfigError` for
    an environment without pictures, `MissingExtraError` for one that needs a package to draw."""
    check_source(plan, source)
    tasked = env_source(plan, source)
    env: Any = tasked.env if isinstance(tasked, EnvWithTasks) else tasked
    if is_in_jax(plan, source):
        raise ConfigError(no_pictures_message(env))
    if isinstance(env, AbstractHostEnvs | AbstractJaxEnvs):
        raise ConfigError(f"env = {describe_source(env)}: an adapter has no pictures. Pass an id or a callable.")
    options = {"seed": seed, "purpose": "watch", "max_episode_steps": plan.max_episode_steps}
    options["info"] = tasked.tasks.info if isinstance(tasked, EnvWithTasks) else ()
    envs = make_window_env(env, **options) if camera is None else make_camera_env(env, camera, **options)
    envs = tasked.wrap(envs) if isinstance(tasked, EnvWithTasks) else envs
    assert isinstance(envs, AbstractHostEnvs)
    try:
        check_spec(plan, envs.spec)
        for note in env_notes(envs):
            print_warning(note)
        yield envs
    except EnvError as error:
        if isinstance(error.__cause__, gym.error.DependencyNotInstalled):
            raise MissingExtraError("video", f"drawing {describe_source(env)}") from error
        if type(error.__cause__).__module__.startswith("mujoco") and "MUJOCO_GL" not in os.environ:
            raise EnvError(f"{error}. Without a display, start Python with MUJOCO_GL=egl.") from error.__cause__
        raise
    finally:
        envs.close()


def no_pictures_message(env: str | AbstractJaxEnvs) -> str:
    """The message for an environment written in JAX, which has no pictures. It suggests a Gymnasium environment."""
    name = env.partition("/")[2] if isinstance(env, str) else ""
    instead = name if name in gym.registry else "ID"
    return (
        f"{describe_source(env)} is written in JAX and has no pictures to watch. Watch the agent in a Gymnasium "
        f"environment with the same spaces: --env {instead}, in Python env={instead!r}."
    )


def play_steps(agent: TrainedPolicy, envs: AbstractHostEnvs, *, explore: bool, seed: int) -> Iterator[Step]:
    """Endless steps of one environment, episode after episode."""
    act = agent.make_act(key=key_for(run_key(seed), "watch"), explore=explore)
    obs, began = envs.reset(), True
    for t in itertools.count():
        step = envs.step(act(obs, t, began))
        obs, began = step.obs, bool(step.terminated[0] | step.truncated[0])
        yield step


def watch_episodes(
    steps: Iterator[Step], episodes: int, max_steps: int | None, console: Console, task: int = -1,
    out: Path | None = None,
) -> WatchResult:  # fmt: skip
    """Take `episodes` episodes from `steps`, at most `max_steps` steps, and print the return of each under `task`, or
    as the environment reports it."""
    returns, lengths, total, length, ended = [], [], 0.0, 0, True
    for step in itertools.islice(steps, max_steps):
        total, length = total + float(np.ravel(step.reward[0])[task]), length + 1
        if ended := bool(step.terminated[0] | step.truncated[0]):
            game = float(step.info.get(GAME_RETURN, [np.nan])[0])
            total = total if np.isnan(game) else game
            returns, lengths, total, length = [*returns, total], [*lengths, length], 0.0, 0
            console.print(episode_line(len(returns), returns[-1], lengths[-1]), highlight=False)
            if len(returns) == episodes:
                break
    if not ended:
        returns, lengths = [*returns, total], [*lengths, length]
        console.print(f"{episode_line(len(returns), total, length)}, cut: max_steps = {max_steps:,}", highlight=False)
    return WatchResult(out, np.asarray(returns), np.asarray(lengths), cut=not ended)


def episode_line(episode: int, total: float, length: int) -> str:
    """Number, return and length of an episode, in Rich's markup."""
    return f"[bold]episode {episode}[/]   return {total:,.1f} in {length:,} step{'s' if length != 1 else ''}"


def recording_status(console: Console, path: Path) -> AbstractContextManager[Any]:
    """A context with a function that shows the number of recorded steps in a temporary line; in a pipe it shows
    nothing."""
    if not console.is_terminal:
        return nullcontext(lambda t: None)
    return _show_recording_status(console, path)


@contextmanager
def _show_recording_status(console: Console, path: Path) -> Iterator[Any]:
    with console.status(f"recording {path.name}") as status:
        yield lambda t: t % 10 or status.update(f"recording {path.name}: {t:,} steps")
