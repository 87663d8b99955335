"""Tasks: rewards of the true successor on the host and compiled, the ready sets by hand, and mistakes said by name."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from envs.probe_env import ProbeEnv
from envs.scripted import Scripted
from runs.helpers import plan_of

import duologue as dl
from duologue.envs.gymnasium import GymnasiumEnvs
from duologue.envs.make import make, make_seeds
from duologue.envs.tasks import TaskedEnvs, Tasks, lunar_lander, mountain_car
from duologue.loops import host
from duologue.loops.state import first_fault
from duologue.types import Box, Discrete, Transition


@pytest.fixture(autouse=True)
def _as_users_call_it(unchecked):
    """Mistakes are found by the library, not by the types that tests check."""


def everything(obs, action, reward, next_obs, terminated, info):
    ended, action = jnp.where(terminated, 10.0, 0.0), jnp.asarray(action, jnp.float32)
    return next_obs[0] + 3.0 * obs[0] + ended + 100.0 * reward + 1000.0 * action


def steps(obs, action, reward, next_obs, terminated, info):
    return next_obs[-1]


def paid(obs, action, reward, next_obs, terminated, info):
    return 2.0 * reward


# What is rewarded.


def test_the_true_successor_is_rewarded_before_any_reset():
    """Of a scripted environment: observations are (episode, steps made), episodes have three steps, reward is t."""
    tasks = Tasks(everything, steps, paid)
    envs = make(tasks.attach(Scripted), 2)
    assert envs.spec.tasks == ("everything", "steps", "paid") and envs.num_envs == 2
    obs = envs.reset()
    for t in range(7):
        step = envs.step(np.full(2, t % 3, np.int32))
        made, episode = t % 3 + 1, t // 3 + 1
        ended = made == 3
        by_hand = [episode + 3 * obs[0, 0] + 10 * ended + 100 * made + 1000 * (t % 3), made, 2 * made]
        np.testing.assert_allclose(step.reward, [by_hand] * 2)
        assert step.reward.dtype == np.float32 and step.terminated.tolist() == [ended] * 2
        obs = step.obs


@pytest.mark.parametrize("env", ["Pendulum-v1", pytest.param("gymnax/Pendulum-v1", marks=pytest.mark.needs("gymnax"))])
def test_a_task_sees_the_action_that_was_done(env, key):
    """Inside the box, though the policy asked for more."""

    def done(obs, action, reward, next_obs, terminated, info):
        return action[0]

    envs, asked = make(Tasks(done, paid).attach(env), 2), np.float32([[7.0], [-0.5]])
    if env.startswith("gymnax"):
        state, _ = envs.reset(key)
        _, seen = envs.step(state, jnp.asarray(asked), key=key)
    else:
        envs.reset()
        seen = envs.step(asked)
    assert seen.reward[:, 0].tolist() == [2.0, -0.5]


def test_compiled_rewards_are_the_hosts(key):
    """The discount probe: 0, then 1, then the end. Everything that a task may read is read."""
    tasks, actions = Tasks(everything, paid), np.array([[0, 1], [1, 1], [0, 0], [1, 0], [0, 1]], np.int32)
    theirs, ours = make(tasks.attach(lambda: ProbeEnv("discount")), 2), make(tasks.attach("probe/discount"), 2)
    assert ours.spec.tasks == theirs.spec.tasks == ("everything", "paid")
    theirs.reset()
    state, _ = ours.reset(key)
    step = jax.jit(lambda state, action, key: ours.step(state, action, key=key))
    for t, action in enumerate(actions):
        seen = theirs.step(action)
        state, compiled_seen = step(state, jnp.asarray(action), key)
        np.testing.assert_allclose(seen.reward, compiled_seen.reward)
        first, last = t % 2 == 0, t % 2 == 1
        by_hand = 1 + 3 * (not first) + 10 * last + 100 * (not first) + 1000 * action
        np.testing.assert_allclose(seen.reward, np.stack([by_hand, np.full(2, 2 * (not first))], -1))


@pytest.mark.needs("gymnax")
def test_gymnax_ends_are_rewarded_before_the_reset(key):
    """Episodes of three steps: cos θ and sin θ of the successor, never of the next episode's first state."""

    def height(obs, action, reward, next_obs, terminated, info):
        return next_obs[0] + 10 * obs[0]

    tasked, plain = (
        make(env, 4, max_episode_steps=3)
        for env in (Tasks(height, paid).attach("gymnax/Pendulum-v1"), "gymnax/Pendulum-v1")
    )
    (state, _), (inner, obs) = tasked.reset(key), plain.reset(key)
    first, second = (jax.jit(lambda *x, envs=envs: envs.step(*x[:2], key=x[2])) for envs in (tasked, plain))
    for t in range(7):
        keys = jax.random.fold_in(key, t)
        action = jax.random.uniform(keys, (4, 1))
        state, seen = first(state, action, keys)
        inner, alone = second(inner, action, keys)
        np.testing.assert_allclose(seen.reward[:, 0], alone.next_obs[:, 0] + 10 * obs[:, 0], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(seen.reward[:, 1], 2 * alone.reward, rtol=1e-5)
        assert bool(alone.truncated.all()) == (t % 3 == 2)
        if t % 3 == 2:
            assert (np.abs(alone.next_obs[:, 0] - alone.obs[:, 0]) > 1e-3).all()
        obs = alone.obs


@pytest.mark.needs("gymnax")
def test_an_algorithm_of_one_reward_gets_the_main_tasks_alone():
    algorithm = dl.A2C(num_envs=2, rollout_length=4)
    for env in (Scripted, "gymnax/CartPole-v1"):
        plan, envs = planned(algorithm, env, tasks=Tasks(everything, paid))
        assert plan.spec.tasks == () and envs.spec.tasks == () and plan.tasks == "<everything, paid>"
    _, envs = planned(algorithm, Scripted, tasks=Tasks(everything, paid))
    envs.reset()
    np.testing.assert_array_equal(envs.step(np.zeros(2, np.int32)).reward, [2.0, 2.0])
    state, _ = make(dataclasses.replace(Tasks(everything, paid).attach("probe/constant"), main_alone=True), 3).reset(
        jax.random.key(0)
    )
    assert len(jax.tree.leaves(state)) == 3


def test_every_seed_on_the_host_has_its_own():
    envs = make_seeds(Tasks(everything, paid).attach(Scripted), 2, seed=0, seeds=3)
    envs.reset()
    assert envs.step(np.zeros((3, 2), np.int32)).reward.shape == (3, 2, 2)


def test_a_restored_environment_goes_on_from_its_own_observation():
    tasks = Tasks(everything, paid)
    envs, again = make(tasks.attach("CartPole-v1"), 2), make(tasks.attach("CartPole-v1"), 2)
    envs.reset()
    for t in range(6):
        envs.step(np.full(2, t % 2, np.int32))
    _, message = again.restore(envs.snapshot())
    assert message is None
    action = np.ones(2, np.int32)
    np.testing.assert_array_equal(envs.step(action).reward, again.step(action).reward)


# What `info` says.


class Telling(Scripted):
    """Says how high it is, but for its last step."""

    def step(self, action):
        obs, reward, terminated, truncated, _ = super().step(action)
        return obs, reward, terminated, truncated, {} if terminated else {"height": 7 * self.t, "word": "up"}


def high(obs, action, reward, next_obs, terminated, info):
    return jnp.where(terminated, -1.0, info["height"])


def test_info_is_read_where_it_is_named():
    envs = make(Tasks(high, paid, info="height").attach(Telling), 2)
    envs.reset()
    seen = [envs.step(np.zeros(2, np.int32)).reward[0, 0] for _ in range(4)]
    assert seen == [7, 14, -1, 7]


@pytest.mark.needs("gymnax")
def test_numbers_of_gymnax_info_are_read(key):
    def kept(obs, action, reward, next_obs, terminated, info):
        return info["discount"]

    envs = make(Tasks(kept, paid, info=("discount",)).attach("gymnax/CartPole-v1"), 2)
    state, _ = envs.reset(key)
    np.testing.assert_array_equal(envs.step(state, jnp.zeros(2, jnp.int32), key=key)[1].reward[:, 0], [1.0, 1.0])


# The ready sets.


def of_one(tasks, next_obs, reward=0.0, terminated=False):
    row = lambda x, dtype: np.asarray(x, dtype)[None]  # noqa: E731
    obs = row(np.full(len(next_obs), 9.0), np.float32)
    return tasks.rewards(
        obs, np.zeros(1, np.int32), row(reward, np.float32), row(next_obs, np.float32), row(terminated, bool), {}
    )[0]


def test_lunar_lander_by_hand():
    """(x, y, vₓ, v_y, θ, ω, left leg, right leg)."""
    assert lunar_lander.names == ("touch", "hover_planar", "hover_angular", "upright", "goal_distance", "landed")
    got = of_one(lunar_lander, [-0.25, 0.5, 0.1, -0.7, -0.3, 1.25, 1.0, 0.0])
    np.testing.assert_allclose(got, [1, 2 - 0.1 - 0.7, 2 - 1.25, 2 - 0.3, 2 - 0.25 - 0.5, 0], rtol=1e-6)
    assert of_one(lunar_lander, [0, 0, 0, 0, 0, 0, 1.0, 1.0])[0] == 2


@pytest.mark.parametrize(
    ("terminated", "reward", "expected"),
    [(True, 100.0, 100.0), (True, -100.0, 0.0), (False, 100.0, 0.0), (False, 150.0, 0.0), (True, 99.0, 0.0)],
)
def test_landed_is_the_bonus_at_the_end_and_nothing_else(terminated, reward, expected):
    assert of_one(lunar_lander, np.zeros(8), reward, terminated)[-1] == expected


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of SWIG's, while Box2D is imported
def test_a_landing_in_the_environment_itself():
    """Flown by Gymnasium's own heuristic: legs on the ground, asleep. And a fall without engines."""
    from gymnasium.envs.box2d.lunar_lander import heuristic

    envs = make(lunar_lander.attach("LunarLander-v3"), 2, seed=3)
    obs, lander = envs.reset(), envs._envs._envs[0].unwrapped
    landed, done = np.zeros(2), np.zeros(2, bool)
    for _ in range(1000):
        action = np.array([heuristic(lander, obs[0]), 0], np.int32)
        step = envs.step(action)
        landed += np.where(done, 0, step.reward[:, -1])
        touching = step.next_obs[:, 6:].sum(-1)
        np.testing.assert_allclose(step.reward[:, 0], touching)
        for i in np.flatnonzero(step.terminated & ~done):
            assert step.reward[i, -1] == (100 if i == 0 else 0)
        done |= step.terminated | step.truncated
        obs = step.obs
        if done.all():
            break
    assert landed.tolist() == [100, 0] and done.all()
    envs.close()


@pytest.mark.needs("gymnax")
def test_mountain_car_by_hand():
    assert mountain_car.names == ("fast", "left", "right", "goal")
    for obs, expected in (
        ([-0.95, -0.035], [0.5, 1, 0, 0]), ([0.0, 0.07], [1, 0, 1, 0]), ([-0.9, 0.0], [0, 1, 0, 0]),
        ([0.45, 0.014], [0.2, 0, 1, 100]), ([0.44, 0.0], [0, 0, 1, 0]), ([-0.5, 0.0], [0, 0, 0, 0]),
    ):  # fmt: skip
        np.testing.assert_allclose(of_one(mountain_car, obs), expected, rtol=1e-5)
    for env in ("MountainCarContinuous-v0", "gymnax/MountainCarContinuous-v0"):
        assert make(mountain_car.attach(env), 1).spec.tasks == mountain_car.names


# Mistakes: each is one message.


SACX = dl.SACX(networks=dl.Networks(hidden_sizes=(4,)), num_envs=2, batch_size=2, sequence_length=2)


def planned(algorithm, env, tasks=None, **options):
    return plan_of(algorithm, env, tasks=tasks, **{"steps": 100} | options)[:2]


def branches(obs, action, reward, next_obs, terminated, info):
    return 1.0 if next_obs[0] > 0 else 0.0


def in_numpy(obs, action, reward, next_obs, terminated, info):
    return np.maximum(next_obs[0], 0.0)


def far(obs, action, reward, next_obs, terminated, info):
    return next_obs[99]


def of_x(obs, action, reward, next_obs, terminated, info):
    return info["x"]


def whole(obs, action, reward, next_obs, terminated, info):
    return next_obs


def word(obs, action, reward, next_obs, terminated, info):
    return "good"


def few(obs, action):
    return 0.0


def no_number(obs, action, reward, next_obs, terminated, info):
    return jnp.where(next_obs[-1] >= 2, jnp.nan, 1.0)


def divides(obs, action, reward, next_obs, terminated, info):
    return 1.0 / next_obs[0]


BOTH = pytest.mark.parametrize(
    "env", ["CartPole-v1", pytest.param("gymnax/CartPole-v1", marks=pytest.mark.needs("gymnax"))]
)


@BOTH
@pytest.mark.parametrize(
    ("task", "words"),
    [
        (branches, r"task 'branches' needs the numbers of a step in Python.*jnp.where"),
        (in_numpy, r"task 'in_numpy' needs the numbers of a step in Python.*jax.numpy in place of numpy"),
        (
            far,
            r"task 'far' cannot be evaluated in .*CartPole-v1: IndexError: index 99.*float32\[4\].*int32\[\]",
        ),
        (of_x, r"task 'of_x' cannot be evaluated in .*KeyError: 'x'.*Name what the task reads in Tasks\(…, info=…\)"),
        (whole, r"task 'whole' gives .* must be one number for one step, of shape \(\)"),
        (word, r"task 'word' gives .* must be one number"),
        (few, r"task 'few' cannot be evaluated in .*takes 2 positional arguments.*called as task\(obs, action, reward"),
    ],
)
def test_tasks_that_cannot_be(env, task, words):
    with pytest.raises(dl.ConfigError, match=words):
        planned(SACX, env, tasks=Tasks(task, paid))


def test_zeros_that_the_check_divides_by_are_no_mistake():
    """Warnings are errors here."""
    assert planned(SACX, "CartPole-v1", tasks=Tasks(divides, paid))[0].spec.tasks == ("divides", "paid")


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (lambda: Tasks(lambda *step: 0.0), r"tasks: a task has the name of its .*'<lambda>' cannot"),
        (lambda: Tasks(paid, steps, paid), r"tasks: two functions have the name 'paid'"),
        (lambda: Tasks(), r"tasks: must be at least one function"),
        (lambda: Tasks("touch"), r"tasks: 'touch' is no function"),
        (lambda: Tasks([steps, paid]), r"is no function. Pass each function as a separate argument"),
        (lambda: Tasks(paid).attach(Tasks(steps).attach("CartPole-v1")), r"has tasks already, Tasks\(steps\)"),
    ],
)
def test_sets_that_are_none(made, words):
    with pytest.raises(dl.ConfigError, match=words):
        made()


@pytest.mark.parametrize(
    ("algorithm", "options", "words"),
    [
        (SACX, {"tasks": "lunar-landr"}, r"no tasks 'lunar-landr'. Did you mean 'lunar-lander'"),
        (SACX, {"tasks": 3}, r"tasks = 3: must be the name of a ready set, or duologue.tasks.Tasks"),
        (SACX, {}, r"tasks = None: SACX learns several tasks. In Python, pass.*lunar-lander, mountain-car"),
        (SACX, {"tasks": "lunar-lander"}, r"task 'touch' cannot be evaluated in CartPole-v1: IndexError: index 6"),
        (
            dataclasses.replace(SACX, scheduler=dl.task_schedulers.FixedTask(task=7)), {"tasks": Tasks(steps, paid)},
            r"FixedTask.task = 7: must be in \[-2, 1\], for 2 tasks",
        ),
        (
            dataclasses.replace(SACX, test_task=2), {"tasks": Tasks(steps, paid)},
            r"SACX.test_task = 2: must be in \[-2, 1\]",
        ),
        (dl.Normalized(SACX), {"tasks": Tasks(steps, paid)}, r"Normalized.reward = True: .* Set reward=False"),
    ],
)  # fmt: skip
def test_runs_that_cannot_be(algorithm, options, words):
    with pytest.raises(dl.ConfigError, match=words):
        planned(algorithm, "CartPole-v1", **options)


def test_a_period_longer_than_the_episode_is_allowed():
    algorithm = dataclasses.replace(SACX, schedule_period=10_000)
    assert planned(algorithm, "CartPole-v1", tasks=Tasks(steps, paid))[0].spec.max_episode_steps == 500


def test_a_reward_that_is_no_number_is_named_on_the_host():
    envs = make(Tasks(steps, no_number, paid).attach(Scripted), 2)
    envs.reset()
    envs.step(np.zeros(2, np.int32))
    with pytest.raises(dl.EnvError, match=r"task 'no_number' gave nan in environment 0\.$"):
        envs.step(np.zeros(2, np.int32))
    envs = make(Tasks(of_x, paid, info=("x",)).attach(Telling), 2)
    envs.reset()
    with pytest.raises(dl.EnvError, match=r"task 'of_x' gave nan in environment 0. The step's info had no number 'x'"):
        envs.step(np.zeros(2, np.int32))


@pytest.mark.needs("gymnax")
def test_info_that_gymnax_does_not_give(key):
    envs = make(Tasks(of_x, paid, info=("x",)).attach("gymnax/CartPole-v1"), 2)
    state, _ = envs.reset(key)
    with pytest.raises(dl.ConfigError, match=r"tasks: info = 'x': must be one of .* gives: discount"):
        envs.step(state, jnp.zeros(2, jnp.int32), key=key)


def test_a_reward_that_is_no_number_is_found_in_every_loop():
    """In a rollout `[T, B, K]` that began at step 10: environment 1, its second step."""
    reward = np.zeros((3, 2, 4), np.float32)
    reward[1, 1, 2], reward[2, 0, 0] = np.nan, np.inf
    flags = np.zeros((3, 2), bool)
    obs = np.zeros((3, 2, 5), np.float32)
    rollout = Transition(obs, flags, reward, flags, flags, obs, {})
    first = jax.jit(first_fault)
    assert first(jax.tree.map(jnp.asarray, rollout), jnp.int32(10)).tolist() == [11 * 2 + 1, 3]
    obs[1, 0, 3] = np.inf
    assert first(jax.tree.map(jnp.asarray, rollout), jnp.int32(10)).tolist() == [11 * 2, 5]
    bad = rollout._replace(action=np.float32(flags) + np.float32([[0], [np.nan], [0]]))
    with pytest.raises(dl.DuologueError, match="diverged: the action for environment 0 at its step 11 is not finite"):
        host.check_rollout(bad, 10, 2, tuple("abcd"))
    tasks = tuple("abcd")
    with pytest.raises(dl.EnvError, match="environment 0 gave a NaN or infinite observation at its step 11"):
        host.check_rollout(rollout, 10, 2, tasks)
    obs[1, 0, 3] = 0
    with pytest.raises(dl.EnvError, match="environment 1 gave a NaN or infinite reward of task 'c' at its step 11"):
        host.check_rollout(rollout, 10, 2, tasks)
    seeds = jax.tree.map(lambda x: np.stack([np.zeros_like(x), x], 1), rollout)
    with pytest.raises(dl.EnvError, match=r"environment 1 of seed number 1 gave .* 'c' at its step 11"):
        host.check_rollout(seeds, 10, 2, tasks)
    reward[...] = 0
    host.check_rollout(rollout, 10, 2, tasks)
    assert first(jax.tree.map(jnp.asarray, rollout), jnp.int32(10)).tolist() == [-1, -1]


@pytest.mark.needs("gymnax")
def test_a_compiled_run_ends_with_one_message(tmp_path):
    def broken(obs, action, reward, next_obs, terminated, info):
        return jnp.where(obs[0] < 1e9, jnp.nan, reward)

    tasks = Tasks(broken, paid)
    with pytest.raises(dl.EnvError, match="environment 0 gave a NaN or infinite reward of task 'broken' at its step 0"):
        dl.train(SACX, "gymnax/CartPole-v1", tasks=tasks, steps=16, run_dir=tmp_path / "run")


# Adapters of the user's own.


def test_an_adapter_with_tasks_stays_open_and_is_not_evaluated_while_it_trains(tmp_path):
    class Adapter(GymnasiumEnvs):
        closed = False

        def close(self):
            self.closed = True

    algorithm = dl.A2C(networks=dl.Networks(hidden_sizes=(4,)), num_envs=2, rollout_length=4)
    adapter = Adapter("CartPole-v1", 2, seed=0)
    with pytest.raises(dl.ConfigError, match=r"evaluate_every = 8: an evaluation would reset the environments of the"):
        planned(algorithm, Tasks(paid).attach(adapter), evaluate_every=8)
    with pytest.raises(dl.ConfigError, match=r"seeds = 2: must be 1, because an adapter belongs to one"):
        make_seeds(Tasks(paid).attach(adapter), 2, seed=0, seeds=2)
    run = dl.train(algorithm, adapter, tasks=Tasks(paid), steps=16, run_dir=tmp_path / "run")
    assert run.evaluate(episodes=5).returns.shape == (5,) and not adapter.closed
    own = make(Tasks(paid).attach(adapter), 2)
    assert isinstance(own, TaskedEnvs) and isinstance(own._envs, Adapter)
    own.close()
    assert adapter.closed


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # as above
def test_the_lander_is_served_with_actions_of_both_kinds():
    for name, action, taken in (
        ("LunarLander-v3", Discrete, np.zeros(1, np.int32)),
        ("LunarLanderContinuous-v3", Box, np.zeros((1, 2), np.float32)),
    ):
        envs = make(dl.tasks.lunar_lander.attach(name), 1, seed=0)
        envs.reset()
        step = envs.step(taken)
        assert isinstance(envs.spec.action, action) and envs.spec.tasks == dl.tasks.lunar_lander.names
        assert step.reward.shape == (1, 6) and step.reward[0, 0] == 0  # nothing touches the ground yet
        envs.close()
