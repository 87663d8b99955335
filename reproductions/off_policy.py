"""What SAC, TD3 and their versions learn: the tasks of `reproduce.py`. SBX gets the settings that we get."""

from dataclasses import replace

from cells import Peer, Task

import duologue as dl

ZOO = "RL Baselines3 Zoo, hyperparams"
BENCHMARK = "one run, RL Baselines3 Zoo, benchmark.md"
SIMBA = "mean of 10 runs on -v4, SimbaV2's raw data"
START = {"start_steps": 10_000, "learning_starts": 10_000}
NETWORKS = {"policy_kwargs": {"net_arch": [256, 256]}}
SBX_SAC = Peer("SAC", {"learning_starts": 10_000, **NETWORKS})
# SBX's TD3 moves its targets at every step of the critics; the paper, Stable-Baselines3 and ours at every second one.
SBX_TD3 = {"learning_starts": 10_000, "learning_rate": 1e-3, "tau": 0.0025, **NETWORKS}
OURS = "ours, chosen on seeds 100 to 105"

# One update in four steps is the default. A learned α begins at 1, as large as a reward here, and holds the policy near
# uniform, which on Acrobot never reaches the goal; of one-step targets its first news then comes too slowly. α is in
# units of rewards, and LunarLander's are larger: there, on tuning seed 100 after 200,000 steps, three-step targets gave
# 193 with α = 0.3 and 240 with 1, five-step ones 243 with 1, and one-step ones −63.
DISCRETE = dl.SACDiscrete(
    alpha=dl.temperature.Fixed(0.1),
    n_step=5,
    start_steps=1000,
    learning_starts=1000,
    actor_learning_rate=1e-3,
    critic_learning_rate=1e-3,
    networks=dl.Networks(hidden_sizes=(64, 64), activation="relu", init="lecun"),
)
DISCRETE_LANDER = replace(DISCRETE, alpha=dl.temperature.Fixed(1.0), networks=dl.Networks((128, 128), "relu", "lecun"))

TASKS = (
    Task(
        "sac-pendulum", "Pendulum-v1", 20_000,
        dl.SAC(
            actor_learning_rate=1e-3, critic_learning_rate=1e-3,
            alpha=dl.temperature.Learned(learning_rate=1e-3),
        ),
        source=f"{ZOO}/sac.yml", published=f"−157 ({BENCHMARK})",
        peer=Peer("SAC", {"learning_rate": 1e-3, "learning_starts": 100, **NETWORKS}),
    ),
    Task(
        "td3-pendulum", "Pendulum-v1", 20_000,
        dl.TD3(discount=0.98, **START),
        source=f"{ZOO}/td3.yml, but for networks of 256-256", published=f"−152 ({BENCHMARK})",
        peer=Peer("TD3", {"gamma": 0.98, **SBX_TD3}, noise=0.1),
    ),
    Task(
        "sac-halfcheetah", "HalfCheetah-v5", 100_000,
        dl.SAC(**START),
        source=f"{ZOO}/sac.yml", published=f"6156 ({SIMBA})", peer=SBX_SAC,
    ),
    Task(
        "sac-hopper", "Hopper-v5", 100_000,
        dl.SAC(**START),
        source=f"{ZOO}/sac.yml", published=f"1103 ({SIMBA})", peer=SBX_SAC,
    ),
    Task(
        "td3-halfcheetah", "HalfCheetah-v5", 100_000,
        dl.TD3(**START),
        source=f"{ZOO}/td3.yml, but for networks of 256-256",
        peer=Peer("TD3", SBX_TD3, noise=0.1),
    ),
    Task(
        "sac-lunarlander", "LunarLanderContinuous-v3", 100_000,
        dl.SAC(
            actor_learning_rate=7.3e-4, critic_learning_rate=7.3e-4,
            alpha=dl.temperature.Learned(learning_rate=7.3e-4), tau=0.01, **START,
        ),
        source=f"{ZOO}/sac.yml, but for a constant rate and networks of 256-256",
        published=f"260 after 500 k ({BENCHMARK})",
        peer=Peer("SAC", {"learning_rate": 7.3e-4, "tau": 0.01, "learning_starts": 10_000, **NETWORKS}),
    ),
    Task(
        "sac-v1-halfcheetah", "HalfCheetah-v5", 100_000,
        dl.SACv1(**START),
        source="as sac-halfcheetah, for comparison with it",
    ),
    Task(
        "sac-own-std-halfcheetah", "HalfCheetah-v5", 100_000,
        dl.SAC(networks=replace(dl.SAC().networks, state_dependent_std=False), **START),
        source="as sac-halfcheetah, for comparison with it: Spinning Up's exercise",
    ),
    Task("sac-discrete-cartpole", "CartPole-v1", 50_000, DISCRETE, source=OURS, target=475),
    Task("sac-discrete-acrobot", "Acrobot-v1", 100_000, DISCRETE, source=OURS),
    Task(
        "sac-discrete-lunarlander", "LunarLander-v3", 200_000, DISCRETE_LANDER,
        source="ours, chosen on seeds 100 and 101",
    ),
)  # fmt: skip
