"""Evaluations: the limit of steps, the number of environments, and an environment of their own."""

import dataclasses

import gymnasium as gym
import numpy as np
import pytest
from envs.endless import Clocks, Door, Endless
from runs.fake_loop import no_learning
from runs.helpers import ITERATION, TINY, quiet, resume, rows, train

import duologue as dl
from duologue.cli import main as cli
from duologue.envs.gymnasium import GymnasiumEnvs
from duologue.envs.tasks import Tasks
from duologue.runs import evaluator

gym.register("EndlessDoor-v0", Endless, kwargs={"length": 3})
gym.register("EndlessOwn-v0", Endless, max_episode_steps=6)
pytestmark = pytest.mark.usefixtures("fake_loop")
KNOWN = "no time limit is known. An evaluation cuts an episode after"


def brief():
    return Endless(3)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Its environment ends after 3 steps."""
    with no_learning():
        return train(brief, tmp_path_factory.mktemp("brief") / "run", iterations=2)


# Episodes that never end

ENDLESS = {
    "a callable": lambda: Endless,
    "an id": lambda: "EndlessOwn-v0",
    "an adapter": lambda: GymnasiumEnvs(Endless, 2, seed=0),
    "in JAX": lambda: Clocks(1),
}


@pytest.mark.parametrize("kind", ENDLESS)
def test_an_episode_without_end_is_cut_and_counted(run, kind, capsys):
    """Its score is the return up to the cut: 1 + 2 + 3 + 4 + 5."""
    score = run.evaluate(episodes=3, env=ENDLESS[kind](), max_episode_steps=5)
    assert score.lengths.tolist() == [5, 5, 5] and score.returns.tolist() == [15, 15, 15]
    assert score.cut == 3 and score.was_cut.tolist() == [True] * 3
    assert str(score).endswith("mean length 5, 3 of 3 episodes cut after 5 steps)")
    assert capsys.readouterr().err == ""  # the limit is known


def test_an_episode_that_ends_is_not_cut(run):
    score = run.evaluate(episodes=2, max_episode_steps=3)
    assert score.lengths.tolist() == [3, 3] and score.cut == 0 and "cut" not in str(score)


def test_without_a_limit_it_is_said_and_cut_all_the_same(run, monkeypatch, capsys):
    monkeypatch.setattr(evaluator, "LONGEST_EPISODE", 5)
    for env in (Endless, Clocks(1)):
        score = run.evaluate(episodes=2, env=env)
        assert score.lengths.tolist() == [5, 5] and score.cut == 2
        assert capsys.readouterr().err.count(f"{KNOWN} 5 steps") == 1
    assert run.evaluate(episodes=2, env="EndlessOwn-v0").cut == 2
    assert "EndlessOwn-v0: the time limit is 6 steps. An evaluation cuts an episode after 5" in capsys.readouterr().err
    assert run.evaluate(episodes=2, env="EndlessOwn-v0", max_episode_steps=6).lengths.tolist() == [6, 6]


def test_a_limit_that_the_environment_does_not_reach(run, tmp_path):
    """The limit of training and that of an id make way for another one; a limit inside of a Python object cannot."""
    limited = train(Endless, tmp_path / "limited", iterations=2, max_episode_steps=4)
    score = limited.evaluate(episodes=2)
    assert score.lengths.tolist() == [4, 4] and score.cut == 0
    assert limited.evaluate(episodes=2, max_episode_steps=9).lengths.tolist() == [9, 9]
    assert limited.evaluate(episodes=2, max_episode_steps=2).lengths.tolist() == [2, 2]
    assert run.evaluate(episodes=2, env="EndlessOwn-v0", max_episode_steps=8).lengths.tolist() == [8, 8]
    own = lambda: gym.wrappers.TimeLimit(Endless(), 4)  # noqa: E731
    for env in (own, GymnasiumEnvs(own, 2, seed=0)):
        with pytest.raises(dl.ConfigError, match=r"max_episode_steps = 9: must be at most 4, where .* ends its ep"):
            run.evaluate(episodes=2, env=env, max_episode_steps=9)


def test_progress_is_said_while_it_runs(run, monkeypatch):
    monkeypatch.setattr(evaluator, "NOTE_EVERY", 0.0)
    said = []
    for env, options in ((Endless, {"num_envs": 1}), (Clocks(1), {})):
        with evaluator.open_evaluator(
            run.plan, env, evaluator.EvaluationOptions(episodes=2, max_episode_steps=2, **options),
            seeds=[0], purpose="evaluate", note=said.append,
        ) as evaluate:  # fmt: skip
            said.clear()
            evaluate(run.state)
            assert said[-1] == "evaluation: 2 of 2 episodes have ended after 4 steps"
            first = said.copy()
            said.clear()
            evaluate(run.state)
            assert said == first  # it counts from 0 again
    monkeypatch.setattr(evaluator, "NOTE_EVERY", 10.0)
    said = []
    notes, now = evaluator.ProgressNotes(4, said.append), iter([0.0, 9.0, 11.0, 11.0, 20.0])
    monkeypatch.setattr(evaluator.time, "monotonic", lambda: next(now))
    notes.begin()
    notes(10, 1)
    notes(10, 1)
    notes(10, 1)
    assert said == ["evaluation: 2 of 4 episodes have ended after 20 steps"]


def test_rows_and_screen_of_a_run_count_cut_episodes(tmp_path, monkeypatch):
    monkeypatch.setattr(evaluator, "LONGEST_EPISODE", 5)
    monkeypatch.setattr(evaluator, "NOTE_EVERY", 0.0)
    screen, how = quiet(), {"evaluate_every": ITERATION, "evaluate_episodes": 3}
    train(Endless, tmp_path / "run", iterations=1, every=1, seeds=2, console=screen, **how)
    assert [row["eval/cut"] for row in rows(tmp_path / "run")] == [3, 3]
    shown = screen.file.getvalue()
    assert shown.count(f"{KNOWN} 5 steps") == 1 and "6 of 6 episodes cut after 5 steps" in shown
    assert shown.index(KNOWN) < shown.index("evaluation: 6 of 6 episodes have ended")
    train(brief, tmp_path / "brief", iterations=1, every=1, **how)
    assert [row["eval/cut"] for row in rows(tmp_path / "brief")] == [0]


# One simulator only


@pytest.mark.parametrize(("given", "peak"), [(None, 5), (1, 1), (3, 3), (9, 5)])
def test_as_many_environments_are_open_as_are_allowed(run, given, peak):
    door = Door(length=3)
    assert run.evaluate(episodes=5, env=door, num_envs=given).lengths.tolist() == [3] * 5
    assert (door.peak, door.open) == (peak, 0)


def test_a_simulator_that_cannot_be_open_often_enough(run):
    """The remedy is named and helps; what was opened is closed."""
    door = Door(2, length=3)
    with pytest.raises(dl.EnvError, match=r"port 5005 is in use. An evaluation opens 5 environments.* Pass num_envs=1"):
        run.evaluate(episodes=5, env=door)
    assert door.open == 0
    assert run.evaluate(episodes=5, env=door, num_envs=1).returns.tolist() == [6] * 5 and door.peak == 2


def test_agents_of_several_seeds_play_one_after_the_other_where_few_are_allowed(tmp_path):
    door = Door(2, length=3)
    runs = train(door, tmp_path / "run", algorithm=dl.A2C(networks=TINY.networks, num_envs=1), iterations=1, seeds=2)
    assert door.open == 0
    score = runs.evaluate(episodes=4, num_envs=2)
    assert score.returns.tolist() == [[6] * 4] * 2 and (door.peak, door.open) == (2, 0)
    with pytest.raises(dl.EnvError, match=r"in use. An evaluation opens 8 environments at once"):
        runs.evaluate(episodes=4)
    assert door.open == 0


def test_the_number_of_environments_is_kept_for_every_evaluation_of_a_run(tmp_path):
    door, how = Door(2, length=3), {"algorithm": dl.A2C(networks=TINY.networks, num_envs=1), "iterations": 1}
    options = {"evaluate_every": ITERATION, "evaluate_episodes": 4}
    words = "in use. An evaluation opens 4 environments .* evaluate_num_envs=1.* Those of training .* leave out"
    with pytest.raises(dl.EnvError, match=words):
        train(door, tmp_path / "run", **how, **options)
    assert door.open == 0
    run = train(door, tmp_path / "run", **how, **options, evaluate_num_envs=1)
    assert run.evaluate(episodes=5).lengths.tolist() == [3] * 5
    assert dl.load(tmp_path / "run", env=door).evaluate(episodes=3).lengths.tolist() == [3] * 3
    assert (door.peak, door.open) == (2, 0)


@pytest.mark.parametrize("name", ["num_envs", "max_episode_steps", "episodes"])
@pytest.mark.parametrize("value", [0, -1, 1.5, "3", True, 2**31])
def test_numbers_out_of_range_are_refused_by_name(unchecked, run, name, value):
    with pytest.raises(dl.ConfigError, match=rf"^{name} = {value!r}: must be an integer in \[1, 2,147,483,647\]"):
        run.evaluate(**{"episodes": 3, name: value})


def test_the_adapter_has_its_own_number(run, tmp_path):
    adapter = GymnasiumEnvs(brief, 2, seed=0)
    assert run.evaluate(episodes=3, env=adapter, num_envs=2).lengths.tolist() == [3] * 3
    with pytest.raises(dl.ConfigError, match=r"^num_envs = 1: the adapter has 2 environments"):
        run.evaluate(episodes=3, env=adapter, num_envs=1)
    with pytest.raises(dl.ConfigError, match=r"^evaluate_num_envs = 1: the adapter has 2 environments"):
        train(brief, tmp_path / "run", iterations=1, evaluate_env=adapter, evaluate_num_envs=1)


def test_the_command_takes_both_options(run, capsys):
    path = run.path.parent / "ids"
    train("EndlessOwn-v0", path, iterations=1)
    assert cli.run(["evaluate", str(path), "--episodes", "3", "--num-envs", "1", "--max-episode-steps", "4"]) == 0
    assert "mean return 10.0" in (out := capsys.readouterr().out) and "3 of 3 episodes cut after 4 steps" in out
    for option in ("--num-envs", "--max-episode-steps"):
        with pytest.raises(dl.ConfigError, match=f"{option[2:].replace('-', '_')} = 4: this option has no effect with"):
            cli.run(["evaluate", str(path), "--dataset", "x.npz", option, "4"])


# An environment of evaluations alone


def plain():
    """As `brief`, but it pays ten times as much for longer."""
    return Endless(4, scale=10.0)


def scores(path):
    return [row["eval/mean_reward"] for row in rows(path) if "eval/mean_reward" in row]


def test_evaluations_have_an_environment_of_their_own(tmp_path):
    """During training, for the best state, after it, once loaded, and where it goes on."""
    path = tmp_path / "run"
    run = train(brief, path, iterations=2, every=1, evaluate_every=ITERATION, evaluate_env=plain)
    assert scores(path) == [100.0, 100.0] and run.evaluate(episodes=2).returns.tolist() == [100, 100]
    assert run.evaluate(episodes=2, env=brief).returns.tolist() == [6, 6]
    for which in ("latest", "best"):
        again = dl.load(path, which=which, env=brief, evaluate_env=plain)
        assert again.evaluate(episodes=2).mean == 100
    lost = dl.load(path, env=brief)
    words = r"The evaluation environment of this run was a Python object, <.*plain>. Pass it again: .*evaluate_env="
    with pytest.raises(dl.ConfigError, match=words):
        lost.evaluate()
    door = Door(length=3)
    with pytest.raises(dl.ConfigError, match=words):
        resume(path, iterations=3, env=door)
    assert door.made == 0  # nothing is made before
    assert lost.evaluate(episodes=2, env=plain).mean == 100
    more = resume(path, iterations=3, env=brief, evaluate_env=plain)
    assert scores(path) == [100.0] * 3 and more.evaluate(episodes=2).mean == 100
    assert more.resume(steps=4 * ITERATION, console=quiet()).evaluate(episodes=2).mean == 100


def test_several_seeds_have_it_too(tmp_path):
    runs = train(brief, tmp_path / "run", iterations=1, every=1, seeds=2, evaluate_every=ITERATION, evaluate_env=plain)
    assert scores(runs.path) == [100.0] * 2
    assert runs.evaluate(episodes=2).mean == runs[1].evaluate(episodes=2).mean == 100


def test_an_id_and_its_arguments_are_kept(tmp_path, capsys):
    """The limit and the arguments of training are not those of evaluations."""
    words = ["a2c", "EndlessDoor-v0", "--env-kwargs", "scale", "2", "--max-episode-steps", "2", "--steps", "12"]
    own = ["--evaluate-env", "EndlessOwn-v0", "--evaluate-env-kwargs", "scale", "5", "--evaluate-num-envs", "1"]
    small = ["--num-envs", "3", "--algorithm.networks.hidden-sizes", "8", "--algorithm.rollout-length", "4"]
    path = tmp_path / "run"
    assert cli.run(["train", *words, *own, *small, "--final-episodes", "2", "--run-dir", str(path)]) == 0
    assert "mean return 105.0" in capsys.readouterr().out  # 5 × (1 + … + 6)
    assert cli.run(["evaluate", str(path), "--episodes", "2"]) == 0
    assert "mean return 105.0" in capsys.readouterr().out
    run = dl.load(path)
    assert (run.plan.evaluate_env, run.plan.evaluate_num_envs) == ("EndlessOwn-v0", 1)
    assert run.evaluate(episodes=1, env="EndlessOwn-v0").mean == 105
    assert run.evaluate(episodes=1, env="EndlessDoor-v0").mean == 6  # 2 × (1 + 2), as in training
    assert cli.run(["resume", str(path), "--steps", "24", "--final-episodes", "2"]) == 0
    assert "mean return 105.0" in capsys.readouterr().out


def test_it_is_closed_before_training_opens_its_own(tmp_path):
    door = Door(1, length=3)
    run = train(
        door, tmp_path / "run", algorithm=dl.A2C(networks=TINY.networks, num_envs=1), iterations=1, evaluate_env=door
    )
    assert (door.made, door.open) == (2, 0) and run.evaluate(episodes=3, num_envs=1).lengths.tolist() == [3] * 3


def test_an_adapter_plays_evaluations_beside_one_that_trains(tmp_path):
    trains, tests = GymnasiumEnvs(brief, 3, seed=0), GymnasiumEnvs(plain, 2, seed=0)
    how = {"iterations": 1, "every": 1, "evaluate_every": ITERATION}
    train(trains, tmp_path / "run", **how, evaluate_env=tests, max_episode_steps=None)
    assert scores(tmp_path / "run") == [100.0]
    with pytest.raises(dl.ConfigError, match="would reset the environments of the adapter"):
        train(trains, tmp_path / "other", **how, evaluate_env=trains)


@pytest.mark.parametrize(("trains", "tests"), [(Clocks(3), plain), (brief, Clocks(2))])
def test_one_may_be_in_jax_and_the_other_on_the_host(tmp_path, trains, tests):
    how = {"iterations": 1, "every": 1, "evaluate_every": ITERATION, "evaluate_episodes": 1}
    train(trains, tmp_path / "run", **how, evaluate_env=tests)
    assert scores(tmp_path / "run") == [100.0 if tests is plain else 1.0]


def test_tasks_of_training_are_those_of_evaluations(tmp_path):
    def half(obs, action, reward, next_obs, terminated, info):
        return 0.5 * reward

    def whole(obs, action, reward, next_obs, terminated, info):
        return reward

    run = train(brief, tmp_path / "run", iterations=1, tasks=Tasks(half, whole), evaluate_env=plain)
    assert run.evaluate(episodes=2).mean == 100
    with pytest.raises(dl.ConfigError, match=r"evaluate_env=tasks.attach\("):
        dl.load(run.path).evaluate()


class Wide(Endless):
    observation_space = gym.spaces.Box(0, np.inf, (2,))


class Few(Endless):
    action_space = gym.spaces.Discrete(3)


def broken():
    raise ValueError("no licence")


SPACES = r"^evaluate_env = <.*>: must have the spaces of the training environment, <.*brief>. It differs: "
REFUSED = {
    "observations": ({"evaluate_env": Wide}, SPACES + r"observation.shape = \(2,\), not \(1,\)"),
    "actions": ({"evaluate_env": Few}, SPACES + r"action.n = 3, not 50"),
    "an adapter": ({"evaluate_env": GymnasiumEnvs(Few, 2, seed=0)}, SPACES + r"action.n = 3, not 50"),
    "an unknown id": ({"evaluate_env": "EndlesDoor-v0"}, "^evaluate_env: There is no Gymnasium environment"),
    "no environment": ({"evaluate_env": 5}, "^evaluate_env: env = 5: must be an id"),
    "one that fails": ({"evaluate_env": broken}, "^evaluate_env: .* could not be made; it raised ValueError: no lic"),
    "arguments alone": ({"evaluate_env_kwargs": {"scale": 2}}, "^evaluate_env_kwargs = .* arguments of evaluate_env"),
    "arguments of an object": (
        {"evaluate_env": plain, "evaluate_env_kwargs": {"scale": 2}},
        "^evaluate_env_kwargs = .*: only an id of Gymnasium takes these arguments, and evaluate_env is",
    ),
    "beside data": ({"evaluate_env": plain, "dataset": "x.npz"}, "^evaluate_env = <.*plain>: with a dataset, env is"),
    "no number": ({"evaluate_num_envs": 0}, "^evaluate_num_envs = 0: must be an integer in"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_play_evaluations_is_refused_by_name(unchecked, tmp_path, name):
    options, message = REFUSED[name]
    with pytest.raises((dl.ConfigError, dl.EnvError), match=message):
        train(brief, tmp_path / "run", iterations=1, **options)
    assert not (tmp_path / "run").exists()


def test_an_id_with_a_module_is_passed_again(run):
    """No name in a file is ever imported."""
    plan = dataclasses.replace(run.plan, evaluate_env="nowhere:Plain-v0")
    words = r"The evaluation environment .* import the module nowhere.*--evaluate-env nowhere:Plain-v0, in Python evalu"
    with pytest.raises(dl.ConfigError, match=words):
        dataclasses.replace(run, plan=plan).evaluate()


def test_a_run_without_one_takes_none_later(run):
    for call in (dl.load, resume):
        with pytest.raises(dl.ConfigError, match=r"^evaluate_env = <.*plain>: this run evaluates in the env"):
            call(run.path, evaluate_env=plain)
