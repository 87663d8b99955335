"""ACER and ACERContinuous: gradients through `update` against float64, the truncated estimator against the exact policy
gradient, the trust region, the average policy, and how often and from what they learn again."""

import functools
from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from algorithms.by_hand import (
    CENTRE,
    HALF,
    as_numpy,
    assert_gradient,
    assert_same,
    begun,
    float64,
    gradients,
    mlp,
    noise,
    perturbed,
    q,
)  # fmt: skip
from algorithms.by_hand import SPEC as BOX
from jax.flatten_util import ravel_pytree
from scipy import stats
from scipy.special import softmax

import duologue as dl
from duologue.algorithms.acer import kl_gradient, objective, ratios
from duologue.loops import learning, replay_ring
from duologue.loops.keys import purpose_key
from duologue.ops.distributions import Categorical
from duologue.types import Box, Dict, Discrete, EnvSpec, MultiDiscrete, Transition

T, B, A, D = 6, 5, 4, 2
SPEC = EnvSpec("discrete", Box((3,)), Discrete(A))
MASKED = EnvSpec("masked", Dict({"x": Box((3,)), "action_mask": Box((A,), "int8")}), Discrete(A))
NETWORKS = dl.Networks(hidden_sizes=(6,), activation="tanh", initial_log_std=-0.7)
OPTIONS = dict(
    networks=NETWORKS, optimizer=dl.Adam(eps=1e-3), max_gradient_norm=None, learning_rate=0.01, discount=0.9,
    lambda_=0.8, truncation=1.5, trust_region=0.3, average_decay=0.8, q_coefficient=0.7, reward_scale=2.0,
    reward_clip=1.5, rollout_length=T, num_envs=B,
)  # fmt: skip
ACER = dl.ACER(entropy_coefficient=0.05, **OPTIONS)
CONTINUOUS = dl.ACERContinuous(samples=3, **OPTIONS | {"truncation": 1.2})


def a_batch(spec, length=T, size=B, seed=0):
    """`[T, B]` with ends of all four kinds in its midst and in its last row, of a behaviour that is not the policy."""
    generator, shape = np.random.default_rng(seed), (length, size)
    ends = generator.random((2, *shape)) < 0.15
    for row in (length // 2, -1):
        ends[:, row, :4] = np.array([[False, True, False, True], [False, False, True, True]])[:, :size]
    obs, next_obs = generator.normal(size=(2, *shape, 3)).astype(np.float32)
    if spec is BOX:
        loc = CENTRE + HALF * generator.uniform(-0.6, 0.6, (*shape, D))
        scale = np.broadcast_to(0.5 * HALF, loc.shape)
        action, extras = loc + scale * generator.normal(size=loc.shape), {"loc": loc, "scale": scale}
    else:
        probs = generator.dirichlet(np.ones(A), size=shape)
        if spec is MASKED:
            mask = generator.random((2, *shape, A)) < 0.6
            mask[..., 0], mask[..., A - 1] = True, False
            obs, next_obs = (
                {"x": x, "action_mask": m.astype(np.int8)} for x, m in zip((obs, next_obs), mask, strict=True)
            )
            probs = probs * mask[0] / (probs * mask[0]).sum(-1, keepdims=True)
        action, extras = (generator.random((*shape, 1)) > probs.cumsum(-1) + 1e-7).sum(-1), {"probs": probs}
    extras = {name: x.astype(np.float32) for name, x in extras.items()}
    action = action.astype(np.float32 if spec is BOX else np.int32)
    reward = 2 * generator.normal(size=shape).astype(np.float32)
    return jax.tree.map(jnp.asarray, Transition(obs, action, reward, *ends, next_obs, extras))


def started(algorithm, spec, key):
    """Networks far from their initial values, and an average that is another policy."""
    state = begun(algorithm, spec, key)
    by = 0.3 if spec is BOX else 0.8
    networks, average = perturbed(state.networks.net, 1, by=by), perturbed(state.average, 2, by=by)
    return eqx.tree_at(lambda s: (s.networks.net, s.average), state, (networks, average))


@functools.cache
def compiled(algorithm):
    """Its update, compiled once for all tests."""
    return jax.jit(algorithm.update)


def stepped(algorithm, state, batch, key):
    return compiled(algorithm)(state, batch, key=key)


def assert_step(after, loss, before):
    """`assert_gradient`, where the optimiser sees all parameters as one vector; and they moved by Adam's step, once."""
    old, new = (ravel_pytree(state.networks.net)[0] for state in (before, after))
    (g,) = gradients(after.networks)
    np.testing.assert_allclose(new - old, -OPTIONS["learning_rate"] * g / (np.abs(g) + 1e-3), rtol=1e-3, atol=1e-5)
    shapes = [x.shape for x in jax.tree.leaves(before.networks.net)]
    ends = np.cumsum([np.prod(shape) for shape in shapes]).astype(int)[:-1]

    def of_vector(leaves):
        return loss([x.reshape(shape) for x, shape in zip(np.split(leaves[0], ends), shapes, strict=True)])

    assert_gradient(after.networks, of_vector, old)


def returns(algorithm, rows, trace, taken, next_value):
    """Algorithm 1 of the paper, one environment at a time: rⱼ + γ G, then G ← c (G − Q) + V for the row before."""
    reward = np.clip(algorithm.reward_scale * rows.reward, -algorithm.reward_clip, algorithm.reward_clip)
    target = np.zeros_like(reward)
    for b in range(reward.shape[1]):
        for t in reversed(range(len(reward))):
            if rows.terminated[t, b]:
                after = 0.0
            elif rows.truncated[t, b] or t == len(reward) - 1:
                after = next_value[t, b]
            else:
                after = trace[t + 1, b] * (target[t + 1, b] - taken[t + 1, b]) + next_value[t, b]
            target[t, b] = reward[t, b] + algorithm.discount * after
    return target


def projected(g, k, delta):
    """Row by row: what of g along k is beyond δ is taken away."""
    z, bound = g.copy(), np.zeros(g.shape[:-1], bool)
    for i in np.ndindex(*bound.shape):
        if k[i] @ g[i] > delta:
            z[i] -= (k[i] @ g[i] - delta) / (k[i] @ k[i]) * k[i]
            bound[i] = True
    return z, bound


# ACER.


def pi_and_q(leaves, obs):
    x = obs["x"] if isinstance(obs, dict) else obs
    logits = mlp(leaves[:4], x)
    return softmax(np.where(obs["action_mask"] > 0, logits, -np.inf) if isinstance(obs, dict) else logits, -1), mlp(
        leaves[4:], x
    )


def acer_loss(algorithm, state, batch, wrong=None):
    """`(loss of leaves, facts)`: equations 4 to 9 and 12; `wrong` plants a bug."""
    rows, at = as_numpy(batch), float64(state.networks.net)
    (pi, values), (next_pi, next_values) = pi_and_q(at, rows.obs), pi_and_q(at, rows.next_obs)
    mu, one_hot = rows.extras["probs"], np.eye(A)[np.asarray(batch.action)]
    v, next_v = (pi * values).sum(-1), (next_pi * next_values).sum(-1)
    rho = np.where(pi > 0, pi / np.where(pi > 0, mu, 1), 0)
    taken, rho_taken = (values * one_hot).sum(-1), (rho * one_hot).sum(-1)
    target = returns(algorithm, rows, algorithm.lambda_ * np.minimum(1, rho_taken), taken, next_v)

    c, allowed = algorithm.truncation, pi > 0
    of_bias = np.where(one_hot > 0, target[..., None], values) if wrong == "bias by the return" else values
    share = np.where(rho > c, 1 - c / np.where(rho > c, rho, 1), 0)
    safe = np.where(allowed, pi, 1)
    g = one_hot * (np.minimum(c, rho_taken) * (target - v))[..., None] / safe
    g += (wrong != "no bias term") * share * (of_bias - v[..., None])  # [1 − c/ρ]₊ π ∇log π, and ∇log π = 1/π
    g -= (wrong != "no entropy") * algorithm.entropy_coefficient * np.where(allowed, np.log(safe) + 1, 0)
    k = -np.where(allowed, pi_and_q(float64(state.average), rows.obs)[0] / safe, 0)
    delta = np.inf if algorithm.trust_region is None else algorithm.trust_region
    z, bound = projected(g, k, delta * (T * B if wrong == "delta of a mean" else 1))

    def loss(leaves):
        pi, values = pi_and_q(leaves, rows.obs)
        taken = (values * one_hot).sum(-1)
        return -(z * pi).sum(-1).mean() + algorithm.q_coefficient * (0.5 * (target - taken) ** 2).mean()

    critic_loss = (0.5 * (target - taken) ** 2).mean()
    return loss, {"bound": bound, "rho": rho_taken, "cut": share > 0, "critic_loss": critic_loss}


@pytest.mark.parametrize("spec", [SPEC, MASKED], ids=["all", "masked"])
def test_the_gradient_is_that_of_the_paper_by_hand(spec, key):
    """And not that of the famous bugs: the batch can tell."""
    state, batch = started(ACER, spec, key), a_batch(spec)
    after, metrics = stepped(ACER, state, batch, key)
    loss, facts = acer_loss(ACER, state, batch)
    assert 0.1 < facts["bound"].mean() < 0.9 and facts["cut"].mean() > 0.1
    assert (facts["rho"] > ACER.truncation).any() and (facts["rho"] < 1).any()
    assert_step(after, loss, state)
    np.testing.assert_allclose(metrics["critic_loss"], facts["critic_loss"], rtol=1e-4)
    np.testing.assert_allclose(metrics["bound_by_trust_region"], facts["bound"].mean(), rtol=1e-6)
    np.testing.assert_allclose(metrics["rho"], np.minimum(facts["rho"], ACER.truncation).mean(), rtol=1e-4)
    average, policy = (pi_and_q(float64(s), as_numpy(batch).obs)[0] for s in (state.average, state.networks.net))
    np.testing.assert_allclose(metrics["kl_mean"], stats.entropy(average, policy, axis=-1).mean(), rtol=1e-3)
    for wrong in ("bias by the return", "no bias term", "no entropy", "delta of a mean"):
        with pytest.raises(AssertionError):
            assert_step(after, acer_loss(ACER, state, batch, wrong)[0], state)


def test_the_trust_region_binds_where_it_is_narrow_and_is_nothing_where_it_is_wide(key):
    state, batch = started(ACER, SPEC, key), a_batch(SPEC)

    def of(delta):
        after, metrics = stepped(replace(ACER, trust_region=delta), state, batch, key)
        return ravel_pytree(after.networks.net)[0], float(metrics["bound_by_trust_region"])

    (one, some), (narrow, most), (huge, none), (without, zero) = map(of, (1.0, 0.001, 1e30, None))
    assert 0 < some < most and none == zero == 0
    assert float(jnp.abs(one - narrow).max()) > 1e-3 and float(jnp.abs(one - without).max()) > 1e-3
    np.testing.assert_allclose(huge, without, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("algorithm", "spec"), [(ACER, SPEC), (CONTINUOUS, BOX)], ids=["discrete", "continuous"])
def test_the_average_policy_is_the_weighted_sum_of_all_that_were(algorithm, spec, key):
    """θ̄ₙ = αⁿ θ₀ + (1 − α) Σ αⁿ⁻ⁱ θᵢ, after each gradient step, one an update."""

    def policy(state):
        return state.networks.net.actor if spec is BOX else state.networks.net

    state = begun(algorithm, spec, key)
    assert_same(state.average, policy(state))
    state = eqx.tree_at(policy, state, perturbed(policy(state), 3))
    state = eqx.tree_at(lambda s: s.average, state, policy(state))
    seen, decay = [policy(state)], algorithm.average_decay
    for i in range(4):
        state, _ = stepped(algorithm, state, a_batch(spec, seed=i), key)
        assert int(state.networks.opt_state[0].count) == i + 1
        seen.append(policy(state))
    weights = [decay**4, *((1 - decay) * decay ** (4 - i) for i in range(1, 5))]
    expected = jax.tree.map(lambda *x: sum(w * y for w, y in zip(weights, x, strict=True)), *seen)
    assert_same(state.average, expected, rtol=1e-4, atol=1e-6)
    assert np.abs(ravel_pytree(state.average)[0] - ravel_pytree(policy(state))[0]).max() > 1e-3


@pytest.mark.parametrize(
    "behaviour", [[0.25, 0.25, 0.25, 0.25], [0.9, 0.05, 0.049, 0.001], [0.01, 0.02, 0.07, 0.9], [0.5, 0.5, 0.0, 0.0]]
)
def test_truncation_and_its_correction_are_the_policy_gradient_whatever_c_is(behaviour, unchecked):
    """E over a ~ μ of ĝ = Σₐ ∇π(a) (Q(a) − V), with an exact Q."""
    logits, values = jnp.array([0.3, -1.2, 0.8, 0.1]), jnp.array([1.0, -2.0, 0.5, 3.0])
    pi, mu = jax.nn.softmax(logits), jnp.array(behaviour)

    def each(x):
        return jnp.broadcast_to(x, (A, 1, A))

    @jax.jit
    @jax.grad
    def ascent(logits, c):
        of_each = objective(
            each(jax.nn.softmax(logits)), each(pi), ratios(each(pi), each(mu)), jnp.arange(A)[:, None],
            values[:, None], each(values), truncation=c, entropy_coefficient=0.0,
        )  # fmt: skip
        return jnp.sum(mu * of_each[:, 0])

    exact = pi * (values - jnp.sum(pi * values))
    for c in (0.5, 1.0, 2.0, 10.0, 1e6):
        np.testing.assert_allclose(ascent(logits, c), exact, atol=1e-4)


def test_the_direction_of_the_trust_region_is_the_derivative_of_the_divergence(key):
    """Along all that keeps the sum of the probabilities, and finite where one is 0."""
    average, probs = jax.random.dirichlet(key, 3 * jnp.ones(A), (2, T, B))
    k = kl_gradient(average, probs)
    for v in jax.random.normal(jax.random.key(1), (5, T, B, A)):
        v = v - jnp.broadcast_to(v.mean(-1, keepdims=True), v.shape)

        def kl(probs):
            return Categorical(jnp.log(average)).kl(Categorical(jnp.log(probs)))

        np.testing.assert_allclose(jnp.sum(k * v, axis=-1), jax.jvp(kl, (probs,), (v,))[1], rtol=2e-3, atol=2e-3)
    never = kl_gradient(jnp.array([[[0.0, 0.5, 0.5]]]), jnp.array([[[0.0, 0.0, 1.0]]]))[0, 0]
    assert never[0] == 0 and jnp.isfinite(never).all() and never[1] < -1e4


def test_a_masked_action_gets_no_gradient(key):
    """The last is never allowed: its weights stay to the bit, and its probability 0."""
    state, batch = started(ACER, MASKED, key), a_batch(MASKED)
    after, metrics = stepped(ACER, state, batch, key)
    last, before = after.networks.net.network.actor.output, state.networks.net.network.actor.output
    assert (last.weight[:, -1] == before.weight[:, -1]).all() and last.bias[-1] == before.bias[-1]
    assert (last.weight[:, 0] != before.weight[:, 0]).all()
    assert all(jnp.isfinite(x).all() for x in jax.tree.leaves((after, metrics)))
    probs = after.networks.net.policy(batch.obs).probs
    assert (probs[batch.obs["action_mask"] == 0] == 0).all()


@pytest.mark.parametrize("sharp", [1.0, 300.0])
def test_no_probability_is_too_small(sharp, key):
    """Of the behaviour, for actions taken and not; of the policy, where they underflow to 0."""
    state, batch = started(ACER, SPEC, key), a_batch(SPEC)
    networks = [lambda s: s.networks.net.network.actor.output.weight, lambda s: s.average.network.actor.output.weight]
    for of in networks:
        state = eqx.tree_at(of, state, sharp * of(state))
    assert bool((state.networks.net.policy(batch.obs).probs == 0).any()) == (sharp > 1)
    probs = batch.extras["probs"].at[::2, :, 0].set(0.0).at[1::2, :, 1].set(1e-42)
    action = jnp.where(jnp.arange(B) % 2 == 0, 0, batch.action[:, 0].max()).astype(jnp.int32)
    rare = batch._replace(extras={"probs": probs}, action=jnp.broadcast_to(action, (T, B)))
    for algorithm in (ACER, replace(ACER, trust_region=None)):
        after, metrics = stepped(algorithm, state, rare, key)
        assert all(jnp.isfinite(x).all() for x in jax.tree.leaves((after, metrics)))


@pytest.mark.parametrize(("algorithm", "spec"), [(ACER, SPEC), (CONTINUOUS, BOX)], ids=["discrete", "continuous"])
def test_the_successor_of_a_termination_is_never_read_and_any_other_is(algorithm, spec, key):
    state, batch = started(algorithm, spec, key), a_batch(spec)

    def after(where):
        next_obs = jnp.where(jnp.broadcast_to(where[..., None], batch.next_obs.shape), jnp.nan, batch.next_obs)
        return stepped(algorithm, state, batch._replace(next_obs=next_obs), key)

    assert_same(after(batch.terminated), stepped(algorithm, state, batch, key))
    for others in (batch.truncated & ~batch.terminated, ~batch.truncated & ~batch.terminated):
        assert jnp.isnan(after(others)[1]["critic_loss"])


def test_acting_keeps_the_probabilities_that_it_draws_from(key):
    """The whole vector, and the most probable action when tested."""
    state, many = started(ACER, MASKED, key), 20_000
    rows = {"x": jnp.array([[0.1, -0.4, 0.5]]), "action_mask": jnp.array([[1, 1, 1, 0]], jnp.int8)}
    obs = jax.tree.map(lambda x: jnp.broadcast_to(x, (many, x.shape[-1])), rows)
    action, extras, _ = ACER.act(state, None, obs, key=key, explore=True)
    assert set(extras) == set(ACER.experience.extras) == {"probs"}
    expected = pi_and_q(float64(state.networks.net), jax.tree.map(lambda x: np.asarray(x, np.float64), rows))[0][0]
    np.testing.assert_allclose(extras["probs"], np.broadcast_to(expected, (many, A)), atol=1e-6)
    counts = np.bincount(action, minlength=A)
    assert counts[-1] == 0 and (counts[:-1] > 100).all()
    assert stats.chisquare(counts[:-1], many * expected[:-1] / expected[:-1].sum()).pvalue > 1e-3
    assert (ACER.act(state, None, obs, key=key, explore=False)[0] == expected.argmax()).all()


def test_what_it_says_of_observations_and_actions_is_what_it_learns(key):
    """log π, Q and V of a batch `[N]`."""
    state, batch = started(ACER, SPEC, key), jax.tree.map(lambda x: x[0], a_batch(SPEC))
    pi, values = pi_and_q(float64(state.networks.net), np.asarray(batch.obs, np.float64))
    chosen = np.arange(B), np.asarray(batch.action)
    np.testing.assert_allclose(ACER.log_prob(state, batch.obs, batch.action), np.log(pi[chosen]), rtol=1e-4)
    np.testing.assert_allclose(ACER.q(state, batch.obs, batch.action), values[chosen][None], rtol=1e-4)
    np.testing.assert_allclose(ACER.v(state, batch.obs), (pi * values).sum(-1), rtol=1e-4)


# Learning again.


class Counting(dl.ACER):
    """Fed as ACER is, and only counts."""

    def init(self, spec, *, key):
        return jnp.int32(0)

    def act(self, state, carry, obs, *, key, explore):
        return jnp.zeros(obs.shape[0], jnp.int32), {"probs": jnp.ones((obs.shape[0], A))}, carry

    def update(self, state, batch, *, key):
        assert batch.reward.shape in ((2, 3), (2, 5)) and batch.extras["probs"].shape == (*batch.reward.shape, A)
        return state + 1, {"one": jnp.ones(())}


def test_replayed_updates_are_as_many_as_a_poisson_law_draws():
    """After the one of the rollout; none before learning starts, none for a ratio of 0."""
    news, keys = a_batch(SPEC, length=2, size=3), jax.random.split(jax.random.key(5), 4000)

    def counts(steps, ratio=4.0):
        algorithm = Counting(rollout_length=2, num_envs=3, batch_size=5, replay_capacity=12, learning_starts=100,
                             replay_ratio=ratio)  # fmt: skip
        ring = replay_ring.empty_ring(algorithm, jnp.int32(0), None, news.obs[0], SPEC)

        def one(key):
            outcome = learning.learn(algorithm, jnp.int32(0), ring, news, key=key, steps=jnp.int32(steps))
            return outcome.learner, outcome.updates, outcome.metrics["one"].astype(jnp.int32)

        made, said, summed = map(np.asarray, jax.jit(jax.vmap(one))(keys))
        np.testing.assert_array_equal(made, said)
        np.testing.assert_array_equal(made, summed)
        return made

    assert (counts(99) == 1).all() and (counts(100, ratio=0.0) == 1).all()
    drawn = counts(100) - 1
    assert abs(drawn.mean() - 4) < 0.13 and abs(drawn.var() - 4) < 0.4
    expected = np.append(stats.poisson(4.0).pmf(np.arange(10)), stats.poisson(4.0).sf(9))
    observed = np.bincount(np.minimum(drawn, 10), minlength=11)
    assert stats.chisquare(observed, len(drawn) * expected).pvalue > 1e-3


@pytest.mark.parametrize(("algorithm", "spec"), [(ACER, SPEC), (CONTINUOUS, BOX)], ids=["discrete", "continuous"])
def test_to_learn_again_is_the_same_update_on_what_was_stored(algorithm, spec):
    """A ring of one rollout of one environment gives that back, extras and all: n updates are n of the rollout."""
    again = replace(algorithm, num_envs=1, batch_size=1, replay_capacity=T, learning_starts=0)
    state, news = started(again, spec, jax.random.key(0)), a_batch(spec, size=1)
    ring = replay_ring.empty_ring(again, state, None, news.obs[0], spec)
    key, steps = jax.random.key(2), jnp.int32(T)
    outcome = jax.jit(lambda: learning.learn(again, state, ring, news, key=key, steps=steps))()
    updates = int(outcome.updates)
    assert updates >= 4 and int(outcome.learner.networks.opt_state[0].count) == updates
    assert_same(outcome.ring.data, news)
    of_replay = purpose_key(key, "replay")
    state, _ = stepped(again, state, news, key)
    for i in range(updates - 1):
        state, _ = stepped(again, state, news, jax.random.split(jax.random.fold_in(of_replay, i))[1])
    assert_same(outcome.learner, state, rtol=1e-3, atol=1e-5)


def test_sequences_hold_ends_unfinished_episodes_and_the_behaviour_of_their_time(key):
    """Two rollouts in the ring: every start is drawn, so that any row comes first and last."""
    algorithm = replace(ACER, batch_size=2000, replay_capacity=2 * T * B)
    state, rollouts = started(algorithm, SPEC, key), [a_batch(SPEC, seed=i) for i in range(2)]
    ring = replay_ring.empty_ring(algorithm, state, None, rollouts[0].obs[0], SPEC)
    for rollout in rollouts:
        ring = learning.rings.add(ring, rollout)
    seen = learning.sample_batch(ring, algorithm.experience.replay, key)
    assert seen.reward.shape == (T, 2000) and seen.extras["probs"].shape == (T, 2000, A)
    stored = jax.tree.map(lambda *x: np.concatenate(x), *rollouts)
    where = {float(r): (t, b) for (t, b), r in np.ndenumerate(stored.reward)}
    rows, envs = np.array([where[float(r)] for r in np.ravel(seen.reward)]).T.reshape(2, T, 2000)
    assert (np.diff(rows, axis=0) == 1).all() and (np.diff(envs, axis=0) == 0).all()
    assert set(rows[0]) == set(range(T + 1)) and rows[-1].max() == 2 * T - 1
    assert_same(seen, jax.tree.map(lambda x: x[rows, envs], stored))
    for flag in (seen.terminated, seen.truncated):
        assert flag[-1].any() and flag[:-1].any()
    assert (~seen.terminated[-1] & ~seen.truncated[-1] & (rows[-1] == 2 * T - 1)).any()


# ACERContinuous.


def normal(leaves, obs):
    """Mean and deviation, in environment units."""
    return CENTRE + HALF * mlp(leaves[:4], obs), HALF * np.exp(leaves[4])


def density(loc, scale, action):
    return np.prod(np.exp(-0.5 * ((action - loc) / scale) ** 2) / scale / np.sqrt(2 * np.pi), -1)


def duelling(leaves, obs, action, samples):
    """V, and V + A less the mean of A."""
    value = mlp(leaves[5:9], obs)[..., 0]
    advantage = [q(leaves[9:], obs, a)[0] for a in (action, *samples)]
    return value, value + advantage[0] - np.mean(advantage[1:], 0)


def continuous_loss(algorithm, state, batch, key, wrong=None):
    """Algorithm 3, with the actions that the algorithm draws."""
    rows, at = as_numpy(batch), float64(state.networks.net)
    (loc, scale), mu = normal(at, rows.obs), (rows.extras["loc"], rows.extras["scale"])
    of_baseline, of_drawn = jax.random.split(key)
    samples = [loc + scale * noise(k, loc.shape) for k in jax.random.split(of_baseline, algorithm.samples)]
    drawn = loc + scale * noise(of_drawn, loc.shape)
    (v, taken), (_, of_drawn) = (duelling(at, rows.obs, a, samples) for a in (rows.action, drawn))
    next_v = mlp(at[5:9], rows.next_obs)[..., 0]
    rho, rho_drawn = (density(loc, scale, a) / density(*mu, a) for a in (rows.action, drawn))
    trace = algorithm.lambda_ * np.minimum(1, rho if wrong == "trace of rho" else np.sqrt(rho))
    retrace = returns(algorithm, rows, trace, taken, next_v)
    opc = returns(algorithm, rows, np.ones_like(rho), taken, next_v)

    c, z_taken, z_drawn = algorithm.truncation, (rows.action - loc) / scale**2, (drawn - loc) / scale**2
    g = (np.minimum(c, rho) * ((retrace if wrong == "policy by Retrace" else opc) - v))[..., None] * z_taken
    g += (wrong != "no bias term") * (np.maximum(0, 1 - c / rho_drawn) * (of_drawn - v))[..., None] * z_drawn
    k, (average, own) = np.zeros_like(loc), normal(float64(state.average), rows.obs)

    def kl(loc):
        return (np.log(scale / own) + (own**2 + (average - loc) ** 2) / (2 * scale**2)).sum(-1)

    for i, e in enumerate(1e-5 * np.eye(D)):
        k[..., i] = (kl(loc + e) - kl(loc - e)) / 2e-5
    # φ is the mean in half-ranges of the box, and so is its gradient.
    z, bound = projected(HALF * g, HALF * k, np.inf if wrong == "no trust region" else algorithm.trust_region)
    value_target = v + (1 if wrong == "V without rho" else np.minimum(1, rho)) * (retrace - taken)

    def loss(leaves):
        v, taken = duelling(leaves, rows.obs, rows.action, samples)
        critic = 0.5 * (retrace - taken) ** 2 + 0.5 * (value_target - v) ** 2
        return -(z * mlp(leaves[:4], rows.obs)).sum(-1).mean() + algorithm.q_coefficient * critic.mean()

    return loss, {"bound": bound, "rho": rho, "cut": rho_drawn > c}


def test_the_continuous_gradient_is_that_of_the_paper_by_hand(key):
    """And not one with a term changed; σ has none, and stays to the bit."""
    state, batch = started(CONTINUOUS, BOX, key), a_batch(BOX)
    after, metrics = stepped(CONTINUOUS, state, batch, key)
    loss, facts = continuous_loss(CONTINUOUS, state, batch, key)
    assert 0.1 < facts["bound"].mean() < 0.9 and facts["cut"].mean() > 0.1
    assert (facts["rho"] > CONTINUOUS.truncation).any() and (facts["rho"] < 1).any()
    assert_step(after, loss, state)
    np.testing.assert_allclose(metrics["bound_by_trust_region"], facts["bound"].mean(), rtol=1e-6)
    for wrong in ("trace of rho", "policy by Retrace", "no bias term", "no trust region", "V without rho"):
        with pytest.raises(AssertionError):
            assert_step(after, continuous_loss(CONTINUOUS, state, batch, key, wrong)[0], state)
    np.testing.assert_array_equal(after.networks.net.actor.head.log_std, state.networks.net.actor.head.log_std)


def test_the_continuous_update_does_not_depend_on_the_units_of_actions(key):
    """A box ten times as wide, with all actions and the behaviour in its units: the same parameters."""

    def after(unit):
        space = Box((D,), low=(-unit,) * D, high=(unit,) * D)
        state, batch = started(CONTINUOUS, EnvSpec("box", Box((3,)), space), key), a_batch(BOX)
        batch = batch._replace(
            action=unit * jnp.asarray((np.asarray(batch.action) - CENTRE) / HALF, jnp.float32),
            extras={"loc": jnp.zeros((T, B, D)), "scale": jnp.full((T, B, D), 0.5 * unit)},
        )
        return stepped(CONTINUOUS, state, batch, key)

    (one, some), (ten, same) = after(1.0), after(10.0)
    assert 0 < some["bound_by_trust_region"] == same["bound_by_trust_region"] < 1
    assert_same(one.networks.net, ten.networks.net, rtol=1e-4, atol=1e-5)


def test_the_mean_of_the_duelling_q_under_the_policy_is_v(key):
    """Eq. 13, over actions and samples; and the Q that is asked for is of that kind."""
    state, many, (of_action, of_samples) = started(CONTINUOUS, BOX, key), 40_000, jax.random.split(key)
    obs = jnp.broadcast_to(jnp.array([0.3, -1.0, 0.7]), (many, 3))
    policy = state.networks.net.actor(obs)
    samples = jnp.stack([policy.sample(k) for k in jax.random.split(of_samples, 2)])
    values = np.asarray(state.networks.net.q(obs, policy.sample(of_action), samples), np.float64)
    value = float(state.networks.net.value(obs)[0])
    assert values.std() > 0.05
    assert abs(values.mean() - value) < 4 * values.std() / np.sqrt(many)
    asked = CONTINUOUS.q(state, obs, policy.sample(of_action))
    assert asked.shape == (1, many) and abs(float(asked.mean()) - value) < 4 * values.std() / np.sqrt(many)


def test_the_deviation_stays_what_it_was_made_and_the_mean_is_the_test_policy(key):
    state = begun(CONTINUOUS, BOX, key)
    np.testing.assert_allclose(state.networks.net.actor(jnp.zeros((1, 3))).scale[0], HALF * np.exp(-0.7), rtol=1e-5)
    for i in range(3):
        state, _ = stepped(CONTINUOUS, state, a_batch(BOX, seed=i), key)
    obs = jnp.zeros((5000, 3))
    action, extras, _ = CONTINUOUS.act(state, None, obs, key=key, explore=True)
    assert set(extras) == set(CONTINUOUS.experience.extras)
    np.testing.assert_allclose(extras["scale"][0], HALF * np.exp(-0.7), rtol=1e-5)
    for i in range(D):
        assert (
            stats.kstest(action[:, i], stats.norm(*(float(extras[x][0, i]) for x in ("loc", "scale"))).cdf).pvalue
            > 1e-3
        )
    np.testing.assert_array_equal(CONTINUOUS.act(state, None, obs, key=key, explore=False)[0], extras["loc"])


def test_densities_far_apart_overflow_nowhere(key):
    """ρ of 0 and of infinity, either way round."""
    state, batch = started(CONTINUOUS, BOX, key), a_batch(BOX)
    for loc, scale in ((1e3, 0.1), (0.0, 1e-6), (0.0, 1e6)):
        extras = {name: jnp.full((T, B, D), x) for name, x in (("loc", loc), ("scale", scale))}
        for action in (batch.action, jnp.full((T, B, D), 1e3)):
            after, metrics = stepped(CONTINUOUS, state, batch._replace(extras=extras, action=action), key)
            assert all(jnp.isfinite(x).all() for x in jax.tree.leaves((after, metrics)))


@pytest.mark.parametrize(
    ("algorithm", "space", "words"),
    [
        (
            ACER,
            Box((2,), low=(-1.0,) * 2, high=(1.0,) * 2),
            r"Box\(shape=\(2,\).* is not supported: .*Discrete.*ACERContinuous",
        ),
        (ACER, MultiDiscrete((2, 3)), r"MultiDiscrete\(nvec=\(2, 3\).* is not supported"),
        (CONTINUOUS, Discrete(4), r"Discrete\(n=4, start=0\) is not supported: .*Box"),
        (CONTINUOUS, Box((2,)), r"Box\(shape=\(2,\).* is not supported: .*bound"),
    ],
    ids=["box", "multi", "discrete", "unbounded"],
)
def test_other_actions_are_refused_by_name(algorithm, space, words, key):
    with pytest.raises(dl.ConfigError, match=words):
        algorithm.init(EnvSpec("other", Box((3,)), space), key=key)


def test_a_replay_that_holds_no_sequence_is_refused():
    """Before anything is made; one transition more will do."""
    for algorithm, spec in ((ACER, SPEC), (CONTINUOUS, BOX)):
        with pytest.raises(dl.ConfigError, match=rf"replay_capacity = {T * B - 1}: must be at least {T * B} here"):
            replay_ring.ring_bytes(replace(algorithm, replay_capacity=T * B - 1), spec, B, 1)
        assert replay_ring.ring_bytes(replace(algorithm, replay_capacity=T * B), spec, B, 1) > 0
