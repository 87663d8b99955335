"""A plan: defaults filled in, arguments checked before anything is made."""

import dataclasses
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from envs.probe_env import ProbeEnv
from runs.helpers import ITERATION, TINY, plan_of, quiet, resume, train

import duologue as dl
from duologue.envs.probe import ProbeEnvs
from duologue.fields import Configurable
from duologue.ops.optim import delayed_rate
from duologue.runs import config
from duologue.runs.environments import describe_source
from duologue.runs.horizon import ended_schedules, fill_schedules, first_schedule_end, gradient_steps, rollouts_needed
from duologue.runs.plan import Plan

OPEN = dataclasses.replace(TINY, learning_rate=dl.Linear(1e-3))
"""Its schedule has no length of its own."""


def plan(algorithm=TINY, env="probe/both", **options):
    return plan_of(algorithm, env, **options).plan


@pytest.mark.parametrize(("steps", "updates"), [(120, 10), (121, 11), (1, 1)])
def test_a_schedule_without_a_length_gets_that_of_the_run(steps, updates):
    assert plan(OPEN, steps=steps).algorithm.learning_rate == dl.Linear(1e-3, updates=updates)
    wrapped = plan(dl.Normalized(OPEN), steps=steps).algorithm
    assert wrapped.algorithm.learning_rate.updates == updates
    assert plan(TINY, steps=steps).algorithm == TINY  # 30 was given, and 30 it stays


def test_more_environments_make_fewer_updates():
    assert plan(OPEN, steps=120, num_envs=6).algorithm.learning_rate.updates == 5
    clone = plan(dl.BC(learning_rate=dl.Linear(1e-3)), steps=1600, num_envs=8)
    assert clone.algorithm.num_envs == 8 and clone.algorithm.learning_rate.updates == 200 - 12  # short of a batch


REPLAYED = dict(
    networks=dl.Networks(hidden_sizes=(4,)), batch_size=4, replay_capacity=240, rollout_length=2, num_envs=3,
    critic_learning_rate=dl.Linear(1e-3), actor_learning_rate=dl.Linear(1e-3), learning_starts=25,
)  # fmt: skip


@pytest.mark.parametrize("algorithm", [dl.SAC(**REPLAYED), dl.TD3(**REPLAYED, policy_delay=3)], ids=["sac", "td3"])
def test_a_schedule_ends_with_the_last_step_of_its_network(algorithm, tmp_path):
    """Replay begins late, and TD3's actor moves once for D steps of the critics, whose count its schedule has."""
    run = train("Pendulum-v1", tmp_path / "run", iterations=5, algorithm=algorithm)
    delay = getattr(algorithm, "policy_delay", 1)
    rollouts_with_an_update = 6  # of six steps each: those that end at 30, 36, … 60
    assert run.plan.algorithm.critic_learning_rate.updates == rollouts_with_an_update * delay
    assert int(run.state.critics.opt_state[0].count) == rollouts_with_an_update * delay
    assert int(run.state.actor.opt_state[0].count) == rollouts_with_an_update
    rate = run.plan.algorithm.actor_learning_rate
    assert delayed_rate(rate, delay)(run.state.actor.opt_state[-1].count) == 0.0 and delayed_rate(7.0, delay) == 7.0
    assert (
        not ended_schedules(dataclasses.replace(run.plan, steps=60))
        and "step 60 " in ended_schedules(dataclasses.replace(run.plan, steps=61))[0]
    )


def test_learning_from_rollouts_and_from_replay_counts_both():
    acer = dl.ACER(num_envs=4, rollout_length=5, learning_starts=100, replay_ratio=4.0)
    assert [gradient_steps(acer, n) for n in (4, 5, 10)] == [4, 5 + 4, 10 + 6 * 4]
    assert [rollouts_needed(acer, float(n)) for n in (4, 9, 34)] == [4, 5, 10]


def test_a_schedule_keeps_its_length_when_the_run_goes_on(tmp_path, fake_loop):
    run = train("probe/both", tmp_path / "run", iterations=3, algorithm=OPEN)
    assert run.plan.algorithm.learning_rate.updates == 3
    again = resume(run.path, iterations=5)
    assert again.plan.algorithm.learning_rate.updates == 3 and dl.load(run.path).plan == again.plan
    assert again.plan.steps == 5 * ITERATION


def test_every_schedule_is_filled_wherever_it_stands(unchecked):
    class Holder(Configurable):
        inner: Any
        kind: type = Plan

    with pytest.raises(dl.ConfigError, match=r"this run makes no update.* reduce learning_starts"):
        fill_schedules(Holder(dl.Linear(1.0)), 0)
    filled = fill_schedules(Holder((Holder(dl.Linear(1.0)), dl.Linear(2.0, updates=3))), 7)
    assert filled.inner[0].inner == dl.Linear(1.0, updates=7) and filled.kind is Plan
    assert filled.inner[1].updates == 3 == first_schedule_end(filled)
    assert first_schedule_end(TINY) == 30 and first_schedule_end(Holder(1.0)) is None


def test_defaults():
    made = plan(steps=100_000)
    assert made.num_envs == TINY.num_envs and made.log_every == 500 and made.save_every == 10_000
    small = plan(steps=100)
    assert small.log_every == small.save_every == ITERATION  # never oftener than an iteration
    assert plan(log_every=7, save_every=9).log_every == 7
    assert made.name == plan(dl.Normalized(TINY)).name == "A2C"


def test_a_plan_is_read_back_from_its_file():
    made = plan(dl.Normalized(OPEN), seeds=3, evaluate_every=50)
    assert config.from_dict(config.to_dict(made), extra=(Plan,)) == made


@pytest.mark.parametrize(
    ("field", "value"),
    [("save_every", 0), ("seeds", 0), ("num_envs", 0), ("evaluate_every", 0), ("learned", -1), ("window", 0)],
)
def test_a_file_with_a_number_that_cannot_be_is_refused_by_name(field, value):
    with pytest.raises(dl.ConfigError, match=rf"{field} = {value}: must be an integer (in \[|>= )"):
        config.from_dict(config.to_dict(plan()) | {field: value}, extra=(Plan,))


def test_a_file_with_a_share_that_cannot_be_is_refused_by_name():
    with pytest.raises(dl.ConfigError, match=r"offline_fraction = 1\.5: must be a number in \[0, 1\)"):
        config.from_dict(config.to_dict(plan()) | {"offline_fraction": 1.5}, extra=(Plan,))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, r"steps = 0: must be an integer in \[1, "),
        ({"steps": 2**31}, r"steps = 2147483648: must be"),
        ({"steps": 1e6}, r"steps = 1000000\.0: must be an integer"),
        ({"steps": True}, r"steps = True: must be an integer"),
        ({"steps": float("nan")}, r"steps = nan"),
        ({"seed": -1}, r"seed = -1: must be an integer in \[0, "),
        ({"seed": None}, r"seed = None"),
        ({"seeds": 0}, r"seeds = 0"),
        ({"num_envs": 0}, r"num_envs = 0"),
        ({"num_envs": "8"}, r"num_envs = '8'"),
        ({"evaluate_every": 0}, r"evaluate_every = 0"),
        ({"evaluate_episodes": 0}, r"evaluate_episodes = 0"),
        ({"evaluate_episodes": None}, r"evaluate_episodes = None"),
        ({"save_every": 0}, r"save_every = 0"),
        ({"log_every": -3}, r"log_every = -3"),
        ({"max_episode_steps": 0}, r"max_episode_steps = 0"),
        ({"asynchronous": True}, r"asynchronous: probe/both is written in JAX"),
        ({"env": "probe/bohT"}, r"no probe 'bohT'\. Did you mean 'both'"),
        pytest.param({"env": "gymnax/CartPol-v1"}, r"Did you mean 'CartPole-v1'", marks=pytest.mark.needs("gymnax")),
        ({"env": "CartPol-v1"}, r"no Gymnasium environment 'CartPol-v1'.*'CartPole-v1'"),
        ({"env": 3}, r"env = 3: must be an id, a callable"),
        ({"algorithm": dl.A2C}, r"algorithm = .*must be an algorithm object, like duologue\.A2C\(\)"),
        ({"algorithm": "a2c"}, r"algorithm = 'a2c': must be an algorithm object"),
    ],
)
def test_what_cannot_work_is_refused_by_name(options, message, unchecked):
    with pytest.raises(dl.ConfigError, match=message):
        plan(**options)


class Odd(gym.Env):
    """Spaces that are asked for."""

    def __init__(self, action=None, observation=None):
        self.action_space = action or gym.spaces.Discrete(2)
        self.observation_space = observation or gym.spaces.Box(-1, 1, (2,))


@pytest.mark.parametrize(
    ("spaces", "message"),
    [
        ({"action": gym.spaces.Text(3)}, r"action space Text.* is not supported"),
        ({"action": gym.spaces.Dict({"a": gym.spaces.Discrete(2)})}, r"action space Dict.* is not supported"),
        ({"action": gym.spaces.Box(0, 1000, (2,), np.int64)}, r"component 0 has 1,001 integer values, more than 1,000"),
        ({"action": gym.spaces.Box(np.array([0, -5]), np.array([1, 2**40]), dtype=np.int64)}, "component 1 has"),
        ({"action": gym.spaces.Box(np.float32([-1, 2]), np.float32([1, 2]))}, "component 1 has low = 2 and high = 2"),
        (
            {"observation": gym.spaces.Sequence(gym.spaces.Discrete(2))},
            r"observation space Sequence.* is not supported",
        ),
    ],
)
def test_spaces_that_cannot_be_served(tmp_path, spaces, message):
    with pytest.raises(dl.ConfigError, match=message):
        dl.train(TINY, lambda: Odd(**spaces), steps=100, run_dir=tmp_path / "run", console=quiet())
    assert not (tmp_path / "run").exists()


def factory():
    return ProbeEnv("both")


def test_what_is_no_id_is_described_by_its_name():
    assert describe_source("CartPole-v1") == "CartPole-v1"
    assert describe_source(factory).endswith("test_plan.factory>") and describe_source(factory).startswith("<")
    assert describe_source(ProbeEnvs("both", 2)) == "<duologue.envs.probe.ProbeEnvs>"
    assert plan(env=factory).env == describe_source(factory)


def test_integers_of_numpy_are_integers(unchecked):
    made = plan(seed=np.int64(3), steps=np.int32(100))
    assert made.seed == 3 and config.from_dict(config.to_dict(made), extra=(Plan,)) == made
