"""Recording, reading a run's replay, going on online, fitted Q evaluation, and the commands for them."""

import dataclasses
import io
import itertools
import re
import signal
from typing import ClassVar

import equinox as eqx
import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

import duologue as dl
from duologue.cli import main as cli
from duologue.data import dataset
from duologue.data.cleaning import clean_actions
from duologue.data.summary import data_card
from duologue.envs.gymnasium import GymnasiumEnvs
from duologue.envs.make import make
from duologue.loops import offline
from duologue.loops.learning import sample_mixed_batch
from duologue.loops.replay_ring import ring_bytes
from duologue.runs import checks as planning
from duologue.runs import drive
from duologue.runs import run as of_runs
from duologue.runs.collect import disturb_action, transitions, uniform_policy
from duologue.runs.data_sources import oldest_first
from duologue.types import ACTION_MASK, Box, Discrete, EnvSpec, Replay

SMALL = dl.Networks(hidden_sizes=(8,))
ALGORITHM = dict(networks=SMALL, batch_size=8)
QUIET = Console(file=io.StringIO())


class Shifted(gym.Env):
    """Two actions, 5 and 6; episodes of seven steps that end by a time limit. It notes what it was given."""

    observation_space = gym.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gym.spaces.Discrete(2, start=5)
    given: ClassVar[list[int]] = []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.observation_space.sample(), {}

    def step(self, action):
        self.given.append(int(action))
        self.t += 1
        return np.full(2, self.t / 10, np.float32), float(action), False, self.t == 7, {}


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """SAC after 60 steps of Pendulum in two environments, with a replay of 40 rows: it has gone round."""
    path = tmp_path_factory.mktemp("recorded") / "sac"
    algorithm = dl.SAC(**ALGORITHM, num_envs=2, replay_capacity=40, learning_starts=20, start_steps=20)
    return dl.train(algorithm, "Pendulum-v1", steps=60, run_dir=path, console=QUIET, max_episode_steps=9)


@pytest.fixture(scope="module")
def recorded(learned, tmp_path_factory):
    return learned.collect(40, tmp_path_factory.mktemp("data") / "pendulum.npz")


@pytest.fixture(scope="module")
def cloned(recorded, tmp_path_factory):
    """One update of behaviour cloning on these data."""
    path = tmp_path_factory.mktemp("cloned") / "bc"
    return dl.train(dl.BC(**ALGORITHM), dataset=recorded, steps=1, run_dir=path, console=QUIET)


def test_what_is_recorded_is_what_happened(learned, recorded):
    data = dl.read_data(recorded)
    assert len(data) == 40 and data.spec.id == "Pendulum-v1" and data.spec.action == learned.plan.spec.action
    np.testing.assert_array_equal(np.flatnonzero(data.rows.truncated), [8, 17, 26, 35, 39])
    assert not data.rows.terminated.any() and data.cut == (39,)
    np.testing.assert_array_equal(data.rows.next_obs[:8], data.rows.obs[1:9])
    assert (data.rows.next_obs[8] != data.rows.obs[9]).any()
    angle, speed = np.arctan2(data.rows.obs[:, 1], data.rows.obs[:, 0]), data.rows.obs[:, 2]
    cost = angle**2 + 0.1 * speed**2 + 0.001 * data.rows.action[:, 0] ** 2
    np.testing.assert_allclose(data.rows.reward, -cost, rtol=1e-4)


def test_recording_is_deterministic_in_its_seed_and_tests_with_the_test_policy(learned, tmp_path):
    paths = [learned.collect(12, tmp_path / f"{i}.npz", seed=seed) for i, seed in enumerate((0, 0, 1))]
    first, again, other = (dl.read_data(path).rows.action for path in paths)
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    tested = dl.read_data(learned.collect(12, tmp_path / "tested.npz", explore=False)).rows
    np.testing.assert_allclose(tested.action, learned.policy(tested.obs), rtol=1e-5)


@pytest.mark.parametrize("suffix", ["npz", "hdf5"])
def test_discrete_actions_keep_the_numbers_of_their_environment(tmp_path, suffix):
    if suffix == "hdf5":
        pytest.importorskip("h5py")
    data = dl.read_data(dl.collect_random(Shifted, 30, tmp_path / f"random.{suffix}"))
    assert data.spec.action == Discrete(2, 5) and set(data.rows.action.tolist()) == {0, 1}
    np.testing.assert_array_equal(data.rows.reward, data.rows.action + 5)
    Shifted.given.clear()
    algorithm = dl.BCQDiscrete(**ALGORITHM)
    run = dl.train(algorithm, Shifted, dataset=data, steps=3, run_dir=tmp_path / "run", console=QUIET, evaluate_every=3)
    Shifted.given.clear()
    again = dl.read_data(run.collect(20, tmp_path / "again.npz", noise=0.5))
    assert set(Shifted.given) <= {5, 6} and len(Shifted.given) == 20
    np.testing.assert_array_equal(again.rows.action + 5, Shifted.given)


def test_a_replay_of_counted_actions_is_read_as_the_environment_counts_them(tmp_path):
    algorithm = dl.SACDiscrete(**ALGORITHM, replay_capacity=40, learning_starts=20, start_steps=20)
    run = dl.train(algorithm, Shifted, steps=28, run_dir=tmp_path / "run", console=QUIET)
    data = dl.read_data(run.path)
    assert data.spec.action == Discrete(2, 5) and set(data.rows.action.tolist()) == {0, 1}
    np.testing.assert_array_equal(data.rows.reward, data.rows.action + 5)
    with pytest.raises(dl.ConfigError, match=r"noise = -1.*must be a number >= 0"):
        run.collect(5, tmp_path / "x.npz", noise=-1.0)


class Failing(Shifted):
    """Its twelfth step raises."""

    def step(self, action):
        if len(self.given) == 11:
            raise RuntimeError("out of order")
        return super().step(action)


class Asked(Shifted):
    """At its twelfth step a signal asks to stop."""

    number = signal.SIGINT

    def step(self, action):
        if len(self.given) == 11:
            signal.raise_signal(self.number)
        return super().step(action)


@pytest.mark.parametrize("number", [None, signal.SIGINT, signal.SIGTERM])
def test_what_was_recorded_is_kept_whatever_ends_it(tmp_path, monkeypatch, number):
    Shifted.given.clear()
    monkeypatch.setattr(Asked, "number", number)
    said, out = io.StringIO(), tmp_path / "some.npz"
    raised = {None: dl.EnvError, signal.SIGINT: KeyboardInterrupt, signal.SIGTERM: SystemExit}[number]
    first = dl.collect_random(Shifted, 3, tmp_path / "first.npz", console=QUIET)
    Shifted.given.clear()
    with pytest.raises(raised) as ended:
        dl.collect_random(
            Asked if number else Failing, 40, out, after=first, console=Console(file=said, width=1000)
        )  # fmt: skip
    assert number != signal.SIGTERM or ended.value.code == 143
    rows = 12 if number else 11
    data = dl.read_data(out)
    assert len(data) == 3 + rows and data.cut == (2, 2 + rows)
    np.testing.assert_array_equal(data.rows.action[3:] + 5, Shifted.given)
    assert f"stopped: recorded {rows} of 40 rows in {out}" in said.getvalue()


def test_recording_says_how_far_it_is(tmp_path):
    said = io.StringIO()
    dl.collect_random(Shifted, 250, tmp_path / "some.npz", console=Console(file=said, width=1000))
    text = said.getvalue()
    assert text.startswith("recording | uniform | <") and "Shifted> | seed 0" in text
    assert (
        "step 100/250" in text
        and "step 250/250" in text
        and re.search(r"return (3[5-9]|4[0-2])", text)
        and "stopped" not in text
    )


def test_recording_leaves_a_users_adapter_open(tmp_path, monkeypatch):
    closed = []
    monkeypatch.setattr(GymnasiumEnvs, "close", lambda self: closed.append(self))
    own = make(Shifted, 1, seed=0)
    dl.collect_random(own, 5, tmp_path / "own.npz", console=QUIET)
    assert not closed
    dl.collect_random(Shifted, 5, tmp_path / "other.npz", console=QUIET)
    assert len(closed) == 1


@pytest.mark.parametrize("suffix", ["npz", "hdf5"])
def test_a_mixture_is_recorded_behind_other_data(tmp_path, suffix):
    """Both as they were, and at the seam the record breaks off."""
    first, mixed = tmp_path / f"first.{suffix}", tmp_path / f"mixed.{suffix}"
    dl.collect_random("CartPole-v1", 10, first, seed=1)
    dl.collect_random("CartPole-v1", 97, mixed, seed=2, after=first)
    dl.collect_random("CartPole-v1", 97, tmp_path / "second.npz", seed=2)
    both, parts = dl.read_data(mixed), [dl.read_data(path) for path in (first, tmp_path / "second.npz")]
    for name in ("obs", "action", "reward", "terminated", "truncated", "next_obs"):
        together = np.concatenate([getattr(part.rows, name) for part in parts])
        np.testing.assert_array_equal(getattr(both.rows, name), together, err_msg=name)
    assert both.cut == (9, 10 + 96) == (*parts[0].cut, 10 + parts[1].cut[0]) and both.spec == parts[0].spec
    with pytest.raises(dl.ConfigError, match="a file for another environment"):
        dl.collect_random("Pendulum-v1", 5, tmp_path / "no.npz", after=first)
    assert not (tmp_path / "no.npz").exists()


@pytest.mark.needs("gymnax")
def test_what_was_learned_goes_on_in_environments_written_in_jax(tmp_path):
    data = dl.collect_random("gymnax/Pendulum-v1", 40, tmp_path / "random.npz")
    algorithm = dl.IQL(**ALGORITHM, replay_capacity=100, learning_starts=8)
    offline = dl.train(algorithm, dataset=data, steps=5, run_dir=tmp_path / "offline", console=QUIET)
    run = offline.finetune("gymnax/Pendulum-v1", steps=20, run_dir=tmp_path / "online", console=QUIET)
    assert int(run.state.critics.opt_state[0].count) == 5 + 13  # after steps 8 to 20
    assert run.resume(steps=24, console=QUIET).step == 24


def test_noise_is_in_half_ranges_or_a_share_of_random_actions():
    generator, box = np.random.default_rng(0), Box((2,), "float32", (-2.0, 0.0), (2.0, 10.0))
    middle = np.broadcast_to(np.float32([0, 5]), (20_000, 2))
    assert disturb_action(box, middle, middle, 0.0, generator) is middle
    np.testing.assert_allclose(disturb_action(box, middle, middle, 0.1, generator).std(0), [0.2, 0.5], rtol=0.03)
    one, nothing = np.ones(1, np.int32), np.zeros((1, 2))
    drawn = [disturb_action(Discrete(4), nothing, one, 0.4, generator).item() for _ in range(5000)]
    assert abs((np.array(drawn) != 1).mean() - 0.3) < 0.03
    masked = {ACTION_MASK: np.array([[0, 1, 0, 1]])}
    drawn = [disturb_action(Discrete(4), masked, one, 0.5, generator).item() for _ in range(2000)]
    assert set(drawn) == {1, 3} and abs(np.mean(drawn) - 1.5) < 0.1
    assert {uniform_policy(Discrete(4), 0)(masked, 0, True).item() for _ in range(50)} <= {1, 3}
    with pytest.raises(dl.ConfigError, match=r"noise = .*: must be 0 for actions of .*, which have no scale"):
        disturb_action(Box((1,)), nothing, np.zeros((1, 1), np.float32), 0.1, generator)


@pytest.mark.parametrize("noise", [0.0, 9.0])
def test_what_is_recorded_is_what_the_environment_did(noise):
    """Actions of a policy without bounds, clipped to the box; a file that says its box is clipped to it too."""
    envs = make("Pendulum-v1", 1, seed=0)
    seen = transitions(envs, lambda obs, t, began: np.float32([[7.0 * (-1) ** t]]), noise=noise, seed=0)
    wild = np.concatenate([action for _, action, *_ in itertools.islice(seen, 6)])
    assert np.abs(wild).max() == 2 and (noise > 0 or wild.ravel().tolist() == [2, -2] * 3)
    notes = []
    clipped, space = clean_actions(np.float32([[-3.0], [0.5], [2.0]]), Box((1,), "float32", (-1.0,), (1.0,)), notes)
    assert clipped.ravel().tolist() == [-1, 0.5, 1] and space.high == (1.0,)
    assert notes == ["actions: 2 of 3 rows lay outside the bounds of the file and were clipped."]


def test_a_run_s_replay_is_data_oldest_first_one_environment_after_the_other(learned):
    data = dl.read_data(learned.path)
    assert len(data) == 40  # twenty rows of two environments
    ends = np.flatnonzero(data.rows.truncated)
    assert 19 in ends and 39 in ends
    inside = np.setdiff1d(np.arange(39), ends)
    np.testing.assert_array_equal(data.rows.next_obs[inside], data.rows.obs[inside + 1])
    ring = np.arange(2 * 6).reshape(6, 2)  # 8 rows written: rows 6 and 7 lie where 0 and 1 were
    np.testing.assert_array_equal(oldest_first(ring, 8, axis=0), [4, 6, 8, 10, 0, 2, 5, 7, 9, 11, 1, 3])
    np.testing.assert_array_equal(oldest_first(ring[:3], 3, axis=0), [0, 2, 4, 1, 3, 5])
    assert oldest_first(np.stack([ring, ring]), 8, axis=1).shape == (24,)


def test_what_was_learned_from_data_goes_on_online_with_its_optimisers(recorded, tmp_path):
    algorithm = dl.TD3BC(**ALGORITHM, replay_capacity=100, learning_starts=16)
    offline = dl.train(algorithm, dataset=recorded, steps=10, run_dir=tmp_path / "offline", console=QUIET)
    run = offline.finetune(
        "Pendulum-v1", steps=20, offline_fraction=0.25, dataset=recorded, run_dir=tmp_path / "online", console=QUIET
    )
    assert run.plan.offline_fraction == 0.25 and run.step == 20 and not run.plan.offline
    assert int(run.state.critics.opt_state[0].count) == 10 + 2 * 3  # after 16, 18 and 20 steps
    assert int(offline.state.critics.opt_state[0].count) == 10  # a copy went on
    assert run.resume(steps=24, console=QUIET).step == 24
    for wrong in (-0.1, 1.0):
        with pytest.raises(dl.ConfigError, match=r"offline_fraction = .*: must be a number in \[0, 1\)"):
            offline.finetune("Pendulum-v1", steps=4, offline_fraction=wrong)


@pytest.mark.parametrize(
    ("share", "words"),
    [
        (0.06, "0.06: with batch_size = 8 this is 0 rows, and leaves out the data. Give 0, or from 0.12 to 0.88."),
        (0.95, "0.95: with batch_size = 8 this is 8 rows, and leaves out the environment. Give 0, or from 0.12"),
        ("half", "'half': must be a finite number in [0, 1)"),
        (None, "None: must be a finite number in [0, 1)"),
    ],
)
def test_a_share_that_is_none_of_a_batch_is_refused(cloned, share, words, unchecked):
    with pytest.raises(dl.ConfigError, match=re.escape(f"offline_fraction = {words}")):
        cloned.finetune("Pendulum-v1", steps=4, offline_fraction=share, console=QUIET)


def test_data_that_the_device_cannot_hold_are_refused_by_name(recorded, tmp_path, monkeypatch):
    """A row of Pendulum has 2 · 12 bytes of observations, 4 of action, 4 of reward and 2 flags."""
    room = lambda nbytes: monkeypatch.setattr(planning, "device_memory", lambda: nbytes)  # noqa: E731
    train = lambda name, **how: dl.train(  # noqa: E731
        dl.BC(**ALGORITHM, replay_capacity=50), dataset=recorded, steps=1, run_dir=tmp_path / name, console=QUIET, **how
    )
    room(40 * 34 - 1)
    with pytest.raises(
        dl.ConfigError, match=r"window = None: all rows of .* 0\.0 MiB .* 0\.0 MiB are available\. Give at most 19\."
    ):
        train("all")
    with pytest.raises(dl.ConfigError, match=r"window = 20: two windows, the old and the new, of .*Give at most 19\."):
        train("window", window=20)
    assert not (tmp_path / "window").exists()
    run = train("less", window=19)
    kept = ring_bytes(run.plan.algorithm, run.plan.spec, 1, 1)
    room(40 * 34 + kept - 1)
    how = {"steps": 10, "dataset": recorded, "console": QUIET}
    with pytest.raises(dl.ConfigError, match=r"offline_fraction = 0\.5: all rows of .* even with a window"):
        run.finetune("Pendulum-v1", run_dir=tmp_path / "on", **how)
    assert not (tmp_path / "on").exists()
    monkeypatch.setattr(drive, "full_ring", None)
    run.finetune("Pendulum-v1", run_dir=tmp_path / "without", offline_fraction=0.0, **how)  # takes no row there


def test_cql_goes_on_online(recorded, tmp_path):
    algorithm = dl.CQL(**ALGORITHM, proposals=1, replay_capacity=100, learning_starts=16)
    offline = dl.train(algorithm, dataset=recorded, steps=4, run_dir=tmp_path / "offline", console=QUIET)
    run = offline.finetune("Pendulum-v1", steps=18, dataset=recorded, run_dir=tmp_path / "online", console=QUIET)
    assert int(run.state.sac.critics.opt_state[0].count) == 4 + 3  # after 16, 17 and 18 steps


@pytest.mark.parametrize("share", [0.0, 0.25, 0.9])
@pytest.mark.parametrize("axes", [{}, {"sequence_length": 2}, {"sequence_length": 2, "batches_per_update": 3}])
def test_that_share_of_each_batch_is_of_the_data(share, axes):
    """Data are the rows whose reward is 1."""

    def rewarded(reward):
        columns = {"observations": np.zeros((30, 2)), "actions": np.zeros((30, 1)), "terminals": np.zeros(30, bool)}
        columns |= {"next_observations": columns["observations"], "rewards": np.full(30, reward)}
        return dataset.full_ring(dl.from_columns(columns))

    replay = Replay(batch_size=40, capacity=100, **axes)
    rows = sample_mixed_batch(rewarded(0.0), rewarded(1.0), share, replay, jax.random.key(0)).reward
    assert rows.shape == (*([3] if "batches_per_update" in axes else []), *([2] if axes else []), 40)
    np.testing.assert_array_equal(rows.sum(-1), 40 * share)


def test_what_was_repaired_in_the_data_is_told_before_learning(tmp_path):
    columns = {"observations": np.zeros((30, 3)), "actions": np.zeros((30, 1)), "terminals": np.zeros(30, bool)}
    columns |= {
        "next_observations": columns["observations"],
        "rewards": np.arange(30.0),
        "timeouts": np.arange(30) == 9,
    }
    spec = EnvSpec("Elsewhere-v0", Box((3,), "float32"), Box((1,), "float32", (-2.0,), (2.0,)))
    data, said = dl.from_columns(columns, spec=spec), io.StringIO()
    run = dl.train(
        dl.IQL(**ALGORITHM, replay_capacity=100, learning_starts=8), "Pendulum-v1", dataset=data, steps=2,
        run_dir=tmp_path / "offline", evaluate_episodes=1, console=Console(file=said, width=1000),
    )  # fmt: skip
    online = io.StringIO()
    run.finetune(
        "Pendulum-v1", steps=9, dataset=data, run_dir=tmp_path / "on", console=Console(file=online, width=1000)
    )
    assert "data: 30 rows of <arrays>" in said.getvalue()
    windowed = io.StringIO()
    dl.train(
        dl.BC(networks=SMALL, batch_size=8), dataset=data, steps=2, window=12, run_dir=tmp_path / "windowed",
        console=Console(file=windowed, width=1000),
    )  # fmt: skip
    assert "12 of them on the device at a time" in windowed.getvalue() and "approximates" in windowed.getvalue()
    for text in (said.getvalue(), online.getvalue()):
        assert "data: The last episode is unfinished" in text
        assert "data: The data were recorded in Elsewhere-v0, and are used for Pendulum-v1." in text


def test_going_on_online_is_in_the_environment_that_the_networks_are_for(recorded, tmp_path):
    """Bounds that were read off the data are seldom the environment's, and the actor is made for its own."""
    columns = {name: array for name, array in np.load(recorded).items() if "/" not in name and name != "metadata"}
    columns["actions"] = columns["actions"] / 3
    bare = dl.from_columns(columns)
    guessed = dl.train(dl.IQL(**ALGORITHM), dataset=bare, steps=2, run_dir=tmp_path / "guessed", console=QUIET)
    assert guessed.plan.spec.action != dl.read_data(recorded).spec.action
    with pytest.raises(dl.ConfigError, match="The data gave the agent the action space"):
        guessed.finetune("Pendulum-v1", steps=4, dataset=bare, run_dir=tmp_path / "a")
    known = dl.train(dl.IQL(**ALGORITHM), "Pendulum-v1", dataset=bare, steps=2, run_dir=tmp_path / "b", console=QUIET,
                     evaluate_episodes=1)  # fmt: skip
    with pytest.raises(dl.ConfigError, match="The spaces of the environment differ"):
        known.finetune("MountainCarContinuous-v0", steps=4, dataset=bare, run_dir=tmp_path / "c")


def test_a_schedule_goes_on_over_both_parts_of_the_learning(recorded, tmp_path):
    """It was as long as the part on the data: ended there, nothing more would be learned."""
    algorithm = dl.IQL(
        **ALGORITHM, actor_learning_rate=dl.Linear(1e-3), critic_learning_rate=dl.Linear(1e-3, updates=9),
        replay_capacity=100, learning_starts=8,
    )  # fmt: skip
    offline = dl.train(algorithm, dataset=recorded, steps=10, run_dir=tmp_path / "offline", console=QUIET)
    before = [np.asarray(x) for x in offline.state.actor.net.mean.mlp.output.weight]
    run = offline.finetune("Pendulum-v1", steps=40, dataset=recorded, run_dir=tmp_path / "online", console=QUIET)
    made = int(run.state.critics.opt_state[0].count)
    learned = run.plan.algorithm
    assert run.plan.learned == 10 and learned.actor_learning_rate.updates == made == 10 + 33  # after steps 8 to 40
    assert learned.critic_learning_rate.updates == 9  # which somebody chose
    assert not np.array_equal(before, run.state.actor.net.mean.mlp.output.weight)
    said = io.StringIO()
    run.resume(steps=44, console=Console(file=said, width=1000))
    assert "a Linear schedule ends at step" in said.getvalue()


def test_fitted_q_evaluation_finds_what_a_policy_is_worth(tmp_path):
    """Two actions that pay 5 and 6, seven steps an episode: V = Σ γᵗ r, bootstrapped where time runs out."""
    data = dl.collect_random(Shifted, 300, tmp_path / "random.npz")
    run = dl.train(dl.BC(**ALGORITHM, discount=0.5), dataset=data, steps=2, run_dir=tmp_path / "run", console=QUIET)
    for action, worth in ((0, 10.0), (1, 12.0)):  # r / (1 − γ), of the policy that always takes this one
        certain = jnp.zeros(2).at[action].set(1e3)
        state = eqx.tree_at(lambda s: s.actor.net.mlp.output.bias, run.state, certain)
        value = dataclasses.replace(run, state=state).fitted_q(data, steps=1500)
        assert abs(value.mean - worth) < 0.4
    assert len(value.values) == 43 and value.discount == 0.5
    assert value.interval[0] <= value.mean <= value.interval[1] and "recorded episodes" in str(value)


def test_a_fit_draws_no_batch_of_the_training(recorded, tmp_path, monkeypatch):
    """Seed 0 of both, the same data and batch size: the keys are apart."""
    seen, follow = [], offline.run

    def noting(algorithm, source, state, **options):
        seen.append(jax.random.key_data(state.key).tolist())
        return follow(algorithm, source, state, **options)

    monkeypatch.setattr(offline, "run", noting)
    run = dl.train(dl.BC(**ALGORITHM), dataset=recorded, steps=1, run_dir=tmp_path / "run", console=QUIET)
    run.fitted_q(recorded, steps=1)
    trained, fitted = seen
    assert trained != fitted


def test_a_fit_that_diverges_is_no_worth(recorded, cloned):
    data = dl.read_data(recorded)
    data = dataclasses.replace(data, rows=data.rows._replace(reward=np.full(40, 1e30, np.float32)))
    with pytest.raises(dl.DuologueError, match="diverged: the fitted Q or its loss was not finite after 3 updates"):
        cloned.fitted_q(data, steps=3)


@pytest.fixture
def twice(tmp_path):
    """A file whose time limit, its fourth row, is marked terminal too."""
    ends = np.arange(12) == 3
    columns = {"observations": np.arange(24.0).reshape(12, 2), "actions": np.arange(12) % 2, "rewards": np.ones(12)}
    np.savez(tmp_path / "twice.npz", **columns, next_observations=columns["observations"] + 2, terminals=ends,
             timeouts=ends)  # fmt: skip
    return tmp_path / "twice.npz"


def test_both_is_said_where_it_decides(twice, learned, tmp_path, monkeypatch, unchecked):
    settled = "timeout_and_terminal = 'terminal': the flags of these data are already decided"
    train = lambda data, both: dl.train(  # noqa: E731
        dl.BCQDiscrete(**ALGORITHM),
        dataset=data,
        timeout_and_terminal=both,
        steps=2,
        run_dir=tmp_path / "run",
        console=QUIET,
    )
    with pytest.raises(dl.ConfigError, match="timeout_and_terminal = 'nonsense': must be one of 'timeout', 'terminal'"):
        train(dl.read_data(twice), "nonsense")
    for data in (dl.read_data(twice), learned.path, str(learned.path)):
        with pytest.raises(dl.ConfigError, match=settled):
            train(data, "terminal")
    assert not (tmp_path / "run").exists()
    run = train(twice, "terminal")
    asked = []
    monkeypatch.setattr(of_runs, "fitted_q", lambda plan, state, data, **how: asked.append(data.rows.terminated[3]))
    run.fitted_q(twice)  # as the run had them
    run.fitted_q(twice, timeout_and_terminal="timeout")
    run.fitted_q(dl.read_data(twice))
    assert asked == [True, False, False]
    own = dl.read_data(twice, timeout_and_terminal="terminal")
    assert run.resume(steps=3, dataset=own, console=QUIET).step == 3  # they are what the run began with
    with pytest.raises(dl.ConfigError, match=settled):
        run.fitted_q(own, timeout_and_terminal="terminal")


def test_fields_that_say_nothing_on_data_are_named(recorded, tmp_path):
    for fields, names in (({"updates": 3, "start_steps": 7}, "start_steps, updates"), ({}, None)):
        said = io.StringIO()
        algorithm = dl.Normalized(dl.SAC(**ALGORITHM, **fields))
        path = tmp_path / str(len(fields))
        dl.train(algorithm, dataset=recorded, steps=1, run_dir=path, console=Console(file=said, width=1000))
        note = f"ignored when learning from a data set: {names}\n"
        assert note in said.getvalue() if names else "ignored" not in said.getvalue()


def test_a_beginning_is_where_an_episode_is_known_to_begin(learned, tmp_path):
    """Not behind a cut, and not where a replay that has gone round sets in."""
    first = dl.collect_random(Shifted, 10, tmp_path / "first.npz")
    data = dl.read_data(dl.collect_random(Shifted, 97, tmp_path / "both.npz", after=first))
    assert np.flatnonzero(data.episode_starts).tolist() == [0, 7, *range(17, 107, 7)]
    assert data_card(data)["episodes"] == "16 (13 complete, 3 unfinished)"
    run = dl.train(dl.BC(**ALGORITHM), dataset=data, steps=1, run_dir=tmp_path / "run", console=QUIET)
    midst = dataclasses.replace(data, rows=jax.tree.map(lambda x: x[:5], data.rows), cut=(), starts_episode=False)
    with pytest.raises(dl.ConfigError, match="must have a row that begins an episode"):
        run.fitted_q(midst, steps=1)
    replay = dl.read_data(learned.path)  # of two environments, rows 11 to 30 of each; episodes of nine
    assert not replay.episode_starts[0] and not replay.episode_starts[20]
    np.testing.assert_array_equal(
        np.flatnonzero(replay.episode_starts), np.flatnonzero(replay.rows.truncated)[[0, 1, 3, 4]] + 1
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["collect", "random", "-o", "x.npz"], "collect random needs --env"),
        (["collect", "random", "-o", "x.csv", "--env", "CartPole-v1"], r"must end in \.npz or \.hdf5"),
        (["collect", "random", "-o", "there.npz", "--env", "CartPole-v1"], "exists already"),
        (["collect", "random", "-o", "x.npz", "--env", "CartPole-v1", "--steps", "0"], "steps = 0"),
        (["collect", "random", "-o", "there.npz/x.npz", "--env", "CartPole-v1"], "cannot write"),
        (["train", "bc", "--dataset", "there.npz", "--window", "0"], "window = 0: must be an integer in"),
        (["data", "nothing.npz"], "no recorded data at nothing.npz"),
        (["train", "bc"], "train needs an environment"),
        (["train", "a2c", "--dataset", "there.npz"], "A2C learns from its own rollouts"),
        (
            ["train", "bear", "--dataset", "there.npz"],
            "uses the gradient of Q with respect",
        ),
        (["train", "bc", "Acrobot-v1", "--dataset", "there.npz"], "a file for another environment"),
        (["train", "bc", "--dataset", "there.npz", "--evaluate-every", "5"], "there is no environment. Pass env"),
    ],
)
def test_mistakes_end_in_one_message(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    dl.collect_random("CartPole-v1", 20, "there.npz")
    with pytest.raises(SystemExit) as exit:
        cli.main(arguments)
    assert exit.value.code == 2 and re.search(message, " ".join(capsys.readouterr().err.split()))


def test_from_recording_to_a_score_by_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    small = ["--algorithm.networks.hidden-sizes", "8", "--algorithm.batch-size", "8"]
    said = []
    for command in (
        ["collect", "random", "--env", "CartPole-v1", "--steps", "60", "-o", "random.npz"],
        ["data", "random.npz"],
        ["train", "bcq-discrete", "CartPole-v1", "--dataset", "random.npz", "--steps", "20", "--run-dir", "run",
         "--final-episodes", "2", "--evaluate-episodes", "1", *small],
        ["evaluate", "run", "--dataset", "random.npz", "--fit-steps", "5", "--timeout-and-terminal", "terminal"],
        ["resume", "run", "--steps", "24"],
        ["collect", "run", "--steps", "10", "-o", "more.npz", "--test"],
    ):  # fmt: skip
        with pytest.raises(SystemExit) as exit:
            cli.main(command)
        assert not exit.value.code
        said.append(capsys.readouterr().out)
    assert "next    duologue data random.npz" in said[0] and "terminals" in said[1]
    assert "next    duologue train bcq-discrete CartPole-v1 --dataset random.npz" in said[1]
    assert "mean return" in said[2] and "by fitted Q evaluation" in said[3]
    assert len(dataset.read_dataset("more.npz")) == 10
