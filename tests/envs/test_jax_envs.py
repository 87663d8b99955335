"""gymnax and probes: the same contract, compiled; and the same physics as Gymnasium."""

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from envs.probe_env import ProbeEnv

from duologue.envs.gymnasium import GymnasiumEnvs
from duologue.envs.make import make
from duologue.envs.probe import PROBES, TRUNCATION_STEPS
from duologue.types import Box, Discrete


def rolled(envs, actions, key):
    """All steps of a compiled rollout, and the observations before them."""
    state, obs = envs.reset(key)

    def one(carry, action):
        state, obs, t = carry
        state, step = envs.step(state, action, key=jax.random.fold_in(key, t))
        return (state, step.obs, t + 1), (obs, step)

    return jax.jit(lambda: jax.lax.scan(one, (state, obs, 0), actions)[1])()


@pytest.mark.needs("gymnax")
def test_gymnax_cartpole_is_gymnasium_cartpole(key):
    """From the same state and actions, the same successors to 1e-6, and ends at the same steps."""
    actions = jax.random.randint(key, (200, 4), 0, 2)
    obs, step = jax.tree.map(np.asarray, rolled(make("gymnax/CartPole-v1", 4), actions, key))
    env, ends = gym.make("CartPole-v1").unwrapped, 0
    env.reset(seed=0)
    for t in range(200):
        for b in range(4):
            env.state, env.steps_beyond_terminated = np.asarray(obs[t, b], np.float64), None
            theirs, _, terminated, _, _ = env.step(int(actions[t, b]))
            np.testing.assert_allclose(step.next_obs[t, b], theirs, atol=1e-6)
            assert bool(step.terminated[t, b]) == terminated
            ends += terminated
    assert ends > 10
    ended = step.terminated | step.truncated
    np.testing.assert_array_equal(step.obs[~ended], step.next_obs[~ended])
    assert (np.abs(step.obs[ended]) <= 0.05).all() and (np.abs(step.next_obs[step.terminated]).max(-1) > 0.2).all()


@pytest.mark.needs("gymnax")
def test_the_time_limit_of_gymnax_truncates(key):
    envs = make("gymnax/Pendulum-v1", 2, max_episode_steps=7)
    assert envs.spec.max_episode_steps == 7 and envs.spec.action == Box((1,), low=(-2.0,), high=(2.0,))
    _, step = rolled(envs, jnp.full((15, 2, 1), 99.0), key)
    assert np.flatnonzero(step.truncated[:, 0]).tolist() == [6, 13] and not step.terminated.any()
    assert make("gymnax/CartPole-v1", 1).spec.action == Discrete(2)


@pytest.mark.parametrize("name", PROBES)
def test_probes_as_jax_and_as_gymnasium_agree(name, key):
    jax_envs, host = make(f"probe/{name}", 3), GymnasiumEnvs(lambda: ProbeEnv(name), 3, seed=0)
    assert jax_envs.spec.observation == host.spec.observation and jax_envs.spec.action == host.spec.action
    shape = (12, 3) if isinstance(jax_envs.spec.action, Discrete) else (12, 3, 1)
    actions = jax.random.randint(key, shape, 0, 2) if len(shape) == 2 else jax.random.uniform(key, shape)
    obs, step = jax.tree.map(np.asarray, rolled(jax_envs, actions, key))
    host.reset()
    for t in range(12):
        # Put the same first observations into Gymnasium's, whose draws are its own.
        for env, each in zip(host._envs, obs[t, :, 0], strict=True):
            env._obs = jnp.asarray(each)
        theirs = host.step(np.asarray(actions[t]))
        np.testing.assert_allclose(theirs.reward, step.reward[t], atol=1e-6)
        np.testing.assert_array_equal(theirs.terminated, step.terminated[t])
        np.testing.assert_array_equal(theirs.truncated, step.truncated[t])
        np.testing.assert_array_equal(theirs.next_obs, step.next_obs[t])


def test_the_truncation_probe_never_terminates(key):
    _, step = rolled(make("probe/truncation", 1), jnp.zeros((2 * TRUNCATION_STEPS, 1), jnp.int32), key)
    assert np.flatnonzero(step.truncated).tolist() == [TRUNCATION_STEPS - 1, 2 * TRUNCATION_STEPS - 1]
    assert not step.terminated.any()


@pytest.mark.parametrize(
    "name", [pytest.param("gymnax/CartPole-v1", marks=pytest.mark.needs("gymnax")), "probe/observation"]
)
def test_each_environment_has_chances_of_its_own(name, key):
    """They begin apart; and those that end together, from one state, begin apart again."""
    envs = make(name, 16)
    state, obs = envs.reset(key)
    assert len(np.unique(obs, axis=0)) > 1
    state, ended = jax.tree.map(lambda x: jnp.broadcast_to(x[:1], x.shape), state), False
    step = jax.jit(lambda s: envs.step(s, jnp.ones(16, jnp.int32), key=key))
    while not ended:
        state, seen = step(state)
        ended = bool(seen.terminated.all())
    assert len(np.unique(seen.next_obs, axis=0)) == 1 and len(np.unique(seen.obs, axis=0)) > 1
