"""Files: whole or not there, strict, locked."""

import os
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from duologue.errors import CheckpointError
from duologue.storage import files, json_text
from duologue.storage import jsonl as json_rows

ROOT = Path(__file__).parents[2]


def test_text_is_replaced_and_nothing_is_left_beside_it(tmp_path):
    path = tmp_path / "a.txt"
    files.write_text(path, "old")
    files.write_text(path, "γ = 0.99\n")
    assert path.read_bytes() == b"\xce\xb3 = 0.99\n"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_json_round_trip(tmp_path):
    value = {"a": [1, 0.1, 1e-300, True, None, "ε\ud800"], "b": {}, "big": 2**70}
    files.write_json(tmp_path / "a.json", value)
    assert files.read_json(tmp_path / "a.json") == value


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}, np.float32(1)])
def test_json_refuses_to_write(tmp_path, value):
    files.write_json(tmp_path / "a.json", "old")
    with pytest.raises(CheckpointError, match=r"a\.json"):
        files.write_json(tmp_path / "a.json", {"x": [value]})
    assert files.read_json(tmp_path / "a.json") == "old"
    assert os.listdir(tmp_path) == ["a.json"]


@pytest.mark.parametrize(
    "text",
    [
        b'{"a": 1, "a": 2}', b"[NaN]", b"[-Infinity]", b"[1e999]", b"[" * 10_000 + b"]" * 10_000,
        b"[" * 65 + b"]" * 65, b'{"a":' * 100_000, b"", b"\xff\xfe", b"{'a': 1}", b"[1] [2]", b"9" * 5000,
        b'\xef\xbb\xbf{}', b"cos\nsystem\n(S'touch canary'\ntR.",
    ],
)  # fmt: skip
def test_json_refuses_to_read(tmp_path, text):
    path = tmp_path / "config.json"
    path.write_bytes(text)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        files.read_json(path)


def test_json_nested_to_the_limit_is_read(tmp_path):
    (tmp_path / "a").write_bytes(b"[" * json_text.MAX_NESTING + b"]" * json_text.MAX_NESTING)
    files.read_json(tmp_path / "a")


def test_missing_and_oversize_files(tmp_path):
    with pytest.raises(CheckpointError, match="No such file"):
        files.read_json(tmp_path / "none.json")
    (tmp_path / "big.json").write_text("1" * 101)
    with pytest.raises(CheckpointError, match=r"big\.json.*100 bytes"):
        files.read_json(tmp_path / "big.json", max_bytes=100)


def test_arrays_of_every_layout_come_back_as_they_were(tmp_path):
    grid = np.arange(24, dtype=np.float32).reshape(4, 6)
    arrays = {
        "fortran": np.asfortranarray(grid), "strided": grid[::2, ::-3], "transposed": grid.T, "scalar": np.float64(3.5),
        "0-d": np.asarray(7, np.int16), "empty": np.zeros((0, 3), np.uint8), "big-endian": grid.astype(">f4"),
        "bool": grid > 3, "bfloat16": np.asarray(jnp.asarray(grid, jnp.bfloat16)), "complex": grid.astype(np.complex64),
        "broadcast": np.broadcast_to(np.float32(2), (3, 2)), "uint64": np.asarray([2**64 - 1], np.uint64), "": grid,
    }  # fmt: skip
    files.save_arrays(tmp_path / "a", arrays)
    loaded = files.load_arrays(tmp_path / "a")
    assert loaded.keys() == arrays.keys()
    for name, array in arrays.items():
        assert loaded[name].dtype.newbyteorder("=") == array.dtype.newbyteorder("="), name
        assert loaded[name].shape == array.shape
        assert loaded[name].tolist() == array.tolist(), name


@pytest.mark.parametrize("array", [np.zeros(2, np.complex128), np.asarray([object()]), np.asarray(["x"])])
def test_arrays_that_could_not_be_read_back_are_refused(tmp_path, array):
    with pytest.raises(CheckpointError, match="weights has dtype"):
        files.save_arrays(tmp_path / "a", {"weights": array})
    assert os.listdir(tmp_path) == []


def test_float8_is_refused_though_safetensors_writes_it(tmp_path):
    with pytest.raises(CheckpointError, match="float8"):
        files.save_arrays(tmp_path / "a", {"x": np.zeros(2, jnp.float8_e4m3fn)})


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\xff" * 64, b"\x80\x04]\x94.", (2**62).to_bytes(8, "little") + b"{}",
        (60).to_bytes(8, "little") + b'{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}      ' + bytes(4),
    ],
)  # fmt: skip
def test_what_is_not_safetensors_is_refused(tmp_path, data):
    (tmp_path / "a").write_bytes(data)
    with pytest.raises(CheckpointError, match="cannot read"):
        files.load_arrays(tmp_path / "a")


def test_a_symlink_is_replaced_not_followed(tmp_path):
    (tmp_path / "victim").write_text("mine")
    (tmp_path / "a").symlink_to(tmp_path / "victim")
    files.write_text(tmp_path / "a", "new")
    assert (tmp_path / "victim").read_text() == "mine"
    files.temporary_path(tmp_path / "b").symlink_to(tmp_path / "victim")
    with pytest.raises(CheckpointError, match="cannot write"):
        files.write_text(tmp_path / "b", "new")
    assert (tmp_path / "victim").read_text() == "mine"


def test_new_folder_appears_whole_or_not_at_all(tmp_path):
    with pytest.raises(ZeroDivisionError), files.build_folder(tmp_path / "a") as folder:
        (folder / "x").write_text("x")
        1 / 0  # noqa: B018
    assert os.listdir(tmp_path) == []
    with files.build_folder(tmp_path / "a") as folder:
        (folder / "x").write_text("x")
        assert not (tmp_path / "a").exists()
    assert os.listdir(tmp_path) == ["a"] and os.listdir(tmp_path / "a") == ["x"]
    (tmp_path / "b").mkdir()
    with pytest.raises(CheckpointError, match="exists already"), files.build_folder(tmp_path / "b"):
        pass


def test_leftovers_of_the_dead_are_removed_and_no_others(tmp_path):
    host, dead = files.socket.gethostname(), subprocess.Popen(["true"])
    dead.wait()
    alive = os.getppid()
    names = [f"step-1.tmp-{host}-{alive}", f"step-1.tmp-elsewhere-{dead.pid}", "step-1", "notes.tmp"]
    for name in [*names, f"step-1.tmp-{host}-{dead.pid}", f"step-2.tmp-{host}-{os.getpid()}"]:
        (tmp_path / name).mkdir()
        (tmp_path / name / "x").write_text("x")
    files.write_text(tmp_path / f"c.json.tmp-{host}-{dead.pid}", "half")
    files.remove_leftovers(tmp_path)
    assert sorted(os.listdir(tmp_path)) == sorted(names)


def test_rows_go_on_after_a_crash(tmp_path):
    path = tmp_path / "metrics.jsonl"
    rows = json_rows.JsonRows(path)
    for step in range(3):
        rows.append({"step": step, "loss": None})
        assert len(json_rows.read_rows(path)) == step + 1  # seen by others at once
    rows.sync()
    rows.close()
    with path.open("a") as file:
        file.write('{"step": 3, "lo')
    assert [row["step"] for row in json_rows.read_rows(path)] == [0, 1, 2]
    rows = json_rows.JsonRows(path)
    rows.append({"step": 3})
    rows.close()
    assert [row["step"] for row in json_rows.read_rows(path)] == [0, 1, 2, 3]
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl"):
        rows.append({"loss": float("nan")})


def test_rows_beyond_a_step_are_cut(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(f'{{"step": {step}, "seed": {seed}}}\n' for step in (10, 20, 30) for seed in (0, 1)))
    before = path.read_text().splitlines()
    json_rows.truncate_after(path, lambda row: row["step"] <= 20)
    assert path.read_text().splitlines() == before[:4]
    json_rows.truncate_after(path, lambda row: False)
    assert path.read_text() == ""


def test_a_damaged_row_is_named(tmp_path):
    (tmp_path / "m").write_text('{"step": 1}\n[2]\n')
    with pytest.raises(CheckpointError, match="line 2, is not a JSON object"):
        json_rows.read_rows(tmp_path / "m")
    (tmp_path / "m").write_text('{"step": 1}\n{"step"\n{"step": 3}\n')
    with pytest.raises(CheckpointError, match="line 2, is not strict JSON"):
        json_rows.read_rows(tmp_path / "m")


HOLD = """
import sys, time, pathlib
from duologue.storage.files import RunLock
with RunLock(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_lock_names_its_holder_and_dies_with_it(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as holder:
        try:
            assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
            with pytest.raises(CheckpointError, match=rf"process {holder.pid} on {files.socket.gethostname()}"):
                files.RunLock(tmp_path).__enter__()
        finally:
            holder.kill()
    for _ in range(2):  # taken over, and released by leaving
        with files.RunLock(tmp_path), pytest.raises(CheckpointError, match=f"process {os.getpid()} "):
            files.RunLock(tmp_path).__enter__()
