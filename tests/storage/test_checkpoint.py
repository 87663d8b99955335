"""Checkpoints: exact, whole after any crash, and never silent about damage. Run as a script, this file is the crash."""

import errno
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import safetensors.numpy

from duologue.errors import CheckpointError
from duologue.storage import checkpoint, files

ROOT = Path(__file__).parents[2]


class Inner(eqx.Module):
    weight: jax.Array
    name: str = eqx.field(static=True)


class Pair(eqx.Module):
    net: Any
    nets: Any


def state(seed: float = 0.0) -> dict[str, Any]:
    weight = jnp.arange(6, dtype=jnp.float32).reshape(2, 3) + seed
    return {
        "net": Inner(weight, "inner"),
        "optimizer": optax.adam(1e-3).init({"w": weight}),
        "nothing": None,
        "keys": jax.random.split(jax.random.key(1), 3),
        "rbg": jax.random.key(2, impl="rbg"),
        "half": jnp.asarray([1.5, -2.25], jnp.bfloat16),
        "flags": (jnp.asarray(True), jnp.zeros((0, 4), jnp.uint8)),
        "host": [np.asfortranarray(np.arange(6.0).reshape(2, 3)), np.asarray(2**63, np.uint64)],
    }


def assert_same(a: Any, b: Any) -> None:
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert type(x) is type(y) and x.dtype == y.dtype and x.shape == y.shape
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            x, y = jax.random.key_data(x), jax.random.key_data(y)
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


def plain(step: int) -> dict[str, np.ndarray]:
    """A state that needs no JAX."""
    return {"w": np.arange(40, dtype=np.float32) + step, "step": np.asarray(step)}


def steps(directory: Path) -> list[int]:
    return sorted(int(name.removeprefix("step-")) for name in os.listdir(directory))


def test_every_kind_of_leaf_comes_back(tmp_path):
    before = state()
    path = checkpoint.save_tree(tmp_path, 12345, before, info={"score": 1.5})
    assert path.name == "step-000000012345"
    assert_same(checkpoint.load_tree(path, state(9.0)), before)
    assert checkpoint.read_manifest(path).info == {"score": 1.5}
    assert checkpoint.fingerprint_changes(checkpoint.read_manifest(path)) == []


def test_shapes_alone_are_enough_to_load(tmp_path):
    before = {"key": jax.random.key(3), "w": jnp.ones((2, 2))}
    path = checkpoint.save_tree(tmp_path, 1, before, info={})
    assert_same(checkpoint.load_tree(path, jax.eval_shape(lambda: before)), before)


def test_a_part_is_loaded_alone(tmp_path):
    before = Pair(state(), {"other": jnp.zeros(1)})
    path = checkpoint.save_tree(tmp_path, 1, before, info={})
    assert_same(checkpoint.load_tree(path, state(9.0), part=".net"), before.net)
    assert_same(checkpoint.load_tree(path, {"other": jnp.ones(1)}, part=".nets"), before.nets)
    with pytest.raises(CheckpointError, match=r"\['other'\] \(absent in the checkpoint"):
        checkpoint.load_tree(path, {"other": jnp.ones(1)}, part=".ne")


@pytest.mark.parametrize("tree", [{}, None, np.arange(3)])
def test_degenerate_trees(tmp_path, tree):
    assert_same(checkpoint.load_tree(checkpoint.save_tree(tmp_path, 1, tree, info={}), tree), tree)


def test_another_structure_is_refused_by_name(tmp_path):
    tree = {"a": jnp.zeros(3), "b": jnp.zeros(3), "c": jnp.zeros((2, 1)), "key": jax.random.key(0), "same": jnp.ones(1)}
    path = checkpoint.save_tree(tmp_path, 1, tree, info={})
    like = {
        "a": jnp.zeros(3, jnp.int32), "c": jnp.zeros((1, 2)), "key": jax.random.key(0, impl="rbg"),
        "new": jnp.zeros(()), "same": jnp.ones(1),
    }  # fmt: skip
    with pytest.raises(CheckpointError) as caught:
        checkpoint.load_tree(path, like)
    message = str(caught.value)
    assert "5 leaves differ" in message and "['same']" not in message
    for part in (
        "['a'] (float32[3] in the checkpoint, int32[3] in this run)", "['b'] (float32[3] in the checkpoint, absent",
        "['c'] (float32[2, 1] in the checkpoint, float32[1, 2]", "['key'] (key<fry>[]", "['new'] (absent in",
    ):  # fmt: skip
        assert part in message


def test_64_bits_are_never_narrowed(tmp_path):
    path = checkpoint.save_tree(tmp_path, 1, {"x": np.ones(1)}, info={})
    with pytest.raises(CheckpointError, match="float64"):
        checkpoint.load_tree(path, {"x": jax.ShapeDtypeStruct((1,), np.float64)})


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_kept_apart(tmp_path, bad):
    good = checkpoint.save_tree(tmp_path, 1, state(), info={})
    with pytest.raises(CheckpointError, match=r"step 2 in \['half'\], \['net'\]\.weight\. .*post-mortem-000000000002"):
        checkpoint.save_tree(tmp_path, 2, state(bad) | {"half": jnp.asarray([bad, 0], jnp.bfloat16)}, info={})
    assert checkpoint.find_latest(tmp_path) == (good, [])
    loaded = checkpoint.load_tree(tmp_path / "post-mortem-000000000002", state())
    assert not np.isfinite(loaded["net"].weight).any()
    tree = {"learner": jnp.ones(1), "env": jnp.asarray([bad])}
    assert checkpoint.save_tree(tmp_path, 3, tree, info={}, check=tree["learner"]).name == "step-000000000003"


def test_a_valid_checkpoint_stays_and_a_damaged_one_is_written_anew(tmp_path):
    path = checkpoint.save_tree(tmp_path, 1, plain(1), info={"first": True})
    assert checkpoint.save_tree(tmp_path, 1, plain(1), info={"first": False}) == path
    assert checkpoint.read_manifest(path).info == {"first": True}
    (path / checkpoint.STATE).unlink()
    checkpoint.save_tree(tmp_path, 1, plain(1), info={"first": False})
    assert checkpoint.verify(path) is None and checkpoint.read_manifest(path).info == {"first": False}


def test_damage_is_passed_over_with_a_warning_never_in_silence(tmp_path):
    paths = [checkpoint.save_tree(tmp_path, step, plain(step), info={}) for step in (1, 2, 3)]
    (paths[2] / checkpoint.MANIFEST).unlink()
    path, found = checkpoint.find_latest(tmp_path)
    assert path == paths[1]
    assert len(found) == 1 and "step-000000000003" in found[0] and "manifest.json" in found[0]
    for path in paths:
        (path / checkpoint.STATE).write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"no checkpoint that can be loaded.*0 bytes"):
        checkpoint.find_latest(tmp_path)
    with pytest.raises(CheckpointError, match="no checkpoint"):
        checkpoint.find_latest(tmp_path / "none")


def test_prune_counts_only_what_is_whole(tmp_path):
    for step in (1, 2, 3, 4):
        checkpoint.save_tree(tmp_path, step, plain(step), info={})
    (tmp_path / "step-000000000003" / checkpoint.STATE).write_bytes(b"x")
    (tmp_path / "step-000000000009").mkdir()
    checkpoint.prune(tmp_path, keep=2)
    assert steps(tmp_path) == [2, 3, 4, 9]
    checkpoint.prune(tmp_path, keep=1)
    assert steps(tmp_path) == [4, 9]


def test_every_truncation_and_every_flipped_bit_is_detected(tmp_path):
    path = checkpoint.save_tree(tmp_path, 1, state(), info={"score": 1.25, "name": "é"})
    draw = random.Random(0)
    for name in (checkpoint.STATE, checkpoint.MANIFEST):
        file, data = path / name, (path / name).read_bytes()
        for offset in draw.sample(range(len(data)), min(200, len(data))):
            file.write_bytes(data[:offset])
            assert checkpoint.verify(path), f"{name} cut at {offset}"
        for _ in range(500):
            at = draw.randrange(8 * len(data))
            flipped = bytearray(data)
            flipped[at // 8] ^= 1 << at % 8
            file.write_bytes(flipped)
            assert checkpoint.verify(path), f"{name}: bit {at}"
        file.write_bytes(data + b"\n")
        assert checkpoint.verify(path)
        file.write_bytes(data)
    assert checkpoint.verify(path) is None


def test_foreign_entries_are_refused(tmp_path):
    path = checkpoint.save_tree(tmp_path / "a", 1, plain(1), info={})
    (path / "extra").write_text("")
    assert checkpoint.verify(path) == "extra does not belong"
    (path / "extra").unlink()
    (path / checkpoint.STATE).rename(tmp_path / "elsewhere")
    assert checkpoint.verify(path) == "state.safetensors is missing"
    (path / checkpoint.STATE).symlink_to(tmp_path / "elsewhere")
    assert checkpoint.verify(path) == "state.safetensors is not a plain file"
    (path / checkpoint.STATE).unlink()
    os.mkfifo(path / checkpoint.STATE)
    assert checkpoint.verify(path) == "state.safetensors is not a plain file"
    (tmp_path / "step-000000000002").symlink_to(path)
    assert checkpoint.verify(tmp_path / "step-000000000002") == "it is not a folder"
    with pytest.raises(CheckpointError, match="not a plain file"):
        checkpoint.load_tree(path, plain(1))


def forge(path: Path, **changes: Any) -> None:
    """A manifest that its own hash agrees with."""
    content = json.loads((path / checkpoint.MANIFEST).read_text())
    del content["sha256"]
    (path / checkpoint.MANIFEST).write_text(checkpoint._seal(content | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": 2}, "format version 2"), ({"schema": None}, "format version None"), ({"step": "1"}, "fields"),
        ({"more": 1}, "fields"), ({"files": {}}, "fields"), ({"files": {"../x": {"size": 0, "sha256": ""}}}, "fields"),
        ({"files": {checkpoint.STATE: {}}}, "fields"), ({"keys": {"['w']": 3}}, "fields"),
        ({"files": {checkpoint.STATE: {"size": "0", "sha256": None}}}, "fields"),
        ({"keys": {"['w']": "os.system"}}, "PRNG keys"), ({"keys": {"absent": "rbg"}}, "PRNG keys"),
    ],
)  # fmt: skip
def test_a_forged_manifest_is_refused(tmp_path, changes, message):
    path = checkpoint.save_tree(tmp_path, 1, plain(1), info={})
    forge(path, **changes)
    with pytest.raises(CheckpointError, match=message):
        checkpoint.load_tree(path, plain(1))


def test_another_machine_is_told_apart(tmp_path):
    path = checkpoint.save_tree(tmp_path, 1, plain(1), info={})
    manifest = checkpoint.read_manifest(path)
    forge(path, fingerprint=manifest.fingerprint | {"jaxlib": "0.0.1"})
    (change,) = checkpoint.fingerprint_changes(checkpoint.read_manifest(path))
    assert change.startswith("jaxlib: 0.0.1 then, ")
    assert_same(checkpoint.load_tree(path, plain(0)), plain(1))


class Faulty:
    """Stands for `os` or `shutil` in `files`: calls `fault(name, arguments)` before each operation that changes a
    disk."""

    CHANGES = frozenset({"open", "write", "fsync", "replace", "rename", "mkdir", "unlink", "rmtree", "save_file"})

    def __init__(self, module: Any, fault: Callable[[str, tuple], None]):
        self._module, self._fault = module, fault

    def __getattr__(self, name: str) -> Any:
        function = getattr(self._module, name)
        if name not in self.CHANGES:
            return function

        def call(*args: Any, **kwargs: Any) -> Any:
            self._fault(name, args)
            return function(*args, **kwargs)

        return call


def arm(fault: Callable[[str, tuple], None], set_attribute: Callable[[Any, str, Any], None] = setattr) -> None:
    set_attribute(files, "os", Faulty(os, fault))
    set_attribute(files, "shutil", Faulty(shutil, fault))
    set_attribute(safetensors.numpy, "save_file", Faulty(safetensors.numpy, fault).save_file)


def do_half(name: str, args: tuple) -> None:
    """What a crash in the middle of an operation leaves."""
    if name == "write":
        os.write(args[0], args[1][: len(args[1]) // 2])
    elif name == "save_file":
        whole = safetensors.numpy.save(args[0])
        args[1].write_bytes(whole[: len(whole) // 2])
    elif name == "rmtree":
        next(iter(args[0].iterdir())).unlink()


def save_once(directory: Path) -> None:
    """What is crashed: a configuration and a third checkpoint, the first removed."""
    files.write_json(directory.parent / "config.json", {"version": "new"})
    checkpoint.save_tree(directory, 3, plain(3), info={})
    checkpoint.prune(directory, keep=2)


def prepare(directory: Path) -> None:
    files.make_folder(directory)
    files.write_json(directory.parent / "config.json", {"version": "old"})
    for step in (1, 2):
        checkpoint.save_tree(directory, step, plain(step), info={})


def die_at_every_operation(root: Path) -> None:
    """Child k of this process kills itself in its k-th operation; the first that lives to the end is the last."""
    warnings.simplefilter("ignore", RuntimeWarning)  # of JAX, about threads that this process does not have yet
    for k in itertools.count():
        directory = root / str(k) / "checkpoints"
        shutil.copytree(root / "prepared", root / str(k))
        pid = os.fork()
        if pid == 0:
            count = itertools.count()

            def fault(name: str, args: tuple, k: int = k, count: Any = count) -> None:
                if next(count) == k:
                    do_half(name, args)
                    os.kill(os.getpid(), signal.SIGKILL)

            arm(fault)
            save_once(directory)
            os._exit(0)
        if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != -signal.SIGKILL:
            return


def test_sigkill_in_every_file_operation_leaves_a_whole_checkpoint(tmp_path):
    prepare(tmp_path / "prepared" / "checkpoints")
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}", "JAX_PLATFORMS": "cpu"}
    subprocess.run([sys.executable, __file__, str(tmp_path)], check=True, env=environment, timeout=60)
    runs = [tmp_path / str(k) for k in range(len(os.listdir(tmp_path)) - 1)]
    assert len(runs) > 25
    found = []
    for run in runs:
        directory = run / "checkpoints"
        path, damaged = checkpoint.find_latest(directory)
        assert damaged == []  # nothing half written bears the name of a checkpoint
        found.append(checkpoint.read_manifest(path).step)
        assert_same(checkpoint.load_tree(path, plain(0)), plain(found[-1]))
        assert files.read_json(run / "config.json")["version"] in ("old", "new")
        assert len([name for name in os.listdir(directory) if checkpoint.STEP_NAME.fullmatch(name)]) >= 2
        save_once(directory)  # and the next process goes on, and cleans up
        assert steps(directory) == [2, 3]
    assert found == sorted(found) and set(found) == {2, 3}


def test_a_full_disk_is_an_error_and_costs_nothing(tmp_path, monkeypatch):
    prepare(tmp_path / "prepared" / "checkpoints")
    for k in itertools.count():
        count, raised = itertools.count(), []

        def fault(name: str, args: tuple, k: int = k, count: Any = count, raised: list = raised) -> None:
            if next(count) == k:
                raised.append(name)
                raise OSError(errno.ENOSPC, "No space left on device")

        directory = tmp_path / str(k) / "checkpoints"
        shutil.copytree(tmp_path / "prepared", tmp_path / str(k))
        with monkeypatch.context() as patch:
            arm(fault, patch.setattr)
            try:
                save_once(directory)
                assert raised in ([], ["unlink"])
            except CheckpointError as error:
                assert "No space left" in str(error)
        step = checkpoint.read_manifest(checkpoint.find_latest(directory)[0]).step
        assert step in (2, 3)
        if not raised:
            break
        save_once(directory)
        assert steps(directory) == [2, 3]
    assert k > 25


def test_what_a_power_cut_would_lose_is_never_relied_on(tmp_path, monkeypatch):
    """Everything in the folder is durable before it gets its name, and the name before anything older goes."""
    directory = tmp_path / "checkpoints"
    prepare(directory)
    log: list[tuple[str, str]] = []

    def note(name: str, args: tuple) -> None:
        if name == "fsync":
            log.append((name, Path(os.readlink(f"/proc/self/fd/{args[0]}")).name.partition(".tmp-")[0]))
        elif name in ("rename", "replace", "rmtree"):
            log.append((name, Path(args[0]).name.partition(".tmp-")[0]))

    arm(note, monkeypatch.setattr)
    save_once(directory)
    assert log[:3] == [("fsync", "config.json"), ("replace", "config.json"), ("fsync", tmp_path.name)]
    new, old = "step-000000000003", "step-000000000001"
    commit = log.index(("rename", new))
    assert log[commit - 3 : commit + 2] == [
        ("fsync", "manifest.json"), ("fsync", "state.safetensors"), ("fsync", new), ("rename", new),
        ("fsync", "checkpoints"),
    ]  # fmt: skip
    assert log[commit + 2 :] == [("rename", old), ("fsync", "checkpoints"), ("rmtree", old)]


if __name__ == "__main__":
    die_at_every_operation(Path(sys.argv[1]))
