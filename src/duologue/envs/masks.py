"""Masks of actions in environments on the host: the wrapper that puts them into observations, and checks.

A mask belongs into the observation, under `action_mask`. Only there do the policy, the replay and a trained agent find
it.
"""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from duologue.envs.spaces import action_space
from duologue.errors import ConfigError, EnvError
from duologue.types import (
    ACTION_MASK,
    Dict,
    EnvSpec,
    Obs,
    Space,
    bad_masks,
    brief,
    describe_bad_mask,
    has_mask,
    mask_sizes,
)

METHOD = "action_masks"
"""Name of a method that returns the mask of the next action, as sb3-contrib calls it."""


class ActionMask(gym.Wrapper):
    """Puts the mask of the next action into the observation, under `action_mask`.

    The mask comes from a method `action_masks()` of the environment; without this method, from `info["action_mask"]`.
    It holds 1 (or True) for each allowed action. For MultiDiscrete actions, the masks of the components follow one
    another, in one array or in several. A `Dict` observation gets one more part; any other observation becomes the part
    `observation` of a `Dict`. Where an episode has ended, nobody acts: all actions are allowed where the environment
    terminates, and where it truncates without a mask.

    Raises `ConfigError` for actions that no mask can limit, and for an observation that has a mask already; `EnvError`
    for a missing mask, and for one that does not fit the actions.
    """

    def __init__(self, env: gym.Env):
        super().__init__(env)
        self._count = sum(mask_sizes(action_space(env.action_space)))
        if not self._count:
            raise ConfigError(
                f"ActionMask: a mask is not possible for actions of {brief(env.action_space)}. They must be Discrete, "
                "MultiDiscrete or MultiBinary. Leave out the wrapper."
            )
        own = env.observation_space
        self._has_parts = isinstance(own, spaces.Dict)
        parts = dict(own.spaces) if isinstance(own, spaces.Dict) else {"observation": own}
        if ACTION_MASK in parts:
            raise ConfigError(f"ActionMask: the observation has a part {ACTION_MASK!r} already. Leave out the wrapper.")
        self._method = env.get_wrapper_attr(METHOD) if env.has_wrapper_attr(METHOD) else None
        self.observation_space = spaces.Dict({**parts, ACTION_MASK: spaces.Box(0, 1, (self._count,), np.int8)})

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        obs, info = self.env.reset(seed=seed, options=options)
        return self._with_mask(obs, self._mask(info)), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        obs, reward, terminated, truncated, info = self.env.step(action)
        unasked = terminated or (truncated and self._method is None and not gives_mask(info))
        mask = np.ones(self._count, np.int8) if unasked else self._mask(info)
        return self._with_mask(obs, mask), reward, terminated, truncated, info

    def _with_mask(self, obs: Any, mask: np.ndarray) -> dict[str, Any]:
        return {**(obs if self._has_parts else {"observation": obs}), ACTION_MASK: mask}

    def _mask(self, info: Any) -> np.ndarray:
        """The mask of the next action, int8 `[n]`."""
        if self._method is None and not gives_mask(info):
            raise EnvError(f"gave no mask: it has no method {METHOD}(), and info has no {ACTION_MASK!r}")
        given = info[ACTION_MASK] if self._method is None else self._method()
        flat = join_parts(given)
        if flat.size != self._count or not np.isin(flat, (0, 1)).all():
            raise EnvError(
                f"gave the mask {given!r}: must be {self._count} entries for {brief(self.action_space)}, each 1 "
                "(allowed) or 0 (forbidden)"
            )
        return flat.astype(np.int8)


def join_parts(mask: Any) -> np.ndarray:
    """A mask as one array `[n]`; the masks of several components follow one another."""
    several = isinstance(mask, list | tuple) or (isinstance(mask, np.ndarray) and mask.dtype == object)
    return np.concatenate([np.ravel(part) for part in mask]) if several else np.ravel(mask)


def gives_mask(info: Any) -> bool:
    """Whether the `info` of a Gymnasium environment holds a mask."""
    return isinstance(info, dict) and ACTION_MASK in info


def unused_mask_notes(spec: EnvSpec, env: gym.Env, *, in_info: bool) -> list[str]:
    """A note about masks that an environment gives outside of its observation, where nobody reads them. `in_info`: it
    gave one in the `info` of a reset."""
    method = env.has_wrapper_attr(METHOD)
    seen = isinstance(spec.observation, Dict) and ACTION_MASK in spec.observation.spaces
    if seen or not mask_sizes(spec.action) or not (method or in_info):
        return []
    where = " and ".join([f"a method {METHOD}()"] * method + [f"info[{ACTION_MASK!r}]"] * in_info)
    remedy = (
        "in the callable, return duologue.ActionMask(env)"
        if spec.id.startswith("<")
        else f"pass env=lambda: duologue.ActionMask(gymnasium.make({spec.id!r}))"
    )
    return [
        f"{spec.id} gives masks of actions in {where}, but none in its observation: every action stays allowed. To "
        f"forbid actions, {remedy}"
    ]


def check_masks(obs: Obs, action: Space, step: Any, over: Any = False) -> None:
    """Raise `EnvError` for the first of the observations `[*seeds, B]` that has an action mask and cannot be acted on.
    They are acted on at step `step` of each environment, one number or `[*seeds]`. Environments that are `over` do not
    act any more."""
    if has_mask(obs) and np.any(bad := np.asarray(bad_masks(obs, action) & ~np.asarray(over))):
        *seed, i = np.argwhere(bad)[0].tolist()
        at = int(np.asarray(step)[tuple(seed)] if np.ndim(step) else step)
        raise mask_error(obs[ACTION_MASK][(*seed, i)], action, i, at, *seed)


def mask_error(mask: Any, action: Space, i: int, step: int, seed: int | None = None) -> EnvError:
    """Error for the mask of environment `i` at its step `step`."""
    of_seed = "" if seed is None else f" of seed number {seed}"
    return EnvError(f"environment {i}{of_seed} gave {describe_bad_mask(mask, action)} (at its step {step:,})")
