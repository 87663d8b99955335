"""Which intention acts next: draws against their laws, and SAC-Q's table against §5.2 of the paper in plain loops."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from scipy.special import softmax

import duologue as dl
from duologue.algorithms.sac_x import task_schedulers
from duologue.algorithms.sac_x.task_schedulers import FixedTask, QTable, Sequential, Table, Uniform

GAMMA = 0.5


@functools.cache
def program(scheduler, tasks):
    """`(table, rewards, ended, period, key) -> (tables, schedules after each choice)`, rows `[T, B]`."""

    def play(table, rewards, ended, period, key):
        def step(now, row):
            table, schedule = now
            reward, ended, key = row
            schedule = task_schedulers.choose(scheduler, table, schedule, tasks=tasks, period=period, key=key)
            chosen = schedule
            table, schedule = task_schedulers.observe(scheduler, table, schedule, reward, ended, GAMMA)
            return (table, schedule), (table, chosen)

        begin = table, task_schedulers.begin(scheduler, rewards.shape[1])
        return jax.lax.scan(step, begin, (rewards, ended, jax.random.split(key, len(rewards))))[1]

    return jax.jit(play)


def played(scheduler, tasks, rewards, ended, period, *, seed=0, table=None):
    table = scheduler.init(tasks) if table is None else table
    rewards, ended = jnp.asarray(rewards, jnp.float32), jnp.asarray(ended, bool)
    return program(scheduler, tasks)(table, rewards, ended, jnp.int32(period), jax.random.key(seed))


def ends(lengths, steps):
    """`[T, B]` flags: the episodes of each environment, one length after the other, for ever."""
    flags = np.zeros((steps, len(lengths)), bool)
    for b, each in enumerate(lengths):
        where = np.cumsum(np.resize(each, steps)) - 1
        flags[where[where < steps], b] = True
    return flags


def decisions(ended, period):
    """`[T, B]`, where a decision is due: every `period` steps of an episode, from its first."""
    due, since = np.zeros(ended.shape, bool), np.zeros(ended.shape[1], int)
    for t, row in enumerate(ended):
        due[t] = since % period == 0
        since = np.where(row, 0, since + 1)
    return due


def test_decisions_are_made_at_multiples_of_the_period_only():
    """Of each episode's own steps: environments are not in step with each other. Between two, the same task acts."""
    ended = ends([[7], [3, 5], [1]], 60)
    for period in (1, 3, 100):
        _, chosen = played(Uniform(), 5, np.zeros(ended.shape), ended, period)
        task, due = np.asarray(chosen.task), decisions(ended, period)
        assert not ((task[1:] != task[:-1]) & ~due[1:]).any()
        assert ((task[1:] != task[:-1]) & due[1:]).sum() > 0.5 * due[1:].sum()
        begins = np.vstack([[True] * 3, ended[:-1]])
        count = np.zeros(3, int)
        for t in range(60):
            count = np.where(begins[t], 0, count) + due[t]
            np.testing.assert_array_equal(chosen.decisions[t], count)


def test_uniform_draws_every_task_alike_and_each_environments_on_its_own():
    _, chosen = played(Uniform(), 6, np.zeros((4000, 2)), np.zeros((4000, 2), bool), 2)
    task = np.asarray(chosen.task)[::2]
    for b in range(2):
        assert stats.chisquare(np.bincount(task[:, b], minlength=6)).pvalue > 1e-4
    pairs = np.histogram2d(*task.T, bins=6)[0]
    assert stats.chi2_contingency(pairs).pvalue > 1e-4
    after = np.histogram2d(task[:-1, 0], task[1:, 0], bins=6)[0]
    assert stats.chi2_contingency(after).pvalue > 1e-4
    np.testing.assert_allclose(Uniform().metrics((), 6)["schedule_probability"], np.full(6, 1 / 6), rtol=1e-6)


def test_the_tasks_in_turn_and_from_the_first_again_in_a_new_episode():
    _, chosen = played(Sequential(), 3, np.zeros((16, 2)), ends([[8], [3]], 16), 2)
    np.testing.assert_array_equal(chosen.task[:, 0], [0, 0, 1, 1, 2, 2, 0, 0] * 2)
    np.testing.assert_array_equal(chosen.task[:, 1], ([0, 0, 1] * 6)[:16])


def test_one_task_always():
    for task, expected in ((-1, 3), (0, 0), (-4, 0), (2, 2)):
        _, chosen = played(FixedTask(task), 4, np.zeros((6, 2)), ends([[2], [3]], 6), 1)
        assert (np.asarray(chosen.task) == expected).all()
    for task in (4, -5, 7):
        with pytest.raises(dl.ConfigError, match=rf"FixedTask.task = {task}: must be in \[-4, 3\], for 4 tasks"):
            played(FixedTask(task), 4, np.zeros((6, 2)), ends([[2], [3]], 6), 1)


# SAC-Q.


def test_the_table_of_three_environments_computed_by_hand():
    """Period 2, γ = ½, over at most 3 visits. Whatever is chosen is: 1 first, then 0, for its values are 64 above.

    t               0  1  2  3
    environment 0   1  2  4|      R₀ = 1 + 1 + 1 = 3, R₁ = 4
    environment 1   8| 2  4|      R₀ = 8; then 2 + 2 = 4: there never was a second decision
    environment 2   1  1  1  1|   R₀ = 1.875, R₁ = 1.5
    """
    table = QTable(window=3, history=1, max_decisions=2)
    value = np.full((2, 2, 2), -64.0, np.float32)
    value[0, 0, 1], value[1, 1, 0] = 0, 0
    rewards = [[1, 8, 1], [2, 2, 1], [4, 4, 1], [0, 0, 1]]
    ended = np.zeros((4, 3), bool)
    ended[0, 1], ended[2, :2], ended[3, 2] = True, True, True
    begin = Table(jnp.asarray(value), jnp.zeros((2, 2, 2), jnp.int32))
    tables, chosen = played(table, 2, rewards, ended, 2, table=begin)
    np.testing.assert_array_equal(chosen.task[:3], [[1, 1, 1], [1, 1, 1], [0, 1, 0]])
    np.testing.assert_allclose(tables.value[:, 0, 0, 1], [8, 8, 5, 5 + (1.875 - 5) / 3], rtol=1e-6)  # (8 + 3 + 4)/3
    np.testing.assert_array_equal(tables.visits[:, 0, 0, 1], [1, 1, 3, 4])
    np.testing.assert_allclose(tables.value[:, 1, 1, 0], [0, 0, 4, 2.75], rtol=1e-6)
    np.testing.assert_array_equal(tables.visits[:, 1, 1, 0], [0, 0, 1, 2])
    assert tables.visits[-1].sum() == 6  # nothing else was learned from
    rest = np.ones((2, 2, 2), bool)
    rest[0, 0, 1], rest[1, 1, 0] = False, False
    np.testing.assert_array_equal(tables.value[-1][rest], value[rest])


def episodes_of(task, rewards, ended, period):
    """`(t, choices, returns)` of each episode that ended, at t: γ begins anew at each decision, to the end."""
    for b in range(rewards.shape[1]):
        begun = 0
        for t in np.flatnonzero(ended[:, b]):
            starts = range(begun, t + 1, period)
            returns = [sum(GAMMA ** (u - s) * rewards[u, b] for u in range(s, t + 1)) for s in starts]
            yield t, [int(task[s, b]) for s in starts], returns
            begun = t + 1


def by_hand(scheduler, tasks, task, rewards, ended, period):
    """The tables after each step, `[T, H, C, K]`, and visits: all that ended with a step at a time."""
    rows, columns = scheduler.max_decisions, tasks**scheduler.history
    value, visits, tables = np.zeros((rows, columns, tasks)), np.zeros((rows, columns, tasks), int), []
    finished = list(episodes_of(task, rewards, ended, period))
    for t in range(len(rewards)):
        found = {}
        for _, choices, returns in (episode for episode in finished if episode[0] == t):
            newest = {}
            for h, choice in enumerate(choices):
                code = 0
                for before in choices[max(0, h - scheduler.history) : h]:
                    code = tasks * code + before
                newest[min(h, rows - 1)] = (code, choice), returns[h]  # the last row is shared
            for h, (entry, of_entry) in newest.items():
                found.setdefault((h, *entry), []).append(of_entry)
        for entry, several in found.items():
            visits[entry] += len(several)
            weight = len(several) / max(min(visits[entry], scheduler.window), len(several))
            value[entry] += weight * (np.mean(several) - value[entry])
        tables.append((value.copy(), visits.copy()))
    return tuple(map(np.stack, zip(*tables, strict=True)))


OPTIONS = [
    (QTable(window=4, history=1, max_decisions=3), 2, 2),
    (QTable(window=2, history=2, max_decisions=2, temperature=5.0), 3, 1),
    (QTable(window=4, history=1, max_decisions=3), 2, 50),
]


@pytest.mark.parametrize(("scheduler", "tasks", "period"), OPTIONS, ids=["usual", "crowded", "one decision"])
def test_the_table_is_the_papers_moving_average_of_executed_decisions(scheduler, tasks, period):
    """Five environments, episodes of other lengths in each; some end together, some have more decisions than rows."""
    ended = ends([[4], [7, 2], [4, 1, 3], [12], [4]], 80)
    rewards = np.random.default_rng(1).normal(1.0, 1.0, ended.shape).astype(np.float32)
    tables, chosen = played(scheduler, tasks, rewards, ended, period, seed=3)
    value, visits = by_hand(scheduler, tasks, np.asarray(chosen.task), rewards.astype(float), ended, period)
    np.testing.assert_array_equal(tables.visits, visits)
    np.testing.assert_allclose(tables.value, value, rtol=1e-5, atol=1e-5)
    assert visits[-1].max() > 2 * scheduler.window or period == 50
    assert (np.diff(visits, axis=0).max((1, 2, 3)) > 1).any()  # several of one entry at once


def test_a_history_as_long_as_the_table_is_the_papers_table():
    """Every sequence of choices before a decision has an entry of its own; a shorter history does not tell them
    apart."""
    rows, steps = 3, 240
    ended = ends([[3], [3, 2]], steps)
    rewards = np.random.default_rng(2).normal(size=ended.shape).astype(np.float32)
    for history in (rows, rows - 1, 1):
        scheduler = QTable(history=history, max_decisions=rows, window=1000)
        tables, chosen = played(scheduler, 2, rewards, ended, 1)
        paper = {}
        for _, choices, returns in episodes_of(np.asarray(chosen.task), rewards.astype(float), ended, 1):
            for h, choice in enumerate(choices):
                paper.setdefault((*choices[:h], choice), []).append(returns[h])
        assert len(paper) == 2 + 4 + 8
        means = {entry: np.mean(several) for entry, several in paper.items()}
        ours = {}
        for *before, c in means:
            code = sum(2**i * choice for i, choice in enumerate(reversed(before[-history:])))
            ours[*before, c] = tables.value[-1, len(before), code, c]
        same = [abs(float(ours[entry]) - mean) < 1e-4 for entry, mean in means.items()]
        assert all(same) if history > 1 else (all(same[i] for i, e in enumerate(means) if len(e) < 3) and not all(same))


def test_boltzmann_probabilities_of_the_entry_that_stands_before():
    """softmax(Q/η) of the row of the decision and of the column of the choices before; the last row for all later."""
    scheduler, tasks = QTable(temperature=2.0, history=2, max_decisions=3), 3
    table = scheduler.init(tasks)
    np.testing.assert_allclose(scheduler.metrics(table, tasks)["schedule_probability"], [1 / 3] * 3, rtol=1e-6)
    value = np.random.default_rng(0).normal(0, 3, table.value.shape).astype(np.float32)
    value[2, 8] = 2e6, 2e6 - 4, -2e6  # shifted by the largest: no overflow
    table = Table(jnp.asarray(value), table.visits)
    schedule = task_schedulers.begin(scheduler, 5)
    stood = [0, 1, 2, 3, 40], [0, 2, 8, 8, 4]
    schedule = jax.tree.map(lambda x: x, schedule)
    schedule = task_schedulers.Schedule(
        schedule.left, jnp.asarray(stood[0], jnp.int32), schedule.task,
        task_schedulers.Decisions(jnp.asarray(stood[1], jnp.int32), *jax.tree.leaves(schedule.memory)[1:]),
    )  # fmt: skip
    expected = [softmax(value[min(h, 2), code].astype(float) / 2) for h, code in zip(*stood, strict=True)]
    np.testing.assert_allclose(scheduler.probs(table, schedule, tasks), expected, rtol=1e-4, atol=1e-7)
    metrics = scheduler.metrics(table, tasks)
    np.testing.assert_allclose(metrics["schedule_probability"], expected[0], rtol=1e-4)
    np.testing.assert_array_equal(metrics["schedule_value"], value[0, 0])
    drawn = task_schedulers.choose(
        scheduler,
        table,
        task_schedulers.begin(scheduler, 20_000),
        tasks=tasks,
        period=jnp.int32(1),
        key=jax.random.key(0),
    ).task
    assert stats.chisquare(np.bincount(drawn, minlength=3), 20_000 * expected[0] / sum(expected[0])).pvalue > 1e-4


@pytest.mark.parametrize("scheduler", [QTable(temperature=0.5), Uniform()], ids=["SAC-Q", "SAC-U"])
def test_sac_q_finds_the_intention_that_pays_and_sac_u_does_not(scheduler):
    """Task 0 earns the main task 1 a step, the others 0: on each of 40 seeds."""
    tasks, count, steps = 3, 4, 600

    @jax.jit
    @jax.vmap
    def play(key):
        def step(now, t):
            table, schedule = now
            schedule = task_schedulers.choose(
                scheduler, table, schedule, tasks=tasks, period=jnp.int32(2), key=jax.random.fold_in(key, t)
            )
            paid = (schedule.task == 0).astype(jnp.float32)
            ended = jnp.full(count, t % 4 == 3)
            return task_schedulers.observe(scheduler, table, schedule, paid, ended, 0.9), paid

        begin = scheduler.init(tasks), task_schedulers.begin(scheduler, count)
        (table, _), paid = jax.lax.scan(step, begin, jnp.arange(steps))
        return scheduler.metrics(table, tasks)["schedule_probability"], paid

    probability, paid = play(jax.vmap(jax.random.key)(jnp.arange(40)))
    late = np.asarray(paid)[:, steps // 2 :].mean((1, 2))
    if isinstance(scheduler, QTable):
        assert (np.asarray(probability)[:, 0] >= 0.9).all() and (late >= 0.85).all()
    else:
        np.testing.assert_allclose(probability, np.full((40, 3), 1 / 3), rtol=1e-6)
        assert np.abs(late - 1 / 3).max() < 0.1


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"history": 9}, r"QTable.history = 9: must be at most max_decisions = 8"),
        ({"history": 0}, r"QTable.history = 0: must be an integer >= 1"),
        ({"temperature": 0.0}, r"QTable.temperature = 0.0: must be a number > 0"),
        ({"window": 0}, r"QTable.window = 0"),
        ({"eta": 1.0}, r"QTable has no field 'eta'"),
    ],
)
def test_a_mistake_in_a_field_is_one_clear_message(fields, words, unchecked):
    with pytest.raises(dl.ConfigError, match=words):
        QTable(**fields)


def test_a_table_that_is_too_large_is_refused():
    with pytest.raises(dl.ConfigError, match=r"QTable.history = 8: a table of 6 tasks would have 6\^8 columns"):
        QTable(history=8).init(6)
    assert QTable(history=2).init(6).value.shape == (8, 36, 6)
