"""A run while it runs: what is logged, evaluated, saved and shown between chunks, and what stops it."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from contextlib import nullcontext

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from runs.fake_loop import no_learning
from runs.helpers import ITERATION, TINY, assert_same_run, leaves, quiet, resume, rows, saved, train

import duologue as dl
from duologue.cli.progress import run_progress
from duologue.envs.gymnasium import GymnasiumEnvs
from duologue.envs.probe import ProbeEnvs
from duologue.loops.evaluate import Interrupted
from duologue.loops.state import LoopState
from duologue.runs import session
from duologue.runs.display import loggers as log
from duologue.runs.folders import make_next_folder
from duologue.runs.rows import mean_over_seeds
from duologue.runs.saved_states import SavedStates
from duologue.runs.session import Interval, Listeners
from duologue.runs.signals import Interruption
from duologue.storage import checkpoint, files

PROBE = "probe/truncation"
pytestmark = pytest.mark.usefixtures("fake_loop")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Ten iterations, logged and saved every second one."""
    with no_learning():
        return train(PROBE, tmp_path_factory.mktemp("whole") / "run", iterations=10, every=2)


def test_every_row_and_checkpoint_is_where_it_was_asked_for(tmp_path):
    run = train(PROBE, tmp_path / "run", iterations=12, every=2, save_every=5 * ITERATION)
    assert [row["step"] for row in rows(run.path)] == [2 * ITERATION * i for i in range(1, 7)]
    # 5 and 10 iterations are passed at the rows of 6 and 10; the last state is saved too; two are kept.
    assert saved(run.path) == [10 * ITERATION, 12 * ITERATION]
    assert run.step == 12 * ITERATION
    # Episodes of the probe have 5 steps that pay 1: 8 steps of 3 environments end 3, 6, 3, 6, … or so; 12·4/5 in all.
    assert sum(row["rollout/episodes"] for row in rows(run.path)) == 12 * 4 // 5 * 3
    assert {row["rollout/ep_rew_mean"] for row in rows(run.path)} == {5.0}


def test_an_interval_is_passed_once():
    every = Interval(10, 25)
    assert [every.is_due(step) for step in (26, 29, 30, 31, 39, 45, 60, 60)] == [
        False,
        False,
        True,
        False,
        False,
        True,
        True,
        False,
    ]
    assert not any(Interval(None, 0).is_due(step) for step in range(100))


def test_callbacks_see_every_row_and_stop_the_run(tmp_path, whole):
    seen = []

    def stop_at_six(step, metrics):
        seen.append((step, float(metrics["train/entropy"])))
        return step < 6 * ITERATION

    console = quiet()
    run = train(
        PROBE, tmp_path / "run", iterations=10, every=2, callbacks=[stop_at_six, lambda *_: None], console=console
    )
    assert run.step == 6 * ITERATION and saved(run.path)[-1] == 6 * ITERATION
    assert seen == [(row["step"], row["train/entropy"]) for row in rows(run.path)] and len(seen) == 3
    assert f"stopped and saved at step 72; continue with: duologue resume {run.path}" in console.file.getvalue()
    resume(run.path)
    assert_same_run(whole.path, run.path)


def test_a_callback_may_answer_as_numpy_does(tmp_path):
    run = train(PROBE, tmp_path / "run", iterations=4, every=2, callbacks=[lambda *_: np.bool_(False)])
    assert run.step == 2 * ITERATION


def test_an_evaluation_that_fails_loses_nothing_learned(tmp_path, monkeypatch):
    def fail(self, *_):
        raise dl.EnvError("out of order")

    monkeypatch.setattr(session.Session, "_evaluator", lambda *_: nullcontext(fail))
    with pytest.raises(dl.EnvError, match="out of order"):
        train(PROBE, tmp_path / "run", iterations=4, every=2, evaluate_every=ITERATION)
    assert saved(tmp_path / "run") == [ITERATION]


@pytest.mark.parametrize("given", [{"callbacks": print}, {"callbacks": [3]}, {"loggers": [print]}], ids=str)
def test_what_would_fail_at_the_first_row_is_refused(given, unchecked):
    with pytest.raises(dl.ConfigError, match=f"{next(iter(given))} = .*: must be a list of"):
        Listeners(**given)


@pytest.mark.parametrize("broken", ["logger", "callback"])
def test_what_fails_between_two_saves_loses_nothing_learned(tmp_path, broken):
    class Down:
        def write(self, step, seed, metrics):
            raise ConnectionError

        def close(self):
            pass

    def fail(step, metrics):
        raise ConnectionError

    given = {"loggers": [Down()]} if broken == "logger" else {"callbacks": [fail]}
    with pytest.raises(ConnectionError):
        train(PROBE, tmp_path / "run", iterations=4, every=4, log_every=ITERATION, **given)
    assert saved(tmp_path / "run") == [ITERATION]


def test_an_evaluation_that_was_interrupted_is_made_up_for(tmp_path, monkeypatch):
    played = []

    def scripted(plan, source, options, **how):
        episodes = options.episodes

        def evaluate(state):
            played.append(None)
            if len(played) == 2:
                raise Interrupted
            return dl.Evaluation(np.ones(episodes), np.ones(episodes))

        return nullcontext(evaluate)

    monkeypatch.setattr(session, "open_evaluator", scripted)
    train(PROBE, tmp_path / "run", iterations=4, every=1, evaluate_every=2 * ITERATION)
    resume(tmp_path / "run", iterations=7)
    found = [row["step"] // ITERATION for row in rows(tmp_path / "run") if "eval/mean_reward" in row]
    assert found == [2, 5, 6]  # that of 4 with the first row after it


def test_a_checkpoint_is_made_as_often_as_it_says_however_rare_the_rows_are(tmp_path):
    run = train(PROBE, tmp_path / "run", iterations=20, log_every=20 * ITERATION, save_every=None)
    assert run.plan.save_every == run.plan.log_every == 2 * ITERATION


@pytest.mark.learns
def test_the_best_checkpoint_holds_no_replay(tmp_path):
    algorithm = dl.SACDiscrete(networks=dl.Networks(hidden_sizes=(4,)), batch_size=4, replay_capacity=240)
    options = {"evaluate_every": ITERATION, "evaluate_episodes": 2, "algorithm": algorithm}
    run = train("CartPole-v1", tmp_path / "run", iterations=12, every=12, **options)
    kept, best = (
        files.load_arrays(checkpoint.find_latest(run.path / "checkpoints" / which)[0] / checkpoint.STATE)
        for which in ("latest", "best")
    )
    assert any(name.startswith(".replay") for name in kept) and not any(name.startswith(".replay") for name in best)
    assert dl.load(run.path, which="best").evaluate(episodes=1).returns.shape == (1,)


def test_every_callback_is_asked_even_when_one_stops(tmp_path):
    asked = []
    callbacks = [lambda *_: False, lambda step, _: asked.append(step)]
    train(PROBE, tmp_path / "run", iterations=4, every=2, callbacks=callbacks)
    assert asked == [2 * ITERATION]


def test_a_callback_that_raises_loses_nothing_saved(tmp_path, whole):
    def fail(step, metrics):
        if step == 6 * ITERATION:
            raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        train(PROBE, tmp_path / "run", iterations=10, every=2, callbacks=[fail])
    assert saved(tmp_path / "run") == [4 * ITERATION, 6 * ITERATION]
    resume(tmp_path / "run")
    assert_same_run(whole.path, tmp_path / "run")


def test_loggers_get_each_seed_and_are_closed(tmp_path):
    class Mine:
        def __init__(self):
            self.rows, self.closed = [], 0

        def write(self, step, seed, metrics):
            assert all(type(value) is float for value in metrics.values())
            self.rows.append((step, seed))

        def close(self):
            self.closed += 1

    mine = Mine()
    run = train(PROBE, tmp_path / "run", iterations=4, every=2, seed=5, seeds=2, loggers=[mine])
    assert mine.rows == [(step * ITERATION, seed) for step in (2, 4) for seed in (5, 6)] and mine.closed == 1
    assert mine.rows == [(row["step"], row["seed"]) for row in rows(run.path)]
    assert sorted(path.name for path in (run.path / "tb").iterdir()) == ["seed-5", "seed-6"]


def test_the_best_evaluation_is_kept(tmp_path, monkeypatch):
    """Scripted scores; a tie is no improvement."""
    scores, asked = iter([3.0, 7.0, 7.0, 5.0, 1.0]), []

    def scripted(plan, source, options, *, seeds, purpose, **how):
        episodes = options.episodes
        asked.append((seeds, episodes, purpose))
        return nullcontext(lambda state: dl.Evaluation(np.full(episodes, next(scores)), np.full(episodes, 9)))

    monkeypatch.setattr(session, "open_evaluator", scripted)
    run = train(
        PROBE, tmp_path / "run", iterations=8, every=1, evaluate_every=2 * ITERATION, evaluate_episodes=4, seed=3
    )
    assert asked == [([3], 4, "evaluate while training")]
    found = {row["step"] // ITERATION: row.get("eval/mean_reward") for row in rows(run.path)}
    assert found == {1: None, 2: 3.0, 3: None, 4: 7.0, 5: None, 6: 7.0, 7: None, 8: 5.0}
    assert saved(run.path, "best") == [4 * ITERATION] and dl.load(run.path, which="best").step == 4 * ITERATION
    assert checkpoint.read_manifest(checkpoint.find_latest(run.path / "checkpoints" / "best")[0]).info == {"score": 7.0}
    resume(run.path, iterations=10)
    assert saved(run.path, "best") == [4 * ITERATION]


def test_of_two_evaluations_of_one_step_the_better_is_kept(tmp_path):
    """After a resume that was not exact, the step of the best one comes again, and may score higher."""
    for score in (1.0, 9.0):
        state = LoopState(
            jnp.full(1, score), carry=None, env=None, obs=None, episodes=None, replay=None, key=jax.random.key(0),
            step=jnp.int32(5),
        )  # fmt: skip
        SavedStates(tmp_path).save_best(state, 5, score)
    best = checkpoint.find_latest(tmp_path / "checkpoints" / "best")[0]
    assert checkpoint.read_manifest(best).info == {"score": 9.0}
    assert files.load_arrays(best / checkpoint.STATE)[".algorithm"] == [9.0]


@pytest.mark.learns
def test_evaluation_changes_no_bit_of_training(tmp_path):
    whole = train(PROBE, tmp_path / "whole", iterations=10, every=2)
    watched = train(PROBE, tmp_path / "run", iterations=10, every=2, evaluate_every=2 * ITERATION)
    a, b = leaves(whole.path), leaves(watched.path)
    assert all(np.array_equal(a[name], b[name]) for name in a)
    assert {row["eval/mean_reward"] for row in rows(watched.path)} == {5.0}
    assert {row["eval/mean_ep_length"] for row in rows(watched.path)} == {5.0}


class Late(Interruption):
    """As if Ctrl-C came while the programs were compiled."""

    def __enter__(self):
        self.signal = 2
        return super().__enter__()


def test_an_interruption_before_the_first_step_leaves_a_run_to_resume(tmp_path, whole, monkeypatch):
    """And one before the first step after resuming writes no row twice."""
    with monkeypatch.context() as patch:
        patch.setattr(session, "Interruption", Late)
        with pytest.raises(KeyboardInterrupt):
            train(PROBE, tmp_path / "run", iterations=10, every=2)
        assert saved(tmp_path / "run") == [0] and rows(tmp_path / "run") == []
    resume(tmp_path / "run", callbacks=[lambda step, _: step < 4 * ITERATION])
    with monkeypatch.context() as patch:
        patch.setattr(session, "Interruption", Late)
        with pytest.raises(KeyboardInterrupt):
            resume(tmp_path / "run")
    assert [row["step"] for row in rows(tmp_path / "run")] == [2 * ITERATION, 4 * ITERATION]
    resume(tmp_path / "run")
    assert_same_run(whole.path, tmp_path / "run")


class Explosive(ProbeEnvs):
    """Pays more than a float holds the square of, from the tenth step on."""

    def step(self, env_state, action, *, key):
        (obs, t), seen = super().step(env_state, action, key=key)
        return (obs, t), seen._replace(reward=jnp.full(self.num_envs, 1e30))


@pytest.mark.learns
def test_learning_that_diverges_stops_with_words_and_is_not_saved(tmp_path):
    with pytest.raises(
        dl.DuologueError, match=r"diverged: train/\w+ is not finite at step 24\. .*smaller learning rate"
    ):
        train(Explosive("constant", 3), tmp_path / "run", iterations=10, every=2)
    assert saved(tmp_path / "run") == []
    (row,) = rows(tmp_path / "run")
    assert row["step"] == 24 and None in row.values()  # strict JSON has no infinity


class Broken(ProbeEnvs):
    """Environment 1 gives NaN."""

    def step(self, env_state, action, *, key):
        state, seen = super().step(env_state, action, key=key)
        return state, seen._replace(reward=jnp.where(jnp.arange(self.num_envs) == 1, jnp.nan, seen.reward))


@pytest.mark.learns
def test_an_environment_that_gives_nan_is_named_and_nothing_is_saved(tmp_path):
    with pytest.raises(dl.EnvError, match=r"environment 1 gave a NaN .* at its step 0"):
        train(Broken("constant", 3), tmp_path / "run", iterations=10, every=2)
    assert saved(tmp_path / "run") == [] and rows(tmp_path / "run") == []


# Folders


def test_a_folder_that_holds_a_run_is_refused(whole):
    before = {path: path.read_bytes() for path in whole.path.rglob("*") if path.is_file()}
    with pytest.raises(dl.ConfigError, match=r"holds a run already.*resume"):
        train(PROBE, whole.path, iterations=10)
    assert {path: path.read_bytes() for path in whole.path.rglob("*") if path.is_file()} == before


def test_a_folder_whose_run_was_killed_before_it_saved_is_free(tmp_path):
    """It has rows, and a best checkpoint perhaps, from which nothing can go on."""
    run = train(PROBE, tmp_path / "run", iterations=4, every=2, evaluate_every=2 * ITERATION)
    assert run_progress(run.path, run.plan) == "finished" and (run.path / "checkpoints" / "best").is_dir()
    shutil.rmtree(run.path / "checkpoints" / "latest")
    assert run_progress(run.path, run.plan) == "new"
    run = train(PROBE, tmp_path / "run", iterations=8, every=4)
    assert [row["step"] for row in rows(run.path)] == [4 * ITERATION, 8 * ITERATION]
    assert not (run.path / "checkpoints" / "best").exists()


@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl", "tb"])
def test_what_is_no_runs_is_not_overwritten(tmp_path, name):
    (tmp_path / name).write_text('{"my": "project"}')
    with pytest.raises(dl.ConfigError, match=f"holds {name}, but no run"):
        train(PROBE, tmp_path, iterations=2)
    assert (tmp_path / name).read_text() == '{"my": "project"}' and len(list(tmp_path.iterdir())) == 1


@pytest.mark.learns
@pytest.mark.needs("gymnax")
def test_another_environment_is_written_down_and_gone_on_in(tmp_path):
    run = train("gymnax/CartPole-v1", tmp_path / "run", iterations=2, every=2)
    assert dl.read_data(run.collect(20, tmp_path / "data.npz", env="CartPole-v1")).spec.id == "CartPole-v1"
    assert dl.read_data(run.collect(20, tmp_path / "own.npz")).spec.id == "gymnax/CartPole-v1"
    own = train(lambda: gym.make("CartPole-v1"), tmp_path / "own", iterations=2, every=2)
    again = dl.load(own.path).resume(steps=4 * ITERATION, env=lambda: gym.make("CartPole-v1"), console=quiet())
    assert again.step == 4 * ITERATION


def test_a_run_without_its_rows_goes_on(tmp_path):
    train(PROBE, tmp_path / "run", iterations=4, every=2)
    (tmp_path / "run" / "metrics.jsonl").unlink()
    resume(tmp_path / "run", iterations=6)
    assert [row["step"] for row in rows(tmp_path / "run")] == [6 * ITERATION]


@pytest.mark.parametrize("fails", ["folder", "space", "steps", "listeners", "schedule", "other", "second"])
def test_environments_are_closed_where_nothing_can_begin(tmp_path, monkeypatch, fails, unchecked):
    made, closed = [], []
    init, close = GymnasiumEnvs.__init__, GymnasiumEnvs.close
    monkeypatch.setattr(GymnasiumEnvs, "__init__", lambda self, *a, **k: (made.append(self), init(self, *a, **k))[1])
    monkeypatch.setattr(GymnasiumEnvs, "close", lambda self: (closed.append(self), close(self))[1])
    path, good = tmp_path / "run", GymnasiumEnvs.__init__
    if fails in ("steps", "listeners", "other", "second"):
        run = train("CartPole-v1", path, iterations=2, every=2, seeds=2 if fails == "second" else 1)
        begin = {
            "steps": lambda: resume(path, iterations=1),
            "listeners": lambda: resume(path, iterations=4, callbacks="none"),
            "other": lambda: run.evaluate(episodes=1, env="Acrobot-v1"),
            "second": lambda: run.evaluate(episodes=1),
        }[fails]
    elif fails == "schedule":
        algorithm = dl.SAC(actor_learning_rate=dl.Linear(1e-3), networks=TINY.networks)
        begin = lambda: dl.train(algorithm, "Pendulum-v1", steps=5, run_dir=path)  # noqa: E731
    elif fails == "folder":
        (path / "checkpoints" / "latest" / "step-000000000001").mkdir(parents=True)
        begin = lambda: train("CartPole-v1", path, iterations=2)  # noqa: E731
    else:
        begin = lambda: train("Pendulum-v1", path, iterations=2, algorithm=dl.ACER())  # noqa: E731
    if fails == "second":

        def once(self, *a, **k):
            if k["seed"] == 1:
                raise dl.ConfigError("There is room for one.")
            good(self, *a, **k)

        monkeypatch.setattr(GymnasiumEnvs, "__init__", once)
    with pytest.raises(dl.ConfigError):
        begin()
    assert made and set(map(id, made)) == set(map(id, closed))


def test_environments_of_evaluation_are_closed_but_not_those_of_the_user(tmp_path, monkeypatch):
    made, closed = [], []
    init, close = GymnasiumEnvs.__init__, GymnasiumEnvs.close
    monkeypatch.setattr(GymnasiumEnvs, "__init__", lambda self, *a, **k: (made.append(self), init(self, *a, **k))[1])
    monkeypatch.setattr(GymnasiumEnvs, "close", lambda self: (closed.append(self), close(self))[1])
    run = train("CartPole-v1", tmp_path / "run", iterations=4, every=2, evaluate_every=2 * ITERATION)
    assert len(made) == 2 and set(map(id, made)) == set(map(id, closed))
    own = GymnasiumEnvs("CartPole-v1", 3, seed=0)
    run.evaluate(episodes=2, env=own)
    assert own not in closed


def test_a_folder_that_cannot_be_made_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(dl.CheckpointError, match="cannot write"):
        train(PROBE, tmp_path / "file", iterations=1)
    with pytest.raises(dl.CheckpointError, match="cannot write"):
        train(PROBE, tmp_path / "file" / "run", iterations=1)


HOLD = """
import sys
from pathlib import Path
from duologue.storage.files import RunLock
with RunLock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_folder_in_use_names_the_process(whole):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(whole.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(dl.CheckpointError, match=rf"in use by process {holder.pid} on "):
            resume(whole.path, iterations=20)
        assert dl.load(whole.path).step == whole.step  # reading disturbs nobody
    finally:
        holder.communicate()
    assert (whole.path / "lock").exists() and os.path.getsize(whole.path / "lock") == 0


def test_folders_are_numbered_by_algorithm_and_environment(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "a2c" / "probe-both" / "2").mkdir(parents=True)
    run = train("probe/both", None, iterations=1)
    assert str(run.path) == "runs/a2c/probe-both/1" and dl.load(run.path).step == run.step
    wrapped = dataclasses.replace(run.plan, algorithm=dl.Normalized(TINY))
    assert str(make_next_folder(wrapped)) == "runs/a2c/probe-both/3"


def test_what_a_folder_holds(whole):
    names = sorted(path.name for path in whole.path.iterdir())
    assert names == ["checkpoints", "config.json", "lock", "metrics.jsonl", "tb", "versions.json"]
    content = json.loads((whole.path / "config.json").read_text())
    assert content["type"] == "Plan" and content["algorithm"]["learning_rate"]["updates"] == 30
    assert json.loads((whole.path / "versions.json").read_text())["jax"] == jax.__version__
    assert all(row["time/fps"] > 0 for row in log.read_metrics(whole.path / "metrics.jsonl"))


def test_the_mean_over_seeds_leaves_out_those_without_a_number():
    assert mean_over_seeds(np.array([1.0, np.nan, 4.0])) == 2.5 and mean_over_seeds(np.float64(3)) == 3.0
    assert np.isnan(mean_over_seeds(np.array([np.nan, np.nan])))
