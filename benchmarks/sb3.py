"""A child of `speed.py`: one measurement of Stable-Baselines3, with the peers' packages only. Prints JSON."""

import argparse
import json
import os
import time


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--env", required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("--core", type=int, help="the only core to run on; by default all of them")
    arguments = parser.parse_args()
    if arguments.core is not None:
        os.sched_setaffinity(0, {arguments.core})
    print(json.dumps(measure(arguments)))


def measure(arguments: argparse.Namespace) -> dict:
    """Steps per second of `learn`, from the first tenth of the steps to the end."""
    import stable_baselines3
    import torch
    from stable_baselines3 import A2C
    from stable_baselines3.common.env_util import make_vec_env

    torch.set_num_threads(arguments.threads)
    # A2C's own networks are 64-64 tanh, separate for actor and critic; make_vec_env gives a DummyVecEnv.
    model = A2C("MlpPolicy", make_vec_env(arguments.env, n_envs=8, seed=0), n_steps=5, device="cpu", seed=0)
    model.learn(arguments.steps // 10)
    warm, began = model.num_timesteps, time.perf_counter()
    model.learn(arguments.steps - warm, reset_num_timesteps=False)
    return {
        "steps_per_second": (model.num_timesteps - warm) / (time.perf_counter() - began),
        "versions": {"stable-baselines3": stable_baselines3.__version__, "torch": torch.__version__},
    }


if __name__ == "__main__":
    main()
