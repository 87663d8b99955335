"""Every algorithm, small: what the contract and the probes run on."""

import duologue as dl

SMALL = dl.Networks(hidden_sizes=(16,))
ALL = {
    "a2c": dl.A2C(networks=SMALL, rollout_length=4, num_envs=3),
    "a2c-shared-adam": dl.A2C(
        networks=dl.Networks(hidden_sizes=(16,), shared_trunk=True), optimizer=dl.Adam(), rollout_length=4, num_envs=3
    ),
    "normalized-a2c": dl.Normalized(dl.A2C(networks=SMALL, rollout_length=4, num_envs=3)),
}
