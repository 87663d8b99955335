"""SAC-X: what `update` does against float64 NumPy, each critic's fixed point, ratios of what was stored."""

import functools
import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from algorithms.by_hand import (
    CENTRE,
    HALF,
    HIGH,
    LOW,
    as_numpy,
    assert_gradient,
    assert_same,
    begun,
    float64,
    gradients,
    net,
    noise,
    perturbed,
)  # fmt: skip
from scipy.special import log_softmax, softmax

import duologue as dl
from duologue.algorithms import sac, sac_discrete
from duologue.algorithms.sac_x import task_schedulers
from duologue.algorithms.sac_x.targets import DiscountedRewards, PolicyGradient, Retrace
from duologue.algorithms.sac_x.task_schedulers import FixedTask, QTable, Sequential, Uniform
from duologue.networks.builder import AbstractNetworks
from duologue.ops.distributions import Categorical, Normal, TanhNormal
from duologue.ops.returns import retrace, vmap_envs
from duologue.ops.temperature import Fixed, Learned
from duologue.types import ACTION_MASK, Box, Dict, Discrete, EnvSpec, Transition

L, N, A, D, ALPHA = 5, 6, 4, 2, 0.3
TASKS = ("near", "far", "main")
NETWORKS = dl.Networks(hidden_sizes=(5, 4), activation="tanh", init="lecun", initial_log_std=-0.5)
OPTIONS = dict(
    networks=NETWORKS, alpha=Fixed(ALPHA), discount=0.9, learning=Retrace(lambda_=0.8), sequence_length=L,
    batch_size=N, target_period=3, actor_learning_rate=0.01, critic_learning_rate=0.02,
)  # fmt: skip
SACX = dl.SACX(**OPTIONS)


def spec(action, tasks=TASKS, limit=None):
    space = Discrete(A) if action == "discrete" else Box((D,), low=tuple(LOW), high=tuple(HIGH))
    return EnvSpec(action, Box((3,)), space, max_episode_steps=limit, tasks=tasks)


BOTH = pytest.mark.parametrize("action", ["discrete", "box"])


@functools.cache
def compiled(algorithm):
    """Its update, compiled once for all tests."""
    return jax.jit(algorithm.update)


@functools.cache
def started(algorithm, spec):
    """A state whose networks, targets too, all differ and are far from their initial values."""
    state = begun(algorithm, spec, jax.random.key(0))
    names = ("actor", "critic", "target_actor", "target_critic")
    return eqx.tree_at(
        lambda s: [getattr(s, name) for name in names],
        state,
        [perturbed(getattr(state, name), i) for i, name in enumerate(names)],
    )


def a_batch(action, tasks=3, seed=0):
    """`[L, N]` of a behaviour that is none of the policies, with ends of all four kinds inside and in the last row."""
    generator, shape = np.random.default_rng(seed), (L, N)
    ends = generator.random((2, *shape)) < 0.1
    for row in (L // 2, -1):
        ends[:, row, :4] = [[False, True, False, True], [False, False, True, True]]
    if action == "discrete":
        raw = taken = generator.integers(A, size=shape).astype(np.int32)
    else:
        raw = generator.normal(size=(*shape, D)).astype(np.float32)
        taken = (CENTRE + HALF * np.tanh(raw)).astype(np.float32)
    batch = Transition(
        obs=generator.normal(size=(*shape, 3)).astype(np.float32),
        action=taken,
        reward=generator.normal(size=(*shape, tasks)).astype(np.float32),
        terminated=ends[0],
        truncated=ends[1],
        next_obs=generator.normal(size=(*shape, 3)).astype(np.float32),
        extras={"raw_action": raw, "log_prob": generator.normal(-1.5, 1.0, shape).astype(np.float32)},
    )
    return jax.tree.map(jnp.asarray, batch)


# By hand, in float64: a trunk, and for each task a layer and an output of its own.


def outputs(leaves, x, *, own=False):
    """`[K, *batch, size]`; `own`: x leads with K."""
    w, b, w1, b1, w2, b2 = leaves
    h = np.tanh(x @ w + b)
    return np.stack(
        [np.tanh((h[i] if own else h) @ w1[i] + b1[i]) @ w2[i] + b2[i] for i in range(len(w1))]
    )  # fmt: skip


def values(leaves, obs, action):
    """Qᵢ(s, a) of one action, or of an action for each task."""
    if np.issubdtype(action.dtype, np.integer):
        q = outputs(leaves, obs)
        return np.take_along_axis(q, np.broadcast_to(action, q.shape[:-1])[..., None], -1)[..., 0]
    own = action.ndim > obs.ndim
    unit = (action - CENTRE) / HALF
    seen = np.broadcast_to(obs, (*unit.shape[:-1], obs.shape[-1])) if own else obs
    return outputs(leaves, np.concatenate([seen, unit], -1), own=own)[..., 0]


def normal(leaves, obs):
    loc, log_std = np.split(outputs(leaves, obs), 2, -1)
    return loc, np.exp(np.clip(log_std - 0.5, -20, 2))


def log_pi(leaves, obs, raw):
    """log πᵢ of raw actions, `[*batch]` or `[K, *batch]`; densities are over [−1, 1]."""
    if np.issubdtype(raw.dtype, np.integer):
        log = log_softmax(outputs(leaves, obs), axis=-1)
        return np.take_along_axis(log, np.broadcast_to(raw, log.shape[:-1])[..., None], -1)[..., 0]
    loc, std = normal(leaves, obs)
    density = -0.5 * ((raw - loc) / std) ** 2 - np.log(std) - 0.5 * np.log(2 * np.pi)
    return (density - 2 * (np.log(2) - raw - np.logaddexp(0, -2 * raw))).sum(-1)


def draws(leaves, obs, key):
    """`(action, raw)` of each task from noise of its own."""
    loc, std = normal(leaves, obs)
    raw = loc + std * noise(key, loc.shape)
    return CENTRE + HALF * np.tanh(raw), raw


def soft_values(actor, critic, obs, key, action, alpha):
    """E[Qᵢ(s, a) − α log πᵢ(a|s)], `[K, *batch]`."""
    if action == "discrete":
        log = log_softmax(outputs(actor, obs), axis=-1)
        return (np.exp(log) * (outputs(critic, obs) - alpha * log)).sum(-1)
    drawn, raw = draws(actor, obs, key)
    return values(critic, obs, drawn) - alpha * log_pi(actor, obs, raw)


def targets_of(rows, q, next_value, ratio, discount, lambda_):
    """The paper's sum, task by task and row by row: Q(sₜ, aₜ) + Σⱼ γ^(j−t) (Π cₖ) [rⱼ + γ V(sⱼ₊₁) − Q(sⱼ, aⱼ)], with
    cₖ = λ min(1, ρₖ) of the rows k from t + 1 to j, and no further than the first cut."""
    target = q.copy()
    for i, t, n in np.ndindex(*q.shape):
        weight = 1.0
        for j in range(t, q.shape[1]):
            weight *= 1.0 if j == t else discount * lambda_ * min(1.0, ratio[i, j, n])
            after = 0.0 if rows.terminated[j, n] else next_value[i, j, n]
            target[i, t, n] += weight * (rows.reward[j, n, i] + discount * after - q[i, j, n])
            if rows.terminated[j, n] or rows.truncated[j, n]:
                break
    return target


def of_numbers(state, batch, action, key):
    """What is constant in the losses, `(rows, target, ratio)`, by hand from the target networks."""
    rows, (of_target, _) = as_numpy(batch), jax.random.split(key)
    taken, raw = np.asarray(batch.action), np.asarray(batch.extras["raw_action"])
    actor, critic = float64(state.target_actor), float64(state.target_critic)
    next_value = soft_values(actor, critic, rows.next_obs, of_target, action, 0.0)
    ratio = np.exp(log_pi(actor, rows.obs, raw) - rows.extras["log_prob"])
    target = targets_of(rows, values(critic, rows.obs, taken), next_value, ratio, 0.9, 0.8)
    return rows, target, ratio


# One update.


@BOTH
def test_gradients_are_those_of_the_papers_losses(action, key):
    """Critics: Retrace of each task's reward, from target networks. Actor: the new critics at actions of its own."""
    state, batch = started(SACX, spec(action)), a_batch(action)
    after, metrics = compiled(SACX)(state, batch, key=key)
    rows, target, ratio = of_numbers(state, batch, action, key)
    taken, of_actor = np.asarray(batch.action), jax.random.split(key)[1]

    def losses(leaves):
        return (0.5 * (values(leaves, rows.obs, taken) - target) ** 2).mean((1, 2))

    def actor_losses(leaves):
        return -soft_values(leaves, float64(after.critic), rows.obs, of_actor, action, ALPHA).mean((1, 2))

    assert 0.2 < (ratio < 1).mean() < 0.8  # both sides of the clip
    assert_gradient(after.critic, lambda leaves: losses(leaves).mean(), state.critic)
    assert_gradient(after.actor, lambda leaves: actor_losses(leaves).mean(), state.actor)
    np.testing.assert_allclose(metrics["critic_loss"], losses(float64(state.critic)), rtol=1e-4)
    np.testing.assert_allclose(metrics["actor_loss"], actor_losses(float64(state.actor)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(metrics["rho"], np.minimum(ratio, 1).mean((1, 2)), rtol=1e-4)
    np.testing.assert_allclose(metrics["alpha"], [ALPHA] * 3, rtol=1e-6)
    np.testing.assert_allclose(
        metrics["q"], values(float64(state.critic), rows.obs, taken).mean((1, 2)), rtol=1e-4, atol=1e-5
    )
    for trained, name in ((after.critic, "critic"), (after.actor, "actor")):
        norm = np.sqrt(sum((g**2).sum() for g in gradients(trained)))
        np.testing.assert_allclose(metrics[f"{name}_gradient_norm"], norm, rtol=1e-4)


@BOTH
def test_one_call_moves_every_head_and_the_trunk_and_nothing_else(action, key):
    """By Adam's first step, η each way; targets, table and period stay."""
    state = started(SACX, spec(action))
    after, _ = compiled(SACX)(state, a_batch(action), key=key)
    for name, rate in (("actor", 0.01), ("critic", 0.02)):
        old, new, given = (
            float64(x) for x in (getattr(state, name), getattr(after, name), getattr(after, name).opt_state[0].mu)
        )
        assert [x.shape[0] for x in old[2:]] == [3] * 4
        for before, now, m in zip(old, new, given, strict=True):
            moved = np.abs(m) > 1e-6
            np.testing.assert_allclose((now - before)[moved], -rate * np.sign(m[moved]), rtol=1e-2)
        for before, now in zip(old[2:], new[2:], strict=True):
            assert all((before[i] != now[i]).any() for i in range(3))
        assert (old[0] != new[0]).any() and (old[1] != new[1]).any()
    for name in ("target_actor", "target_critic", "table", "period", "acted", "temperature"):
        assert_same(getattr(after, name), getattr(state, name))


@pytest.mark.parametrize("action", ["discrete"])
def test_each_loss_moves_its_own_network(action, key):
    """A critic that learns nothing leaves the actor's gradient at the old critic; an actor that does not, the critic's
    as it was."""
    state, batch = started(SACX, spec(action)), a_batch(action)
    after, _ = compiled(SACX)(state, batch, key=key)
    still = dl.SACX(**OPTIONS | {"critic_learning_rate": 1e-30, "actor_learning_rate": 1e-30})
    unmoved, _ = compiled(still)(state, batch, key=key)
    for name in ("actor", "critic"):
        assert_same(getattr(unmoved, name), getattr(state, name))
    assert_same(gradients(unmoved.critic), gradients(after.critic))
    rows, of_actor = as_numpy(batch), jax.random.split(key)[1]

    def loss(leaves):
        return -soft_values(leaves, float64(state.critic), rows.obs, of_actor, action, ALPHA).mean()

    assert_gradient(unmoved.actor, loss, state.actor)


def test_targets_are_copies_every_period_and_constant_between(key):
    state, batch = started(SACX, spec("discrete")), a_batch("discrete")
    for k in range(1, 8):
        after, _ = compiled(SACX)(state, batch, key=jax.random.fold_in(key, k))
        assert int(after.updates) == int(after.actor.opt_state[0].count) == int(after.critic.opt_state[0].count) == k
        for name in ("actor", "critic"):
            source = getattr(after if k % 3 == 0 else state, name if k % 3 == 0 else f"target_{name}")
            assert_same(getattr(after, f"target_{name}"), source)
        state = after


def test_targets_begin_as_copies_and_every_head_as_another(key):
    state = begun(SACX, spec("box"), key)
    assert_same(state.actor, state.target_actor)
    assert_same(state.critic, state.target_critic)
    for network in (state.actor.net, state.critic.net):
        weight = network.tasks.members.output.weight
        assert len(weight) == 3 and len(np.unique(np.asarray(weight).ravel())) == weight.size


@BOTH
@pytest.mark.parametrize("sizes", [(), (4,), (5, 6, 4)])
def test_the_last_hidden_layer_is_each_tasks_own_and_may_be_missing(action, sizes, key):
    networks = dl.Networks(hidden_sizes=sizes)
    built = jax.eval_shape if sizes else lambda build: build()  # without any, in numbers too
    actor = built(lambda: networks.intentions(spec(action), key=key))
    critic = built(lambda: networks.task_values(spec(action), key=key))
    for network, inputs, out in ((actor, 3, A), (critic, 3 + D * (action == "box"), A if action == "discrete" else 1)):
        assert [layer.bias.shape[0] for layer in network.trunk.layers] == list(sizes[:-1])
        own = network.tasks.members
        assert [layer.bias.shape for layer in own.trunk.layers] == [(3, size) for size in sizes[-1:]]
        assert own.output.weight.shape == (3, (sizes or (inputs,))[-1], out)
    obs, drawn = jnp.ones((2, 3)), jnp.ones((2, D))
    q = jax.eval_shape(lambda critic: critic(obs) if action == "discrete" else critic(obs, drawn), critic)
    assert q.shape == ((3, 2, A) if action == "discrete" else (3, 2))


# Of one task, of the same task several times, of tasks in another order.


def heads(tree, change):
    """The leaves of the heads, changed: those that lead with K, behind the two of the trunk."""
    leaves, form = jax.tree.flatten(net(tree))
    return form.unflatten([*leaves[:2], *map(change, leaves[2:])])


def of_heads(state, change):
    names = ("actor", "critic", "target_actor", "target_critic")
    return eqx.tree_at(
        lambda s: [net(getattr(s, name)) for name in names],
        state,
        [heads(getattr(state, name), change) for name in names],
    )


@BOTH
def test_with_one_task_the_target_is_retrace_and_the_actors_gradient_is_sacs(action, key):
    one = spec(action, tasks=("main",))
    state, batch = started(SACX, one), a_batch(action, tasks=1)
    facts = SACX._facts(state, batch, jax.random.split(key)[0])
    ours = SACX.learning.estimate(facts, batch, 0.9)
    direct = vmap_envs(retrace)(
        batch.reward[..., 0], facts.q[0], facts.next_value[0], facts.ratio[0], batch.terminated, batch.truncated,
        discount=0.9, lambda_=0.8,
    )  # fmt: skip
    np.testing.assert_allclose(ours[0], direct, rtol=1e-6)
    np.testing.assert_allclose(ours, of_numbers(state, batch, action, key)[1], rtol=1e-4, atol=1e-4)

    after, metrics = compiled(SACX)(state, batch, key=key)
    of_actor, alpha = jax.random.split(key)[1], jnp.float32(ALPHA)
    obs = batch.obs.reshape(-1, 3)

    def loss(actor):
        if action == "discrete":
            policy = lambda obs: Categorical(actor(obs).logits[0])  # noqa: E731
            return sac_discrete.actor_loss(policy, after.critic(obs), alpha, obs)[0]

        def policy(obs):
            both = actor(obs)
            return TanhNormal(both.loc[0], both.scale[0], both.low, both.high)

        return sac.actor_loss(
            policy, lambda obs, drawn: after.critic.net.own_values(obs, drawn[None]), alpha, obs, of_actor
        )[0]

    value, gradient = jax.value_and_grad(loss)(state.actor.net)
    np.testing.assert_allclose(metrics["actor_loss"], [value], rtol=1e-5)
    assert_same(gradients(after.actor), gradient, rtol=1e-4, atol=1e-6)


@pytest.fixture
def update(monkeypatch):
    """`SACX.update` with one noise for all tasks, without which draws of two tasks that are the same would differ."""

    def sample(self, key):
        return self.loc + self.scale * jnp.broadcast_to(jax.random.normal(key, self.loc.shape[1:]), self.loc.shape)

    monkeypatch.setattr(Normal, "sample", sample)
    return jax.jit(lambda state, batch, key: SACX.update(state, batch, key=key))


@BOTH
def test_the_same_task_several_times_is_that_task(action, update, key):
    """Heads stay the same, and all is as with one: losses are means over tasks, and Adam does not feel the K."""
    one, three = started(SACX, spec(action, tasks=("main",))), started(SACX, spec(action))
    batch = a_batch(action, tasks=1)
    names = ("actor", "critic", "target_actor", "target_critic")
    repeat = lambda x: jnp.repeat(x, 3, axis=0)  # noqa: E731
    alike = eqx.tree_at(
        lambda s: [net(getattr(s, n)) for n in names], three, [heads(getattr(one, n), repeat) for n in names]
    )  # fmt: skip
    several = batch._replace(reward=jnp.repeat(batch.reward, 3, axis=-1))
    for k in range(4):  # past a copy of the targets
        one, of_one = update(one, batch, key=jax.random.fold_in(key, k))
        alike, of_three = update(alike, several, key=jax.random.fold_in(key, k))
    for name in names:
        for ours, single in zip(float64(getattr(alike, name))[2:], float64(getattr(one, name))[2:], strict=True):
            assert_same(ours, np.repeat(ours[:1], 3, 0), rtol=1e-6, atol=1e-6)
            np.testing.assert_allclose(ours[0], single[0], rtol=1e-4, atol=2e-5)
        assert_same(float64(getattr(alike, name))[:2], float64(getattr(one, name))[:2], rtol=1e-4, atol=2e-5)
    for name in ("critic_loss", "actor_loss", "entropy", "q", "rho"):
        np.testing.assert_allclose(of_three[name], np.repeat(of_one[name], 3), rtol=1e-4, atol=1e-5)


@BOTH
def test_tasks_in_another_order_give_the_same_in_that_order(action, update, key):
    state, batch, order = started(SACX, spec(action)), a_batch(action), np.array([2, 0, 1])
    other = of_heads(state, lambda x: x[order])
    shuffled = batch._replace(reward=batch.reward[..., order])
    for k in range(4):
        state, metrics = update(state, batch, key=jax.random.fold_in(key, k))
        other, permuted = update(other, shuffled, key=jax.random.fold_in(key, k))
    expected = of_heads(state, lambda x: x[order])
    for name in ("actor", "critic", "target_actor", "target_critic"):
        assert_same(getattr(other, name), getattr(expected, name), rtol=1e-4, atol=1e-5)
    for name, value in metrics.items():
        np.testing.assert_allclose(permuted[name], value[order] if value.ndim else value, rtol=1e-4, atol=1e-5)
    losses = np.asarray(metrics["critic_loss"])
    assert len(set(losses.round(4).tolist())) == 3


# What is bootstrapped, and what is cut.


@BOTH
def test_a_target_ends_at_the_cut_and_bootstraps_behind_a_truncation(action, key):
    state, batch = started(SACX, spec(action)), a_batch(action)
    row = L // 2  # goes on, terminated, truncated, both

    def targets(batch):
        return np.asarray(SACX.learning.estimate(SACX._facts(state, batch, key), batch, 0.9))

    before, moved = targets(batch), lambda x, at: x.at[at].add(3.0)
    later = targets(batch._replace(reward=moved(batch.reward, (row + 1, slice(None, 4)))))
    crossed = np.abs(later - before)[:, : row + 1, :4].max((0, 1)) > 1e-3
    assert crossed.tolist() == [True, False, False, False]
    behind = targets(batch._replace(next_obs=moved(batch.next_obs, (row, slice(None, 4)))))
    looked = np.abs(behind - before)[:, row, :4].max(0) > 1e-3
    assert looked.tolist() == [True, False, True, False]
    last = targets(batch._replace(next_obs=moved(batch.next_obs, (L - 1, slice(None, 4)))))
    assert (np.abs(last - before)[:, -1, :4].max(0) > 1e-3).tolist() == [True, False, True, False]


# Ratios.


def acted(algorithm, state, obs, key, tasks=3):
    carry = algorithm.initial_carry(len(obs))
    action, extras, carry = algorithm.act(state, carry, obs, key=key, explore=True)
    return action, extras, carry


@BOTH
def test_what_is_stored_is_of_the_intention_that_acted(action, key):
    algorithm = dl.SACX(**OPTIONS | {"scheduler": Uniform()})
    state, count = started(algorithm, spec(action)), 60
    obs = jax.random.normal(key, (count, 3))
    taken, extras, carry = acted(algorithm, state, obs, key)
    task, raw = np.asarray(carry.task), np.asarray(extras["raw_action"])
    assert set(task.tolist()) == {0, 1, 2}
    log = log_pi(float64(state.actor), np.asarray(obs, np.float64), raw)
    np.testing.assert_allclose(extras["log_prob"], log[task, np.arange(count)], rtol=1e-4, atol=1e-4)
    if action == "box":
        np.testing.assert_allclose(taken, CENTRE + HALF * np.tanh(raw), rtol=1e-5, atol=1e-5)
    else:
        np.testing.assert_array_equal(taken, raw)


def stored(action, taken, extras, obs, tasks=3):
    """As a batch of sequences of one row."""
    rows = jax.tree.map(lambda x: x[None], (obs, taken, extras))
    no = jnp.zeros((1, len(obs)), bool)
    return Transition(rows[0], rows[1], jnp.zeros((1, len(obs), tasks)), no, no, rows[0], rows[2])


@BOTH
def test_ratios_are_of_the_stored_behaviour_and_of_the_raw_action(action, key):
    """1 where πᵢ acted, and what has changed since where it did not stay; μ is never computed again."""
    algorithm = dl.SACX(**OPTIONS | {"scheduler": FixedTask(1)})
    state = started(algorithm, spec(action))
    state = eqx.tree_at(lambda s: s.target_actor, state, state.actor.net)
    obs = jax.random.normal(key, (40, 3))
    taken, extras, _ = acted(algorithm, state, obs, key)
    batch = stored(action, taken, extras, obs)
    same = algorithm._facts(state, batch, key).ratio
    np.testing.assert_allclose(same[1], np.ones((1, 40)), rtol=1e-4)
    assert float(same[0].min()) < 0.9 and float(same.max()) <= 1

    changed = eqx.tree_at(lambda s: s.target_actor, state, perturbed(state.target_actor, 5))
    raw, seen = np.asarray(extras["raw_action"]), np.asarray(obs, np.float64)
    log_ratio = log_pi(float64(changed.target_actor), seen, raw) - np.asarray(extras["log_prob"], np.float64)
    ratio = algorithm._facts(changed, batch, key).ratio
    np.testing.assert_allclose(ratio[:, 0], np.exp(np.minimum(log_ratio, 0)), rtol=1e-3, atol=1e-5)
    assert (np.asarray(ratio[1]) < 0.99).mean() > 0.1

    less = batch._replace(extras={**batch.extras, "log_prob": batch.extras["log_prob"] + 5})
    np.testing.assert_allclose(
        algorithm._facts(changed, less, key).ratio[:, 0], np.exp(np.minimum(log_ratio - 5, 0)), rtol=1e-3, atol=1e-6
    )
    moved = eqx.tree_at(lambda s: s.actor, changed, perturbed(changed.actor, 6))
    np.testing.assert_array_equal(algorithm._facts(moved, batch, key).ratio, ratio)


@pytest.mark.parametrize("at", [15.0, -15.0])
def test_ratios_of_saturated_actions(at, key, optimized):
    """Beyond where tanh rounds to ±1, raw actions still tell policies apart."""
    algorithm = dl.SACX(**OPTIONS | {"scheduler": FixedTask(0)})
    state = started(algorithm, spec("box"))
    bias = jnp.broadcast_to(jnp.array([at, at, 0.0, 0.0]), (3, 4))
    state = eqx.tree_at(lambda s: s.actor.net.tasks.members.output.bias, state, bias)
    state = eqx.tree_at(lambda s: s.target_actor, state, state.actor.net)
    obs = jax.random.normal(key, (40, 3))
    taken, extras, _ = acted(algorithm, state, obs, key)
    assert np.abs(np.asarray(extras["raw_action"])).min() > 9
    np.testing.assert_array_equal(taken, np.broadcast_to(np.float32(HIGH if at > 0 else LOW), taken.shape))
    batch = stored("box", taken, extras, obs)
    np.testing.assert_allclose(algorithm._facts(state, batch, key).ratio[0], np.ones((1, 40)), rtol=1e-4)
    off = eqx.tree_at(lambda s: s.target_actor.tasks.members.output.bias, state, bias + jnp.array([[4.0, 0, 0, 0]]))
    log_ratio = log_pi(float64(off.target_actor), np.asarray(obs, np.float64), np.asarray(extras["raw_action"]))[0]
    log_ratio = log_ratio - np.asarray(extras["log_prob"], np.float64)
    assert (log_ratio < -0.5).any()
    np.testing.assert_allclose(
        algorithm._facts(off, batch, key).ratio[0, 0], np.exp(np.minimum(log_ratio, 0)), rtol=1e-3, atol=1e-6
    )


# Each critic is Q of its own policy.


class Look(eqx.Module):
    """One row of a table for each state, observed one-hot."""

    table: jax.Array

    def __call__(self, obs):
        return jnp.einsum("...s,ksa->k...a", obs, self.table)


class Policies(Look):
    def __call__(self, obs):
        return Categorical(super().__call__(obs))


class Tables(AbstractNetworks):
    """What a user's networks may be."""

    def intentions(self, spec, *, key):
        return Policies(jax.random.normal(key, (len(spec.tasks), *spec.observation.shape, spec.action.n)))

    def task_values(self, spec, *, key):
        return Look(jnp.zeros((len(spec.tasks), *spec.observation.shape, spec.action.n)))


@pytest.mark.parametrize("lambda_", [1.0, 0.5])
def test_the_fixed_point_of_every_critic_is_q_of_its_own_policy(lambda_, key):
    """All sequences of 3 rows that a behaviour makes in a random process, by their probabilities; one action
    terminates, and in one state it is time. However far the behaviour is from the policies."""
    states, actions, rows, gamma = 3, 2, 3, 0.8
    generator = np.random.default_rng(0)
    goes = generator.dirichlet(np.ones(states), (states, actions))
    reward = generator.normal(size=(states, actions, states, 2))
    behaviour = generator.dirichlet(np.ones(actions), states)
    ends, times_out = np.zeros((states, actions), bool), np.zeros((states, actions), bool)
    ends[0, 1], times_out[1, 0] = True, True
    goes[0, 1], goes[1, 0] = np.eye(states)[[2, 0]]
    cut, sequences, weights = ends | times_out, [], []
    for path in itertools.product(range(states), range(actions), repeat=rows):
        s, a = path[0::2], path[1::2]
        for last in range(states):
            weight, after = np.prod(behaviour[s[1:], a[1:]]) * goes[s[-1], a[-1], last], [*s[1:], last]
            for t in range(rows - 1):
                if cut[s[t], a[t]]:  # the next row is of another episode, from any state
                    weight, after[t] = weight / states, goes[s[t], a[t]].argmax()
                else:
                    weight *= goes[s[t], a[t], s[t + 1]]
            sequences.append((s, a, after))
            weights.append(weight)
    s, a, after = (np.array(x).T for x in zip(*sequences, strict=True))
    weights = np.array(weights)
    np.testing.assert_allclose(
        [weights[(s[0] == i) & (a[0] == j)].sum() for i in range(3) for j in range(2)], np.ones(6)
    )

    algorithm = dl.SACX(networks=Tables(), discount=gamma, learning=Retrace(lambda_), scheduler=Uniform())
    eye = np.eye(states, dtype=np.float32)
    state = algorithm.init(EnvSpec("process", Box((states,)), Discrete(actions), tasks=("a", "b")), key=key)
    state = eqx.tree_at(lambda x: x.target_actor.table, state, 2 * state.target_actor.table)
    batch = jax.tree.map(
        jnp.asarray,
        Transition(
            eye[s], a.astype(np.int32), reward[s, a, after].astype(np.float32), ends[s, a], times_out[s, a], eye[after],
            {"raw_action": a.astype(np.int32), "log_prob": np.log(behaviour[s, a]).astype(np.float32)},
        ),
    )  # fmt: skip
    first = jnp.asarray(s[0] * actions + a[0])
    probability = jnp.asarray(weights, jnp.float32)

    @jax.jit
    def iterate(table):
        now = eqx.tree_at(lambda x: x.target_critic.table, state, table)
        target = algorithm.learning.estimate(algorithm._facts(now, batch, key), batch, gamma)
        return jax.vmap(lambda y: jnp.zeros(states * actions).at[first].add(probability * y))(target[:, 0]).reshape(
            table.shape
        )

    table = state.target_critic.table
    for _ in range(60):
        table = iterate(table)

    policy = softmax(np.asarray(state.target_actor.table, np.float64), axis=-1)

    def exact(i, policy):
        on = (gamma * np.where(ends[..., None], 0, goes)[..., None] * policy).reshape(6, 6)
        return np.linalg.solve(np.eye(6) - on, (goes * reward[..., i]).sum(-1).ravel()).reshape(states, actions)

    for i in range(2):
        np.testing.assert_allclose(table[i], exact(i, policy[i]), rtol=1e-3, atol=1e-3)
        for other in (policy[1 - i], behaviour):
            assert np.abs(table[i] - exact(i, other)).max() > 0.05


# The temperature.


@BOTH
def test_alpha_is_learned_for_each_task(action, key):
    """∂J/∂log αᵢ = −(E[log πᵢ] + H̄), with H̄ = −|A|, or ½ log |A| of discrete actions, unless it is given."""
    given = 0.7 if action == "box" else None
    algorithm = dl.SACX(**OPTIONS | {"alpha": Learned(initial=0.5), "target_entropy": given})
    state, batch = started(algorithm, spec(action)), a_batch(action)
    after, metrics = compiled(algorithm)(state, batch, key=key)
    leaves, rows = float64(state.actor), as_numpy(batch)
    if action == "discrete":
        log = log_softmax(outputs(leaves, rows.obs), axis=-1)
        log = (np.exp(log) * log).sum(-1)
    else:
        log = log_pi(leaves, rows.obs, draws(leaves, rows.obs, jax.random.split(key)[1])[1])
    entropy = 0.5 * np.log(A) if action == "discrete" else given
    np.testing.assert_allclose(metrics["entropy"], -log.mean((1, 2)), rtol=1e-3)
    np.testing.assert_allclose(np.asarray(after.temperature[1][0].mu) / 0.1, -(log.mean((1, 2)) + entropy), rtol=1e-3)
    assert metrics["alpha_loss"].shape == (3,)
    np.testing.assert_allclose(metrics["alpha"], [0.5] * 3, rtol=1e-6)
    assert dl.SACX()._target_entropy(state, batch) == (pytest.approx(0.5 * np.log(A)) if action == "discrete" else -D)


def test_the_target_entropy_counts_what_a_mask_allows(key):
    space = Dict({"x": Box((3,)), ACTION_MASK: Box((A,), "int8")})
    masked = EnvSpec("masked", space, Discrete(A), tasks=TASKS)
    state, batch = begun(SACX, masked, key), a_batch("discrete")
    allowed = jnp.broadcast_to(jnp.array([1, 0, 1, 0], jnp.int8), (L, N, A))
    batch = batch._replace(obs={"x": batch.obs, ACTION_MASK: allowed})
    assert SACX._target_entropy(state, batch) == pytest.approx(0.5 * np.log(2))


def test_no_values_are_told_where_no_critic_is_learned(key):
    algorithm = dl.SACX(**OPTIONS | {"learning": PolicyGradient()})
    with pytest.raises(dl.ConfigError, match="SACX cannot compute q"):
        algorithm.q(begun(algorithm, spec("discrete"), key), jnp.zeros((2, 3)), jnp.zeros(2, jnp.int32))


# pySACQ's alternatives.


def test_discounted_rewards_are_monte_carlo_to_the_cut_or_the_end(key):
    algorithm = dl.SACX(**OPTIONS | {"learning": DiscountedRewards()})
    state, batch = started(algorithm, spec("discrete")), a_batch("discrete")
    after, metrics = compiled(algorithm)(state, batch, key=key)
    rows = as_numpy(batch)
    next_value = soft_values(
        float64(state.target_actor), float64(state.target_critic), rows.next_obs, None, "discrete", 0.0
    )
    target = monte_carlo(rows, next_value)
    taken = np.asarray(batch.action)

    def loss(leaves):
        return (0.5 * (values(leaves, rows.obs, taken) - target) ** 2).mean()

    assert_gradient(after.critic, loss, state.critic)
    np.testing.assert_allclose(np.mean(metrics["critic_loss"]), loss(float64(state.critic)), rtol=1e-4)


def monte_carlo(rows, next_value):
    target = np.zeros_like(next_value)
    for i, t, n in np.ndindex(*target.shape):
        for j in range(t, L):
            target[i, t, n] += 0.9 ** (j - t) * rows.reward[j, n, i]
            if rows.terminated[j, n]:
                break
            if rows.truncated[j, n] or j == L - 1:
                target[i, t, n] += 0.9 ** (j - t + 1) * next_value[i, j, n]
                break
    return target


@BOTH
def test_the_policy_gradient_is_the_score_function_of_what_was_earned(action, key):
    """−E[min(1, ρᵢ)(Gᵢ − Ḡᵢ) log πᵢ(a|s)] and the entropy; ρᵢ is of the policy that moves. No critic is learned."""
    algorithm = dl.SACX(**OPTIONS | {"learning": PolicyGradient()})
    state, batch = started(algorithm, spec(action)), a_batch(action)
    after, metrics = compiled(algorithm)(state, batch, key=key)
    rows, raw = as_numpy(batch), np.asarray(batch.extras["raw_action"])
    sums = monte_carlo(rows, np.zeros((3, L, N)))
    ratio = np.exp(log_pi(float64(state.actor), rows.obs, raw) - rows.extras["log_prob"])
    weight = np.minimum(ratio, 1) * (sums - sums.mean((1, 2), keepdims=True))

    def loss(leaves):
        if action == "discrete":
            log = log_softmax(outputs(leaves, rows.obs), axis=-1)
            log = (np.exp(log) * log).sum(-1)
        else:
            log = log_pi(leaves, rows.obs, draws(leaves, rows.obs, jax.random.split(key)[1])[1])
        return -(weight * log_pi(leaves, rows.obs, raw) - ALPHA * log).mean()

    assert_gradient(after.actor, loss, state.actor)
    np.testing.assert_allclose(np.mean(metrics["actor_loss"]), loss(float64(state.actor)), rtol=1e-3, atol=1e-4)
    assert_same(after.critic, state.critic)
    assert "critic_loss" not in metrics


# Acting, and what it is remembered by.


def test_tests_play_the_main_task_or_another_and_greedily(key):
    obs = jax.random.normal(key, (30, 3))
    for action, given in (("discrete", -1), ("box", -1), ("discrete", 0)):
        algorithm = dl.SACX(**OPTIONS | {"test_task": given})
        state = started(algorithm, spec(action))
        played, extras, carry = algorithm.act(state, algorithm.initial_carry(30), obs, key=key, explore=False)
        out = outputs(float64(state.actor), np.asarray(obs, np.float64))[given]
        expected = out.argmax(-1) if action == "discrete" else CENTRE + HALF * np.tanh(out[:, :D])
        np.testing.assert_allclose(played, expected, rtol=1e-4, atol=1e-4)
        assert_same(carry, algorithm.initial_carry(30))
        assert set(extras) == set(algorithm.experience.extras)
        q = algorithm.q(state, obs, played)
        by_hand = values(float64(state.critic), np.asarray(obs, np.float64), np.asarray(played))[given]
        np.testing.assert_allclose(q, by_hand[None], rtol=1e-4, atol=1e-4)
        log = algorithm.log_prob(state, obs, played)
        raw = played if action == "discrete" else out[:, :D]
        density = 0.0 if action == "discrete" else np.log(HALF).sum()
        expected = log_pi(float64(state.actor), np.asarray(obs, np.float64), np.asarray(raw))[given] - density
        np.testing.assert_allclose(log, expected, rtol=1e-3, atol=1e-3)


def test_the_scheduler_learns_the_main_tasks_reward_alone(key):
    """As `schedulers.observe` does of the last column; and who acted is counted, step by step."""
    algorithm = dl.SACX(**OPTIONS | {"scheduler": QTable(), "schedule_period": 2})
    state = started(algorithm, spec("discrete"))
    carry, count = algorithm.initial_carry(3), np.zeros(3, int)
    table = schedule = None
    step = jax.jit(
        lambda state, carry, obs, key: algorithm.act(state, carry, obs, key=key, explore=True)[2],
    )
    observe = jax.jit(algorithm.observe)
    table = state.table
    for t in range(6):
        keys = jax.random.split(jax.random.fold_in(key, t))
        obs, reward = jax.random.normal(keys[0], (3, 3)), jax.random.normal(keys[1], (3, 3))
        ended = jnp.array([t == 2, t % 2 == 1, False]), jnp.array([False, False, t == 4])
        carry = step(state, carry, obs, keys[1])
        schedule = carry
        count += np.bincount(carry.task, minlength=3)
        transition = Transition(obs, carry.task, reward, *ended, obs, {})
        state, carry = observe(state, carry, transition)
        table, after = task_schedulers.observe(
            algorithm.scheduler, table, schedule, reward[:, 2], ended[0] | ended[1], 0.9
        )
        assert_same(state.table, table, rtol=1e-6)
        assert_same(carry, after, rtol=1e-6)
        np.testing.assert_array_equal(state.acted, count)
    assert int(table.visits.sum()) > 4 and float(jnp.abs(table.value).max()) > 0.1


@pytest.mark.parametrize(
    ("limit", "given", "expected"),
    [(1000, None, 125), (1001, None, 126), (None, None, 100), (200, 30, 30), (3, 500, 500)],
)
def test_the_schedule_period(limit, given, expected, key):
    algorithm = dl.SACX(**OPTIONS | {"schedule_period": given})
    state = jax.eval_shape(lambda: algorithm.init(spec("discrete", limit=limit), key=key))
    assert state.period.shape == () and state.period.dtype == jnp.int32
    small = dl.SACX(networks=Tables(), schedule_period=given)
    assert int(small.init(spec("discrete", limit=limit), key=key).period) == expected


@pytest.mark.parametrize(("period", "limit", "said"), [(4, 3, 1), (3, 3, 0), (None, 3, 0), (500, None, 0)])
def test_a_period_longer_than_every_episode_is_said(period, limit, said):
    """It is allowed: one intention then acts in each."""
    algorithm, where = dl.SACX(schedule_period=period), spec("discrete", limit=limit)
    for notes in (algorithm.notes(where), dl.Normalized(algorithm, reward=False).notes(where)):
        assert len(notes) == said and all("schedule_period = 4" in note for note in notes)


def test_metrics_have_a_value_for_each_task(key):
    for scheduler in (QTable(), Uniform(), Sequential(), FixedTask()):
        algorithm = dl.SACX(**OPTIONS | {"scheduler": scheduler})
        state = jax.eval_shape(lambda: algorithm.init(spec("discrete"), key=key))  # noqa: B023
        _, metrics = jax.eval_shape(lambda s, b: algorithm.update(s, b, key=key), state, a_batch("discrete"))  # noqa: B023
        whole = {"critic_gradient_norm", "actor_gradient_norm"}
        of_tasks = {"critic_loss", "q", "actor_loss", "entropy", "alpha", "rho", "scheduled", "schedule_probability"}
        of_tasks |= {"schedule_value"} if isinstance(scheduler, QTable) else set()
        assert {name: x.shape for name, x in metrics.items()} == dict.fromkeys(whole, ()) | dict.fromkeys(
            of_tasks, (3,)
        )


def test_the_share_of_each_intention_is_reported(key):
    state = started(SACX, spec("discrete"))
    state = eqx.tree_at(lambda s: s.acted, state, jnp.array([1, 0, 3], jnp.int32))
    _, metrics = compiled(SACX)(state, a_batch("discrete"), key=key)
    np.testing.assert_allclose(metrics["scheduled"], [0.25, 0, 0.75])


# Mistakes.


@pytest.mark.parametrize("task", [3, -4, 9])
def test_a_test_task_that_there_is_not(task, key):
    with pytest.raises(dl.ConfigError, match=rf"SACX.test_task = {task}: must be in \[-3, 2\]"):
        dl.SACX(test_task=task).init(spec("discrete"), key=key)


def test_without_tasks_there_is_nothing_to_learn(key):
    with pytest.raises(dl.ConfigError, match="SACX learns several tasks, but box has one reward"):
        dl.SACX().init(spec("box", tasks=()), key=key)


def test_rewards_of_tasks_are_not_scaled_together(key):
    with pytest.raises(dl.ConfigError, match=r"Normalized.reward = True: the rewards of several tasks .* reward=False"):
        dl.Normalized(SACX).init(spec("box"), key=key)
