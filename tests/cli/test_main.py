"""The command line: help that is whole, configuration in layers, commands on a real run, one message a mistake."""

import ast
import contextlib
import dataclasses
import inspect
import io
import itertools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from runs.fake_loop import no_learning

import duologue as dl
from duologue.cli import commands
from duologue.cli import main as cli
from duologue.cli.listing import List
from duologue.cli.parse import parse_train
from duologue.runs import config
from duologue.storage import checkpoint
from duologue.storage.files import RunLock

TESTS = Path(__file__).parent.parent
pytestmark = pytest.mark.usefixtures("fake_loop")
WRAPPERS = dl.Normalized, dl.FQE
SMALL = ["--algorithm.networks.hidden-sizes", "8", "--algorithm.num-envs", "3", "--algorithm.rollout-length", "4"]
TINY = ["train", "a2c", "probe/both", "--steps", "120", "--log-every", "24", "--save-every", "24", *SMALL]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """`(folder, what was shown)` of a tiny run."""
    path, out = tmp_path_factory.mktemp("cli") / "run", io.StringIO()
    with no_learning(), contextlib.redirect_stdout(out):
        assert cli.run([*TINY, "--run-dir", str(path), "--final-episodes", "4", "--evaluate-every", "48"]) == 0
    return path, out.getvalue()


@pytest.fixture
def copied(finished, tmp_path):
    return shutil.copytree(finished[0], tmp_path / "copy")


def plain(text):
    """Without boxes and line breaks."""
    return " ".join(re.sub("[│╭╮╰╯─•]|-{3,}", " ", text).split())


def next_command(out):
    """The words of the last line, which must be a command that parses."""
    word, program, *rest = out.splitlines()[-1].split()
    assert (word, program) == ("next", "duologue")
    return rest


# Help


def documented(cls):
    """`(field, default, docstring)` of a class, from its source."""
    found = {}
    for each in reversed([each for each in cls.__mro__ if each.__module__.startswith("duologue")]):
        body = ast.parse(inspect.getsource(each)).body[0].body
        for field, doc in itertools.pairwise(body):
            if isinstance(field, ast.AnnAssign) and isinstance(doc, ast.Expr):
                found[field.target.id] = doc.value.value
    yield from ((name, getattr(cls, name, None), doc) for name, doc in found.items())


@pytest.mark.parametrize(
    ("cls", "prefix"),
    [
        (commands.COMMANDS["train"], ""), (dl.A2C, "algorithm."), (dl.Networks, "algorithm.networks."),
        (dl.RMSProp, "algorithm.optimizer."),
    ],
)  # fmt: skip
def test_help_shows_every_option_with_its_docstring_and_default(duologue, cls, prefix):
    code, out, err = duologue("train", "a2c", "--help")
    assert code == 0 and not err and "\x1b" not in out
    text, fields = plain(out), list(documented(cls))
    assert {name for name, _, _ in fields} == {field.name for field in dataclasses.fields(cls)}
    for name, default, doc in fields:
        if name in ("env", "algorithm", "networks", "optimizer"):
            assert plain(doc) in text
            continue
        flag = f"--{prefix}{name.strip('_').replace('_', '-')}{'_' * name.endswith('_')}"
        shown = " ".join(map(str, default)) if isinstance(default, tuple) else str(default)
        shown = "" if name.endswith("env_kwargs") else shown  # none, as a word of the command line
        pattern = rf"{re.escape(flag)},? .{{0,120}}?{re.escape(plain(doc))} \(default: {re.escape(shown)}\)"
        assert re.search(pattern, text), (flag, doc, shown)


def test_help_breaks_its_lines_for_the_terminal_not_where_the_source_does(duologue, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    doc = next(doc for name, _, doc in documented(commands.COMMANDS["watch"]) if name == "out")
    _, out, _ = duologue("watch", "--help")
    assert "or\n" in doc and "or videos/step-N.mp4 in the run folder" in out
    monkeypatch.setenv("COLUMNS", "80")
    _, out, _ = duologue("train", "cql", "--help")
    assert "no off-policy correction, and soft targets" in out


def test_help_of_the_other_optimiser(duologue):
    code, out, _ = duologue("train", "a2c", "CartPole-v1", "algorithm.optimizer:adam", "--help")
    text = plain(out)
    assert code == 0
    for name, default, doc in documented(dl.Adam):
        assert re.search(rf"--algorithm\.optimizer\.{name} FLOAT {re.escape(doc)} \(default: {default}\)", text)


@pytest.mark.parametrize("command", ["evaluate", "watch", "resume", "plot", "list", "completion"])
def test_help_of_each_command(duologue, command):
    code, out, err = duologue(command, "--help")
    options = List if command == "list" else commands.COMMANDS[command]
    assert code == 0 and not err and plain(options.__doc__) in plain(out)
    for name, _, doc in documented(options):
        assert plain(doc) in plain(out), name


@pytest.mark.parametrize("arguments", [[], ["-h"], ["--help"], ["train"], ["train", "--help"]])
def test_what_there_is(duologue, arguments):
    code, out, err = duologue(*arguments)
    assert code == 0 and not err and "\x1b" not in out
    summaries = (
        {name: entry.summary for name, entry in cli.ALGORITHMS.items()} if "train" in arguments else cli.COMMANDS
    )
    for name, summary in summaries.items():
        assert name in out and plain(summary) in plain(out)


def test_summaries_are_the_first_lines_of_docstrings():
    options = {**commands.COMMANDS, "list": List}
    assert {name: cls.__doc__.splitlines()[0] for name, cls in options.items()} == cli.COMMANDS
    for name, entry in cli.ALGORITHMS.items():
        algorithm = commands.default_algorithm(name)
        assert type(algorithm).__name__ == entry.cls
        of = algorithm.scheduler if entry.scheduler else algorithm
        assert entry.summary.removeprefix("SACX with ") == type(of).__doc__.splitlines()[0], name


def fresh(*arguments, code="from duologue.cli.main import main; main()"):
    """What a new process prints, with the modules that it imported in the last line."""
    script = f"import sys, atexit; atexit.register(lambda: print(*sorted(sys.modules))); {code}"
    process = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    *out, modules = process.stdout.splitlines()
    return out, modules.split()


@pytest.mark.parametrize("arguments", [[], ["--help"], ["train", "--help"], ["--version"], ["list"]], ids=" ".join)
def test_what_needs_no_jax_does_not_import_it(arguments, copied, tmp_path):
    out, modules = fresh(*arguments, *([str(tmp_path)] if arguments == ["list"] else []))
    assert not {"jax", "jaxlib", "gymnasium", "equinox", "numpy"} & set(modules)
    assert "copy" in " ".join(out) if arguments == ["list"] else out
    assert out == [f"duologue {dl.__version__}"] if arguments == ["--version"] else True


def test_the_package_imports_jax_with_its_first_use():
    _, modules = fresh(code="import duologue; assert 'jax' not in sys.modules; duologue.A2C")
    assert "jax" in modules


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_name_commands_algorithms_and_options(duologue, shell):
    code, out, err = duologue("completion", shell)
    assert code == 0 and not err and len(out) > 100_000
    for word in ("evaluate", "sac-discrete", "--algorithm.critic-learning-rate", "--timeout-and-terminal"):
        assert word in out


def test_bash_completes_an_option_without_jax(duologue, tmp_path):
    (tmp_path / "script").write_text(duologue("completion", "bash")[1])
    line = "duologue train sac Pendulum-v1 --algorithm.act"
    words = f"COMP_WORDS=({line}); COMP_CWORD=4; COMP_LINE='{line}'; COMP_POINT={len(line)}"
    run = f"source ./script; {words}; _tyro_duologue; echo ${{COMPREPLY[@]}}"
    done = subprocess.run(["bash", "-c", run], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.split() == ["--algorithm.actor-learning-rate"]


# Configuration


def dry_run(duologue, *arguments):
    """`{path: (value as shown, source)}`."""
    code, out, err = duologue("train", "a2c", *arguments, "--dry-run")
    assert code == 0 and not err, err
    lines = [re.fullmatch(r"(\S+) = (.*)  \((.*)\)", line) for line in out.splitlines()]
    return {match[1]: (match[2], match[3]) for match in lines}


def test_a_dry_run_says_where_each_value_came_from_and_writes_nothing(duologue, tmp_path):
    Path("a.yaml").write_text("""
steps: 400
seed: 3
algorithm:
  discount: 0.9
  value_coefficient: 0.25
  learning_rate: {type: Linear, start: 1e-3}
  optimizer: {type: Adam, b1: 0.5}
  networks: {hidden_sizes: [8, 4]}
""")
    line = [
        "CartPole-v1",
        "--config",
        "a.yaml",
        "--seed",
        "4",
        "--algorithm.discount",
        "0.8",
        "--algorithm.optimizer.b2",
        "0.7",
    ]
    found = dry_run(duologue, *line)
    assert found["env"] == ("'CartPole-v1'", "command line") and found["seed"] == ("4", "command line")
    assert found["steps"] == ("400", "config file a.yaml") and found["seeds"] == ("1", "default")
    wanted = {
        "discount": ("0.8", "command line"), "value_coefficient": ("0.25", "config file a.yaml"),
        "learning_rate.type": ("'Linear'", "config file a.yaml"), "learning_rate.end": ("0.0", "default"),
        "learning_rate.start": ("0.001", "config file a.yaml"), "lambda_": ("1.0", "default"),
        "optimizer.type": ("'Adam'", "config file a.yaml"), "optimizer.b1": ("0.5", "config file a.yaml"),
        "optimizer.b2": ("0.7", "command line"), "optimizer.eps": ("1e-08", "default"),
        "networks.hidden_sizes": ("[8, 4]", "config file a.yaml"), "networks.activation": ("'tanh'", "default"),
    }  # fmt: skip
    assert {name: found[f"algorithm.{name}"] for name in wanted} == wanted
    assert "algorithm.optimizer.decay" not in found and "algorithm.learning_rate" not in found
    _, command = parse_train("a2c", [*line, "--dry-run"])
    assert command.algorithm == dl.A2C(
        discount=0.8, value_coefficient=0.25, learning_rate=dl.Linear(1e-3), optimizer=dl.Adam(b1=0.5, b2=0.7),
        networks=dl.Networks(hidden_sizes=(8, 4)),
    )  # fmt: skip
    assert [path.name for path in tmp_path.iterdir()] == ["a.yaml"]


@pytest.mark.parametrize(
    ("words", "rate"),
    [
        ("linear:7e-4:0", dl.Linear(7e-4)),
        ("linear:1e-3", dl.Linear(1e-3)),
        ("linear:1e-3:1e-4", dl.Linear(1e-3, 1e-4)),
        ("5e-3", 5e-3),
    ],
)
def test_learning_rates_in_one_word(duologue, words, rate):
    arguments = ["CartPole-v1", "--algorithm.learning-rate", words]
    assert parse_train("a2c", arguments)[1].algorithm == dl.A2C(learning_rate=rate)
    found = dry_run(duologue, *arguments)
    sources = {source for path, (_, source) in found.items() if path.startswith("algorithm.learning_rate")}
    assert sources == {"command line"}


def test_the_command_line_may_name_another_optimiser(duologue):
    Path("a.yaml").write_text("algorithm: {optimizer: {decay: 0.5}, learning_rate: {type: Linear, start: 1.0}}")
    arguments = ["probe/both", "--config=a.yaml", "algorithm.optimizer:adam", "--algorithm.learning-rate", "0.1"]
    assert parse_train("a2c", arguments)[1].algorithm == dl.A2C(optimizer=dl.Adam(), learning_rate=0.1)
    found = dry_run(duologue, *arguments[:2], *arguments[3:], arguments[2])
    assert found["algorithm.optimizer.type"] == ("'Adam'", "command line")
    assert found["algorithm.learning_rate"] == ("0.1", "command line") and "algorithm.optimizer.decay" not in found


@pytest.mark.learns
def test_a_file_may_hold_the_whole_experiment(duologue):
    Path("a.yaml").write_text(
        "env: probe/both\nsteps: 24\nfinal_episodes: 0\nrun_dir: mine\nnormalize_obs: true\n"
        "algorithm: {num_envs: 3, rollout_length: 4, networks: {hidden_sizes: [8]}}\n"
    )
    assert dry_run(duologue, "--config", "a.yaml")["env"] == ("'probe/both'", "config file a.yaml")
    code, out, err = duologue("train", "a2c", "--config", "a.yaml")
    assert code == 0 and not err and "score" not in out
    run = dl.load("mine")
    inner = dl.A2C(num_envs=3, rollout_length=4, networks=dl.Networks(hidden_sizes=(8,)))
    assert run.plan.algorithm == dl.Normalized(inner, obs=True, reward=False) and run.step == 24


# Commands


def test_train_ends_with_score_folder_curve_and_what_next(finished, duologue):
    path, out = finished
    lines = out.splitlines()
    assert "\x1b" not in out and lines[0].startswith("A2C") and lines[1] == str(path)
    assert re.fullmatch(r"score +mean return -?\d\.\d, 95 % interval \[.*\] over 4 episodes \(.*\)", lines[-4])
    assert lines[-3].split() == ["run", str(path)] and lines[-2].split() == ["curve", str(path / "curve.png")]
    assert (path / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert next_command(out) == ["resume", str(path), "--steps", "240"]


def test_commands_lead_from_one_to_the_next(copied, duologue):
    """train says resume, resume says resume, list says evaluate, evaluate says plot, plot says evaluate."""
    code, out, err = duologue("resume", copied, "--steps", "144")
    assert code == 0 and not err and "\x1b" not in out and "over 100 episodes" in out
    assert next_command(out) == ["resume", str(copied), "--steps", "288"]
    code, out, _ = duologue("list", copied.parent)
    assert code == 0 and re.search(r"copy +A2C +probe/both +144 / 144 +1 +-?\d\.\d", out)
    words = next_command(out)
    assert words == ["evaluate", str(copied)]
    code, out, _ = duologue(*words, "--episodes", "5", "--checkpoint", "best")
    assert code == 0 and "over 5 episodes" in out and "\x1b" not in out
    words = next_command(out)
    assert words[:2] == ["plot", str(copied)]
    code, out, _ = duologue(*words)
    assert code == 0 and Path("curve.png").stat().st_size > 1000
    assert next_command(out) == ["evaluate", str(copied)]


def test_a_list_without_runs_says_how_to_begin(duologue):
    code, out, _ = duologue("list")
    assert code == 0 and "No runs in runs" in out and next_command(out) == ["train", "a2c", "CartPole-v1"]


def test_brackets_in_a_name_are_no_markup(copied, duologue):
    """rich would take [/x] for the end of a colour."""
    inside = copied.parent / "r[" / "x]"
    inside.parent.mkdir()
    copied.rename(inside)
    code, out, err = duologue("list", str(copied.parent))
    assert code == 0 and not err and "r[/x]" in out
    code, out, err = duologue("evaluate", str(inside), "--episodes", "1")
    assert code == 0 and not err and "interval" not in out and "over 1 episode" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("evaluate", "run", "--fit-steps", "5"), "fit_steps = 5: this option needs --dataset"),
        (
            ("evaluate", "run", "--timeout-and-terminal", "terminal"),
            "timeout_and_terminal = 'terminal': this option needs --dataset",
        ),
        (
            ("evaluate", "run", "--dataset", "x.npz", "--episodes", "7"),
            "episodes = 7: this option has no effect with --dataset",
        ),
        (("evaluate", "run", "--dataset", "x.npz", "--explore"), "explore = True: this option has no effect"),
        (
            ("evaluate", "run", "--dataset", "x.npz", "--task", "a"),
            "task = 'a': this option has no effect",
        ),
        (("resume", "run", "--dataset", "x.npz"), "dataset: this run did not learn from recorded data"),
        (("resume", "run", "--final-episodes", "-1"), "final_episodes = -1"),
        (("train", "a2c", "CartPole-v1", "--run-dir", ""), "run_dir = '': must name a folder"),
    ],
)
def test_what_would_be_ignored_is_refused(copied, duologue, arguments, words):
    arguments = [str(copied) if word == "run" else word for word in arguments]
    code, out, err = duologue(*arguments)
    assert_one_message(code, 2, out, err, words)


def test_a_module_that_a_file_names_is_not_imported(copied, duologue, tmp_path):
    (tmp_path / "intruder.py").write_text("raise SystemError('it was')")
    path = copied / "config.json"
    path.write_text(path.read_text().replace('"env": "probe/both"', '"env": "intruder:CartPole-v1"'))
    for command in ("evaluate", "resume"):
        code, out, err = duologue(command, str(copied), *(["--steps", "9000"] if command == "resume" else []))
        assert_one_message(code, 2, out, err, "would import the module intruder. Its name comes from a file")
    code, _, err = duologue("evaluate", str(copied), "--env", "probe/both", "--episodes", "1")
    assert code == 0 and not err


def test_a_list_goes_past_what_it_cannot_read(copied, duologue):
    for name, content in ("broken", "{"), ("foreign", '{"name": "package"}'):
        (copied.parent / name).mkdir()
        (copied.parent / name / "config.json").write_text(content)
    code, out, err = duologue("list", copied.parent)
    assert code == 0 and not err and re.search(r"copy +A2C +probe/both +120 / 120", out)
    assert "not strict JSON" in plain(out) and "does not describe a run" in plain(out)


def test_a_run_too_short_for_a_curve_ends_well(duologue):
    code, out, err = duologue("train", "a2c", "probe/truncation", "--steps", "12", "--final-episodes", "0", *SMALL)
    assert code == 0 and not err
    assert "curve   There is no eval/mean_reward" in out and next_command(out)[0] == "resume"


def test_without_the_plotting_extra(duologue, copied, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    code, out, err = duologue("resume", copied, "--steps", "132")
    assert code == 0 and not err and 'curve   drawing learning curves needs an extra: pip install ".[plots]"' in out
    code, _, err = duologue("plot", copied)
    assert code == 2 and 'pip install ".[plots]"' in err


def test_several_seeds_as_a_user_starts_them(tmp_path):
    """The program itself, with devices of its own choice; nothing but plain lines comes through a pipe."""
    script = "import sys, warnings; warnings.simplefilter('error'); from duologue.cli.main import main; main()"
    result = subprocess.run(
        [sys.executable, "-c", script, *TINY, "--seeds", "2", "--run-dir", "run", "--final-episodes", "2"],
        env={**os.environ, "DUOLOGUE_CACHE": str(TESTS.parent / ".cache" / "jax"), "FORCE_COLOR": ""},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0 and result.stderr == "", result.stderr
    assert "\x1b" not in result.stdout and "over 2 seeds" in result.stdout
    assert len(dl.load("run")) == 2 and next_command(result.stdout)[0] == "resume"


# Mistakes


def assert_one_message(code, wanted, out, err, message):
    """One clear sentence on stderr and nothing of ours or JAX's beside it."""
    assert code == wanted, err
    assert "Traceback" not in err and "Error:" not in err and "\x1b" not in err + out
    assert re.search(message, plain(err)), err
    assert err.count("error:") + err.count("For full helptext") == 1


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("trian a2c CartPole-v1", "no command 'trian'. Did you mean 'train'"),
        ("train a2cc CartPole-v1", "no algorithm 'a2cc'. Did you mean 'a2c'"),
        ("train a2c CartPole-v1 --algorithm.gamma 0.9", "no --algorithm.gamma. Did you mean --algorithm.discount"),
        ("train a2c CartPole-v1 --algorithm.gae-lambda=1", "Did you mean --algorithm.lambda_?"),
        ("train a2c CartPole-v1 --algorithm.optimizer adam", "a separate word, algorithm.optimizer:adam"),
        ("train dqn CartPole-v1", "no algorithm 'dqn'. Choose one of: a2c"),
        ("train a2c", "train needs an environment"),
        ("train a2c --steps 100", "train needs an environment"),
        ("train a2c CartPol-v1", "no Gymnasium environment 'CartPol-v1'.*'CartPole-v1'"),
        pytest.param(
            "train a2c gymnax/CartPol-v1", "'CartPol-v1'. Did you mean 'CartPole-v1'", marks=pytest.mark.needs("gymnax")
        ),
        ("train a2c probe/bohT", "no probe 'bohT'. Did you mean 'both'"),
        ("train a2c brax/ant", "brax/ is planned"),
        ("train a2c nowhere_at_all:Name-v0", "nowhere_at_all"),
        (
            "train a2c probe/both --algorithm.discuont 0.9",
            r"--algorithm\.discuont.*Perhaps you meant: --algorithm\.discount",
        ),
        ("train a2c probe/both --stpes 9", "--stpes.*--steps"),
        ("train a2c probe/both more", "Unrecognized options: more"),
        ("train a2c probe/both --algorithm.discount 2", r"A2C\.discount = 2\.0: must be a number in \[0, 1\]"),
        ("train a2c probe/both --algorithm.discount nan", r"A2C\.discount = nan: must be a finite number in \[0, 1\]"),
        ("train a2c probe/both --algorithm.num-envs 0", r"A2C\.num_envs = 0: must be an integer >= 1"),
        ("train a2c probe/both --algorithm.discount high", r"--algorithm\.discount.*'high'"),
        ("train a2c probe/both --algorithm.learning-rate linear:a", r"--algorithm\.learning-rate.*'a'"),
        ("train a2c probe/both --algorithm.learning-rate linear:1:2:3", "linear:START:END"),
        ("train a2c probe/both --algorithm.learning-rate -1", r"A2C\.learning_rate = -1\.0"),
        ("train a2c probe/both --algorithm.networks.activation tahn", r"'tahn'.*'tanh'"),
        ("train a2c probe/both --algorithm.networks.hidden-sizes 8 0", r"hidden_sizes = \(8, 0\)"),
        ("train a2c probe/both --steps many", "--steps.*'many'"),
        ("train a2c probe/both --steps 0", "steps = 0: must be an integer in"),
        ("train a2c probe/both --seed -1", "seed = -1: must be an integer in"),
        ("train a2c probe/both --seeds 0", "seeds = 0: must be an integer in"),
        ("train a2c probe/both --asynchronous", "asynchronous: probe/both is written in JAX"),
        ("train a2c probe/both --config none.yaml", r"cannot read none\.yaml: No such file"),
        ("train a2c probe/both --config", "--config"),
        ("evaluate", "PATH"),
        ("watch", "PATH"),
        ("resume", "PATH"),
        ("plot", "PATH|runs"),
        ("evaluate runs/1 --checkpoint worst", "'worst'.*'latest', 'best'"),
    ],
)
def test_a_mistake_in_a_command(duologue, tmp_path, command, message):
    code, out, err = duologue(*command.split())
    assert_one_message(code, 2, out, err, message)
    assert not out and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("algorithm: {discuont: 0.9}", r"algorithm\.discuont: A2C has no such field. Did you mean 'discount'"),
        ("algorithm: {gamma: 0.9}", r"algorithm\.gamma: A2C has no such field. Did you mean 'discount'"),
        ("stpes: 100", r"stpes: Train has no such field. Did you mean 'steps'"),
        ("algorithm: {discount: 2}", r"algorithm\.discount = 2: must be a number in \[0, 1\]"),
        ("algorithm: {optimizer: {type: Adma}}", r"algorithm\.optimizer\.type = 'Adma'.*Did you mean 'Adam'"),
        ("algorithm: 3", "algorithm = 3: must be an AbstractAlgorithm"),
        ("steps: 1e6", r"steps = 1000000\.0: must be an integer"),
        ("env: 3", "env = 3: must be a str"),
        ("type: A2C", "A2C has no such field"),
        ("seed: !!python/object/apply:os.mkdir [canary]", "not a plain YAML file.*python/object/apply"),
        ("a: &a [1]\nb: *a", "aliases"),
        ("- 1", "holds a list"),
        ("seed: 1\nseed: 2", "twice"),
    ],
)
def test_a_mistake_in_a_file(duologue, tmp_path, text, message):
    Path("a.yaml").write_text(text)
    for extra in ([], ["--dry-run"]):
        code, out, err = duologue("train", "a2c", "probe/both", "--config", "a.yaml", *extra)
        assert_one_message(code, 2, out, err, message)
        assert not out and [path.name for path in tmp_path.iterdir()] == ["a.yaml"]


@pytest.mark.parametrize(
    ("arguments", "module", "extra"),
    [
        (["CartPole-v1", "--wandb", "project"], "wandb", "wandb"),
        (["Hopper-v5"], "mujoco", "mujoco"),
        (["ALE/Pong-v5"], "ale_py", "atari"),
    ],
)
def test_a_missing_extra_says_what_to_install(duologue, monkeypatch, tmp_path, arguments, module, extra):
    for name in [
        name for name in sys.modules if name.partition(".")[0] == module or name.startswith("gymnasium.envs.mujoco")
    ]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    code, out, err = duologue("train", "a2c", *arguments, "--steps", "100")
    assert_one_message(code, 2, out, err, rf'pip install "\.\[{extra}\]"')
    assert not list(tmp_path.iterdir())


class Faulty(gym.Env):
    """Well for five steps, then as it is told."""

    observation_space, action_space = gym.spaces.Box(-1, 1, (2,)), gym.spaces.Discrete(2)

    def __init__(self, kind, action_space=None):
        self.kind, self.action_space = kind, action_space or self.action_space

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.t += 1
        obs, reward = np.zeros(2, np.float32), 0.0
        if self.t == 6 and self.kind == "raises":
            raise ZeroDivisionError("a bug of mine")
        if self.t == 6:
            obs = {"shape": np.zeros(3, np.float32), "nan": np.full(2, np.nan, np.float32)}.get(self.kind, obs)
            reward = {"reward": np.inf, "pair": np.zeros(2)}.get(self.kind, reward)
        return obs, reward, False, False, {}


@pytest.fixture
def register():
    added = []

    def add(name, **options):
        gym.register(name, entry_point=Faulty, kwargs=options)
        added.append(name)
        return name

    yield add
    for name in added:
        del gym.registry[name]


@pytest.mark.learns
@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("nan", "environment 0 gave a NaN or infinite observation at its step 5"),
        ("reward", "environment 0 gave a NaN or infinite reward at its step 5"),
        (
            "shape",
            r"environment 0 gave an observation of float32\[3\]; the space is float32\[2\] \(at step 5 .*seed \d+",
        ),
        ("pair", r"environment 0 gave the reward array\(.*, which must be one number \(at step 5 .*reset seed \d+"),
    ],
)
def test_an_environment_that_breaks_its_contract(duologue, register, kind, message):
    """The first rollout of four steps is learned from and saved; what was saved stays."""
    name = register("Faulty-v0", kind=kind)
    code, out, err = duologue("train", "a2c", name, "--steps", "240", "--save-every", "1", "--run-dir", "run", *SMALL)
    assert_one_message(code, 1, "", err, message)
    assert dl.load("run").step == 12 and out


@pytest.mark.learns
def test_an_environment_that_raises_shows_its_own_traceback(duologue, register):
    name = register("Faulty-v0", kind="raises")
    code, _, err = duologue("train", "a2c", name, "--steps", "240", "--save-every", "1", "--run-dir", "run", *SMALL)
    assert code == 1 and dl.load("run").step == 12
    assert re.search(
        r"error: environment 0 raised ZeroDivisionError: a bug of mine \(at step 5 .* reset seed \d+\)", err
    )
    assert err.count("Traceback") == 1 and 'raise ZeroDivisionError("a bug of mine")' in err
    files = re.findall(r'File "(.*?)"', err)
    assert files[-1] == __file__ and not any(f"{os.sep}duologue{os.sep}" in file or "jax" in file for file in files)


def test_an_action_space_the_algorithm_cannot_serve(duologue, register):
    for space in (gym.spaces.Sequence(gym.spaces.Discrete(2)), gym.spaces.Text(3)):
        name = register(f"Odd{type(space).__name__}-v0", kind="", action_space=space)
        code, out, err = duologue("train", "a2c", name, "--run-dir", "run")
        assert_one_message(code, 2, out, err, "Sequence|Text")
        assert not Path("run").exists()


@pytest.mark.parametrize("command", ["evaluate", "watch", "resume", "plot"])
def test_a_folder_that_is_no_run(duologue, tmp_path, command):
    Path("folder").mkdir()
    for folder in ("nowhere", "folder"):
        code, out, err = duologue(command, folder)
        assert_one_message(
            code,
            1,
            out,
            err,
            f"{folder}.*(is not the folder of a run|metrics.jsonl does not exist. Give the folder)",
        )
    assert [path.name for path in tmp_path.rglob("*")] == ["folder"]


def test_a_folder_in_use(duologue, copied):
    with RunLock(copied):
        code, out, err = duologue("resume", copied, "--steps", "240")
        assert_one_message(code, 1, out, err, rf"copy is in use by process {os.getpid()} on ")
        assert duologue("evaluate", copied, "--episodes", "2")[0] == 0


def test_a_folder_that_holds_a_run(duologue, copied):
    code, out, err = duologue(*TINY, "--run-dir", copied)
    assert_one_message(code, 2, out, err, "holds a run already. Give another folder, or `resume` that run")


def test_a_finished_run(duologue, copied):
    code, out, err = duologue("resume", copied)
    assert_one_message(code, 2, out, err, "steps = 120: must be above 120, the number of steps so far.")


def test_no_episodes(duologue, copied):
    code, out, err = duologue("evaluate", copied, "--episodes", "0")
    assert_one_message(code, 2, out, err, "episodes = 0: must be an integer in")


def test_altered_checkpoints(duologue, copied):
    """The previous good one is used and said so; where there is none, nothing is begun or deleted."""
    for number, folder in enumerate(sorted((copied / "checkpoints" / "latest").iterdir(), reverse=True)):
        state = folder / checkpoint.STATE
        state.write_bytes(state.read_bytes()[:-7])
        names = sorted(copied.rglob("*"))
        code, out, err = duologue("evaluate", copied, "--episodes", "2")
        if number == 0:
            assert code == 0 and "over 2 episodes" in out
            assert f"{folder.name} is damaged and was skipped" in plain(err).replace("step- ", "step-")
        else:
            assert_one_message(code, 1, out, err, "no checkpoint that can be loaded.*damaged.*damaged")
            code, out, err = duologue("resume", copied, "--steps", "240")
            assert_one_message(code, 1, out, err, "no checkpoint that can be loaded")
        assert sorted(copied.rglob("*")) == names


def test_an_altered_configuration(duologue, copied):
    (copied / "config.json").write_text((copied / "config.json").read_text().replace('"discount"', '"discuont"'))
    code, out, err = duologue("evaluate", copied)
    assert_one_message(code, 2, out, err, r"algorithm\.discuont: A2C has no such field. Did you mean 'discount'")


def test_every_public_algorithm_has_a_name_here():
    from duologue.algorithms.base import AbstractAlgorithm

    ours = {cls for cls in config.PUBLIC.values() if issubclass(cls, AbstractAlgorithm) and cls not in WRAPPERS}
    assert {entry.cls for entry in cli.ALGORITHMS.values()} == {cls.__name__ for cls in ours}
