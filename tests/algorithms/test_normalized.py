"""Normalisation through act, observe and update, and through both loops: which numbers the inner algorithm sees."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from envs.probe_env import ProbeEnv
from jaxtyping import Array, Int

import duologue as dl
from duologue.algorithms.base import AbstractAlgorithm
from duologue.algorithms.normalized import Normalized, NormalizedState, empty_moments
from duologue.envs.base import AbstractJaxEnvs
from duologue.envs.gymnasium import GymnasiumEnvs
from duologue.fields import Fraction
from duologue.loops import compiled, host
from duologue.types import ACTION_MASK, Box, Dict, Discrete, EnvSpec, Experience, Metrics, Obs, Step, Transition

T, B, DISCOUNT = 4, 3, 0.8
VECTOR = EnvSpec("noise", Box((2,)), Discrete(2))


class Recorder(AbstractAlgorithm):
    """Learns nothing: counts what it observed, hands on what it saw when it acted, and keeps what it was given.

    Given a list, it keeps every argument there; that is for calls outside of `jit`.
    """

    discount: Fraction = DISCOUNT
    log: Any = None

    @property
    def experience(self) -> Experience:
        return Experience(num_envs=B, rollout_length=T, extras=("seen",))

    def init(self, spec: EnvSpec, *, key: Array) -> Int[Array, ""]:
        return jnp.zeros((), jnp.int32)

    def act(self, state: Array, carry: None, obs: Obs, *, key: Array, explore: bool) -> tuple:
        action = jnp.zeros(jax.tree.leaves(obs)[0].shape[0], jnp.int32)
        return action, {"seen": obs} if explore else {}, carry

    def observe(self, state: Array, carry: None, transition: Transition) -> tuple[Array, None]:
        self._keep("observe", transition)
        return state + transition.reward.shape[0], carry

    def update(self, state: Array, batch: Transition, *, key: Array) -> tuple[Array, Metrics]:
        self._keep("update", batch)
        apart = jax.tree.map(lambda a, b: jnp.abs(a - b).max().astype(jnp.float32), batch.extras["seen"], batch.obs)
        return state, {"difference": jnp.stack(jax.tree.leaves(apart)).max()}

    def _keep(self, what: str, transition: Transition) -> None:
        if self.log is not None:
            self.log.append((what, transition))


def test_images_integers_and_masks_are_left_alone():
    spaces = {
        "image": Box((10, 10, 4)), "bytes": Box((4, 84, 84), "uint8"), "count": Discrete(3), "vector": Box((2,)),
        ACTION_MASK: Box((2,)),
    }  # fmt: skip
    moments = empty_moments(Dict(spaces))
    assert {name for name, part in moments.items() if part is not None} == {"vector"}


def a_rollout(seed):
    """Facts `[T, B]` with both kinds of ends."""
    generator = np.random.default_rng(seed)
    obs, next_obs = (generator.normal(3.0 + seed, 2.0, size=(T, B, 2)).astype(np.float32) for _ in range(2))
    ends = generator.random((2, T, B)) < 0.25
    reward = generator.normal(5.0, 10.0, size=(T, B)).astype(np.float32)
    action = np.zeros((T, B), np.int32)
    return jax.tree.map(jnp.asarray, Transition(obs, action, reward, ends[0], ends[1], next_obs, {}))


def rows(rollout):
    return [jax.tree.map(lambda x, t=t: x[t], rollout) for t in range(T)]


def observed(algorithm, state, carry, rollout, key):
    """Act and observe along a rollout, as a loop does: the state, the carry, and the rollout with its extras."""
    seen = []
    for row in rows(rollout):
        _, extras, carry = algorithm.act(state, carry, row.obs, key=key, explore=True)
        seen.append(extras["seen"])
        state, carry = algorithm.observe(state, carry, row._replace(extras=extras))
    return state, carry, rollout._replace(extras={"seen": jax.tree.map(lambda *x: jnp.stack(x), *seen)})


def discounted_returns(rollouts):
    """Rₜ = γRₜ₋₁ + rₜ in each environment, from 0 after each end: every value of it, in float64."""
    values, running = [], np.zeros(B)
    for rollout in rollouts:
        for row in rows(rollout):
            running = DISCOUNT * running + np.asarray(row.reward, np.float64)
            values.append(running)
            running = np.where(np.asarray(row.terminated) | np.asarray(row.truncated), 0.0, running)
    return np.concatenate(values)


def assert_moments(moments, values, **tolerance):
    tolerance = tolerance or {"rtol": 2e-4, "atol": 2e-5}
    values = np.asarray(values, np.float64)
    assert int(moments.count) == len(values)
    np.testing.assert_allclose(moments.mean, values.mean(0), **tolerance)
    np.testing.assert_allclose(moments.variance, values.var(0), **tolerance)


def flat(rollouts):
    return np.concatenate([np.asarray(r.obs).reshape(-1, 2) for r in rollouts])


@pytest.fixture
def log():
    return []


@pytest.fixture
def algorithm(log, unchecked):
    return Normalized(Recorder(log=log), clip=2.0)


def test_moments_are_those_of_every_transition_and_change_at_the_end_of_update_alone(algorithm, key):
    state, carry = algorithm.init(VECTOR, key=key), algorithm.initial_carry(B)
    rollouts = []
    for k in range(3):
        before = state.current
        state, carry, rollout = observed(algorithm, state, carry, a_rollout(k), key)
        rollouts.append(a_rollout(k))
        # What was observed since is pending: acting and updating still see the old ones.
        for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(state.current), strict=True):
            np.testing.assert_array_equal(a, b)
        assert int(state.pending[0].count) == int(state.pending[1].count) == T * B
        state, metrics = algorithm.update(state, rollout, key=key)
        assert k == 0 or float(metrics["difference"]) == 0.0
        assert_moments(state.current[0], flat(rollouts))
        assert_moments(state.current[1], discounted_returns(rollouts))
        assert int(state.pending[0].count) == int(state.pending[1].count) == 0
        assert int(state.algorithm) == (k + 1) * T * B


def test_the_discounted_sum_goes_on_over_rollouts_and_begins_anew_after_either_end(algorithm, key):
    state, carry = algorithm.init(VECTOR, key=key), algorithm.initial_carry(B)
    still = a_rollout(0)._replace(reward=jnp.ones((T, B)), terminated=jnp.zeros((T, B), bool))
    ends = jnp.zeros((T, B), bool).at[1, 0].set(True)
    _, carry, _ = observed(algorithm, state, carry, still._replace(truncated=ends), key)
    # Environment 0 was cut after its second step: 1 + γ; the others run on: 1 + γ + γ² + γ³.
    np.testing.assert_allclose(carry.discounted_return, [1.8, 2.952, 2.952], rtol=1e-6)
    terminal = still._replace(terminated=ends, truncated=jnp.zeros((T, B), bool))
    _, carry, _ = observed(algorithm, state, carry, terminal, key)
    np.testing.assert_allclose(carry.discounted_return, [1.8, *[2.952 * (1 + 0.8**4)] * 2], rtol=1e-6)


def test_the_inner_algorithm_sees_scaled_numbers_and_the_facts_stay_raw(algorithm, log, key):
    state, carry = algorithm.init(VECTOR, key=key), algorithm.initial_carry(B)
    state, carry, first = observed(algorithm, state, carry, a_rollout(0), key)
    state, _ = algorithm.update(state, first, key=key)
    log.clear()
    # Raised, so that some of it is beyond the clip.
    raw = a_rollout(1)._replace(reward=a_rollout(1).reward * 3)
    kept = jax.tree.map(np.array, raw)
    state, carry, rollout = observed(algorithm, state, carry, raw, key)
    state, _ = algorithm.update(state, rollout, key=key)
    *watched, (what, batch) = log
    assert what == "update" and [name for name, _ in watched] == ["observe"] * T
    before, returns = flat([a_rollout(0)]).astype(np.float64), discounted_returns([a_rollout(0)])

    def normal(x):
        return np.clip((np.asarray(x, np.float64) - before.mean(0)) / np.sqrt(before.var(0)), -2, 2)

    scaled = np.clip(np.asarray(raw.reward, np.float64) / returns.std(), -2, 2)
    assert (np.abs(scaled) == 2).any() and (np.abs(scaled) < 2).any()
    np.testing.assert_allclose(batch.obs, normal(raw.obs), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(batch.next_obs, normal(raw.next_obs), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(batch.reward, scaled, rtol=1e-4, atol=1e-6)
    for t, (_, row) in enumerate(watched):
        np.testing.assert_allclose(row.obs, normal(raw.obs[t]), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(row.reward, scaled[t], rtol=1e-4, atol=1e-6)
    for name in ("terminated", "truncated", "action"):
        np.testing.assert_array_equal(getattr(batch, name), getattr(raw, name))
    jax.tree.map(np.testing.assert_array_equal, raw, kept)


def test_a_replay_is_normalised_from_its_first_update_on(key, unchecked):
    """What acted on it is of many times: there is no one set of moments to keep to, so the newest count."""
    inner, spec = dl.BC(networks=dl.Networks(hidden_sizes=(8,))), EnvSpec("far", Box((2,)), Box((1,)))
    algorithm = Normalized(inner)
    state, carry = algorithm.init(spec, key=key), algorithm.initial_carry(B)
    obs, flags = 50 + 3 * jax.random.normal(key, (20, B, 2)), jnp.zeros((20, B), bool)
    batch = Transition(obs, jnp.ones((20, B, 1)), jnp.ones((20, B)), flags, flags, obs, {})
    for t in range(20):
        state, carry = algorithm.observe(state, carry, jax.tree.map(lambda x, t=t: x[t], batch))
    flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), batch)
    _, metrics = algorithm.update(state, flat, key=key)
    seen = flat._replace(obs=(flat.obs - flat.obs.mean(0)[None]) / flat.obs.std(0)[None])
    _, expected = inner.update(state.algorithm, seen, key=key)
    np.testing.assert_allclose(metrics["cloning_loss"], expected["cloning_loss"], rtol=1e-4)


def test_a_reward_of_one_sign_keeps_it(algorithm, log, key):
    """Rewards are divided, never centred: a task that only pays must not seem to punish."""
    state, carry = algorithm.init(VECTOR, key=key), algorithm.initial_carry(B)
    positive = a_rollout(0)._replace(reward=jnp.abs(a_rollout(0).reward) + 1)
    for _ in range(2):
        state, carry, rollout = observed(algorithm, state, carry, positive, key)
        state, _ = algorithm.update(state, rollout, key=key)
    assert float(log[-1][1].reward.min()) > 0


def test_testing_uses_the_current_statistics_and_leaves_them_alone(key, unchecked):
    algorithm = Normalized(dl.A2C(networks=dl.Networks(hidden_sizes=(8,)), rollout_length=T, num_envs=B))
    state, carry = jax.jit(lambda key: algorithm.init(VECTOR, key=key))(key), algorithm.initial_carry(B)
    for row in rows(a_rollout(0)):
        state, carry = algorithm.observe(state, carry, row)
    state, _ = algorithm.update(state, a_rollout(0), key=key)
    for row in rows(a_rollout(9)):  # pending now, and to be ignored
        state, carry = algorithm.observe(state, carry, row)
    obs = a_rollout(5).obs[0]
    action, _, after = algorithm.act(state, carry, obs, key=key, explore=False)
    seen = flat([a_rollout(0)])
    inner = ((np.asarray(obs) - seen.mean(0)) / seen.std(0)).astype(np.float32)
    expected = state.algorithm.networks.net.policy(jnp.asarray(inner)).mode()
    np.testing.assert_array_equal(action, expected)
    np.testing.assert_array_equal(after.discounted_return, carry.discounted_return)


@pytest.mark.parametrize(("obs", "reward"), [(True, False), (False, True), (False, False)])
def test_each_half_can_be_left_out(obs, reward, log, key, unchecked):
    algorithm = Normalized(Recorder(log=log), obs=obs, reward=reward)
    state, carry = algorithm.init(VECTOR, key=key), algorithm.initial_carry(B)
    for k in range(2):
        state, carry, rollout = observed(algorithm, state, carry, a_rollout(k), key)
        state, metrics = algorithm.update(state, rollout, key=key)
        assert (k == 0 and obs) or float(metrics["difference"]) == 0.0
    batch, raw = log[-1][1], a_rollout(1)
    assert bool((batch.obs == raw.obs).all()) is (not obs)
    assert bool((batch.next_obs == raw.next_obs).all()) is (not obs)
    assert bool((batch.reward == raw.reward).all()) is (not reward)


def test_images_integers_and_masks_are_left_alone_and_parts_keep_their_own_moments(log, key, unchecked):
    inside = Dict({"image": Box((2, 2), "uint8"), "deep": Box((2,))})
    space = Dict({"x": Box((2,)), "level": Discrete(4), ACTION_MASK: Box((2,), "float32"), "inside": inside})
    spec = EnvSpec("parts", space, Discrete(2))
    algorithm = Normalized(Recorder(log=log))
    state, carry = algorithm.init(spec, key=key), algorithm.initial_carry(B)

    def parts(k):
        raw, image = a_rollout(k), np.random.default_rng(k).integers(255, size=(T, B, 2, 2))

        def widen(x):
            return {
                "x": x, "level": jnp.full((T, B), 3), ACTION_MASK: jnp.ones((T, B, 2)),
                "inside": {"image": jnp.asarray(image, jnp.uint8), "deep": x * 10 + 1},
            }  # fmt: skip

        return raw._replace(obs=widen(raw.obs), next_obs=widen(raw.next_obs))

    for k in range(2):
        state, carry, rollout = observed(algorithm, state, carry, parts(k), key)
        state, metrics = algorithm.update(state, rollout, key=key)
        assert k == 0 or float(metrics["difference"]) == 0.0
    batch, raw = log[-1][1], parts(1)
    for name in ("level", ACTION_MASK):
        np.testing.assert_array_equal(batch.obs[name], raw.obs[name])
    np.testing.assert_array_equal(batch.obs["inside"]["image"], raw.obs["inside"]["image"])
    assert batch.obs["inside"]["image"].dtype == jnp.uint8 and batch.obs["level"].dtype == jnp.int32
    seen = flat([a_rollout(0), a_rollout(1)])
    assert_moments(state.current[0]["x"], seen)
    assert_moments(state.current[0]["inside"]["deep"], seen * 10 + 1, rtol=2e-3)
    before = flat([a_rollout(0)])
    np.testing.assert_allclose(
        batch.obs["inside"]["deep"], (np.asarray(raw.obs["x"]) - before.mean(0)) / before.std(0), rtol=1e-3, atol=1e-4
    )


class Scripted(AbstractJaxEnvs):
    """Environment i at its step t sees (i, t mod 5), is paid i + 1, and is cut every fifth step."""

    spec: EnvSpec
    num_envs: int

    def reset(self, key):
        return jnp.zeros((), jnp.int32), self._obs(jnp.zeros((), jnp.int32))

    def step(self, env_state, action, *, key):
        after = env_state + 1
        ended = jnp.full(self.num_envs, after % 5 == 0)
        obs, paid = self._obs(after), jnp.arange(1, self.num_envs + 1).astype(jnp.float32)
        return after, Step(obs, obs, paid, jnp.zeros_like(ended), ended, {})

    def _obs(self, t):
        return jnp.stack([jnp.arange(self.num_envs), jnp.full(self.num_envs, t % 5)], 1).astype(jnp.float32)


def last(loop):
    """The final state, and how far apart acting and learning were after the first interval."""
    difference = 0.0
    for i, (_, state, totals) in enumerate(loop):
        difference += min(i, 1) * float(np.asarray(totals.metrics["difference"]).max())
        algorithm = jax.tree.map(np.asarray, state.algorithm)
    return algorithm, difference


def script(steps):
    """What `Scripted` gives in so many steps, in NumPy: observations and discounted sums."""
    obs, sums, running = [], [], np.zeros(B)
    for t in range(steps):
        obs += [(i, t % 5) for i in range(B)]
        running = DISCOUNT * running + np.arange(1, B + 1)
        sums.append(running)
        running = running * ((t + 1) % 5 != 0)
    return np.array(obs), np.concatenate(sums)


@pytest.mark.parametrize("steps", [T, 5 * T])
def test_the_compiled_loop_observes_every_transition_once(steps, unchecked):
    algorithm, envs = Normalized(Recorder()), Scripted(VECTOR, B)
    for seeds in ([0], [0, 1]):
        state, difference = last(
            compiled.run(algorithm, envs, compiled.start(algorithm, envs, seeds), steps=steps * B, interval=T * B)
        )
        assert difference == 0.0
        for i in range(len(seeds)):
            one = state if len(seeds) == 1 else jax.tree.map(lambda x, i=i: x[i], state)
            check(one, steps)


def check(state: NormalizedState, steps: int):
    obs, sums = script(steps)
    assert int(state.algorithm) == steps * B
    assert_moments(state.current[0], obs, rtol=1e-4)
    assert_moments(state.current[1], sums, rtol=1e-4)
    assert int(state.pending[0].count) == 0


class OnHost(GymnasiumEnvs):
    """The same script, over Gymnasium's environments of no importance."""

    def __init__(self):
        super().__init__(lambda: ProbeEnv("constant"), B, seed=0)
        self.spec, self.script, self.now = VECTOR, Scripted(VECTOR, B), 0

    def reset(self):
        super().reset()
        return np.asarray(self.script._obs(jnp.asarray(0)))

    def step(self, action):
        super().step(action)
        _, step = self.script.step(jnp.asarray(self.now, jnp.int32), action, key=None)
        self.now += 1
        return jax.tree.map(np.asarray, step)


@pytest.mark.parametrize("steps", [T, 5 * T])
def test_the_host_loop_observes_every_transition_once(steps, unchecked):
    """Though `observe` rides in the next call that acts, and the last one of a rollout in the call that learns."""
    algorithm, envs = Normalized(Recorder()), OnHost()
    state, difference = last(
        host.run(algorithm, envs, host.start(algorithm, envs, [0]), steps=steps * B, interval=T * B)
    )
    assert difference == 0.0
    check(state, steps)
