"""Numbers that an environment puts into `info`, in rows where they are named: each is the mean over the steps."""

import gymnasium as gym
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.wrappers import RecordEpisodeStatistics, TransformReward
from runs.helpers import plan_of, quiet, rows
from runs.idle import Idle

import duologue as dl
from duologue.cli.parse import parse_train
from duologue.envs.base import AbstractHostEnvs
from duologue.envs.make import make, make_seeds
from duologue.envs.probe import ProbeEnvs
from duologue.envs.results import GAME_RETURN
from duologue.envs.tasks import Tasks
from duologue.errors import ConfigError, EnvError
from duologue.loops import compiled, host
from duologue.runs import config
from duologue.runs.options import RunOptions
from duologue.runs.rows import RowRemarks
from duologue.runs.run import finetune_options
from duologue.types import Step

OBS = np.zeros(1, np.float32)


class Telling(gym.Env):
    """Episodes of 4 steps. Step t of all, from 0, has the info `told(t)`."""

    observation_space, action_space = gym.spaces.Box(0, 1, (1,)), gym.spaces.Discrete(2)

    def __init__(self, told):
        self.told, self.t = told, -1

    def reset(self, *, seed=None, options=None):
        return OBS, {"height": 1e6, "only_at_reset": 1.0}

    def step(self, action):
        self.t += 1
        return OBS, 1.0, self.t % 4 == 3, False, self.told(self.t)


HALF = {  # what is told at step t, and the mean over the first 8
    "a number": (lambda t: {"height": t}, 3.5),
    "at ends alone": (lambda t: {"height": t} if t % 4 == 3 else {}, 5),
    "an array of one": (lambda t: {"height": np.array([t])}, 3.5),
    "a scalar of NumPy": (lambda t: {"height": np.float64(t) / 2}, 1.75),
    "a flag": (lambda t: {"height": t < 2}, 0.25),
    "beside others": (lambda t: {"height": np.int8(-t), "x": "word", "y": [1, 2], "z": np.nan}, -3.5),
}


def rows_of(told, *names, interval=8, seeds=1, **options):
    """The rows of 16 steps of each of two environments."""
    envs = make_seeds(lambda: Telling(told), 2, seed=0, seeds=seeds, info=names, **options)
    idle, state = Idle(), None
    state = host.start(idle, envs, list(range(seeds)))
    loop = host.run(idle, envs, state, steps=32, interval=2 * interval, log_info=names)
    found = [totals.summary() for _, _, totals in loop]
    envs.close()
    return found


@pytest.mark.parametrize("name", HALF)
def test_the_mean_over_all_steps_that_give_the_number(name):
    told, mean = HALF[name]
    first, second = rows_of(told, "height")
    assert first["info/height"] == mean
    assert second["info/height"] == np.mean([told(t)["height"] for t in range(8, 16) if "height" in told(t)])
    assert [name for name in first if name.startswith("info/")] == ["info/height"]


def test_a_row_without_the_number_has_none_and_only_names_are_logged():
    first, second = rows_of(lambda t: {"late": 2, "other": 1} if t > 8 else {}, "late")
    assert np.isnan(first["info/late"]) and second["info/late"] == 2 and "info/other" not in second
    assert not any(name.startswith("info/") for name in rows_of(lambda t: {"late": 2})[0])
    assert np.isnan(rows_of(lambda t: {}, "only_at_reset")[0]["info/only_at_reset"])


def test_a_success_that_is_never_reported_is_no_failure():
    """Though its name is asked for; once it is reported, an end without a report is a failure."""
    row, _ = rows_of(lambda t: {}, "is_success")
    assert "rollout/success_rate" not in row and np.isnan(row["info/is_success"])
    first, second = rows_of(lambda t: {"is_success": True} if t == 3 else {}, "is_success")
    assert first["rollout/success_rate"] == 0.5 and second["rollout/success_rate"] == 0
    assert first["info/is_success"] == 1 and np.isnan(second["info/is_success"])


def test_seeds_have_means_of_their_own():
    first, _ = rows_of(lambda t: {"a": t, "b": -t}, "b", "a", seeds=2)
    assert first["info/a"].tolist() == [3.5, 3.5] and first["info/b"].tolist() == [-3.5, -3.5]


def test_processes_tell_what_one_process_does():
    """Numbers, some of them missing, and the game's own return at the end alone. Tasks may read the same numbers."""

    class Own(Telling):
        def __init__(self):
            super().__init__(lambda t: {"a": t, "word": "x"} if t != 1 else {"success": True})

    def source():
        return TransformReward(RecordEpisodeStatistics(Own()), lambda reward: 0.5 * reward)

    seen = []
    for asynchronous in (False, True):
        envs = make(source, 2, asynchronous=asynchronous, info=("a", "c"))
        envs.reset()
        seen.append([envs.step(np.zeros(2, np.int32)).info for _ in range(4)])
        envs.close()
    one, many = seen
    for here, there in zip(one, many, strict=True):
        assert here.keys() == there.keys() and all(here[name].dtype == there[name].dtype for name in here)
        for name, x in here.items():
            np.testing.assert_array_equal(there[name], x, err_msg=name)
    assert [info["a"][0] for info in many if not np.isnan(info["a"][0])] == [0, 2, 3]
    np.testing.assert_array_equal([info[GAME_RETURN] for info in many], [[np.nan] * 2] * 3 + [[4, 4]])
    assert np.isnan([info["c"] for info in many]).all() and "is_success" in many[1] and "is_success" not in many[0]


def test_tasks_and_rows_read_one_number():
    def high(obs, action, reward, next_obs, terminated, info):
        return info["a"]

    envs = make(Tasks(high, info="a").attach(lambda: Telling(lambda t: {"a": t, "b": 2 * t})), 2, info=("b", "a"))
    envs.reset()
    seen = [envs.step(np.zeros(2, np.int32)) for _ in range(3)]
    assert [(step.reward[0, 0], step.info["a"][0], step.info["b"][0]) for step in seen] == [
        (t, t, 2 * t) for t in range(3)
    ]


@pytest.mark.parametrize("value", [np.nan, np.inf, [1.0, 2.0], "high", None, {"r": 1}, np.zeros((0,))], ids=repr)
def test_what_is_no_finite_number_is_refused_by_name(value):
    with pytest.raises(EnvError, match=r"^environment 0 gave info\['height'\].*number.* \(at step 2 of its episode 1"):
        rows_of(lambda t: {"height": value if t == 6 else 0.0}, "height")


class Adapter(AbstractHostEnvs):
    """Two environments of a user's own, whose `info` is `told`."""

    def __init__(self, told):
        self.spec, self.num_envs, self.told = ProbeEnvs("constant", 2).spec, 2, told

    def reset(self):
        return np.zeros((2, 1), np.float32)

    def step(self, action):
        obs, no = np.zeros((2, 1), np.float32), np.zeros(2, bool)
        return Step(obs, obs, np.ones(2, np.float32), no, no, {"x": self.told})

    def snapshot(self):
        return {"episode": np.zeros(2, np.int32)}

    def restore(self, snapshot):
        return self.reset(), None

    def close(self):
        pass


@pytest.mark.parametrize(
    ("told", "what"), [
        (np.ones(3), r"has the shape \[3\]: must be \[2\]"), (1.0, r"has the shape \[\]"),
        (np.array([1, np.inf]), "is infinite in environment 1"),
    ],
)  # fmt: skip
def test_an_adapter_gives_one_number_for_each_environment(told, what):
    def run(told):
        envs = Adapter(told)
        idle = Idle(rollout_length=1)
        *_, (_, _, totals) = host.run(idle, envs, host.start(idle, envs, [0]), steps=4, interval=4, log_info=("x",))
        return totals.summary()["info/x"]

    assert run(np.array([1, np.nan])) == 1 and run(np.array([1, 2])) == 1.5
    with pytest.raises(EnvError, match=rf"info\['x'\] {what}"):
        run(told)


class InJax(ProbeEnvs):
    """Step t, from 0, tells t in environment 0, and nothing in environment 1; `broken` is infinite at step 5."""

    def step(self, env_state, action, *, key):
        (inner, t) = env_state
        inner, seen = super().step(inner, action, key=key)
        told = jnp.where(jnp.arange(2) == 0, t, jnp.nan)
        numbers = {"t": told, "broken": jnp.where(t == 5, jnp.inf, told), "wide": jnp.zeros((2, 3))}
        return (inner, t + 1), seen._replace(info=numbers)

    def reset(self, key):
        inner, obs = super().reset(key)
        return (inner, jnp.zeros(())), obs


@pytest.mark.parametrize("seeds", [1, 2])
def test_environments_in_jax_tell_numbers_too(seeds):
    envs, idle = InJax("constant", 2), Idle()

    def rows(name):
        state = compiled.start(idle, envs, list(range(seeds)))
        loop = compiled.run(idle, envs, state, steps=32, interval=16, log_info=(name,))
        return [totals.summary()[f"info/{name}"].tolist() for _, _, totals in loop]

    means = [3.5, 11.5]
    assert rows("t") == (means if seeds == 1 else [[mean] * 2 for mean in means])
    with pytest.raises(EnvError, match=r"info\['broken'\] is infinite before step 16: must be finite"):
        rows("broken")


@pytest.mark.parametrize("name", ["T", "wide", "reward"])
def test_a_name_that_environments_in_jax_do_not_have_is_refused_before_anything_is_made(name, tmp_path):
    words = rf"log_info = '{name}': must be one of the numbers that probe/constant gives in info: broken, t\."
    with pytest.raises(ConfigError, match=words):
        dl.train(Idle(), InJax("constant", 2), steps=8, log_info=["t", name], run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(ConfigError, match=r"gives in info: none\."):
        plan_of(Idle(), "probe/constant", log_info=("t",))


@pytest.mark.parametrize(
    ("given", "problem"),
    [(("a", "b", "a"), "'a' is there twice"), (("a", 3), "must be a tuple, each a str"), (7, "must be a tuple")],
)
def test_names_that_are_none_are_refused(given, problem, unchecked):
    with pytest.raises(ConfigError, match=rf"log_info = .*{problem}"):
        RunOptions(steps=1, log_info=given)


def test_a_name_may_be_one_word_and_names_may_be_a_list():
    """In `train` and in `finetune`."""
    assert RunOptions.pick({"steps": 1, "log_info": "speed"}).log_info == ("speed",)
    assert finetune_options(0, steps=1, log_info=["a", "b"]).log_info == ("a", "b")
    assert RunOptions.pick({"steps": 1}).log_info == ()


def test_recorded_data_have_no_info():
    with pytest.raises(ConfigError, match=r"log_info = \('x',\): a run on recorded data steps no environment"):
        dl.train(dl.BC(), dataset="none.npz", steps=8, log_info=("x",))


def test_a_run_keeps_the_names_resumes_with_them_and_says_what_never_came(tmp_path):
    console, source = quiet(), lambda: Telling(lambda t: {"height": t, "weight": 2 * t})
    run = dl.train(
        Idle(), source, steps=32, log_info=["height", "wieght", "weight"], log_every=16, save_every=16,
        run_dir=tmp_path / "run", console=console,
    )  # fmt: skip
    said = "log_info: no step has given info['wieght'] so far."
    assert console.file.getvalue().count(said) == 1
    plan = config.from_dict(config.to_dict(run.plan), extra=(type(run.plan), Idle))
    assert plan.log_info == ("height", "wieght", "weight")
    dl.resume(run.path, steps=64, env=source, algorithm=Idle, console=quiet())
    told = [(row["info/height"], row["info/weight"], row["info/wieght"]) for row in rows(run.path)]
    assert told[:2] == [(3.5, 7, None), (11.5, 23, None)] and len(told) == 4
    assert all(weight == 2 * height and none is None for height, weight, none in told)


def test_a_short_run_says_at_its_end_what_never_came(tmp_path):
    console = quiet()
    dl.train(
        Idle(rollout_length=1),
        lambda: Telling(lambda t: {}),
        steps=2,
        log_info="x",
        run_dir=tmp_path / "run",
        console=console,
    )
    assert console.file.getvalue().count("log_info: no step has given info['x'] so far.") == 1


def test_what_never_came_is_said_at_the_first_end_or_with_the_last_row():
    remarks = RowRemarks(["a", "b"])
    nan = np.float64(np.nan)
    row = {"info/a": nan, "info/b": np.array([np.nan, 1.0]), "rollout/episodes": np.zeros(2)}
    assert remarks.read(row) == []
    assert "info['a'] so far" in remarks.missing_info()[0] and remarks.missing_info() == []
    remarks = RowRemarks(["a", "b"])
    [said] = remarks.read({**row, "info/b": nan, "rollout/episodes": np.array([0, 1])})
    assert "info['a'], info['b'] so far" in said
    assert RowRemarks([]).missing_info() == RowRemarks([]).read(row) == []
    remarks = RowRemarks(["a"])
    assert remarks.read({"info/a": np.float64(0), "rollout/episodes": np.float64(3)}) == remarks.missing_info() == []


@pytest.mark.parametrize("words", [("x_position", "reward/forward"), ("x_position",), ()])
def test_the_command_line_and_a_file_name_them(words, tmp_path):
    _, command = parse_train("a2c", ["CartPole-v1", *(["--log-info", *words] if words else [])])
    assert command.log_info == words
    (tmp_path / "run.yaml").write_text(f"log_info: {list(words)}\n")
    _, command = parse_train("a2c", ["CartPole-v1", "--config", str(tmp_path / "run.yaml")])
    assert command.log_info == words
