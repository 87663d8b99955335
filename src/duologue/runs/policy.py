"""NumPy front end of a trained agent: actions, log-probabilities, Q and V, in the environment's units."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array

from duologue.algorithms.base import AnyAlgorithm, unwrapped
from duologue.envs.spaces import array_type, split_actions
from duologue.errors import ConfigError
from duologue.loops.keys import key_for
from duologue.types import (
    ACTION_MASK,
    Box,
    Dict,
    Discrete,
    EnvSpec,
    MultiDiscrete,
    Obs,
    PyTree,
    Space,
    bad_masks,
    describe_bad_mask,
    from_env_actions,
    to_env_actions,
)


@dataclass(frozen=True)
class TrainedPolicy:
    """An algorithm with its learned state. Every method takes one observation or a batch, NumPy in, NumPy out."""

    algorithm: AnyAlgorithm
    spec: EnvSpec
    state: PyTree

    def act(self, obs: Obs, *, key: Array, explore: bool) -> np.ndarray | np.generic:
        """Actions, ready for `env.step`. Raises `ConfigError` for a policy that remembers the episode."""
        if self.algorithm.remembers:
            name = type(unwrapped(self.algorithm)).__name__
            raise ConfigError(
                f"{name}: its policy remembers the episode, and this call knows one observation of it. Use actor = "
                "run.actor(), then actor.reset() where an episode begins, and actor(obs) at each step."
            )
        batch, single = checked_batch(self.spec, obs)
        carry = self.algorithm.initial_carry(len(jax.tree.leaves(batch)[0]))
        action, _ = self.act_from(carry, batch, key=key, explore=explore)
        return split_actions(self.spec.action, action)[0] if single else action

    def act_from(self, carry: PyTree, batch: Obs, *, key: Array, explore: bool) -> tuple[np.ndarray, PyTree]:
        """Actions `[n, …]` of checked observations, ready for `env.step`, and the next carry."""
        action, carry = _act(self.algorithm, self.state, carry, batch, key, explore)
        return to_env_actions(self.spec.action, np.asarray(action)), carry

    def make_act(self, *, key: Array, explore: bool) -> Callable[[Obs, int, bool], np.ndarray]:
        """A function `(obs, t, began) -> actions`, both `[1, …]` as in adapters. It keeps the carry of the running
        episode, and resets it where an episode `began`."""
        initial = self.algorithm.initial_carry(1)
        carry = initial

        @jax.jit
        def act(state: PyTree, carry: PyTree, obs: Obs, t: Array) -> tuple[Array, PyTree]:
            action, _, carry = self.algorithm.act(state, carry, obs, key=key_for(key, "act", t), explore=explore)
            return action, carry

        def act_on(obs: Obs, t: int, began: bool) -> np.ndarray:
            nonlocal carry
            action, carry = act(self.state, initial if began else carry, obs, np.int32(t))
            return np.asarray(action)

        return act_on

    def evaluate_actions(self, name: str, obs: Obs, action: Any) -> Any:
        """`log_prob` or `q` of actions, one for each observation."""
        batch, single = checked_batch(self.spec, obs)
        values = np.asarray(_call_method(self.algorithm, name, self.state, batch, self._actions(action, batch, single)))
        return values[..., 0] if single else values

    def value(self, obs: Obs) -> Any:
        """V(s), one for each observation."""
        batch, single = checked_batch(self.spec, obs)
        values = np.asarray(_call_method(self.algorithm, "v", self.state, batch))
        return values[0] if single else values

    def _actions(self, action: Any, batch: Obs, single: bool) -> np.ndarray:
        """`action` as the algorithm counts it, with a batch axis. Raises `ConfigError` for other shapes or values."""
        count, space = len(jax.tree.leaves(batch)[0]), self.spec.action
        shape, dtype = env_action_type(space)
        actions = cast_exactly(action, dtype, f"The action of {space}")
        expected = shape if single else (count, *shape)
        if actions.shape != expected:
            raise ConfigError(f"action has shape {actions.shape}: must be {expected}, one for each observation.")
        inside = from_env_actions(space, actions[None] if single else actions)
        match space:
            case Discrete(n, start):
                check_counts(action, inside, np.asarray(start), np.asarray(n), space)
            case MultiDiscrete(nvec):
                check_counts(action, inside, space.starts, np.asarray(nvec), space)
        return inside


def check_counts(action: Any, inside: np.ndarray, start: np.ndarray, n: np.ndarray, space: Space) -> None:
    """Raise `ConfigError` for discrete actions, `inside` from 0, that are not below `n`."""
    if not ((inside >= 0) & (inside < n)).all():
        raise ConfigError(f"action = {action!r}: must be one of {start} to {start + n - 1} in {space}.")


def env_action_type(space: Space) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and dtype of one action of the environment; 64 bits for integers and float32 for real numbers."""
    match space:
        case Box(shape):
            return shape, np.dtype(np.float32)
        case MultiDiscrete(nvec, shape=shape):
            return (len(nvec),) if shape is None else shape, np.dtype(np.int64)
    return (), np.dtype(np.int64)


def checked_batch(spec: EnvSpec, obs: Obs) -> tuple[Obs, bool]:
    """`to_batch` of observations to act on. Raises `ConfigError` also for an action mask that allows no action."""
    batch, single = to_batch(spec.observation, obs)
    if (bad := np.flatnonzero(bad_masks(batch, spec.action))).size:
        which = "The observation" if single else f"Observation {bad[0]}"
        raise ConfigError(f"{which} has {describe_bad_mask(batch[ACTION_MASK][bad[0]], spec.action)}.")
    return batch, single


def to_batch(space: Space, obs: Obs) -> tuple[Obs, bool]:
    """`(batch, single)`: `obs` with a batch axis in the dtypes of training, and whether it was a single observation.
    Raises `ConfigError` for another shape or dtype."""
    if isinstance(space, Dict):
        if isinstance(obs, tuple | list):  # a Tuple of Gymnasium
            obs = {str(i): part for i, part in enumerate(obs)}
        if not isinstance(obs, dict) or obs.keys() != space.spaces.keys():
            raise ConfigError(f"The observation must be a dict with the keys {sorted(space.spaces)}; got {obs!r}.")
        parts = {name: to_batch(part, obs[name]) for name, part in space.spaces.items()}
        return {name: part[0] for name, part in parts.items()}, any(single for _, single in parts.values())
    shape, dtype = array_type(space)
    if isinstance(space, MultiDiscrete) and space.shape is not None:
        obs = np.asarray(obs)
        obs = obs.reshape(*obs.shape[: max(obs.ndim - len(space.shape), 0)], -1)
    try:
        array = cast_exactly(obs, dtype, "The observation")
    except (TypeError, ValueError) as error:
        raise ConfigError(f"The observation must be {dtype}{list(shape)}; got {obs!r}.") from error
    if array.shape[array.ndim - len(shape) :] != shape or array.ndim - len(shape) not in (0, 1):
        raise ConfigError(
            f"The observation must have the shape {shape}, or {('n', *shape)} in a batch of n; got {array.shape}."
        )
    single = array.ndim == len(shape)
    if isinstance(space, Discrete):
        array = array - space.start
    elif isinstance(space, MultiDiscrete):
        array = array - space.starts
    return (array[None] if single else array), single


def cast_exactly(values: Any, dtype: Any, what: str) -> np.ndarray:
    """`values` in a dtype. Raises `ConfigError` where a cast to integers would change a value, for example pixels
    divided by 255."""
    array = np.asarray(values)
    with np.errstate(invalid="ignore"):  # NaN becomes some integer, and the comparison below finds it
        cast = array.astype(dtype)
    if np.issubdtype(dtype, np.integer) and not np.array_equal(cast, array):
        raise ConfigError(
            f"{what} must be {np.dtype(dtype).name}, whole numbers in its range; got {array.dtype.name}, {array!r}."
        )
    return cast


@eqx.filter_jit
def _act(
    algorithm: AnyAlgorithm, state: PyTree, carry: PyTree, obs: Obs, key: Array, explore: bool
) -> tuple[Array, PyTree]:
    action, _, carry = algorithm.act(state, carry, obs, key=key, explore=explore)
    return action, carry


@eqx.filter_jit
def _call_method(algorithm: AnyAlgorithm, name: str, state: PyTree, *arrays: Any) -> Array:
    return getattr(algorithm, name)(state, *arrays)
