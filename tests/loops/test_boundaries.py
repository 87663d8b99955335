"""What the host loop leaves when an environment fails: the beginning of the rollout, bit for bit."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from data.rollouts import assert_equal
from envs.failing import arm

import duologue as dl
from duologue.envs.base import AbstractHostEnvs
from duologue.envs.make import make_seeds
from duologue.loops import host
from duologue.loops.dispatch import find_changed_leaves
from duologue.types import Box, Discrete, EnvSpec, Step

NETWORKS = dl.Networks(hidden_sizes=(4,))
ON_POLICY = dl.Normalized(dl.A2C(networks=NETWORKS, rollout_length=4, num_envs=2))
OFF_POLICY = dl.SAC(networks=NETWORKS, batch_size=4, learning_starts=8, start_steps=8, replay_capacity=100)


def intervals(algorithm, kind, seeds, *, saved=None):
    """Every state and totals of a run, copied; the generator may raise."""
    envs = make_seeds(kind, algorithm.experience.num_envs, seed=seeds[0], seeds=len(seeds))
    first, message = (
        (host.start(algorithm, envs, seeds), None) if saved is None else host.restore(algorithm, envs, saved)
    )
    assert message is None
    for step, state, totals in host.run(algorithm, envs, first, steps=48, interval=16):
        yield step, jax.tree.map(lambda x: jnp.copy(x) if isinstance(x, jax.Array) else x, state), totals


def arrays(state):
    """A state without its key."""
    return jax.tree.map(np.array, dataclasses.replace(state, key=None))


@pytest.mark.parametrize(
    ("algorithm", "seeds", "fails", "boundary"),
    [(ON_POLICY, [0, 1], 2 * 31, 24), (OFF_POLICY, [0], 30, 29)],
    ids=["observing, two seeds", "replay"],
)
def test_the_last_boundary_comes_before_the_error_and_goes_on_bit_for_bit(algorithm, seeds, fails, boundary):
    """Episodes of 7 steps end within the failed rollout. What was counted until the boundary is counted once."""
    whole = list(intervals(algorithm, arm(), seeds))
    found = []
    with pytest.raises(dl.EnvError, match="the arm is gone"):
        for each in intervals(algorithm, arm(fails), seeds):
            found.append(each)
    assert [step for step, _, _ in found] == [16, boundary]
    again = list(intervals(algorithm, arm(), seeds, saved=found[-1][1]))
    assert [step for step, _, _ in again] == [32, 48]
    assert_equal(arrays(again[-1][1]), arrays(whole[-1][1]))
    for name in ("episodes", "returns", "lengths", "updates"):
        counted = [sum(np.asarray(getattr(totals, name)) for _, _, totals in run) for run in (whole, found + again)]
        np.testing.assert_allclose(*counted, rtol=1e-6)


def test_an_error_in_the_first_rollout_after_a_state_leaves_that_state():
    """There is nothing new to yield, and the last state is still there: none of it was donated."""
    kind = arm(18)
    loop = host.run(
        ON_POLICY, envs := make_seeds(kind, 2, seed=0, seeds=1), host.start(ON_POLICY, envs, [0]), steps=48, interval=16
    )
    step, state, _ = next(loop)
    kept = arrays(state)
    with pytest.raises(dl.EnvError, match="the arm is gone"):
        next(loop)
    assert step == 16
    assert_equal(arrays(state), kept)
    assert list(loop) == []


class Own(AbstractHostEnvs):
    """An adapter of a user's own: it counts its steps, and knows neither marks nor `EnvError`."""

    def __init__(self, error=None):
        self.spec, self.num_envs, self.error = EnvSpec("own", Box((1,)), Discrete(2)), 2, error

    def reset(self):
        self.t = 0
        return np.zeros((2, 1), np.float32)

    def step(self, action):
        self.t += 1
        if self.t == 6 and self.error is not None:
            raise self.error
        obs = np.full((2, 1), self.t, np.float32)
        over = np.zeros(2, bool)
        return Step(obs, obs, np.ones(2, np.float32), over, over, {})

    def snapshot(self):
        return {"t": np.asarray(self.t), "episode": np.zeros(2, np.int32)}

    def restore(self, snapshot):
        self.t = int(snapshot["t"])
        return np.full((2, 1), self.t, np.float32), None

    def close(self):
        pass


@pytest.mark.parametrize("error", [ConnectionError("the arm is gone"), SystemExit("the arm is gone")])
def test_an_adapter_of_ones_own_has_boundaries_too(error):
    algorithm = dl.A2C(networks=NETWORKS, rollout_length=4, num_envs=2)
    loop = host.run(algorithm, envs := Own(error), host.start(algorithm, envs, [0]), steps=16, interval=16)
    step, state, _ = next(loop)
    assert step == 8 and state.env["t"] == 4 and state.obs.tolist() == [[4], [4]]
    with pytest.raises(dl.EnvError, match=f"^Own raised {type(error).__name__}: the arm is gone") as raised:
        next(loop)
    assert raised.value.__cause__ is error


def test_leaves_that_a_function_passes_on_are_known():
    def observe(leaves, x):
        a, b, c = leaves
        return [a, b + x, jnp.where(x > 0, c, c)]

    assert find_changed_leaves(observe, [jnp.zeros(2), jnp.zeros(2), jnp.zeros(2)], jnp.ones(2)) == [1, 2]
