"""The options of a run: a new one is one field of `RunOptions` and one parameter of `train`."""

import inspect
import os
import shutil
import subprocess
import sys
from dataclasses import MISSING, fields
from pathlib import Path

import pytest

import duologue as dl
from duologue.runs.options import RunOptions

SRC = Path(dl.__file__).parent


def test_every_option_is_a_parameter_of_train_with_the_same_default():
    parameters = inspect.signature(dl.train).parameters
    for field in fields(RunOptions):
        default = field.default if field.default_factory is MISSING else field.default_factory()
        default = inspect.Parameter.empty if default is MISSING else default
        assert parameters[field.name].default == default, field.name
        assert parameters[field.name].kind == inspect.Parameter.KEYWORD_ONLY


PLAN = """
import sys
from duologue.runs import session
import duologue as dl

def run(self, state, *, notes):
    print("plan", self.plan.new_option)
    sys.exit()

session.Session.run = run
dl.train(dl.A2C(), "probe/both", steps=80, run_dir=sys.argv[1], new_option=4)
"""


def test_a_new_option_is_one_field_and_one_parameter(tmp_path):
    """It reaches the plan, the configuration in the run folder, and the command line."""
    shutil.copytree(SRC, tmp_path / "duologue", ignore=shutil.ignore_patterns("__pycache__"))
    for file, old, new in (
        ("options.py", "    evaluate_episodes: Count = 10\n",
         '    new_option: Count | None = None\n    """A new option."""\n    evaluate_episodes: Count = 10\n'),
        ("train.py", "    evaluate_episodes: int = 10,\n",
         "    evaluate_episodes: int = 10,\n    new_option: int | None = None,\n"),
    ):  # fmt: skip
        path = tmp_path / "duologue" / "runs" / file
        assert path.read_text().count(old) == 1
        path.write_text(path.read_text().replace(old, new))

    def python(*arguments):
        environment = {**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(
            [sys.executable, *map(str, arguments)], env=environment, cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "plan 4\n" in python("-c", PLAN, tmp_path / "run")
    assert '"new_option": 4' in (tmp_path / "run" / "config.json").read_text()
    shown = python("-m", "duologue", "train", "a2c", "CartPole-v1", "--new-option", "3", "--dry-run")
    assert "new_option = 3  (command line)" in shown


@pytest.mark.parametrize(("field", "value"), [("steps", 0), ("seeds", 0), ("evaluate_episodes", -1), ("seed", 2**40)])
def test_an_option_out_of_its_range_is_refused_by_name(field, value):
    with pytest.raises(dl.ConfigError, match=rf"{field} = {value}: must be an integer (in \[|>= )"):
        RunOptions(**{"steps": 8, field: value})
