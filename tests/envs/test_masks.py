"""Masks of environments on the host: refused where they can mask no action, put into observations by one wrapper."""

import gymnasium as gym
import jax
import numpy as np
import pytest
from envs.masked import LENGTH, Elsewhere, Masked, OwnAdapter
from gymnasium import spaces

import duologue as dl
from duologue.envs.asynchronous import AsyncGymnasiumEnvs
from duologue.envs.gymnasium import GymnasiumEnvs
from duologue.envs.make import make, make_seeds
from duologue.envs.tasks import Tasks
from duologue.loops import evaluate, host
from duologue.types import ACTION_MASK, Discrete, MultiDiscrete, are_masks, describe_bad_mask

TINY = dl.A2C(networks=dl.Networks(hidden_sizes=(8,)), rollout_length=4, num_envs=2)
NAN, TAXI = float("nan"), max(name for name in gym.registry if name.startswith("Taxi-"))


def is_mask(entries, sizes):
    """By hand: only 0 and 1, and a 1 for each component."""
    rest, allowed = list(entries), True
    for size in sizes:
        part, rest = rest[:size], rest[size:]
        allowed = allowed and 1 in part
    return allowed and all(entry in (0, 1) for entry in entries)


@pytest.mark.parametrize("sizes", [(4,), (2, 2), (1, 3), (1, 1, 2)], ids=str)
@pytest.mark.parametrize("dtype", [bool, np.int8, np.uint8, np.float32])
def test_masks_are_those_that_can_mask_an_action(sizes, dtype):
    values = {bool: [0, 1], np.int8: [0, 0, 1, 1, 2, -1], np.uint8: [0, 0, 1, 1, 255]}
    generator = np.random.default_rng(0)
    masks = generator.choice(values.get(dtype, [0, 0, 1, 1, 1, 0.5, NAN, -1]), (20, 10, 4)).astype(dtype)
    expected = [[is_mask(mask.tolist(), sizes) for mask in row] for row in masks]
    assert 0 < np.sum(expected) < np.size(expected)
    np.testing.assert_array_equal(are_masks(masks, sizes), expected)
    np.testing.assert_array_equal(jax.jit(lambda masks: are_masks(masks, sizes))(masks), expected)


@pytest.mark.parametrize(
    ("mask", "action", "words"),
    [
        (np.int8([0, 0, 0]), Discrete(3), r"action_mask \[0 0 0\], which allows no action: at least one"),
        (np.float32([0, 0]), Discrete(2), r"action_mask \[0 0\], which allows no action"),
        (np.int8([0, 1, 0, 0, 0]), MultiDiscrete((2, 3)), r"\[0 1 0 0 0\], which allows no action for component 1"),
        (np.int8([0, 0, 1]), MultiDiscrete((2, 1)), r"allows no action for component 0"),
        (np.float32([1, NAN]), Discrete(2), r"\[1 nan\]: each entry must be 1 \(allowed\) or 0 \(forbidden\)"),
        (np.float32([1, 0.5]), Discrete(2), r"\[1 0\.5\]: each entry"),
        (np.zeros(1000, np.int8), Discrete(1000), r"\[0 0 0 \.\.\. 0 0 0\], which"),
    ],
)
def test_a_bad_mask_in_words(mask, action, words):
    with pytest.raises(AssertionError, match=words):
        raise AssertionError(describe_bad_mask(mask, action))


BAD = {
    "at the first reset": ({(0, 0): [0, 0, 0]}, {}, r"\[0 0 0\], which allows .* \(at the reset of its episode 0,"),
    "at a step": ({(1, 2): [0, 0, 0]}, {}, r"\[0 0 0\], .* \(at step 2 of its episode 1, reset seed \d+\)"),
    "at a later reset": ({(2, 0): [0, 0, 0]}, {}, r"\[0 0 0\], .* \(at the reset of its episode 2,"),
    "one component": ({(0, 1): [1, 1, 0, 0, 0]}, {"sizes": (2, 3)}, r"\[1 1 0 0 0\], .* for component 1.* \(at step 1"),
    "nan": ({(0, 3): [1, 1, NAN]}, {"dtype": np.float32}, r"\[1 1 nan\]: each entry must be .* \(at step 3 of"),
    "negative": ({(0, 1): [1, -1, 1]}, {}, r"\[ 1 -1  1\]: each entry must be .* \(at step 1 of"),
    "logits": ({(0, 1): [0, -np.inf, 0]}, {"dtype": np.float32}, r"\[0 -inf 0\]: each entry must be"),
    "counts": ({(0, 1): [2, 0, 1]}, {}, r"\[2 0 1\]: each entry must be"),
    "a share": ({(0, 1): [0.25, 0, 0.75]}, {"dtype": np.float32}, r"\[0\.25 0 0\.75\]: each entry must be"),
}


def played(envs, steps=3 * LENGTH):
    """Step with the last action of each component."""
    envs.reset()
    action = np.asarray([getattr(envs.spec.action, "nvec", getattr(envs.spec.action, "n", None))] * envs.num_envs) - 1
    for _ in range(steps):
        envs.step(action.astype(np.int32))


@pytest.mark.parametrize("case", BAD)
def test_a_bad_mask_is_refused_by_environment_step_and_mask(case):
    script, options, words = BAD[case]
    scripts = iter([{}, script, {}])
    with pytest.raises(dl.EnvError, match=f"environment 1 gave the action_mask {words}"):
        played(GymnasiumEnvs(lambda: Masked(next(scripts), **options), 3, seed=0))


@pytest.mark.parametrize("ends", ["terminated", "truncated"])
def test_nobody_acts_on_the_successor_of_an_end(ends):
    script = {(episode, LENGTH): [0, 0, 0] for episode in range(9)}
    envs = GymnasiumEnvs(lambda: Masked(script, ends=ends), 2, seed=0)
    played(envs)
    assert envs.step(np.int32([2, 2])).next_obs[ACTION_MASK].tolist() == [[0, 1, 1]] * 2


def bad_in_the_second_episode():
    return Masked({(1, 2): [0, 0, 0], (0, LENGTH): [0, 0, 0]})


def bad_at_once():
    return Masked({(0, 0): [1, 7, 1]})


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (bad_in_the_second_episode, r"environment 0 gave .* which allows no action.*at step 2 of its episode 1"),
        (bad_at_once, r"environment 0 gave .*\[1 7 1\]: each entry must be 1"),
    ],
)
def test_a_bad_mask_of_another_process(make, words):
    envs = AsyncGymnasiumEnvs(make, 2, seed=0)
    try:
        with pytest.raises(dl.EnvError, match=words):
            played(envs)
    finally:
        envs.close()


def test_a_bad_mask_of_a_restored_environment():
    """The same code runs again, but the environment has changed since."""
    envs = GymnasiumEnvs(Masked, 1, seed=0)
    played(envs, LENGTH + 1)
    script = {(episode, steps): [0, 0, 0] for episode in range(9) for steps in range(LENGTH)}
    with pytest.raises(dl.EnvError, match=r"environment 0 gave the action_mask \[0 0 0\]"):
        GymnasiumEnvs(lambda: Masked(script), 1, seed=0).restore(envs.snapshot())


def test_a_bad_mask_of_one_of_several_seeds_names_it():
    scripts = iter([{}, {}, {}, {(0, 1): [0, 0, 0]}])
    envs = make_seeds(lambda: Masked(next(scripts)), 2, seed=0, seeds=2)
    envs.reset()
    with pytest.raises(dl.EnvError, match="Seed number 1: environment 1 gave the action_mask"):
        envs.step(np.full((2, 2), 2, np.int32))


OWN = pytest.mark.parametrize(
    ("bad", "i", "t", "words"),
    [
        ([0, 0, 0], 1, 5, r"environment 1 gave the action_mask \[0 0 0\], which .* \(at its step 5\)"),
        ([NAN, 1, 1], 0, 0, r"environment 0 gave the action_mask \[nan 1 1\]: each .* \(at its step 0\)"),
        ([-1, 1, 1], 0, 2, r"environment 0 gave the action_mask \[-1 1 1\]: each .* \(at its step 2\)"),
    ],
)


@OWN
def test_a_bad_mask_of_an_adapter_is_never_acted_on(bad, i, t, words):
    envs = OwnAdapter(2, bad, i, t)
    with pytest.raises(dl.EnvError, match=words):
        list(host.run(TINY, envs, host.start(TINY, envs, [0]), steps=40, interval=8))
    assert envs.t == t


@OWN
def test_a_bad_mask_of_an_adapter_ends_an_evaluation(bad, i, t, words):
    envs, key = OwnAdapter(2, bad, i, t), jax.random.key(0)
    play = evaluate.host_evaluation(TINY, episodes=20)
    with pytest.raises(dl.EnvError, match=words):
        play(TINY.init(envs.spec, key=key), envs, key)


# The wrapper


MASKS = {
    "numbers": (np.int8([0, 1, 0]), None, [0, 1, 0]),
    "truths": (np.array([False, True, True]), None, [0, 1, 1]),
    "a list": ([False, True, False], None, [0, 1, 0]),
    "floats": (np.float64([1, 0, 1]), None, [1, 0, 1]),
    "a tuple of components": ((np.int8([0, 1]), np.int8([1, 0, 1])), spaces.MultiDiscrete([2, 3]), [0, 1, 1, 0, 1]),
    "side by side": (np.int8([0, 1, 1, 0, 1]), spaces.MultiDiscrete([2, 3]), [0, 1, 1, 0, 1]),
    "a table": (np.array([[True, False], [True, True]]), spaces.MultiBinary(2), [1, 0, 1, 1]),
    "ragged": (np.array([[1], [0, 1]], object), spaces.MultiDiscrete([1, 2]), [1, 0, 1]),
    "from one": (np.int8([0, 0, 1]), spaces.Discrete(3, start=1), [0, 0, 1]),
}


@pytest.mark.parametrize("where", ["info", "method", "both"])
@pytest.mark.parametrize("case", MASKS)
def test_the_wrapper_puts_the_mask_into_the_observation(case, where):
    mask, action, expected = MASKS[case]
    env = dl.ActionMask(Elsewhere(mask, action=action, where=where))
    obs, info = env.reset(seed=1)
    assert env.observation_space.contains(obs) and (ACTION_MASK in info) == (where != "method")
    assert sorted(obs) == [ACTION_MASK, "observation"] and obs[ACTION_MASK].tolist() == expected
    assert obs[ACTION_MASK].dtype == np.int8
    obs, reward, *ends, _ = env.step(env.action_space.sample())
    assert obs[ACTION_MASK].tolist() == expected and reward == 1.0 and ends == [False, False]


def test_a_dict_gets_one_more_part():
    inner = spaces.Dict({"x": spaces.Box(-1, 1, (2,)), "n": spaces.Discrete(4)})
    env = dl.ActionMask(Elsewhere(np.int8([0, 1, 0]), obs=inner))
    obs, _ = env.reset(seed=1)
    assert sorted(obs) == [ACTION_MASK, "n", "x"] and env.observation_space.contains(obs)


@pytest.mark.parametrize(
    ("last", "where", "expected"),
    [
        ("same", "info", [1, 1, 1]),
        ("same", "method", [1, 1, 1]),
        ("terminated", "info", [1, 1, 1]),
        ("truncated", "info", [1, 1, 1]),
        ("truncated", "method", [0, 1, 0]),
    ],
)
def test_the_last_observation_of_an_episode(last, where, expected):
    """Terminated: nobody acts, and the environment is not asked. Truncated: as given, or all where it is not given."""
    env = dl.ActionMask(Elsewhere(np.int8([0, 1, 0]), where=where, last=last))
    env.reset()
    for _ in range(LENGTH):
        obs, _, *ends, _ = env.step(1)
    assert ends == [last != "truncated", last == "truncated"] and obs[ACTION_MASK].tolist() == expected


@pytest.mark.parametrize(
    ("env", "words"),
    [
        (Elsewhere([1], action=spaces.Box(-1, 1, (2,))), "a mask is not possible for actions of Box"),
        (Masked(), "has a part 'action_mask' already"),
    ],
)
def test_what_the_wrapper_cannot_wrap(env, words):
    with pytest.raises(dl.ConfigError, match=words):
        dl.ActionMask(env)
    with pytest.raises(dl.ConfigError, match=words):
        GymnasiumEnvs(lambda: dl.ActionMask(env), 1, seed=0)


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (np.int8([1, 1]), r"gave the mask array\(\[1, 1\].*must be 3 entries"),
        (np.float32([1, NAN, 0]), "each 1 .allowed. or 0"),
        ([1, 0.5, 0], "each 1 .allowed. or 0"),
        ([-1, 1, 0], "each 1 .allowed. or 0"),
        ([None, 1, 0], "each 1 .allowed. or 0"),
        (None, "gave the mask None: must be 3 entries"),
        (1, "gave the mask 1: must be 3 entries"),
        (np.zeros(3, bool), r"\[0 0 0\], which allows no action"),
    ],
)
def test_a_mask_that_does_not_fit_names_the_environment(mask, words):
    envs = GymnasiumEnvs(lambda: dl.ActionMask(Elsewhere(mask, where="method")), 1, seed=0)
    with pytest.raises(dl.EnvError, match=f"environment 0 .*{words}.*at the reset of its episode 0"):
        envs.reset()


def test_a_mask_that_is_missing_is_not_guessed():
    env = Elsewhere(np.int8([1, 0, 0]))
    env._info = dict
    with pytest.raises(dl.EnvError, match=r"environment 0 gave no mask: it has no method action_masks\(\)"):
        GymnasiumEnvs(lambda: dl.ActionMask(env), 1, seed=0).reset()


# What a run says


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("info", "gives masks of actions in info['action_mask'], but none in its observation"),
        ("method", "gives masks of actions in a method action_masks(), but"),
        ("both", "gives masks of actions in a method action_masks() and info['action_mask'], but"),
    ],
)
def test_masks_that_nobody_reads_are_named(where, words):
    source = lambda: Elsewhere(np.int8([1, 0, 0]), where=where)  # noqa: E731
    envs = make_seeds(Tasks(paid).attach(source), 2, seed=0, seeds=2)
    envs.reset()
    (note,) = envs.reset_notes()
    assert words in note and note.endswith("in the callable, return duologue.ActionMask(env)")


def paid(obs, action, reward, next_obs, terminated, info):
    return reward


def test_the_remedy_for_an_id_is_a_line_that_runs():
    envs = make(TAXI, 1)
    envs.reset()
    (note,) = envs.reset_notes()
    remedy = note.partition("pass env=")[2]
    wrapped = make(eval(remedy, {"duologue": dl, "gymnasium": gym}), 1)
    wrapped.reset()
    assert wrapped.reset_notes() == [] and wrapped.spec.observation.spaces[ACTION_MASK].shape == (6,)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_the_note_is_the_same_in_processes_of_their_own(asynchronous):
    envs = make(TAXI, 2, asynchronous=asynchronous)
    try:
        envs.reset()
        (note,) = envs.reset_notes()
        assert note.startswith(f"{TAXI} gives masks of actions in info['action_mask'], but none")
    finally:
        envs.close()


@pytest.mark.parametrize(
    "source",
    [
        "CartPole-v1",
        Masked,
        lambda: dl.ActionMask(Elsewhere(np.int8([1, 0, 0]), where="both")),
        lambda: Elsewhere([1], action=spaces.Box(-1, 1, (2,))),
    ],
    ids=["without masks", "in the observation", "in all places", "for actions without masks"],
)
def test_nothing_is_said_where_nothing_is_ignored(source):
    envs = make(source, 1)
    envs.reset()
    assert envs.reset_notes() == []


def test_a_wrapped_environment_is_never_played_a_forbidden_action():
    """In processes of their own too, where the wrapper is imported again."""
    envs = AsyncGymnasiumEnvs(wrapped, 2, seed=0)
    try:
        assert envs.reset()[ACTION_MASK].tolist() == [[0, 1, 0]] * 2
        assert envs.step(np.int32([1, 1])).obs[ACTION_MASK].tolist() == [[0, 1, 0]] * 2
    finally:
        envs.close()
    made = []
    envs = GymnasiumEnvs(lambda: made.append(wrapped()) or made[-1], 2, seed=0)
    list(host.run(TINY, envs, host.start(TINY, envs, [0]), steps=80, interval=80))
    assert {int(action) for env in made for action in env.unwrapped.played} == {1}


def wrapped():
    return dl.ActionMask(Elsewhere(np.int8([0, 1, 0])))
