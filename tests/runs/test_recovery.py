"""Runs that go on after errors and stops: what is saved and told, what is replayed, and which options are refused."""

import json
import re

import gymnasium as gym
import jax.numpy as jnp
import numpy as np
import pytest
from envs.failing import arm
from runs.fake_loop import FakeLoop
from runs.helpers import ITERATION, TINY, quiet, train

import duologue as dl
from duologue.envs.base import REPLAY_LIMIT
from duologue.envs.gymnasium import GymnasiumEnvs
from duologue.runs import recovery
from duologue.runs.display.screen import replay_printer
from duologue.runs.options import RunOptions
from duologue.runs.plan import read_plan
from duologue.storage.jsonl import read_rows

pytestmark = pytest.mark.usefixtures("fake_loop")


def rows(path):
    return list(read_rows(path / "metrics.jsonl"))


def environments(console):
    """The lines that grade how environments were restored."""
    return [line for line in console.file.getvalue().splitlines() if line.startswith("environments: ")]


@pytest.mark.learns
def test_a_run_in_environments_that_fail(tmp_path):
    """Three runs of one algorithm. Episodes of 7 steps in 3 environments, rollouts of 4 steps: 12 steps each.

    The first run fails at its step 100, after 8 rollouts, and is resumed to 240 steps: of 80 steps of each environment
    11 episodes end. The second replaces its environments.
    """
    kind = arm(100)
    with pytest.raises(dl.EnvError) as raised:
        train(kind, tmp_path / "a", iterations=20, every=5)
    path = tmp_path / "a"
    assert str(raised.value).splitlines()[1:] == [
        f"The run is saved at step 96; continue with: duologue.resume({str(path)!r}, env=…)"
    ]
    assert isinstance(raised.value.__cause__, ConnectionError)
    assert [row["step"] for row in rows(path)] == [60, 96] and dl.load(path).step == 96
    before, kind.fails = kind.steps, ()
    run = dl.resume(path, env=kind, console=(console := quiet()))
    assert environments(console) == ["environments: exact, each as it was saved"] and run.step == 240
    assert kind.steps - before == 3 * (32 % 7 + 80 - 32)
    assert sum(row["rollout/episodes"] for row in rows(path)) == 3 * (80 // 7)
    assert all(row["rollout/ep_len_mean"] == 7 for row in rows(path)) and "rollout/restarts" not in rows(path)[0]

    kind = arm(50, 101, length=10**9)
    options = {"on_env_error": "restart", "max_env_restarts": 2, "replay_limit": 20}
    run = train(kind, tmp_path / "b", iterations=20, every=5, console=(console := quiet()), **options)
    counts = {name: [row[f"rollout/{name}"] for row in rows(run.path)] for name in ("restarts", "episodes")}
    assert counts == {"restarts": [1, 1, 0, 0], "episodes": [1, 1, 0, 0]}
    (cut,) = {row["rollout/ep_len_mean"] for row in rows(run.path)[:1]}
    assert cut == 17  # step 50 of three environments is step 17 of the second
    assert re.search(
        r"environment 1 raised ConnectionError: the arm is gone \(at step 16 of its episode 0, reset seed \d+\)\. A "
        "new environment replaces it, restart 1 of 2", console.file.getvalue(),
    )  # fmt: skip
    # Two of the three are past the limit at the end; the third failed at its step 34, and has made 46 of 80 since.
    before = kind.steps
    run.resume(steps=252, console=(console := quiet()))
    (line,) = environments(console)
    assert line.startswith(
        "environments: after reset. Environment 0, 1, 2 is not replayed: its episode was longer than replay_limit = 20"
    )
    assert kind.steps - before == 12
    plan = read_plan(run.path)
    assert {name: getattr(plan, name) for name in recovery.OPTIONS} == {"exact": True, **options}
    # Never replayed, from now on.
    dl.resume(run.path, steps=264, env=kind, exact=False, console=(console := quiet()))
    assert "Environment 0, 1, 2 is never replayed (exact = False)" in environments(console)[0]
    assert kind.steps - before == 24 and not read_plan(run.path).exact


def fails_after(monkeypatch, error, *, intervals, donated=False):
    """A fake loop that raises after so many intervals."""
    run = FakeLoop.run

    def failing(self, *args, **options):
        for count, (step, state, totals) in enumerate(run(self, *args, **options)):
            if count == intervals:
                raise error
            yield step, state, totals

    monkeypatch.setattr(FakeLoop, "run", failing)
    if donated:
        monkeypatch.setattr("duologue.runs.session.is_valid", lambda state: False)


ID, MODULE = "CartPole-v1", "gymnasium.envs:CartPole-v1"


def made():
    return gym.make("CartPole-v1")


@pytest.mark.parametrize(
    ("env", "evaluate_env", "command"),
    [
        (ID, None, r"duologue resume \S+/run"),
        (made, None, r"duologue\.resume\('\S+/run', env=…\)"),
        (MODULE, None, r"duologue resume \S+/run --env gymnasium\.envs:CartPole-v1"),
        (ID, ID, r"duologue resume \S+/run"),
        (ID, MODULE, r"duologue resume \S+/run --evaluate-env gymnasium\.envs:CartPole-v1"),
        (ID, made, r"duologue\.resume\('\S+/run', evaluate_env=…\)"),
        (made, made, r"duologue\.resume\('\S+/run', env=…, evaluate_env=…\)"),
        (made, MODULE, r"duologue\.resume\('\S+/run', env=…, evaluate_env='gymnasium\.envs:CartPole-v1'\)"),
    ],
)
def test_the_next_command_fits_the_environments(tmp_path, monkeypatch, env, evaluate_env, command):
    fails_after(monkeypatch, dl.EnvError("environment 0 broke"), intervals=2)
    with pytest.raises(
        dl.EnvError, match=rf"^environment 0 broke\nThe run is saved at step 24; continue with: {command}$"
    ):
        train(env, tmp_path / "run", iterations=9, every=1, evaluate_env=evaluate_env)
    assert dl.load(tmp_path / "run", env=None if isinstance(env, str) else env).step == 24


@pytest.mark.parametrize(("intervals", "donated"), [(0, False), (2, True)], ids=["at step 0", "a state that is gone"])
def test_nothing_is_promised_that_is_not_saved(tmp_path, monkeypatch, intervals, donated):
    fails_after(monkeypatch, dl.EnvError("environment 0 broke"), intervals=intervals, donated=donated)
    with pytest.raises(dl.EnvError, match=r"^environment 0 broke$"):
        train("CartPole-v1", tmp_path / "run", iterations=9, every=1, save_every=10**6)
    assert not list((tmp_path / "run").glob("checkpoints/latest/step-*"))


def test_other_errors_are_no_errors_of_an_environment(tmp_path, monkeypatch):
    fails_after(monkeypatch, KeyboardInterrupt("stop"), intervals=2)
    with pytest.raises(KeyboardInterrupt, match=r"^stop$"):
        train("CartPole-v1", tmp_path / "run", iterations=9, every=1, save_every=10**6)


def test_an_environment_that_fails_in_an_evaluation(tmp_path):
    """It is saved and told; evaluations have no restarts."""
    kind = arm(4)
    with pytest.raises(dl.EnvError, match=r"the arm is gone .*\nThe run is saved at step 24; continue with: "):
        options = {"evaluate_every": 24, "evaluate_episodes": 1, "on_env_error": "restart"}
        train(kind, tmp_path / "run", iterations=9, every=1, **options)
    assert dl.load(tmp_path / "run", env=kind).step == 24 and kind.steps == 4


def test_a_run_folder_of_an_earlier_version(tmp_path):
    """Its configuration has none of the options: they have their defaults."""
    run = train("CartPole-v1", tmp_path / "run", iterations=3)
    config = json.loads((run.path / "config.json").read_text())
    for name in recovery.OPTIONS:
        del config[name]
    (run.path / "config.json").write_text(json.dumps(config))
    run = dl.resume(run.path, steps=5 * ITERATION, console=(console := quiet()))
    assert environments(console) == ["environments: exact, each as it was saved"]
    assert (run.plan.exact, run.plan.replay_limit, run.plan.on_env_error) == (True, REPLAY_LIMIT, "raise")


def adapter():
    return GymnasiumEnvs("CartPole-v1", TINY.num_envs, seed=0)


@pytest.mark.parametrize(
    ("env", "options", "message"),
    [
        ("CartPole-v1", {"max_env_restarts": 3}, r"max_env_restarts = 3: without on_env_error = 'restart'"),
        ("CartPole-v1", {"exact": False, "replay_limit": 5}, r"replay_limit = 5: with exact = False nothing is"),
        ("probe/both", {"exact": False}, r"exact = False: a checkpoint holds the whole state"),
        ("probe/both", {"on_env_error": "restart"}, r"on_env_error = 'restart': a checkpoint holds the whole"),
        (adapter, {"replay_limit": 5}, r"replay_limit = 5: an adapter restores and restarts"),
        (adapter, {"on_env_error": "restart"}, r"on_env_error = 'restart': an adapter restores"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused_by_name(tmp_path, env, options, message):
    with pytest.raises(dl.ConfigError, match=f"^{message}"):
        train(env() if env is adapter else env, tmp_path / "run", iterations=1, **options)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("replay_limit", -1, "must be an integer >= 0"),
        ("replay_limit", 1.5, "must be an integer >= 0"),
        ("exact", "no", "must be"),
        ("on_env_error", "ignore", "must be"),
        ("max_env_restarts", 0, "must be an integer in [1, "),
        ("max_env_restarts", 2**31, "must be an integer in [1, "),
    ],
)
def test_each_option_has_a_range(unchecked, name, value, wanted):
    with pytest.raises(dl.ConfigError, match=re.escape(f"{name} = {value!r}: {wanted}")):
        RunOptions(steps=1, **{name: value})


def test_recorded_data_need_no_recovery():
    for name, value in {"exact": False, "replay_limit": 5, "on_env_error": "restart"}.items():
        with pytest.raises(dl.ConfigError, match=f"^{name} = {value!r}: a run on recorded data steps no environment"):
            recovery.check_recovery(RunOptions(steps=1, **{name: value}), None)
    recovery.check_recovery(RunOptions(steps=1), None)


def test_resuming_refuses_what_has_no_effect(tmp_path):
    run = train("probe/both", tmp_path / "run", iterations=1)
    with pytest.raises(dl.ConfigError, match=r"^exact = False: a checkpoint holds the whole state"):
        run.resume(steps=60, exact=False)


@pytest.mark.learns
def test_an_error_in_a_replay_names_the_remedy(tmp_path):
    kind = arm(length=10**9)
    train(kind, tmp_path / "run", iterations=1)
    kind.steps, kind.fails = 0, (2,)
    with pytest.raises(
        dl.EnvError, match=r"the arm is gone .*\nIt failed while it was restored\..*exact=False\), --exact"
    ):
        dl.resume(tmp_path / "run", steps=24, env=kind, console=quiet())


def test_a_donated_state_is_not_valid():
    x = jnp.zeros(3)
    state = {"x": x, "y": np.zeros(3), "z": None}
    assert recovery.is_valid(state)
    x.delete()
    assert not recovery.is_valid(state)


def test_the_progress_of_a_replay_is_printed_now_and_then(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    report = replay_printer(console := quiet())
    for t in range(1, 8001):
        now[0] = t / 1000
        report(t, 8000)
    assert console.file.getvalue().splitlines() == [
        f"replaying the running episodes: {t},000 of 8,000 steps" for t in (2, 4, 6, 8)
    ]
