"""A child of `speed.py`: updates per second on recorded data, of Duologue or of d3rlpy at its default sizes and sample
counts, in a process of its own. The data are noise in the shapes of HalfCheetah. Prints one line of JSON."""

import argparse
import io
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

ROWS, OBS, ACTION = 100_000, 17, 6
PEERS = {"bear": "BEAR", "bcq": "BCQ", "cql": "CQL", "iql": "IQL", "td3-bc": "TD3PlusBC"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--library", choices=("duologue", "d3rlpy"), required=True)
    parser.add_argument("--algorithm", choices=tuple(PEERS), required=True)
    parser.add_argument("--steps", type=int, required=True, help="updates")
    parser.add_argument("--own", action="store_true", help="Duologue's own defaults, which are the papers'")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--devices", type=int, default=1, help="CPU devices")
    arguments = parser.parse_args()
    if arguments.library == "d3rlpy":
        print(json.dumps(theirs(arguments)))
    else:
        print(json.dumps(ours(arguments) | {"limit": limit(algorithm(arguments)) if arguments.seeds == 1 else None}))


def columns() -> dict[str, Any]:
    import numpy as np

    generator = np.random.default_rng(0)
    ends = np.arange(ROWS) % 1000 == 999
    obs = generator.standard_normal((ROWS, OBS)).astype(np.float32)
    return {
        "observations": obs, "actions": generator.uniform(-0.99, 0.99, (ROWS, ACTION)).astype(np.float32),
        "rewards": generator.standard_normal(ROWS).astype(np.float32), "terminals": np.zeros(ROWS, bool),
        "timeouts": ends, "next_observations": np.where(ends[:, None], obs, np.roll(obs, -1, 0)),
    }  # fmt: skip


def algorithm(arguments: argparse.Namespace) -> Any:
    """Of ours, at d3rlpy's sizes or its own."""
    import duologue as dl

    wide = dl.Networks(hidden_sizes=(256, 256), activation="relu", init="lecun")
    both: dict[str, Any] = {"networks": wide, "vae_networks": wide}
    sizes = {
        "bear": lambda: dl.BEAR(
            **both, batch_size=256, samples=4, q_samples=1, target_actor=False, distance=dl.MMD(kernel="laplacian")
        ),
        "bcq": lambda: dl.BCQ(**both, target_candidates=100),
        "cql": lambda: dl.CQL(networks=wide),
        "iql": lambda: dl.IQL(),
        "td3-bc": lambda: dl.TD3BC(),
    }
    own = {"bear": dl.BEAR, "bcq": dl.BCQ, "cql": dl.CQL, "iql": dl.IQL, "td3-bc": dl.TD3BC}
    return (own if arguments.own else sizes)[arguments.algorithm]()


def ours(arguments: argparse.Namespace) -> dict[str, Any]:
    import jax

    if arguments.devices > 1:
        jax.config.update("jax_num_cpu_devices", arguments.devices)
    from rich.console import Console

    import duologue as dl

    marks: list[tuple[int, float]] = []
    compiled: list[float] = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, _, **__: (
            compiled.append(time.perf_counter()) if event.endswith("backend_compile_duration") else None
        )
    )
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        dl.train(
            algorithm(arguments), dataset=dl.from_columns(columns()), steps=arguments.steps, seeds=arguments.seeds,
            run_dir=Path(folder) / "run",
            console=Console(file=io.StringIO()),
            callbacks=[lambda step, _: marks.append((step, time.perf_counter()))],
        )  # fmt: skip
    first = next(mark for mark in marks if mark[0] >= arguments.steps // 4)
    return {
        "steps_per_second": arguments.seeds * (marks[-1][0] - first[0]) / (marks[-1][1] - first[1]),
        "seconds_with_start": marks[-1][1] - began,
        "compilations": len(compiled),
        "compilations_when_warm": sum(first[1] < at < marks[-1][1] for at in compiled),
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "versions": {"jax": jax.__version__},
    }


def limit(learner: Any) -> float:
    """Steps a second if the matrix products were all there is, each as fast as it is alone."""
    import products

    import duologue as dl

    needed = products.of_update(learner, dl.from_columns(columns()))
    return learner.experience.gradient_steps / products.seconds(needed)


def theirs(arguments: argparse.Namespace) -> dict[str, Any]:
    import d3rlpy
    import numpy as np
    import torch

    torch.set_num_threads(os.cpu_count() or 1)
    data = columns()
    recorded = d3rlpy.dataset.MDPDataset(
        *(data[name] for name in ("observations", "actions", "rewards")),
        data["terminals"].astype(np.float32), data["timeouts"].astype(np.float32),
    )  # fmt: skip
    model = getattr(d3rlpy.algos, PEERS[arguments.algorithm] + "Config")().create(
        device="cuda:0" if torch.cuda.is_available() else "cpu:0"
    )
    began, quarter = time.perf_counter(), max(1, arguments.steps // 4)
    marks: list[float] = []
    for _ in model.fitter(
        recorded, n_steps=4 * quarter, n_steps_per_epoch=quarter, show_progress=False,
        logger_adapter=d3rlpy.logging.NoopAdapterFactory(),
    ):  # fmt: skip
        marks.append(time.perf_counter())
    return {
        "steps_per_second": 3 * quarter / (marks[-1] - marks[0]),
        "seconds_with_start": marks[-1] - began,
        "versions": {"d3rlpy": d3rlpy.__version__, "torch": torch.__version__},
    }


if __name__ == "__main__":
    main()
