"""Killed, interrupted and asked to stop, in processes of their own: what is saved is whole, and goes on."""

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from runs.helpers import ITERATION, assert_same_run, quiet, resume, rows, saved, train

import duologue as dl
from duologue.runs.signals import EXIT_CODES, Interruption
from duologue.storage import checkpoint

TESTS = Path(__file__).parent.parent
ENV = {
    **os.environ,
    "PYTHONPATH": f"{TESTS}:{TESTS.parent / 'src'}",
    "DUOLOGUE_CACHE": str(TESTS.parent / ".cache" / "jax"),
}
CARTPOLE = "gymnax/CartPole-v1"

SLOW = """
import conftest, sys, time
from pathlib import Path
from runs.helpers import train
train("gymnax/CartPole-v1", Path(sys.argv[1]), iterations=30, every=2, callbacks=[lambda *_: time.sleep(0.1)])
"""
"""The run that a test kills; `conftest` sets JAX up as it is here."""

STUCK = """
import gymnasium, conftest, sys, time
from pathlib import Path
from runs.helpers import train

class Stuck(gymnasium.Wrapper):
    def step(self, action):
        print("stepping", flush=True)
        time.sleep(120)

train(lambda: Stuck(gymnasium.make("CartPole-v1")), Path(sys.argv[1]), iterations=30)
"""
"""A run that cannot stop at its next boundary."""

ENDLESS = """
import gymnasium, conftest, sys
from pathlib import Path
from runs.helpers import train

class Endless(gymnasium.Wrapper):
    steps = 0

    def step(self, action):
        self.steps += 1
        if self.steps == 500:  # four times as many as training makes
            print("evaluating", flush=True)
        return self.observation_space.sample(), 0.0, False, False, {}

train(
    lambda: Endless(gymnasium.make("CartPole-v1").unwrapped), Path(sys.argv[1]), iterations=30,
    evaluate_every=12, evaluate_episodes=1,
)
"""
"""Episodes without an end."""

CLI = "import conftest; from duologue.cli.main import main; main()"
LONG = ["train", "a2c", CARTPOLE, "--steps", "500000000", "--log-every", "20000", "--save-every", "100000000"]


@contextmanager
def begun(script, *arguments, **options):
    with subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)], **options,
        env=ENV, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.kill()


def until(condition, process, seconds=60.0):
    """Wait for what a process is about to do."""
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.02)


def whole_checkpoints(path):
    return sum(
        bool(checkpoint.STEP_NAME.fullmatch(entry.name)) for entry in (path / "checkpoints" / "latest").glob("*")
    )


@pytest.mark.needs("gymnax")
def test_a_killed_run_goes_on_as_if_it_had_not_been(tmp_path):
    """Whenever SIGKILL comes: after the second checkpoint, or a moment later, in the middle of something."""
    train(CARTPOLE, tmp_path / "whole", iterations=30, every=2)
    for attempt, wait in enumerate((0.0, 0.25)):
        path = tmp_path / str(attempt)
        with begun(SLOW, path) as process:
            until(lambda path=path: whole_checkpoints(path) >= 2, process)
            time.sleep(wait)
            assert process.poll() is None
        loaded = dl.load(path)
        assert 4 * ITERATION <= loaded.step < 30 * ITERATION
        console = quiet()
        assert resume(path, console=console).step == 30 * ITERATION
        assert "not bit-comparable" not in console.file.getvalue()
        assert_same_run(tmp_path / "whole", path)
        assert len(saved(path)) == 2  # and nothing half-written beside them: `saved` reads every name


@pytest.mark.needs("gymnax")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_asked_to_stop_it_saves_and_says_how_to_go_on(tmp_path, number):
    path = tmp_path / "run"
    with begun(CLI, *LONG, "--run-dir", path, "--algorithm.networks.hidden-sizes", "8") as process:
        metrics = path / "metrics.jsonl"
        until(lambda: metrics.exists() and metrics.stat().st_size > 0, process)
        began = time.monotonic()
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
    assert process.returncode == EXIT_CODES[number] == 128 + number
    assert time.monotonic() - began < 10
    assert "Traceback" not in err and "\x1b" not in out
    (step,) = saved(path)
    assert step == rows(path)[-1]["step"] and step % 40 == 0
    assert f"stopped and saved at step {step:,}; continue with: duologue resume {path}" in out.splitlines()[-2:]
    assert dl.resume(path, steps=step + 40, console=quiet()).step == step + 40
    steps = [row["step"] for row in rows(path)]
    assert steps == sorted(set(steps)) and steps[-2:] == [step, step + 40]


POOL = """
import conftest, sys, gymnasium, time
import duologue as dl
from pathlib import Path

class Slow(gymnasium.Wrapper):
    def step(self, action):
        time.sleep(0.001)
        return self.env.step(action)

def make():
    return Slow(gymnasium.make("CartPole-v1"))

algorithm = dl.A2C(networks=dl.Networks(hidden_sizes=(4,)), rollout_length=500, num_envs=2)
dl.train(algorithm, make, asynchronous=True, steps=10**8, log_every=1000, run_dir=Path(sys.argv[1]))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_reaches_the_environments_processes_too_is_the_runs_to_heed(tmp_path, number):
    """A terminal's Ctrl-C and a scheduler's SIGTERM go to all processes of a group."""
    path, metrics = tmp_path / "run", tmp_path / "run" / "metrics.jsonl"
    with begun(POOL, path, start_new_session=True) as process:
        until(lambda: metrics.exists() and metrics.stat().st_size > 0, process)
        os.killpg(process.pid, number)
        _, err = process.communicate(timeout=30)
    assert process.returncode in (EXIT_CODES[number], -number) and "raised" not in err, err
    assert saved(path) == [rows(path)[-1]["step"]]
    with pytest.raises(ProcessLookupError):  # and no process is left
        end = time.monotonic() + 10
        while time.monotonic() < end:
            os.killpg(process.pid, 0)
            time.sleep(0.1)


def test_an_evaluation_that_does_not_end_is_interrupted(tmp_path):
    script = ENDLESS
    with begun(script, tmp_path / "run") as process:
        assert process.stdout.readline() == "evaluating\n"
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=30)
    assert process.returncode == EXIT_CODES[signal.SIGTERM], err
    assert "stopping soon and saving; press Ctrl-C again to quit now without saving" in err
    assert saved(tmp_path / "run") == [rows(tmp_path / "run")[-1]["step"]]
    assert "eval/mean_reward" not in rows(tmp_path / "run")[-1]


def test_a_second_time_it_leaves_at_once(tmp_path):
    with begun(STUCK, tmp_path / "run") as process:
        assert process.stdout.readline() == "stepping\n"
        process.send_signal(signal.SIGINT)
        time.sleep(0.3)
        assert process.poll() is None  # it waits for the environment
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=5) == 130


def test_signals_set_a_flag_inside_and_nothing_outside():
    before = {number: signal.getsignal(number) for number in EXIT_CODES}
    with Interruption() as interruption:
        assert not interruption()
        signal.raise_signal(signal.SIGTERM)
        assert interruption() and interruption.signal == signal.SIGTERM
    assert {number: signal.getsignal(number) for number in EXIT_CODES} == before
    with pytest.raises(SystemExit, match="143"):
        interruption.raise_again()
    with Interruption() as interruption:
        signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        interruption.raise_again()
    with Interruption() as interruption:
        pass
    interruption.raise_again()


def test_handlers_are_put_back_when_something_raises():
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(RuntimeError), Interruption():
        assert signal.getsignal(signal.SIGINT) != before
        raise RuntimeError
    assert signal.getsignal(signal.SIGINT) == before


def test_a_run_may_live_in_a_thread():
    """Where signals never arrive, and handlers cannot be set."""
    seen = []

    def work():
        with Interruption() as interruption:
            seen.append(interruption())

    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False] and signal.getsignal(signal.SIGINT) == before
