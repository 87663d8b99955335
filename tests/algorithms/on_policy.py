"""A rollout with every kind of end, its advantages in a NumPy loop, and the action spaces of on-policy methods."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from algorithms.by_hand import begun, perturbed

from duologue.networks.builder import Networks
from duologue.types import ACTION_MASK, Box, Dict, Discrete, EnvSpec, MultiDiscrete, Transition

T, B = 6, 4
SMALL = Networks(hidden_sizes=(4,))
DISCRETE = EnvSpec("discrete", Box((3,)), Discrete(3))
BOX = EnvSpec("box", Box((3,)), Box((2,), low=(-1.0, 0.0), high=(1.0, 5.0)))
MULTI = EnvSpec("multi", Box((3,)), MultiDiscrete((2, 3)))
MASKED = EnvSpec("masked", Dict({"x": Box((3,)), ACTION_MASK: Box((3,), "float32")}), Discrete(3))


def a_rollout(spec, seed=0):
    """`[T, B]`; the second row has all four: goes on, terminated, truncated, both. The last action is always masked."""
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(2, T, B, 3)).astype(np.float32)
    ends = generator.random((2, T, B)) < 0.2
    ends[0][1], ends[1][1] = [False, True, False, True], [False, False, True, True]
    match spec.action:
        case Box(low=low, high=high):
            action = generator.uniform(low, high, size=(T, B, 2)).astype(np.float32)
        case MultiDiscrete(nvec):
            action = generator.integers(nvec, size=(T, B, len(nvec))).astype(np.int32)
        case _:
            action = generator.integers(2, size=(T, B)).astype(np.int32)
    obs, next_obs = x
    if isinstance(spec.observation, Dict):
        mask = np.broadcast_to(np.array([1, 1, 0], np.float32), (T, B, 3))
        obs, next_obs = {"x": obs, ACTION_MASK: mask}, {"x": next_obs, ACTION_MASK: mask}
    reward = generator.normal(size=(T, B)).astype(np.float32)
    return jax.tree.map(jnp.asarray, Transition(obs, action, reward, ends[0], ends[1], next_obs, {}))


def started(algorithm, spec, key):
    """A state whose networks are far from their initial values."""
    state = begun(algorithm, spec, key)
    return eqx.tree_at(lambda s: s.networks, state, perturbed(state.networks, 1))


def nets(state):
    """The networks alone, of TRPO as of those with one optimiser for all."""
    return getattr(state.networks, "net", state.networks)


def flat(x):
    """`[T, B, ...]` to `[T B, ...]`."""
    return x.reshape(-1, *x.shape[2:])


def by_loop(networks, batch, discount, lambda_):
    """Advantage, target and value of every sample `[T B]`, float32: one environment after the other, backwards."""
    value, next_value = (np.asarray(networks.value(obs), np.float64) for obs in (batch.obs, batch.next_obs))
    reward, terminated, truncated = map(np.asarray, (batch.reward, batch.terminated, batch.truncated))
    advantage = np.zeros((T, B))
    for b in range(B):
        after = 0.0
        for t in reversed(range(T)):
            delta = reward[t, b] + discount * (0.0 if terminated[t, b] else next_value[t, b]) - value[t, b]
            after = delta + discount * lambda_ * (0.0 if terminated[t, b] or truncated[t, b] else after)
            advantage[t, b] = after
    return tuple(flat(x).astype(np.float32) for x in (advantage, advantage + value, value))


def assert_equal(a, b):
    """To the bit."""
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


def differ(a, b):
    return any(bool((x != y).any()) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))
