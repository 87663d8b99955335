"""Replay that cannot work is refused with words before anything is made; rewards that are too large stop the run, and
what was saved before stays."""

import dataclasses
import io
import re

import gymnasium as gym
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console
from runs.helpers import leaves, plan_of, quiet, rows, saved

import duologue as dl
from duologue.algorithms.sac import SAC
from duologue.envs.probe import ProbeEnvs
from duologue.runs import checks

SMALL = dict(
    networks=dl.Networks(hidden_sizes=(4,), init="lecun"), batch_size=4, replay_capacity=40, learning_starts=4,
    start_steps=4,
)  # fmt: skip
TINY = SAC(**SMALL)


def plan(algorithm, env="probe/action-continuous", **options):
    return plan_of(algorithm, env, **{"steps": 100} | options).plan


class Unbounded(gym.Env):
    """Any real number is an action."""

    observation_space, action_space = gym.spaces.Box(-1, 1, (2,)), gym.spaces.Box(-np.inf, np.inf, (1,))


class Remembering(SAC):
    """Learns from what its policy knew when it acted."""

    @property
    def experience(self):
        return dataclasses.replace(super().experience, extras=("log_prob",))

    def act(self, state, carry, obs, *, key, explore):
        action, _, carry = super().act(state, carry, obs, key=key, explore=explore)
        return action, {"log_prob": jnp.zeros(obs.shape[0])}, carry


def changed(**fields):
    return dataclasses.replace(TINY, **fields)


REFUSED = {
    "discrete-sac": (TINY, "probe/both", r"Discrete\(n=2, start=0\) is not supported: .*SACDiscrete, ACER"),
    "discrete-td3": (dl.TD3(**SMALL), "probe/both", r"Discrete\(n=2, start=0\) is not supported: .*SACDiscrete, ACER"),
    "real-discrete": (dl.SACDiscrete(**SMALL), "probe/action-continuous", r"must be Discrete, .* Box use SAC"),
    "unbounded": (TINY, Unbounded, r"Box.* is not supported: .*Give bounds with gymnasium\.wrappers\.RescaleAction"),
    "batch": (
        changed(batch_size=41), "probe/action-continuous",
        r"batch_size = 41: must be at most 40, the transitions that a replay_capacity of 40 keeps here\. Give",
    ),
    "extras": (
        Remembering(**SMALL), "probe/action-continuous",
        r"start_steps = 4: must be 0 here\. .* knew when it acted \(log_prob\)",
    ),
    "batch-of-rollouts": (
        changed(batch_size=37, rollout_length=4, num_envs=9), "probe/action-continuous",
        r"batch_size = 37: must be at most 36, the transitions that a replay_capacity of 40 keeps here",
    ),
    "rollout": (
        changed(rollout_length=5, num_envs=9), "probe/action-continuous",
        r"replay_capacity = 40: must be at least 45 here, one sequence in whole rollouts of each",
    ),
    "sequence": (
        changed(rollout_length=4, num_envs=3, n_step=14), "probe/action-continuous",
        r"replay_capacity = 40: must be at least 48 here, one sequence in whole rollouts of each",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_replay_that_cannot_work_is_refused_before_anything_is_made(case, tmp_path):
    algorithm, env, words = REFUSED[case]
    with pytest.raises(dl.ConfigError, match=words):
        dl.train(algorithm, env, steps=100, run_dir=tmp_path / "run", console=quiet())
    assert not (tmp_path / "run").exists()


def test_the_nearest_that_works_is_taken():
    """As large as the capacity allows, and not one more: see the refusals above."""
    plan(changed(batch_size=40))
    plan(changed(rollout_length=5, num_envs=8))
    plan(changed(rollout_length=4, num_envs=3, n_step=12))
    plan(Remembering(**SMALL | {"start_steps": 0}))


def test_a_replay_larger_than_this_machine_names_both_sizes_and_the_way_out(tmp_path, monkeypatch):
    """A transition has 2 · 4 bytes of observations, 4 of action, 4 of reward and 2 flags; a ring a few beside."""
    huge = changed(replay_capacity=10**12)
    words = r"replay_capacity = 1,000,000,000,000: the replay needs [\d,.]+ GiB, and [\d,.]+ GiB are available"
    with pytest.raises(dl.ConfigError, match=words):
        dl.train(huge, "probe/action-continuous", steps=100, run_dir=tmp_path / "run", console=quiet())
    assert not (tmp_path / "run").exists()
    for room, seeds in ((40 * 18, 1), (3 * 40 * 18, 3)):
        monkeypatch.setattr(checks, "device_memory", lambda room=room, seeds=seeds: room + 20 * seeds)
        plan(TINY, seeds=seeds)
        monkeypatch.setattr(checks, "device_memory", lambda room=room: room - 1)
        with pytest.raises(dl.ConfigError, match=r"Give less than 3\d, or fewer seeds"):
            plan(TINY, seeds=seeds)


def test_the_memory_there_is_what_a_control_group_allows(tmp_path, monkeypatch):
    group = tmp_path / "memory.max"
    monkeypatch.setattr(checks, "CONTROL_GROUP", group)
    whole = checks.device_memory()
    for text, there in (("max\n", whole), ("4096\n", 4096), (f"{10**18}\n", whole)):
        group.write_text(text)
        assert checks.device_memory() == there


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"replay_capacity": 0}, r"SAC\.replay_capacity = 0: must be an integer >= 1"),
        ({"replay_capacity": 1e6}, r"SAC\.replay_capacity = 1000000\.0: must be"),
        ({"batch_size": -1}, r"SAC\.batch_size = -1: must be an integer >= 1"),
        ({"start_steps": -1}, r"SAC\.start_steps = -1: must be an integer >= 0"),
        ({"learning_starts": "1000"}, r"SAC\.learning_starts = '1000': must be"),
        ({"tau": 1.5}, r"SAC\.tau = 1\.5: must be a number in \[0, 1\]"),
        ({"alpha": 0.2}, r"SAC\.alpha = 0\.2: must be"),
        ({"buffer_size": 100}, r"no field 'buffer_size'"),
    ],
)
def test_a_mistake_in_a_field_of_replay_is_one_clear_message(fields, words, unchecked):
    with pytest.raises(dl.ConfigError, match=words):
        SAC(**SMALL | fields)


class Explosive(ProbeEnvs):
    """Pays 1e30, whose square no float holds, from its fifteenth step on."""

    def reset(self, key):
        state, obs = super().reset(key)
        return (state, jnp.int32(0)), obs

    def step(self, env_state, action, *, key):
        state, seen = super().step(env_state[0], action, key=key)
        count = env_state[1] + 1
        return (state, count), seen._replace(reward=jnp.where(count >= 15, 1e30, seen.reward))


@pytest.mark.parametrize(
    ("algorithm", "env"),
    [
        *((algorithm, "action-continuous") for algorithm in (SAC, dl.SACv1, dl.TD3, dl.DDPG)),
        (dl.SACDiscrete, "action"),
    ],
)
def test_rewards_too_large_stop_with_words_and_keep_what_was_saved(algorithm, env, tmp_path):
    """The row of step 16 is the first that learned from one; what is on disk is from before, and finite."""
    with pytest.raises(dl.DuologueError, match=r"diverged: train/\w+ is not finite at step 16\. .*are intact"):
        dl.train(
            algorithm(**SMALL | {"rollout_length": 2, "batch_size": 32}), Explosive(env, 1), steps=40,
            run_dir=tmp_path / "run", log_every=4, save_every=4, console=quiet(),
        )  # fmt: skip
    assert [row["step"] for row in rows(tmp_path / "run")] == [4, 8, 12, 16]
    assert saved(tmp_path / "run") == [8, 12]
    assert all(np.isfinite(leaf).all() for leaf in leaves(tmp_path / "run").values() if leaf.dtype.kind == "f")


def test_what_a_replay_takes_is_said_before_the_first_step(tmp_path):
    said = io.StringIO()
    console = Console(file=said, width=1000)
    dl.train(TINY, "probe/action-continuous", steps=40, run_dir=tmp_path / "run", console=console)
    text = said.getvalue()
    assert re.search(r"replay: up to [\d.,]+ [KM]iB of memory", text) and text.index("replay: up") < text.index("step ")


def test_a_refusal_carries_no_note_of_jax():
    with pytest.raises(dl.ConfigError) as refused:
        dl.train(dl.SAC(), "probe/both", steps=100)
    assert not getattr(refused.value, "__notes__", [])
