"""Every algorithm, small: what the contract and the probes run on."""

import duologue as dl

SMALL = dl.Networks(hidden_sizes=(16,))
REPLAYED = dict(networks=SMALL, batch_size=6, num_envs=3, n_step=2, replay_capacity=60)
ALL = {
    "a2c": dl.A2C(networks=SMALL, rollout_length=4, num_envs=3),
    "a2c-shared-adam": dl.A2C(
        networks=dl.Networks(hidden_sizes=(16,), shared_trunk=True), optimizer=dl.Adam(), rollout_length=4, num_envs=3
    ),
    "normalized-a2c": dl.Normalized(dl.A2C(networks=SMALL, rollout_length=4, num_envs=3)),
    "sac": dl.SAC(**REPLAYED),
    "sac-fixed": dl.SAC(**REPLAYED, alpha=dl.temperature.Fixed(0.1)),
    "normalized-sac": dl.Normalized(dl.SAC(**REPLAYED)),
    "sac-v1": dl.SACv1(**REPLAYED),
    "sac-discrete": dl.SACDiscrete(**REPLAYED),
    "td3": dl.TD3(**REPLAYED),
    "ddpg": dl.DDPG(**REPLAYED),
}
BOXES = {"sac", "sac-fixed", "normalized-sac", "sac-v1", "td3", "ddpg"}


def serves(name: str, action: str) -> bool:
    """Whether an algorithm takes actions of this kind: discrete, multi-discrete or box."""
    return action == "box" if name in BOXES else name != "sac-discrete" or action == "discrete"
