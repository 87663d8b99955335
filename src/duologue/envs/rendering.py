"""Gymnasium environments that show themselves in a window, or that give pictures."""

from collections.abc import Callable
from typing import Any, SupportsFloat

import gymnasium as gym
import numpy as np

from duologue.envs.gymnasium import GymnasiumEnvs, GymSource, factory_of, name_of, open_env
from duologue.errors import ConfigError, EnvError

FPS = 30.0
"""Pictures per second, for an environment that does not set them."""


class Camera:
    """Takes pictures of an environment: at the beginning of each episode and after every step."""

    def __init__(self) -> None:
        self.fps = FPS
        """Pictures per second of the environment."""
        self._taken: list[np.ndarray] = []

    def __call__(self, env: gym.Env) -> gym.Env:
        own = env.metadata.get("render_fps")
        self.fps = float(own) if isinstance(own, int | float) and 0 < own < np.inf else FPS
        return FilmedEnv(env, self._taken.append)

    def take_pictures(self) -> list[np.ndarray]:
        """Return the pictures since the last call, uint8 `[H, W, 3]` each, and forget them."""
        pictures = self._taken.copy()
        self._taken.clear()
        return pictures


class FilmedEnv(gym.Wrapper):
    """Shows each state once. It shows the first state of an episode at the first step, so an episode without a step is
    never shown."""

    def __init__(self, env: gym.Env, show: Callable[[np.ndarray], None]):
        super().__init__(env)
        self._show, self._fresh, self._shape = show, True, None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        self._fresh = True
        return self.env.reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        if self._fresh:
            self._show(self._picture())
        self._fresh = False
        result = self.env.step(action)
        self._show(self._picture())
        return result

    def _picture(self) -> np.ndarray:
        picture: Any = self.env.render()
        shape, dtype = getattr(picture, "shape", ()), getattr(picture, "dtype", None)
        if dtype != np.uint8 or len(shape) != 3 or shape[-1] != 3 or shape != (self._shape or shape):
            found = f"{dtype}{list(shape)}" if dtype is not None else repr(picture)
            wanted = list(self._shape) if self._shape else "[height, width, 3]"
            raise EnvError(f"gave the picture {found}; it must be uint8{wanted}")
        self._shape = shape
        return np.array(picture)  # the environment may draw on it later


def make_window_env(make: GymSource, **options: Any) -> GymnasiumEnvs:
    """One environment in its own window, or else in a window of Gymnasium that shows its pictures.

    `options` are those of `GymnasiumEnvs`. Raises `ConfigError` for an environment without window and pictures.
    """
    modes = render_modes(make)
    if "human" in modes:
        return GymnasiumEnvs(make, 1, render_mode="human", **options)
    check_modes(make, modes, "'human' or 'rgb_array'")
    return GymnasiumEnvs(make, 1, render_mode="rgb_array", wrapper=show_in_window, **options)


def make_camera_env(make: GymSource, camera: Camera, **options: Any) -> GymnasiumEnvs:
    """One environment with `camera` before it. Raises `ConfigError` for an environment that gives no pictures."""
    check_modes(make, render_modes(make), "'rgb_array'")
    return GymnasiumEnvs(make, 1, render_mode="rgb_array", wrapper=camera, **options)


def check_modes(make: GymSource, modes: list[str], wanted: str) -> None:
    """Raise `ConfigError` unless `modes` include pictures (`rgb_array`)."""
    if "rgb_array" in modes:
        return
    has = ", ".join(map(repr, modes)) or "none"
    if isinstance(make, str):
        raise ConfigError(f"{make} has the render modes: {has}. It must have {wanted} to be watched.")
    raise ConfigError(
        f"{name_of(make)} makes an environment with the render mode: {has}. It must be {wanted} to be watched here: "
        "gymnasium.make(..., render_mode='rgb_array')."
    )


def show_in_window(env: gym.Env) -> gym.Env:
    """`env` with a window that shows its pictures."""
    if "render_fps" not in env.metadata:  # the wrapper requires it
        env.unwrapped.metadata = {**env.metadata, "render_fps": int(FPS)}
    return gym.wrappers.HumanRendering(env)


def render_modes(make: GymSource) -> list[str]:
    """The render modes that an id offers, or the one that a callable has chosen, if any. It makes one environment to
    find out."""
    env = open_env(factory_of(make, None), make, None)
    try:
        if isinstance(make, str):
            return list(env.metadata.get("render_modes") or [])
        return [] if env.render_mode is None else [env.render_mode]
    finally:
        env.close()
