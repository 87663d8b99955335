"""Watching an agent: pictures are those of its episodes, files hold them, and what cannot be seen is refused."""

import io
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import ClassVar

import gymnasium as gym
import imageio_ffmpeg
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageSequence
from rich.console import Console
from runs.helpers import TINY, quiet, train

import duologue as dl
from duologue.algorithms.base import AbstractAlgorithm
from duologue.cli import main as cli
from duologue.envs.base import seed_of
from duologue.envs.make import make
from duologue.runs import watch as module
from duologue.runs.display.video import pad_to_even, timetable
from duologue.runs.policy import TrainedPolicy
from duologue.types import Experience

TESTS = Path(__file__).parent.parent


class Painted(gym.Env):
    """Episodes of five steps, each worth 1. Its picture is of one colour: 40 × step, 60 × episode, 200 × action."""

    metadata: ClassVar = {"render_modes": ["rgb_array"], "render_fps": 20}
    observation_space, action_space = gym.spaces.Box(-1, 1, (2,)), gym.spaces.Discrete(2)
    made: ClassVar[list] = []

    def __init__(self, render_mode=None):
        self.render_mode, self.episode, self.seeds = render_mode, -1, []
        self.made.append(self)

    def reset(self, *, seed=None, options=None):
        self.seeds.append(seed)
        self.episode, self.t, self.action = self.episode + 1, 0, 0
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.t, self.action = self.t + 1, action
        return np.zeros(2, np.float32), 1.0, self.t == 5, False, {}

    def render(self):
        colour = np.uint8([40 * self.t, 60 * self.episode % 256, 200 * self.action])
        return np.broadcast_to(colour, (13, 20, 3))


class Windowed(Painted):
    metadata: ClassVar = {"render_modes": ["human", "rgb_array"], "render_fps": 20}


class Written(Painted):
    metadata: ClassVar = {"render_modes": ["ansi", "human"]}


class Blind(Painted):
    metadata: ClassVar = {"render_modes": []}


class Timeless(Painted):
    metadata: ClassVar = {"render_modes": ["rgb_array"]}


class Grey(Painted):
    def render(self):
        return super().render()[..., 0]


class Growing(Painted):
    def render(self):
        return np.zeros((4 + self.t, 4, 3), np.uint8)


class Undrawn(Painted):
    def render(self):
        raise gym.error.DependencyNotInstalled("pygame is not installed")


class Failing(Painted):
    """It stops in the second episode, by what `stop` says."""

    stop: ClassVar = ValueError

    def step(self, action):
        if self.episode and self.t == 2:
            raise self.stop
        return super().step(action)


class Interrupted(Failing):
    stop = KeyboardInterrupt


ENVS = (Painted, Windowed, Written, Blind, Timeless, Grey, Growing, Undrawn, Failing, Interrupted)


@pytest.fixture(autouse=True, scope="module")
def _registered():
    for env in ENVS:
        gym.register(f"{env.__name__}-v0", entry_point=env)
    yield
    for env in ENVS:
        del gym.registry[f"{env.__name__}-v0"]


@pytest.fixture(autouse=True)
def _headless(monkeypatch):
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(module.sys, "platform", "linux")
    Painted.made.clear()


@pytest.fixture(scope="module")
def path(_registered, tmp_path_factory):
    """The folder of a run of two agents."""
    path = tmp_path_factory.mktemp("watch") / "run"
    train("Painted-v0", path, iterations=2, seeds=2)
    return path


@pytest.fixture(scope="module")
def run(path):
    return dl.load(path)[0]


def colours(pictures):
    """One colour of each picture, which has no other."""
    pictures = np.asarray(pictures)
    assert (pictures == pictures[:, :1, :1]).all()
    return pictures[:, 0, 0].astype(int)


def expected(actions):
    """The colours of whole episodes with these actions, `[episodes, 5]`."""
    return [
        [40 * t, 60 * episode, 200 * row[t - 1] if t else 0] for episode, row in enumerate(actions) for t in range(6)
    ]


def read_mp4(path):
    """`(pictures [T, H, W, 3], pictures a second)`."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-i", str(path), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    read = subprocess.run(command, capture_output=True, check=True)
    width, height, fps = re.search(r"Video: h264.*, (\d+)x(\d+).* ([\d.]+) fps", read.stderr.decode()).groups()
    return np.frombuffer(read.stdout, np.uint8).reshape(-1, int(height), int(width), 3).astype(int), float(fps)


# What is seen


def test_pictures_are_of_the_beginning_and_of_what_followed_each_action_of_the_test_policy(run):
    pictures = run.frames(episodes=2)
    assert pictures.shape == (12, 13, 20, 3) and pictures.dtype == np.uint8
    greedy = int(run.policy(np.zeros(2, np.float32)))
    np.testing.assert_array_equal(colours(pictures), expected(np.full((2, 5), greedy)))


def test_to_explore_is_to_act_as_in_training(run):
    actions = colours(run.frames(episodes=4, explore=True))[:, 2].reshape(4, 6)[:, 1:]
    assert set(actions.ravel()) == {0, 200}
    np.testing.assert_array_equal(run.frames(episodes=4, explore=True, seed=0)[1::6, 0, 0, 2], actions[:, 0])


def test_the_seed_is_that_of_the_starts(run):
    for seed in (3, 3, 4):
        run.frames(seed=seed)
    *_, first, again, other = [env.seeds[:1] for env in Painted.made if env.render_mode]
    assert first == again == [seed_of(3, "watch", 0, 0)] and other == [seed_of(4, "watch", 0, 0)]


class Counting(AbstractAlgorithm):
    """Its action is the parity of how often it has acted since its carry began."""

    discount: float = 0.9
    experience = Experience(1, 1)

    def init(self, spec, *, key):
        return {}

    def initial_carry(self, num_envs):
        return jnp.zeros(num_envs, jnp.int32)

    def act(self, state, carry, obs, *, key, explore):
        return carry % 2, {}, carry + 1

    def update(self, state, batch, *, key):
        return state, {}


def test_any_algorithm_can_act_and_its_carry_begins_anew_with_each_episode(run):
    pictures = module.frames(TrainedPolicy(Counting(), run.plan.spec, {}), run.plan, None, episodes=2)
    np.testing.assert_array_equal(colours(pictures), expected([[0, 1, 0, 1, 0]] * 2))


def test_a_callable_says_itself_how_it_renders(run):
    np.testing.assert_array_equal(run.frames(env=lambda: Painted("rgb_array")), run.frames())


# Files


def test_a_gif_holds_every_picture_for_as_long_as_it_was(run, tmp_path):
    console, out = quiet(), tmp_path / "new" / "a.gif"
    watched = run.watch(episodes=2, out=out, console=console)
    assert watched.out == out and not watched.cut
    np.testing.assert_array_equal(watched.returns, [5, 5])
    np.testing.assert_array_equal(watched.lengths, [5, 5])
    assert console.file.getvalue().splitlines() == [f"episode {i}   return 5.0 in 5 steps" for i in (1, 2)]
    with Image.open(out) as image:
        assert (image.format, image.n_frames, image.size, image.info["loop"]) == ("GIF", 12, (20, 13), 0)
        shown = [(np.asarray(each.convert("RGB")), each.info["duration"]) for each in ImageSequence.Iterator(image)]
    pictures, milliseconds = zip(*shown, strict=True)
    assert milliseconds == (50,) * 12
    np.testing.assert_allclose(colours(pictures), colours(run.frames(episodes=2)), atol=1)
    assert os.listdir(out.parent) == ["a.gif"]


@pytest.mark.parametrize(("fps", "rate"), [(None, 20), (10.0, 10)])
def test_without_a_display_an_mp4_lies_in_the_folder_of_the_run(path, fps, rate):
    watched = dl.load(path)[1].watch(fps=fps, console=quiet())
    assert watched.out == path / "videos" / "step-24-agent-1.mp4" and os.listdir(path / "videos") == [watched.out.name]
    pictures, found = read_mp4(watched.out)
    assert pictures.shape == (6, 14, 20, 3) and found == rate  # even, one row more
    np.testing.assert_allclose(pictures[:, 5, 5, 0], 40 * np.arange(6), atol=8)


def test_an_environment_that_does_not_say_has_thirty_pictures_a_second(run, tmp_path):
    out = run.watch(env="Timeless-v0", out=tmp_path / "a.mp4", console=quiet()).out
    assert read_mp4(out)[1] == 30


def test_a_recording_is_cut_and_says_so(run, tmp_path):
    console = quiet()
    watched = run.watch(episodes=9, max_steps=7, out=tmp_path / "a.gif", console=console)
    assert watched.cut and watched.lengths.tolist() == [5, 2] and watched.returns.tolist() == [5, 2]
    assert console.file.getvalue().splitlines()[-1] == "episode 2   return 2.0 in 2 steps, cut: max_steps = 7"
    with Image.open(watched.out) as image:
        assert image.n_frames == 6 + 3
    assert not run.watch(max_steps=5, out=tmp_path / "a.gif", console=quiet()).cut
    assert len(run.frames(max_steps=3)) == 4


@pytest.mark.parametrize("suffix", ["gif", "mp4"])
@pytest.mark.parametrize(("env", "error"), [("Failing-v0", dl.EnvError), ("Interrupted-v0", KeyboardInterrupt)])
def test_a_recording_that_fails_leaves_what_was_there(run, tmp_path, suffix, env, error):
    out = tmp_path / f"a.{suffix}"
    out.write_text("an older one")
    with pytest.raises(error):
        run.watch(env=env, episodes=2, out=out, console=quiet())
    assert os.listdir(tmp_path) == [out.name] and out.read_text() == "an older one"


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("exit 1", "ffmpeg wrote nothing"),
        ('for out; do :; done; echo half > "$out"; cat; echo full >&2; exit 3', "full"),
    ],
)
def test_ffmpeg_says_what_went_wrong(run, monkeypatch, tmp_path, script, message):
    ffmpeg, videos = tmp_path / "ffmpeg", tmp_path / "videos"
    ffmpeg.write_text(f"#!/bin/sh\n{script}\n")
    ffmpeg.chmod(0o700)
    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", lambda: str(ffmpeg))
    with pytest.raises(dl.CheckpointError, match=rf"cannot write .*a\.mp4: {message}"):
        run.watch(out=videos / "a.mp4", console=quiet())
    assert not os.listdir(videos)


def test_a_gif_counts_hundredths_of_a_second():
    assert timetable(3, 20.0) == ([0, 1, 2], [50, 50, 50])
    kept, times = timetable(30, 30.0)  # 3⅓ hundredths: rounded without drifting
    assert kept == list(range(30)) and set(times) == {30, 40} and sum(times) == 1000
    kept, times = timetable(100, 100.0)  # every other one
    assert kept == list(range(0, 100, 2)) and times == [20] * 50
    assert timetable(1, 500.0) == ([0], [20])


def test_pictures_are_made_even():
    picture = np.arange(18, dtype=np.uint8).reshape(3, 2, 3)
    np.testing.assert_array_equal(pad_to_even(picture), picture[[0, 1, 2, 2]])
    assert pad_to_even(picture[:2]).shape == (2, 2, 3)


# The window


def test_with_a_display_the_environment_shows_itself(run, monkeypatch):
    monkeypatch.setenv("DISPLAY", ":0")
    watched = run.watch(env="Windowed-v0", episodes=2, console=quiet())
    assert watched.out is None and watched.lengths.tolist() == [5, 5]
    assert [env.render_mode for env in Painted.made] == [None, "human"]
    with pytest.raises(dl.ConfigError, match=r"fps = 10\.0: a window has the speed"):
        run.watch(env="Windowed-v0", fps=10.0)
    assert run.watch(env="Windowed-v0", max_steps=3, console=quiet()).cut


@pytest.mark.parametrize("env", ["Painted-v0", "Timeless-v0"])
def test_one_that_only_makes_pictures_is_shown_by_gymnasium(run, monkeypatch, env):
    shown = []
    monkeypatch.setenv("WAYLAND_DISPLAY", "wayland-0")
    monkeypatch.setattr(gym.wrappers.HumanRendering, "_render_frame", lambda self: shown.append(self.env.render()))
    assert run.watch(env=env, console=quiet()).out is None
    np.testing.assert_array_equal(colours(shown)[:6], colours(run.frames()))


# What cannot be watched


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"env": "gymnax/CartPole-v1"}, dl.ConfigError, "gymnax/CartPole-v1 is written in JAX.*--env CartPole-v1"),
        ({"env": "probe/both"}, dl.ConfigError, "probe/both is written in JAX.*--env ID"),
        ({"env": "Written-v0"}, dl.ConfigError, "Written-v0 has the render modes: 'ansi', 'human'. .* 'rgb_array'"),
        ({"env": "Blind-v0"}, dl.ConfigError, "Blind-v0 has the render modes: none"),
        ({"env": Painted}, dl.ConfigError, r"<.*Painted> makes an environment with the render mode: none"),
        ({"env": lambda: Painted("human")}, dl.ConfigError, r"render mode: 'human'.*render_mode='rgb_array'"),
        ({"env": "CartPole-v1"}, dl.ConfigError, "The spaces of the environment differ"),
        ({"env": "CartPol-v1"}, dl.ConfigError, "no Gymnasium environment 'CartPol-v1'"),
        ({"env": "Grey-v0"}, dl.EnvError, r"gave the picture uint8\[13, 20\]; it must be uint8\[height, width, 3\]"),
        ({"env": "Growing-v0"}, dl.EnvError, r"gave the picture uint8\[5, 4, 3\]; it must be uint8\[4, 4, 3\]"),
        ({"env": "Undrawn-v0"}, dl.MissingExtraError, r'drawing Undrawn-v0 needs .* "\.\[video\]"'),
        ({"out": "a.avi"}, dl.ConfigError, r"out = 'a.avi': must end in .gif or .mp4"),
        ({"episodes": 0}, dl.ConfigError, "episodes = 0: must be an integer"),
        ({"max_steps": 0}, dl.ConfigError, "max_steps = 0: must be an integer"),
        ({"seed": -1}, dl.ConfigError, "seed = -1: must be an integer"),
        ({"fps": 0.0}, dl.ConfigError, r"fps = 0.0: must be a number in \(0, 1,000\]"),
        ({"fps": float("nan")}, dl.ConfigError, r"fps = nan: must be a finite number"),
    ],
)
def test_what_cannot_be_is_refused_by_name(run, tmp_path, monkeypatch, options, error, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message):
        run.watch(**{"out": "a.gif"} | options)
    assert not os.listdir(tmp_path)


def test_an_adapter_is_refused(run):
    adapter = make("Painted-v0", 1)
    with pytest.raises(dl.ConfigError, match="GymnasiumEnvs>: an adapter has no pictures"):
        run.frames(env=adapter)
    adapter.close()


def test_a_run_in_a_python_object_asks_for_it(tmp_path):
    run = train(Painted, tmp_path / "run", iterations=1)
    assert len(run.frames(env="Painted-v0")) == 6
    run = dl.load(tmp_path / "run")
    with pytest.raises(dl.ConfigError, match=r"was a Python object, <.*Painted>\. Pass it again"):
        run.watch()


@pytest.mark.parametrize(("suffix", "package"), [("gif", "PIL"), ("mp4", "imageio_ffmpeg")])
def test_without_the_extra(run, tmp_path, monkeypatch, suffix, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(dl.MissingExtraError, match=rf'writing {suffix.upper()} files.*"\.\[video\]"'):
        run.watch(out=tmp_path / f"a.{suffix}")
    assert not os.listdir(tmp_path) and not Painted.made


# The command


@pytest.fixture
def duologue(monkeypatch, capsys, unchecked):

    def call(*arguments):
        with pytest.raises(SystemExit) as exit:
            cli.main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return exit.value.code or 0, out, " ".join(err.split())

    return call


def test_the_command_says_where_the_video_is_and_what_next(duologue, path, tmp_path, monkeypatch):
    for name in module.HEADLESS_VARIABLES:
        monkeypatch.setenv(name, "mine") if name == "SDL_VIDEODRIVER" else monkeypatch.delenv(name, raising=False)
    out = tmp_path / "a.gif"
    code, said, err = duologue("watch", path, "--agent", 1, "--episodes", 2, "--explore", "--seed", 5, "-o", out)
    assert code == 0 and not err
    assert said.splitlines() == [
        "episode 1   return 5.0 in 5 steps", "episode 2   return 5.0 in 5 steps",
        f"video   {out}", f"next    duologue evaluate {path} --episodes 100",
    ]  # fmt: skip
    actions = colours(dl.load(path)[1].frames(episodes=2, explore=True, seed=5))[:, 2]
    with Image.open(out) as image:
        shown = [np.asarray(each.convert("RGB"))[0, 0, 2] for each in ImageSequence.Iterator(image)]
    np.testing.assert_allclose(shown, actions, atol=1)
    assert (os.environ["MUJOCO_GL"], os.environ["SDL_VIDEODRIVER"]) == ("egl", "mine")


def test_with_a_display_the_command_leaves_drivers_alone_and_opens_a_window(duologue, path, monkeypatch):
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    code, said, _ = duologue("watch", path, "--env", "Windowed-v0")
    assert code == 0 and "video" not in said and said.splitlines()[-1].startswith("next    duologue evaluate")
    assert "MUJOCO_GL" not in os.environ


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--agent", "2"], "agent = 2: must be from 0 to 1, for the 2 agents"),
        (["--agent", "-1"], "agent = -1: must be from 0 to 1"),
        (["--out", "a.avi"], r"must end in \.gif or \.mp4"),
        (["--env", "gymnax/CartPole-v1"], "is written in JAX"),
        (["--fps", "-1"], r"fps = -1\.0: must be a number in \(0, 1,000\]"),
    ],
)
def test_mistakes_end_in_one_message(duologue, path, words, message):
    code, out, err = duologue("watch", path, *words)
    assert code == 2 and not out and re.search(message, err)


def test_the_best_checkpoint_is_asked_for_by_name(duologue, path):
    code, _, err = duologue("watch", path, "--checkpoint", "best")
    assert code == 1 and "has no best checkpoint" in err


def test_progress_is_shown_in_a_terminal_alone():
    for terminal in (True, False):
        file = io.StringIO()
        with module.recording_status(Console(file=file, force_terminal=terminal, width=80), Path("a.gif")) as tell:
            tell(10)
        assert ("recording a.gif" in file.getvalue()) == terminal


SLOW = """
import time
import gymnasium as gym
from runs.test_watch import Painted

class Slow(Painted):
    def step(self, action):
        print("stepping", flush=True)
        time.sleep(0.2)
        return super().step(action)

    def render(self):
        return super().render().repeat(20, 0).repeat(20, 1)

gym.register("Slow-v0", entry_point=Slow)
"""


@pytest.mark.slow  # of timing: beside a busy suite it was seen to exit 1, alone never
def test_ctrl_c_in_a_terminal_leaves_no_half_file(path, tmp_path):
    """The signal goes to the whole group of processes, ffmpeg too if it were in it."""
    (tmp_path / "slow.py").write_text(SLOW)
    command = [
        sys.executable, "-c", "import conftest; from duologue.cli.main import main; main()", "watch", str(path),
        "--env", "slow:Slow-v0", "--episodes", "1000", "-o", "a.mp4",
    ]  # fmt: skip
    cache = str(TESTS.parent / ".cache" / "jax")
    env = {**os.environ, "PYTHONPATH": f"{TESTS}:{TESTS.parent / 'src'}", "DUOLOGUE_CACHE": cache}
    with subprocess.Popen(
        command, cwd=tmp_path, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    ) as process:  # fmt: skip
        try:
            for _ in range(4):
                assert process.stdout.readline().strip() == "stepping", process.stderr.read()
            end = time.monotonic() + 20
            while not any(".mp4.tmp-" in name for name in os.listdir(tmp_path)):
                assert time.monotonic() < end
                time.sleep(0.02)
            os.killpg(process.pid, signal.SIGINT)
            assert (process.wait(timeout=30), process.stderr.read()) == (130, "")
        finally:
            process.kill()
    assert not [name for name in os.listdir(tmp_path) if name.startswith("a.mp4")]


def test_a_tiny_agent_is_drawn_as_gymnasium_draws_it(tmp_path):
    """CartPole's own pictures, not only those painted here."""
    run = train("CartPole-v1", tmp_path / "run", iterations=1, algorithm=TINY)
    pictures = run.frames(max_steps=2)
    assert pictures.shape == (3, 400, 600, 3)
    env = gym.make("CartPole-v1", render_mode="rgb_array")
    env.reset(seed=0)
    assert abs(pictures.mean() - env.render().mean()) < 1 and (pictures[0] != pictures[2]).any()
    env.close()
