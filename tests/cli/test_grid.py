"""`train --grid`: what is trained, where it lies, what is refused before anything is, and how a grid goes on."""

import os
import re
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from runs.fake_loop import no_learning
from runs.helpers import assert_same_run, saved

import duologue as dl
from duologue.cli import actions, grid
from duologue.cli import main as cli
from duologue.cli import train as training
from duologue.cli.grid import Axis
from duologue.errors import ConfigError, DuologueError
from duologue.runs.plan import read_plan

pytestmark = pytest.mark.usefixtures("fake_loop")
SMALL = ["--algorithm.networks.hidden-sizes", "8", "--algorithm.rollout-length", "4", "--num-envs", "3"]
TINY = ["train", "a2c", "probe/both", "--log-every", "24", "--save-every", "24", "--final-episodes", "4", *SMALL]
STEPS = ["--steps", "72"]
RATES = ["--grid", "algorithm.learning-rate", "1e-3", "linear:1e-2:0"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a whole grid, of two learning rates."""
    path = tmp_path_factory.mktemp("grid") / "g"
    with no_learning():
        assert cli.run([*TINY, *STEPS, *RATES, "--run-dir", str(path)]) == 0
    return path


@pytest.fixture
def copied(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "g")


def parsed(*words, name="a2c"):
    """The combinations of a command line."""
    rest, axes = grid.split(words)
    return grid.combinations(name, rest, axes)


def table(out):
    """The rows of the table, by what stands between two spaces or more."""
    lines = out.splitlines()
    first = next(i for i, line in enumerate(lines) if line.endswith(("run", "run ")) or re.search(r"  run +$", line))
    rows = [re.split(r"\s{2,}", line.strip()) for line in lines[first:]]
    return rows[: rows.index([""])] if [""] in rows else rows


# From words to combinations


def test_the_values_of_a_grid_end_at_the_next_option():
    words = "P-v1 --grid a.b-c 1 -2 --steps 3 --grid=seed 4 algorithm.optimizer:adam --grid env x:Y-v0 --dry-run"
    assert grid.split(words.split()) == (
        ["P-v1", "--steps", "3", "algorithm.optimizer:adam", "--dry-run"],
        [Axis("a.b_c", ("1", "-2")), Axis("seed", ("4",)), Axis("env", ("x:Y-v0",))],
    )
    assert grid.split(["P-v1", "--grid", "--help"]) == (["P-v1", "--help"], [])


def test_every_combination_in_the_order_given():
    words = "Pendulum-v1 --steps 20_000 --grid algorithm.tau 1e-2 0.001 --grid algorithm.discount 0.98 0.99"
    runs = parsed(*words.split(), name="sac")
    assert [run.folder.as_posix() for run in runs] == [
        f"runs/sac/Pendulum-v1/tau={tau},discount={discount}" for tau in (0.01, 0.001) for discount in (0.98, 0.99)
    ]
    assert [run.command.algorithm for run in runs] == [
        dl.SAC(tau=tau, discount=discount) for tau in (0.01, 0.001) for discount in (0.98, 0.99)
    ]
    assert {(run.command.steps, run.command.env, run.command.grid) for run in runs} == {(20_000, "Pendulum-v1", ())}
    assert str(runs[1]) == "tau=0.01, discount=0.99"


@pytest.mark.parametrize(
    ("words", "name", "wanted"),
    [
        ("algorithm.learning_rate linear:7e-4 1e-3", "learning_rate=linear-0.0007-0.0",
         lambda command: command.algorithm.learning_rate == dl.Linear(7e-4)),
        ("algorithm.networks.hidden_sizes|8 4|16", "hidden_sizes=8-4",
         lambda command: command.algorithm.networks.hidden_sizes == (8, 4)),
        ("algorithm.networks.shared-trunk True false", "shared_trunk=True",
         lambda command: command.algorithm.networks.shared_trunk is True),
        ("algorithm.networks.shared_trunk none true", "shared_trunk=None",
         lambda command: command.algorithm.networks.shared_trunk is None),
        ("algorithm.networks.hidden_sizes|None|8 4|", "hidden_sizes=None",
         lambda command: command.algorithm.networks.hidden_sizes is None),
        ("normalize_obs false True", "normalize_obs=False", lambda command: command.normalize_obs is False),
        ("algorithm.lambda_ 0.5", "lambda_=0.5", lambda command: command.algorithm.lambda_ == 0.5),
        ("algorithm.reward_clip None 1", "reward_clip=None", lambda command: command.algorithm.reward_clip is None),
        ("algorithm.optimizer adam rms-prop", "optimizer=adam",
         lambda command: command.algorithm.optimizer == dl.Adam(eps=1e-3)),
        ("num-envs 4 8", "num_envs=4", lambda command: command.num_envs == 4),
        ("seed 7", "seed=7", lambda command: command.seed == 7),
    ],
)  # fmt: skip
def test_values_are_those_of_the_option(words, name, wanted):
    axis = words.split("|") if "|" in words else words.split()
    run, *others = parsed("CartPole-v1", "--algorithm.optimizer.eps", "1e-3", "--grid", *axis)
    assert run.folder.name == name and wanted(run.command) and run.command.algorithm.optimizer.eps == 1e-3
    assert len(others) == len(axis) - 2 and all(not wanted(each.command) for each in others)


@pytest.mark.needs("gymnax")
def test_environments_vary_too():
    runs = parsed("--steps", "9", "--grid", "env", "CartPole-v1", "gymnax/CartPole-v1")
    assert [run.command.env for run in runs] == ["CartPole-v1", "gymnax/CartPole-v1"]
    assert [str(run.folder) for run in runs] == ["runs/a2c/env=CartPole-v1", "runs/a2c/env=gymnax-CartPole-v1"]


def test_a_file_lies_below_a_grid():
    Path("a.yaml").write_text("env: probe/both\nseed: 5\nalgorithm: {discount: 0.5, lambda_: 0.9}")
    runs = parsed("--config", "a.yaml", "--grid", "algorithm.discount", "0.6", "0.7", "--grid", "env", "probe/reward")
    assert [(run.command.algorithm.discount, run.command.algorithm.lambda_) for run in runs] == [(0.6, 0.9), (0.7, 0.9)]
    assert {(run.command.env, run.command.seed) for run in runs} == {("probe/reward", 5)}
    assert {str(run.folder.parent) for run in runs} == {"runs/a2c"}


def test_folders_have_names_that_are_safe_and_their_own():
    names = grid.file_names([{"env": "a:b"}, {"env": "a/b"}, {"env": "../c d"}, {"env": "x" * 500}, {"rate": "1e+20"}])
    assert names[2:3] + names[4:] == ["env=..-c-d", "rate=1e+20"] and len(set(names)) == 5
    assert all(re.fullmatch(r"env=a-b-[0-9a-f]{8}", name) for name in names[:2]) and len(names[3]) < 200
    assert names == grid.file_names(
        [{"env": "a:b"}, {"env": "a/b"}, {"env": "../c d"}, {"env": "x" * 500}, {"rate": "1e+20"}]
    )
    assert grid.column_names(["a.eps", "b.tau", "c.d.eps"]) == ["a.eps", "tau", "c.d.eps"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--grid algorithm.discuont 0.9", "--grid algorithm.discuont: there is no such field. .*'algorithm.discount'"),
        ("--grid discount 0.9", r"Did you mean 'algorithm\.discount'\?"),
        ("--grid algorithm.gamma 0.9", r"Did you mean 'algorithm\.discount'\?"),
        ("--grid algorithm.networks.hidden_size 8", r"Did you mean 'algorithm\.networks\.hidden_sizes'\?"),
        ("--grid algorithm.discount.low 1", "algorithm.discount is a plain value"),
        ("--grid algorithm.discount 0.9 2", r"A2C\.discount = 2\.0: must be a number in \[0, 1\]"),
        ("--grid algorithm.discount 0.9 high", r"--algorithm\.discount.*'high'"),
        ("--grid seed 0 -1", "seed = -1: must be an integer in"),
        ("--grid steps 24 0", "steps = 0: must be an integer in"),
        ("--grid env probe/bohT", "env is given both as an option and by --grid"),
        (
            "--algorithm.discount 0.99 --grid algorithm.discount 0.9",
            "algorithm.discount is given both as an option and by",
        ),
        (
            "--algorithm.discount=0.9 --grid algorithm.discount 0.9",
            "algorithm.discount is given both as an option and by",
        ),
        ("--no-normalize-obs --grid normalize-obs True", "normalize_obs is given both as an option and by --grid"),
        (
            "algorithm.optimizer:adam --grid algorithm.optimizer adam",
            "algorithm.optimizer is given both as an option and by",
        ),
        ("--grid algorithm.discount 0.9 0.90", "algorithm.discount: 0.9 and 0.90 are one value"),
        ("--grid seed 1 2 1", "--grid seed: 1 is given twice"),
        ("--grid seed 1 --grid seed 2", "--grid seed is given 2 times"),
        ("--grid seed", "--grid seed: --grid takes a field and one or more values"),
        ("--grid", "--grid: --grid takes a field and one or more values"),
        ("--grid run_dir a b", "--grid run_dir: cannot vary in a grid"),
        ("--grid algorithm A2C", "--grid algorithm: cannot vary in a grid"),
        ("--grid normalize_obs yes", "--grid normalize_obs yes: must be True or False"),
        ("--grid algorithm.networks.shared_trunk yes", r"shared_trunk yes: must be True or False or None"),
        ("--grid algorithm.optimizer adma", r"adma.*algorithm\.optimizer:adam"),
        ("--config a.yaml", "a.yaml: grid is not allowed in a file"),
    ],
)
def test_what_is_refused_before_anything_is_trained(duologue, tmp_path, words, message):
    """One message, exit code 2, and nothing written."""
    Path("a.yaml").write_text("grid: [seed, '1']")
    code, out, err = duologue("train", "a2c", "probe/both", *words.split())
    plain = " ".join(re.sub("[│╭╮╰╯─•]|-{3,}", " ", err).split())
    assert code == 2 and not out and re.search(message, plain), plain
    assert "Traceback" not in err and err.count("error:") + err.count("For full helptext") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a.yaml"]


def test_a_dry_run_shows_combinations_and_folders_and_writes_nothing(duologue, tmp_path):
    code, out, err = duologue(*TINY, *STEPS, "--grid", "seed", "3", "1", *RATES, "--dry-run")
    assert code == 0 and not err and not list(tmp_path.iterdir())
    header, *rows = table(out)
    assert header == ["seed", "learning_rate", "run"] and len(rows) == 4
    name = "runs/a2c/probe-both/seed=3,learning_rate=linear-0.01-0.0"
    assert rows[1] == ["3", "linear:0.01:0.0", name] and [row[0] for row in rows] == ["3", "3", "1", "1"]


# Trained


def test_a_grid_once_and_again(duologue, copied, monkeypatch):
    """What is finished is skipped and said so; the table is the same, and its last line a command that works."""
    for name in ("train", "resume"):
        monkeypatch.setattr(training, name, lambda *_, **__: pytest.fail("it was finished"))
    folders = ["g/learning_rate=0.001", "g/learning_rate=linear-0.01-0.0"]
    assert sorted(str(path) for path in Path("g").iterdir()) == [*folders]
    code, out, err = duologue(*TINY, *STEPS, *RATES, "--run-dir", "g")
    assert code == 0 and not err and "\x1b" not in out and out.count("already finished, skipped") == 2
    header, *rows = table(out)
    assert header == ["learning_rate", "mean return, 95 % interval", "run"]
    scores = [dl.load(path).evaluate(episodes=4) for path in folders]
    assert rows == [
        [value, grid.score_text(score), path]
        for value, score, path in zip(("0.001", "linear:0.01:0.0"), scores, folders, strict=True)
    ]
    assert "over 4 episodes of one agent." in out and "best" not in out and "Add --grid seed" in out
    word, program, *rest = out.splitlines()[-1].split()
    assert (word, program, rest) == ("next", "duologue", ["plot", *folders, "-o", "curves.png"])
    assert duologue(*rest)[0] == 0 and Path("curves.png").stat().st_size > 1000
    algorithm = read_plan(Path(folders[1])).algorithm
    assert algorithm.learning_rate == dl.Linear(1e-2, 0.0, updates=6) and saved(Path(folders[1]))[-1] == 72


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--steps", "96"], "g/learning_rate=0.001 holds a run with another configuration: steps = 72 there, 96 here"),
        ([*STEPS, "--algorithm.discount", "0.5"], r"algorithm\.discount = 0\.99 there, 0\.5 here.*another run_dir"),
    ],
)
def test_another_configuration_in_its_folder_is_refused(duologue, copied, words, message):
    before = sorted(copied.rglob("*"))
    code, out, err = duologue(*TINY, *words, *RATES, "3e-3", "--run-dir", "g")
    assert code == 2 and not out and re.search(message, err) and sorted(copied.rglob("*")) == before


def test_a_run_is_no_folder_for_a_grid(duologue, copied):
    code, out, err = duologue(*TINY, *STEPS, *RATES, "--run-dir", copied / "learning_rate=0.001")
    assert code == 2 and not out and "is the folder of a run. Give another folder" in err


def test_interrupted_it_goes_on(duologue, finished, monkeypatch):
    """Ctrl-C in the middle of the second of three: 130, saved; then the first is skipped, the second goes on bit for
    bit, the third is trained."""

    class CtrlC:
        def write(self, step, seed, row):
            if step == 24:
                os.kill(os.getpid(), signal.SIGINT)

        def close(self):
            pass

    # The first is there; of the third nothing is.
    shutil.copytree(finished / "learning_rate=0.001", "g/learning_rate=0.001")
    command = [*TINY, *STEPS, *RATES, "1e-2", "--run-dir", "g"]
    with monkeypatch.context() as patch:
        patch.setattr(training, "loggers", lambda *_: [CtrlC()])
        code, out, err = duologue(*command)
    second = Path("g/learning_rate=linear-0.01-0.0")
    assert code == 130 and "Traceback" not in err and saved(second) == [24]
    assert sorted(os.listdir("g")) == ["learning_rate=0.001", second.name]
    assert out.splitlines()[-1].split() == ["next", "duologue", *command]
    code, out, _ = duologue(*out.splitlines()[-1].split()[2:])
    assert code == 0 and out.count("already finished, skipped") == 1
    assert_same_run(second, finished / second.name)
    assert [row[0] for row in table(out)[1:]] == ["0.001", "linear:0.01:0.0", "0.01"]
    assert [saved(Path(row[2]))[-1] for row in table(out)[1:]] == [72, 72, 72]


def test_one_that_was_killed_before_it_saved_is_trained_anew(duologue, copied):
    shutil.rmtree(copied / "learning_rate=0.001" / "checkpoints")
    assert duologue(*TINY, *STEPS, *RATES, "--run-dir", "g")[0] == 0
    assert saved(copied / "learning_rate=0.001")[-1] == 72


def test_one_that_fails_stops_no_other(duologue, copied, monkeypatch):
    shutil.rmtree(copied / "learning_rate=0.001")

    def train(*_, **options):
        raise DuologueError("Learning has diverged.")

    monkeypatch.setattr(training, "train", train)
    code, out, err = duologue(*TINY, *STEPS, *RATES, "--run-dir", "g")
    assert code == 1 and err.count("error: Learning has diverged.") == 1
    (_, one, other) = table(out)
    assert one[:2] == ["0.001", "Learning has diverged."] and other[2] == "g/learning_rate=linear-0.01-0.0"
    assert out.splitlines()[-1].endswith("plot g/learning_rate=linear-0.01-0.0 -o curves.png")


def test_where_nothing_can_be_drawn_the_list_is_next(duologue, copied, monkeypatch):
    monkeypatch.setattr(actions, "grid_progress", lambda run: None)
    monkeypatch.setattr(
        actions, "train_combination", lambda run, console: grid.Result(run, problem="Learning has diverged.")
    )
    code, out, _ = duologue(*TINY, *STEPS, *RATES, "--run-dir", "g")
    assert code == 1 and out.splitlines()[-1].split() == ["next", "duologue", "list", "g"]


def test_without_a_final_evaluation(duologue, copied):
    options = TINY[: TINY.index("--final-episodes")] + TINY[TINY.index("--final-episodes") + 2 :]
    code, out, _ = duologue(*options, *STEPS, *RATES, "--run-dir", "g", "--final-episodes", "0")
    assert code == 0 and [row[1] for row in table(out)[1:]] == ["-", "-"] and "Intervals" not in out


def test_seeds_are_named_where_they_vary():
    def said(columns, returns):
        score = dl.Evaluation(np.asarray(returns), np.asarray(returns))
        return grid.interval_note([grid.Result(grid.Combination(columns, None, Path()), score)])

    assert "`duologue plot` averages the seeds" in said({"seed": "0"}, [1.0, 2.0])
    assert "Add --grid seed" in said({"tau": "0"}, [1.0, 2.0])
    assert said({"tau": "0"}, [[1.0, 2.0], [3.0, 4.0]]) == "Intervals are over 2 seeds."


def test_cut_episodes_stand_beside_the_score():
    lengths, cut = np.array([3, 9, 9]), np.array([False, True, True])
    score = dl.Evaluation(lengths.astype(float), lengths, was_cut=cut)
    assert grid.score_text(score).endswith("], 2 of 3 episodes cut after 9 steps")
    assert grid.score_text(dl.Evaluation(lengths[:1].astype(float), lengths[:1], was_cut=cut[:1])) == "3.0"


def test_fields_are_those_of_the_kind_that_is_chosen():
    with pytest.raises(ConfigError, match="no such field"):
        parsed("CartPole-v1", "--grid", "algorithm.optimizer.b1", "0.5")
    assert parsed("CartPole-v1", "algorithm.optimizer:adam", "--grid", "algorithm.optimizer.b1", "0.5")
