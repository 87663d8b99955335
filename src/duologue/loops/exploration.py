"""Uniformly random actions of the first steps (`Replay.start_steps`)."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key

from duologue.algorithms.base import AnyAlgorithm
from duologue.errors import ConfigError
from duologue.types import (
    ACTION_MASK,
    Box,
    Discrete,
    EnvSpec,
    MultiDiscrete,
    Obs,
    Space,
    box_sides,
    has_mask,
)


def randomize_first_actions(
    algorithm: AnyAlgorithm, spec: EnvSpec, obs: Obs, action: Array, *, key: Key[Array, ""], steps: Int[Array, ""]
) -> Array:
    """`action` `[B]`, or uniformly random actions during the algorithm's first `start_steps` environment steps."""
    replay = algorithm.experience.replay
    if replay is None or replay.start_steps == 0:
        return action
    return jnp.where(steps < replay.start_steps, uniform_actions(spec.action, obs, action, key), action)


def sample_allowed(mask: Array, key: Key[Array, ""]) -> Int[Array, " B"]:
    """A uniform draw among the actions that each mask `[B, n]` allows."""
    return jnp.argmax(jnp.where(mask > 0, jax.random.uniform(key, mask.shape), -1.0), axis=-1)


def uniform_actions(space: Space, obs: Obs, like: Array, key: Key[Array, ""]) -> Array:
    """Uniformly random actions in the shape and type of `like`, in environment units; a mask limits the choice. Raises
    `ConfigError` for a `Box` without bounds."""
    match space:
        case Discrete() if has_mask(obs):
            return sample_allowed(obs[ACTION_MASK], key).astype(like.dtype)
        case MultiDiscrete(nvec) if has_mask(obs):
            masks, keys = jnp.split(obs[ACTION_MASK], np.cumsum(nvec)[:-1], axis=-1), jax.random.split(key, len(nvec))
            return jnp.stack(list(map(sample_allowed, masks, keys)), axis=-1).astype(like.dtype)
        case Discrete(n):
            return jax.random.randint(key, like.shape, 0, n, like.dtype)
        case MultiDiscrete(nvec):
            return jax.random.randint(key, like.shape, 0, jnp.broadcast_to(jnp.asarray(nvec), like.shape), like.dtype)
        case Box() if space.bounded:
            low, high = (jnp.broadcast_to(jnp.asarray(side, like.dtype), like.shape) for side in box_sides(space))
            return low + (high - low) * jax.random.uniform(key, like.shape, like.dtype)
    raise ConfigError(f"start_steps: actions of {space} cannot be drawn uniformly; some have no bounds. Set it to 0.")
