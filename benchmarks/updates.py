"""SAC's update alone, on HalfCheetah's sizes: `python benchmarks/updates.py [--rounds 12]`.

Updates a second through `loops/learning.learn`, with K updates a call with rings of ten thousand and a million rows,
beside the limit that `products.py` times in the same process; and with options of XLA, each in a process of its own.
The cases take turns.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import products
import recorded
from report import HERE, circumstances
from speed import PEERS

import duologue as dl
from duologue.data import ring as rings
from duologue.loops import learning, replay_ring
from duologue.types import Box, EnvSpec, Transition

OBS, ACTION = 17, 6
SPEC = EnvSpec(
    "sizes of HalfCheetah-v5", Box((OBS,), "float32"), Box((ACTION,), "float32", (-1.0,) * ACTION, (1.0,) * ACTION)
)
CALLS = 240
"""Updates of one timing."""
FLAGS = (
    "", "--xla_cpu_multi_thread_eigen=false", "--xla_cpu_prefer_vector_width=512", "--xla_cpu_enable_fast_math=true",
    "--xla_cpu_use_xnnpack=true", "--xla_cpu_experimental_onednn_custom_call=true",
    "--xla_cpu_enable_concurrency_optimized_scheduler=false", "--xla_cpu_use_fusion_emitters=false",
    "--xla_backend_optimization_level=1",
)  # fmt: skip
"""Of XLA, one at a time."""
TORCH = """
import json, time, torch
torch.set_num_threads(2)
def best(members, rows, inner, columns):
    x, w = torch.ones(members, rows, inner), torch.ones(members, inner, columns)
    x, w = (x[0], w[0]) if members == 1 else (x, w)
    times = []
    for _ in range(20):
        began = time.perf_counter()
        for _ in range(100):
            x @ w
        times.append(time.perf_counter() - began)
    return min(times) / 100
print(json.dumps([best(*shape) for shape in json.loads(SHAPES)]))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--flags-alone", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.flags_alone:
        run = timer(8, 1_000_000)
        print(max(run() for _ in range(3)))
        return
    cases = {
        **{f"K = {k}, a million rows": timer(k, 1_000_000) for k in (32, 8, 2)},
        "K = 1, ten thousand rows": timer(1, 10_000),
        "K = 1, a million rows": timer(1, 1_000_000),
    }
    rates = {name: [] for name in cases}
    for _ in range(options.rounds):
        for name, run in cases.items():
            rates[name].append(run())
    lines = [*report(rates), *with_flags(3)]
    print("\n".join(lines))
    made = circumstances([])
    page = [
        HEAD,
        *(f"* {line}" for line in lines),
        "",
        f"Made {made['date']} at {made['commit']} on {made['machine']}.",
    ]
    (HERE / "UPDATES.md").write_text("\n".join(page) + "\n")


HEAD = """\
# The update of SAC alone

`python benchmarks/updates.py`

Sizes of HalfCheetah-v5, batches of 256, networks of 256-256. Medians over rounds, with the smallest and the largest;
the cases take turns. The limit is the sum, over the matrix products of an update, of the best of 20 timings of that one
alone, same shapes, same flags, same process. Options of XLA are ratios to none within a round, each a process of its
own.
"""


def report(rates: dict[str, list[float]]) -> list[str]:
    """What was measured, line by line."""
    needed = products.of_update(dl.SAC(), dl.from_columns(recorded.columns()))
    limit, flops = 1 / products.seconds(needed), sum(product.flops for product in needed)
    lines = [f"limit: {limit:,.0f} updates/s, {flops / 1e9:.2f} GFLOP each, {flops * limit / 1e9:,.0f} GFLOP/s"]
    for name, found in rates.items():
        middle, spread = statistics.median(found), f"[{min(found):,.0f}–{max(found):,.0f}]"
        lines.append(f"{name}: {middle:,.0f} updates/s {spread}, {middle / limit:.0%} of the limit")
    both = zip(rates["K = 1, ten thousand rows"], rates["K = 1, a million rows"], strict=True)
    dearer = [small / large - 1 for small, large in both]
    spread = f"[{min(dearer):+.1%}, {max(dearer):+.1%}]"
    lines.append(f"a million rows cost {statistics.median(dearer):+.1%} {spread} more an update than ten thousand")
    if PEERS.exists():
        torch = 1 / torch_seconds(needed)
        lines.append(f"the same products alone in PyTorch: {torch:,.0f} updates/s, {flops * torch / 1e9:,.0f} GFLOP/s")
    return lines


def with_flags(rounds: int) -> list[str]:
    """What each option of XLA makes of 8 updates a call, as a ratio to none within a round; a process each."""

    def rate(flag: str) -> float | None:
        flags = {"XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flag}".strip()}
        command = [sys.executable, __file__, "--flags-alone"]
        done = subprocess.run(command, env=os.environ | flags, capture_output=True, text=True, check=False)
        return float(done.stdout.splitlines()[-1]) if done.returncode == 0 else None

    found = [{flag: rate(flag) for flag in FLAGS} for _ in range(rounds)]
    lines = []
    for flag in FLAGS[1:]:
        ratios = [now / (each[""] or 1) for each in found if (now := each[flag]) is not None]
        said = f"× {statistics.median(ratios):.2f} [{min(ratios):.2f}–{max(ratios):.2f}]" if ratios else "refused"
        lines.append(f"`{flag}`, 8 updates a call: {said}")
    return lines


def timer(k: int, rows: int) -> Callable[[], float]:
    """A function that makes some calls of `k` updates each and returns updates a second."""
    algorithm = dl.SAC(rollout_length=k, updates=k, replay_capacity=rows // k * k)
    learner = jax.jit(lambda key: algorithm.init(SPEC, key=key))(jax.random.key(0))
    ring = replay_ring.empty_ring(algorithm, learner, None, np.zeros((1, OBS), np.float32), SPEC)
    generator = np.random.default_rng(0)
    assert ring is not None
    # Full, and everywhere different: sampling reaches all of its memory.
    data = jax.tree.map(lambda x: jnp.asarray(generator.random(x.shape, np.float32).astype(x.dtype)), ring.data)
    state = [learner, rings.Ring(data, jnp.asarray(rows // k * k, jnp.int32))]
    rollout: Transition = jax.tree.map(lambda x: np.asarray(x[:k]), data)

    @partial(jax.jit, donate_argnums=(0, 1))
    def learn(learner, ring, rollout, t):
        key = jax.random.fold_in(jax.random.key(0), t)
        return learning.learn(algorithm, learner, ring, rollout, key=key, steps=t)

    def run(calls: int = max(1, CALLS // k)) -> float:
        began = time.perf_counter()
        for t in range(calls):
            outcome = learn(*state, rollout, np.int32(10_000 + t))
            state[:] = outcome.learner, outcome.ring
        jax.block_until_ready(state)
        return calls * k / (time.perf_counter() - began)

    run(2)
    return run


def torch_seconds(needed: list[products.Product]) -> float:
    """The same products, each alone, in PyTorch with two threads: its matrices are multiplied as they lie."""
    shapes = json.dumps([(p.members, p.rows, p.inner, p.columns) for p in needed])
    done = subprocess.run([PEERS, "-c", f"SHAPES = {shapes!r}\n{TORCH}"], capture_output=True, text=True, check=True)
    return sum(p.times * t for p, t in zip(needed, json.loads(done.stdout), strict=True))


if __name__ == "__main__":
    main()
