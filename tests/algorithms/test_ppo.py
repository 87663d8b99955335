"""PPO: its first gradient against A2C's, whole updates against a plain loop, objectives against hand constants."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from algorithms.by_hand import assert_same, begun, gradients
from algorithms.on_policy import (
    BOX,
    DISCRETE,
    MASKED,
    MULTI,
    SMALL,
    B,
    T,
    a_rollout,
    assert_equal,
    by_loop,
    differ,
    flat,
    nets,
    started,
)  # fmt: skip
from oracles import import_rlax
from runs.helpers import ITERATION, plan_of, resume, train

import duologue as dl
from duologue.algorithms.normalized import NormalizedState
from duologue.algorithms.ppo import clipped_value_loss
from duologue.errors import ConfigError
from duologue.ops.optim import minibatch_count, minibatch_rows
from duologue.runs.horizon import gradient_steps

N = T * B
SIZE = dict(networks=SMALL, rollout_length=T, num_envs=B)
SHARED = dict(
    SIZE, discount=0.9, lambda_=0.8, value_coefficient=0.7, entropy_coefficient=0.03, max_gradient_norm=None,
    optimizer=dl.Adam(),
)  # fmt: skip
ONE = dict(epochs=1, minibatch_size=N, normalize_advantage=False)
"""One gradient step on the whole rollout."""
CLIP = dl.PPO(
    learning_rate=0.03, objective=dl.Clip(0.1), epochs=3, minibatch_size=8, value_clip=0.1, discount=0.9, lambda_=0.8,
    value_coefficient=0.7, entropy_coefficient=0.03, max_gradient_norm=0.3, **SIZE,
)  # fmt: skip
PENALTY = dl.PPO(
    learning_rate=0.03, objective=dl.KLPenalty(beta=3.0), epochs=3, minibatch_size=8, normalize_advantage=False,
    max_gradient_norm=None, **SIZE,
)  # fmt: skip


def updated(algorithm, state, batch, key):
    return jax.jit(algorithm.update)(state, batch, key=key)


# The first step: the policy is the one that acted.


@pytest.mark.parametrize(("objective", "spec"), [(dl.Clip(), DISCRETE), (dl.KLPenalty(), BOX)], ids=["clip", "penalty"])
def test_the_first_gradient_is_a2cs(spec, objective, key):
    """At θ_old every ratio is 1, nothing is clipped and the KL has no gradient; `a_rollout` ends in every way."""
    ppo, a2c = dl.PPO(**ONE, **SHARED, objective=objective), dl.A2C(**SHARED)
    state, batch = started(ppo, spec, key), a_rollout(spec)
    ours, metrics = updated(ppo, state, batch, key)
    theirs, reference = updated(a2c, started(a2c, spec, key), batch, key)
    assert_same(gradients(ours.networks), gradients(theirs.networks), rtol=1e-4, atol=1e-6)
    assert max(np.abs(g).max() for g in gradients(ours.networks)) > 0.1
    np.testing.assert_allclose(metrics["approx_kl"], 0.0, atol=1e-6)
    assert float(metrics["steps"]) == 1.0 and float(metrics.get("clip_fraction", 0.0)) == 0.0
    for name in ("value_loss", "entropy", "value", "gradient_norm", "explained_variance"):
        np.testing.assert_allclose(metrics[name], reference[name], rtol=1e-4)


def test_the_first_gradient_is_a2cs_also_behind_normalisation(key):
    """The statistics that acted are those that learn, though newer ones are pending."""

    def first(inner):
        algorithm = dl.Normalized(inner)
        state, carry, observe = begun(algorithm, DISCRETE, key), algorithm.initial_carry(B), jax.jit(algorithm.observe)
        for t in range(T):
            state, carry = observe(state, carry, jax.tree.map(lambda x, t=t: x[t], a_rollout(DISCRETE, 1)))
        state = NormalizedState(started(inner, DISCRETE, key), state.pending, state.current)
        for t in range(T):
            state, carry = observe(state, carry, jax.tree.map(lambda x, t=t: x[t], a_rollout(DISCRETE)))
        after, metrics = updated(algorithm, state, a_rollout(DISCRETE), key)
        return gradients(after.algorithm.networks), metrics

    (ours, metrics), (theirs, _) = first(dl.PPO(**ONE, **SHARED)), first(dl.A2C(**SHARED))
    assert_same(ours, theirs, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(metrics["approx_kl"], 0.0, atol=1e-6)
    assert float(metrics["clip_fraction"]) == 0.0


# Whole updates.


@functools.cache
def by_hand(algorithm):
    """Networks and metrics after 0, 1, 2 … gradient steps, by a plain loop over the rows of `minibatch_rows`."""
    key = jax.random.key(0)
    networks, batch = started(algorithm, DISCRETE, key).networks.net, a_rollout(DISCRETE)
    advantage, target, old_value = map(jnp.asarray, by_loop(networks, batch, algorithm.discount, algorithm.lambda_))
    obs, action, old = flat(batch.obs), flat(batch.action), networks.policy(flat(batch.obs)).log_probs

    def loss(networks, rows):
        log_probs, value = networks.policy(obs[rows]).log_probs, networks.value(obs[rows])
        kl = (jnp.exp(old[rows]) * (old[rows] - log_probs)).sum(1)
        log_ratio = jnp.take_along_axis(log_probs - old[rows], action[rows][:, None], 1)[:, 0]
        a, r = advantage[rows], jnp.exp(log_ratio)
        if algorithm.normalize_advantage:
            a = (a - a.mean()) / (jnp.sqrt(((a - a.mean()) ** 2).mean()) + 1e-8)
        if isinstance(algorithm.objective, dl.Clip):
            e = algorithm.objective.epsilon
            gain = jnp.where(a > 0, jnp.minimum(r, 1 + e), jnp.maximum(r, 1 - e)) * a
            more = {"clip_fraction": ((r < 1 - e) | (r > 1 + e)).astype(jnp.float32).mean()}
        else:
            gain, more = r * a - algorithm.objective.beta * kl, {}
        errors = (target[rows] - value) ** 2
        if algorithm.value_clip is not None:
            low, high = old_value[rows] - algorithm.value_clip, old_value[rows] + algorithm.value_clip
            errors = jnp.maximum(errors, (target[rows] - jnp.minimum(jnp.maximum(value, low), high)) ** 2)
        entropy = -(jnp.exp(log_probs) * log_probs).sum(1).mean()
        total = -gain.mean() + algorithm.value_coefficient * errors.mean() - algorithm.entropy_coefficient * entropy
        more |= {"actor_loss": -gain.mean(), "value_loss": errors.mean(), "entropy": entropy}
        return total, {**more, "approx_kl": (r - 1 - log_ratio).mean()}

    clip = algorithm.max_gradient_norm
    adam = optax.adam(algorithm.learning_rate, eps=1e-5)
    optimizer = adam if clip is None else optax.chain(optax.clip_by_global_norm(clip), adam)

    @jax.jit
    def step(networks, opt_state, rows):
        gradient, metrics = jax.grad(loss, has_aux=True)(networks, rows)
        with jax.numpy_dtype_promotion("standard"):
            moves, opt_state = optimizer.update(gradient, opt_state)
        return optax.apply_updates(networks, moves), opt_state, metrics | {"gradient_norm": optax.tree.norm(gradient)}

    opt_state, steps = optimizer.init(networks), [(networks, None)]
    for rows in minibatch_rows(N, algorithm.minibatch_size, algorithm.epochs, key=key):
        networks, opt_state, metrics = step(networks, opt_state, rows)
        steps.append((networks, {name: float(x) for name, x in metrics.items()}))
    return steps


@pytest.mark.parametrize("algorithm", [CLIP, PENALTY], ids=["clip", "penalty"])
def test_an_update_is_a_plain_loop_over_minibatches_and_epochs(algorithm, key):
    """Targets, advantages and the old policy stay those of θ_old; each minibatch normalises its own advantages."""
    steps = by_hand(algorithm)
    state, batch = started(algorithm, DISCRETE, key), a_rollout(DISCRETE)
    after, metrics = updated(algorithm, state, batch, key)
    assert len(steps) == 1 + 3 * N // 8 == 1 + algorithm.experience.gradient_steps
    assert_same(after.networks.net, steps[-1][0], rtol=1e-3, atol=2e-5)
    for name in steps[1][1]:
        mean = np.mean([metrics[name] for _, metrics in steps[1:]])
        np.testing.assert_allclose(metrics[name], mean, rtol=1e-3, atol=1e-5, err_msg=name)
    if algorithm is CLIP:
        assert 0.1 < float(metrics["clip_fraction"]) < 0.9
    # The divergence reported is KL(π_old ‖ π), over the whole rollout and after the last step.
    old, new = (np.asarray(n.policy(batch.obs).log_probs, np.float64) for n in (state.networks.net, after.networks.net))
    kl, reverse = (np.exp(old) * (old - new)).sum(-1).mean(), (np.exp(new) * (new - old)).sum(-1).mean()
    np.testing.assert_allclose(metrics["kl"], kl, rtol=1e-3)
    assert abs(kl - reverse) > 0.005 * kl
    _, target, value = by_loop(state.networks.net, batch, algorithm.discount, algorithm.lambda_)
    np.testing.assert_allclose(metrics["explained_variance"], 1 - (target - value).var() / target.var(), rtol=1e-4)


def test_target_kl_ends_before_the_step_that_goes_too_far(key):
    """`steps` counts those that were made, θ is that after just so many, and the look too far counts in the means."""
    steps = by_hand(CLIP)
    state, batch = started(CLIP, DISCRETE, key), a_rollout(DISCRETE)
    kls = [metrics["approx_kl"] for _, metrics in steps[1:]]
    k = next(i for i in range(2, len(kls)) if kls[i] > 1.02 * max(kls[:i]))  # a first time in the middle
    assert k < len(kls) - 1
    at = functools.partial(dict, **{name: getattr(CLIP, name) for name in CLIP.__dataclass_fields__})
    after, metrics = updated(dl.PPO(**at(target_kl=0.99 * kls[k] / 1.5)), state, batch, key)
    assert float(metrics["steps"]) == k and int(after.networks.opt_state[1][0].count) == k
    assert_same(after.networks.net, steps[k][0], rtol=1e-3, atol=2e-5)
    np.testing.assert_allclose(metrics["approx_kl"], np.mean(kls[: k + 1]), rtol=1e-3)
    over, metrics = updated(dl.PPO(**at(target_kl=1.01 * kls[k] / 1.5)), state, batch, key)
    assert float(metrics["steps"]) > k and differ(over.networks.net, after.networks.net)
    never, metrics = updated(dl.PPO(**at(target_kl=100.0)), state, batch, key)
    assert CLIP.target_kl is None and float(metrics["steps"]) == len(kls)
    assert_same(never.networks.net, steps[-1][0], rtol=1e-3, atol=2e-5)


def test_the_last_step_may_be_the_one_that_goes_too_far(key):
    """Two steps, of which the second is refused."""
    two = dict(SHARED, learning_rate=0.1, epochs=2, minibatch_size=N)
    state, batch = started(dl.PPO(**two), DISCRETE, key), a_rollout(DISCRETE)
    after, metrics = updated(dl.PPO(**two, target_kl=1e-4), state, batch, key)
    one, _ = updated(dl.PPO(**dict(two, epochs=1)), state, batch, key)
    assert float(metrics["steps"]) == 1.0 and int(after.networks.opt_state[0].count) == 1
    assert_same(after.networks.net, one.networks.net, rtol=1e-5, atol=1e-6)


# Objectives.


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "slope"),
    [
        (1.5, 2.0, -2.4, 0.0),  # beyond 1 + ε and better than before: nothing more to gain
        (0.5, 2.0, -1.0, -2.0),  # worse than before: back
        (1.1, 2.0, -2.2, -2.0),
        (0.5, -2.0, 1.6, 0.0),
        (1.5, -2.0, 3.0, 2.0),
        (0.9, -2.0, 1.8, 2.0),
    ],
)
def test_the_clipped_objective_by_hand(ratio, advantage, loss, slope):
    def of(ratio):
        return dl.Clip(0.2).loss((), ratio, jnp.array([advantage]), jnp.zeros(1))

    (value, metrics), gradient = jax.value_and_grad(of, has_aux=True)(jnp.array([ratio]))
    np.testing.assert_allclose(value, loss, rtol=1e-6)
    np.testing.assert_allclose(gradient, [slope], rtol=1e-6)
    assert float(metrics["clip_fraction"]) == float(abs(ratio - 1) > 0.2)


def test_the_clipped_objective_is_rlaxs():
    rlax = import_rlax()
    generator = np.random.default_rng(0)
    ratio, advantage = (jnp.asarray(x, jnp.float32) for x in (generator.uniform(0, 2, 50), generator.normal(size=50)))
    for epsilon in (0.1, 0.2, 0.5):
        ours, theirs = (
            jax.value_and_grad(loss)(ratio)
            for loss in (
                lambda r, e=epsilon: dl.Clip(e).loss((), r, advantage, jnp.zeros(50))[0],
                lambda r, e=epsilon: rlax.clipped_surrogate_pg_loss(r, advantage, e),
            )
        )
        np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-6)
        np.testing.assert_allclose(ours[1], theirs[1], rtol=1e-6)


def test_the_penalty_by_hand():
    """−mean(1.5·2 − 4·0.25, 0.5·(−1) − 4·0.5) = −mean(2, −2.5)."""
    penalty, columns = dl.KLPenalty(beta=4.0), map(jnp.array, ([1.5, 0.5], [2.0, -1.0], [0.25, 0.5]))
    loss, metrics = penalty.loss(penalty.init(), *columns)
    assert float(loss) == 0.25 and float(metrics["beta"]) == 4.0


@pytest.mark.parametrize(("share", "factor"), [(1.51, 2), (1.49, 1), (1.0, 1), (0.67, 1), (0.66, 0.5), (0.0, 0.5)])
def test_beta_doubles_halves_or_stays(share, factor):
    penalty = dl.KLPenalty(beta=3.0, target_kl=0.2)
    assert float(penalty.update(penalty.init(), jnp.float32(0.2 * share))) == 3.0 * factor


def test_beta_stays_within_its_bounds():
    penalty = dl.KLPenalty(target_kl=0.2)
    assert float(penalty.update(jnp.float32(1e-6), jnp.float32(0.0))) == np.float32(1e-6)
    assert float(penalty.update(jnp.float32(1e6), jnp.float32(9.0))) == 1e6


@pytest.mark.parametrize(("times", "factor"), [(0.5, 2), (0.9, 1), (2.0, 0.5)])
def test_beta_follows_the_divergence_of_a_whole_update(times, factor, key):
    batch, (networks, _) = a_rollout(DISCRETE), by_hand(PENALTY)[-1]
    state = started(PENALTY, DISCRETE, key)
    kl = float(state.networks.net.policy(batch.obs).kl(networks.policy(batch.obs)).mean())
    fields = {name: getattr(PENALTY, name) for name in PENALTY.__dataclass_fields__}
    algorithm = dl.PPO(**fields | {"objective": dl.KLPenalty(beta=3.0, target_kl=kl * times)})
    after, metrics = updated(algorithm, state, batch, key)
    assert float(state.objective) == float(metrics["beta"]) == 3.0
    assert float(after.objective) == 3.0 * factor


def test_beta_of_the_state_is_the_weight(key):
    """The adapted one, not the field: with a huge β the policy hardly moves."""
    state, batch = started(PENALTY, DISCRETE, key), a_rollout(DISCRETE)
    moved = updated(PENALTY, state, batch, key)[1]["kl"]
    state = type(state)(state.networks, jnp.float32(1000.0))
    assert float(updated(PENALTY, state, batch, key)[1]["kl"]) < 0.3 * float(moved)


def test_the_clipped_value_loss_by_hand():
    """The larger of both errors, on each side of V_old = 2 and of the clip of ± 0.2."""
    for value, target, error in (
        (2.5, 3.0, 0.64), (2.5, 2.0, 0.25), (1.5, 1.0, 0.64), (1.5, 2.0, 0.25), (2.1, 3.0, 0.81), (1.9, 3.0, 1.21),
    ):  # fmt: skip
        loss = clipped_value_loss(jnp.array([value]), jnp.array([2.0]), jnp.array([target]), 0.2)
        np.testing.assert_allclose(loss, error, rtol=1e-5)


def test_no_value_clip_is_one_that_never_binds(key):
    fields = dict(SHARED, learning_rate=0.03, epochs=2, minibatch_size=8)
    plain, wide = dl.PPO(**fields), dl.PPO(**fields, value_clip=1e6)
    state, batch = started(plain, DISCRETE, key), a_rollout(DISCRETE)
    assert plain.value_clip is None
    a, b = (updated(algorithm, state, batch, key)[0].networks.net for algorithm in (plain, wide))
    assert_same(a, b, rtol=1e-4, atol=1e-5)


# Minibatches, schedules and rewards.


def test_each_epoch_is_a_permutation_of_its_own(key):
    order = np.asarray(minibatch_rows(24, 8, 5, key=key))
    assert order.shape == (15, 8)
    epochs = order.reshape(5, 24)
    np.testing.assert_array_equal(np.sort(epochs, 1), np.broadcast_to(np.arange(24), (5, 24)))
    assert len({tuple(epoch) for epoch in epochs}) == 5
    assert (np.sort(order, 1) != np.sort(order[:1], 1)).any(1)[1:].all()  # nor are the pieces the same
    assert (epochs != np.arange(24)).any(1).all()
    assert (np.asarray(minibatch_rows(24, 8, 5, key=jax.random.key(1))) != order).any()


@pytest.mark.parametrize(
    ("count", "size", "near"), [(100, 64, 50), (100, 24, 25), (96, 40, 48), (10, 7, 5), (7, 20, 7)]
)
def test_a_minibatch_that_does_not_divide_names_the_nearest_that_does(count, size, near):
    assert minibatch_count(count, near) == count // near
    with pytest.raises(
        ConfigError, match=rf"minibatch_size = {size}: .* = {count}\. The nearest that does is {near}\."
    ):
        minibatch_count(count, size)


@pytest.mark.parametrize("wrap", [lambda x: x, dl.Normalized], ids=["plain", "normalized"])
@pytest.mark.parametrize("kind", [dl.PPO, dl.TRPO])
def test_train_refuses_a_minibatch_before_anything_runs(kind, wrap, tmp_path):
    """And counts with the environments that it is told to take."""

    def never():
        raise AssertionError("made an environment")

    for fields, num_envs, count in (
        ({"rollout_length": 100}, None, 100),
        ({"rollout_length": 8, "num_envs": 8}, 3, 24),
    ):
        with pytest.raises(ConfigError, match=rf"minibatch_size = 64: .*num_envs = {count}\."):
            dl.train(
                wrap(kind(minibatch_size=64, **fields)), never, steps=1000, num_envs=num_envs, run_dir=tmp_path / "run"
            )
    assert not list(tmp_path.iterdir())


def planned(algorithm, steps, num_envs=None):
    return plan_of(algorithm, "probe/both", steps=steps, num_envs=num_envs).plan.algorithm


def test_a_schedule_is_as_long_as_the_gradient_steps_of_the_run(key):
    open_end, size = dl.Linear(0.01), dict(networks=SMALL, rollout_length=8, num_envs=4)
    ppo = dl.PPO(learning_rate=open_end, epochs=3, minibatch_size=16, **size)
    assert planned(ppo, 320).learning_rate.updates == 10 * 3 * 2
    assert planned(dl.Normalized(ppo), 321).algorithm.learning_rate.updates == 11 * 3 * 2
    more = planned(ppo, 320, num_envs=8)
    assert more.num_envs == 8 and more.learning_rate.updates == 5 * 3 * 4
    trpo = dl.TRPO(learning_rate=open_end, epochs=5, minibatch_size=16, **size)
    assert planned(trpo, 320).learning_rate.updates == 10 * 5 * 2
    assert planned(dl.A2C(learning_rate=open_end, **size), 320).learning_rate.updates == 10
    assert gradient_steps(dl.TD3(policy_delay=2, num_envs=1, rollout_length=1, learning_starts=0), 10) == 20
    assert gradient_steps(dl.ACER(replay_ratio=4.0, learning_starts=0), 10) == 50


def test_the_optimiser_counts_the_gradient_steps_that_are_declared(key):
    """And ends where its schedule ends: after the last rollout nothing is learned any more."""
    algorithm = planned(dl.PPO(learning_rate=dl.Linear(0.01), epochs=3, minibatch_size=8, **SIZE), N)
    state = started(algorithm, DISCRETE, key)
    after, metrics = updated(algorithm, state, a_rollout(DISCRETE), key)
    count = int(after.networks.opt_state[1][0].count)
    assert count == algorithm.experience.gradient_steps == 9 == int(metrics["steps"])
    assert differ(state.networks.net, after.networks.net)
    assert_equal(updated(algorithm, after, a_rollout(DISCRETE), key)[0].networks.net, after.networks.net)


@pytest.mark.parametrize(("epochs", "size", "target"), [(1, 8, 1e-5), (3, 8, 1e-4), (4, N, 1e-4), (2, 6, 1e-6)])
def test_a_schedule_ends_though_target_kl_skips_steps(epochs, size, target, key):
    """The schedule counts the planned steps of every rollout, so it follows the environment steps. Adam's own count is
    of the steps that were made."""
    rollouts = 3
    fields = dict(SIZE, learning_rate=dl.Linear(0.1), epochs=epochs, minibatch_size=size)
    algorithm = planned(dl.PPO(**fields, target_kl=target), rollouts * N)
    assert algorithm.learning_rate.updates == rollouts * epochs * N // size
    update, state, made = jax.jit(algorithm.update), started(algorithm, DISCRETE, key), 0
    for i in range(rollouts):
        state, metrics = update(state, a_rollout(DISCRETE, i), key=key)
        made += int(metrics["steps"])
        adam, schedule = state.networks.opt_state[1][0], state.networks.opt_state[1][-1]
        assert int(schedule.count) == (i + 1) * epochs * N // size and int(adam.count) == made
        expected = 0.1 * (1 - (i + 1) / rollouts)
        np.testing.assert_allclose(algorithm.learning_rate(schedule.count), expected, atol=1e-8)
    assert epochs == size // 8 == 1 or made < rollouts * epochs * N // size
    after, _ = update(state, a_rollout(DISCRETE), key=key)
    assert_equal(after.networks.net, state.networks.net)  # at a rate of 0 nothing is learned any more


@pytest.mark.parametrize("env", ["probe/both", "gymnax/CartPole-v1"])
def test_a_run_with_target_kl_and_a_schedule_ends_at_its_last_value(env, tmp_path):
    """In both loops, with several seeds, after a stop in the middle, and when the run goes on past its end."""
    algorithm = dl.PPO(
        learning_rate=dl.Linear(0.1, 0.01), target_kl=1e-5, epochs=2, minibatch_size=6, rollout_length=4, num_envs=3,
        networks=SMALL,
    )  # fmt: skip
    stop = [lambda step, row: step < 2 * ITERATION]
    stopped = train(env, tmp_path / "run", iterations=4, every=2, algorithm=algorithm, seeds=2, callbacks=stop)
    rate = stopped.plan.algorithm.learning_rate
    assert rate.updates == 4 * 2 * 2 and float(rate(jnp.int32(4 * 4))) == pytest.approx(0.01)
    ended = resume(stopped.path)
    for runs, iterations in ((stopped, 2), (ended, 4), (resume(stopped.path, iterations=5), 5)):
        adam, schedule = runs.state.networks.opt_state[1][0], runs.state.networks.opt_state[1][-1]
        assert schedule.count.tolist() == [iterations * 4] * 2 and (adam.count < iterations * 4).all()


@pytest.mark.parametrize("kind", [dl.PPO, dl.TRPO])
def test_rewards_are_scaled_then_clipped_for_learning(kind, key):
    """As if they had come so; and without normalised advantages, for those forget the scale."""
    fields = dict(SIZE, epochs=2, minibatch_size=8, normalize_advantage=False)
    plain, scaled = kind(**fields), kind(**fields, reward_scale=3.0, reward_clip=2.0)
    state, batch = started(plain, DISCRETE, key), a_rollout(DISCRETE)
    learned = np.clip(3.0 * np.asarray(batch.reward), -2.0, 2.0).astype(np.float32)
    assert 0.2 < (np.abs(learned) == 2).mean() < 0.8
    ours = updated(scaled, state, batch, key)[0]
    assert_same(ours, updated(plain, state, batch._replace(reward=jnp.asarray(learned)), key)[0], rtol=1e-4, atol=1e-5)
    assert differ(nets(ours), nets(updated(plain, state, batch, key)[0]))


# Acting.


@pytest.mark.parametrize("kind", [dl.PPO, dl.TRPO])
def test_greedy_is_the_mode_and_sampled_is_a_draw(kind, key):
    obs = jnp.zeros((500, 3))
    greedy, sampled = kind(networks=SMALL), kind(networks=SMALL, test_policy="sampled")
    state = started(greedy, DISCRETE, key)
    probs = np.asarray(nets(state).policy(obs[:1]).probs[0])
    assert bool((greedy.act(state, None, obs, key=key, explore=False)[0] == probs.argmax()).all())
    for algorithm, explore in ((sampled, False), (greedy, True)):
        drawn = np.asarray(algorithm.act(state, None, obs, key=key, explore=explore)[0])
        np.testing.assert_allclose(np.bincount(drawn, minlength=3) / 500, probs, atol=0.07)


@pytest.mark.parametrize("spec", [BOX, MULTI, MASKED], ids=lambda spec: spec.id)
@pytest.mark.parametrize("kind", [dl.PPO, dl.TRPO])
def test_every_kind_of_action_learns(kind, spec, key):
    """All stays finite, actor and critic move, and what the mask forbids has no probability and no gradient."""
    algorithm = kind(**dict(SIZE, rollout_length=T), epochs=2, minibatch_size=8)
    state = started(algorithm, spec, key)
    batch = a_rollout(spec)
    after, metrics = updated(algorithm, state, batch, key)
    assert all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves((after, metrics)))
    old, new = nets(state), nets(after)
    assert differ(old.actor, new.actor) and differ(old.critic, new.critic)
    assert float(metrics["kl"]) > 0
    if spec.id == "masked":
        last = old.actor.output.weight[:, 2] == new.actor.output.weight[:, 2]
        assert bool(last.all()) and float(new.policy(batch.obs).probs[..., 2].max()) == 0.0
    if spec.id == "box":
        assert differ(old.head, new.head)
