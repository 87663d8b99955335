"""What is learned from recorded data: the tasks of `reproduce.py`.

d3rlpy gets the same file, as many updates and, as far as it has them, our settings: CQL's weight is fixed, TD3+BC sees
normalised observations, BEAR has no entropy bonus (its multiplier still learns at the actor's rate, 1e-4, ours at
1e-3), CQL's targets have the mean action at s', ours a sampled one; and all its networks begin as PyTorch's, of ours
those of IQL, SAC and TD3, the others as LeCun's with the actor's last layer at a hundredth.
"""

from typing import Any

from cells import Peer, Task

import duologue as dl
from duologue.algorithms.base import AnyAlgorithm

WIDE = dl.Networks(hidden_sizes=(256, 256), activation="relu", init="lecun")
TORCH = dl.Networks(hidden_sizes=(256, 256), activation="relu", init="pytorch", policy_scale=1.0)
STARTS = "d3rlpy's sizes, rates and first weights"
LECUN = "d3rlpy's sizes and rates, LeCun's weights, the actor's last layer at a hundredth"
WARM: dict[str, Any] = {"warm_start": 5_000}
BEAR: dict[str, Any] = {
    "actor_learning_rate": 1e-4, "critic_learning_rate": 3e-4, "vae_learning_rate": 3e-4, "samples": 4, "q_samples": 1,
    "target_actor": False, "candidates": 100, "batch_size": 256, "networks": WIDE, "vae_networks": WIDE, **WARM,
}  # fmt: skip

LEARNERS: dict[str, tuple[AnyAlgorithm, int, str, Peer | None]] = {
    "bear": (
        dl.BEAR(**BEAR, distance=dl.MMD(kernel="laplacian")), 30_000, f"{LECUN}, and a warm start of 5 k updates",
        Peer(
            "BEAR", {"warmup_steps": 5_000, "temp_learning_rate": 0.0, "initial_temperature": 1e-20}, library="d3rlpy"
        ),
    ),
    "bcq": (
        dl.BCQ(networks=WIDE, vae_networks=WIDE), 30_000, f"{LECUN}, but for 10 candidates in a target",
        Peer("BCQ", {}, library="d3rlpy"),
    ),
    "cql": (
        dl.CQL(networks=WIDE, conservatism=dl.temperature.Fixed(2.5)), 30_000,
        f"{LECUN}, a weight of 5 against errors without the factor ½",
        Peer("CQL", {"alpha_learning_rate": 0.0}, library="d3rlpy"),
    ),
    "iql": (dl.IQL(), 50_000, "defaults, the first weights chosen on these seeds", Peer("IQL", {}, library="d3rlpy")),
    "td3-bc": (
        dl.Normalized(dl.TD3BC(), reward=False), 50_000, "the paper's: normalised observations",
        Peer("TD3PlusBC", {"observation_scaler": "standard"}, library="d3rlpy"),
    ),
    "bc": (dl.BC(networks=WIDE), 50_000, "defaults", Peer("BC", {}, library="d3rlpy")),
    "td3": (
        dl.TD3(actor_learning_rate=3e-4, critic_learning_rate=3e-4, networks=TORCH), 50_000, STARTS,
        Peer("TD3", {}, library="d3rlpy"),
    ),
    "sac": (dl.SAC(networks=TORCH), 50_000, STARTS, Peer("SAC", {}, library="d3rlpy")),
}  # fmt: skip
DATA = {"halfcheetah": ("HalfCheetah-v5", "halfcheetah-random-expert"), "hopper": ("Hopper-v5", "hopper-random-medium")}

SHARES = (10, 30)
"""Of the data, in percent: what SAC learns from less of it, beside `offline-sac-halfcheetah`."""

SWITCHES: dict[str, dict[str, Any]] = {
    "gaussian": {"distance": dl.MMD(kernel="gaussian")},
    "kl": {"distance": dl.KL(), "multiplier": dl.temperature.Dual(threshold=-2.0)},
    "fixed": {"multiplier": dl.temperature.Fixed(100.0)},
    "mean": {"ensemble": "mean"},
    "variance": {"variance_weight": 0.5},
    "masks": {"mask_probability": 0.8},
    "mean-action": {"candidates": 0},
}
"""BEAR's, one at a time, against the line above."""

TASKS = (
    *(
        Task(f"offline-{name}-{place}", env, steps, algorithm, source=source, data=data, peer=peer, seeds=(0, 1, 2))
        for place, (env, data) in DATA.items()
        for name, (algorithm, steps, source, peer) in LEARNERS.items()
    ),
    *(
        Task(
            f"offline-sac-halfcheetah-{share}", "HalfCheetah-v5", 50_000, dl.SAC(networks=TORCH),
            source=f"{STARTS}, from {share} % of the data",
            data=f"halfcheetah-random-expert-{share}", seeds=(0, 1, 2),
        )
        for share in SHARES
    ),
    *(
        Task(
            f"offline-switch-{name}", "HalfCheetah-v5", 20_000,
            dl.BEAR(**{**BEAR, "distance": dl.MMD(kernel="laplacian"), **switch}),
            source=f"as offline-bear-halfcheetah, but for {', '.join(switch) or 'fewer updates'}",
            data="halfcheetah-random-expert", seeds=(0, 1, 2),
        )
        for name, switch in {"base": {}, **SWITCHES}.items()
    ),
)  # fmt: skip
