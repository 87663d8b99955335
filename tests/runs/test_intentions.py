"""Runs with tasks: resumed bit for bit, rows with a value for each task, scores of each intention, data of the main
one."""

import shutil

import numpy as np
import pytest
from runs.helpers import ITERATION, assert_same_run, quiet, resume, rows, train

import duologue as dl
from duologue.cli import main as cli
from duologue.envs.tasks import Tasks

TINY = dl.SACX(
    networks=dl.Networks(hidden_sizes=(4,)), rollout_length=4, num_envs=3, batch_size=3, sequence_length=2,
    replay_capacity=240, learning_starts=24, target_period=3, schedule_period=4,
)  # fmt: skip
CARS = {"tasks": "mountain-car", "max_episode_steps": 20}
NAMES = ("fast", "left", "right", "goal")
PER_TASK = [
    "rollout/ep_rew_mean", "train/critic_loss", "train/actor_loss", "train/entropy", "train/alpha", "train/q",
    "train/rho", "train/scheduled", "train/schedule_probability", "train/schedule_value",
]  # fmt: skip


@pytest.fixture(
    scope="module",
    params=[
        pytest.param("gymnax/MountainCarContinuous-v0", marks=pytest.mark.needs("gymnax")),
        "MountainCarContinuous-v0",
    ],
    ids=["compiled", "host"],
)
def run(request, tmp_path_factory):
    """Ten updates of one seed."""
    path = tmp_path_factory.mktemp("one") / "run"
    return train(request.param, path, iterations=16, every=8, algorithm=TINY, seed=1, **CARS)


def half(path, copy):
    """A copy of a run of 16 iterations as it is left by a process that is killed behind the checkpoint of 8."""
    shutil.copytree(path, copy)
    shutil.rmtree(copy / "checkpoints" / "latest" / f"step-{16 * ITERATION:012d}")
    return copy


def test_a_run_cut_in_two_is_the_whole_run(run, tmp_path):
    """Tables, episodes and the ring of all rewards come back; the ready set by its name."""
    cut = half(run.path, tmp_path / "cut")
    resume(cut)
    assert_same_run(run.path, cut)
    assert int(run.state.table.visits.sum()) > 0 and int(run.state.acted.sum()) == 16 * ITERATION


def test_rows_have_a_value_for_each_task(run):
    row = rows(run.path)[-1]
    for name in PER_TASK:
        assert [f"{name}/{task}" in row for task in NAMES] == [True] * 4, name
    assert row["rollout/ep_rew_mean"] == row["rollout/ep_rew_mean/goal"]
    assert row["rollout/episodes"] > 0 and row["rollout/ep_rew_mean/fast"] > 0
    np.testing.assert_allclose(sum(row[f"train/scheduled/{task}"] for task in NAMES), 1, rtol=1e-5)
    assert "train/critic_loss" not in row and "train/critic_gradient_norm" in row


def test_each_intention_plays_and_is_scored_under_its_own_reward(run):
    scores = {task: run.evaluate(episodes=3, task=task) for task in (None, "left", "goal")}
    for task, score in scores.items():
        assert tuple(score.tasks) == NAMES
        np.testing.assert_array_equal(score.returns, score.tasks[task or "goal"])
    np.testing.assert_array_equal(scores[None].tasks["fast"], scores["goal"].tasks["fast"])
    assert (scores["left"].tasks["fast"] != scores["goal"].tasks["fast"]).any()
    assert "under each task: fast" in str(scores[None]) and str(scores["left"]).startswith("mean return of left ")
    with pytest.raises(dl.ConfigError, match=r"task = 'x': this run has no such task. Choose one of"):
        run.evaluate(task="x")
    with pytest.raises(dl.ConfigError, match=r"task = 'left': with explore, the scheduler chooses the task"):
        run.evaluate(task="left", explore=True)


def test_each_intention_is_watched_and_scored_under_its_own_reward(run, tmp_path, capsys):
    """A car that has learned nothing is fast at times, and never at its flag."""
    if run.plan.env.startswith("gymnax/"):
        pytest.skip("pictures are of Gymnasium's environments")
    shown = {task: run.watch(task=task, out=tmp_path / f"{task}.gif", console=quiet()) for task in (None, "fast")}
    assert shown["fast"].returns[0] > 0 == shown[None].returns[0]
    pictures = [run.frames(task=task, max_steps=12) for task in (None, "goal", "left")]
    np.testing.assert_array_equal(pictures[0], pictures[1])
    assert (pictures[0] != pictures[2]).any()
    for look in (run.watch, run.frames):
        with pytest.raises(dl.ConfigError, match=r"task = 'left': with explore, the scheduler chooses the task"):
            look(task="left", explore=True)
    cli.run(["evaluate", str(run.path), "--task", "fast", "--episodes", "2"])
    assert "mean return of fast" in capsys.readouterr().out
    for command in ("evaluate", "watch"):
        with pytest.raises(dl.ConfigError, match="task = 'x': this run has no such task"):
            cli.run([command, str(run.path), "--task", "x"])


def test_what_is_asked_is_asked_of_a_task(run):
    obs, action = np.zeros(2, np.float32), np.zeros(1, np.float32)
    for ask in (run.q, run.log_prob):
        np.testing.assert_array_equal(ask(obs, action), ask(obs, action, task="goal"))
        assert (ask(obs, action) != ask(obs, action, task="left")).all()
    assert run.policy(obs, task="left") != run.policy(obs)


def test_several_seeds_have_rows_and_scores_of_their_own_and_resume(run, tmp_path):
    two = {"every": 8, "algorithm": TINY, "seeds": 2, **CARS}
    runs = train(run.plan.env, tmp_path / "run", iterations=16, **two)
    cut = half(runs.path, tmp_path / "cut")
    resume(cut)
    assert_same_run(runs.path, cut)
    one, other = rows(runs.path)[-2:]
    for name in PER_TASK:
        assert all(f"{name}/{task}" in row for task in NAMES for row in (one, other)), name
    assert one["train/critic_loss/fast"] != other["train/critic_loss/fast"]
    assert one["rollout/ep_rew_mean/fast"] != other["rollout/ep_rew_mean/fast"]
    with pytest.raises(dl.ConfigError, match=r"task = 'left': with explore, the scheduler chooses the task"):
        runs.evaluate(task="left", explore=True)
    score = runs.evaluate(episodes=3, task="fast")
    assert score.returns.shape == (2, 3) and score.tasks["left"].shape == (2, 3)


def swing(obs, action, reward, next_obs, terminated, info):
    return next_obs[0]


def main_task(obs, action, reward, next_obs, terminated, info):
    return 5.0 + next_obs[1]


OWN = Tasks(swing, main_task, name="mine")


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A set of one's own, with a name that says nothing to anybody else."""
    path = tmp_path_factory.mktemp("own") / "run"
    options = {"tasks": OWN, "max_episode_steps": 20}
    return train("MountainCarContinuous-v0", path, iterations=4, every=4, algorithm=TINY, **options)


def test_a_set_of_ones_own_is_passed_again_and_is_the_same(own):
    assert own.plan.tasks == "<swing, main_task>"
    assert set(own.evaluate(episodes=2).tasks) == {"swing", "main_task"}
    again = dl.load(own.path)
    for needs in (again.evaluate, lambda: dl.resume(own.path, steps=1000)):
        with pytest.raises(dl.ConfigError, match=r"were a Python object, <swing, main_task>.*env=tasks.attach\('Mount"):
            needs()
    env = OWN.attach("MountainCarContinuous-v0")
    assert again.evaluate(episodes=2, env=env).returns.shape == (2,)
    with pytest.raises(dl.ConfigError, match="tasks = main_task, swing: must be swing, main_task"):
        again.evaluate(episodes=2, env=Tasks(main_task, swing).attach("MountainCarContinuous-v0"))


def test_data_hold_the_main_tasks_reward(own, tmp_path):
    """What is collected, and what the run keeps."""
    path = own.collect(30, tmp_path / "data.npz")
    with np.load(path) as columns:
        assert columns["rewards"].shape == (30,)
        np.testing.assert_allclose(columns["rewards"], 5 + columns["next_observations"][:, 1], rtol=1e-5)
    for source in (path, own.path):
        data = dl.read_data(source)
        np.testing.assert_allclose(data.rows.reward, 5 + data.rows.next_obs[:, 1], rtol=1e-5)
        assert data.spec.tasks == ()
    options = {"steps": 10, "run_dir": tmp_path / "run", "console": quiet()}
    with pytest.raises(dl.ConfigError, match=r"SACX learns several tasks, and .* holds one reward"):
        dl.train(TINY, dataset=path, **options)
    with pytest.raises(dl.ConfigError, match=r"tasks = .*: recorded data have one reward"):
        dl.train(dl.BC(), "MountainCarContinuous-v0", dataset=path, tasks="mountain-car", **options)
