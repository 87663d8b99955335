"""What ACER learns, with replay and without: the tasks of `reproduce.py`."""

from dataclasses import replace

from cells import Task

import duologue as dl

ZOO = "one run of Stable-Baselines 2, its zoo"
SOURCE = "ours, chosen on seeds 100 and 101"
WITHOUT = "as the line above, without replay: the paper's claim"
# What None means on vectors; the cells were run when these sizes were the default, and say so.
PLAIN = dl.Networks(hidden_sizes=(64, 64))
CONTROL = {
    "num_envs": 8, "batch_size": 8, "learning_starts": 1000, "optimizer": dl.Adam(), "learning_rate": 1e-3,
    "reward_scale": 0.05, "networks": PLAIN,
}  # fmt: skip
LANDER = {
    "num_envs": 8, "batch_size": 16, "learning_starts": 5000, "optimizer": dl.Adam(), "replay_capacity": 200_000,
    "learning_rate": dl.Linear(7e-4, 0.0), "reward_scale": 0.05, "entropy_coefficient": 0.02, "discount": 0.995,
    "networks": dl.Networks(hidden_sizes=(128, 128), activation="relu"),
}  # fmt: skip
IMAGES = dl.Networks(shared_trunk=True, hidden_sizes=(128,), activation="relu")
BREAKOUT = {
    "num_envs": 16, "optimizer": dl.Adam(), "learning_rate": dl.Linear(7e-4, 0.0), "replay_capacity": 200_000,
    "networks": IMAGES,
}  # fmt: skip

NATURE = dl.Networks(shared_trunk=True, hidden_sizes=())
"""The CNN of Mnih et al. (2015) and nothing behind it: its last layer has 512 units."""
GAME = {"scored_in_training": 50, "asynchronous": True, "target": -15, "seeds": (0,)}

TASKS = (
    Task(
        "acer-cartpole", "CartPole-v1", 100_000, dl.ACER(**CONTROL),
        source=SOURCE, target=475, published=f"498.6 after 500 k ({ZOO})",
    ),
    Task("acer-cartpole-without", "CartPole-v1", 100_000, dl.ACER(**CONTROL, replay_ratio=0.0), source=WITHOUT),
    Task(
        "acer-cartpole-25k", "CartPole-v1", 25_000, dl.ACER(**CONTROL),
        source=f"{SOURCE}; so short that replay can show, chosen on seeds 100 to 104",
    ),
    Task("acer-cartpole-25k-without", "CartPole-v1", 25_000, dl.ACER(**CONTROL, replay_ratio=0.0), source=WITHOUT),
    Task(
        "acer-acrobot", "Acrobot-v1", 200_000, dl.ACER(**CONTROL),
        source=SOURCE, published=f"−91 ({ZOO})",
    ),
    Task("acer-acrobot-without", "Acrobot-v1", 200_000, dl.ACER(**CONTROL, replay_ratio=0.0), source=WITHOUT),
    Task(
        "acer-lunarlander", "LunarLander-v3", 1_000_000, dl.ACER(**LANDER),
        source=SOURCE, target=185, published=f"185 on -v2 ({ZOO})",
    ),
    Task("acer-lunarlander-without", "LunarLander-v3", 1_000_000, dl.ACER(**LANDER, replay_ratio=0.0), source=WITHOUT),
    Task(
        "acer-breakout-minatar", "gymnax/Breakout-MinAtar", 1_000_000, dl.ACER(**BREAKOUT),
        source="ours, a first guess that seed 100 bore out",
    ),
    Task(
        "acer-breakout-minatar-without", "gymnax/Breakout-MinAtar", 1_000_000,
        dl.ACER(**BREAKOUT, replay_ratio=0.0), source=WITHOUT,
    ),
    Task(
        "acer-continuous-pendulum", "Pendulum-v1", 300_000,
        dl.ACERContinuous(
            num_envs=4, batch_size=8, rollout_length=20, learning_starts=1000, optimizer=dl.Adam(),
            learning_rate=dl.Linear(1e-3, 0.0), reward_scale=0.05,
            networks=replace(dl.ACERContinuous().networks, hidden_sizes=(64, 64)),
        ),
        source=SOURCE, target=-250,
    ),
    Task(
        "acer-pong", "ALE/Pong-v5", 1_000_000,
        dl.ACER(
            num_envs=16, replay_capacity=50_000, optimizer=dl.Adam(eps=1e-5), learning_rate=5e-4,
            entropy_coefficient=0.001, networks=NATURE,
        ),
        source="the paper's entropy; the optimiser of `ppo-pong`, for RMSProp's ε swallows gradients so small", **GAME,
    ),
)  # fmt: skip
