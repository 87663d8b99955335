"""Masks in whole runs: what a trained agent is asked, what is recorded, what a run refuses and says."""

import io

import gymnasium as gym
import jax
import numpy as np
import pytest
from envs.masked import Elsewhere, Masked, MaskedInJax
from gymnasium import spaces
from rich.console import Console

import duologue as dl
from duologue.runs.checks import check_mask
from duologue.runs.policy import TrainedPolicy
from duologue.types import ACTION_MASK, Box, Dict, Discrete, EnvSpec, MultiDiscrete

SMALL = dl.Networks(hidden_sizes=(8,))
A2C, SAC = dl.A2C(networks=SMALL, rollout_length=4, num_envs=2), dl.SACDiscrete(networks=SMALL, replay_capacity=80)
NAN = float("nan")


def agent(algorithm, action, dtype="float32"):
    size = sum(getattr(action, "nvec", (getattr(action, "n", 0),)))
    spec = EnvSpec("own", Dict({"x": Box((2,)), ACTION_MASK: Box((size,), dtype)}), action)
    return TrainedPolicy(algorithm, spec, algorithm.init(spec, key=jax.random.key(0)))


@pytest.mark.parametrize(
    ("mask", "action", "words"),
    [
        ([0, 0, 0], Discrete(3), r"The observation has the action_mask \[0 0 0\], which allows no action"),
        ([[1, 0, 0], [0, 0, 0]], Discrete(3), r"Observation 1 has the action_mask \[0 0 0\], which allows no action"),
        ([1, 0, 0, 0, 0], MultiDiscrete((2, 3)), "which allows no action for component 1"),
        ([1, NAN, 1], Discrete(3), r"\[1 nan 1\]: each entry must be 1"),
        ([1, 255, 1], Discrete(3), r"\[1 255 1\]: each entry must be 1"),
        ([1, -1, 1], Discrete(3, start=2), r"\[1 -1 1\]: each entry must be 1"),
    ],
)
def test_a_trained_agent_refuses_a_mask_that_allows_nothing(mask, action, words):
    mask = np.float32(mask)
    obs = {"x": np.zeros((*mask.shape[:-1], 2), np.float32), ACTION_MASK: mask}
    one = action.start if isinstance(action, Discrete) else np.zeros(len(action.nvec), np.int32)
    actions = np.broadcast_to(one, (*mask.shape[:-1], *np.shape(one)))
    policy = agent(A2C, action)
    asked = [
        lambda: policy.act(obs, key=jax.random.key(0), explore=False),  # run.policy
        lambda: policy.act(obs, key=jax.random.key(0), explore=True),  # run.sample
        lambda: policy.evaluate_actions("log_prob", obs, actions),
    ]
    if isinstance(action, Discrete):
        asked.append(lambda: agent(SAC, action).evaluate_actions("q", obs, actions))
    for ask in asked:
        with pytest.raises(dl.ConfigError, match=words):
            ask()
        obs[ACTION_MASK] = np.ones_like(mask)
        ask()
        obs[ACTION_MASK] = mask


@pytest.mark.parametrize(
    ("observation", "action", "words"),
    [
        ({"a": Dict({"x": Box((2,)), ACTION_MASK: Box((3,))})}, Discrete(3), "lies inside the part 'a'"),
        (
            {"a": Dict({"b": Dict({ACTION_MASK: Box((3,))})}), ACTION_MASK: Box((3,))},
            Discrete(3),
            "inside the part 'a'",
        ),
        ({"x": Box((2,)), ACTION_MASK: Box((3,))}, MultiDiscrete((2, 2)), r"must be a Box of shape \(4,\)"),
        ({"x": Box((2,)), ACTION_MASK: Box((1, 3))}, Discrete(3), r"must be a Box of shape \(3,\)"),
        ({"x": Box((2,)), ACTION_MASK: Discrete(3)}, Discrete(3), r"must be a Box of shape \(3,\)"),
        ({"x": Box((2,)), ACTION_MASK: Box((3,))}, Box((3,)), "a mask is not possible for actions of Box"),
    ],
)
def test_a_mask_that_would_not_be_read_is_refused(observation, action, words):
    with pytest.raises(dl.ConfigError, match=words):
        check_mask(EnvSpec("own", Dict(observation), action))


def train(env, path, algorithm=A2C, **options):
    screen = io.StringIO()
    run = dl.train(algorithm, env, steps=40, run_dir=path, console=Console(file=screen, width=400), **options)
    return run, screen.getvalue()


@pytest.mark.parametrize(
    ("env", "options", "words"),
    [
        (lambda: Masked({(0, 2): [0, 0, 0]}), {}, r"environment 0 gave .*\[0 0 0\].* \(at step 2 of its episode 0"),
        (lambda: Masked({(0, 2): [0, 0, 0]}), {"seeds": 2}, "Seed number 0: environment 0 gave"),
        (
            MaskedInJax(2, (0, 0, 0), 1, 3),
            {"seeds": 2},
            r"environment 1 of seed number 0 gave .*\(at its step 3\)",
        ),
    ],
)
def test_a_run_ends_with_the_name_of_the_mask(env, options, words, tmp_path):
    with pytest.raises(dl.EnvError, match=words):
        train(env, tmp_path / "run", **options)


@pytest.mark.parametrize("where", ["info", "method", "both"])
def test_a_run_says_once_that_masks_are_ignored_and_a_wrapped_one_says_nothing(where, tmp_path):
    mask, envs = np.int8([0, 1, 0]), []

    def made(wrapper):
        envs.append(Elsewhere(mask, where=where))
        return wrapper(envs[-1])

    _, said = train(lambda: made(lambda env: env), tmp_path / "ignored", seeds=2)
    assert said.count("every action stays allowed") == 1 and "return duologue.ActionMask(env)" in said
    assert {action for env in envs for action in env.played} == {0, 1, 2}
    envs.clear()
    run, said = train(lambda: made(dl.ActionMask), tmp_path / "wrapped")
    assert "stays allowed" not in said
    assert {action for env in envs for action in env.played} == {1}
    assert run.policy({"observation": np.zeros(2, np.float32), ACTION_MASK: np.int8([0, 0, 1])}) == 2
    for ask in (run.policy, run.sample, lambda obs: run.log_prob(obs, 1), run.v):
        with pytest.raises(
            dl.ConfigError, match=r"The observation has the action_mask \[0 0 0\], which allows no action"
        ):
            ask({"observation": np.zeros(2, np.float32), ACTION_MASK: np.int8([0, 0, 0])})


def test_recording_refuses_bad_masks_and_names_ignored_ones(tmp_path):
    quiet = Console(file=io.StringIO(), width=400)
    script = {(1, 2): [0, 0, 0], (0, 4): [0, 0, 0]}
    with pytest.raises(dl.EnvError, match=r"gave the action_mask \[0 0 0\], .*at step 2 of its episode 1"):
        dl.collect_random(lambda: Masked(script), 20, tmp_path / "bad.npz", console=quiet)
    assert len(dl.read_data(tmp_path / "bad.npz")) == 5  # the rows before; the last had no mask after it
    with pytest.raises(dl.EnvError, match=r"environment 0 gave the action_mask \[0 0 0\].*at its step 3"):
        dl.collect_random(MaskedInJax(1, (0, 0, 0), 0, 3), 20, tmp_path / "jax.npz", console=quiet)
    dl.collect_random(lambda: Elsewhere(np.int8([0, 1, 0])), 8, tmp_path / "ignored.npz", console=quiet)
    assert quiet.file.getvalue().count("every action stays allowed") == 1

    class Long(gym.Env):
        observation_space = spaces.Dict({"x": spaces.Box(0, 1, (2,)), ACTION_MASK: spaces.Box(0, 1, (5,), np.int8)})
        action_space = spaces.Discrete(3)

    with pytest.raises(dl.ConfigError, match=r"must be a Box of shape \(3,\)"):
        dl.collect_random(Long, 20, tmp_path / "long.npz", console=quiet)
