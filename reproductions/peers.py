"""The same tasks learned by SBX or d3rlpy, in a virtual environment of their own (`make peers`): a cell is one child
process.

It reads its orders, one JSON object, from the command line, and prints the scores as JSON in its last line.
"""

import json
import sys
from collections.abc import Callable
from typing import Any

Act = Callable[[Any], Any]


def main() -> None:
    import gymnasium as gym

    orders = json.loads(sys.argv[1])
    act, versions = (from_data if orders.get("library") == "d3rlpy" else in_environment)(orders)
    first = 10_000 * (1 + orders["seed"])
    scores = [score(act, gym.make(orders["env"]), first + i) for i in range(orders["episodes"])]
    print(json.dumps({"scores": scores, "versions": {**versions, "gymnasium": gym.__version__}}))


def in_environment(orders: dict[str, Any]) -> tuple[Act, dict[str, str]]:
    """SBX's greedy policy."""
    import gymnasium as gym
    import numpy as np
    import sbx
    from stable_baselines3.common.noise import NormalActionNoise

    env = gym.make(orders["env"])
    if orders["noise"] is not None:
        scale = orders["noise"] * np.ones(env.action_space.shape)
        orders["settings"]["action_noise"] = NormalActionNoise(np.zeros_like(scale), scale)
    model = getattr(sbx, orders["algorithm"])("MlpPolicy", env, seed=orders["seed"], **orders["settings"])
    model.learn(orders["steps"])
    return lambda obs: model.predict(obs, deterministic=True)[0], {"sbx": sbx.__version__}


def from_data(orders: dict[str, Any]) -> tuple[Act, dict[str, str]]:
    """d3rlpy's test policy."""
    import d3rlpy
    import numpy as np
    import torch

    d3rlpy.seed(orders["seed"])
    torch.set_num_threads(1)
    if orders["settings"].get("observation_scaler") == "standard":
        orders["settings"]["observation_scaler"] = d3rlpy.preprocessing.StandardObservationScaler()
    columns = np.load(orders["data"])
    data = d3rlpy.dataset.MDPDataset(
        columns["observations"].astype(np.float32), columns["actions"].astype(np.float32),
        columns["rewards"].astype(np.float32), columns["terminals"].astype(np.float32),
        columns["timeouts"].astype(np.float32),
    )  # fmt: skip
    device = "cuda:0" if torch.cuda.is_available() else "cpu:0"
    model = getattr(d3rlpy.algos, orders["algorithm"] + "Config")(**orders["settings"]).create(device=device)
    model.fit(
        data, n_steps=orders["steps"], n_steps_per_epoch=orders["steps"], show_progress=False,
        logger_adapter=d3rlpy.logging.NoopAdapterFactory(),
    )  # fmt: skip
    versions = {"d3rlpy": d3rlpy.__version__, "torch": torch.__version__}
    return lambda obs: model.predict(obs[None].astype(np.float32))[0], versions


def score(act: Act, env: Any, seed: int) -> float:
    """The return of one greedy episode."""
    obs, _ = env.reset(seed=seed)
    total, over = 0.0, False
    while not over:
        obs, reward, terminated, truncated, _ = env.step(act(obs))
        total, over = total + float(reward), terminated or truncated
    return total


if __name__ == "__main__":
    main()
