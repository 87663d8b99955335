"""The examples of docs/offline.md: what they claim holds exactly."""

import importlib.util
from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


lw, oe = example("line_world"), example("offline_error")
LENGTHS = [1, 2, 3, 5, 10, 40]
LINES = pytest.mark.parametrize("n", LENGTHS)


def learned(line, improve, guess=1.0):
    q = lw.q_iteration(line, improve, guess)
    return q, improve(line, q)


def ruin(n: int, right: float) -> float:
    """Gambler's ruin: from S, one step above what ends it, to n before that."""
    odds = (1 - right) / right
    return (odds - 1) / (odds ** (n + 1) - 1)


def test_the_behaviour_is_the_one_of_the_story():
    beta = lw.behaviour(lw.Line(length=3, left=2))
    np.testing.assert_array_equal(beta[:, lw.RIGHT], [0, 0, 0.1, 0.1, 0.1])
    np.testing.assert_array_equal(beta.sum(axis=1), 1)


@LINES
def test_success_is_that_of_gamblers_ruin(n: int):
    line = lw.Line(n)
    np.testing.assert_allclose(lw.success(line, lw.behaviour(line)), ruin(n, 0.1), rtol=1e-9)
    right = np.where(np.arange(line.states) < line.start, 0.0, 0.7)
    np.testing.assert_allclose(lw.success(line, np.stack([1 - right, right], axis=1)), ruin(n, 0.7), rtol=1e-9)


def test_success_of_a_walk_without_end_is_nothing():
    line = lw.Line(length=3, left=2)
    right = np.array([1.0, 1.0, 0.0, 0.0, 1.0])  # -1 → S → -1 → …
    assert lw.success(line, np.stack([1 - right, right], axis=1)) == 0.0


def test_walking_agrees():
    line, rng = lw.Line(2), np.random.default_rng(1)
    right = np.full(line.states, 0.6)
    policy = np.stack([1 - right, right], axis=1)
    arrived = [lw.episode(line, policy, rng)[0] for _ in range(4000)]
    exact = lw.success(line, policy)
    assert abs(np.mean(arrived) - exact) < 4 * np.sqrt(exact * (1 - exact) / 4000)


@pytest.mark.parametrize("distance", [0.0, 0.3, 0.9, 1.0])
def test_matched_is_the_best_policy_of_its_ball(distance: float):
    line, rng = lw.Line(4), np.random.default_rng(2)
    q, beta = rng.normal(size=(line.states, 2)), lw.behaviour(line)
    policy = lw.matched(line, q, distance)
    assert np.all(0.5 * np.abs(policy - beta).sum(axis=1) <= distance + 1e-12)
    for right in np.linspace(0, 1, 101):
        other = np.broadcast_to([1 - right, right], policy.shape)
        inside = 0.5 * np.abs(other - beta).sum(axis=1) <= distance
        assert np.all((policy * q).sum(axis=1)[inside] >= (other * q).sum(axis=1)[inside] - 1e-12)


@LINES
def test_strict_matching_keeps_the_behaviour_and_fails_as_the_line_grows(n: int):
    line = lw.Line(n)
    for guess in (0.0, 1.0, 100.0):
        _, policy = learned(line, partial(lw.matched, distance=0.0), guess)
        np.testing.assert_array_equal(policy, lw.behaviour(line))
    chance, longer = (lw.success(x, lw.behaviour(x)) for x in (line, lw.Line(n + 1)))
    assert longer <= chance / 9 * (1 + 1e-9)  # nine times less for each step more: to 0
    assert chance < 9.0**-n


@pytest.mark.parametrize("n", [3, 5, 10, 40])
def test_weak_matching_believes_what_was_never_seen(n: int):
    line = lw.Line(n)
    q, policy = learned(line, partial(lw.matched, distance=0.9))
    np.testing.assert_array_equal(q[: line.start, lw.RIGHT], 1.0)  # no data: the guess, for ever
    value = 0.0
    for _ in range(line.left):  # V = 0.9 · guess + 0.1 · γ V of the state to the left
        value = 0.9 * 1.0 + 0.1 * lw.DISCOUNT * value
    np.testing.assert_allclose(q[line.start, lw.LEFT], lw.DISCOUNT * value, rtol=1e-12)
    assert policy[line.start, lw.LEFT] == 1.0
    assert lw.success(line, policy) == 0.0  # so what Q(S, ←) promises is worth 0
    best = lw.DISCOUNT ** (n + 1)  # even the best that may follow ← at S
    assert q[line.start, lw.LEFT] > best + 0.1


@LINES
def test_weak_matching_hangs_on_the_guess(n: int):
    line = lw.Line(n)
    _, policy = learned(line, partial(lw.matched, distance=0.9), guess=0.0)
    np.testing.assert_allclose(lw.success(line, policy), 1.0, rtol=1e-12)


@LINES
@pytest.mark.parametrize("guess", [-5.0, 0.0, 1.0, 100.0])
def test_the_support_recovers_the_optimal_policy_whatever_the_guess(n: int, guess: float):
    line = lw.Line(n)
    q, policy = learned(line, partial(lw.supported, threshold=0.05), guess)
    np.testing.assert_array_equal(policy[:, lw.RIGHT], np.arange(line.states) >= line.start)
    assert lw.success(line, policy) == 1.0
    steps = n - np.arange(n)  # from S on, to G: no policy of the true process does better than γ^(steps − 1)
    np.testing.assert_allclose(q[line.start :, lw.RIGHT], lw.DISCOUNT ** (steps - 1.0), rtol=1e-9)
    assert q[line.start, lw.LEFT] == 0.0


def test_a_threshold_that_loses_an_action_loses_the_goal():
    line = lw.Line(5)
    _, policy = learned(line, partial(lw.supported, threshold=0.1))
    assert lw.success(line, policy) == 0.0


def test_kl_from_the_policy_to_the_behaviour_is_a_support_constraint_in_disguise():
    """KL(π‖β) of a certain → is −log β(→): finite from S on, where it is seen, and infinite left of it."""
    beta = lw.behaviour(lw.Line(3))[:, lw.RIGHT]
    with np.errstate(divide="ignore"):
        np.testing.assert_allclose(-np.log(beta), [np.inf] * 3 + [np.log(10)] * 3)


def test_the_page_shows_the_table_of_the_example():
    assert lw.table() in (ROOT / "docs" / "offline.md").read_text()


# The offline error


def test_the_process_is_one():
    world = oe.process()
    np.testing.assert_allclose(world.moves.sum(axis=2), 1)
    np.testing.assert_array_equal(world.seen.sum(axis=1), 2)
    assert not np.all(world.seen == world.seen[0])


@pytest.mark.parametrize("seed", range(6))
def test_the_error_stays_under_its_bound(seed: int):
    world, rng = oe.process(seed=seed), np.random.default_rng(seed)
    for allowed in oe.backups(world).values():
        bound = oe.bounds(world, allowed, 80)
        for signs in (rng.uniform(-1, 1, world.reward.shape), 1.0, -1.0):
            found = oe.errors(world, allowed, oe.delta(world) * signs, 80)
            assert np.all(found <= bound + 1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_the_support_keeps_the_error_small_and_the_free_maximum_does_not(seed: int):
    world = oe.process(seed=seed)
    free, support = oe.backups(world).values()
    limit = oe.INSIDE / (1 - oe.DISCOUNT)
    assert oe.in_data(world, oe.bounds(world, support, 300))[-1] == pytest.approx(limit)
    assert oe.in_data(world, oe.bounds(world, free, 300))[-1] == pytest.approx(
        oe.INSIDE + oe.DISCOUNT * oe.OUTSIDE / (1 - oe.DISCOUNT)
    )
    constrained, unconstrained = (
        np.array([oe.in_data(world, run)[-1] for run in oe.of_seeds(world, allowed, 80, 20)])
        for allowed in (support, free)
    )
    assert np.all(constrained <= limit + 1e-9)
    assert np.all(unconstrained > 5 * constrained)


def test_nothing_outside_the_support_reaches_the_constrained_values():
    world = oe.process()
    inside = np.where(world.seen, 0.0, 1e6)
    np.testing.assert_allclose(oe.in_data(world, oe.errors(world, world.seen, inside, 50)), 0, atol=1e-9)


def test_the_bound_is_reached_where_there_is_no_choice():
    world = oe.Process(np.ones((1, 1)), np.ones((1, 1, 1)), np.ones((1, 1), dtype=bool))
    found, bound = oe.errors(world, world.seen, oe.delta(world), 30), oe.bounds(world, world.seen, 30)
    np.testing.assert_allclose(found, bound, atol=1e-12)
    np.testing.assert_allclose(bound[:, 0, 0], oe.INSIDE * (1 - oe.DISCOUNT ** np.arange(31)) / (1 - oe.DISCOUNT))


def test_the_maximum_belongs_inside_the_expectation():
    """Two successors wrong at different actions: max over a' of the mean error is half of the error there is."""
    moves = np.zeros((3, 2, 3))
    moves[0, :, 1:] = 0.5  # state 0 goes to 1 or to 2, which stay as they are
    moves[1, :, 1] = moves[2, :, 2] = 1
    world = oe.Process(np.zeros((3, 2)), moves, np.ones((3, 2), dtype=bool))
    fit = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    before, now = oe.errors(world, world.seen, fit, 2)[1:]
    outside = oe.DISCOUNT * np.max(np.mean(before[1:], axis=0))
    np.testing.assert_allclose(now[0], oe.DISCOUNT)
    np.testing.assert_allclose(outside, oe.DISCOUNT / 2)


def test_alpha_bounds_what_the_constraint_costs():
    world = oe.process()
    free, support = oe.backups(world).values()
    assert oe.alpha(world, free) == 0
    truth = oe.fixed_point(world, free)
    missed = truth.max(axis=1) - np.where(world.seen, truth, -np.inf).max(axis=1)
    np.testing.assert_allclose(oe.alpha(world, support), oe.DISCOUNT * (world.moves @ missed).max())
    cost = np.max(oe.fixed_point(world, free) - oe.fixed_point(world, support))
    assert 0 < oe.alpha(world, support) <= cost <= oe.alpha(world, support) / (1 - oe.DISCOUNT)
