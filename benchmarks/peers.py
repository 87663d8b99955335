"""A child of `speed.py`: one measurement of a peer, with the peers' packages only. Prints one line of JSON."""

import argparse
import importlib
import json
import os
import time

LIBRARIES = {"sb3": "stable_baselines3", "sbx": "sbx", "contrib": "sb3_contrib"}
REPLAYED = ("sac", "td3")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--library", choices=LIBRARIES, default="sb3")
    parser.add_argument("--algorithm", choices=("a2c", "ppo", "trpo", "sac", "td3"), default="a2c")
    parser.add_argument("--env", required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("--core", type=int, help="the only core to run on; by default all of them")
    arguments = parser.parse_args()
    if arguments.core is not None:
        os.sched_setaffinity(0, {arguments.core})
    print(json.dumps(measure(arguments)))


def measure(arguments: argparse.Namespace) -> dict:
    """Steps per second of `learn`, from the first tenth of the steps to the end (a quarter, for replay)."""
    import torch
    from stable_baselines3.common.env_util import make_vec_env

    torch.set_num_threads(arguments.threads)
    library = importlib.import_module(LIBRARIES[arguments.library])
    algorithm, replays = getattr(library, arguments.algorithm.upper()), arguments.algorithm in REPLAYED
    if replays:
        # Batches of 256 and one update a step are the defaults; TD3's networks are larger there.
        settings = {"learning_starts": 500, "policy_kwargs": {"net_arch": [256, 256]}}
        settings |= {"batch_size": 256, "train_freq": 1, "gradient_steps": 1}
    else:
        # Their own networks are 64-64 tanh, separate for actor and critic.
        settings = {"n_steps": 5} if arguments.algorithm == "a2c" else {"n_steps": 2048}
    # make_vec_env gives a DummyVecEnv.
    env = make_vec_env(arguments.env, n_envs=1 if replays else 8, seed=0)
    model = algorithm("MlpPolicy", env, seed=0, device="cpu", **settings)
    model.learn(arguments.steps // (4 if replays else 10))
    warm, began = model.num_timesteps, time.perf_counter()
    if replays:
        model.learning_starts = 0  # it counts anew in the second call
    model.learn(arguments.steps - warm, reset_num_timesteps=False)
    return {
        "steps_per_second": (model.num_timesteps - warm) / (time.perf_counter() - began),
        "versions": {name: importlib.import_module(name).__version__ for name in (library.__name__, "torch")},
    }


if __name__ == "__main__":
    main()
