"""Settings of JAX before its first use of a device: threads by the size of the products, and what stays as it is."""

import json
import os
import subprocess
import sys

import pytest

import duologue as dl
from duologue.envs.probe import ProbeEnvs
from duologue.runs.jax_setup import has_images, images_in_name, is_small
from duologue.types import Box, Dict

SMALL = dl.Networks(hidden_sizes=(8,))
SHOW = """
import io, json, os, sys
import jax
from rich.console import Console
import duologue as dl
networks, said = dl.Networks(hidden_sizes=(8,)), io.StringIO()
console = Console(file=said, width=1000)
"""
REPORT = """
found = {"NPROC": os.environ.get("NPROC"), "said": said.getvalue(), "devices": jax.config.jax_num_cpu_devices}
print(json.dumps(found | {"asynchronous": jax.config.read("jax_cpu_enable_async_dispatch")}))
"""


class Own(dl.AbstractNetworks):
    """Networks of unknown size."""


@pytest.mark.parametrize(
    ("algorithm", "small"),
    [
        (dl.A2C(), True),  # 40 rows × 64 × 64
        (dl.Normalized(dl.PPO()), True),  # 64 rows of a minibatch × 64 × 64
        (dl.PPO(minibatch_size=1024, rollout_length=1024), False),
        (dl.SAC(), False),  # 256 rows × 256 × 256
        (dl.SAC(networks=SMALL), True),
        (dl.A2C(networks=Own()), False),
    ],
)
def test_products_are_small_by_rows_and_widths(algorithm, small, unchecked):
    assert is_small(algorithm) is small


def test_images_are_known_by_their_axes_or_the_name():
    image, vector = Box((84, 84, 4), "uint8"), Box((3,))
    assert has_images(image) and has_images(Dict({"a": vector, "b": image})) and not has_images(vector)
    assert has_images(Box((84, 84), "uint8")) and has_images(Box((4, 9, 9, 3))) and not has_images(Box((2, 2, 3)))
    assert images_in_name("ALE/Pong-v5") and images_in_name("gymnax/Breakout-MinAtar")
    assert not images_in_name("CartPole-v1") and not images_in_name(ProbeEnvs("both", 1)) and not images_in_name(None)


def reported(lines, tmp_path, **environment):
    """The settings of a new process after these lines."""
    script = SHOW + "\n".join(lines) + REPORT
    kept = {name: value for name, value in os.environ.items() if name != "NPROC"}
    process = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path,
        env={**kept, "DUOLOGUE_CACHE": "", **environment},
    )  # fmt: skip
    return json.loads(process.stdout.splitlines()[-1])


def run(algorithm, env, path, options=""):
    return f"dl.train(dl.{algorithm}, {env!r}, steps=8, run_dir={path!r}, console=console{options})"


SMALL_RUN = run("A2C(networks=networks)", "probe/both", "small")
LARGE_RUN = run("SAC(learning_starts=100)", "probe/action-continuous", "large")


def test_one_thread_for_small_products_and_a_note_for_a_larger_run_later(tmp_path):
    found = reported([SMALL_RUN, "assert 'thread' not in said.getvalue()", LARGE_RUN], tmp_path)
    assert found["NPROC"] == "1" and found["asynchronous"] is False
    assert "JAX has one thread in this process, chosen for a smaller run" in found["said"]
    made = [json.loads((tmp_path / name / "versions.json").read_text())["threads"] for name in ("small", "large")]
    assert made == [1, 1]


def test_large_products_keep_all_threads(tmp_path):
    found = reported([LARGE_RUN, SMALL_RUN], tmp_path)
    assert found["NPROC"] is None and found["asynchronous"] is True and "one thread" not in found["said"]


@pytest.mark.parametrize("seeds", [1, 2])
def test_what_the_user_has_set_stays(tmp_path, seeds):
    small = run("A2C(networks=networks)", "probe/both", "r", f", seeds={seeds}")
    found = reported(["jax.config.update('jax_num_cpu_devices', 1)", small], tmp_path, NPROC="2")
    assert found["NPROC"] == "2" and found["devices"] == 1


def test_nothing_changes_once_jax_has_used_a_device(tmp_path):
    assert reported(["jax.devices()", SMALL_RUN], tmp_path)["NPROC"] is None
