"""Token buckets: they never give more than their rate, lose nothing to rounding, and refund only what has not come back by itself."""

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from services.models.bucket import DEEPEST_DEBT, UNIT, Bucket

MINUTE = 60_000_000
rates = st.integers(1, 1_000_000)
steps = st.lists(st.tuples(st.integers(0, MINUTE), st.integers(1, 50)), max_size=40)


@given(rates, st.integers(1, 500), steps)
def test_i2_no_interval_gives_more_than_burst_and_rate(rate: int, capacity: int, history: list[tuple[int, int]]) -> None:
    """Over every interval of any history, what was taken is at most the burst and what the rate allows in it."""
    bucket = Bucket(per_minute=rate, capacity=capacity, now=0)
    now = 0
    taken: list[tuple[int, int]] = []
    for wait, units in history:
        now += wait
        bucket.refill(now)
        if bucket.wait(units) == 0:
            bucket.take(units)
            taken.append((now, units))
    for first in range(len(taken)):
        total = 0
        for last in range(first, len(taken)):
            total += taken[last][1]
            assert total <= capacity + Fraction(rate * (taken[last][0] - taken[first][0]), MINUTE)


@given(rates, st.integers(1, 500), steps)
def test_little_steps_add_up_to_great_ones(rate: int, capacity: int, history: list[tuple[int, int]]) -> None:
    """It does not matter how often somebody looks: refilling often gives exactly what refilling once gives."""
    often, once = (Bucket(per_minute=rate, capacity=capacity, now=0) for _ in range(2))
    often.take(capacity)
    once.take(capacity)
    now = 0
    for wait, _ in history:
        now += wait // 7
        often.refill(now)
    once.refill(now)
    assert (often._level, often.epoch) == (once._level, once.epoch)


@given(rates, st.integers(1, 500), st.integers(1, 1000), st.integers(1, 500))
def test_l3_the_wait_is_sufficient_and_not_much_more(rate: int, capacity: int, taken: int, units: int) -> None:
    """After the wait that was named the units can be had, if the bucket can hold them at all; a microsecond less is too early."""
    units = min(units, capacity)
    bucket = Bucket(per_minute=rate, capacity=capacity, now=0)
    bucket.take(taken)
    wait = bucket.wait(units)
    if wait:
        bucket.refill(wait - 1)
        assert bucket.wait(units) == 1
    bucket.refill(wait)
    assert bucket.wait(units) == 0


@given(rates, st.integers(1, 100), st.integers(0, 10 * MINUTE), st.integers(1, 100))
def test_a_clock_that_goes_back_adds_nothing(rate: int, capacity: int, back: int, taken: int) -> None:
    """Neither going back nor coming forward again pays a moment twice."""
    bucket = Bucket(per_minute=rate, capacity=capacity, now=10 * MINUTE)
    bucket.take(taken)
    level = bucket._level
    bucket.refill(10 * MINUTE - back)
    bucket.refill(10 * MINUTE)
    assert bucket._level == level


def test_a_refund_is_void_once_the_bucket_was_full() -> None:
    """What was charged before the bucket was full has come back by itself; refunding it would give it twice."""
    bucket = Bucket(per_minute=60, capacity=10, now=0)
    charge = bucket.take(5)
    bucket.refill(5 * MINUTE // 60)
    assert bucket.remaining == 10
    bucket.take(3)
    bucket.refund(charge, 5)
    assert bucket.remaining == 7


def test_a_refund_before_that_counts() -> None:
    """And never fills beyond the capacity."""
    bucket = Bucket(per_minute=60, capacity=10, now=0)
    charge = bucket.take(5)
    bucket.refill(2 * MINUTE // 60)
    bucket.refund(charge, 5)
    assert bucket.remaining == 10


def test_debt_is_paid_off_by_time() -> None:
    """A bucket may go below zero and comes back at its rate."""
    bucket = Bucket(per_minute=60, capacity=10, now=0)
    bucket.take(25)
    assert bucket.remaining == -15
    assert bucket.wait(1) == 16 * MINUTE // 60


def test_debt_has_an_end() -> None:
    """However wrong the reports are, all is well again in a time that can be foreseen, and no number grows beyond what a float holds."""
    bucket = Bucket(per_minute=60, capacity=10, now=0)
    for _ in range(5):
        bucket.take(4_000_000_000)
    assert bucket.remaining == DEEPEST_DEBT // UNIT == -30_000_000


def test_a_level_is_only_ever_lowered() -> None:
    """Somebody who says that more is left than there is changes nothing; below zero is zero."""
    bucket = Bucket(per_minute=60, capacity=10, now=0)
    bucket.take(4)
    for said, left in ((9, 6), (6, 6), (2, 2), (-5, 0)):
        bucket.lower(said)
        assert bucket.remaining == left


def test_another_size_keeps_the_level() -> None:
    """What is there stays as far as it fits; what came until now came at the old rate; refunds of before are void where the bucket became full by shrinking."""
    bucket = Bucket(per_minute=60, capacity=10, now=0)
    charge = bucket.take(8)
    bucket.resize(per_minute=600, capacity=100, now=MINUTE // 60)
    assert bucket.remaining == 3
    bucket.refill(2 * MINUTE // 60)
    assert bucket.remaining == 13
    bucket.refund(charge, 2)
    assert bucket.remaining == 15
    bucket.resize(per_minute=60, capacity=5, now=2 * MINUTE // 60)
    assert bucket.remaining == 5
    bucket.take(5)
    bucket.refund(charge, 5)
    assert bucket.remaining == 0


def test_a_bucket_that_becomes_full_by_shrinking_begins_anew() -> None:
    """To exactly what is left as well: refunds of charges of before do not count, also after it has been full once more; one that was full stays as it was."""
    bucket = Bucket(per_minute=60, capacity=10, now=0)
    charge = bucket.take(4)
    bucket.resize(per_minute=60, capacity=6, now=0)
    bucket.take(3)
    bucket.refund(charge, 4)
    assert bucket.remaining == 3
    bucket.refill(MINUTE)
    bucket.take(3)
    bucket.refund(charge, 4)
    assert bucket.remaining == 3
    first, second = bucket.take(1), bucket.take(1)
    bucket.refund(first, 1)
    bucket.add(4 * UNIT)
    bucket.resize(per_minute=60, capacity=5, now=MINUTE)
    bucket.take(3)
    bucket.refund(second, 1)
    assert bucket.remaining == 3
