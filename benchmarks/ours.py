"""A child of `speed.py`: one measurement of Duologue in a process of its own. Prints one line of JSON."""

import argparse
import io
import json
import os
import tempfile
import time
from pathlib import Path

HIDDEN = (64, 64)
REPLAYED = ("sac", "td3")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--algorithm", choices=("a2c", "ppo", "trpo", "sac", "td3"), default="a2c")
    parser.add_argument("--env", required=True)
    parser.add_argument("--steps", type=int, required=True, help="environment steps of each seed")
    parser.add_argument("--seeds", type=int, default=1, help="agents side by side in one program")
    parser.add_argument("--turns", type=int, default=1, help="runs one after the other")
    parser.add_argument("--devices", type=int, default=1, help="CPU devices")
    parser.add_argument("--updates", type=int, default=1, help="of replay, all at once after as many steps")
    parser.add_argument("--core", type=int, help="the only core to run on; by default all of them")
    arguments = parser.parse_args()
    if arguments.core is not None:
        os.sched_setaffinity(0, {arguments.core})
    print(json.dumps(measure(arguments)))


def measure(arguments: argparse.Namespace) -> dict:
    import jax  # after the affinity is set: the backend counts its threads when it starts

    if arguments.devices > 1:
        jax.config.update("jax_num_cpu_devices", arguments.devices)
    jax.config.update("jax_cpu_enable_async_dispatch", arguments.algorithm in REPLAYED)  # as the command line does
    compiled: list[float] = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, _, **__: (
            compiled.append(time.perf_counter()) if event.endswith("backend_compile_duration") else None
        )
    )
    runs = [train(arguments, seed, compiled) for seed in range(arguments.turns)]
    rates = [run["steps_per_second"] for run in runs]
    return {
        "steps_per_second": len(rates) / sum(1 / rate for rate in rates),
        "seconds_with_start": sum(run["seconds_with_start"] for run in runs) / len(runs),
        "compilations": len(compiled),
        "compilations_when_warm": sum(run["compilations_when_warm"] for run in runs),
        "limit": limit(arguments) if arguments.algorithm == "a2c" else None,
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "versions": {"jax": jax.__version__},
    }


def train(arguments: argparse.Namespace, seed: int, compiled: list[float]) -> dict:
    """Steps per second of one run through the public path, from the first tenth of its steps (a quarter, for replay) to
    the last row."""
    from rich.console import Console

    import duologue as dl

    marks: list[tuple[int, float]] = []

    def mark(step: int, _: object) -> None:
        marks.append((step, time.perf_counter()))

    k, share = arguments.updates, 4 if arguments.algorithm in REPLAYED else 10
    algorithm = {
        # Stable-Baselines3 starts from these too, but for the entropy coefficient, which it sets to 0.
        "a2c": lambda: dl.A2C(entropy_coefficient=0.0, networks=dl.Networks(hidden_sizes=HIDDEN)),
        # Their own defaults are those of Stable-Baselines3 and sb3-contrib.
        "ppo": lambda: dl.PPO(num_envs=8),
        "trpo": lambda: dl.TRPO(num_envs=8),
        "sac": lambda: dl.SAC(learning_starts=500, start_steps=500, rollout_length=k, updates=k),
        # An update of TD3 is two of its critics.
        "td3": lambda: dl.TD3(learning_starts=500, start_steps=500, rollout_length=2 * k, updates=k),
    }[arguments.algorithm]()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        dl.train(
            algorithm, arguments.env, steps=arguments.steps, seed=seed, seeds=arguments.seeds,
            run_dir=Path(folder) / "run", callbacks=[mark], console=Console(file=io.StringIO()),
        )  # fmt: skip
    first = next(point for point in marks if point[0] >= arguments.steps // share)
    seconds = marks[-1][1] - first[1]
    return {
        "steps_per_second": arguments.seeds * (marks[-1][0] - first[0]) / seconds,
        "seconds_with_start": marks[-1][1] - began,
        "compilations_when_warm": sum(first[1] < at < marks[-1][1] for at in compiled),
    }


def limit(arguments: argparse.Namespace) -> float:
    """Steps per second if the matrix products were all there is, on as many devices as the run used."""
    import jax
    from arithmetic import a2c_flops, products_per_second

    shape = {"actor": (4, *HIDDEN, 2), "critic": (4, *HIDDEN, 1), "num_envs": 8, "rollout_length": 5}
    devices = min(jax.device_count(), arguments.seeds)
    rate = products_per_second(**shape, agents=arguments.seeds // devices)
    return devices * rate * shape["num_envs"] * shape["rollout_length"] / a2c_flops(**shape)


if __name__ == "__main__":
    main()
