"""One property of every space and every algorithm: supported from the first step to loading again, or refused by name.

A draw takes the real ways: `dl.train` with its checks, the first state of the host loop, one step, the checkpoint,
`dl.load`. Every new space would be a new program, so nothing is compiled whole, and learning is traced alone.
"""

import math
from contextlib import contextmanager
from dataclasses import replace

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from algorithms.catalogue import ALL, serves
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from runs import any_env
from runs.helpers import quiet

import duologue as dl
from duologue.images import WIDEST, integer_sizes
from duologue.loops import host
from duologue.loops.exploration import randomize_first_actions
from duologue.loops.keys import key_for
from duologue.loops.learning import learn
from duologue.loops.state import Totals
from duologue.networks import layers
from duologue.networks.encoders import make_encoder
from duologue.runs import drive, policy
from duologue.types import ACTION_MASK, Box, Dict, Transition

TINY = dl.Networks(hidden_sizes=(4,), init="lecun")
LARGEST_FEATURE = 10.0


def main(obs, action, reward, next_obs, terminated, info):
    return reward


def tiny(algorithm):
    """An algorithm of the catalogue with one environment, and networks that are quick to make."""
    if hasattr(algorithm, "algorithm"):
        return replace(algorithm, algorithm=tiny(algorithm.algorithm))
    small = {name: TINY for name in ("networks", "vae_networks") if hasattr(algorithm, name)}
    small |= {"num_envs": 1} if hasattr(algorithm, "num_envs") else {}
    small |= {"minibatch_size": 2} if hasattr(algorithm, "minibatch_size") else {}
    return replace(algorithm, **small)


ALGORITHMS = {name: tiny(algorithm) for name, algorithm in ALL.items()}


class OneStep:
    """The host loop up to its first step, and the shapes of what it would learn from it."""

    def __init__(self, learns):
        self.learns = learns
        self.start, self.shapes, self.restore = host.start, host.shapes, host.restore

    def run(self, algorithm, envs, state, *, steps, interval, interrupted):
        key, obs = key_for(state.key, "act"), jax.tree.map(jnp.asarray, state.obs)
        action, extras, carry = algorithm.act(state.algorithm, state.carry, obs, key=key, explore=True)
        action = randomize_first_actions(algorithm, envs.spec, obs, action, key=key, steps=jnp.int32(0))
        seen = envs.step(np.asarray(action))
        row = Transition(obs, action, seen.reward, seen.terminated, seen.truncated, seen.next_obs, extras)
        row = jax.tree.map(jnp.asarray, row)
        learner, carry = algorithm.observe(state.algorithm, carry, row)
        if self.learns:
            trace_update(algorithm, envs.spec, replace(state, algorithm=learner), row)
        state = replace(state, algorithm=learner, carry=carry, obs=seen.obs, step=np.int32(steps))
        none = np.zeros((), np.int32)
        yield steps, state, Totals(none, np.zeros(len(envs.spec.tasks) or ()), none, none, {}, None, None)


def trace_update(algorithm, spec, state, row):
    """Trace an update; its result has the form of the state."""
    rollout = jax.tree.map(lambda x: np.repeat(np.asarray(x)[None], algorithm.experience.rollout_length, 0), row)
    with jax.disable_jit(False):
        after = jax.eval_shape(
            lambda *given: learn(
                algorithm, *given, key=state.key, steps=jnp.int32(10**6), tasks=spec.tasks
            ).learner,
            state.algorithm, state.replay, rollout,
        )  # fmt: skip
    form = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype), tree)  # noqa: E731
    assert form(after) == form(state.algorithm)


def on_device(function):
    """`function` of JAX arrays in place of NumPy's, as a compiled function gets them."""
    is_numpy = lambda x: isinstance(x, np.ndarray)  # noqa: E731
    return lambda *args: function(*jax.tree.map(lambda x: jnp.asarray(x) if is_numpy(x) else x, args))


def quick_weights(key, shape, dtype):
    """First weights that look random: the random numbers of JAX would take most of the time."""
    row, column = (jax.lax.broadcasted_iota(dtype, shape, axis) for axis in (0, len(shape) - 1))
    return jnp.sin(1.7 * row + 2.3 * column + 1) / math.sqrt(math.prod(shape[:-1]))


@contextmanager
def one_step(learns):
    """Runs inside make one step, primitive by primitive; if it `learns`, an update is traced."""
    with pytest.MonkeyPatch.context() as patch, jax.disable_jit():
        patch.setattr(drive, "choose_loop", lambda envs: OneStep(learns))
        patch.setitem(layers.INITIALIZERS, "lecun", quick_weights)
        for owner, name in ((policy, "_act"), (policy, "_call_method"), (dl.tasks.Tasks, "rewards")):
            patch.setattr(owner, name, on_device(getattr(owner, name)))
        yield


KINDS = ("box", *["bounded"] * 3, *["discrete"] * 2, *["multi-discrete"] * 2, "foreign")


@st.composite
def draws(draw):
    """A space of observations, one of actions, and an algorithm; four of five take actions of this kind."""
    kind = draw(st.sampled_from(KINDS))
    base = {"bounded": "box", "foreign": "box"}.get(kind, kind)
    fitting = [name for name in ALGORITHMS if serves(name, base)]
    name = draw(st.sampled_from(fitting) if draw(st.integers(0, 9)) else st.sampled_from(sorted(ALGORITHMS)))
    action = draw(any_env.ACTIONS[kind])
    return draw(any_env.observations(action)), action, name, draw(st.integers(0, 999))


def check(drawn, folder):
    """The property."""
    observation, action, name, seed = drawn
    algorithm, made = ALGORITHMS[name], []
    tasks = dl.tasks.Tasks(main) if algorithm.experience.tasks else None

    def make():
        made.append(any_env.AnyEnv(observation, action, seed))
        return made[-1]

    try:
        run = dl.train(algorithm, make, steps=1, tasks=tasks, run_dir=folder, console=quiet())
    except dl.DuologueError as error:
        assert not folder.exists() and not sum(env.steps for env in made), error
        refused_by_name(str(error), observation, action)
        return "refused: " + str(error)
    env = dl.tasks.Tasks(main).attach(make) if tasks else make
    supported(run, dl.load(folder, env=env), made[0])
    return "supported"


def refused_by_name(message, observation, action):
    """The message names a part of the observation that is at fault; where there is none, the action or its mask."""
    faults = list(any_env.places_at_fault(observation))
    if faults:
        assert any(f"{place} {rest}" in message + " " for place in faults for rest in ("space", "is not", "has")), (
            message
        )
    else:
        assert "action" in message.lower(), message


def supported(run, loaded, env):
    obs = env.member()
    for each in (run.policy(obs), run.sample(obs)):
        assert env.action_space.contains(each), (each, env.action_space)
        for method in (run.log_prob, run.q):
            finite_if_any(method, obs, each)
    finite_if_any(run.v, obs)
    np.testing.assert_array_equal(run.policy(obs), loaded.policy(obs))
    np.testing.assert_array_equal(run.sample(obs), loaded.sample(obs))
    assert jax.tree.structure(run.state) == jax.tree.structure(loaded.state)
    for one, other in zip(jax.tree.leaves(run.state), jax.tree.leaves(loaded.state), strict=True):
        np.testing.assert_array_equal(one, other)
    batch = policy.checked_batch(run.plan.spec, obs)[0]
    features_are_small(run.plan.spec.observation, jax.tree.map(jnp.asarray, batch))


def finite_if_any(method, *arguments):
    try:
        values = method(*arguments)
    except dl.ConfigError as error:
        assert "cannot compute" in str(error), error
        return
    assert np.isfinite(values).all(), (method, values)


def features_are_small(space, obs):
    """Bytes, integers and one-hot vectors enter the networks as numbers of order 1."""
    if isinstance(space, Dict):
        for name, part in space.spaces.items():
            if name != ACTION_MASK:
                features_are_small(part, obs[name])
    elif not isinstance(space, Box) or has_small_integers(space):
        features = make_encoder(space, init="lecun", key=jax.random.key(0))(obs)
        assert features.shape[0] == 1 and (np.abs(features) <= LARGEST_FEATURE).all(), (space, obs, features)


def has_small_integers(space):
    """Whether a Box holds integers whose bounds are known and of at most two bytes. Wider ones stay as they are, and
    the run says so."""
    return not space.dtype.startswith("float") and max(integer_sizes(space), default=0) <= WIDEST


def hold(count, folder, seed):
    """Try the property on `count` draws, those of a `seed`."""

    @settings(
        max_examples=count,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        database=None,
    )
    @hypothesis.seed(seed)
    @given(draws())
    def holds(drawn):
        with one_step(learns=drawn[-1] % 3 == 0):
            check(drawn, folder.mktemp("any") / "run")

    holds()


@pytest.mark.parametrize("part", range(10))  # several tests, so that their file does not come last in a parallel run
def test_any_space_is_supported_or_refused_by_name(part, tmp_path_factory):
    hold(10, tmp_path_factory, 1000 + part)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
def test_many_spaces_are_supported_or_refused_by_name(seed, tmp_path_factory):
    hold(250, tmp_path_factory, seed)
