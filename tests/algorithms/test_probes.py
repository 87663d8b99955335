"""Every probe solved on 100 of 100 seeds, all seeds in one compiled program."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import duologue as dl
from duologue.envs import make
from duologue.envs.probe import PROBES
from duologue.loops import compiled
from duologue.types import Box

SEEDS, DISCOUNT, STEPS = 100, 0.8, 400 * 20
FAST = dict(
    networks=dl.Networks(hidden_sizes=(8,)), optimizer=dl.Adam(), learning_rate=3e-2, discount=DISCOUNT, num_envs=4
)
LEARNERS = {"a2c": dl.A2C(entropy_coefficient=0.0, **FAST)}


@pytest.mark.parametrize("name", PROBES)
@pytest.mark.parametrize("learner", LEARNERS)
def test_a_probe_is_solved_on_every_seed(learner, name):
    """Values within 0.05 of the closed form (1/(1 − γ), for the truncation probe), the right action with p ≥ 0.95."""
    algorithm, envs = LEARNERS[learner], make(f"probe/{name}", 4)
    begin = compiled.start(algorithm, envs, list(range(SEEDS)))
    *_, (_, state, _) = compiled.run(algorithm, envs, begin, steps=STEPS, interval=STEPS)
    for case in PROBES[name].cases(DISCOUNT):
        obs = jnp.full((1, 1), case.obs)
        policy, value = jax.vmap(lambda n, obs=obs: n.policy_and_value(obs))(state.algorithm.networks)
        value = np.asarray(value[:, 0])
        found = f"V({case.obs}) lies in [{value.min()}, {value.max()}]: must be {case.value}"
        assert np.abs(value - case.value).max() < 0.05, found
        if case.action is not None and isinstance(envs.spec.action, Box):
            assert np.abs(np.asarray(policy.loc) - case.action).max() < 0.1
        elif case.action is not None:
            assert np.asarray(policy.probs[:, 0, int(case.action)]).min() > 0.95
