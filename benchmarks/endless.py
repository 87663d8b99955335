"""What a million steps of environments that never end cost: `python benchmarks/endless.py [STEPS]`.

A2C acts in four of them. At every row of metrics the script notes the memory of the process, its open files, the live
arrays of JAX, and the size of the newest checkpoint. Then it resumes runs of three lengths, and counts the steps that
are replayed. It writes `benchmarks/results/endless.json` and draws `docs/figures/endless.png`. It takes about two
minutes on one core. Run it alone on the machine.
"""

import io
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import gymnasium as gym
import jax
import matplotlib as mpl
import numpy as np
from rich.console import Console

import duologue as dl
from duologue.envs.base import REPLAY_LIMIT

ROOT = Path(__file__).parent.parent
RESULTS, FIGURE = ROOT / "benchmarks" / "results" / "endless.json", ROOT / "docs" / "figures" / "endless.png"
ENVS, ROWS = 4, 100
ALGORITHM = dl.A2C(networks=dl.Networks(hidden_sizes=(32,)), num_envs=ENVS, rollout_length=16)
LINES = {
    "memory": "memory of the process, MiB",
    "files": "open files",
    "arrays": "live arrays of JAX",
    "checkpoint": "newest checkpoint, KiB",
}
"""What is noted, and the titles of its pictures."""


class Drone(gym.Env):
    """A point that is pushed against the wind and never comes to rest. All copies together count their steps."""

    observation_space, action_space = gym.spaces.Box(-10, 10, (4,)), gym.spaces.Box(-1, 1, (2,))
    steps = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.state = self.np_random.normal(size=4).astype(np.float32)
        return self.state.copy(), {}

    def step(self, action):
        Drone.steps += 1
        self.state[2:] = 0.9 * self.state[2:] + 0.1 * action
        self.state[:2] = np.clip(self.state[:2] + 0.1 * self.state[2:] + 0.01, -10, 10)
        return self.state.copy(), -float(np.abs(self.state[:2]).sum()), False, False, {}


def quiet() -> Console:
    return Console(file=io.StringIO())


def note(path: Path) -> dict[str, float | None]:
    """The quantities of `LINES` now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    saved = sorted((path / "checkpoints" / "latest").glob("step-*/state.safetensors"))
    return {
        "memory": pages * os.sysconf("SC_PAGE_SIZE") / 2**20,
        "files": len(os.listdir("/proc/self/fd")),
        "arrays": len(jax.live_arrays()),
        "checkpoint": saved[-1].stat().st_size / 2**10 if saved else None,
    }


def train(steps: int, path: Path) -> list[dict[str, Any]]:
    """Train for so many environment steps. Returns a note for each row."""
    notes: list[dict[str, Any]] = []
    every = steps // ROWS
    dl.train(
        ALGORITHM, Drone, steps=steps, run_dir=path, log_every=every, save_every=every, console=quiet(),
        callbacks=[lambda step, row: notes.append({"step": step, **note(path)})],
    )  # fmt: skip
    return notes


def resume(path: Path, steps: int) -> dict[str, Any]:
    """Continue a run of so many steps by one rollout. Returns the steps that were replayed, the time and the grade."""
    more, Drone.steps, began = ENVS * ALGORITHM.rollout_length, 0, time.perf_counter()
    console = Console(file=(out := io.StringIO()))
    run = dl.resume(path, steps=steps + more, env=Drone, console=console)
    assert isinstance(run, dl.Run)
    said = next(line for line in out.getvalue().splitlines() if line.startswith("environments: "))
    grade = "exact" if said.startswith("environments: exact") else "after reset"
    seconds = time.perf_counter() - began
    return {"steps": steps, "replayed": Drone.steps - (run.step - steps), "seconds": seconds, "grade": grade}


def draw(notes: list[dict[str, Any]], figure: Path) -> None:
    """One picture for each line, over environment steps."""
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(2, 2, figsize=(8, 4.5), sharex=True, constrained_layout=True)
    for ax, (name, title) in zip(axes.flat, LINES.items(), strict=True):
        known = [(each["step"] / 1000, each[name]) for each in notes if each[name] is not None]
        ax.plot(*zip(*known, strict=True), color="#1f6fb4")
        ax.axvline(ENVS * REPLAY_LIMIT / 1000, color="#999999", linewidth=0.8, linestyle="--")
        ax.set_title(title, fontsize=10, loc="left")
        ax.set_ylim(0, 1.15 * max(value for _, value in known))
        ax.spines[["top", "right"]].set_visible(False)
    fig.supxlabel("thousand environment steps (dashed: all episodes pass the limit of replays)", fontsize=9)
    fig.savefig(figure, dpi=120)


def main(steps: int) -> None:
    """Measure, print, write the results and draw them."""
    with tempfile.TemporaryDirectory() as folder:
        paths = {count: Path(folder) / str(count) for count in (steps // 100, steps // 10, steps)}
        seconds = time.perf_counter()
        notes = [train(count, path) for count, path in paths.items()][-1]
        seconds = time.perf_counter() - seconds
        resumed = [resume(path, whole(count)) for count, path in paths.items()]
    RESULTS.write_text(json.dumps({"seconds": seconds, "resumed": resumed, "notes": notes}, indent=1) + "\n")
    draw(notes, FIGURE)
    for name, title in LINES.items():
        values = [each[name] for each in notes if each[name] is not None]
        print(f"{title}: {values[0]:.1f} first, {max(values):.1f} most, {values[-1]:.1f} last")
    print(*resumed, f"{seconds:.0f} s", sep="\n")


def whole(steps: int) -> int:
    """Steps rounded up to whole rollouts."""
    unit = ENVS * ALGORITHM.rollout_length
    return -(-steps // unit) * unit


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
