"""Both loops: one agent whatever runs it, exact resuming, keys by name, faults before they are learned from."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from envs.probe_env import ProbeEnv

import duologue as dl
from duologue.envs.gymnasium import GymnasiumEnvs
from duologue.envs.make import make, make_seeds
from duologue.envs.probe import ProbeEnvs
from duologue.loops import compiled, evaluate, host
from duologue.loops.dispatch import drop_unread_leaves, find_read_leaves
from duologue.loops.evaluate import Interrupted, compile_evaluation, host_evaluation
from duologue.loops.keys import key_for, run_key
from duologue.loops.state import restart_carry

SMALL = dl.A2C(networks=dl.Networks(hidden_sizes=(8,)), rollout_length=4, num_envs=3)
BOTH = pytest.mark.parametrize("algorithm", [SMALL, dl.Normalized(SMALL)], ids=["a2c", "normalized"])
ITERATION = 12


def finished(loop):
    """The last thing a loop yields, copied."""
    for step, state, totals in loop:
        last = step, jax.tree.map(lambda x: np.array(jax.random.key_data(x) if is_key(x) else x), state), totals
    return last


def is_key(x):
    return hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def assert_equal(a, b, **tolerance):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, **tolerance) if tolerance else np.testing.assert_array_equal(x, y)


@pytest.mark.needs("gymnax")
@BOTH
def test_the_compiled_loop_goes_on_bit_for_bit(algorithm):
    """However it is cut into intervals, and wherever it is stopped and started again."""
    envs = make("gymnax/CartPole-v1", 3)

    def run(state, steps, interval):
        return finished(compiled.run(algorithm, envs, state, steps=steps, interval=interval))

    whole = run(compiled.start(algorithm, envs, [4]), 20 * ITERATION, 20 * ITERATION)
    cut = run(compiled.start(algorithm, envs, [4]), 20 * ITERATION, 3 * ITERATION)
    assert whole[0] == cut[0] == 20 * ITERATION
    assert_equal(whole[1], cut[1])
    first = compiled.start(algorithm, envs, [4])
    *_, (_, first, _) = compiled.run(algorithm, envs, first, steps=7 * ITERATION, interval=7 * ITERATION)
    assert_equal(whole[1], run(first, 20 * ITERATION, 5 * ITERATION)[1])


@pytest.mark.needs("gymnax")
@BOTH
def test_agent_i_of_many_is_the_single_run(algorithm):
    """Over ten updates, to 1e-5, whether on one device or spread over two."""
    envs = make("gymnax/CartPole-v1", 3)

    def run(*seeds):
        state = compiled.start(algorithm, envs, seeds)
        return finished(compiled.run(algorithm, envs, state, steps=10 * ITERATION, interval=10**9))[1:]

    single = {seed: run(seed) for seed in (7, 8, 9)}
    for seeds in ([7, 8, 9], [7, 8]):
        many, totals = run(*seeds)
        for i, seed in enumerate(seeds):
            one, alone = single[seed]
            assert_equal(jax.tree.map(lambda x, i=i: x[i], many.algorithm), one.algorithm, rtol=1e-5, atol=1e-5)
            assert_equal(many.obs[i], one.obs, rtol=1e-5, atol=1e-5)
            np.testing.assert_allclose(totals.returns[i], alone.returns)


@pytest.mark.needs("gymnax")
def test_agent_i_of_many_draws_its_own_number_of_updates():
    """ACER replays as often as each seed's own law says, though all of them wait for the one with most."""
    networks = dl.Networks(hidden_sizes=(8,))
    acer = dl.ACER(networks=networks, num_envs=3, rollout_length=2, batch_size=2, learning_starts=12, replay_ratio=2.0)
    envs = make("gymnax/CartPole-v1", 3)

    def run(seeds):
        return finished(compiled.run(acer, envs, compiled.start(acer, envs, seeds), steps=60, interval=10**9))[1:]

    many, totals = run([7, 8, 9])
    assert len(set(totals.updates.tolist())) > 1 and (totals.updates > 10).all()
    for i, seed in enumerate([7, 8]):
        one, alone = run([seed])
        assert int(alone.updates) == totals.updates[i]
        assert_equal(jax.tree.map(lambda x, i=i: x[i], many.algorithm), one.algorithm, rtol=1e-4, atol=1e-5)


def test_one_program_serves_every_chunk(caplog):
    """The count of iterations is traced: nothing is compiled again for the last, shorter interval."""
    algorithm, envs = dataclasses.replace(SMALL, discount=0.97), make("probe/both", 3)  # no other test's program
    state = compiled.start(algorithm, envs, [0])
    loop = compiled.run(algorithm, envs, state, steps=50 * ITERATION, interval=7 * ITERATION)
    with jax.log_compiles(), caplog.at_level("WARNING", "jax"):
        next(loop)
        assert any("Compiling" in record.message for record in caplog.records)
        caplog.clear()
        steps = [step for step, _, _ in loop]
    assert steps[-1] == 50 * ITERATION
    assert not [record for record in caplog.records if "Compiling" in record.message]


@BOTH
def test_the_host_loop_goes_on_bit_for_bit(algorithm):
    def run(envs, state, steps, interval):
        return finished(host.run(algorithm, envs, state, steps=steps, interval=interval))

    def fresh():
        return make("CartPole-v1", 3, seed=4)

    envs = fresh()
    _, whole, _ = run(envs, host.start(algorithm, envs, [4]), 40 * ITERATION, 9 * ITERATION)
    envs = fresh()
    _, half, _ = run(envs, host.start(algorithm, envs, [4]), 17 * ITERATION, 17 * ITERATION)
    half = dataclasses.replace(half, key=run_key(4))
    envs = fresh()
    state, message = host.restore(algorithm, envs, half)
    assert message is None
    assert_equal(whole, run(envs, state, 40 * ITERATION, 40 * ITERATION)[1])


@BOTH
def test_both_loops_learn_the_same(algorithm):
    """On a probe without chance in it, with the same keys: the same parameters after ten updates."""
    jax_envs, host_envs = ProbeEnvs("discount", 3), GymnasiumEnvs(lambda: ProbeEnv("discount"), 3, seed=0)
    _, a, in_jax = finished(
        compiled.run(
            algorithm, jax_envs, compiled.start(algorithm, jax_envs, [5]), steps=10 * ITERATION, interval=10**9
        )
    )
    _, b, on_host = finished(
        host.run(algorithm, host_envs, host.start(algorithm, host_envs, [5]), steps=10 * ITERATION, interval=10**9)
    )
    assert_equal(a.algorithm, b.algorithm, rtol=1e-4, atol=1e-5)
    assert_equal(a.obs, b.obs)
    assert_equal(a.episodes.returns, b.episodes.returns)
    ours, theirs = in_jax.summary(), on_host.summary()
    assert ours.keys() == theirs.keys()
    for name in ours:
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-3, atol=1e-5)
    assert ours["rollout/ep_rew_mean"] == 1.0 and ours["rollout/ep_len_mean"] == 2.0
    assert ours["rollout/episodes"] == 10 * ITERATION / 2


OFF_POLICY = dl.SAC(
    networks=dl.Networks(hidden_sizes=(8,)), batch_size=8, learning_starts=9, start_steps=6, replay_capacity=100
)


BOTH_KINDS = dl.ACERContinuous(
    networks=dl.Networks(hidden_sizes=(8,)), num_envs=2, rollout_length=3, batch_size=2, learning_starts=9,
    replay_capacity=100,
)  # fmt: skip


@pytest.mark.parametrize("algorithm", [dl.Normalized(SMALL), OFF_POLICY, BOTH_KINDS], ids=["a2c", "sac", "acer"])
def test_agent_i_of_many_is_the_single_run_on_the_host(algorithm):
    """The same environments, keys and counts; whether on one device or spread over two, and stopped on the way."""
    count = algorithm.experience.num_envs

    def fresh(seed, seeds):
        return make_seeds("Pendulum-v1", count, seed=seed, seeds=seeds, max_episode_steps=20)

    def run(envs, state, steps):
        return finished(host.run(algorithm, envs, state, steps=steps * count, interval=10**9))

    def single(seed):
        envs = fresh(seed, 1)
        return run(envs, host.start(algorithm, envs, [seed]), 12)[1]

    alone = {seed: single(seed) for seed in (7, 8, 9)}
    for seeds in ([7, 8, 9], [7, 8]):
        envs = fresh(7, len(seeds))
        _, few, _ = run(envs, host.start(algorithm, envs, seeds), 12)
        for i, seed in enumerate(seeds):
            assert_equal(jax.tree.map(lambda x, i=i: x[i], few.algorithm), alone[seed].algorithm, rtol=1e-5, atol=1e-5)
            assert_equal(few.obs[i], alone[seed].obs, rtol=1e-4, atol=1e-4)
    envs, few = fresh(7, 2), dataclasses.replace(few, key=jnp.stack([run_key(7), run_key(8)]))
    state, message = host.restore(algorithm, envs, few)
    assert message is None
    _, again, totals = run(envs, state, 24)
    envs = fresh(7, 2)
    assert_equal(run(envs, host.start(algorithm, envs, [7, 8]), 24)[1], again)
    summary = totals.summary()
    assert summary["rollout/ep_len_mean"].tolist() == [20.0] * 2
    assert summary["rollout/episodes"].tolist() == [count] * 2
    assert np.ptp(summary["rollout/ep_rew_mean"]) > 1
    assert totals.updates.shape == (2,)


def test_a_fault_of_one_seed_names_it():
    envs = make_seeds("CartPole-v1", 3, seed=1, seeds=2)
    step, calls = envs.step, []

    def faulty(action):
        seen = step(action)
        calls.append(None)
        if len(calls) == 11:
            seen.reward[1, 2] = np.nan
        return seen

    envs.step = faulty
    with pytest.raises(dl.EnvError, match=r"environment 2 of seed number 1 .* at its step 10"):
        list(host.run(SMALL, envs, host.start(SMALL, envs, [1, 2]), steps=100 * ITERATION, interval=ITERATION))


def test_totals_count_every_episode_once():
    """Over intervals, against a plain recount of what the environments gave."""
    envs = make("CartPole-v1", 3, seed=1)
    returns, running, step = [], np.zeros(3), envs.step

    def counted(action):
        seen = step(action)
        running[:] += seen.reward
        ended = seen.terminated | seen.truncated
        returns.extend(running[ended].tolist())
        running[ended] = 0
        return seen

    envs.step = counted
    episodes, total = 0, 0.0
    state = host.start(SMALL, envs, [1])
    for _, _, totals in host.run(SMALL, envs, state, steps=100 * ITERATION, interval=11 * ITERATION):
        episodes, total = episodes + totals.episodes, total + totals.returns
        np.testing.assert_allclose(totals.lengths, totals.returns)  # CartPole pays 1 a step
    assert episodes == len(returns) and total == sum(returns) and episodes > 20


class Recorded(GymnasiumEnvs):
    """Remembers what was handed out, as it was."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.seen = []

    def step(self, action):
        seen = super().step(action)
        self.seen.append((seen.next_obs, seen.next_obs.copy(), seen.obs, seen.obs.copy()))
        return seen


class Succeeding(ProbeEnv):
    """Says at the end of every episode, and only then, whether it succeeded: every second one does."""

    def __init__(self):
        super().__init__("truncation")
        self.ends = 0

    def step(self, action):
        obs, reward, terminated, truncated, info = super().step(action)
        if terminated or truncated:
            self.ends += 1
            info = {"is_success": self.ends % 2 == 0}
        return obs, reward, terminated, truncated, info


def test_the_share_of_episodes_that_succeed():
    envs = GymnasiumEnvs(Succeeding, 3, seed=0)
    loop = host.run(SMALL, envs, host.start(SMALL, envs, [0]), steps=10 * ITERATION, interval=5 * ITERATION)
    first, second = (totals.summary() for _, _, totals in loop)
    assert first["rollout/success_rate"] == 0.5 == second["rollout/success_rate"]
    envs = GymnasiumEnvs("CartPole-v1", 3, seed=0)
    _, _, totals = finished(host.run(SMALL, envs, host.start(SMALL, envs, [0]), steps=ITERATION, interval=ITERATION))
    assert "rollout/success_rate" not in totals.summary()


def test_no_array_is_written_after_it_was_handed_over():
    """The backend reads aligned NumPy arrays in place, after the call has returned."""
    envs = Recorded("CartPole-v1", 16, seed=0)
    algorithm = dl.A2C(networks=dl.Networks(hidden_sizes=(8,)), rollout_length=4, num_envs=16)
    finished(host.run(algorithm, envs, host.start(algorithm, envs, [0]), steps=16 * 200, interval=16 * 40))
    for next_obs, as_it_was, obs, after in envs.seen:
        np.testing.assert_array_equal(next_obs, as_it_was)
        np.testing.assert_array_equal(obs, after)
    rollouts = {id(next_obs) for next_obs, *_ in envs.seen}
    assert len(rollouts) == len(envs.seen)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("where", ["reward", "next_obs"])
def test_a_fault_is_named_before_it_is_learned_from(where, value):
    """Environment 2, at its tenth step (counted from 0)."""
    envs = make("CartPole-v1", 3, seed=1)
    step, calls = envs.step, []

    def faulty(action):
        seen = step(action)
        calls.append(None)
        if len(calls) == 11:
            getattr(seen, where)[2] = value
        return seen

    envs.step = faulty
    learned = []
    watched = host.HostLearner.learn
    with pytest.MonkeyPatch.context() as patch, pytest.raises(dl.EnvError, match=r"environment 2 .* at its step 10"):
        patch.setattr(
            host.HostLearner, "learn", lambda self, rollout, t: (learned.append(t), watched(self, rollout, t))
        )
        for _ in host.run(SMALL, envs, host.start(SMALL, envs, [1]), steps=100 * ITERATION, interval=ITERATION):
            pass
    assert learned == [0, 4]


class FaultyProbe(ProbeEnvs):
    """A reward that is NaN for environment 1 once its key says so: at about every hundredth step."""

    def step(self, env_state, action, *, key):
        state, seen = super().step(env_state, action, key=key)
        bad = jnp.arange(self.num_envs) == 1
        late = jax.random.uniform(key) < 0.02
        return state, seen._replace(reward=jnp.where(bad & late, jnp.nan, seen.reward))


def test_a_fault_in_a_compiled_loop_stops_it():
    envs = FaultyProbe("both", 3)
    state = compiled.start(SMALL, envs, [0])
    expected = next(t for t in range(10_000) if jax.random.uniform(key_for(run_key(0), "env", t)) < 0.02)
    with pytest.raises(dl.EnvError, match=rf"environment 1 .* at its step {expected}\."):
        for _ in compiled.run(SMALL, envs, state, steps=3000 * ITERATION, interval=ITERATION):
            pass


@pytest.mark.parametrize("loop", [host, pytest.param(compiled, marks=pytest.mark.needs("gymnax"))])
def test_a_policy_that_has_diverged_is_no_fault_of_the_environment(loop):
    algorithm = dl.TD3(
        networks=dl.Networks(hidden_sizes=(4,)), batch_size=4, replay_capacity=100, learning_starts=4, start_steps=0,
        actor_learning_rate=1e30, critic_learning_rate=1e30,
    )  # fmt: skip
    envs = make("Pendulum-v1" if loop is host else "gymnax/Pendulum-v1", 1, seed=0)
    with pytest.raises(dl.DuologueError, match=r"Learning has diverged: .*action.* not finite"):
        list(loop.run(algorithm, envs, loop.start(algorithm, envs, [0]), steps=400, interval=400))


def test_interruption_yields_early_with_a_whole_state():
    envs = make("CartPole-v1", 3, seed=1)
    asked = iter([False, False, False, True, True])
    loop = host.run(
        SMALL, envs, host.start(SMALL, envs, [1]), steps=10**6, interval=10**6, interrupted=lambda: next(asked)
    )
    step, state, totals = next(loop)
    assert step == 3 * ITERATION and int(state.step) * 3 == step and totals.updates == 3
    envs = make("probe/both", 3)
    flags = iter([False, False, True, True])
    state = compiled.start(SMALL, envs, [1])
    loop = compiled.run(SMALL, envs, state, steps=10**6, interval=10**6, interrupted=lambda: next(flags))
    step, state, totals = next(loop)  # after two chunks, each at most twice as long as the one before
    assert step in (2 * ITERATION, 3 * ITERATION)
    assert int(state.step) * 3 == step and totals.updates * ITERATION == step


def test_keys_differ_by_purpose_step_and_seed_and_never_by_order():
    keys = {
        tuple(np.asarray(jax.random.key_data(key_for(run_key(seed), purpose, step))).tolist())
        for seed in range(3) for purpose in ("act", "env", "update", "evaluate") for step in range(5)
    }  # fmt: skip
    assert len(keys) == 60
    first = key_for(run_key(1), "act", 3)
    key_for(run_key(1), "evaluate", 9)
    assert (jax.random.key_data(key_for(run_key(1), "act", 3)) == jax.random.key_data(first)).all()


def test_lean_hands_over_only_what_is_read(key):
    state = SMALL.init(make("probe/both", 1).spec, key=key)

    def act(state, obs, t):
        return SMALL.act(state, None, obs, key=jax.random.fold_in(key, t), explore=True)[0]

    obs = jnp.ones((5, 1))
    read, call = drop_unread_leaves(act, state, obs, np.int32(0))
    assert read == find_read_leaves(act, state, obs, np.int32(0))
    assert len(read) == len(jax.tree.leaves(state.networks.net.actor))  # neither the critic nor the optimiser
    leaves = [jax.tree.leaves(state)[i] for i in read]
    np.testing.assert_array_equal(jax.jit(call)(leaves, obs, np.int32(3)), jax.jit(act)(state, obs, np.int32(3)))


class Script(ProbeEnvs):
    """Environment i has episodes of i + 1 steps that pay i + 1 in all."""

    def step(self, env_state, action, *, key):
        obs, t = env_state
        own = jnp.arange(self.num_envs, dtype=jnp.int32)
        ended = t + 1 > own
        _, seen = super().step(env_state, action, key=key)
        flags = {"terminated": ended, "truncated": jnp.zeros_like(ended), "reward": jnp.ones(self.num_envs)}
        return (obs, jnp.where(ended, 0, t + 1)), seen._replace(**flags)


class Endless(Script):
    """Its last environment never ends."""

    def step(self, env_state, action, *, key):
        state, seen = super().step(env_state, action, key=key)
        last = jnp.arange(self.num_envs) == self.num_envs - 1
        return state, seen._replace(terminated=seen.terminated & ~last)


def test_an_evaluation_in_jax_without_end_is_interrupted(key):
    envs, asked = Endless("constant", 3), iter([False, False, True])
    state = SMALL.init(envs.spec, key=key)
    with pytest.raises(Interrupted):
        compile_evaluation(SMALL, envs, seeds=None, interrupted=lambda: next(asked))(state, key)
    assert not list(asked)


class Tossed(Script):
    """It pays the toss of a coin each step, of its own or, told to, the agent's."""

    own: bool

    def __init__(self, num_envs, own):
        super().__init__("action", num_envs)
        self.own = own

    def step(self, env_state, action, *, key):
        state, seen = super().step(env_state, action, key=key)
        toss = jax.random.bernoulli(key, 0.5, (self.num_envs,)) if self.own else action
        return state, seen._replace(reward=toss.astype(jnp.float32))


@pytest.mark.parametrize("own", [True, False], ids=["environment", "agent"])
def test_each_step_of_an_evaluation_has_its_own_chance(own, key):
    """One key for all of them would toss the same side for ever."""
    envs = Tossed(20, own)
    state = SMALL.init(envs.spec, key=key)
    returns, lengths, *_ = map(np.asarray, compile_evaluation(SMALL, envs, seeds=None, explore=True)(state, key))
    assert ((returns > 0) & (returns < lengths)).sum() > 10
    if not own:
        seen, on_host = [], GymnasiumEnvs(lambda: ProbeEnv("action"), 20, seed=0)
        step = on_host.step
        on_host.step = lambda action: (seen.append(action.copy()), step(action))[1]
        host_evaluation(SMALL, episodes=200, explore=True)(state, on_host, key)
        assert len(seen) >= 10 and (np.ptp(np.stack(seen), axis=0) > 0).sum() > 10


def test_every_test_episode_is_assigned_beforehand(key):
    """The first n to finish would be the short ones."""
    envs = Script("constant", 5)
    state = SMALL.init(envs.spec, key=key)
    returns, lengths, successes, *_ = compile_evaluation(SMALL, envs, seeds=None)(state, key)
    assert returns.tolist() == [1, 2, 3, 4, 5] and lengths.tolist() == [1, 2, 3, 4, 5]
    assert np.isnan(successes).all()  # the environment reports none

    class Lengths(GymnasiumEnvs):
        def step(self, action):
            self.t = getattr(self, "t", np.zeros(3, int)) + 1
            seen = super().step(action)
            ended = self.t > np.arange(3)
            self.t[ended] = 0
            return seen._replace(terminated=ended, truncated=np.zeros(3, bool), reward=np.ones(3, np.float32))

    on_host = Lengths(lambda: ProbeEnv("constant"), 3, seed=0)
    returns, lengths, *_ = host_evaluation(SMALL, episodes=7)(state, on_host, key)
    # Episodes 0, 3, 6 by environment 0 (1 step), 1 and 4 by environment 1, 2 and 5 by environment 2.
    assert lengths.tolist() == [1, 2, 3, 1, 2, 3, 1] and returns.tolist() == lengths.tolist()


class Told(Script):
    """At its last step environment i reports i odd, and before that the opposite."""

    word: str

    def __init__(self, num_envs, word):
        super().__init__("constant", num_envs)
        self.word = word

    def step(self, env_state, action, *, key):
        state, seen = super().step(env_state, action, key=key)
        odd = jnp.arange(self.num_envs) % 2 == 1
        return state, seen._replace(info={self.word: jnp.where(seen.terminated, odd, ~odd)})


@pytest.mark.parametrize("word", ["is_success", "success"])
def test_a_success_in_jax_is_that_of_the_last_step(word, key):
    envs = Told(4, word)
    _, lengths, successes, *_ = compile_evaluation(SMALL, envs, seeds=None)(SMALL.init(envs.spec, key=key), key)
    assert lengths.tolist() == [1, 2, 3, 4] and successes.tolist() == [0, 1, 0, 1]


def test_an_evaluation_on_the_host_begins_episodes_anew_inside_its_program(key, monkeypatch):
    """What acting remembers counts the steps of an episode; outside of the program it cost an operation a step."""

    class Counting(dl.A2C):
        def initial_carry(self, num_envs):
            return jnp.zeros(num_envs, jnp.int32)

        def act(self, state, carry, obs, *, key, explore):
            return carry, {}, carry + 1

    traced, played, steps = [], [], []
    monkeypatch.setattr(evaluate, "restart_carry", lambda *args: (traced.append(args), restart_carry(*args))[1])
    envs = GymnasiumEnvs("CartPole-v1", 2, seed=0)
    step = envs.step
    envs.step = lambda action: (played.append(action), steps.append(step(action % 2)), steps[-1])[2]
    algorithm = Counting(networks=SMALL.networks)
    host_evaluation(algorithm, episodes=4)(algorithm.init(envs.spec, key=key), envs, key)
    expected = [np.zeros(2, int)]
    for each in steps[:-1]:
        expected.append(np.where(each.terminated | each.truncated, 0, expected[-1] + 1))
    np.testing.assert_array_equal(np.stack(played), np.stack(expected))
    assert len(steps) > 10 and len(traced) <= 2


def test_evaluation_leaves_training_alone():
    """Evaluating between chunks changes no bit of what is learned."""
    results = []
    for evaluates in (False, True):
        envs, tests = make("CartPole-v1", 3, seed=4), make("CartPole-v1", 2, seed=4, purpose="evaluate")
        for _, state, _ in host.run(
            SMALL, envs, host.start(SMALL, envs, [4]), steps=20 * ITERATION, interval=5 * ITERATION
        ):
            if evaluates:
                host_evaluation(SMALL, episodes=4)(state.algorithm, tests, key_for(run_key(4), "evaluate"))
        results.append(jax.tree.map(np.asarray, state.algorithm))
    assert_equal(*results)


@pytest.mark.parametrize(
    ("algorithm", "env"),
    [
        (SMALL, "probe/both"),
        pytest.param(
            dl.SAC(networks=SMALL.networks, replay_capacity=9, num_envs=3),
            "gymnax/Pendulum-v1",
            marks=pytest.mark.needs("gymnax"),
        ),
    ],
    ids=["a2c", "sac"],
)
def test_no_batch_of_weights_is_decomposed_at_once(algorithm, env):
    """Two batched QRs side by side can wait for each other for ever in the CPU's pool of threads (jaxlib 0.10.2)."""
    envs = make(env, 3)
    program = str(jax.make_jaxpr(lambda: compiled.start(algorithm, envs, [0, 1]))())
    shapes = re.findall(r":f32\[([\d,]+)\] \w+:f32\[[\d,]+\] = qr\[", program)
    assert shapes and all(shape.count(",") == 1 for shape in shapes)
