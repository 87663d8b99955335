"""Runs on images: each tells once how it reads their axes, and never reads bytes on another scale."""

import dataclasses

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.wrappers import FrameStackObservation
from runs.helpers import TINY, plan_of, quiet

import duologue as dl
from duologue.runs import drive
from duologue.runs.environments import has_same_spaces
from duologue.runs.options import RunOptions
from duologue.runs.planning import Sources, make_plan
from duologue.runs.session import Listeners
from duologue.types import Box, Dict, EnvSpec

NETWORKS = dl.Networks(hidden_sizes=(4,))


class Seen(gym.Env):
    """Episodes of five steps; the observation is any sample of its space."""

    action_space = gym.spaces.Box(-1, 1, (2,))

    def __init__(self, space):
        self.observation_space = space

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.left = 5
        return self.observation_space.sample(), {}

    def step(self, action):
        self.left -= 1
        return self.observation_space.sample(), 1.0, False, self.left == 0, {}


def of_bytes(*shape, high=1):
    return lambda: Seen(gym.spaces.Box(0, high, shape, np.uint8))


def parts():
    box = gym.spaces.Box
    return Seen(gym.spaces.Dict({"camera": box(0, 255, (3, 9, 9), np.uint8), "state": box(-1, 1, (3,))}))


def said(env, path, algorithm=dl.A2C, **fields):
    console = quiet()
    networks = dl.Networks(hidden_sizes=(4,), **fields)
    dl.train(algorithm(networks=networks, num_envs=1), env, steps=20, run_dir=path, console=console)
    return [line for line in console.file.getvalue().splitlines() if " are images of " in line]


@pytest.mark.parametrize(
    ("env", "fields", "words"),
    [
        (of_bytes(8, 8, 111), {}, "observations are images of 8 × 8 with 111 channels"),
        (of_bytes(7, 7, 20), {"channels": "first"}, "observations are images of 7 × 20 with 7 channels"),
        (of_bytes(36, 36, 64), {}, "observations are images of 36 × 36 with 64 channels"),
        (of_bytes(4, 9, 9, 3, high=255), {}, "observations are images of 9 × 9 with 12 channels"),
        (lambda: FrameStackObservation(of_bytes(9, 7)(), 8), {}, "observations are images of 9 × 7 with 8 channels"),
        (parts, {}, "observations/camera are images of 9 × 9 with 3 channels"),
    ],
)
def test_a_run_tells_once_how_it_reads_images(env, fields, words, tmp_path, fake_loop):
    assert said(env, tmp_path / "run", **fields) == [words]


def test_a_run_without_images_tells_nothing(tmp_path, fake_loop):
    assert said(of_bytes(8, 8, 3), tmp_path / "none", channels="none") == []
    assert said(of_bytes(128, high=255), tmp_path / "ram") == []


def test_several_networks_tell_it_once():
    """BEAR has a builder for its policy and critics, and one for its model of the actions."""
    spec = EnvSpec("", Box((8, 8, 12)), Box((2,), low=(-1.0,) * 2, high=(1.0,) * 2))
    plan = dataclasses.replace(plan_of(TINY, "CartPole-v1").plan, spec=spec, algorithm=dl.BEAR())
    assert drive.reading_notes(plan) == ["observations are images of 8 × 8 with 12 channels"]
    vectors = dl.Networks(channels="none")
    one = dataclasses.replace(plan, algorithm=dl.Normalized(dl.BEAR(networks=vectors)))
    assert drive.reading_notes(one) == drive.reading_notes(plan)
    none = dataclasses.replace(plan, algorithm=dl.BEAR(networks=vectors, vae_networks=vectors))
    assert drive.reading_notes(none) == []


def test_an_environment_whose_bytes_have_another_scale_is_another_one(tmp_path, fake_loop):
    """The networks would read the same pixel as another number."""
    path = tmp_path / "run"
    dl.train(dl.A2C(networks=NETWORKS, num_envs=1), of_bytes(8, 8, 3), steps=20, run_dir=path, console=quiet())
    with pytest.raises(dl.ConfigError, match="The spaces of the environment differ"):
        dl.resume(path, steps=40, env=of_bytes(8, 8, 3, high=255), console=quiet())
    dl.resume(path, steps=40, env=of_bytes(8, 8, 3), console=quiet())


def test_bounds_that_no_network_reads_may_differ():
    plan, spec = plan_of(TINY, "CartPole-v1").plan, lambda space: EnvSpec("", space, plan.spec.action)
    before = Dict({"floats": Box((3,)), "bytes": Box((9, 9, 3), "uint8")})
    plan = dataclasses.replace(plan, spec=spec(before))
    floats = Box((3,), "float32", (0.0,) * 3, (1.0,) * 3)
    pixels = Box((9, 9, 3), "uint8", (0.0,), (255.0,))
    assert has_same_spaces(plan, spec(Dict({"floats": floats, "bytes": pixels})))
    board = dataclasses.replace(pixels, high=(1.0,))
    assert not has_same_spaces(plan, spec(Dict({"floats": floats, "bytes": board})))


def test_an_agent_of_data_keeps_to_bytes_of_the_scale_that_the_data_gave_it(tmp_path):
    rng = np.random.default_rng(0)
    data = dl.from_columns(
        {
            "observations": rng.integers(5, size=(20, 8, 8, 3), dtype=np.uint8), "rewards": np.ones(20),
            "actions": rng.uniform(-1, 1, (20, 2)), "terminals": np.arange(20) % 5 == 4,
        }
    )  # fmt: skip
    algorithm = dl.IQL(networks=NETWORKS, batch_size=4)
    options = RunOptions(steps=4)
    plan, _, _ = make_plan(algorithm, Sources(None, data), options)
    agent = drive.Agent(tmp_path, plan, 4, None, None)
    with pytest.raises(
        dl.ConfigError, match=r"The data gave the agent the observation space .* Train on the data again"
    ):
        sources = Sources(of_bytes(8, 8, 3, high=4), data)
        drive.finetune_run(agent, sources, 0.0, options, tmp_path / "on", Listeners())
