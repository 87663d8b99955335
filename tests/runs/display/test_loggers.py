import json
import math
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event

from duologue.errors import CheckpointError, MissingExtraError
from duologue.runs.display.loggers import JsonLines, TensorBoard, WandB, metric_curve, read_metrics


def refuse_constants(name: str):
    raise AssertionError(f"{name} is not JSON")


def test_json_lines_are_strict_one_a_step_and_seed_in_order(tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    log = JsonLines(path)
    log.write(100, 0, {"rollout/ep_rew_mean": math.nan, "train/loss": math.inf})
    log.write(100, 1, {"rollout/ep_rew_mean": 12.5, "train/loss": -0.25})
    # Flushed each line: a reader sees them while the log is open.
    rows = [json.loads(line, parse_constant=refuse_constants) for line in path.read_text().splitlines()]
    assert [(row["step"], row["seed"]) for row in rows] == [(100, 0), (100, 1)]
    assert rows[0]["rollout/ep_rew_mean"] is None and rows[0]["train/loss"] is None
    assert rows[1]["rollout/ep_rew_mean"] == 12.5 and rows[1]["train/loss"] == -0.25
    assert 0 <= rows[0]["time"] <= rows[1]["time"] < 60
    log.close()


def test_a_torn_line_is_passed_over_and_a_resumed_log_goes_on_with_its_clock(tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    whole = b'{"step": 1, "seed": 0, "time": 7000.0, "a": 1.0}\n'
    path.write_bytes(whole + '{"step": 2, "seed": 0, "time": 70, "é'.encode()[:-1])
    assert [row["step"] for row in read_metrics(path)] == [1]
    log = JsonLines(path)
    log.write(2, 0, {"a": 2.0})
    log.sync()
    log.close()
    assert path.read_bytes().startswith(whole)  # never rewritten
    assert [row["step"] for row in read_metrics(path)] == [1, 2]
    assert 7000 <= read_metrics(path)[1]["time"] < 7060  # the clock of the run, not of the process


def test_a_missing_file_is_an_error_that_names_the_folder(tmp_path: Path):
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl does not exist\. Give the folder of a run"):
        read_metrics(tmp_path / "metrics.jsonl")


def test_curve_takes_one_seed_skips_null_sorts_and_lets_the_later_row_win():
    rows = [
        {"step": 20, "seed": 0, "a": 2.0},
        {"step": 10, "seed": 0, "a": None},
        {"step": 10, "seed": 1, "a": 9.0},
        {"step": 5, "seed": 0, "a": 1.0},
        {"step": 30, "seed": 0, "b": 1.0},
        {"step": 20, "seed": 0, "a": 3.0},
    ]
    steps, values = metric_curve(rows, "a", 0)
    np.testing.assert_array_equal(steps, [5, 20])
    np.testing.assert_array_equal(values, [1.0, 3.0])
    assert [len(x) for x in metric_curve(rows, "a", 7)] == [0, 0]


def events(directory: Path) -> Iterator[Event]:
    """What the event files directly in `directory` hold (TFRecord: length, its crc, data, its crc)."""
    for file in sorted(directory.glob("events.*")):
        data = file.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            yield Event.FromString(data[12 : 12 + length])
            data = data[16 + length :]


def scalars(directory: Path) -> list[tuple[str, int, float]]:
    """`(tag, step, value)` of every scalar."""
    return [(value.tag, event.step, value.simple_value) for event in events(directory) for value in event.summary.value]


def test_tensorboard_of_one_seed_holds_the_tags_in_the_directory_itself(tmp_path: Path):
    log = TensorBoard(tmp_path, [3])
    log.write(10, 3, {"rollout/ep_rew_mean": 1.5, "train/loss": math.nan})
    log.write(20, 3, {"rollout/ep_rew_mean": 2.5, "eval/mean_reward": 4.0})
    log.close()
    assert scalars(tmp_path) == [
        ("rollout/ep_rew_mean", 10, 1.5),
        ("rollout/ep_rew_mean", 20, 2.5),
        ("eval/mean_reward", 20, 4.0),
    ]


def test_tensorboard_is_told_from_where_a_resumed_run_writes_anew(tmp_path: Path):
    for start in (0, 20):
        log = TensorBoard(tmp_path / str(start), [3], start=start)
        log.write(start + 10, 3, {"time/fps": 1.0})
        log.close()
        restarts = [event.step for event in events(tmp_path / str(start)) if event.session_log.status]
        assert restarts == ([21] if start else [])


def test_tensorboard_gives_each_of_several_seeds_a_directory(tmp_path: Path):
    log = TensorBoard(tmp_path, [3, 4])
    log.write(10, 3, {"time/fps": 100.0})
    log.write(10, 4, {"time/fps": 200.0})
    log.close()
    assert scalars(tmp_path) == []
    assert scalars(tmp_path / "seed-3") == [("time/fps", 10, 100.0)]
    assert scalars(tmp_path / "seed-4") == [("time/fps", 10, 200.0)]


def test_wandb_has_a_run_for_each_seed_and_finite_numbers_at_their_step(monkeypatch: pytest.MonkeyPatch):
    calls = []

    def init(**options):
        seed = options["config"]["seed"]
        calls.append((options["project"], options["group"], options["config"]))
        return SimpleNamespace(
            log=lambda metrics, step: calls.append((seed, step, metrics)), finish=lambda: calls.append((seed, "end"))
        )

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    log = WandB("cartpole", {"env": "CartPole-v1"}, group="g")
    log.write(10, 3, {"train/loss": 1.0, "rollout/ep_rew_mean": math.nan})
    log.write(10, 4, {"train/loss": 2.0})
    log.write(20, 3, {"train/loss": 0.5})
    log.close()
    assert calls == [
        ("cartpole", "g", {"env": "CartPole-v1", "seed": 3}),
        (3, 10, {"train/loss": 1.0}),
        ("cartpole", "g", {"env": "CartPole-v1", "seed": 4}),
        (4, 10, {"train/loss": 2.0}),
        (3, 20, {"train/loss": 0.5}),
        (3, "end"),
        (4, "end"),
    ]


def test_wandb_without_its_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(MissingExtraError, match=r"\.\[wandb\]"):
        WandB("cartpole", {})
