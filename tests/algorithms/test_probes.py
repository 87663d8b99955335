"""Every probe solved on every one of 32 seeds, all in one compiled program; on 100 of 100 in `make slow`."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import duologue as dl
from duologue.envs.probe import PROBES, ProbeEnvs
from duologue.loops import compiled
from duologue.ops.distributions import Categorical
from duologue.ops.temperature import Fixed
from duologue.runs.horizon import fill_schedules, gradient_steps
from duologue.types import Box

DISCOUNT = 0.8
SEEDS = pytest.mark.parametrize("seeds", [32, pytest.param(100, marks=pytest.mark.slow)])
FAST = dict(
    networks=dl.Networks(hidden_sizes=(8,)), optimizer=dl.Adam(), learning_rate=3e-2, discount=DISCOUNT, num_envs=4
)
UPDATES, WARM_UP = 1000, 200


def rate(start, updates=UPDATES):
    return dl.Linear(start, 1e-4, updates=updates)


# The actor is the slower one, lest it saturate while the critic still knows nothing.
REPLAYED = dict(
    networks=dl.Networks(hidden_sizes=(16,), init="lecun"), actor_learning_rate=rate(5e-3),
    critic_learning_rate=rate(2e-2), discount=DISCOUNT, tau=0.1, batch_size=16, replay_capacity=WARM_UP + UPDATES,
    learning_starts=WARM_UP, start_steps=WARM_UP + UPDATES // 2, rollout_length=1,
)  # fmt: skip
SEQUENCES = dict(
    networks=dl.Networks(hidden_sizes=(8,), initial_log_std=-2.0), optimizer=dl.Adam(), discount=DISCOUNT, num_envs=4,
    learning_rate=rate(1e-2, 600), batch_size=8, rollout_length=5, replay_ratio=1.0, replay_capacity=4000,
    learning_starts=100,
)  # fmt: skip
LEARNERS = {
    "a2c": dl.A2C(entropy_coefficient=0.0, **FAST),
    "ppo": dl.PPO(rollout_length=16, minibatch_size=32, epochs=4, **FAST | {"learning_rate": dl.Linear(1e-2, 1e-4)}),
    "trpo": dl.TRPO(
        rollout_length=32,
        minibatch_size=32,
        epochs=10,
        conjugate_gradient_steps=5,
        max_kl=0.03,
        **FAST | {"learning_rate": dl.Linear(3e-2, 1e-4)},
    ),
    "acer": dl.ACER(**SEQUENCES),
    "acer-continuous": dl.ACERContinuous(**SEQUENCES),
    "sac": dl.SAC(alpha=Fixed(0.0), **REPLAYED),
    "sac-v1": dl.SACv1(alpha=0.0, **REPLAYED),
    "sac-discrete": dl.SACDiscrete(alpha=Fixed(0.0), **REPLAYED),
    "td3": dl.TD3(**REPLAYED | {"critic_learning_rate": rate(2e-2, 2 * UPDATES)}),
    "ddpg": dl.DDPG(**REPLAYED),
}
BOXES = {"sac", "sac-v1", "td3", "ddpg", "acer-continuous"}
HARDEST = {
    "ppo": ["both", "truncation", "both-continuous"],
    "trpo": ["both", "both-continuous"],
    "acer": ["discount", "both", "truncation"],
    "acer-continuous": ["truncation", "both-continuous"],
}
"""Of those that share what the others ask of them with A2C, or take long."""
SAME_FOR_ALL = {"constant", "observation", "discount", "truncation"}
"""Probes that pay the same for every action, and so can be asked with real ones."""


class Indifferent(ProbeEnvs):
    """A probe that pays the same for every action, with real actions."""

    def __init__(self, name, num_envs):
        super().__init__(name, num_envs)
        self.spec = dataclasses.replace(self.spec, action=Box((1,), "float32", (-1.0,), (1.0,)))


def served(learner):
    """The probes an algorithm can be asked, as it takes actions; what `constant` asks of it, `observation` does too."""
    if learner in HARDEST:
        return HARDEST[learner]
    if learner in BOXES:
        return [name for name in PROBES if name in SAME_FOR_ALL - {"constant"} or name.endswith("continuous")]
    return [name for name in PROBES if learner == "a2c" or (not name.endswith("continuous") and name != "constant")]


def learned(algorithm, envs, seeds):
    """The learners of that many seeds."""
    steps = {True: 400 * 20, False: WARM_UP + UPDATES}[algorithm.experience.learn_from_rollout]
    algorithm = fill_schedules(algorithm, gradient_steps(algorithm, steps // rollout(algorithm)))
    begin = compiled.start(algorithm, envs, list(range(seeds)))
    *_, (_, state, _) = compiled.run(algorithm, envs, begin, steps=steps, interval=steps)
    return state.algorithm


def rollout(algorithm):
    """Environment steps of one."""
    return algorithm.num_envs * algorithm.experience.rollout_length


def choice_and_values(algorithm, learner, obs):
    """The probabilities of discrete actions or the most likely real one, and V(s) by every network that tells it: Q at
    this choice."""
    parts = getattr(learner, "networks", learner)
    parts = getattr(parts, "net", parts)
    policy = parts.policy(obs) if hasattr(parts, "policy") else parts.actor(obs)
    discrete = isinstance(policy, Categorical)
    choice = policy if isinstance(policy, jax.Array) else policy.probs if discrete else policy.mode()
    if hasattr(learner, "networks"):
        return choice, algorithm.v(learner, obs)[None]
    values = jnp.sum(choice[None] * learner.critics(obs), axis=-1) if discrete else learner.critics(obs, choice)
    return choice, jnp.concatenate([values, learner.value(obs)[None]]) if hasattr(learner, "value") else values


def found(algorithm, state, obs):
    """What `choice_and_values` tells of each seed at an observation, for NumPy."""
    obs = jnp.full((1, 1), float(obs))
    program = jax.jit(jax.vmap(lambda learner: choice_and_values(algorithm, learner, obs)))
    return [np.asarray(x) for x in program(state)]


@SEEDS
@pytest.mark.parametrize(("learner", "name"), [(learner, name) for learner in LEARNERS for name in served(learner)])
def test_a_probe_is_solved_on_every_seed(learner, name, seeds):
    """Values within 0.05 of the closed form (1/(1 − γ), for the truncation probe), the right action with p ≥ 0.95; real
    ones within 0.1 where one is right everywhere, else so near that 1 − (a − a*)² is within 0.05 of the best."""
    algorithm = LEARNERS[learner]
    kind = Indifferent if learner in BOXES and name in SAME_FOR_ALL else ProbeEnvs
    envs = kind(name, algorithm.num_envs)
    state = learned(algorithm, envs, seeds)
    cases = PROBES[name].cases(DISCOUNT)
    near = 0.1 if len(cases) == 1 else 0.05**0.5
    for case in cases:
        choice, values = found(algorithm, state, case.obs)
        said = f"V({case.obs}) lies in [{values.min()}, {values.max()}]: must be {case.value}"
        assert np.abs(values - case.value).max() < 0.05, said
        if case.action is not None and isinstance(envs.spec.action, Box):
            assert np.abs(choice - case.action).max() < near
        elif case.action is not None:
            assert choice[:, 0, int(case.action)].min() > 0.95


@SEEDS
@pytest.mark.parametrize(
    ("name", "alpha", "expected"),
    [
        # Q(s₀) = γ (1 + α log 2): the entropy of the step to come, and none of this one's.
        ("discount", 0.5, {0: (DISCOUNT * (1 + 0.5 * np.log(2)), 0.5), 1: (1.0, 0.5)}),
        # A last step: Q = r without any entropy, whatever α; p = 1/(1 + exp(−2/α)).
        ("action", 1.0, {0: (np.tanh(1.0), 1 / (1 + np.exp(-2.0)))}),
    ],
)
def test_the_discrete_version_weighs_the_entropy_of_what_is_to_come(name, alpha, expected, seeds):
    """E_π Q(s, ·), and π(1|s) within 0.03 of the soft-optimal one, softmax(Q/α)."""
    algorithm = dataclasses.replace(LEARNERS["sac-discrete"], alpha=Fixed(alpha))
    state = learned(algorithm, ProbeEnvs(name, 1), seeds)
    for obs, (value, prob) in expected.items():
        choice, values = found(algorithm, state, obs)
        assert np.abs(values - value).max() < 0.05, f"V({obs}) lies in [{values.min()}, {values.max()}]: {value}"
        assert np.abs(choice[:, 0, 1] - prob).max() < 0.03
