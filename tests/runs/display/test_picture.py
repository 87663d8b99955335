import io
import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from rich.cells import cell_len
from rich.console import Console

from duologue.runs.display.picture import (
    Progress,
    braille,
    format_duration,
    format_number,
    progress_line,
    render,
    resample,
)

RUN = "runs/a2c/CartPole-v1/3"


def progress(updates: int = 60, *, evaluate: bool = True) -> Progress:
    known = Progress(100_000, "A2C · CartPole-v1 · seed 0 · cpu", Path(RUN))
    for i in range(1, updates + 1):
        metrics = {"rollout/ep_rew_mean": 10.0 + i, "rollout/ep_len_mean": 10.0, "train/entropy": 0.5, "time/fps": 1.0}
        metrics |= {"train/explained_variance": 0.9, "train/value_loss": 3.25, "train/gradient_norm": 0.1}
        known.update(i * 1000, metrics | ({"eval/mean_reward": 12.0 + i} if evaluate and i % 10 == 0 else {}), 2.0 + i)
    known.notes.append("checkpoint saved [at] step 50,000")
    return known


def drawn(known: Progress, *, width: int = 100, height: int = 24) -> list[str]:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    console.print(render(known, 63.0, width=width, height=height))
    return console.file.getvalue().splitlines()  # pyright: ignore[reportAttributeAccessIssue]


def test_braille_of_known_shapes():
    assert braille([0.0, 1.0, 2.0, 3.0], 2, 1) == ["⡠⠊"]
    assert braille([3.0, 2.0, 1.0, 0.0], 2, 1) == ["⠑⢄"]
    assert braille([0.0, 0.0, 1.0, 1.0], 2, 1) == ["⣀⠏"]  # a step is a closed line
    assert braille([1.0, 1.0, 0.0, 0.0], 2, 1) == ["⠉⣆"]
    assert braille([5.0] * 4, 2, 1) == ["⠤⠤"]  # a constant lies in the middle
    assert braille([0.0, 1.0], 1, 2) == ["⢸", "⡸"]
    assert braille([0.0, math.nan, math.inf, 1.0], 2, 1) == ["⡀⠈"]  # a gap, not a line
    assert braille([], 2, 1) == braille([math.nan], 2, 1) == ["⠀⠀"]
    assert braille([0.0, 0.0], 1, 1, low=0.0, high=1.0) == ["⣀"]
    assert braille([7.0, 7.0], 1, 1, low=0.0, high=1.0) == ["⠉"]  # beyond the range: at its edge


@pytest.mark.parametrize("count", [1, 2, 7, 40, 5000])
def test_braille_fits_any_number_of_values_to_the_width(count: int):
    rows = braille(np.linspace(0, 1, count).tolist(), 10, 3)
    assert [len(row) for row in rows] == [10, 10, 10]
    if count > 1:
        assert rows[2][0] != "⠀" and rows[0][-1] != "⠀" and rows[0][0] == rows[2][-1] == "⠀"


def test_resample_means_what_is_near_and_draws_lines_between():
    points = [(10, 1.0), (11, 3.0), (20, 4.0), (30, math.nan)]
    # Places 0, 10, 20, 30, 40.
    np.testing.assert_allclose(resample(points, 5, 0, 40), [np.nan, 2.0, 4.0, np.nan, np.nan])
    np.testing.assert_allclose(resample([(0, 0.0), (40, 4.0)], 5, 0, 40), [0, 1, 2, 3, 4])


def test_metrics_of_tasks_are_named_after_them():
    known = Progress(10, "SACX")
    known.update(1, {"rollout/ep_rew_mean": 1.0, "rollout/ep_rew_mean/hover_planar": 2.0, "train/rho/touch": 3.0}, 1.0)
    assert known.numbers() == [("return", 1.0), ("return of hover planar", 2.0), ("rho/touch", 3.0)]


@pytest.mark.parametrize("width", [60, 79, 80, 100, 120, 200])
@pytest.mark.parametrize("updates", [0, 1, 60])
def test_frames_fit_the_terminal(width: int, updates: int):
    for height in (5, 12, 15, 18, 24, 60):
        rows = drawn(progress(updates), width=width, height=height)
        assert {cell_len(row) for row in rows} == {min(width, 120)}
        assert len(rows) <= max(height, 10)
        text = "\n".join(rows)
        assert "A2C · CartPole-v1 · seed 0 · cpu" in text and RUN in text and "saved [at] step 50,000" in text


@pytest.mark.parametrize("width", [1, 8, 30, 59])
def test_narrow_terminals_get_no_panels_and_no_error(width: int):
    for known in (progress(60), progress(0), Progress(0, "")):
        rows = drawn(known, width=width)
        assert all(cell_len(row) <= width for row in rows) and "╭" not in "".join(rows)


def test_a_frame_says_what_matters():
    text = "\n".join(drawn(progress()))
    for words in ("60%", "60,000 / 100,000 steps", "1,000 steps/s", "elapsed 1:03", "left 0:39", "return in training",
                  "in evaluation", "explained var.", "gradient norm"):  # fmt: skip
        assert words in text
    assert text.count("●") == 6 + 1  # six evaluations, and the legend
    assert " 72 ┤" in text and " 11 ┤" in text  # the highest evaluation, the lowest return
    assert "fps" not in text
    assert "●" not in "\n".join(drawn(progress(evaluate=False)))


def test_curves_rise_to_the_right():
    rows = [row for row in drawn(progress(evaluate=False)) if "│  " in row and ("┤" in row or " │" in row[3:12])]
    dots = [[i for i, cell in enumerate(row) if 0x2800 < ord(cell) < 0x2900] for row in rows]
    dots = [row for row in dots if row]
    assert len(dots) >= 6
    assert all(max(lower) <= min(upper) + 1 for upper, lower in pairwise(dots))


def test_nan_is_shown_for_a_loss_but_not_for_a_return_without_episodes():
    known = progress()
    known.update(61_000, {"rollout/ep_rew_mean": math.nan, "train/value_loss": math.nan}, 64.0)
    numbers = dict(known.numbers())
    assert numbers["return"] == 70.0 and math.isnan(numbers["value loss"])
    assert len(known.training) == 60
    assert any("value loss" in row and "nan" in row for row in drawn(known))


def test_the_rate_forgets_the_compiler_and_a_resumed_run_starts_where_it_was():
    known = Progress(10_000, "A2C", start=5000)
    assert known.rate == 0 and math.isnan(known.left(1.0))
    known.update(5100, {}, 10.0)  # 10 s of compiling
    assert known.rate == 10 and math.isnan(known.left(10.0))
    known.update(5200, {}, 11.0)
    assert known.rate == 100
    assert known.left(11.0) == pytest.approx(48) and known.left(13.0) == pytest.approx(46)
    assert known.left(1e6) == 0


def test_thousands_of_updates_keep_a_bounded_curve_in_order():
    known = Progress(100_000, "A2C")
    for step in range(10_000):
        known.update(step, {"rollout/ep_rew_mean": float(step)}, step / 100)
    steps = [step for step, _ in known.training]
    assert 1000 <= len(steps) <= 2000 and steps == sorted(steps) and steps[0] == 0 and steps[-1] > 9990


def test_a_line_is_ascii_and_leads_with_what_matters():
    text = progress_line(progress(), 63.0)
    assert text.isascii()
    assert text == (
        "step 60,000/100,000 (60%)  1,000 steps/s  left 0:39  return 70  evaluation 72  episode length 10  "
        "entropy 0.5  value loss 3.25  explained var. 0.9"
    )


def test_numbers_and_durations():
    assert [format_number(x) for x in (0.0, -0.012345, 482.345, 12345.6, 1e9, math.nan)] == [
        "0", "-0.01235", "482.3", "12,346", "1e+09", "nan",
    ]  # fmt: skip
    assert [format_duration(x) for x in (0.0, 59.9, 61.0, 3661.0, 100 * 3600.0, math.nan)] == [
        "0:00", "0:59", "1:01", "1:01:01", "100:00:00", "-",
    ]  # fmt: skip
