"""A budget of a day or a month of UTC: what is reserved, spent and unreconciled, and what the end of the period does."""

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.limiter.budget import DAY, Budget, day_of, month_of, month_start
from services.models.permits import DenialReason

SECOND = 1_000_000
endings = st.sampled_from(["settle", "release", "lapse", "late", "keep"])
moments = st.datetimes(datetime(1970, 1, 1), datetime(2262, 1, 1)).map(lambda moment: moment.replace(tzinfo=UTC))  # noqa: DTZ001 - hypothesis wants it so


def _utc(moment: datetime) -> int:
    """Return exact microseconds since 1970."""
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def _at(year: int, month: int, day: int, hour: int = 0) -> int:
    return _utc(datetime(year, month, day, hour, tzinfo=UTC))


NOON = _at(2024, 2, 29, 12)


def _budget(limit: int = 1000, period: str = "day", utc: int = NOON) -> Budget:
    return Budget("t", period, limit, utc)


def _kept(budget: Budget) -> tuple[int, int, int]:
    level = budget.level(NOON)
    return level.spent, level.reserved, level.unreconciled


@settings(deadline=None)
@given(moments)
def test_days_and_months_are_the_calendars(moment: datetime) -> None:
    """Numbers of days and months, and the beginnings of months, are those of the calendar, to the microsecond."""
    utc = _utc(moment)
    assert day_of(utc) == moment.toordinal() - date(1970, 1, 1).toordinal()
    assert divmod(month_of(utc), 12) == (moment.year, moment.month - 1)
    assert month_start(month_of(utc)) == _at(moment.year, moment.month, 1)
    assert month_start(month_of(utc)) <= utc < month_start(month_of(utc) + 1)


def test_months_follow_each_other_without_a_gap() -> None:
    """The microsecond before a month's beginning belongs to the month before, in leap years, centuries and at the ends of years."""
    months = range(month_of(_at(1999, 1, 1)), month_of(_at(2101, 2, 1)))
    assert all(month_of(month_start(month)) == month and month_of(month_start(month) - 1) == month - 1 for month in months)
    lengths = {(month_start(later) - month_start(month)) // DAY for month, later in pairwise(months)}
    assert lengths == {28, 29, 30, 31}


@pytest.mark.parametrize(
    ("period", "begin", "resets"),
    [
        ("day", _at(2024, 2, 28, 23), _at(2024, 2, 29)),
        ("day", _at(2024, 12, 31, 1), _at(2025, 1, 1)),
        ("month", _at(2024, 2, 1), _at(2024, 3, 1)),
        ("month", _at(2023, 2, 28, 23), _at(2023, 3, 1)),
        ("month", _at(2100, 2, 28, 23), _at(2100, 3, 1)),
        ("month", _at(2024, 12, 31, 23), _at(2025, 1, 1)),
    ],
)
def test_a_period_ends_where_the_next_begins(period: str, begin: int, resets: int) -> None:
    """Until the last microsecond what was spent counts; then nothing does, and a denial's wait was exactly the time till then."""
    budget = _budget(period=period, utc=begin)
    budget.settle(budget.reserve(900), 900, 900)
    budget.reserve(50)
    obstacle = budget.obstacle(51, begin)
    assert obstacle is not None
    assert (obstacle.reason, obstacle.wait, obstacle.limit) == (DenialReason.BUDGET, resets - begin, f"tenant/t/budget_per_{period}")
    assert (obstacle.value, obstacle.remaining) == (1000, 50)
    assert budget.level(begin).resets_in_seconds == (resets - begin) / SECOND
    budget.roll(resets - 1)
    assert budget.obstacle(51, resets - 1) is not None
    budget.roll(resets)
    assert budget.obstacle(1000, resets) is None
    level = budget.level(resets)
    assert (level.spent, level.reserved, level.unreconciled) == (0, 0, 0)


def test_a_period_that_is_not_rolled_yet_waits_at_least_a_moment() -> None:
    """A denial never says that there is nothing to wait for."""
    budget = _budget()
    budget.reserve(1000)
    obstacle = budget.obstacle(1, NOON + 2 * DAY)
    assert obstacle is not None
    assert obstacle.wait == 1
    assert budget.level(NOON + 2 * DAY).resets_in_seconds == 0


def test_a_clock_that_goes_back_brings_no_old_period_back() -> None:
    """What was spent since stays spent."""
    budget = _budget()
    budget.roll(NOON + DAY)
    number = budget.reserve(10)
    budget.roll(NOON)
    assert (budget.number, _kept(budget)) == (number, (0, 10, 0))
    budget.roll(NOON + DAY)
    assert _kept(budget) == (0, 10, 0)


def test_what_becomes_of_an_estimate() -> None:
    """Settled it is replaced by the actual cost, released it is gone, lapsed it is spent and unreconciled until a late report says what it was."""
    budget = _budget()
    number = budget.reserve(100)
    assert _kept(budget) == (0, 100, 0)
    budget.settle(number, 100, 130)
    assert _kept(budget) == (130, 0, 0)
    budget.release(budget.reserve(200), 200)
    assert _kept(budget) == (130, 0, 0)
    budget.lapse(budget.reserve(300), 300)
    assert _kept(budget) == (430, 0, 300)
    budget.settle_late(number, 300, 50)
    assert _kept(budget) == (180, 0, 0)
    level = budget.level(NOON)
    assert (level.period, level.limit, level.resets_in_seconds) == ("day", 1000, 12 * 3600)


@pytest.mark.parametrize("ending", ["settle", "release", "lapse", "settle_late"])
def test_a_call_of_an_earlier_period_changes_nothing(ending: str) -> None:
    """However it ends after the rollover, the new period's numbers stay what they are."""
    budget = _budget()
    number = budget.reserve(100)
    if ending == "settle_late":
        budget.lapse(number, 100)
    budget.roll(NOON + DAY)
    budget.reserve(7)
    match ending:
        case "settle":
            budget.settle(number, 100, 130)
        case "release":
            budget.release(number, 100)
        case "lapse":
            budget.lapse(number, 100)
        case _:
            budget.settle_late(number, 100, 130)
    assert _kept(budget) == (0, 7, 0)


def test_too_large_is_not_spent() -> None:
    """More than the whole budget is never possible, so there is no wait; exactly the whole is, in the next period."""
    budget = _budget()
    budget.reserve(1)
    never, later = budget.obstacle(1001, NOON), budget.obstacle(1000, NOON)
    assert never is not None
    assert (never.reason, never.wait, never.value, never.remaining) == (DenialReason.TOO_LARGE, None, 1000, 999)
    assert later is not None
    assert (later.reason, later.wait) == (DenialReason.BUDGET, 12 * 3600 * SECOND)
    assert budget.obstacle(999, NOON) is None


def test_what_costs_nothing_is_never_refused() -> None:
    """Not even of a tenant who has spent more than he had."""
    budget = _budget(limit=100)
    budget.settle(budget.reserve(100), 100, 5000)
    assert budget.obstacle(0, NOON) is None
    refused = budget.obstacle(1, NOON)
    assert refused is not None
    assert (refused.reason, refused.remaining) == (DenialReason.BUDGET, -4900)


@settings(deadline=None)
@given(
    st.sampled_from(["day", "month"]),
    st.lists(st.tuples(st.integers(0, 400), endings, st.integers(0, 400), st.integers(0, 40)), max_size=40),
)
def test_i4_spent_and_reserved_never_pass_the_limit_at_a_grant(period: str, history: list[tuple[int, str, int, int]]) -> None:
    """I4: whatever became of the calls before, in this period or the one before; and nothing is ever below zero."""
    budget, utc = _budget(period=period), NOON
    ends: list[tuple[int, int, str, int]] = []
    for cost, how, used, hours in history:
        if budget.obstacle(cost, utc) is None:
            ends.append((budget.reserve(cost), cost, how, used))
            level = budget.level(utc)
            assert cost == 0 or level.spent + level.reserved <= level.limit
        utc += hours * 3600 * SECOND
        budget.roll(utc)
        if len(ends) > 2:
            number, estimate, ending, actual = ends.pop(0)
            if ending == "settle":
                budget.settle(number, estimate, actual)
            elif ending == "release":
                budget.release(number, estimate)
            elif ending != "keep":
                budget.lapse(number, estimate)
                if ending == "late":
                    budget.settle_late(number, estimate, actual)
        level = budget.level(utc)
        assert level.spent >= 0
        assert level.reserved >= 0
        assert 0 <= level.unreconciled <= level.spent
