"""Adaptive concurrency: it falls by a tenth at most once a window, rises by one near the limit, and stays between one and what is configured."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.limiter.adaptive import WINDOW, AdaptiveConcurrency


def test_it_starts_at_what_is_configured() -> None:
    """Nobody is held back before anything has gone wrong, and successes raise nothing beyond it."""
    adaptive = AdaptiveConcurrency(8)
    adaptive.succeed(8)
    assert (adaptive.limit, adaptive.most) == (8, 8)


@pytest.mark.parametrize(("limit", "lowered"), [(100, 90), (20, 18), (19, 17), (10, 9), (2, 1), (1, 1)])
def test_a_set_back_takes_a_tenth(limit: int, lowered: int) -> None:
    """Rounded down, but one call is always allowed."""
    adaptive = AdaptiveConcurrency(limit)
    adaptive.set_back(0)
    assert adaptive.limit == lowered


def test_one_decrease_in_a_window() -> None:
    """Calls that fail together count once; the next window may count again, from its first microsecond on."""
    adaptive = AdaptiveConcurrency(100)
    for now in (5, 6, 5 + WINDOW - 1):
        adaptive.set_back(now)
        assert adaptive.limit == 90
    adaptive.set_back(5 + WINDOW)
    assert adaptive.limit == 81
    adaptive.set_back(5 + 2 * WINDOW - 1)
    assert adaptive.limit == 81
    adaptive.set_back(5 + 2 * WINDOW)
    assert adaptive.limit == 72


@pytest.mark.parametrize(("in_flight", "raised"), [(3, 8), (4, 9), (5, 9)])
def test_only_successes_near_the_limit_raise_it(in_flight: int, raised: int) -> None:
    """Near is half of it or more: a quiet model teaches nothing about more calls at once."""
    adaptive = AdaptiveConcurrency(10)
    adaptive.set_back(0)
    adaptive.set_back(WINDOW)
    assert adaptive.limit == 8
    adaptive.succeed(in_flight)
    assert adaptive.limit == raised


@pytest.mark.parametrize(("learnt", "most", "limit"), [(9, 20, 9), (9, 9, 9), (9, 5, 5), (10, 20, 20), (10, 4, 4)])
def test_another_configuration_keeps_what_was_learnt(learnt: int, most: int, limit: int) -> None:
    """A lowered limit stays as far as it fits; one that was never lowered goes with the configuration, up or down."""
    adaptive = AdaptiveConcurrency(10)
    if learnt < 10:
        adaptive.set_back(0)
    assert adaptive.limit == learnt
    adaptive.follow(most)
    assert (adaptive.limit, adaptive.most) == (limit, most)


@settings(deadline=None)
@given(st.integers(1, 50), st.lists(st.one_of(st.tuples(st.just("good"), st.integers(1, 60)), st.tuples(st.just("bad"), st.integers(0, WINDOW)))))
def test_it_stays_in_its_bounds(most: int, history: list[tuple[str, int]]) -> None:
    """Whatever happens, it lies between one and what is configured, and changes by a step at a time."""
    adaptive = AdaptiveConcurrency(most)
    now = 0
    for kind, number in history:
        before = adaptive.limit
        if kind == "good":
            adaptive.succeed(number)
            assert before <= adaptive.limit <= before + 1
        else:
            now += number
            adaptive.set_back(now)
            assert max(1, before * 9 // 10) <= adaptive.limit <= before
        assert 1 <= adaptive.limit <= most
