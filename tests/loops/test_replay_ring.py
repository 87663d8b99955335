"""The ring that an algorithm asks for: its capacity, and who has one."""

import pytest
from loops.recorder import Recorder

import duologue as dl
from duologue.envs.probe import ProbeEnvs
from duologue.loops import compiled, replay_ring
from duologue.types import ACTION_MASK, Box, Dict, Discrete, EnvSpec, Replay


@pytest.mark.parametrize(
    ("capacity", "num_envs", "length", "sequence", "expected"),
    [
        (100, 3, 4, None, 32),
        (24, 3, 4, None, 8),
        (23, 3, 4, None, 4),
        (12, 3, 4, 4, 4),
        (24, 3, 4, 5, 8),
        (7, 1, 1, 7, 7),
    ],
)
def test_the_capacity_is_rounded_down_to_whole_rollouts(capacity, num_envs, length, sequence, expected):
    algorithm = Recorder(Replay(capacity, 1, sequence), rollout_length=length)
    assert replay_ring.ring_rows(algorithm, num_envs) == expected


@pytest.mark.parametrize(
    ("capacity", "num_envs", "length", "sequence", "least"),
    [
        (11, 3, 4, None, 12),
        (23, 3, 4, 8, 24),
        (6, 1, 1, 7, 7),
        (15, 3, 4, 5, 24),
    ],
)
def test_a_ring_too_small_for_a_rollout_or_a_sequence_is_refused(capacity, num_envs, length, sequence, least):
    """With the capacity that would do."""

    def rows(capacity):
        return replay_ring.ring_rows(Recorder(Replay(capacity, 1, sequence), rollout_length=length), num_envs)

    with pytest.raises(dl.ConfigError, match=rf"replay_capacity = {capacity}: must be at least {least} here"):
        rows(capacity)
    assert rows(least) == least // num_envs


def test_the_check_of_uniform_first_actions_reads_the_mask_as_acting_does():
    spec = EnvSpec("masked", Dict({"x": Box((2,)), ACTION_MASK: Box((3,), "int8")}), Discrete(3))
    algorithm = dl.SACDiscrete(networks=dl.Networks(hidden_sizes=(4,)), start_steps=4, batch_size=2, replay_capacity=8)
    # Of each row: x, the mask, action, reward and two flags, for state and successor.
    assert replay_ring.ring_bytes(algorithm, spec, 2, 1) >= 8 * (2 * (8 + 3) + 4 + 4 + 2)


def test_only_algorithms_that_replay_have_a_ring():
    envs = ProbeEnvs("action-continuous", 2)
    assert compiled.start(Recorder(learn_from_rollout=True), envs, [0]).replay is None
    ring = compiled.start(Recorder(Replay(9, 1)), envs, [0]).replay
    assert ring.data.reward.shape == (4, 2) and ring.data.action.shape == (4, 2, 1)
