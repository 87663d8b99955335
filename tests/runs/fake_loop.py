"""A loop that compiles nothing and learns nothing, for tests of runs in which the learner is not what is tested."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from duologue.loops.keys import run_key
from duologue.loops.state import LoopState, Totals
from duologue.runs import drive

EPISODE = 5
"""Steps of every episode; each step pays 1."""


def moved(x):
    return np.asarray(x) + np.asarray(0.125 if x.dtype.kind == "f" else 1, x.dtype)


class FakeLoop:
    """Fills the algorithm's arrays with the seed, and adds 1/8 (to integers 1) for each rollout."""

    def start(self, algorithm, envs, seeds):
        like = jax.eval_shape(lambda key: algorithm.init(envs.spec, key=key), run_key(0))
        states = [jax.tree.map(lambda x, seed=seed: np.full(x.shape, seed, x.dtype), like) for seed in seeds]
        keys = [run_key(seed) for seed in seeds]
        several = len(seeds) > 1
        state = jax.tree.map(lambda *x: np.stack(x), *states) if several else states[0]
        key, step = (jnp.stack(keys), np.zeros(len(seeds), np.int32)) if several else (keys[0], np.zeros((), np.int32))
        return LoopState(state, carry=None, env=None, obs=None, episodes=None, replay=None, key=key, step=step)

    shapes = start

    def restore(self, algorithm, envs, state):
        return state, None

    def run(self, algorithm, envs, state, *, steps, interval, interrupted=lambda: False):
        length, rollout = algorithm.experience.rollout_length, algorithm.experience.rollout_length * envs.num_envs
        step, last, every = int(np.ravel(state.step)[0]), -(-steps // rollout) * length, max(1, interval // rollout)
        while step < last:
            began, until = step, min((step // (every * length) + 1) * every * length, last)
            while step < until and not interrupted():
                step += length
                learned = jax.tree.map(moved, state.algorithm)
                state = replace(state, algorithm=learned, step=np.full_like(state.step, step))
            ended = np.full_like(state.step, (step // EPISODE - began // EPISODE) * envs.num_envs)
            updates = np.full_like(state.step, (step - began) // length)
            yield step * envs.num_envs, state, Totals(
                ended, EPISODE * ended, EPISODE * ended, updates, {"entropy": 0.5 * updates}, None, None
            )  # fmt: skip


@contextmanager
def no_learning() -> Iterator[None]:
    """Runs that begin or resume inside have the fake loop."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drive, "choose_loop", lambda envs: FakeLoop())
        yield
