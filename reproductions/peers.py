"""The same tasks learned by SBX, in its own virtual environment (`make peers`): a cell is one child process.

It reads its orders, one JSON object, from the command line, and prints the scores as JSON in its last line.
"""

import json
import sys
from typing import Any


def main() -> None:
    import gymnasium as gym
    import numpy as np
    import sbx
    from stable_baselines3.common.noise import NormalActionNoise

    orders = json.loads(sys.argv[1])
    env = gym.make(orders["env"])
    if orders["noise"] is not None:
        scale = orders["noise"] * np.ones(env.action_space.shape)
        orders["settings"]["action_noise"] = NormalActionNoise(np.zeros_like(scale), scale)
    model = getattr(sbx, orders["algorithm"])("MlpPolicy", env, seed=orders["seed"], **orders["settings"])
    model.learn(orders["steps"])
    scores = [
        score(model, gym.make(orders["env"]), 10_000 * (1 + orders["seed"]) + i) for i in range(orders["episodes"])
    ]
    print(json.dumps({"scores": scores, "versions": {"sbx": sbx.__version__, "gymnasium": gym.__version__}}))


def score(model: Any, env: Any, seed: int) -> float:
    """The return of one greedy episode."""
    obs, _ = env.reset(seed=seed)
    total, over = 0.0, False
    while not over:
        action, _ = model.predict(obs, deterministic=True)
        obs, reward, terminated, truncated, _ = env.step(action)
        total, over = total + float(reward), terminated or truncated
    return total


if __name__ == "__main__":
    main()
