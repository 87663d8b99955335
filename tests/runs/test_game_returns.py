"""The game's own return, which `info["episode"]` has, in rows, scores and the choice of the best; the learned return
beside it."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.wrappers import RecordEpisodeStatistics, TimeLimit, TransformReward
from runs.fake_loop import no_learning
from runs.helpers import TINY, quiet, rows
from runs.idle import Idle

import duologue as dl
from duologue.envs.make import make, make_seeds
from duologue.envs.results import GAME_RETURN, read_step
from duologue.envs.tasks import Tasks
from duologue.errors import EnvError
from duologue.loops import host
from duologue.loops.host import Tally
from duologue.loops.state import Episodes
from duologue.runs.watch import watch_episodes
from duologue.types import Step

OBS = np.zeros(1, np.float32)


class Game(gym.Env):
    """Episodes of `length` steps that terminate. Step t of episode e pays 10 e + t + 1."""

    observation_space, action_space = gym.spaces.Box(0, 1, (1,)), gym.spaces.Discrete(2)

    def __init__(self, length=3):
        self.length, self.episode = length, -1

    def reset(self, *, seed=None, options=None):
        self.episode, self.t = self.episode + 1, 0
        return OBS, {}

    def step(self, action):
        self.t += 1
        return OBS, 10.0 * self.episode + self.t, self.t == self.length, False, {}


class Lives(gym.Wrapper):
    """A life of 2 steps ends the episode, and the next one continues the game."""

    def reset(self, *, seed=None, options=None):
        if getattr(self, "over", True):
            self.left = self.env.reset(seed=seed)
        self.over, self.t = False, 0
        return self.left

    def step(self, action):
        obs, reward, terminated, truncated, info = self.env.step(action)
        self.over, self.t = terminated or truncated, self.t + 1
        return obs, reward, terminated or self.t == 2, truncated, info


class Told(gym.Wrapper):
    """Puts `told(return)` into the info of each step; `None` leaves it as it is."""

    def __init__(self, env, told):
        super().__init__(env)
        self.told = told

    def reset(self, **options):
        self.total = 0.0
        return self.env.reset(**options)

    def step(self, action):
        *step, info = self.env.step(action)
        self.total += step[1]
        return *step, info if (more := self.told(self.total)) is None else {**info, **more}


def halved(env):
    return TransformReward(env, lambda reward: 0.5 * reward)


def inside(length=3):
    return halved(RecordEpisodeStatistics(Game(length)))


SOURCES = {  # the learned return of the first episode, and the game's
    "the wrapper inside": (inside, 3.0, 6.0),
    "the wrapper outside": (lambda: RecordEpisodeStatistics(halved(Game())), 3.0, 3.0),
    "a dict of its own": (lambda: halved(Told(Game(), lambda x: {"episode": {"r": x}})), 3.0, 6.0),
    "a number in an array": (lambda: halved(Told(Game(), lambda x: {"episode": {"r": np.array([x])}})), 3.0, 6.0),
    "a scalar of NumPy": (lambda: halved(Told(Game(), lambda x: {"episode": {"r": np.float32(x)}})), 3.0, 6.0),
    "the final info": (lambda: halved(Told(Game(), lambda x: {"final_info": {"episode": {"r": x}}})), 3.0, 6.0),
    "a limit outside": (lambda: TimeLimit(inside(length=9), 3), 3.0, 6.0),
    "a dict outside of the wrapper": (
        lambda: Told(RecordEpisodeStatistics(halved(Game())), lambda x: {"episode": {"r": 7}}), 3.0, 7.0
    ),
}  # fmt: skip
NONE = {
    "no dict": lambda: halved(Game()),
    "the number of the episode": lambda: halved(Told(Game(), lambda x: {"episode": 17})),
    "a dict without a return": lambda: halved(Told(Game(), lambda x: {"episode": {"l": 3}})),
    "a return that is None": lambda: halved(Told(Game(), lambda x: {"episode": {"r": None}})),
    "another key": lambda: halved(RecordEpisodeStatistics(Game(), stats_key="mine")),
    "final info of no dict": lambda: halved(Told(Game(), lambda x: {"final_info": np.zeros(2)})),
}


def row_of(source, *, steps=6, length=3, **options):
    """The first row of a run of `steps` steps of each of two environments, in rollouts of `length`."""
    idle = Idle(rollout_length=length)
    envs = make_seeds(source, 2, seed=0, seeds=1, **options)
    *_, (_, _, totals) = host.run(idle, envs, host.start(idle, envs, [0]), steps=2 * steps, interval=2 * steps)
    envs.close()
    return totals.summary(envs.spec.tasks)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    with no_learning():
        return dl.train(TINY, Game, steps=12, run_dir=tmp_path_factory.mktemp("game") / "run", console=quiet())


@pytest.mark.parametrize("name", SOURCES)
def test_the_games_return_is_shown_and_the_learned_one_beside_it(run, name):
    """Two episodes in each of two environments; the second pays 30 more."""
    source, learned, game = SOURCES[name]
    row = row_of(source)
    more = 0 if game == 7 else 15 * game / learned
    assert row["rollout/ep_rew_mean"] == game + more / 2 and row["rollout/ep_learned_mean"] == learned + 15 / 2
    assert row["rollout/episodes"] == row["rollout/games"] == 4 and row["rollout/ep_len_mean"] == 3
    score = run.evaluate(env=source, episodes=2)
    assert score.returns.tolist() == [game, game] and score.mean == game and "learned" not in str(score)


@pytest.mark.parametrize("name", NONE)
def test_where_no_return_is_reported_the_learned_one_is_all(run, name):
    row = row_of(NONE[name])
    assert row["rollout/ep_rew_mean"] == 3 + 7.5
    assert not {"rollout/ep_learned_mean", "rollout/games"} & row.keys()
    assert run.evaluate(env=NONE[name], episodes=2).returns.tolist() == [3, 3]


@pytest.mark.parametrize("bad", [[1.0, 2.0], "much", np.nan, -np.inf, np.array([], float)], ids=repr)
def test_a_return_that_is_no_finite_number_is_refused_by_name(bad):
    envs = make(lambda: Told(Game(1), lambda x: {"episode": {"r": bad}}), 2)
    envs.reset()
    with pytest.raises(EnvError, match=r"^environment 0 gave info\['episode'\]\['r'\] .*number.* \(at step 0 of"):
        envs.step(np.zeros(2, np.int32))


def test_a_return_is_told_at_the_end_alone():
    """From the first step on it is known that returns will be told."""
    envs = make(inside, 2)
    envs.reset()
    seen = [envs.step(np.zeros(2, np.int32)).info[GAME_RETURN].tolist() for _ in range(3)]
    np.testing.assert_array_equal(seen, [[np.nan] * 2, [np.nan] * 2, [6, 6]])


def test_a_limit_of_the_run_lies_outside_of_the_wrapper():
    """Its episodes end without a report: the return is the wrapper's sum so far."""
    row = row_of(lambda: inside(length=9), max_episode_steps=3)
    assert row["rollout/ep_rew_mean"] == 6 + 15 and row["rollout/games"] == row["rollout/episodes"] == 4


def test_lives_are_episodes_and_games_are_what_is_shown(run):
    """A game of 5 steps has lives of 2, 2 and 1. Its return counts, and not that of a life; a test score of lives is
    the learned return, and says so."""
    row = row_of(lambda: Lives(inside(length=5)), steps=8, length=8)
    assert row["rollout/ep_rew_mean"] == 1 + 2 + 3 + 4 + 5 and row["rollout/games"] == 2
    lives = [0.5 * sum(life) for life in ((1, 2), (3, 4), (5,), (11, 12))]
    assert row["rollout/ep_learned_mean"] == np.mean(lives) and row["rollout/episodes"] == 8
    early = row_of(lambda: Lives(inside(length=5)), steps=4, length=4)
    assert np.isnan(early["rollout/ep_rew_mean"]) and early["rollout/ep_learned_mean"] == np.mean(lives[:2])
    score = run.evaluate(env=lambda: Lives(inside(length=5)), episodes=6)
    assert score.reported == 0 and score.returns.tolist() == [lives[0]] * 6
    score = run.evaluate(env=lambda: Lives(inside(length=3)), episodes=32)  # 16 environments, two lives each
    assert score.reported == 16 and score.returns.tolist() == [1.5] * 16 + [1.5] * 16
    assert "; learned returns, because only 16 of 32 episodes have info['episode'])" in str(score)


def test_returns_are_counted_as_by_hand():
    """Two seeds of three environments, over two intervals; NaN where none is reported."""
    nan, flag = np.nan, lambda *ended: np.array(ended, bool).reshape(2, 3)
    tally = Tally(Episodes(np.zeros((2, 3)), np.zeros((2, 3), int)))
    step = lambda ended, info: Step(None, None, np.ones((2, 3)), ended, ended & False, info)  # noqa: E731
    tally.add(step(flag(0, 0, 1, 0, 0, 0), {}))
    tally.add(step(flag(1, 0, 0, 1, 1, 0), {GAME_RETURN: np.array([[5, 9, nan], [7, nan, nan]])}))
    row = tally.totals(1, {}).summary()
    assert row["rollout/ep_rew_mean"].tolist() == [5, 7] and row["rollout/games"].tolist() == [1, 1]
    assert row["rollout/ep_learned_mean"].tolist() == [1.5, 2.0] and row["rollout/episodes"].tolist() == [2, 2]
    tally.add(step(flag(0, 1, 0, 0, 0, 0), {}))
    row = tally.totals(1, {}).summary()
    np.testing.assert_array_equal(row["rollout/ep_rew_mean"], [nan, nan])
    np.testing.assert_array_equal(row["rollout/ep_learned_mean"], [3, nan])


def test_seeds_have_returns_of_their_own():
    made = iter([inside, inside, Game, Game])  # the environments of the second seed report none
    envs = make_seeds(lambda: next(made)(), 2, seed=0, seeds=2)
    idle = Idle(rollout_length=3)
    [(_, _, totals)] = host.run(idle, envs, host.start(idle, envs, [0, 1]), steps=6, interval=6)
    row = totals.summary()
    np.testing.assert_array_equal(row["rollout/ep_rew_mean"], [6, np.nan])
    assert row["rollout/ep_learned_mean"].tolist() == [3, 6] and row["rollout/games"].tolist() == [2, 0]


def test_tasks_are_scored_by_their_own_rewards(run):
    def twice(obs, action, reward, next_obs, terminated, info):
        return 2 * reward

    row = row_of(Tasks(twice).attach(inside))
    assert row["rollout/ep_rew_mean/twice"] == row["rollout/ep_rew_mean"] == 6 + 15
    assert "rollout/ep_learned_mean" not in row


def test_the_best_is_the_best_game(tmp_path):
    """A penalty falls while the game's score rises: the last evaluation is the best."""

    class Rising(Game):
        played = 0

        def step(self, action):
            obs, _, terminated, truncated, info = super().step(action)
            Rising.played += 1
            return obs, float(Rising.played), terminated, truncated, info

    console = quiet()
    source = lambda: TransformReward(RecordEpisodeStatistics(Rising()), lambda reward: -reward)  # noqa: E731
    with no_learning():
        run = dl.train(
            TINY, source, steps=36, evaluate_every=12, evaluate_episodes=1, run_dir=tmp_path / "run", console=console
        )
    scores = [row["eval/mean_reward"] for row in rows(run.path) if "eval/mean_reward" in row]
    assert len(scores) == 3 and scores == sorted(scores) and scores[0] > 0
    assert [path.name for path in (run.path / "checkpoints" / "best").iterdir()] == ["step-000000000036"]


def test_a_run_says_once_that_some_episodes_report_no_return(tmp_path):
    console = quiet()
    dl.train(
        Idle(), lambda: Lives(inside(length=3)), steps=160, log_every=40, evaluate_every=80, evaluate_episodes=32,
        run_dir=tmp_path / "run", console=console,
    )  # fmt: skip
    text = console.file.getvalue()
    assert text.count("episodes ended with a return in info['episode']: rollout/ep_rew_mean is the mean of these") == 1
    assert text.count("of the test episodes ended with a return in info['episode'], and others did not") == 1


def test_episodes_that_one_watches_have_the_same_returns():
    ends, tell = [False, True, False, True], [np.nan, 7.0, np.nan, np.nan]
    steps = [
        Step(OBS, OBS, np.ones(1), np.array([end]), np.zeros(1, bool), {GAME_RETURN: np.array([game])})
        for end, game in zip(ends, tell, strict=True)
    ]
    assert watch_episodes(iter(steps), 2, None, quiet()).returns.tolist() == [7.0, 2.0]
    bare = [step._replace(info={}) for step in steps]
    assert watch_episodes(iter(bare), 2, None, quiet()).returns.tolist() == [2.0, 2.0]


def test_a_step_is_read_by_hand():
    step = lambda info, terminated=True: (OBS, 1.0, terminated, False, info)  # noqa: E731
    assert read_step(step({"episode": {"r": 2}}))[4] == {GAME_RETURN: 2.0}
    assert read_step(step({"episode": {"r": 2}}, False))[4] == {}  # a sum so far is no return
    assert read_step(step({"episode": {"r": 2}, "success": True, "x": 3}), ("x",))[4] == {
        "x": 3.0, "is_success": 1.0, GAME_RETURN: 2.0
    }  # fmt: skip
