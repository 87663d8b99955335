"""Every algorithm, small: what the contract and the probes run on."""

import duologue as dl

SMALL = dl.Networks(hidden_sizes=(16,))
REPLAYED = dict(networks=SMALL, batch_size=6, num_envs=3, n_step=2, replay_capacity=60)
SEVERAL = dict(networks=SMALL, rollout_length=4, num_envs=3, minibatch_size=6, epochs=2)
SEQUENCES = dict(networks=SMALL, rollout_length=4, num_envs=3, batch_size=5, replay_capacity=60, learning_starts=20)
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
    "td3": dl.TD3(**REPLAYED),
    "ddpg": dl.DDPG(**REPLAYED),
}
BOXES = {"sac", "sac-fixed", "normalized-sac", "sac-v1", "td3", "ddpg", "acer-continuous"}
DISCRETE = {"sac-discrete", "acer"}


def serves(name: str, action: str) -> bool:
    """Whether an algorithm takes actions of this kind: discrete, multi-discrete or box."""
    return action == "box" if name in BOXES else name not in DISCRETE or action == "discrete"
