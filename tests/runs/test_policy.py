"""What a loaded agent answers: mean, sample, log-probability, Q and V, of one observation or of many."""

import gymnasium as gym
import jax.numpy as jnp
import numpy as np
import pytest
from runs.helpers import quiet

import duologue as dl
from duologue.runs.policy import to_batch
from duologue.types import Box

NETWORKS = dl.Networks(hidden_sizes=(8,))
SMALL = {"networks": NETWORKS, "batch_size": 8, "learning_starts": 10, "start_steps": 10, "replay_capacity": 64}
LEARNERS = {
    "sac": (dl.SAC(**SMALL), "Pendulum-v1"),
    "sac-v1": (dl.SACv1(**SMALL), "Pendulum-v1"),
    "sac-discrete": (dl.SACDiscrete(**SMALL), "CartPole-v1"),
    "td3": (dl.TD3(**SMALL), "Pendulum-v1"),
    "normalized": (dl.Normalized(dl.SAC(**SMALL)), "Pendulum-v1"),
    "a2c": (dl.A2C(networks=NETWORKS, num_envs=2), "CartPole-v1"),
}


@pytest.fixture(scope="module", params=LEARNERS)
def agent(request, tmp_path_factory):
    """A few steps of training, loaded again."""
    algorithm, env = LEARNERS[request.param]
    folder = tmp_path_factory.mktemp("asked") / "run"
    dl.train(algorithm, env, steps=40, seed=3, run_dir=folder, console=quiet())
    return request.param, dl.load(folder), gym.make(env)


def observations(env, count):
    return np.stack([env.observation_space.sample() for _ in range(count)]).clip(-5, 5).astype(np.float32)


def test_one_is_a_row_of_many(agent):
    name, run, env = agent
    obs, box = observations(env, 5), isinstance(env.action_space, gym.spaces.Box)
    action = run.policy(obs)
    assert all(env.action_space.contains(a) for a in action) and action.shape == ((5, 1) if box else (5,))
    np.testing.assert_allclose(run.policy(obs[2]), action[2], rtol=1e-5)
    answers = {}
    if name != "td3":
        answers["log_prob"] = run.log_prob(obs, action)
        np.testing.assert_allclose(run.log_prob(obs[2], action[2]), answers["log_prob"][2], rtol=1e-4)
    if name != "a2c":
        answers["q"] = run.q(obs, action)
        assert answers["q"].shape == (2, 5) and np.ptp(answers["q"], axis=0).all()
        np.testing.assert_allclose(run.q(obs[2], action[2]), answers["q"][:, 2], rtol=1e-4, atol=1e-6)
    if name in ("a2c", "sac-v1"):
        answers["v"] = run.v(obs)
        np.testing.assert_allclose(run.v(obs[2]), answers["v"][2], rtol=1e-4, atol=1e-6)
    for answer in answers.values():
        assert isinstance(answer, np.ndarray) and answer.shape[-1] == 5 and np.isfinite(answer).all()


def test_samples_are_draws_of_the_policy(agent):
    """The same draw for the same `step`; different ones otherwise, and about the mean."""
    _, run, env = agent
    obs = np.repeat(observations(env, 1), 2000, 0)
    drawn = run.sample(obs)
    np.testing.assert_array_equal(drawn, run.sample(obs))
    assert (drawn != run.sample(obs, step=1)).any() and np.std(drawn) > 0
    assert all(env.action_space.contains(a) for a in drawn[:20])


def test_the_answers_are_those_of_the_networks(agent):
    name, run, env = agent
    if name in ("a2c", "normalized"):
        return
    obs, state = jnp.asarray(observations(env, 4)), run.state
    action = jnp.asarray(run.sample(obs))
    q = state.critics(obs) if name == "sac-discrete" else state.critics(obs, action)
    q = q[:, np.arange(4), action] if name == "sac-discrete" else q
    np.testing.assert_allclose(run.q(obs, action), q, rtol=1e-5, atol=1e-6)
    if name == "sac-v1":
        np.testing.assert_allclose(run.v(obs), state.value(obs), rtol=1e-5, atol=1e-6)
    if name != "td3":
        np.testing.assert_allclose(run.log_prob(obs, action), state.actor(obs).log_prob(action), rtol=1e-4, atol=1e-5)


def test_densities_are_those_of_environment_units(agent):
    """∫ π(a|s) da = 1 over the torque's range, [−2, 2]."""
    name, run, env = agent
    if name not in ("sac", "sac-v1", "normalized"):
        return
    actions = np.linspace(-2, 2, 4001)[:, None].astype(np.float32)
    density = np.exp(run.log_prob(np.repeat(observations(env, 1), len(actions), 0), actions))
    np.testing.assert_allclose(np.trapezoid(density, actions[:, 0]), 1.0, atol=0.01)


def test_what_is_no_observation_is_refused():
    for obs in ("abc", [[1.0], [1.0, 2.0]], {"a": 1}):
        with pytest.raises(dl.ConfigError, match=r"The observation must be float32\[2\]; got"):
            to_batch(Box((2,)), obs)


def test_what_is_not_learned_is_refused(agent):
    name, run, env = agent
    obs = observations(env, 2)
    action = run.policy(obs)
    lacking = {"td3": ["log_prob", "v"], "a2c": ["q"], "sac": ["v"], "sac-discrete": ["v"], "normalized": ["v"]}
    for what in lacking.get(name, []):
        message = "distribution of actions" if what == "log_prob" else f"cannot compute {what}"
        with pytest.raises(dl.ConfigError, match=message):
            run.v(obs) if what == "v" else getattr(run, what)(obs, action)


def test_actions_that_do_not_fit_are_refused(agent):
    name, run, env = agent
    obs = observations(env, 2)
    ask = run.log_prob if name == "a2c" else run.q
    for wrong in (run.policy(obs)[0], np.zeros((2, 3)), np.zeros((3, 1))):
        with pytest.raises(dl.ConfigError, match="one for each observation"):
            ask(obs, wrong)


def test_integers_take_nothing_but_integers():
    """Pixels that were divided by 255 would all be black."""
    space = Box((2,), "uint8")
    np.testing.assert_array_equal(to_batch(space, np.array([3.0, 255.0]))[0], [[3, 255]])
    for wrong in ([0.5, 1.0], [-1, 3], [256, 0], [np.nan, 1.0]):
        with pytest.raises(dl.ConfigError, match="observation must be uint8, whole numbers in its range"):
            to_batch(space, np.array(wrong))


def test_actions_that_there_are_not_have_no_answer(agent):
    _, run, env = agent
    if not isinstance(env.action_space, gym.spaces.Discrete):
        pytest.skip("of counted actions")
    for wrong, words in ((0.7, "whole numbers"), (7, "must be one of 0 to 1"), (-1, "must be one of 0 to 1")):
        with pytest.raises(dl.ConfigError, match=words):
            run.log_prob(observations(env, 1)[0], wrong)
