"""What PPO and TRPO learn: the tasks of `reproduce.py`, with the settings of the RL Baselines3 Zoo."""

from acer import GAME, NATURE, PLAIN
from cells import Task

import duologue as dl

ZOO = "RL Baselines3 Zoo, hyperparams"
BENCHMARK = "one run, RL Baselines3 Zoo, benchmark.md"
WIDE = dl.Networks(hidden_sizes=(256, 256), activation="relu", init="lecun", initial_log_std=-2.0)

TASKS = (
    Task(
        "ppo-cartpole", "CartPole-v1", 100_000,
        dl.PPO(
            num_envs=8, rollout_length=32, minibatch_size=256, epochs=20, discount=0.98, lambda_=0.8,
            learning_rate=dl.Linear(1e-3, 0.0), networks=PLAIN,
        ),
        source=f"{ZOO}/ppo.yml, but for a constant clip", target=500, published=f"500 ({BENCHMARK})",
    ),
    Task(
        "ppo-lunarlander", "LunarLander-v3", 1_000_000,
        dl.PPO(
            num_envs=16, rollout_length=1024, minibatch_size=64, epochs=4, discount=0.999, lambda_=0.98,
            entropy_coefficient=0.01, networks=PLAIN,
        ),
        source=f"{ZOO}/ppo.yml", published=f"242 on -v2 ({BENCHMARK})",
    ),
    Task(
        "ppo-halfcheetah", "HalfCheetah-v5", 1_000_000,
        dl.Normalized(dl.PPO(
            num_envs=1, rollout_length=512, minibatch_size=64, epochs=20, discount=0.98, lambda_=0.92,
            learning_rate=2.0633e-05, entropy_coefficient=0.000401762, value_coefficient=0.58096,
            max_gradient_norm=0.8, objective=dl.Clip(0.1), networks=WIDE,
        )),
        source=f"{ZOO}/ppo.yml", published=f"5819 on -v3 ({BENCHMARK})",
    ),
    Task(
        "trpo-halfcheetah", "HalfCheetah-v5", 1_000_000,
        dl.Normalized(dl.TRPO(
            num_envs=2, rollout_length=1024, conjugate_gradient_steps=25, epochs=20, networks=PLAIN,
        )),
        source=f"{ZOO}/trpo.yml", target=1500, published=f"1785 on -v3 ({BENCHMARK})",
    ),
    Task(
        "ppo-pong", "ALE/Pong-v5", 1_000_000,
        dl.PPO(
            num_envs=16, rollout_length=128, minibatch_size=256, epochs=4, learning_rate=5e-4, objective=dl.Clip(0.1),
            entropy_coefficient=0.01, networks=NATURE,
        ),
        source=f"{ZOO}/ppo.yml, but with 16 games and twice the rate; rate and clip are not annealed", **GAME,
    ),
)  # fmt: skip
