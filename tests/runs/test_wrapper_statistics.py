"""Whoever trains, evaluates, records or watches with statistics that live in a wrapper is told."""

import numpy as np
import pytest
from envs.scripted import Scripted
from gymnasium.wrappers import NormalizeObservation
from runs.fake_loop import no_learning
from runs.helpers import TINY, quiet, resume

import duologue as dl

WORDS = "NormalizeObservation keeps running statistics"


class Drawn(Scripted):
    """With pictures."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 5}  # noqa: RUF012
    render_mode = "rgb_array"

    def render(self):
        return np.zeros((16, 16, 3), np.uint8)


def wrapped():
    return NormalizeObservation(Drawn())


def fixed():
    env = wrapped()
    env.update_running_mean = False
    return env


@pytest.fixture
def run(tmp_path):
    """A run in environments whose statistics stay as they are."""
    with no_learning():
        yield dl.train(TINY, fixed, steps=24, run_dir=tmp_path / "run", console=quiet())


def test_training_says_it_once_and_again_where_it_goes_on(tmp_path):
    screen = quiet()
    with no_learning():
        dl.train(TINY, wrapped, steps=24, evaluate_every=12, run_dir=tmp_path / "run", console=screen)
        assert screen.file.getvalue().count(WORDS) == 1
        screen = quiet()
        resume(tmp_path / "run", iterations=3, env=wrapped, console=screen)
    assert screen.file.getvalue().count(WORDS) == 1


def test_a_run_on_data_says_it_of_its_evaluations(tmp_path):
    file, screen = tmp_path / "rows.npz", quiet()
    dl.collect_random(fixed, 40, file, console=screen)
    assert WORDS not in screen.file.getvalue()
    algorithm = dl.BC(networks=dl.Networks(hidden_sizes=(8,)), batch_size=4)
    dl.train(algorithm, wrapped, dataset=file, steps=4, run_dir=tmp_path / "run", console=screen)
    assert screen.file.getvalue().count(WORDS) == 1


def test_evaluating_recording_and_watching_say_it(run, tmp_path, capsys):
    run.evaluate(episodes=2, max_episode_steps=5)
    run.frames()
    assert capsys.readouterr().err == ""
    run.evaluate(episodes=2, env=wrapped)
    assert capsys.readouterr().err.count(WORDS) == 1
    run.frames(env=wrapped)
    assert capsys.readouterr().err.count(WORDS) == 1
    screen = quiet()
    run.collect(10, tmp_path / "rows.npz", env=wrapped, console=screen)
    assert screen.file.getvalue().count(WORDS) == 1
