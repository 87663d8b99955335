"""One contract, every algorithm: pure, jittable, one trace, the same tree after an update, on every kind of space."""

from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from algorithms.catalogue import ALL, serves

import duologue as dl
from duologue.types import ACTION_MASK, Box, Dict, Discrete, EnvSpec, MultiDiscrete, Transition

ACTIONS = {
    "discrete": Discrete(3),
    "multi-discrete": MultiDiscrete((2, 3)),
    "box": Box((2,), low=(-1.0, 0.0), high=(1.0, 5.0)),
}
OBSERVATIONS = {
    "vector": Box((5,)),
    "image": Box((10, 10, 2), "uint8"),
    "dict": Dict({"image": Box((10, 10, 1)), "level": Discrete(4), "vector": Box((3,))}),
}
EACH = pytest.mark.parametrize("name", ALL)


def drawn(space, shape, key):
    match space:
        case Dict(spaces):
            return {
                name: drawn(part, shape, jax.random.fold_in(key, i)) for i, (name, part) in enumerate(spaces.items())
            }
        case Discrete(n):
            return jax.random.randint(key, shape, 0, n)
        case MultiDiscrete(nvec):
            whole = (*shape, len(nvec))
            return jax.random.randint(key, whole, 0, jnp.broadcast_to(jnp.asarray(nvec), whole))
        case Box(inner, dtype):
            return (100 * jax.random.uniform(key, (*shape, *inner))).astype(dtype)


ENCODED = {"a2c", "a2c-shared-adam", "normalized-a2c", "acer", "sac-discrete", "sac-x"}
"""Of discrete actions: each has networks of its own making."""


def a_spec(algorithm, observation, action):
    """With two tasks, for an algorithm of several."""
    return EnvSpec("noise", observation, action, tasks=("first", "main") if algorithm.experience.tasks else ())


def batch_shape(experience):
    """`[T, B]`, or what replay gives."""
    if experience.learn_from_rollout:
        return experience.rollout_length, experience.num_envs
    replay = experience.replay
    several = () if replay.batches_per_update is None else (replay.batches_per_update,)
    return (*several, *(() if replay.sequence_length is None else (replay.sequence_length,)), replay.batch_size)


def a_batch(algorithm, spec, state, key):
    """What `update` is given, from an environment of noise, and what its policy knows of it."""
    batch = noise(algorithm, spec, key)
    if not algorithm.experience.extras:
        return batch
    shape = batch.terminated.shape
    obs = jax.tree.map(lambda x: x.reshape(-1, *x.shape[len(shape) :]), batch.obs)
    extras = algorithm.act(state, algorithm.initial_carry(batch.terminated.size), obs, key=key, explore=True)[1]
    return batch._replace(extras=jax.tree.map(lambda x: x.reshape(*shape, *x.shape[1:]), extras))


def noise(algorithm, spec, key):
    shape = batch_shape(algorithm.experience)
    keys = jax.random.split(key, 6)
    return Transition(
        obs=drawn(spec.observation, shape, keys[0]),
        action=drawn(spec.action, shape, keys[1])
        if not isinstance(spec.action, Box)
        else jax.random.normal(keys[1], (*shape, 2)),
        reward=jax.random.normal(keys[2], (*shape, *((len(spec.tasks),) if spec.tasks else ()))),
        terminated=jax.random.bernoulli(keys[3], 0.2, shape),
        truncated=jax.random.bernoulli(keys[4], 0.2, shape),
        next_obs=drawn(spec.observation, shape, keys[5]),
        extras={},
    )


def form(tree):
    return jax.tree.structure(tree), [(x.shape, x.dtype) for x in jax.tree.leaves(tree)]


class Life(NamedTuple):
    """What one program makes of an algorithm: acting, and three updates in a scan."""

    state: Any
    batches: Transition
    """`[3]` of what `update` takes."""
    carry: Any
    acted: dict[bool, tuple]
    """What `act` returns in training and in testing."""
    after: Any
    metrics: dict[str, Any]
    """`[3]` each."""


@cache
def lived(name, observation, action):
    """A function from a key to a `Life`, compiled, and a list with an entry for each trace of `update`."""
    algorithm = ALL[name]
    spec, traces = a_spec(algorithm, OBSERVATIONS[observation], ACTIONS[action]), []
    num_envs = algorithm.experience.num_envs

    @jax.jit
    def life(key):
        def learn(state, batch):
            traces.append(None)
            return algorithm.update(state, batch, key=key)

        state, carry = algorithm.init(spec, key=key), algorithm.initial_carry(num_envs)
        batches = jax.vmap(lambda key: a_batch(algorithm, spec, state, key))(jax.random.split(key, 3))
        obs = drawn(spec.observation, (num_envs,), key)
        acted = {explore: algorithm.act(state, carry, obs, key=key, explore=explore) for explore in (True, False)}
        return Life(state, batches, carry, acted, *jax.lax.scan(learn, state, batches))

    return life, traces


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("observation", OBSERVATIONS)
@EACH
def test_acting_and_updating_on_every_kind_of_space(name, observation, action, key):
    algorithm = ALL[name]
    spec = a_spec(algorithm, OBSERVATIONS[observation], ACTIONS[action])
    if not serves(name, action):
        with pytest.raises(dl.ConfigError, match="not supported"):
            algorithm.init(spec, key=key)
        return
    if observation != "vector" and (action != "discrete" or name not in ENCODED) and (name, action) != ("sac", "box"):
        pytest.skip("neither head nor loss sees the encoder: each way to build networks once")
    life, traces = lived(name, observation, action)
    one = life(key)
    assert len(traces) == 1  # a state of another form would be traced again
    num_envs, drawn = algorithm.experience.num_envs, one.batches.action[(0,) * one.batches.terminated.ndim]
    for out, extras, after in one.acted.values():
        assert (out.shape, out.dtype) == ((num_envs, *drawn.shape), drawn.dtype) and form(after) == form(one.carry)
        assert tuple(sorted(extras)) == tuple(sorted(algorithm.experience.extras))
    assert form(one.after) == form(one.state)
    assert all(m.shape in ((3,), (3, 2)[: 1 + len(spec.tasks)]) for m in one.metrics.values())
    numbers = [
        np.asarray(x) for x in jax.tree.leaves((one.after, one.metrics)) if jnp.issubdtype(x.dtype, jnp.floating)
    ]
    assert all(np.isfinite(x).all() for x in numbers)
    assert differ(one.state, one.after)


def differ(one, other):
    """Whether any number of two states differs."""
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return any((np.asarray(a) != np.asarray(b)).any() for a, b in pairs)


@EACH
def test_the_same_key_gives_the_same_bits_and_scan_is_the_loop(name, key):
    algorithm = ALL[name]
    life, _ = lived(name, "vector", next(kind for kind in ACTIONS if serves(name, kind)))
    one, looped = life(key), life(key).state
    update = jax.jit(lambda state, batch: algorithm.update(state, batch, key=key))
    for k in range(3):
        looped, _ = update(looped, jax.tree.map(lambda x, k=k: np.asarray(x)[k], one.batches))
    for a, b in zip(jax.tree.leaves(one.after), jax.tree.leaves(looped), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert not differ(one, life(key))
    assert differ(one.state, life(jax.random.key(1)).state)


def test_a_field_can_be_swept_by_vmap(key, unchecked):
    spec = EnvSpec("noise", Box((5,)), Discrete(3))
    batch = jax.jit(lambda: noise(ALL["a2c"], spec, key))()

    def norm_after(rate):
        algorithm = dl.A2C(learning_rate=rate, networks=dl.Networks(hidden_sizes=(8,)), rollout_length=4, num_envs=3)
        state = algorithm.init(spec, key=key)
        after, _ = algorithm.update(state, batch, key=key)
        moved = jax.tree.map(lambda a, b: jnp.sum((a - b) ** 2), after.networks.net, state.networks.net)
        return sum(jax.tree.leaves(moved)) ** 0.5

    moved = jax.jit(jax.vmap(norm_after))(jnp.array([1e-4, 2e-4, 4e-4]))
    np.testing.assert_allclose(moved / moved[0], [1, 2, 4], rtol=1e-2)


def test_a_masked_action_is_never_taken(key):
    """`obs["action_mask"]` reaches the policy, in training and in testing, and is not observed."""
    spec = EnvSpec("masked", Dict({"x": Box((2,)), ACTION_MASK: Box((4,), "int8")}), Discrete(4))
    obs = {"x": jax.random.normal(key, (500, 2)), ACTION_MASK: jnp.tile(jnp.array([0, 1, 0, 1], jnp.int8), (500, 1))}
    for algorithm in (ALL[name] for name in ALL if serves(name, "discrete")):
        spec = replace(spec, tasks=a_spec(algorithm, spec.observation, spec.action).tasks)

        @jax.jit
        def actions(key, algorithm=algorithm, spec=spec):
            state, carry = algorithm.init(spec, key=key), algorithm.initial_carry(500)
            return [algorithm.act(state, carry, obs, key=key, explore=explore)[0] for explore in (True, False)]

        for action in actions(key):
            assert set(np.asarray(action).tolist()) <= {1, 3}


def test_spaces_an_algorithm_cannot_serve_are_refused(key):
    for action in (Box((0,)), Box((2,), "int32")):
        with pytest.raises(dl.ConfigError, match="not supported"):
            ALL["a2c"].init(EnvSpec("no", Box((3,)), action), key=key)


@pytest.mark.parametrize(
    ("make", "theirs", "ours"),
    [
        (dl.SAC, "gradient_steps", "updates"),
        (dl.SAC, "ent_coef", "alpha"),
        (dl.PPO, "ent_coef", "entropy_coefficient"),
        (dl.TD3, "policy_noise", "target_noise"),
        (dl.CQL, "cql_alpha", "conservatism"),
        (dl.DDPG, "buffer_size", "replay_capacity"),
    ],
)
def test_the_names_of_other_libraries_are_known(make, theirs, ours):
    with pytest.raises(dl.ConfigError, match=f"no field '{theirs}'. Did you mean '{ours}'"):
        make(**{theirs: 1})


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"gamma": 0.9}, "Did you mean 'discount'"),
        ({"learing_rate": 1e-3}, "Did you mean 'learning_rate'"),
        ({"discount": 1.5}, r"A2C.discount = 1.5: must be a number in \[0, 1\]"),
        ({"rollout_length": 0}, "A2C.rollout_length = 0: must be an integer >= 1"),
        ({"max_gradient_norm": -1.0}, "A2C.max_gradient_norm"),
        ({"discount": "high"}, "A2C.discount = 'high': must be a finite number"),
        ({"networks": 3}, "A2C.networks = 3: must be an AbstractNetworks"),
        ({"test_policy": "best"}, "one of 'greedy', 'sampled'"),
        ({"learning_rate": float("nan")}, "A2C.learning_rate"),
    ],
)
def test_a_mistake_in_a_field_is_one_clear_message(fields, words, unchecked):
    with pytest.raises(dl.ConfigError, match=words):
        dl.A2C(**fields)
