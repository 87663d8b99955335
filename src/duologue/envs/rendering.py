"""Gymnasium environments that can be looked at: in a window, or as pictures."""

from collections.abc import Callable
from typing import Any, SupportsFloat

import gymnasium as gym
import numpy as np

from duologue.envs.gymnasium import GymnasiumEnvs, GymSource, factory_of, name_of, open_env
from duologue.errors import ConfigError, EnvError

FPS = 30.0
"""Pictures a second of an environment that does not say."""


class Camera:
    """Takes a picture of the environment it is put before, at the beginning of each episode and after every step."""

    def __init__(self) -> None:
        self.fps = FPS
        """Pictures a second, as the environment has it."""
        self._taken: list[np.ndarray] = []

    def __call__(self, env: gym.Env) -> gym.Env:
        own = env.metadata.get("render_fps")
        self.fps = float(own) if isinstance(own, int | float) and 0 < own < np.inf else FPS
        return FilmedEnv(env, self._taken.append)

    def take_pictures(self) -> list[np.ndarray]:
        """The pictures since the last call, uint8 `[H, W, 3]` each."""
        pictures = self._taken.copy()
        self._taken.clear()
        return pictures


class FilmedEnv(gym.Wrapper):
    """Shows each state once: the first of an episode before its first step, so that one nobody plays is not shown."""

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
        return np.array(picture)  # an environment may draw on it again


def make_window_env(make: GymSource, **options: Any) -> GymnasiumEnvs:
    """One environment that shows itself in a window: its own, or where it has none Gymnasium's for its pictures.

    `options` are those of `GymnasiumEnvs`. Raises `ConfigError` for one that cannot be shown.
    """
    modes = render_modes(make)
    if "human" in modes:
        return GymnasiumEnvs(make, 1, render_mode="human", **options)
    check_modes(make, modes, "'human' or 'rgb_array'")
    return GymnasiumEnvs(make, 1, render_mode="rgb_array", wrapper=show_in_window, **options)


def make_camera_env(make: GymSource, camera: Camera, **options: Any) -> GymnasiumEnvs:
    """One environment that `camera` takes pictures of. Raises `ConfigError` for one that gives none."""
    check_modes(make, render_modes(make), "'rgb_array'")
    return GymnasiumEnvs(make, 1, render_mode="rgb_array", wrapper=camera, **options)


def check_modes(make: GymSource, modes: list[str], wanted: str) -> None:
    """Raise `ConfigError` unless pictures are among the `modes`."""
    if "rgb_array" in modes:
        return
    has = ", ".join(map(repr, modes)) or "none"
    if isinstance(make, str):
        raise ConfigError(f"{make} has the render modes: {has}. It must have {wanted} to be watched.")
    raise ConfigError(
        f"{name_of(make)} makes an environment with the render mode: {has}. To be watched here it must be {wanted}, as "
        "in gymnasium.make(..., render_mode='rgb_array')."
    )


def show_in_window(env: gym.Env) -> gym.Env:
    if "render_fps" not in env.metadata:  # the wrapper insists
        env.unwrapped.metadata = {**env.metadata, "render_fps": int(FPS)}
    return gym.wrappers.HumanRendering(env)


def render_modes(make: GymSource) -> list[str]:
    """The render modes that an id can be made with; of a callable the one it has chosen, if any. One environment is
    made to see."""
    env = open_env(factory_of(make, None), make, None)
    try:
        if isinstance(make, str):
            return list(env.metadata.get("render_modes") or [])
        return [] if env.render_mode is None else [env.render_mode]
    finally:
        env.close()
