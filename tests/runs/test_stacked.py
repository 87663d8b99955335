"""Runs whose replay holds each frame of a stack once: stopped and gone on with, from before, and from elsewhere."""

import json

import jax.numpy as jnp
import pytest
from envs.scripted import Counting
from gymnasium.wrappers import FrameStackObservation
from loops.recorder import Recorder
from runs.helpers import assert_same_run, leaves, quiet

import duologue as dl
from duologue.envs import gymnasium as adapter
from duologue.types import Experience, Replay


class Keeper(Recorder):
    """Remembers what it was given; its ring has wrapped after 24 steps."""

    @property
    def experience(self):
        return Experience(2, 2, learn_from_rollout=False, replay=Replay(24, 4, sequence_length=2))

    def act(self, state, carry, obs, *, key, explore):
        return jnp.mean(obs.astype(jnp.float32), axis=(1, 2, 3))[:, None], {}, carry

    def update(self, state, batch, *, key):
        mean = jnp.mean(batch.obs.astype(jnp.float32) * jnp.square(batch.next_obs.astype(jnp.float32)))
        return {**state, "updates": state["updates"] + 1, "means": state["means"].at[state["updates"]].set(mean)}, {}


def stacked():
    return FrameStackObservation(Counting(), 3)


def otherwise():
    return FrameStackObservation(Counting(), 3, padding_type="zero")


def train(path, steps):
    return dl.train(Keeper(), stacked, steps=steps, run_dir=path, console=quiet(), log_every=20, save_every=20)


def resume(path, env=stacked):
    return dl.resume(path, steps=60, env=env, algorithm=Keeper, console=quiet())


def frames_of(path):
    return {x.shape for name, x in leaves(path).items() if "replay.data.obs" in name}


def test_a_run_cut_in_two_is_the_whole_run(tmp_path):
    whole = train(tmp_path / "whole", 60)
    train(tmp_path / "cut", 40)
    resume(tmp_path / "cut")
    assert_same_run(whole.path, tmp_path / "cut")
    assert frames_of(whole.path) == {(12, 2, 2, 2)}
    with pytest.raises(dl.ConfigError, match="does not stack frames"):
        dl.resume(tmp_path / "cut", steps=80, env=otherwise, algorithm=Keeper, console=quiet())


def test_a_run_from_before_goes_on_with_whole_stacks(tmp_path, monkeypatch):
    """Its configuration does not say that observations are stacks, and its ring holds them whole: bit for bit."""
    with monkeypatch.context() as patch:
        patch.setattr(adapter, "stacks_frames", lambda env: False)
        whole = train(tmp_path / "whole", 60)
        train(tmp_path / "cut", 40)
    path = tmp_path / "cut" / "config.json"
    data = json.loads(path.read_text())
    del data["spec"]["observation"]["stacked"]
    path.write_text(json.dumps(data))
    resume(tmp_path / "cut")
    assert_same_run(whole.path, tmp_path / "cut")
    assert frames_of(whole.path) == {(12, 2, 3, 2, 2)}
