"""How a loop is cut into device calls."""

import time

import pytest

from duologue.loops.dispatch import CHUNK_SECONDS, GrowingChunks


@pytest.fixture
def clock(monkeypatch):
    """`[now]`, which only the test moves."""
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    return now


def test_calls_double_while_they_are_short_and_never_run_past_the_end(clock):
    """An iteration takes 15 ms: 16 take 0.24 s and are doubled, 32 take 0.48 s and are not."""
    chunks, counts = GrowingChunks(), []
    for until in (100, 200):
        for first, count in chunks.split(until - 100, until, lambda: False):
            assert first == sum(counts)
            clock[0] += 0.015 * count
            counts.append(count)
    assert counts == [1, 2, 4, 8, 16, 32, 32, 5, 32, 32, 32, 4]
    assert 16 * 0.015 < CHUNK_SECONDS / 2 < 32 * 0.015


def test_an_interrupt_ends_them_before_the_next_call(clock):
    seen = []
    for first, count in GrowingChunks().split(0, 100, lambda: len(seen) == 3):
        seen.append((first, count))
    assert seen == [(0, 1), (1, 2), (3, 4)]


def test_a_call_that_the_end_cut_short_says_nothing_about_the_length(clock):
    chunks = GrowingChunks()
    assert [count for _, count in chunks.split(0, 2, lambda: False)] == [1, 1]
    assert chunks.length == 2
