"""What stands behind a CNN by default, and what was recorded before."""

import jax
import pytest

import duologue as dl
from duologue.networks.builder import Networks, SharedActorCritic
from duologue.networks.layers import Dense
from duologue.runs import config
from duologue.types import ACTION_MASK, Box, Dict, Discrete, EnvSpec

FRAMES = Box((4, 84, 84), "uint8", (0.0,), (255.0,), stacked=True)
BOARD = Box((10, 10, 4), "bool")
VECTOR, MASK = Box((5,)), Box((3,), "int8")
BOX = Box((2,), low=(-1.0, -1.0), high=(1.0, 1.0))
THREE = Discrete(3)
BOTH = Dict({"image": BOARD, "vector": VECTOR})


def shapes(build, observation=FRAMES, action=THREE):
    """The shapes of what `build(spec, key=)` makes; nothing is computed."""
    spec = EnvSpec("Test-v0", observation, action)
    return jax.eval_shape(lambda key: build(spec, key=key), jax.random.key(0))


def layers(tree):
    """Inputs and outputs of all dense layers, but for those of CNNs, in the order of the tree."""
    paths = jax.tree.flatten_with_path(tree, is_leaf=lambda x: isinstance(x, Dense))[0]
    dense = [x for path, x in paths if isinstance(x, Dense) and ".dense" not in jax.tree_util.keystr(path)]
    return [layer.weight.shape[-2:] for layer in dense]


@pytest.mark.parametrize(("observation", "shared", "expected"), [
    (FRAMES, True, [(512, 3), (512, 1)]),
    (BOARD, True, [(128, 3), (128, 1)]),
    (Dict({"image": BOARD, ACTION_MASK: MASK}), True, [(128, 3), (128, 1)]),
    (Dict({"nested": Dict({"image": BOARD})}), True, [(128, 3), (128, 1)]),
    (BOTH, True, [(133, 64), (64, 64), (64, 3), (64, 1)]),
    (Dict({"left": BOARD, "right": BOARD}), True, [(256, 64), (64, 64), (64, 3), (64, 1)]),
    (VECTOR, False, [(5, 64), (64, 64), (64, 3), (5, 64), (64, 64), (64, 1)]),
    (Dict({"vector": VECTOR, ACTION_MASK: MASK}), False, [(5, 64), (64, 64), (64, 3), (5, 64), (64, 64), (64, 1)]),
    (Discrete(4), False, [(4, 64), (64, 64), (64, 3), (4, 64), (64, 64), (64, 1)]),
], ids=str)  # fmt: skip
def test_the_observation_decides_by_default(observation, shared, expected):
    module = shapes(Networks().actor_critic, observation)
    assert isinstance(module, SharedActorCritic) == shared and layers(module) == expected


def test_an_array_that_is_no_image_is_a_vector_here_too():
    assert layers(shapes(Networks(channels="none").actor_critic, BOARD))[0] == (400, 64)


def test_what_is_named_holds_behind_every_encoder():
    named = shapes(Networks(hidden_sizes=(32,)).actor_critic)
    assert layers(named) == [(512, 32), (32, 3), (32, 1)]
    apart = shapes(Networks(shared_trunk=False).actor_critic)
    assert layers(apart) == [(512, 3), (512, 1)] and not isinstance(apart, SharedActorCritic)
    assert isinstance(shapes(Networks(shared_trunk=True).actor_critic, VECTOR), SharedActorCritic)
    wide = Networks(vector_sizes=(7,))
    assert layers(shapes(wide.policy)) == [(512, 3)] and layers(shapes(wide.policy, VECTOR)) == [(5, 7), (7, 3)]


def test_what_reads_an_action_too_keeps_its_hidden_layers():
    """A linear Q(s, a) would give every state the same best action."""
    networks = Networks()
    assert layers(shapes(lambda spec, key: networks.critics(spec, 2, key=key), FRAMES, BOX)) == [
        (514, 64), (64, 64), (64, 1)
    ]  # fmt: skip
    assert layers(shapes(networks.perturbation, BOARD, BOX))[0] == (130, 64)
    assert layers(shapes(lambda spec, key: networks.critics(spec, 2, key=key))) == [(512, 3)]
    assert layers(shapes(networks.state_value)) == [(512, 1)]
    assert layers(shapes(networks.squashed_actor, FRAMES, BOX)) == [(512, 4)]


@pytest.mark.parametrize(("algorithm", "action", "expected"), [
    (dl.A2C(), THREE, [(512, 3), (512, 1)]),
    (dl.PPO(), BOX, [(512, 2), (512, 1)]),
    (dl.TRPO(), THREE, [(512, 3), (512, 1)]),
    (dl.ACER(), THREE, [(512, 3)]),
    (dl.BCQDiscrete(), THREE, [(512, 3)]),
    (dl.SACDiscrete(), THREE, [(512, 3)]),
    (dl.BC(), THREE, [(512, 3)]),
    (dl.SAC(), BOX, [(512, 256), (256, 256), (256, 4), (514, 256), (256, 1)]),
    (dl.TD3(), BOX, [(512, 256), (256, 256), (256, 2), (514, 256), (256, 1)]),
], ids=lambda x: type(x).__name__)  # fmt: skip
def test_the_defaults_are_those_of_the_sources(algorithm, action, expected):
    """No further layers where outputs read the image alone; SAC and TD3 keep theirs, as in Stable-Baselines3."""
    state = shapes(algorithm.init, FRAMES, action)
    assert set(layers(state)) == set(expected)
    shared = any(isinstance(x, SharedActorCritic) for x in jax.tree.leaves(state, is_leaf=is_shared))
    assert shared == isinstance(algorithm, dl.A2C | dl.PPO | dl.ACER | dl.BCQDiscrete)


def is_shared(x):
    return isinstance(x, SharedActorCritic)


OLD = {
    "type": "PPO",
    "networks": {
        "type": "Networks", "hidden_sizes": [64, 64], "activation": "tanh", "init": "orthogonal", "layer_norm": False,
        "shared_trunk": False, "state_dependent_std": None, "initial_log_std": 0.0, "channels": None,
        "policy_scale": 0.01,
    },
}  # fmt: skip


def test_a_run_from_before_has_the_networks_that_it_had():
    """Its folder names sizes and trunk, which were the defaults then."""
    old = config.from_dict(OLD)
    assert old.networks == Networks(hidden_sizes=(64, 64), shared_trunk=False)
    module = shapes(old.networks.actor_critic)
    assert layers(module) == [(512, 64), (64, 64), (64, 3), (512, 64), (64, 64), (64, 1)]
    assert not isinstance(module, SharedActorCritic)
    assert config.from_dict(config.to_dict(dl.PPO())) == dl.PPO()


def test_shared_layers_stay_an_error_where_networks_are_apart():
    with pytest.raises(dl.ConfigError, match=r"shared_trunk = True: must be False"):
        shapes(Networks(shared_trunk=True).policy)
    with pytest.raises(dl.ConfigError, match=r"TRPO.*Set shared_trunk to False"):
        shapes(dl.TRPO(networks=Networks(shared_trunk=True)).init)
    assert layers(shapes(dl.TRPO(networks=Networks()).init, VECTOR))


@pytest.mark.parametrize(("observation", "fields"), [
    (FRAMES, {}), (BOARD, {"shared_trunk": False}), (VECTOR, {"hidden_sizes": ()}),
])  # fmt: skip
def test_normalising_layers_that_there_are_not_is_refused(observation, fields):
    with pytest.raises(dl.ConfigError, match=r"layer_norm = True: must be False, because .* no hidden layers"):
        shapes(Networks(layer_norm=True, **fields).actor_critic, observation)
    assert shapes(Networks(layer_norm=True, hidden_sizes=(8,)).actor_critic, observation)
