"""The step contract of the Gymnasium adapter: every way an episode can end, and every way an environment can fail."""

import gymnasium as gym
import numpy as np
import pytest
from envs.scripted import Noisy, Scripted

import duologue as dl
from duologue.envs.base import seed_of
from duologue.envs.gymnasium import GymnasiumEnvs
from duologue.envs.make import make
from duologue.envs.spaces import obs_writer, observation_space
from duologue.errors import ConfigError, EnvError, MissingExtraError
from duologue.loops import host
from duologue.runs import config
from duologue.types import Box, Dict, Discrete, MultiDiscrete


def act(count, action=0):
    return np.full(count, action, np.int32)


@pytest.mark.parametrize("end", [(True, False), (False, True), (True, True)], ids=["terminated", "truncated", "both"])
def test_the_true_successor_is_kept_at_an_episode_end(end):
    envs = GymnasiumEnvs(lambda: Scripted(script=((False, False), end)), 2, seed=0)
    np.testing.assert_array_equal(envs.reset(), [[1, 0], [1, 0]])
    step = envs.step(act(2))
    np.testing.assert_array_equal(step.obs, [[1, 1], [1, 1]])
    np.testing.assert_array_equal(step.next_obs, step.obs)
    step = envs.step(act(2))
    np.testing.assert_array_equal(step.next_obs, [[1, 2], [1, 2]])  # before the reset
    np.testing.assert_array_equal(step.obs, [[2, 0], [2, 0]])  # after it
    assert (step.terminated == end[0]).all() and (step.truncated == end[1]).all()
    np.testing.assert_array_equal(step.reward, [2, 2])


def test_episodes_of_one_step():
    envs = GymnasiumEnvs(lambda: Scripted(script=((True, False),)), 1, seed=0)
    envs.reset()
    for episode in range(1, 4):
        step = envs.step(act(1))
        assert step.next_obs.tolist() == [[episode, 1]] and step.obs.tolist() == [[episode + 1, 0]]


def test_arrays_are_fresh_and_of_the_dtypes_of_the_spec():
    """The scripted environment writes into one array for ever; what was handed out must not change."""
    envs = GymnasiumEnvs(lambda: Scripted(script=((False, False),) * 9), 2, seed=0)
    kept = [envs.reset(), *(envs.step(act(2)).obs for _ in range(4))]
    assert [obs[0, 1] for obs in kept] == [0, 1, 2, 3, 4]
    step = envs.step(act(2))
    assert step.obs.dtype == np.float32 and step.reward.dtype == np.float32 and step.terminated.dtype == bool


def test_every_episode_is_seeded_by_where_it_stands():
    made = []
    envs = GymnasiumEnvs(lambda: made.append(Scripted()) or made[-1], 2, seed=7)
    envs.reset()
    for _ in range(6):
        envs.step(act(2))
    assert [env.seeds for env in made] == [[seed_of(7, "train", i, e) for e in range(3)] for i in range(2)]
    seeds = {seed_of(s, p, i, e) for s in range(3) for p in ("train", "evaluate") for i in range(3) for e in range(3)}
    assert len(seeds) == 54 and all(0 <= seed < 2**31 for seed in seeds)


def test_actions_are_shifted_and_clipped_at_the_door():
    made = []
    envs = GymnasiumEnvs(lambda: made.append(Scripted()) or made[-1], 1, seed=0)
    envs.reset()
    envs.step(act(1, 2))
    assert made[0].actions == [7] and envs.spec.action == Discrete(3, start=5)

    class Continuous(Scripted):
        action_space = gym.spaces.Box(-2.0, 3.0, (2,))

    made.clear()
    envs = GymnasiumEnvs(lambda: made.append(Continuous()) or made[-1], 1, seed=0)
    envs.reset()
    envs.step(np.array([[9.0, -9.0]]))
    np.testing.assert_array_equal(made[0].actions[0], np.array([3.0, -2.0], np.float32))
    assert made[0].actions[0].dtype == np.float32
    assert envs.spec.action == Box((2,), low=(-2.0, -2.0), high=(3.0, 3.0))


def test_dict_observations_and_other_spaces():
    class Parts(gym.Env):
        observation_space = gym.spaces.Dict(
            {"image": gym.spaces.Box(0, 255, (2, 2, 3), np.uint8), "level": gym.spaces.Discrete(4, start=1),
             "flags": gym.spaces.MultiBinary(3), "pair": gym.spaces.MultiDiscrete([2, 5])}
        )  # fmt: skip
        action_space = gym.spaces.MultiBinary(2)

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            return self._seen(1), {}

        def step(self, action):
            assert action.dtype == np.int8
            return self._seen(4), 0.0, False, False, {}

        def _seen(self, level):
            return {
                "image": np.full((2, 2, 3), 200, np.uint8),
                "level": level,
                "flags": np.array([1, 0, 1], np.int8),
                "pair": np.array([1, 4]),
            }

    envs = GymnasiumEnvs(Parts, 3, seed=0)
    assert envs.spec.action == MultiDiscrete((2, 2), dtype="int8")
    assert envs.spec.observation == Dict(
        {"flags": Box((3,), "int8"), "image": Box((2, 2, 3), "uint8", (0.0,) * 12, (255.0,) * 12),
         "level": Discrete(4, start=1), "pair": MultiDiscrete((2, 5))}
    )  # fmt: skip
    assert envs.reset()["level"].tolist() == [0, 0, 0]
    obs = envs.step(np.zeros((3, 2), np.int32)).obs
    assert obs["level"].tolist() == [3, 3, 3] and obs["image"].dtype == np.uint8 and obs["pair"].shape == (3, 2)


@pytest.mark.parametrize(
    ("space", "bounds"),
    [
        (gym.spaces.Box(0, 255, (84, 84, 4), np.uint8), ((0.0,), (255.0,))),
        (gym.spaces.Box(0, 1, (65,), np.uint8), ((0.0,), (1.0,))),
        (gym.spaces.Box(-1, 1, (10, 10), np.float32), ((-1.0,), (1.0,))),
        (gym.spaces.Box(0, np.inf, (65,), np.float32), ((0.0,), None)),
        (gym.spaces.Box(0, np.arange(65, dtype=np.uint8), dtype=np.uint8), ((0.0,), (64.0,))),
        (gym.spaces.Box(-np.arange(65.0), 1e300, dtype=np.float64), ((-64.0,), None)),
        (gym.spaces.Box(0, 1, (65,), bool), ((0.0,), (1.0,))),
        (gym.spaces.Box(0, 255, (64,), np.uint8), ((0.0,) * 64, (255.0,) * 64)),
    ],
    ids=str,
)
def test_of_the_bounds_of_many_elements_the_widest_is_kept(space, bounds):
    found = observation_space(space)
    assert (found.low, found.high) == bounds and config.from_dict(config.to_dict(found)) == found


def test_a_snapshot_brings_cartpole_back_bit_for_bit():
    generator = np.random.default_rng(0)
    actions = generator.integers(2, size=(160, 3)).astype(np.int32)
    envs = make("CartPole-v1", 3, seed=5)
    envs.reset()
    for action in actions[:100]:
        envs.step(action)
    snapshot = envs.snapshot()
    expected = [envs.step(action) for action in actions[100:]]
    other = make("CartPole-v1", 3, seed=5)
    _, message = other.restore(snapshot)
    assert message is None
    for action, step in zip(actions[100:], expected, strict=True):
        again = other.step(action)
        np.testing.assert_array_equal(again.next_obs, step.next_obs)
        np.testing.assert_array_equal(again.terminated, step.terminated)
    # What a restored adapter snapshots is what it was restored from.
    third = make("CartPole-v1", 3, seed=5)
    third.restore(snapshot)
    for name, array in third.snapshot().items():
        np.testing.assert_array_equal(array, snapshot[name])


def test_an_environment_that_is_not_deterministic_is_named():
    envs, other = (GymnasiumEnvs(lambda: Noisy(script=((False, False),) * 9), 2, seed=0) for _ in range(2))
    envs.reset()
    for _ in range(3):
        envs.step(act(2))
    obs, message = other.restore(envs.snapshot())
    assert "not deterministic" in message and "0, 1" in message
    assert obs[:, 1].tolist() == [0, 0]  # new episodes
    assert other.snapshot()["episode"].tolist() == [1, 1]


def test_the_history_forgets_what_no_running_episode_needs():
    envs = GymnasiumEnvs(lambda: Scripted(script=((False, False), (True, False))), 1, seed=0)
    envs.reset()
    for _ in range(2501):
        envs.step(act(1))
    assert len(envs._journal.running[0].actions) <= 8
    snapshot = envs.snapshot()
    assert snapshot["length"].tolist() == [1] and snapshot["episode"].tolist() == [1250]


@pytest.mark.parametrize(
    ("space", "given"),
    [
        (gym.spaces.Discrete(4), 4),
        (gym.spaces.Discrete(4, start=5), 4),
        (gym.spaces.MultiDiscrete([2, 3]), np.array([1, 3])),
        (gym.spaces.MultiBinary(1), np.array([2])),
        (gym.spaces.Box(0, 255, (2,), np.uint8), np.array([300, 0])),
    ],
)
def test_counted_observations_are_in_their_space(space, given):
    rows = np.zeros((2, *np.shape(given)), np.int64)
    obs_writer(space)(rows, 0, space.sample())
    with pytest.raises(EnvError, match="which is not in its space"):
        obs_writer(space)(rows, 1, given)


def test_a_limit_of_its_own_is_not_outlived():
    """A callable's environment with a shorter time limit than is asked for would say one thing and do another."""
    with pytest.raises(
        dl.ConfigError, match=r"max_episode_steps = 300: must be at most 200, where .* ends its episodes"
    ):
        GymnasiumEnvs(lambda: gym.make("Pendulum-v1"), 1, seed=0, max_episode_steps=300)
    assert GymnasiumEnvs(lambda: gym.make("Pendulum-v1"), 1, seed=0, max_episode_steps=9).spec.max_episode_steps == 9


def raises(obs):
    raise RuntimeError("the wheel came off")


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (raises, "the wheel came off"),
        (lambda obs: (obs[:1], 1.0, False, False, {}), r"float64\[1\]; the space is float32\[2\]"),
        (lambda obs: (0.0, 1.0, False, False, {}), r"float64\[\]; the space is float32\[2\]"),
        (lambda obs: (obs, None, False, False, {}), "gave the reward None"),
        (lambda obs: (obs, np.ones(2), False, False, {}), "must be one number"),
        (lambda obs: (obs, 1.0, False, {}), "returned 4 values from step, as in Gym before 0.26"),
        (lambda obs: (obs, 1.0, None, False, {}), "gave terminated = None"),
        (lambda obs: (obs, 1.0, False, "no", {}), "truncated = 'no': must be true or false"),
    ],
    ids=["raises", "shape", "scalar", "no-reward", "reward-vector", "four-tuple", "no-flag", "word"],
)
def test_a_failing_environment_is_named(fault, words):
    made = iter([Scripted(script=((False, False),) * 9), Scripted(script=((False, False),) * 9, fault=fault)])
    envs = GymnasiumEnvs(lambda: next(made), 2, seed=3)
    envs.reset()
    envs.step(act(2))
    with pytest.raises(EnvError, match=words) as caught:
        envs.step(act(2))
    assert "environment 1" in str(caught.value) and "step 1 of its episode 0" in str(caught.value)
    assert str(seed_of(3, "train", 1, 0)) in str(caught.value) and caught.value.__cause__ is not None


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ("CartPol-v1", "Closest: 'CartPole-v1'"),
        ("CartPole-v7", "CartPole-v1"),
        pytest.param("gymnax/CartPol-v1", "Did you mean 'CartPole-v1'", marks=pytest.mark.needs("gymnax")),
        ("probe/constnat", "Did you mean 'constant'"),
        ("brax/ant", "not built yet"),
        ("no_such_module:Env-v0", "no_such_module"),
        (3, "must be an id"),
        (lambda: 3, "must be a gymnasium.Env"),
        (lambda: gym.make_vec("CartPole-v1", 2, vectorization_mode="sync"), "vector environment"),
    ],
)
def test_what_is_no_environment_is_said(env, words, unchecked):
    with pytest.raises(ConfigError, match=words):
        make(env, 1)


def test_spaces_that_are_not_served_are_named():
    class Texts(Scripted):
        observation_space = gym.spaces.Text(5)

    class Tuples(Scripted):
        action_space = gym.spaces.Tuple([gym.spaces.Discrete(2)])

    for env, words in ((Texts, "observation space Text"), (Tuples, "action space Tuple")):
        with pytest.raises(ConfigError, match=words):
            GymnasiumEnvs(env, 1, seed=0)


def test_a_missing_simulator_names_the_extra(monkeypatch):
    def missing(*_, **__):
        raise gym.error.DependencyNotInstalled("no MuJoCo")

    monkeypatch.setattr(gym, "make", missing)
    with pytest.raises(MissingExtraError, match=r'pip install "\.\[mujoco\]"'):
        make("HalfCheetah-v5", 1)


def test_a_time_limit_of_the_users():
    envs = make("CartPole-v1", 1, max_episode_steps=3)
    envs.reset()
    assert [bool(envs.step(act(1)).truncated[0]) for _ in range(3)] == [False, False, True]
    assert envs.spec.max_episode_steps == 3


def test_tests_begin_elsewhere_than_training():
    starts = {make("CartPole-v1", 1, seed=5, purpose=p).reset().tobytes() for p in ("train", "evaluate")}
    assert len(starts) == 2


def test_what_is_not_kept_of_a_dropped_episode():
    """A run resumed where an environment did not come back counts nothing of the episode that was cut."""
    algorithm = dl.A2C(networks=dl.Networks(hidden_sizes=(4,)), rollout_length=3, num_envs=2)
    envs, other = (GymnasiumEnvs(lambda: Noisy(script=((False, False),) * 99), 2, seed=0) for _ in range(2))
    *_, (_, state, _) = host.run(algorithm, envs, host.start(algorithm, envs, [0]), steps=30, interval=30)
    assert state.episodes.lengths.tolist() == [15, 15]
    state, message = host.restore(algorithm, other, state)
    assert message and state.episodes.lengths.tolist() == [0, 0] and state.episodes.returns.tolist() == [0, 0]
