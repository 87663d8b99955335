import errno
import io
import math
import time

import pytest
from rich.console import Console

from duologue.runs.display.screen import LiveScreen, PlainScreen, make_screen

METRICS = {"rollout/ep_rew_mean": 21.5, "rollout/ep_len_mean": 21.5, "train/actor_loss": -0.25, "time/fps": 3.0}


def terminal(encoding: str, *, is_terminal: bool = True) -> tuple[Console, io.BytesIO]:
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding, newline="\n")
    console = Console(
        file=file,
        force_terminal=is_terminal,
        width=80,
        height=24,
        legacy_windows=False,
        _environ={"TERM": "xterm-256color"},
    )
    return console, raw


@pytest.mark.parametrize(
    ("encoding", "is_terminal", "kind"),
    [("utf-8", True, LiveScreen), ("ascii", True, PlainScreen), ("utf-8", False, PlainScreen)],
)
def test_live_only_on_a_terminal_that_can_show_it(encoding: str, is_terminal: bool, kind: type):
    console, _ = terminal(encoding, is_terminal=is_terminal)
    assert type(make_screen(100, "A2C", console=console)) is kind


def test_a_dumb_terminal_gets_lines():
    console = Console(file=io.StringIO(), force_terminal=True, _environ={"TERM": "dumb"})
    assert type(make_screen(100, "A2C", console=console)) is PlainScreen


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_plain_lines_hold_the_numbers_and_no_escapes(encoding: str):
    console, raw = terminal(encoding, is_terminal=False)
    with make_screen(2_000_000, "A2C · CartPole-v1 · seeds 0…4", console=console) as shown:
        shown.start(0)  # a second call moves the beginning and prints nothing
        shown.update(500_000, METRICS)
        shown.note("saved under runs/été")
        shown.update(1_000_000, {**METRICS, "rollout/ep_rew_mean": 400.0})
        assert b"500,000" in raw.getvalue()  # flushed while the run goes on
    text = raw.getvalue().decode(encoding)
    title, first, note, last = text.splitlines()
    assert "\x1b" not in text and "\r" not in text
    assert title == "A2C | CartPole-v1 | seeds 0...4"
    assert first.isascii() and first.startswith("step 500,000/2,000,000 (25%)  ")
    assert "return 21.5  episode length 21.5  actor loss -0.25" in first and "steps/s" in first and "left -" in first
    assert note == ("saved under runs/?t?" if encoding == "ascii" else "saved under runs/été")
    # The second update came within a second of the first: held back, and printed when the run stops.
    assert "1,000,000" in last and "return 400" in last


def test_plain_lines_are_at_most_one_a_second(monkeypatch: pytest.MonkeyPatch):
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    console, raw = terminal("utf-8", is_terminal=False)
    with make_screen(1000, "A2C", console=console) as shown:
        for step in range(1, 31):
            now[0] += 0.25
            shown.update(step * 10, METRICS)
    steps = [line.split()[1] for line in raw.getvalue().decode().splitlines()[1:]]
    assert steps == [f"{step * 10}/1,000" for step in (1, 5, 9, 13, 17, 21, 25, 29, 30)]


def test_the_live_screen_leaves_its_last_frame():
    console, raw = terminal("utf-8")
    with make_screen(1000, "A2C · CartPole-v1", console=console) as shown:
        shown.start(100)
        shown.note("compiling")
        shown.update(1000, METRICS)
    text = raw.getvalue().decode()
    last = text[text.rindex("╭") :]
    assert "A2C · CartPole-v1" in last and "100%" in last and "21.5" in last and "compiling" in last and "╯" in last
    assert "\x1b[?25h" in text  # the cursor is back


class Gone(io.StringIO):
    def write(self, text: str) -> int:
        raise OSError(errno.EIO, "Input/output error")


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_terminal_that_went_away_does_not_stop_training(is_terminal: bool):
    console = Console(file=Gone(), force_terminal=is_terminal, _environ={"TERM": "xterm"})
    with make_screen(1000, "A2C", console=console) as shown:
        shown.update(10, {"rollout/ep_rew_mean": math.nan})
        shown.note("still here")


def test_an_update_between_two_drawings_is_nearly_free():
    for is_terminal in (True, False):
        console, _ = terminal("utf-8", is_terminal=is_terminal)
        metrics = {f"train/m{i}": float(i) for i in range(20)} | METRICS
        with make_screen(10**9, "A2C", console=console) as shown:
            shown.update(1, metrics)
            began = time.process_time()
            for step in range(2, 3002):
                shown.update(step, metrics)
            assert (time.process_time() - began) / 3000 < 200e-6
