"""Running moments against two passes in float64; the statistics of scores against SciPy and plain loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from duologue.ops.statistics import RunningMoments, bootstrap_interval, iqm

ROWS = np.random.default_rng(0).normal(size=(24, 2)).astype(np.float32)
PIECES = 6


def assert_moments(moments, rows, **tolerance):
    """Against both passes over all rows, in float64."""
    rows = np.asarray(rows, np.float64)
    assert int(moments.count) == len(rows) and moments.count.dtype == jnp.int32
    np.testing.assert_allclose(moments.mean, rows.mean(0), **tolerance)
    np.testing.assert_allclose(moments.variance, rows.var(0), **tolerance)
    np.testing.assert_allclose(moments.m2, rows.var(0) * len(rows), **tolerance)


def test_hand_constants():
    """{1, 3} and {5}: mean 3, squared deviations 4 + 0 + 4."""
    both = RunningMoments.from_batch(jnp.array([1.0, 3.0])).merge(RunningMoments.from_batch(jnp.array([5.0])))
    assert (int(both.count), float(both.mean), float(both.m2)) == (3, 3.0, 8.0)
    assert float(both.variance) == pytest.approx(8 / 3)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    order=st.permutations(range(PIECES)),
    joins=st.lists(st.integers(0, 100), min_size=PIECES + 1, max_size=PIECES + 1),
    shift=st.floats(-100, 100, width=32),
    scale=st.floats(0.125, 8, width=32),
)
def test_any_order_and_any_bracketing_of_merges_gives_the_moments_of_all(order, joins, shift, scale):
    """Two of the pieces are empty; neighbours are merged in random turns until one is left."""
    rows = ROWS * np.float32(scale) + np.float32(shift)
    pieces = [RunningMoments.from_batch(jnp.asarray(part)) for part in np.split(rows, PIECES)]
    left = [pieces[i] for i in order]
    left.insert(joins[0] % PIECES, RunningMoments.empty((2,)))
    left.append(RunningMoments.empty((2,)))
    for join in joins:
        i = join % (len(left) - 1)
        left[i : i + 2] = [left[i].merge(left[i + 1])]
    (moments,) = left
    assert_moments(moments, rows, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("sizes", [(1, 7), (7, 1), (3, 5), (1, 1)])
def test_pieces_of_different_sizes_weigh_as_many(sizes):
    rows = ROWS[: sum(sizes)]
    a, b = (RunningMoments.from_batch(jnp.asarray(part)) for part in (rows[: sizes[0]], rows[sizes[0] :]))
    assert_moments(a.merge(b), rows, rtol=1e-5)
    assert_moments(b.merge(a), rows, rtol=1e-5)


def test_an_empty_stream_is_the_neutral_element_and_has_variance_one():
    empty, some = RunningMoments.empty((2,)), RunningMoments.from_batch(jnp.asarray(ROWS))
    for merged in (empty.merge(some), some.merge(empty)):
        for a, b in zip(jax.tree.leaves(merged), jax.tree.leaves(some), strict=True):
            np.testing.assert_array_equal(a, b)
    huge = RunningMoments.from_batch(jnp.full((2, 2), 1e19))
    np.testing.assert_array_equal(empty.merge(huge).m2, huge.m2)
    nothing = empty.merge(empty)
    assert int(nothing.count) == 0
    np.testing.assert_array_equal(nothing.mean, np.zeros(2))
    np.testing.assert_array_equal(nothing.variance, np.ones(2))


def test_a_long_stream_far_from_zero_keeps_its_variance():
    """2 000 merges at mean 1000 ± 1: E[x²] − E[x]² would have lost it in float32."""
    rows = (1000 + np.random.default_rng(1).normal(size=(2000, 4))).astype(np.float32)
    step = jax.jit(
        lambda rows: jax.lax.scan(
            lambda m, row: (m.merge(RunningMoments.from_batch(row)), None), RunningMoments.empty(), rows
        )[0]
    )
    assert_moments(step(jnp.asarray(rows)), rows.ravel(), rtol=3e-3)


def test_under_vmap_each_row_is_the_single_one():
    rows = jnp.asarray(ROWS.reshape(4, 6, 2))
    many = jax.vmap(lambda r: RunningMoments.from_batch(r[:2]).merge(RunningMoments.from_batch(r[2:])))(rows)
    for i in range(4):
        assert_moments(jax.tree.map(lambda x, i=i: x[i], many), rows[i], rtol=1e-4, atol=1e-6)


def test_normalize_divides_by_the_deviation_and_clips():
    moments = RunningMoments.from_batch(jnp.array([[0.0, 10.0], [4.0, 10.0]]))  # means 2 and 10, variances 4 and 0
    x = jnp.array([[[2.0, 10.0], [6.0, 10.0]], [[100.0, 10.5], [-100.0, 3.0]]])
    np.testing.assert_allclose(moments.normalize(x, clip=3.0), [[[0, 0], [2, 0]], [[3, 0.5], [-3, -3]]], rtol=1e-6)
    # ε stands under the root, with the variance: 4/√(4 + 12). A constant column is shifted, and not scaled.
    soft = moments.normalize(jnp.array([6.0, 10.5]), clip=10.0, eps=12.0)
    np.testing.assert_allclose(soft, [1.0, 0.5], rtol=1e-6)
    np.testing.assert_allclose(RunningMoments.empty((2,)).normalize(x[0], clip=99.0), x[0], rtol=1e-6)


def in_pieces(column, size=16):
    """The moments of a column, merged from pieces as a loop merges steps."""
    pieces = jnp.asarray(column, jnp.float32).reshape(-1, size)
    return jax.lax.scan(
        lambda m, piece: (m.merge(RunningMoments.from_batch(piece)), None), RunningMoments.empty(), pieces
    )[0]


@pytest.mark.parametrize("value", [0.0, 0.1, -7.3, 333.3, -98765.4, 1e6 / 3, 1.7e9])
def test_a_column_that_never_changed_is_not_scaled(value):
    """Its first change of 0.001 counts as 0.001. Rounding may give such a column a variance above 0."""
    moments = in_pieces(np.full(4096, value))
    assert float(moments.scale()) == 1.0
    step = np.float32(max(1e-3, abs(value) * 1e-6))  # a change that float32 can hold
    seen = float(moments.normalize(jnp.float32(value) + step, clip=10.0))
    assert seen == pytest.approx(float(step), rel=0.3) or abs(value) > 1e9


@pytest.mark.parametrize(
    ("mean", "spread", "varies"),
    [
        (500.0, 1.0, True), (-500.0, 1.0, True), (20.0, 0.01, True), (0.0, 1e-6, True), (1e-3, 1e-6, True),
        (1e6, 300.0, True), (500.0, 0.02, False), (-20.0, 1e-3, False), (0.0, 5e-8, False), (1e-9, 5e-8, False),
    ],
)  # fmt: skip
def test_a_column_varies_from_a_share_of_its_size_on(mean, spread, varies):
    """σ² > (10⁻⁴ μ)² + (10⁻⁷)², with values μ ± σ: the scale of z-scores, or 1. Small units are no reason."""
    values = mean + spread * np.where(np.arange(512) % 2, 1.0, -1.0)
    assert (spread**2 > (1e-4 * mean) ** 2 + 1e-14) is varies
    expected = 1 / np.sqrt(spread**2 + 1e-8) if varies else 1.0
    np.testing.assert_allclose(in_pieces(values).scale(), expected, rtol=5e-3)


def test_one_constant_column_leaves_the_others_alone():
    rows = np.stack([ROWS[:, 0], np.full(24, 5.0, np.float32)], 1)
    moments = RunningMoments.from_batch(jnp.asarray(rows))
    expected = np.stack([(rows[:, 0] - rows[:, 0].mean()) / rows[:, 0].std(), np.zeros(24)], 1)
    np.testing.assert_allclose(moments.normalize(jnp.asarray(rows), clip=10.0), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("dtype", "size"), [("float16", 300.0), ("float16", 60_000.0), ("bfloat16", 1e15)])
def test_half_precision_is_computed_in_float32(dtype, size):
    """300² is above 65,504, the end of float16: the variance was infinite, and every value 0 for ever."""
    batch = jnp.asarray([[-size, 1], [size, 1], [size, 1], [-size, 1]], dtype)
    moments = RunningMoments.empty((2,)).merge(RunningMoments.from_batch(batch))
    assert moments.mean.dtype == moments.m2.dtype == jnp.float32
    normal = moments.normalize(batch, clip=10.0)
    assert normal.dtype == jnp.float32
    np.testing.assert_allclose(normal, [[-1, 0], [1, 0], [1, 0], [-1, 0]], rtol=1e-2)


def test_an_empty_stream_gives_way_to_another():
    empty, some = RunningMoments.empty((2,)), RunningMoments.from_batch(jnp.asarray(ROWS))
    other = RunningMoments.from_batch(jnp.asarray(ROWS + 1))
    for chosen, expected in ((empty.or_else(some), some), (some.or_else(other), some), (some.or_else(empty), some)):
        jax.tree.map(np.testing.assert_array_equal, chosen, expected)


@pytest.mark.parametrize("n", range(1, 14))
def test_iqm_is_the_trimmed_mean_of_scipy(n):
    scores = np.random.default_rng(n).normal(size=(n, 3))
    np.testing.assert_allclose(iqm(scores, axis=0), stats.trim_mean(scores, 0.25, axis=0))
    np.testing.assert_allclose(iqm(scores.T, axis=1), stats.trim_mean(scores, 0.25, axis=0))
    assert float(iqm(scores)) == pytest.approx(stats.trim_mean(scores, 0.25, axis=None))


def test_iqm_forgets_the_outer_quarters():
    assert float(iqm(np.array([-1e9, 1.0, 2.0, 1e9]))) == 1.5
    assert float(iqm(np.array([3]))) == 3.0


SCORES = np.random.default_rng(3).gamma(2.0, 50.0, size=25)


@pytest.mark.parametrize("level", [0.95, 0.5])
@pytest.mark.parametrize(
    ("ours", "theirs"), [(np.mean, np.mean), (iqm, lambda x, axis: stats.trim_mean(x, 0.25, axis))]
)
def test_the_interval_is_that_of_scipys_percentile_bootstrap(ours, theirs, level):
    interval = bootstrap_interval(SCORES, statistic=ours, level=level, samples=100_000)
    result = stats.bootstrap(
        (SCORES,),
        theirs,
        confidence_level=level,
        n_resamples=100_000,
        method="percentile",
        rng=np.random.default_rng(9),
    )
    spread = SCORES.std() / len(SCORES) ** 0.5
    np.testing.assert_allclose(interval, result.confidence_interval, atol=0.06 * spread)


def test_the_interval_is_a_function_of_its_seed():
    assert bootstrap_interval(SCORES) == bootstrap_interval(SCORES)
    assert bootstrap_interval(SCORES) != bootstrap_interval(SCORES, seed=1)
    assert bootstrap_interval(np.full(7, 2.5)) == (2.5, 2.5)
    assert bootstrap_interval(np.array([4.0])) == (4.0, 4.0)


def test_resamples_of_many_scores_are_drawn_in_blocks():
    """3,000 scores, 2,000 times: more at once than memory should be asked for, and the same draws."""
    scores = np.random.default_rng(0).normal(size=3000)
    picks = np.random.default_rng(0).integers(3000, size=(2000, 3000))
    assert bootstrap_interval(scores, statistic=np.mean) == tuple(np.quantile(scores[picks].mean(1), [0.025, 0.975]))


def test_columns_are_resampled_each_on_its_own():
    """Pooled, tasks at 0 and 1000 would be drawn in unequal numbers; by whole rows, x and −x would always cancel."""
    apart = np.stack([SCORES / 100, 1000 + SCORES / 100], 1)
    low, high = bootstrap_interval(apart, statistic=np.mean)
    assert 499 < low < high < 503
    low, high = bootstrap_interval(np.stack([SCORES, -SCORES], 1), statistic=np.mean)
    # The standard error of ½(mean x + mean −x) for independent draws is σ/√(2n).
    assert high - low == pytest.approx(2 * 1.96 * SCORES.std() / (2 * len(SCORES)) ** 0.5, rel=0.08)


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    """600 samples of 40 normal scores; the standard error of the share is 0.9 %."""
    data = np.random.default_rng(5).normal(3.0, 2.0, size=(600, 40))
    intervals = [bootstrap_interval(scores, statistic=np.mean, samples=400, seed=i) for i, scores in enumerate(data)]
    covered = np.mean([low <= 3.0 <= high for low, high in intervals])
    assert 0.91 < covered < 0.975
