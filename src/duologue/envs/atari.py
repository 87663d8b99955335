"""Atari games with the usual preprocessing (Mnih et al., 2015; Machado et al., 2018), by Gymnasium's own wrappers.

An action lasts four frames. An observation is the pixel-wise maximum of the last two, grey, 84 × 84, and four
observations are stacked. A game begins with up to 30 no-ops; games that wait for FIRE then get it (`Fire`). With
`ALE/…-v5` ids the previous action is repeated with probability 0.25 in place of the chosen one; results from before
2018 have no such repetitions. Here Gymnasium draws the repetitions for each frame, as the emulator does. The emulator
itself accepts a seed only when it loads the game again, which costs 0.2 s per episode.
"""

import copy
from collections.abc import Callable
from typing import Any, SupportsFloat

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec, WrapperSpec
from gymnasium.utils import seeding

from duologue.errors import ConfigError

WAITING = frozenset({"breakout", "donkey_kong", "tennis"})
"""Games that wait for FIRE: 3,000 steps of random other actions bring no reward and cost no life, and after one FIRE at
the beginning they do (docs/notes.md)."""


def is_atari(name: str) -> bool:
    """Whether an id is that of an Atari game."""
    return name.startswith("ALE/")


def atari_spec(
    name: str, max_episode_steps: int | None = None, *, life_loss: bool = False, sticky: float | None = None
) -> EnvSpec | str:
    """The spec from which `gymnasium.make` makes the game with all its wrappers, also in a process without JAX. An
    unknown name is returned unchanged, so that `make` raises its error.

    The limit counts steps of the agent, four frames each; `make` alone would count frames. `sticky` is the probability
    that an action is repeated; the default is that of the id.
    """
    import ale_py

    gym.register_envs(ale_py)
    if name not in gym.registry:
        return name
    spec = copy.deepcopy(gym.spec(name))
    repeated = spec.kwargs.get("repeat_action_probability", 0.0) if sticky is None else sticky
    spec.kwargs.update(frameskip=1, repeat_action_probability=0.0)  # wrappers do both
    spec.entry_point = game_maker()
    waits = spec.kwargs.get("game") in WAITING
    limit = WrapperSpec("TimeLimit", "gymnasium.wrappers:TimeLimit", {"max_episode_steps": max_episode_steps})
    spec.additional_wrappers = (
        WrapperSpec("StickyAction", "gymnasium.wrappers:StickyAction", {"repeat_action_probability": repeated}),
        WrapperSpec("AtariPreprocessing", "gymnasium.wrappers:AtariPreprocessing", {"noop_max": 30, "frame_skip": 4}),
        *((WrapperSpec("Fire", f"{__name__}:Fire", {}),) if waits else ()),
        *(() if max_episode_steps is None else (limit,)),
        *((WrapperSpec("LifeLoss", f"{__name__}:LifeLoss", {}),) if life_loss else ()),
        WrapperSpec("FrameStackObservation", "gymnasium.wrappers:FrameStackObservation", {"stack_size": 4}),
    )
    return spec


def atari(
    name: str, *, life_loss: bool = True, max_episode_steps: int | None = None,
    repeat_action_probability: float | None = None, **options: Any,
) -> gym.Env:  # fmt: skip
    """A preprocessed game, made with further `options` of `gymnasium.make`. Pass it to `train` in a callable:
    `lambda: atari("ALE/Breakout-v5")`.

    With `life_loss`, the loss of a life ends the episode, and the next episode continues the game: returns and stacks
    of frames are those of one life. An id passed to `train` plays whole games. `max_episode_steps` ends a game; it
    counts steps of the agent. Raises `ConfigError` for an id that is not a game's.
    """
    if not is_atari(name):
        raise ConfigError(f"{name!r} is no Atari game: must begin with ALE/, like ALE/Breakout-v5.")
    return gym.make(
        atari_spec(name, max_episode_steps, life_loss=life_loss, sticky=repeat_action_probability), **options
    )


def game_maker() -> Callable[..., gym.Env]:
    """A function that makes the game itself. Every episode begins in the state in which the game was loaded, so the
    seed of the episode alone determines it.

    Everything here is local. So another process receives the code, not a name, and needs neither this library nor JAX.
    """
    import ale_py

    class Loaded(gym.Wrapper):
        def __init__(self, env: gym.Env):
            super().__init__(env)
            self._game: Any = env.unwrapped
            self._start = self._game.ale.cloneSystemState()

        @property
        def spec(self) -> EnvSpec | None:
            return self.env.spec  # `make` accepts only its own wrappers in a spec

        def reset(
            self, *, seed: int | None = None, options: dict[str, Any] | None = None
        ) -> tuple[Any, dict[str, Any]]:
            if seed is not None:
                self._game.np_random, _ = seeding.np_random(seed)
            self._game.ale.restoreSystemState(self._start)
            return self.env.reset(options=options)

    def game(**options: Any) -> gym.Env:
        ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)  # otherwise every game prints a banner
        return Loaded(ale_py.AtariEnv(**options))

    game.metadata = ale_py.AtariEnv.metadata  # pyright: ignore[reportFunctionMemberAccess]  # `make` reads it
    return game


class Fire(gym.Wrapper):
    """Presses FIRE where a game waits for it: at its beginning, after the no-ops, and after each lost life.

    A press lasts four frames, like an action. It belongs to the reset, or to the step that loses the life, so no step
    of the agent is spent on it. If the game ends during the press of a reset, it begins again.
    """

    def __init__(self, env: gym.Env):
        super().__init__(env)
        self._fire, self._lives = env.unwrapped.get_action_meanings().index("FIRE"), 0  # pyright: ignore[reportAttributeAccessIssue]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        self.env.reset(seed=seed, options=options)
        obs, _, terminated, truncated, info = self._press()
        if terminated or truncated:
            return self.reset(options=options)
        self._lives = lives_left(self)
        return obs, info

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        obs, reward, terminated, truncated, info = self.env.step(action)
        if lives_left(self) < self._lives and not (terminated or truncated):
            obs, more, terminated, truncated, info = self._press()
            reward = float(reward) + float(more)
        self._lives = lives_left(self)
        return obs, reward, terminated, truncated, info

    def _press(self) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        self.env.set_wrapper_attr("last_action", None)  # `StickyAction` then has no action to repeat in its place
        return self.env.step(self._fire)


class LifeLoss(gym.Wrapper):
    """Terminates the episode when a life is lost. The next episode continues the game; when the game is over, it begins
    a new one."""

    def __init__(self, env: gym.Env):
        super().__init__(env)
        self._lives, self._over = 0, True

    def new_game(self) -> None:
        """Let the next reset begin a new game, even if this one is not over."""
        self._over = True

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        if self._over:
            obs, info = self.env.reset(seed=seed, options=options)
        else:
            obs, _, terminated, truncated, info = self.env.step(0)
            if terminated or truncated:
                obs, info = self.env.reset(seed=seed, options=options)
        self._lives, self._over = lives_left(self), False
        return obs, info

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        obs, reward, terminated, truncated, info = self.env.step(action)
        self._over, lost = terminated or truncated, lives_left(self) < self._lives
        self._lives = lives_left(self)
        return obs, reward, terminated or lost, truncated, info


def lives_left(env: gym.Env) -> int:
    """The number of lives that the emulator of `env` shows."""
    return env.unwrapped.ale.lives()  # pyright: ignore[reportAttributeAccessIssue]


def begin_new_game(env: gym.Env) -> None:
    """Let the next reset of `env` begin a new game, if its episodes are single lives."""
    while isinstance(env, gym.Wrapper):
        if isinstance(env, LifeLoss):
            env.new_game()
        env = env.env
