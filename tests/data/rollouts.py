"""Transitions that tell when and where they come from, rings of them, and how tests compare."""

import jax
import numpy as np
from scipy import stats

from duologue.data import ring as rings
from duologue.types import Transition

ENVS = 10
"""Of which a reward can tell."""

ADD = jax.jit(rings.add)
SAMPLE = jax.jit(rings.sample, static_argnums=(2, 3))


def encoded(time, env):
    """The transitions of environments `env` at times `time`, of one shape: every leaf tells both, or a part of it."""
    time, env = np.asarray(time), np.asarray(env)

    def obs(time):
        image = np.stack([time, 3 * env, time + env], -1).astype(np.uint8)
        return {"vector": np.stack([time, env], -1).astype(np.float32), "image": image}

    flags = (time + env) % 3 == 0, (time + 2 * env) % 5 == 0
    extras = {"log_prob": -(time + 0.5 * env).astype(np.float32)}
    action, reward = (time * env).astype(np.int32), (ENVS * time + env).astype(np.float32)
    return Transition(obs(time), action, reward, *flags, obs(time + 1), extras)


def decoded(reward):
    """`(time, env)` of rewards."""
    return np.divmod(np.asarray(reward).astype(int), ENVS)


def rollout(began, length, envs):
    return encoded(*np.meshgrid(np.arange(began, began + length), np.arange(envs), indexing="ij"))


def step(envs):
    """Like one row of a rollout."""
    return jax.tree.map(lambda x: x[0], rollout(0, 1, envs))


def filled(adds, *, length, envs, capacity):
    """A ring after so many rollouts."""
    ring = rings.init(step(envs), capacity)
    for i in range(adds):
        ring = ADD(ring, rollout(i * length, length, envs))
    return ring


def assert_equal(a, b, **tolerance):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype and x.shape == y.shape
        np.testing.assert_allclose(x, y, **tolerance) if tolerance else np.testing.assert_array_equal(x, y)


def assert_uniform(cells, count):
    """Chi-square of so many kinds of cells, numbered from 0; the keys are fixed, and so is the result."""
    counts = np.bincount(np.ravel(cells), minlength=count)
    assert len(counts) == count and counts.sum() >= 20 * count
    assert stats.chisquare(counts).pvalue > 1e-3


def part(transition, rows):
    return jax.tree.map(lambda x: x[rows], transition)
