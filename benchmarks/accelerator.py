"""Whether an accelerator computes what the CPU does, and how fast: `python benchmarks/accelerator.py {check,rates}`.

`check` trains every algorithm for a few updates on both, with the same seed, and compares the floats of its state.
`rates` times compiled environments, SAC's update and what is learned from recorded data, beside d3rlpy on the same
device where `$DUOLOGUE_PEERS` has it. Both print the lines of a table, and append them to `--out`.
"""

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import ours
import recorded
import updates
from rich.console import Console
from speed import PEERS

import duologue as dl

SMALL = dl.Networks(hidden_sizes=(32, 32))
REPLAY: dict[str, Any] = {"start_steps": 20, "learning_starts": 20, "batch_size": 16}
ONLINE: dict[str, tuple[Any, dict[str, Any]]] = {
    "A2C": (dl.A2C(), {"env": "gymnax/CartPole-v1", "steps": 200}),
    "PPO": (
        dl.PPO(num_envs=4, rollout_length=32, minibatch_size=32, epochs=2), {"env": "gymnax/CartPole-v1", "steps": 256}
    ),
    "TRPO": (dl.TRPO(num_envs=4, rollout_length=32), {"env": "gymnax/CartPole-v1", "steps": 256}),
    "ACER": (dl.ACER(learning_starts=40, num_envs=2, batch_size=2), {"env": "gymnax/CartPole-v1", "steps": 200}),
    "ACERContinuous": (
        dl.ACERContinuous(learning_starts=40, num_envs=2, batch_size=2), {"env": "gymnax/Pendulum-v1", "steps": 200}
    ),
    "SAC, host": (dl.SAC(**REPLAY), {"env": "Pendulum-v1", "steps": 30}),
    "SAC, compiled": (dl.SAC(**REPLAY), {"env": "gymnax/Pendulum-v1", "steps": 30}),
    "SACX": (
        dl.SACX(learning_starts=60, batch_size=4), {"env": "LunarLander-v3", "tasks": "lunar-lander", "steps": 80}
    ),
}  # fmt: skip
"""What acts."""
CONTINUOUS = (
    dl.SAC(), dl.SACv1(), dl.TD3(), dl.DDPG(), dl.BEAR(networks=SMALL, vae_networks=SMALL, warm_start=2),
    dl.BCQ(networks=SMALL, vae_networks=SMALL), dl.CQL(), dl.IQL(), dl.TD3BC(), dl.BC(),
)  # fmt: skip
DISCRETE = (dl.SACDiscrete(), dl.BCQDiscrete())
"""What learns from recorded data here."""
UPDATES = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("check", "rates"))
    parser.add_argument("--only", nargs="+", help="algorithms to check; by default all")
    parser.add_argument("--out", type=Path, help="a file for the lines")
    options = parser.parse_args()
    device = jax.devices()[0].device_kind
    for line in check(options.only) if options.what == "check" else rates():
        text = f"| {' | '.join((*line, device))} |"
        print(text, flush=True)
        if options.out is not None:
            with options.out.open("a") as file:
                file.write(text + "\n")


def check(only: list[str] | None) -> Iterator[tuple[str, str]]:
    """Each algorithm, and by how much the state differs: the norm of the difference over the norm."""
    jax.config.update("jax_default_matmul_precision", "highest")
    columns, learners = recorded.columns(), dict(ONLINE)
    chosen = columns | {"actions": np.arange(recorded.ROWS) % 3}
    for data, algorithms in ((columns, CONTINUOUS), (chosen, DISCRETE)):
        known = {"dataset": dl.from_columns(data), "steps": UPDATES}
        learners |= {f"{type(algorithm).__name__}, data": (algorithm, known) for algorithm in algorithms}
    for name, (algorithm, options) in learners.items():
        if only is None or name.split(",")[0] in only:
            states = [learned(algorithm, options, device) for device in (jax.devices("cpu")[0], jax.devices()[0])]
            yield name, f"{difference(*states):.1e}"


def learned(algorithm: Any, options: dict[str, Any], device: Any) -> list[np.ndarray]:
    """All floats of the state after a short training on `device`."""
    with tempfile.TemporaryDirectory() as folder, jax.default_device(device):
        run = dl.train(algorithm, **options, run_dir=Path(folder) / "run", console=Console(file=io.StringIO()))
    return [np.ravel(x) for x in jax.tree.leaves(run.state) if jax.numpy.issubdtype(x.dtype, np.floating)]


def difference(one: list[np.ndarray], other: list[np.ndarray]) -> float:
    first, second = np.concatenate(one), np.concatenate(other)
    return float(np.linalg.norm(first - second) / np.linalg.norm(second))


def rates() -> Iterator[tuple[str, str, str]]:
    """Each case, ours a second, and d3rlpy's."""
    for name in recorded.PEERS:
        theirs = f"{d3rlpy(name):,.0f} updates/s" if "DUOLOGUE_PEERS" in os.environ else ""
        for seeds in (1, 4):
            asked = Namespace(algorithm=name, steps=12_000, seeds=seeds, devices=1, own=False)
            found = recorded.ours(asked)["steps_per_second"]
            yield f"{name}, recorded data, {seeds} seeds", f"{found:,.0f} updates/s", theirs if seeds == 1 else ""
    timer = updates.timer(32, 1_000_000)
    found = [timer(60) for _ in range(5)]
    yield (
        "SAC's update, 32 a call",
        f"{statistics.median(found):,.0f} [{min(found):,.0f}–{max(found):,.0f}] updates/s",
        "",
    )
    for algorithm, steps in (("a2c", 3_000_000), ("ppo", 50 * 8 * 2048)):
        for seeds in (1, 16, 256):
            asked = Namespace(
                algorithm=algorithm, env="gymnax/CartPole-v1", steps=steps // (10 if seeds > 16 else 1), seeds=seeds,
                turns=1, devices=1, updates=1, core=None,
            )  # fmt: skip
            found = ours.measure(asked)
            yield (
                f"{algorithm.upper()}, compiled CartPole, {seeds} seeds",
                f"{found['steps_per_second']:,.0f} steps/s",
                "",
            )


def d3rlpy(name: str) -> float:
    """Its updates a second in a process of its own."""
    orders = ["--library", "d3rlpy", "--algorithm", name, "--steps", "400"]
    command = [PEERS, Path(recorded.__file__), *orders]
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    if said.returncode:
        print(said.stderr[-500:], file=sys.stderr)
        return float("nan")
    return json.loads(said.stdout.splitlines()[-1])["steps_per_second"]


if __name__ == "__main__":
    main()
