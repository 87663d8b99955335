"""Atari games as everybody plays them (Mnih et al., 2015; Machado et al., 2018), by Gymnasium's own wrappers.

Frames are skipped by fours, of the last two the brighter pixels are seen, in grey, 84 × 84, four of them stacked; a
game begins with up to 30 no-ops. `ALE/…-v5` ids repeat the last action with probability 0.25 instead of the one that
was asked for; results from before 2018 do not. These repetitions are drawn by Gymnasium here, frame by frame as the
emulator would: its own generator takes a seed only by loading the game anew, which costs 0.2 s an episode.
"""

import copy
from collections.abc import Callable
from typing import Any, SupportsFloat

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec, WrapperSpec
from gymnasium.utils import seeding

from duologue.errors import ConfigError


def is_atari(name: str) -> bool:
    return name.startswith("ALE/")


def atari_spec(
    name: str, max_episode_steps: int | None = None, *, life_loss: bool = False, sticky: float | None = None
) -> EnvSpec | str:
    """What `gymnasium.make` makes the game of, wrappers and all; a process that does not know this library can, but for
    `life_loss`. A name that is no game's stays as it is, for `make` to refuse. The limit is in steps of the agent, four
    frames each: `make` itself would count frames. `sticky` is the probability of a repetition, by default the id's."""
    import ale_py

    gym.register_envs(ale_py)
    if name not in gym.registry:
        return name
    spec = copy.deepcopy(gym.spec(name))
    repeated = spec.kwargs.get("repeat_action_probability", 0.0) if sticky is None else sticky
    spec.kwargs.update(frameskip=1, repeat_action_probability=0.0)  # both are wrappers'
    spec.entry_point = game_maker()
    limit = WrapperSpec("TimeLimit", "gymnasium.wrappers:TimeLimit", {"max_episode_steps": max_episode_steps})
    spec.additional_wrappers = (
        WrapperSpec("StickyAction", "gymnasium.wrappers:StickyAction", {"repeat_action_probability": repeated}),
        WrapperSpec("AtariPreprocessing", "gymnasium.wrappers:AtariPreprocessing", {"noop_max": 30, "frame_skip": 4}),
        *(() if max_episode_steps is None else (limit,)),
        *((WrapperSpec("LifeLoss", f"{__name__}:LifeLoss", {}),) if life_loss else ()),
        WrapperSpec("FrameStackObservation", "gymnasium.wrappers:FrameStackObservation", {"stack_size": 4}),
    )
    return spec


def atari(
    name: str, *, life_loss: bool = True, max_episode_steps: int | None = None,
    repeat_action_probability: float | None = None, **options: Any,
) -> gym.Env:  # fmt: skip
    """A preprocessed game for `train`'s callables, `lambda: atari("ALE/Breakout-v5")`, with further `options` of
    `gymnasium.make`.

    With `life_loss`, losing a life ends an episode, while the game goes on with the next: returns are then those of
    lives, and so are stacks of frames. An id given to `train` plays whole games. `max_episode_steps` ends a game, and
    counts the agent's steps. Raises `ConfigError` for an id that is no game's.
    """
    if not is_atari(name):
        raise ConfigError(f"{name!r} is no Atari game: their ids begin with ALE/, like ALE/Breakout-v5.")
    return gym.make(
        atari_spec(name, max_episode_steps, life_loss=life_loss, sticky=repeat_action_probability), **options
    )


def game_maker() -> Callable[..., gym.Env]:
    """A maker of the game itself. Every episode begins where the game stood when it was loaded, and so follows from its
    seed alone.

    All of it is local, so a process of its own is sent the code and not a name: it does without this library and JAX.
    """
    import ale_py

    class Loaded(gym.Wrapper):
        def __init__(self, env: gym.Env):
            super().__init__(env)
            self._game: Any = env.unwrapped
            self._start = self._game.ale.cloneSystemState()

        @property
        def spec(self) -> EnvSpec | None:
            return self.env.spec  # `make` wants none but its own wrappers in it

        def reset(
            self, *, seed: int | None = None, options: dict[str, Any] | None = None
        ) -> tuple[Any, dict[str, Any]]:
            if seed is not None:
                self._game.np_random, _ = seeding.np_random(seed)
            self._game.ale.restoreSystemState(self._start)
            return self.env.reset(options=options)

    def game(**options: Any) -> gym.Env:
        ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)  # else every game prints its banner
        return Loaded(ale_py.AtariEnv(**options))

    game.metadata = ale_py.AtariEnv.metadata  # pyright: ignore[reportFunctionMemberAccess]  # `make` reads it
    return game


class LifeLoss(gym.Wrapper):
    """Terminates where a life is lost, and begins the next episode where the game stands; only when the game is over
    it begins anew."""

    def __init__(self, env: gym.Env):
        super().__init__(env)
        self._lives, self._over = 0, True

    def new_game(self) -> None:
        """Let the next reset begin a new game, wherever this one stands."""
        self._over = True

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        if self._over:
            obs, info = self.env.reset(seed=seed, options=options)
        else:
            obs, _, terminated, truncated, info = self.env.step(0)
            if terminated or truncated:
                obs, info = self.env.reset(seed=seed, options=options)
        self._lives, self._over = self._left(), False
        return obs, info

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        obs, reward, terminated, truncated, info = self.env.step(action)
        self._over, lost = terminated or truncated, self._left() < self._lives
        self._lives = self._left()
        return obs, reward, terminated or lost, truncated, info

    def _left(self) -> int:
        return self.env.unwrapped.ale.lives()  # pyright: ignore[reportAttributeAccessIssue]


def begin_new_game(env: gym.Env) -> None:
    """Let the next reset of `env` begin a new game, where only lives are its episodes."""
    while isinstance(env, gym.Wrapper):
        if isinstance(env, LifeLoss):
            env.new_game()
        env = env.env
