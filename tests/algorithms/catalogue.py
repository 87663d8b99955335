"""Every algorithm, small: what the contract and the probes run on."""

import duologue as dl

SMALL = dl.Networks(hidden_sizes=(16,))
REPLAYED = dict(networks=SMALL, batch_size=6, num_envs=3, n_step=2, replay_capacity=60)
SEVERAL = dict(networks=SMALL, rollout_length=4, num_envs=3, minibatch_size=6, epochs=2)
RECORDED = dict(networks=SMALL, batch_size=6)
SEQUENCES = dict(networks=SMALL, rollout_length=4, num_envs=3, batch_size=5, replay_capacity=60, learning_starts=20)
SACX = dl.SACX(
    networks=dl.Networks(hidden_sizes=(8, 8)), sequence_length=4, batch_size=5, num_envs=3, replay_capacity=60,
    learning_starts=20, target_period=2,
)  # fmt: skip
ALL = {
    "a2c": dl.A2C(networks=SMALL, rollout_length=4, num_envs=3),
    "a2c-shared-adam": dl.A2C(
        networks=dl.Networks(hidden_sizes=(16,), shared_trunk=True), optimizer=dl.Adam(), rollout_length=4, num_envs=3
    ),
    "normalized-a2c": dl.Normalized(dl.A2C(networks=SMALL, rollout_length=4, num_envs=3)),
    "ppo": dl.PPO(**SEVERAL),
    "ppo-penalty": dl.PPO(**SEVERAL, objective=dl.KLPenalty(), target_kl=0.01, value_clip=0.2),
    "normalized-ppo": dl.Normalized(dl.PPO(**SEVERAL)),
    "trpo": dl.TRPO(**SEVERAL),
    "acer": dl.ACER(**SEQUENCES),
    "acer-continuous": dl.ACERContinuous(**SEQUENCES),
    "sac": dl.SAC(**REPLAYED),
    "sac-fixed": dl.SAC(**REPLAYED, alpha=dl.temperature.Fixed(0.1)),
    "normalized-sac": dl.Normalized(dl.SAC(**REPLAYED)),
    "sac-v1": dl.SACv1(**REPLAYED),
    "sac-discrete": dl.SACDiscrete(**REPLAYED),
    "sac-x": SACX,
    "normalized-sac-x": dl.Normalized(SACX, reward=False),
    "td3": dl.TD3(**REPLAYED),
    "ddpg": dl.DDPG(**REPLAYED),
    "bc": dl.BC(**RECORDED),
    "bcq": dl.BCQ(**RECORDED, vae_networks=SMALL, candidates=3, target_candidates=3),
    "bcq-discrete": dl.BCQDiscrete(**RECORDED),
    "bear": dl.BEAR(**RECORDED, vae_networks=SMALL, mask_probability=0.8, warm_start=2, candidates=3),
    "bear-kl": dl.BEAR(**RECORDED, vae_networks=SMALL, distance=dl.KL(), candidates=0),
    "cql": dl.CQL(**REPLAYED, proposals=2),
    "iql": dl.IQL(networks=SMALL, batch_size=6, num_envs=3, replay_capacity=60),
    "kl-control": dl.KLControl(**RECORDED),
    "td3-bc": dl.TD3BC(**REPLAYED),
    "fqe": dl.FQE(dl.BC(**RECORDED), **RECORDED),
}
BOXES = {"sac", "sac-fixed", "normalized-sac", "sac-v1", "td3", "ddpg", "acer-continuous"}
BOXES |= {"bcq", "bear", "bear-kl", "cql", "iql", "kl-control", "td3-bc"}
DISCRETE = {"sac-discrete", "acer", "bcq-discrete"}
SUMMED = {"fqe", "sac-x", "normalized-sac-x"}
"""Served for what the critics read: boxes and discrete actions, not several at a time."""


def serves(name: str, action: str) -> bool:
    """Whether an algorithm takes actions of this kind: discrete, multi-discrete or box."""
    if name in BOXES or name in DISCRETE:
        return action == ("box" if name in BOXES else "discrete")
    return action != "multi-discrete" or name not in SUMMED
