"""An environment of your own, with an action mask: pay out an amount in as few coins as possible.

A coin larger than the remaining amount is not allowed. The entry `action_mask` of the observation marks the allowed
coins. The policy gives all others probability 0, in training and afterwards.
"""

import argparse

import gymnasium as gym
import numpy as np
from gymnasium import spaces

import duologue as dl

COINS = np.array([1, 5, 10, 25])


class Change(gym.Env):
    """Each coin costs 1. The observation is the remaining amount in coins of each kind: whole coins, and the rest."""

    def __init__(self) -> None:
        mask = spaces.Box(0, 1, (len(COINS),), np.int8)
        left = spaces.Box(0, np.inf, (2 * len(COINS),), np.float32)
        self.observation_space = spaces.Dict({"left": left, "action_mask": mask})
        self.action_space = spaces.Discrete(len(COINS))

    def _obs(self) -> dict[str, np.ndarray]:
        counts = np.concatenate([self.left // COINS, self.left % COINS / COINS])
        return {"left": counts.astype(np.float32), "action_mask": (self.left >= COINS).astype(np.int8)}

    def reset(self, *, seed: int | None = None, options: dict | None = None):
        super().reset(seed=seed)
        self.left = int(self.np_random.integers(1, 100))
        return self._obs(), {}

    def step(self, action):
        assert COINS[action] <= self.left, "the mask forbids this coin"
        self.left -= int(COINS[action])
        return self._obs(), -1.0, self.left == 0, False, {}  # at the end the mask allows nothing, and nobody acts


def main(steps: int) -> None:
    run = dl.train(dl.A2C(learning_rate=2e-3), Change, steps=steps)
    print(run.evaluate(episodes=100))
    env, actor = Change(), run.actor()
    obs, _ = env.reset(seed=3)
    amount, coins = env.left, []
    while env.left:
        coin = int(actor(obs))
        coins.append(int(COINS[coin]))
        obs, *_ = env.step(coin)
    print(f"{amount} = {' + '.join(map(str, coins))}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=50_000, help="environment steps to learn from")
    main(parser.parse_args().steps)
