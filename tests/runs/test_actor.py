"""An agent in a user's loop: the memory of every episode is kept, and begins anew where it should."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from algorithms.catalogue import ALL, SACX
from jaxtyping import Array

import duologue as dl
from duologue.algorithms.base import AbstractAlgorithm
from duologue.algorithms.normalized import Normalized
from duologue.fields import Fraction
from duologue.loops.dispatch import find_read_leaves
from duologue.loops.keys import key_for, run_key
from duologue.runs.plan import Plan
from duologue.types import Box, Dict, Discrete, EnvSpec, Experience

ONE = Box((1,))
SPEC = EnvSpec("<none>", ONE, Box((1,)))


class Summing(AbstractAlgorithm[Array]):
    """Its action is the sum of what it has seen in the episode; exploring doubles it."""

    discount: Fraction = 0.9

    @property
    def experience(self) -> Experience:
        return Experience(num_envs=1, rollout_length=1)

    def init(self, spec, *, key):
        return jnp.zeros(())

    def initial_carry(self, num_envs):
        return jnp.zeros((num_envs, 1))

    def act(self, state, carry, obs, *, key, explore):
        carry = carry + (obs["x"] if isinstance(obs, dict) else obs)
        return (2.0 if explore else 1.0) * carry, {}, carry

    def update(self, state, batch, *, key):
        return state, {}


class Counting(Summing):
    """Discrete actions: the number of the step, and the actions count from 5."""

    def act(self, state, carry, obs, *, key, explore):
        return carry[:, 0].astype(jnp.int32), {}, carry + 1


def run_of(algorithm, spec=SPEC, seed=0):
    plan = Plan(algorithm=algorithm, env="<none>", spec=spec, steps=1)
    return dl.Run(path=None, plan=plan, seed=seed, step=0, state=algorithm.init(spec, key=run_key(0)))


@pytest.fixture(autouse=True)
def _paths_may_be_none(unchecked):
    """The agents here have no folder."""


def column(*numbers):
    return np.array(numbers, np.float32)[:, None]


def test_one_episode_after_the_other():
    """Σ of 1, 2, 3 and, from the next episode on, of 4, 5; also under `Normalized`, whose moments are 0 and 1."""
    for algorithm in (Summing(), Normalized(Summing(), obs=False)):
        actor = run_of(algorithm).actor()
        actor.reset()
        assert [actor(np.float32([x])).tolist() for x in (1, 2, 3)] == [[1], [3], [6]]
        actor.reset()
        assert [actor([x]).tolist() for x in (4, 5)] == [[4], [9]]
        actor.reset(np.bool_(False))
        assert actor([1.0]).tolist() == [10]
        actor.reset(True)
        assert actor([1.0]).tolist() == [1]
    exploring = run_of(Summing()).actor(explore=True)
    assert [exploring([1.0]).item() for _ in range(3)] == [2, 4, 6]


def test_every_row_has_a_memory_of_its_own():
    """Against sums in NumPy, with episodes that end at random."""
    rng, actor = np.random.default_rng(0), run_of(Summing()).actor()
    actor.reset()
    sums = np.zeros((4, 1), np.float32)
    for _ in range(12):
        obs = rng.integers(-3, 4, (4, 1)).astype(np.float32)
        sums += obs
        np.testing.assert_array_equal(actor(obs), sums)
        ended = rng.random(4) < 0.3
        actor.reset(ended)
        sums[ended] = 0


def test_spaces_of_other_kinds():
    parts = EnvSpec("<none>", Dict({"x": ONE, "kind": Discrete(3, start=1)}), Box((1,), low=(-2.0,), high=(2.0,)))
    actor = run_of(Summing(), parts).actor()
    batch = {"x": column(1, -1), "kind": np.array([1, 3])}
    assert [actor(batch)[:, 0].tolist() for _ in range(3)] == [[1, -1], [2, -2], [2, -2]]  # inside the box
    counted = run_of(Counting(), EnvSpec("<none>", ONE, Discrete(4, start=5))).actor()
    assert [int(counted([0.0])) for _ in range(3)] == [5, 6, 7]


def test_what_does_not_fit_is_refused():
    actor = run_of(Summing()).actor()
    actor(column(1, 2, 3))
    for wrong in ([True, False], np.array([1, 0, 0]), True, np.zeros((3, 1), bool)):
        with pytest.raises(dl.ConfigError, match=r"must be bool\[3\], one flag for each"):
            actor.reset(wrong)
    for wrong, words in ((column(1, 2), "a batch of 2 episodes"), ([1.0], "one episode")):
        with pytest.raises(dl.ConfigError, match=f"remembers a batch of 3 episodes, and got {words}. Call actor.reset"):
            actor(wrong)
    assert actor(column(1, 1, 1))[:, 0].tolist() == [2, 3, 4]  # nothing of it is lost
    actor.reset()
    assert actor([7.0]).tolist() == [7]
    with pytest.raises(dl.ConfigError, match=r"must be bool\[\]"):
        actor.reset([True])


@pytest.mark.parametrize("algorithm", [Summing(), Counting(), Normalized(Summing())])
def test_one_observation_is_too_little_for_a_policy_that_remembers(algorithm):
    run, name = run_of(algorithm), type(getattr(algorithm, "algorithm", algorithm)).__name__
    for ask in (run.policy, run.sample):
        with pytest.raises(dl.ConfigError, match=rf"^{name}: its policy remembers the episode.*run\.actor\(\)"):
            ask(np.zeros(1))
    with pytest.raises(dl.ConfigError, match="remembers the episode, and fitted Q evaluation reads single transitions"):
        dl.FQE(algorithm)


def test_a_policy_without_memory_acts_as_ever():
    """Call number t of an actor is `run.policy(obs, step=t)`, also where a carry is there for other reasons."""
    sampling = dl.A2C(networks=dl.Networks(hidden_sizes=(8,)), test_policy="sampled")
    obs = np.random.default_rng(0).normal(size=(20, 1)).astype(np.float32)
    for algorithm in (sampling, Normalized(sampling)):
        run = run_of(algorithm, seed=3)
        actor, exploring = run.actor(), run.actor(explore=True)
        for step in range(3):
            actor.reset()
            np.testing.assert_array_equal(actor(obs), run.policy(obs, step=step))
            np.testing.assert_array_equal(exploring(obs), run.sample(obs, step=step))
        assert (run.policy(obs, step=0) != run.policy(obs, step=1)).any()
    spec = EnvSpec("<none>", ONE, Discrete(3), 40, tasks=("left", "right"))
    for algorithm in (SACX, Normalized(SACX, reward=False)):
        run = run_of(algorithm, spec)
        np.testing.assert_array_equal(run.actor()(obs), run.policy(obs))
        np.testing.assert_array_equal(run.actor(task="left")(obs), run.policy(obs, task="left"))


@pytest.mark.parametrize("name", [name for name in ALL if ALL[name].initial_carry(1) is not None])
def test_what_an_algorithm_declares_is_what_its_test_policy_reads(name):
    algorithm = ALL[name]
    spec = EnvSpec("<none>", ONE, Discrete(3), 40, tasks=("left", "right") if algorithm.experience.tasks else ())
    spec = spec if "sac" not in name or algorithm.experience.tasks else SPEC_BOUNDED
    state, carry, key = algorithm.init(spec, key=run_key(0)), algorithm.initial_carry(2), key_for(run_key(0), "act")

    def action(carry):
        return algorithm.act(state, carry, jnp.zeros((2, 1)), key=key, explore=False)[0]

    assert bool(find_read_leaves(action, carry)) == algorithm.remembers
    assert jax.tree.leaves(carry)


SPEC_BOUNDED = EnvSpec("<none>", ONE, Box((1,), low=(-1.0,), high=(1.0,)))
