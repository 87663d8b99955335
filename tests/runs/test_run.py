"""A run from outside: the same bits however it is cut, what its folder gives back, and what acts from it."""

import dataclasses
import shutil

import gymnasium as gym
import jax
import numpy as np
import pytest
from envs.probe_env import ProbeEnv
from oracles import require
from runs.fake_loop import no_learning
from runs.helpers import ITERATION, TINY, assert_same_run, leaves, quiet, resume, rows, saved, train

import duologue as dl
from duologue.envs.gymnasium import GymnasiumEnvs
from duologue.envs.spaces import action_space, observation_space
from duologue.loops.keys import run_key
from duologue.networks.builder import AbstractNetworks
from duologue.runs.plan import Plan
from duologue.storage import checkpoint
from duologue.types import EnvSpec

CARTPOLE = "gymnax/CartPole-v1"
pytestmark = pytest.mark.usefixtures("fake_loop")


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """Ten updates with seed 1, evaluated on the way."""
    require("gymnax")
    return train(CARTPOLE, tmp_path_factory.mktemp("one") / "run", iterations=10, seed=1, evaluate_every=5 * ITERATION)


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """Ten updates with the seeds 0, 1, 2 in one program."""
    require("gymnax")
    return train(CARTPOLE, tmp_path_factory.mktemp("three") / "run", iterations=10, seeds=3)


@pytest.fixture(scope="module")
def unlearned(tmp_path_factory):
    """Ten updates of the fake loop, evaluated on the way."""
    path = tmp_path_factory.mktemp("unlearned") / "run"
    with no_learning():
        return train("probe/truncation", path, iterations=10, seed=1, evaluate_every=5 * ITERATION)


@pytest.fixture
def copied(unlearned, tmp_path):
    """A folder of one's own with the run `unlearned` in it."""
    return shutil.copytree(unlearned.path, tmp_path / "copy")


# Going on


@pytest.mark.learns
@pytest.mark.parametrize(
    ("env", "algorithm", "seeds"),
    [
        pytest.param(CARTPOLE, dl.Normalized(TINY), 1, marks=pytest.mark.needs("gymnax")),
        pytest.param(CARTPOLE, TINY, 3, marks=pytest.mark.needs("gymnax")),
        ("CartPole-v1", dl.Normalized(TINY), 1),
        ("CartPole-v1", TINY, 2),
    ],
    ids=["compiled", "seeds", "host", "seeds on the host"],
)
def test_a_run_cut_in_two_is_the_whole_run(tmp_path, env, algorithm, seeds):
    """Every bit of the state, and every row of metrics; on the host through replay of the running episodes."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train(env, whole, iterations=30, algorithm=algorithm, seeds=seeds)
    train(env, cut, iterations=15, algorithm=algorithm, seeds=seeds)
    assert saved(cut)[-1] == 15 * ITERATION and len(rows(cut)) == 3 * seeds
    half = leaves(cut)
    agent = resume(cut, iterations=30)
    assert agent.step == 30 * ITERATION and agent.plan.steps == 30 * ITERATION
    assert_same_run(whole, cut)
    assert all((half[name] != weights).any() for name, weights in leaves(cut).items() if name.endswith(".weight"))
    steps = [row["step"] for row in rows(cut)]
    assert steps == [5 * ITERATION * i for i in range(1, 7) for _ in range(seeds)]


def test_rows_after_the_checkpoint_are_written_anew(unlearned, copied):
    """As a process leaves them that is killed between two checkpoints; a torn last line too."""
    lines = (copied / "metrics.jsonl").read_text().splitlines(keepends=True)
    shutil.rmtree(copied / "checkpoints" / "latest" / f"step-{10 * ITERATION:012d}")
    (copied / "metrics.jsonl").write_text("".join(lines) + '{"step": 180, "se')
    resume(copied)
    assert_same_run(unlearned.path, copied)


@pytest.mark.learns
def test_the_best_so_far_survives_resuming(one, tmp_path):
    """A worse score later does not take its place."""
    copied = shutil.copytree(one.path, tmp_path / "copy")
    found = checkpoint.find_latest(copied / "checkpoints" / "best")[0]
    resume(copied, iterations=15)
    scores = [row["eval/mean_reward"] for row in rows(copied) if row.get("eval/mean_reward") is not None]
    assert len(scores) == 3
    assert checkpoint.read_manifest(checkpoint.find_latest(copied / "checkpoints" / "best")[0]).info["score"] == max(
        scores
    )
    assert (
        checkpoint.read_manifest(found if found.exists() else checkpoint.find_latest(found.parent)[0]).info["score"]
        >= scores[0]
    )


def test_resuming_past_the_end_of_a_schedule_is_said(tmp_path):
    run, shown = train("probe/both", tmp_path / "run", iterations=28), quiet()
    resume(run.path, iterations=30, console=shown)
    assert "Linear" not in shown.file.getvalue()
    resume(run.path, iterations=31, console=shown)
    assert f"a Linear schedule ends at step {30 * ITERATION} and keeps its last value" in shown.file.getvalue()


def test_resuming_a_finished_run_asks_for_more_steps(copied):
    before = sorted(copied.rglob("*"))
    for steps in (None, 10, 10 * ITERATION):
        with pytest.raises(dl.ConfigError, match="must be above 120"):
            dl.resume(copied, steps=steps)
    assert sorted(copied.rglob("*")) == before


@pytest.mark.parametrize("steps", [0, -5, 1e6, "100", True])
def test_resuming_to_no_count_of_steps(copied, steps, unchecked):
    before = (copied / "config.json").read_bytes()
    with pytest.raises(dl.ConfigError, match=r"steps = .* must be an integer"):
        dl.resume(copied, steps=steps)
    assert (copied / "config.json").read_bytes() == before


def test_an_environment_of_other_spaces_is_refused(copied):
    with pytest.raises(
        dl.ConfigError, match=r"spaces of the environment differ.*In probe/both-continuous: act.* not a D"
    ):
        dl.resume(copied, steps=20 * ITERATION, env="probe/both-continuous")


def test_another_machine_is_noted(copied, monkeypatch):
    there = checkpoint.fingerprint()
    monkeypatch.setattr(checkpoint, "fingerprint", lambda: there | {"jaxlib": "9.9.9"})
    console = quiet()
    resume(copied, iterations=11, console=console)
    assert "not bit-comparable: jaxlib" in console.file.getvalue()


# Damage


def damage(path):
    (path / checkpoint.STATE).write_bytes((path / checkpoint.STATE).read_bytes()[:-1])


def alter(path):
    data = bytearray((path / checkpoint.STATE).read_bytes())
    data[-3] ^= 1
    (path / checkpoint.STATE).write_bytes(data)


def empty(path):
    (path / checkpoint.MANIFEST).write_text("")


@pytest.mark.parametrize(("harm", "words"), [(damage, "bytes instead of"), (alter, "altered"), (empty, "strict JSON")])
def test_the_previous_good_checkpoint_is_used_and_said(unlearned, copied, harm, words, capsys):
    newest = checkpoint.find_latest(copied / "checkpoints" / "latest")[0]
    harm(newest)
    assert dl.load(copied).step == 5 * ITERATION
    said = capsys.readouterr().err.replace("\n", " ")
    assert newest.name in said and "skipped" in said and words in said
    assert newest.exists()
    console = quiet()
    resume(copied, console=console)
    assert newest.name in console.file.getvalue() and "skipped" in console.file.getvalue()
    assert_same_run(unlearned.path, copied)


def test_where_all_are_damaged_nothing_is_begun_or_deleted(copied):
    for path in (copied / "checkpoints" / "latest").iterdir():
        alter(path)
    (copied / "lock").unlink()
    content = {path: path.read_bytes() for path in copied.rglob("*") if path.is_file()}
    for again in (dl.load, dl.resume):
        with pytest.raises(dl.CheckpointError, match=r"no checkpoint that can be loaded.*altered.*altered"):
            again(copied)
    assert {p: p.read_bytes() for p in copied.rglob("*") if p.is_file() and p.name != "lock"} == content


@pytest.mark.parametrize("content", ["", "{}", '{"type": "Plan"}', '{"type": "A2C"}', "[1]"])
def test_a_configuration_that_is_none(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(dl.DuologueError):
        dl.load(tmp_path)


# Loading


def test_loading_makes_no_environment(one, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("an environment was made")

    monkeypatch.setattr("duologue.runs.environments.make_seeds", refuse)
    again = dl.load(one.path)
    assert again.step == one.step and again.seed == one.seed and again.plan == one.plan
    jax.tree.map(np.testing.assert_array_equal, again.state, one.state)
    np.testing.assert_array_equal(again.policy(np.eye(4)), one.policy(np.eye(4)))
    with pytest.raises(AssertionError, match="was made"):
        again.evaluate()


def test_the_best_is_the_state_of_the_best_evaluation(one):
    best = dl.load(one.path, which="best")
    scores = {row["step"]: row["eval/mean_reward"] for row in rows(one.path)}
    assert len(scores) == 2 and scores[best.step] == max(scores.values())
    with pytest.raises(dl.ConfigError, match="'latest' or 'best'"):
        dl.load(one.path, which="last")


def test_there_is_no_best_without_evaluation(three):
    with pytest.raises(dl.CheckpointError, match="no best checkpoint, because it was trained without evaluate_every"):
        dl.load(three.path, which="best")


class Wide(AbstractNetworks):
    """A builder of one's own."""

    factor: int = 2

    def actor_critic(self, spec, *, key):
        return dl.Networks(hidden_sizes=(4 * self.factor,)).actor_critic(spec, key=key)


def test_classes_of_ones_own_are_passed_along(tmp_path):
    algorithm = dataclasses.replace(TINY, networks=Wide(factor=3))
    run = train("probe/both", tmp_path / "run", iterations=5, algorithm=algorithm)
    for classes in (Wide, [Wide]):
        assert dl.load(run.path, algorithm=classes).plan.algorithm == algorithm
    with pytest.raises(dl.ConfigError, match=r"algorithm\.networks\.type = 'Wide'.*pass it"):
        dl.load(run.path)


def test_an_environment_that_was_an_object_is_passed_again(tmp_path):
    """Under whatever name: what counts is that it is the same to the agent."""
    run = train(lambda: ProbeEnv("both"), tmp_path / "run", iterations=5)
    assert run.evaluate(episodes=2).returns.shape == (2,)
    again = dl.load(run.path)
    for needs in (again.evaluate, lambda: dl.resume(run.path, steps=1000)):
        with pytest.raises(dl.ConfigError, match=r"was a Python object, <.*>\. Pass it again"):
            needs()

    def named():
        return ProbeEnv("both")

    assert again.evaluate(episodes=2, env=named).returns.shape == (2,)
    assert resume(run.path, iterations=6, env=named).step == 6 * ITERATION
    assert dl.load(run.path, env=named).resume(steps=7 * ITERATION, console=quiet()).step == 7 * ITERATION


# Acting


def agent(obs, action, **fields):
    """An untrained agent for two Gymnasium spaces, made without a run."""
    algorithm = dataclasses.replace(TINY, **fields)
    spec = EnvSpec("<none>", observation_space(obs), action_space(action))
    plan = Plan(algorithm=algorithm, env="<none>", spec=spec, steps=1)
    return dl.Run(path=None, plan=plan, seed=0, step=0, state=algorithm.init(spec, key=run_key(0)))


VECTOR = gym.spaces.Box(-1, 1, (3,))


@pytest.fixture(autouse=True)
def _paths_may_be_none(unchecked):
    """`agent` has no folder, and tests hand over what users do."""


def test_actions_for_one_observation_or_a_batch():
    run, batch = agent(VECTOR, gym.spaces.Discrete(5)), np.random.default_rng(0).normal(size=(40, 3))
    expected = np.asarray(run.state.networks.net.policy(np.float32(batch)).mode())
    assert len(set(expected.tolist())) > 1
    actions = run.policy(batch)  # float64, as NumPy makes them
    np.testing.assert_array_equal(actions, expected)
    assert actions.dtype == np.int64 and isinstance(actions, np.ndarray)
    for obs, action in zip(batch, expected, strict=True):
        single = run.policy(obs)
        assert single == action and np.shape(single) == () and run.plan.spec.action.n > single
    assert gym.spaces.Discrete(5).contains(run.policy(batch[0].tolist()))
    assert run.policy(batch[:0]).shape == (0,)


def test_the_sampled_test_policy_repeats_itself():
    run, batch = agent(VECTOR, gym.spaces.Discrete(5), test_policy="sampled"), np.zeros((200, 3))
    actions = run.policy(batch)
    assert len(set(actions.tolist())) > 1
    np.testing.assert_array_equal(actions, run.policy(batch))


def test_discrete_spaces_count_from_their_start():
    """Outside; inside they count from 0."""
    from_zero, from_five = (
        agent(gym.spaces.Discrete(4, start=s), gym.spaces.Discrete(6, start=t)) for s, t in [(0, 0), (5, -2)]
    )
    inside = from_zero.policy(np.arange(4))
    assert len(set(inside.tolist())) > 1
    np.testing.assert_array_equal(from_five.policy(np.arange(5, 9)), inside - 2)
    assert from_five.policy(6) == inside[1] - 2


NOISY = dl.Networks(hidden_sizes=(8,), initial_log_std=3.0)


def test_box_actions_are_clipped_to_their_bounds():
    low, high = [-1.0, -2.0], [0.5, 3.0]
    space = gym.spaces.Box(np.float32(low), np.float32(high))
    run = agent(VECTOR, space, test_policy="sampled", networks=NOISY)
    actions = run.policy(np.zeros((100, 3)))
    assert actions.shape == (100, 2) and actions.dtype == np.float32
    np.testing.assert_array_equal(actions.min(0), low)
    np.testing.assert_array_equal(actions.max(0), high)
    assert space.contains(run.policy(np.zeros(3)))


def test_box_actions_with_one_bound_are_clipped_there():
    space = gym.spaces.Box(0.0, np.inf, (1,))
    run = agent(VECTOR, space, test_policy="sampled", networks=NOISY)
    actions = run.policy(np.zeros((100, 3)))
    assert actions.min() == 0 and actions.max() > 10


def test_observations_of_several_parts():
    space = gym.spaces.Dict({"x": VECTOR, "kind": gym.spaces.Discrete(3, start=1)})
    run, count = agent(space, gym.spaces.MultiDiscrete([3, 4])), 6
    space.seed(0)
    samples = [space.sample() for _ in range(count)]
    batch = {name: np.stack([sample[name] for sample in samples]) for name in space}
    actions = run.policy(batch)
    assert actions.shape == (count, 2)
    for i, sample in enumerate(samples):
        np.testing.assert_array_equal(run.policy(sample), actions[i])
    for wrong in ({"x": np.zeros(3)}, np.zeros(3), batch | {"more": 1}):
        with pytest.raises(dl.ConfigError, match=r"dict with the keys \['kind', 'x'\]"):
            run.policy(wrong)


@pytest.mark.parametrize(
    "obs", [np.zeros(4), np.zeros(2), 0.0, np.zeros((2, 4)), np.zeros((1, 1, 3)), np.zeros((3, 1))]
)
def test_observations_of_another_shape_are_refused(obs):
    with pytest.raises(dl.ConfigError, match=r"must have the shape \(3,\).*got"):
        agent(VECTOR, gym.spaces.Discrete(2)).policy(obs)


# Evaluating


@pytest.mark.parametrize("env", [CARTPOLE, "CartPole-v1"])
def test_an_evaluation_starts_the_same_every_time(one, env):
    run = dataclasses.replace(one, env=env)  # an agent is at home wherever its spaces are
    first, again, other = (dataclasses.replace(run, seed=seed).evaluate(episodes=12) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.returns, again.returns)
    assert first.returns.shape == (12,) and len(set(first.returns.tolist())) > 1
    assert (first.returns != other.returns).any()
    np.testing.assert_array_equal(first.returns, first.lengths)  # CartPole pays 1 a step


def test_the_interval_says_what_it_is_over(one, three):
    assert "over 7 episodes" in str(one.evaluate(episodes=7))
    score = three.evaluate(episodes=7)
    assert score.returns.shape == (3, 7) and "over 3 seeds" in str(score)
    np.testing.assert_allclose(score.mean, score.returns.mean(1).mean())
    low, high = score.interval
    assert score.returns.mean(1).min() <= low <= score.mean <= high <= score.returns.mean(1).max()
    np.testing.assert_array_equal(three[1].evaluate(episodes=7).returns, score.returns[1])
    assert (score.returns[0] != score.returns[1]).any()


@pytest.mark.parametrize("episodes", [0, -1, 2.5])
def test_episodes_are_counted(one, episodes):
    with pytest.raises(dl.ConfigError, match=r"episodes = .* must be an integer"):
        one.evaluate(episodes=episodes)


# Several seeds


def test_an_agent_of_several_is_the_single_run(one, three):
    """To 1e-5 after ten updates: parameters, optimiser and the count of steps."""
    agent = three[1]
    assert agent.seed == one.seed == 1 and agent.step == one.step == 10 * ITERATION
    assert jax.tree.structure(agent.state) == jax.tree.structure(one.state)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), agent.state, one.state)
    weights = [np.asarray(jax.tree.leaves(run.state.networks)[0]) for run in three]
    assert np.abs(weights[0] - weights[1]).max() > 1e-2


def test_several_runs_are_a_sequence(three):
    assert len(three) == 3 and [run.seed for run in three] == [0, 1, 2]
    assert three[-1].seed == 2 and [run.seed for run in three[1:]] == [1, 2] and three[::-1][0].seed == 2
    obs = np.random.default_rng(0).normal(size=(30, 4))
    np.testing.assert_array_equal(three[-1].policy(obs), three[2].policy(obs))
    for index in (3, -4):
        with pytest.raises(IndexError):
            three[index]
    again = dl.load(three.path)
    assert isinstance(again, dl.Runs)
    jax.tree.map(np.testing.assert_array_equal, again[2].state, three[2].state)


@pytest.mark.learns
def test_several_seeds_on_the_host(tmp_path):
    """Trained side by side, resumed, evaluated each in environments of its own seed, as a run alone would be."""
    runs = train("CartPole-v1", tmp_path / "run", iterations=4, seed=1, seeds=2, evaluate_every=24, evaluate_episodes=3)
    assert isinstance(runs, dl.Runs) and [run.seed for run in runs] == [1, 2]
    runs = dl.load(runs.path).resume(steps=10 * ITERATION)
    alone = train("CartPole-v1", tmp_path / "alone", iterations=10, seed=2)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), runs[1].state, alone.state)
    score = runs.evaluate(episodes=5)
    assert score.returns.shape == (2, 5) and "over 2 seeds" in str(score)
    np.testing.assert_array_equal(score.returns[1], runs[1].evaluate(episodes=5).returns)
    lines = rows(runs.path)
    assert {line["seed"] for line in lines} == {1, 2} and any("eval/mean_reward" in line for line in lines)


def test_several_seeds_need_environments_of_their_own(tmp_path):
    with pytest.raises(dl.ConfigError, match=r"seeds = 2: must be 1, because an adapter belongs to one agent"):
        train(GymnasiumEnvs("CartPole-v1", 3, seed=0), tmp_path / "run", iterations=1, seeds=2)
    assert not (tmp_path / "run").exists()


@pytest.mark.learns
def test_an_adapter_of_ones_own(tmp_path):
    """It is the environments that train: evaluation on the way must not reset them."""
    envs = GymnasiumEnvs("CartPole-v1", 3, seed=0)
    for options, message in (
        ({"num_envs": 4}, "the adapter has 3"),
        ({"evaluate_every": 9}, "would reset"),
    ):
        with pytest.raises(dl.ConfigError, match=message):
            train(envs, tmp_path / "run", iterations=5, **options)
    run = train(envs, tmp_path / "run", iterations=5)
    assert run.evaluate(episodes=5, env="CartPole-v1").returns.shape == run.evaluate(episodes=5).returns.shape == (5,)
