"""Published constants that are defaults, and rates of learning: what no equation holds and a slip would change."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from algorithms.by_hand import SMALL, SPEC, a_batch, begun, float64

import duologue as dl
from duologue.runs.horizon import gradient_steps_per_rollout
from duologue.types import Discrete, EnvSpec

RATES = {"actor": 0.01, "critics": 0.02, "value": 0.03}


def test_published_constants():
    bear, acer, td3 = dl.BEAR(), dl.ACER(), dl.TD3()
    assert (bear.warm_start, bear.candidates, bear.target_candidates, bear.samples, bear.tau) == (
        20_000, 10, 10, 5, 0.005
    )  # fmt: skip
    assert (bear.distance.kernel, bear.distance.sigma, bear.multiplier.initial) == ("gaussian", 20.0, 1.0)
    assert (acer.truncation, acer.trust_region, acer.average_decay, acer.replay_ratio) == (10.0, 1.0, 0.99, 4.0)
    assert (td3.target_noise, td3.target_noise_clip, td3.exploration_noise, td3.policy_delay) == (0.2, 0.5, 0.1, 2)
    assert dl.SAC().tau == dl.SACv1().tau == td3.tau == dl.DDPG().tau == 0.005
    assert dl.SAC().alpha.initial == 1.0 and dl.SACv1().alpha == 0.2
    assert (dl.IQL().expectile, dl.IQL().inverse_temperature, dl.IQL().max_weight) == (0.7, 3.0, 100.0)
    assert (dl.PPO().objective.epsilon, dl.TRPO().max_kl, dl.TD3BC().alpha) == (0.2, 0.01, 2.5)


@pytest.mark.parametrize("make", [dl.SAC, dl.SACv1, dl.TD3, dl.DDPG, dl.CQL, dl.IQL, dl.TD3BC])
def test_critics_make_one_step_for_each_of_the_environment(make):
    algorithm = make()
    assert gradient_steps_per_rollout(algorithm.experience) == (0.0, algorithm.num_envs * algorithm.rollout_length)


def of(make):
    """With a rate of its own for each network."""
    more = {"value_learning_rate": RATES["value"], "policy_delay": 1}
    given = {name: value for name, value in more.items() if name in make.__dataclass_fields__}
    return make(networks=SMALL, actor_learning_rate=RATES["actor"], critic_learning_rate=RATES["critics"], **given)


@pytest.mark.parametrize("make", [dl.SAC, dl.SACv1, dl.SACDiscrete, dl.TD3, dl.DDPG, dl.CQL, dl.IQL, dl.TD3BC])
def test_each_network_moves_at_its_own_rate(make, key):
    """Adam's first step is its rate wherever a gradient is not tiny."""
    algorithm, batch, spec = of(make), a_batch(), SPEC
    if make is dl.SACDiscrete:
        spec, batch = EnvSpec("", SPEC.observation, Discrete(3)), batch._replace(action=jnp.ones((2, 7), jnp.int32))
    shape = () if make is dl.IQL else (1, 1) if "policy_delay" in make.__dataclass_fields__ else (1,)
    batch = jax.tree.map(lambda x: jnp.broadcast_to(x[0], (*shape, *x.shape[1:])), batch)
    before = begun(algorithm, spec, key)
    after, _ = jax.jit(algorithm.update)(before, batch, key=key)
    before, after = (getattr(state, "sac", state) for state in (before, after))
    names = RATES.keys() & vars(before).keys()
    assert {"actor", "critics"} <= names
    for name in names:
        pairs = zip(float64(getattr(before, name)), float64(getattr(after, name)), strict=True)
        rate = RATES["critics"] if make is dl.SACv1 and name == "value" else RATES[name]
        np.testing.assert_allclose(max(np.abs(a - b).max() for a, b in pairs), rate, rtol=1e-2, err_msg=name)
