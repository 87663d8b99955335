"""Files of recorded data come out as they were written; broken and harmful ones are refused in one sentence."""

import io
import json
import re
import sys
import zipfile

import h5py
import numpy as np
import pytest

from duologue.data import dataset
from duologue.errors import ConfigError, MissingExtraError
from duologue.types import Box, Dict, Discrete

OBS = np.arange(10, dtype=np.float32).reshape(5, 2)
COLUMNS = {
    "observations": OBS, "actions": np.linspace(-1, 1, 5, dtype=np.float32)[:, None],
    "rewards": np.arange(5, dtype=np.float32), "terminals": np.arange(5) == 4, "timeouts": np.arange(5) == 2,
    "next_observations": OBS + np.float32(2), "infos/log_prob": np.ones(5, np.float32),
}  # fmt: skip
ABOUT = {"env": "Env-v0", "action_space": {"low": [-3.0], "high": [2.0]}}


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def npz(path, /, about=ABOUT, **changes):
    np.savez_compressed(path, metadata=np.array(json.dumps(about)), **COLUMNS | changes)
    return path


def zipped(path, members, **options):
    """A zip of `(name, bytes)`, besides what every recording needs."""
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name in COLUMNS.keys() - {name.removesuffix(".npy") for name, _ in members}:
            archive.writestr(f"{name}.npy", npy(COLUMNS[name]))
        for name, data in members:
            archive.writestr(name, data)
    return path


def hdf5(path, **changes):
    with h5py.File(path, "w") as file:
        for name, column in (COLUMNS | changes).items():
            if column is not None:
                file[name] = column
        file.attrs.update({"env": "Env-v0", "action_space": json.dumps(ABOUT["action_space"])})
    return path


def minari(folder, episodes, attributes=None):
    """`episodes` are dicts of Minari's columns."""
    (folder / "data").mkdir(parents=True)
    with h5py.File(folder / "data" / "main_data.hdf5", "w") as file:
        for i, episode in enumerate(episodes):
            for name, column in episode.items():
                file[f"episode_{i}/{name}"] = column
        file.attrs.update(attributes or {})
    return folder


def episode(start, length, terminated=False, truncated=False):
    last = np.arange(length) == length - 1
    return {
        "observations": np.arange(start, start + length + 1, dtype=np.float64)[:, None],
        "actions": np.arange(length) % 3, "rewards": np.ones(length), "terminations": last & terminated,
        "truncations": last & truncated, "infos/x": np.zeros(length + 1),
    }  # fmt: skip


def refused(path, words):
    """The error is one `ConfigError` which names the file."""
    with pytest.raises(ConfigError, match=words) as error:
        dataset.read_dataset(path)
    assert str(path) in str(error.value)


# What is written comes back


@pytest.mark.parametrize(("write", "name"), [(npz, "x.npz"), (hdf5, "x.hdf5"), (hdf5, "x.h5")])
def test_columns_come_back(write, name, tmp_path):
    data = dataset.read_dataset(write(tmp_path / name, other=np.zeros(5)))
    expected = dataset.from_columns(dict(COLUMNS))
    assert data.digest == expected.digest and data.source == str(tmp_path / name)
    assert data.spec.id == "Env-v0" and data.spec.action == Box((1,), "float32", (-3.0,), (2.0,))
    assert data.notes == ("Not read: other.", *expected.notes[1:])


def test_a_dict_of_observations_comes_back(tmp_path):
    parts = {"a": OBS, "b": np.zeros((5, 2, 2, 3), np.uint8)}
    columns = {f"{column}/{name}": x for column in ("observations", "next_observations") for name, x in parts.items()}
    whole = {"observations": None, "next_observations": None}
    first = dataset.read_dataset(hdf5(tmp_path / "x.h5", **whole, **columns))
    np.savez(tmp_path / "x.npz", **{k: v for k, v in COLUMNS.items() if k not in whole} | columns)
    assert first.digest == dataset.read_dataset(tmp_path / "x.npz").digest
    assert first.spec.observation == Dict({"a": Box((2,)), "b": Box((2, 2, 3), "uint8")})


def test_minaris_episodes_come_one_after_another(tmp_path):
    episodes = [episode(100 * i, 3, terminated=i % 2 == 0, truncated=i % 2 == 1) for i in range(11)]
    space = json.dumps({"type": "Discrete", "dtype": "int64", "start": 0, "n": 4})
    folder = minari(tmp_path / "x", episodes, {"env_spec": json.dumps({"id": "Env-v1"}), "action_space": space})
    data = dataset.read_dataset(folder)
    assert data.rows.obs[:, 0].tolist() == [100 * i + t for i in range(11) for t in range(3)]
    np.testing.assert_array_equal(data.rows.next_obs, data.rows.obs + 1)
    assert np.flatnonzero(data.rows.terminated).tolist() == list(range(2, 33, 6))
    assert np.flatnonzero(data.rows.truncated).tolist() == list(range(5, 33, 6))
    assert data.spec.id == "Env-v1" and data.spec.action == Discrete(4) and "Not read: infos." in data.notes


def test_minaris_metadata_may_be_a_file_and_bounds_infinite(tmp_path):
    folder = minari(tmp_path / "x", [episode(0, 3, terminated=True) | {"actions": np.zeros((3, 2), np.float32)}])
    space = '{"type": "Box", "dtype": "float32", "shape": [2], "low": [-Infinity, -1.0], "high": [1.0, 2.0]}'
    (folder / "data" / "metadata.json").write_text(json.dumps({"env_spec": '{"id": "E-v0"}', "action_space": space}))
    assert dataset.read_dataset(folder).spec.action == Box((2,), "float32", (None, -1.0), (1.0, 2.0))


CORE = ("observations", "actions", "rewards", "terminals")


def test_what_is_not_read_is_named_wherever_it_lies(tmp_path):
    folder = minari(tmp_path / "x", [episode(0, 3, terminated=True)])
    with h5py.File(folder / "data" / "main_data.hdf5", "a") as file:
        file["first_episode/actions"] = np.zeros(3)
    assert "Not read: first_episode, infos." in dataset.read_dataset(folder).notes
    with h5py.File(tmp_path / "flat.hdf5", "w") as file:
        for name in CORE:
            file[name] = COLUMNS[name]
        file["infos"] = np.zeros(3)
    assert any(note == "Not read: infos." for note in dataset.read_dataset(tmp_path / "flat.hdf5").notes)


def test_a_minari_episode_that_breaks_off_is_cut(tmp_path):
    data = dataset.read_dataset(minari(tmp_path / "x", [episode(0, 3), episode(50, 2, truncated=True), episode(90, 2)]))
    assert np.flatnonzero(data.rows.truncated).tolist() == [2, 4, 6] and data.cut == (2, 6)


def test_a_minari_id_is_looked_up_where_minari_keeps_it(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    minari(tmp_path / "D4RL" / "door" / "human-v2", [episode(0, 4, truncated=True)])
    data = dataset.read_dataset("D4RL/door/human-v2")
    assert len(data) == 4 and data.source == "D4RL/door/human-v2"
    words = f"D4RL/door/cloned-v2 is not in {re.escape(str(tmp_path))}.*minari download D4RL/door/cloned-v2"
    with pytest.raises(ConfigError, match=words):
        dataset.read_dataset("D4RL/door/cloned-v2")
    monkeypatch.delenv("MINARI_DATASETS_PATH")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    with pytest.raises(ConfigError, match=re.escape(str(tmp_path / "home" / ".minari" / "datasets"))):
        dataset.read_dataset("D4RL/door/human-v2")


def test_hdf5_needs_an_extra(tmp_path, monkeypatch):
    path = hdf5(tmp_path / "x.h5")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(MissingExtraError, match=r'pip install "\.\[minari\]"'):
        dataset.read_dataset(path)


def test_what_is_no_recording_is_refused(tmp_path):
    refused(tmp_path / "none.npz", "no recorded data at")
    refused(tmp_path, "no Minari data set")
    (tmp_path / "x.csv").write_text("a")
    refused(tmp_path / "x.csv", "must be a .npz, .hdf5 or .h5 file")
    refused(minari(tmp_path / "x", []), "holds no episodes")


# .npz

ABOUTS = {
    "json": "{", "nan": '{"env": NaN}', "infinite": '{"x": 1e999}', "twice": '{"env": "a", "env": "b"}', "list": "[]",
    "env": '{"env": 3}', "space": '{"action_space": {"low": [0]}}', "n": '{"action_space": {"n": 0}}',
    "bounds": '{"action_space": {"low": [1], "high": [0]}}', "kind": '{"action_space": {"type": "Text"}}',
    "words": '{"action_space": {"low": ["a"], "high": ["b"]}}', "deep": "[" * 100_000,
}  # fmt: skip


@pytest.mark.parametrize("case", ABOUTS)
def test_malformed_metadata_are_refused(case, tmp_path):
    refused(zipped(tmp_path / "x.npz", [("metadata.npy", npy(np.array(ABOUTS[case])))]), "JSON|must be|No such")


def test_metadata_that_do_not_fit_the_actions_are_refused(tmp_path):
    refused(npz(tmp_path / "x.npz", {"action_space": {"low": [0, 0], "high": [1, 1]}}), "'actions' has the shape")
    refused(npz(tmp_path / "y.npz", {"action_space": {"n": 3}}), "'actions' is float32.*it must hold one integer")
    bounds = dataset.read_dataset(npz(tmp_path / "z.npz", {"env": "Other-v0"})).spec.action
    assert bounds == Box((1,), "float32", (-1.0,), (1.0,))
    refused(zipped(tmp_path / "n.npz", [("metadata.npy", npy(np.zeros(3)))]), "must be one string of JSON")


def lying(shape, dtype="<f4"):
    """An array of five numbers under another header."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": dtype, "fortran_order": False, "shape": shape})
    return file.getvalue() + bytes(20)


MEMBERS = {
    "huge": ([("rewards.npy", lying((10**12,)))], "does not hold the float32"),
    "overlong": ([("rewards.npy", lying((4,)))], "does not hold the float32"),
    "negative": ([("rewards.npy", lying((-5, -1)))], "does not hold|cannot read"),
    "objects": ([("rewards.npy", lying((5,), "|O"))], "holds Python objects"),
    "text": ([("rewards.npy", b"hello")], "cannot read"),
    "stranger": ([("code.py", b"1")], "'code.py', but each of its files must be a .npy array"),
    "twice": ([("rewards.npy", npy(COLUMNS["rewards"]))] * 2, "holds 'rewards' twice"),
}


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("case", MEMBERS)
def test_a_member_that_is_not_what_it_says_is_refused(case, tmp_path):
    members, words = MEMBERS[case]
    refused(zipped(tmp_path / "x.npz", members), words)


def test_a_bomb_is_refused(tmp_path):
    bomb = [("rewards.npy", npy(np.zeros(10**6)))]
    refused(zipped(tmp_path / "x.npz", bomb, compression=zipfile.ZIP_LZMA), "not compressed as NumPy does")


@pytest.mark.parametrize(
    ("field", "words"), [(24, "not compressed as NumPy does"), (20, "a larger size than the file")]
)
def test_sizes_are_not_believed(field, words, tmp_path):
    """The archive's list of members says that one is of 4 MB, once it is unpacked or as it lies."""
    path = zipped(tmp_path / "x.npz", [("rewards.npy", lying((10**6,)))])
    data = bytearray(path.read_bytes())
    entry = data.rindex(b"PK\x01\x02")
    assert data[entry + 46 : entry + 57] == b"rewards.npy"
    data[entry + field : entry + field + 4] = (4 * 10**6 + 128).to_bytes(4, "little")
    path.write_bytes(data)
    refused(path, words)


@pytest.mark.parametrize(("write", "name"), [(npz, "x.npz"), (hdf5, "x.hdf5")])
@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.99])
def test_a_truncated_file_is_refused(write, name, share, tmp_path):
    path = write(tmp_path / name)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    refused(path, "cannot read .*The file may be incomplete")


def test_an_altered_member_is_refused(tmp_path):
    path = tmp_path / "x.npz"
    np.savez(path, **COLUMNS)
    data = bytearray(path.read_bytes())
    data[data.index(OBS.tobytes()) + 5] ^= 1
    path.write_bytes(data)
    refused(path, "Bad CRC")


# HDF5


def soft(file, folder):
    file["rewards"] = h5py.SoftLink("/terminals")


def outside_link(file, folder):
    file["rewards"] = h5py.ExternalLink(str(hdf5(folder / "other.h5")), "/rewards")


def soft_group(file, folder):
    file["rewards"], file["elsewhere/log_prob"] = COLUMNS["rewards"], np.zeros(5)
    del file["infos"]
    file["infos"] = h5py.SoftLink("/elsewhere")


def outside_storage(file, folder):
    (folder / "raw").write_bytes(bytes(20))
    file.create_dataset("rewards", (5,), "f4", external=[(str(folder / "raw"), 0, 20)])


def virtual(file, folder):
    layout = h5py.VirtualLayout((5,), "f4")
    layout[:] = h5py.VirtualSource(str(hdf5(folder / "other.h5")), "rewards", (5,))
    file.create_virtual_dataset("rewards", layout)


def strings(file, folder):
    file.create_dataset("rewards", data=["a"] * 5, dtype=h5py.string_dtype())


def references(file, folder):
    file.create_dataset("rewards", data=[file["actions"].ref] * 5, dtype=h5py.ref_dtype)


def ragged(file, folder):
    file.create_dataset("rewards", (5,), h5py.vlen_dtype(np.float32))


def compound(file, folder):
    file.create_dataset("rewards", (5,), [("x", "f4")])


def nothing(file, folder):
    file["rewards"] = h5py.Empty("f4")


def never_written(file, folder):
    file.create_dataset("rewards", (10**12,), "f4")


def missing_chunks(file, folder):
    file.create_dataset("rewards", (10**4,), "f4", chunks=(100,))[:100] = 1


def missing_all(file, folder):
    file.create_dataset("rewards", (5,), "f4", chunks=(5,))


def circular(file, folder):
    del file["observations"]
    file["rewards"], file["observations/x"] = COLUMNS["rewards"], OBS
    file["observations/again"] = file["observations"]


HARM = {
    soft: "link to another place", outside_link: "link to another place", soft_group: "link to another place",
    outside_storage: "in another file", virtual: "in another file", strings: "has dtype object",
    references: "has dtype object", ragged: "has dtype object", compound: "has dtype", nothing: "has dtype float32",
    never_written: "but the file has 0 bytes", missing_chunks: "but the file has 400 bytes",
    missing_all: "but the file has 0 bytes", circular: "nested deeper",
}  # fmt: skip


@pytest.mark.parametrize("plant", HARM, ids=lambda plant: plant.__name__)
def test_what_hdf5_could_harm_with_is_refused(plant, tmp_path):
    path = hdf5(tmp_path / "x.h5", rewards=None)
    with h5py.File(path, "a") as file:
        plant(file, tmp_path)
    refused(path, HARM[plant])


def test_honest_compression_is_read(tmp_path):
    path = hdf5(tmp_path / "x.h5", rewards=None)
    with h5py.File(path, "a") as file:
        file.create_dataset("rewards", data=COLUMNS["rewards"], chunks=(2,), compression="gzip")
    assert dataset.read_dataset(path).digest == dataset.from_columns(dict(COLUMNS)).digest


def test_minari_episodes_of_unequal_columns_are_refused(tmp_path):
    whole = episode(0, 3, terminated=True)
    refused(minari(tmp_path / "a", [whole | {"observations": np.zeros((3, 1))}]), "3 rewards need 4 observations")
    refused(minari(tmp_path / "b", [whole | {"terminations": np.zeros(2, bool)}]), "terminals must be one truth value")
    del whole["truncations"]
    refused(minari(tmp_path / "c", [whole]), "has no 'truncations'")
