import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import duologue as dl
from duologue.errors import ConfigError
from duologue.networks.builder import AbstractActorCritic, Networks
from duologue.ops.distributions import Categorical, MultiCategorical, Normal
from duologue.types import ACTION_MASK, Box, Dict, Discrete, EnvSpec, MultiDiscrete

KEY = jax.random.key(0)
BOUNDED = Box((2,), low=(-1.0, 0.0), high=(3.0, 0.5))  # centres 1 and 0.25, half-ranges 2 and 0.25
UNBOUNDED = Box((2,))
VECTOR = Box((3,))
SEPARATE = functools.partial(Networks, shared_trunk=False)
SHARED = functools.partial(Networks, shared_trunk=True)
BUILDERS = pytest.mark.parametrize("networks", [SEPARATE, SHARED])
BOARD = Box((9, 5, 7))


def spec(action, observation=VECTOR):
    return EnvSpec("Test-v0", observation, action)


def build(networks, action, observation=VECTOR, **fields):
    return networks(hidden_sizes=(8, 6), **fields).actor_critic(spec(action, observation), key=KEY)


def perturbed(module):
    """Every parameter moved, so that zero biases and tiny policy layers matter."""
    leaves, tree = jax.tree.flatten(module)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    return tree.unflatten([x + 0.5 * jax.random.normal(k, x.shape) for k, x in zip(keys, leaves, strict=True)])


def dense(layer, x):
    return x @ np.asarray(layer.weight) + np.asarray(layer.bias)


def mlp(trunk, last, x, activation):
    """A NumPy forward pass."""
    for layer in trunk.layers:
        x = activation(dense(layer, x))
    return dense(last, x)


NUMPY_ACTIVATIONS = {
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, 0),
    "elu": lambda x: np.where(x > 0, x, np.expm1(x)),
    "silu": lambda x: x / (1 + np.exp(-x)),
}


@pytest.mark.parametrize("activation", NUMPY_ACTIVATIONS)
@BUILDERS
def test_forward_pass_equals_numpy(networks, activation):
    f = NUMPY_ACTIVATIONS[activation]
    module = perturbed(build(networks, BOUNDED, activation=activation, state_dependent_std=True, initial_log_std=-0.3))
    obs = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    if networks is SEPARATE:
        outputs = mlp(module.actor.trunk, module.actor.output, obs, f)
        expected_value = mlp(module.critic.trunk, module.critic.output, obs, f)[:, 0]
    else:
        outputs = mlp(module.trunk, module.actor, obs, f)
        expected_value = mlp(module.trunk, module.critic, obs, f)[:, 0]
    policy, value = module.policy_and_value(jnp.asarray(obs))
    np.testing.assert_allclose(value, expected_value, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(policy.loc, [1.0, 0.25] + np.array([2.0, 0.25]) * outputs[:, :2], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(policy.scale, np.array([2.0, 0.25]) * np.exp(outputs[:, 2:] - 0.3), rtol=1e-4)


@BUILDERS
def test_layer_norm_is_before_each_nonlinearity_and_not_on_outputs(networks):
    """(x − mean)/√(variance + 1e-5) of each row, then a scale and an offset for each unit."""
    module = perturbed(build(networks, Discrete(4), layer_norm=True, activation="elu"))
    trunk, last = (module.trunk, module.actor) if networks is SHARED else (module.actor.trunk, module.actor.output)
    x = obs = np.random.default_rng(0).normal(size=(5, 3))
    assert [norm.scale.shape for norm in trunk.norms] == [(8,), (6,)]
    for layer, norm in zip(trunk.layers, trunk.norms, strict=True):
        y = dense(layer, x)
        y = (y - y.mean(-1, keepdims=True)) / np.sqrt(y.var(-1, keepdims=True) + 1e-5)
        y = y * np.asarray(norm.scale) + np.asarray(norm.offset)
        x = np.where(y > 0, y, np.expm1(np.minimum(y, 0)))
    logits = module.policy(jnp.asarray(obs, jnp.float32)).logits
    np.testing.assert_allclose(logits, dense(last, x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("action", "kind", "event"),
    [(Discrete(4), Categorical, ()), (MultiDiscrete((2, 3)), MultiCategorical, (2,)), (BOUNDED, Normal, (2,))],
    ids=["discrete", "multi", "box"],
)
@BUILDERS
def test_each_action_space_gets_its_distribution_for_any_leading_axes(networks, action, kind, event):
    module = build(networks, action)
    assert isinstance(module, AbstractActorCritic)
    for batch in [(), (3,), (2, 3)]:
        policy, value = module.policy_and_value(jnp.ones((*batch, 3)))
        assert isinstance(policy, kind)
        assert value.shape == policy.entropy().shape == batch
        assert policy.mode().shape == batch + event


@BUILDERS
def test_one_pass_equals_the_two_apart_and_jit_takes_the_module(networks):
    module = perturbed(build(networks, Discrete(4)))
    obs = jnp.linspace(-1.0, 1.0, 15).reshape(5, 3)
    assert all(isinstance(leaf, jax.Array) and leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(module))
    policy, value = jax.jit(lambda m, o: m.policy_and_value(o))(module, obs)
    np.testing.assert_allclose(policy.logits, module.policy(obs).logits, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(value, module.value(obs), rtol=1e-4, atol=1e-6)


def nonzero(gradient):
    """The parts of a module, by name, that get any gradient."""
    return {
        name for name in vars(gradient) if any((leaf != 0).any() for leaf in jax.tree.leaves(getattr(gradient, name)))
    }


def test_which_parameters_each_output_moves():
    obs = jnp.ones((2, 3))
    action = jnp.full((2, 2), 0.3)

    def log_prob(module):
        return module.policy(obs).log_prob(action).sum()

    def value(module):
        return module.value(obs).sum()

    separate, shared = perturbed(build(SEPARATE, BOUNDED)), perturbed(build(SHARED, BOUNDED))
    assert nonzero(jax.grad(log_prob)(separate)) == {"actor", "head"}
    assert nonzero(jax.grad(value)(separate)) == {"critic"}
    assert nonzero(jax.grad(log_prob)(shared)) == {"trunk", "actor", "head"}
    assert nonzero(jax.grad(value)(shared)) == {"trunk", "critic"}


def test_separate_networks_move_their_own_encoders_only():
    module = perturbed(build(SEPARATE, Discrete(4), observation=Box((5, 5, 2))))
    obs = jnp.ones((2, 5, 5, 2))
    assert nonzero(jax.grad(lambda m: m.policy(obs).entropy().sum())(module)) == {"actor_encoder", "actor"}
    assert nonzero(jax.grad(lambda m: m.value(obs).sum())(module)) == {"critic_encoder", "critic"}


@pytest.mark.parametrize(("action", "centre", "half"), [(BOUNDED, [1, 0.25], [2, 0.25]), (UNBOUNDED, [0, 0], [1, 1])])
def test_one_log_std_for_all_states_is_a_parameter_and_the_bounds_are_not(action, centre, half):
    module = build(SEPARATE, action, initial_log_std=-0.7)
    assert [leaf.shape for leaf in jax.tree.leaves(module.head)] == [(2,)]
    np.testing.assert_allclose(module.head.log_std, -0.7)
    policy = module.policy(jnp.linspace(-1.0, 1.0, 12).reshape(4, 3))
    np.testing.assert_allclose(policy.scale, np.tile(np.array(half) * np.exp(-0.7), (4, 1)), rtol=1e-6)
    np.testing.assert_allclose(policy.loc, np.tile(centre, (4, 1)), atol=0.1)  # the last layer starts small


def test_state_dependent_log_std_starts_near_its_initial_value_and_has_no_parameter_of_its_own():
    module = build(SHARED, UNBOUNDED, state_dependent_std=True, initial_log_std=-0.7)
    assert jax.tree.leaves(module.head) == []
    assert module.actor.weight.shape == (6, 4)
    scale = module.policy(jnp.linspace(-1.0, 1.0, 12).reshape(4, 3)).scale
    np.testing.assert_allclose(np.log(scale), -0.7, atol=0.05)
    assert np.ptp(scale[:, 0]) > 0


@BUILDERS
def test_initial_weights_start_the_policy_near_uniform_and_the_critic_at_scale_one(networks):
    module = build(networks, Discrete(4))
    actor, critic = (
        (module.actor.output, module.critic.output) if networks is SEPARATE else (module.actor, module.critic)
    )
    np.testing.assert_allclose(actor.weight.T @ actor.weight, 1e-4 * np.eye(4), atol=1e-9)
    np.testing.assert_allclose(critic.weight.T @ critic.weight, [[1.0]], rtol=1e-5)
    np.testing.assert_allclose(module.policy(jnp.ones(3)).probs, 0.25, atol=0.01)
    lecun = build(networks, Discrete(4), init="lecun")
    first = lecun.actor.trunk.layers[0] if networks is SEPARATE else lecun.trunk.layers[0]
    gram = np.asarray(first.weight @ first.weight.T)
    assert abs(gram - np.diag(np.diag(gram))).max() > 0.05


@pytest.mark.parametrize("algorithm", [dl.SAC, dl.SACv1, dl.TD3, dl.DDPG])
def test_the_last_policy_layer_of_what_learns_from_replay_begins_as_all_others(algorithm, key):
    """Variance 1 / inputs, as the layers before it; a hundredth held SAC near where it began on Hopper."""
    box = Box((30,), "float32", (-1.0,) * 30, (1.0,) * 30)
    state = algorithm().init(EnvSpec("env", Box((8,)), box), key=key)
    layers = [layer.weight for layer in (*state.actor.net.mlp.trunk.layers, state.actor.net.mlp.output)]
    assert [len(weight) for weight in layers] == [8, 256, 256]
    for weight in layers:
        np.testing.assert_allclose(weight.std(), len(weight) ** -0.5, rtol=0.05)


def test_separate_networks_start_apart():
    module = build(SEPARATE, Discrete(4), observation=Box((10, 10, 2), "uint8"))
    actor, critic = module.actor_encoder, module.critic_encoder
    assert not np.allclose(actor.dense.weight, critic.dense.weight)
    assert not np.allclose(module.actor.trunk.layers[0].weight, module.critic.trunk.layers[0].weight)


@pytest.mark.parametrize("dtype", [jnp.int8, jnp.bool_])
@BUILDERS
def test_an_action_mask_in_the_observation_masks_the_policy_and_nothing_else(networks, dtype):
    observation = Dict({"state": Box((3,)), ACTION_MASK: Box((4,), "int8")})
    module = build(networks, Discrete(4), observation)
    state = jnp.ones((2, 3))
    masks = [jnp.asarray([[1, 0, 0, 1], [0, 1, 0, 0]], dtype), jnp.ones((2, 4), dtype)]
    (policy, value), (free, value_of_free) = (
        module.policy_and_value({"state": state, ACTION_MASK: mask}) for mask in masks
    )
    assert ((np.asarray(policy.probs) == 0) == ~np.asarray(masks[0], bool)).all()
    np.testing.assert_allclose(free.probs, build(networks, Discrete(4)).policy(state).probs, atol=0.02)
    np.testing.assert_array_equal(value, value_of_free)


def test_masks_of_several_components_lie_side_by_side():
    observation = Dict({"state": Box((3,)), ACTION_MASK: Box((5,), "int8")})
    obs = {"state": jnp.ones(3), ACTION_MASK: jnp.asarray([0, 1, 1, 0, 1], jnp.int8)}
    policy = build(SHARED, MultiDiscrete((2, 3)), observation).policy(obs)
    zero = [np.asarray(component.probs) == 0 for component in policy.components]
    np.testing.assert_array_equal(np.concatenate(zero), [True, False, False, True, False])


def test_hidden_layers_may_be_none():
    obs = jnp.asarray([1.0, -2.0, 0.5])
    for networks in (SEPARATE, SHARED):
        module = perturbed(networks(hidden_sizes=()).actor_critic(spec(Discrete(2)), key=KEY))
        last = module.actor.output if networks is SEPARATE else module.actor
        np.testing.assert_allclose(module.policy(obs).logits, dense(last, np.asarray(obs)), rtol=1e-5)


@BUILDERS
@pytest.mark.parametrize(
    "action",
    [Box((2,), "int32"), Box((0,)), Dict({"a": Discrete(2)})],
    ids=["int", "empty", "dict"],
)
def test_other_action_spaces_are_refused_by_name(networks, action):
    with pytest.raises(ConfigError, match="is not supported: it must be Discrete, MultiDiscrete or a real Box") as e:
        networks().actor_critic(spec(action), key=KEY)
    assert str(action) in str(e.value)


@BUILDERS
@pytest.mark.parametrize("space", [Box((0,)), Dict({"a": Box((2, 0)), "b": Dict({"c": Box((0, 3), "uint8")})})])
def test_an_observation_without_an_element_is_refused(networks, space):
    """An adapter of your own may give one; those of Gymnasium are refused at their door."""
    with pytest.raises(ConfigError, match=r"Observation space .* is not supported: no part has an element"):
        networks().actor_critic(spec(Discrete(2), space), key=KEY)


@BUILDERS
def test_layers_without_units_are_refused(networks):
    with pytest.raises(ConfigError, match=r"Networks\.hidden_sizes"):
        networks(hidden_sizes=(64, 0))


@BUILDERS
def test_initialisation_is_a_function_of_the_key(networks):
    modules = [networks().actor_critic(spec(BOUNDED), key=jax.random.key(k)) for k in (0, 0, 1)]
    weights = [np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(m)]) for m in modules]
    np.testing.assert_array_equal(weights[0], weights[1])
    assert not np.allclose(weights[0], weights[2])


def test_seeds_are_an_axis_of_vmap():
    observation = Dict({"image": Box((4, 10, 10), "uint8"), ACTION_MASK: Box((4,), "int8")})
    obs = {"image": jnp.ones((3, 4, 10, 10), jnp.uint8), ACTION_MASK: jnp.ones((3, 4), jnp.int8)}

    def build_from(key):
        return SHARED(hidden_sizes=(8,)).actor_critic(spec(Discrete(4), observation), key=key)

    modules = jax.vmap(build_from)(jax.random.split(KEY, 2))
    values = jax.vmap(lambda module: module.value(obs))(modules)
    np.testing.assert_allclose(values[1], build_from(jax.random.split(KEY, 2)[1]).value(obs), rtol=1e-4, atol=1e-6)
    assert values.shape == (2, 3) and not np.allclose(values[0], values[1])


@pytest.mark.parametrize("observation", [VECTOR, Box((12, 12, 3), "uint8")])
@pytest.mark.parametrize(("builds", "axis", "width", "encoder"), [
    (lambda spec: Networks().critics(spec, 2, key=KEY), 1, 2, lambda critics: critics.members.encoder),
    (lambda spec: Networks().perturbation(spec, key=KEY), 0, 2, lambda xi: xi.encoder),
    (lambda spec: Networks().vae(spec, key=KEY).raw, 0, 4, lambda raw: raw.__self__.generator_encoder),
])  # fmt: skip
def test_several_actions_of_a_state_are_each_as_alone_and_the_state_is_encoded_once(
    observation, builds, axis, width, encoder, monkeypatch
):
    function = builds(spec(BOUNDED, observation))
    obs = jax.random.randint(KEY, (5, *observation.shape), 0, 255).astype(observation.dtype)
    several = jax.random.uniform(KEY, (3, 5, width))
    encoded, reads = [], type(encoder(function)).__call__
    monkeypatch.setattr(
        type(encoder(function)), "__call__", lambda self, x: encoded.append(x.shape[0]) or reads(self, x)
    )
    each = function(obs, several)
    assert set(encoded) == {5}
    alone = jnp.stack([function(obs, one) for one in several], axis)
    np.testing.assert_allclose(each, alone, rtol=1e-4, atol=1e-6)


def test_a_shared_trunk_is_refused_where_networks_stand_apart():
    for build in ("policy", "squashed_actor", "deterministic_actor", "state_value", "vae", "perturbation"):
        with pytest.raises(ConfigError, match="shared_trunk = True: must be False"):
            getattr(SHARED(), build)(spec(BOUNDED), key=KEY)
    for build in ("intentions", "task_values"):
        with pytest.raises(ConfigError, match="shared_trunk = True: must be False"):
            getattr(SHARED(), build)(EnvSpec("Test-v0", VECTOR, BOUNDED, tasks=("a", "b")), key=KEY)


def test_every_network_reads_the_axes_as_the_field_says():
    """Each convolution has as many inputs as the image has channels; without images there is no convolution."""
    box = EnvSpec("", BOARD, Box((2,), low=(-1.0, -1.0), high=(1.0, 1.0)), tasks=("a", "b"))
    discrete = EnvSpec("", BOARD, Discrete(3))

    def inputs(**fields):
        networks = Networks(hidden_sizes=(4,), **fields)
        built = jax.eval_shape(
            lambda: [
                networks.actor_critic(box, key=KEY), networks.critics(box, 2, key=KEY), networks.vae(box, key=KEY),
                networks.actor_q(discrete, key=KEY), networks.state_value(box, key=KEY),
                networks.intentions(box, key=KEY), networks.task_values(box, key=KEY),
                networks.squashed_actor(box, key=KEY),
            ]
        )  # fmt: skip
        return {x.shape[-2] for x in jax.tree.leaves(built) if x.ndim >= 4}

    assert inputs() == inputs(channels="last") == {7} and inputs(channels="first") == {9}
    assert inputs(channels="none") == set()


def test_an_axis_of_another_name_is_refused(unchecked):
    with pytest.raises(ConfigError, match=r"channels = 'middle': must be one of 'first', 'last', 'none' or None"):
        Networks(channels="middle")
