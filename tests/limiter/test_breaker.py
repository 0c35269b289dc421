"""The breaker, transition by transition; the names are those of the table in its module."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.limiter.breaker import Breaker
from services.limiter.limits import BreakerRules
from services.models.permits import BreakerState, CallResult

SECOND = 1_000_000
RULES = BreakerRules()
CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN


def middle(low: float, high: float) -> float:
    """Give the middle instead of a random number."""
    return (low + high) / 2


class Driven:
    """A breaker with a clock in seconds."""

    def __init__(self, rules: BreakerRules = RULES) -> None:
        self.now = 0.0
        self.breaker = Breaker(rules, 0, middle)
        self._number = 0

    def tick(self, seconds: float = 0.0) -> BreakerState:
        """Let time pass; return the state."""
        self.now += seconds
        self.breaker.tick(self.us)
        return self.breaker.state

    @property
    def us(self) -> int:
        """The time in microseconds."""
        return round(self.now * SECOND)

    def call(self, result: CallResult, *, latency: float = 1.0, retry_after: float | None = None, generation: int | None = None) -> None:
        """Make a call and report it; a probe where the breaker is half-open."""
        permit = self.grant()
        self.report(permit, result, latency=latency, retry_after=retry_after, generation=generation)

    def grant(self, lease: float = 60.0) -> str:
        """Grant a permit."""
        self._number += 1
        permit = f"p{self._number}"
        self.breaker.admit(permit, self.us + round(lease * SECOND))
        return permit

    def report(self, permit: str, result: CallResult, *, latency: float = 1.0, retry_after: float | None = None, generation: int | None = None) -> None:
        """Report a call."""
        self.breaker.record(
            permit,
            self.breaker.generation if generation is None else generation,
            result,
            latency_seconds=latency,
            retry_after_seconds=retry_after,
            now=self.us,
        )

    def opened(self) -> "Driven":
        """Open it by failures in a row."""
        for _ in range(RULES.consecutive_failures):
            self.call(CallResult.FAILURE)
        assert self.breaker.state is OPEN
        return self

    def half_opened(self) -> "Driven":
        """Open it and wait."""
        self.opened()
        assert self.tick(5.0) is HALF_OPEN
        return self


@pytest.mark.parametrize(("bad", "rule"), [(CallResult.FAILURE, "failed"), (CallResult.SUCCESS, "slow")])
def test_t1_too_many_failed_or_slow_calls_open(bad: CallResult, rule: str) -> None:
    """At ten calls with half of them failed, or eight of them slow, and not before, it opens."""
    needed = 5 if rule == "failed" else 8
    driven = Driven()
    for number in range(10):
        assert driven.breaker.state is CLOSED
        # Good calls between bad ones keep failures in a row from opening it first.
        turn_bad = number % 2 == 1 if rule == "failed" else number >= 2
        driven.call(bad if turn_bad else CallResult.SUCCESS, latency=30.0 if turn_bad else 1.0)
    assert driven.breaker.state is OPEN
    assert needed <= 8


def test_t1_fewer_calls_say_nothing() -> None:
    """Nine calls, four of them failed, leave it closed."""
    driven = Driven()
    for number in range(9):
        driven.call(CallResult.TIMEOUT if number % 2 else CallResult.SUCCESS)
    assert driven.breaker.state is CLOSED


def test_t1_old_calls_leave_the_window() -> None:
    """What is older than the window's twelve slices of ten seconds counts no more."""
    driven = Driven()
    for _ in range(4):
        driven.call(CallResult.FAILURE)
    driven.tick(121)
    assert driven.breaker.counts(driven.us) == (0, 0, 0)
    for number in range(10):
        driven.call(CallResult.SUCCESS if number < 9 else CallResult.FAILURE)
    assert driven.breaker.state is CLOSED


def test_t1_each_slice_leaves_the_window_by_itself() -> None:
    """What was counted later stays longer, to the second."""
    driven = Driven()
    driven.call(CallResult.FAILURE)
    driven.tick(60)
    driven.call(CallResult.FAILURE)
    driven.tick(59.999)
    driven.call(CallResult.SUCCESS, latency=30.0)
    assert driven.breaker.counts(driven.us) == (3, 2, 1)
    driven.tick(0.001)
    assert driven.breaker.counts(driven.us) == (2, 1, 1)
    driven.tick(60)
    assert driven.breaker.counts(driven.us) == (1, 0, 1)


def test_t2_failures_in_a_row_open() -> None:
    """Five in a row open a quiet model's breaker; a success in between starts the count anew."""
    driven = Driven()
    for result in [CallResult.FAILURE] * 4 + [CallResult.SUCCESS] + [CallResult.TIMEOUT] * 3:
        driven.call(result)
    assert driven.breaker.state is CLOSED or driven.breaker.counts(driven.us)[0] >= 10
    fresh = Driven()
    for _ in range(4):
        fresh.call(CallResult.FAILURE)
        assert fresh.breaker.state is CLOSED
    fresh.call(CallResult.TIMEOUT)
    assert fresh.breaker.state is OPEN


def test_t3_refused_credentials_open_for_long() -> None:
    """One AUTH opens for 300 s."""
    driven = Driven()
    driven.call(CallResult.AUTH)
    assert driven.breaker.state is OPEN
    assert driven.breaker.wait(driven.us) == 300 * SECOND


def test_t4_t5_open_until_the_time_is_over() -> None:
    """Before open_until the wait is the rest; at it the breaker is half-open."""
    driven = Driven().opened()
    assert driven.breaker.wait(driven.us) == 5 * SECOND
    assert driven.tick(4.999) is OPEN
    assert driven.breaker.wait(driven.us) == pytest.approx(0.001 * SECOND)
    assert driven.tick(0.001) is HALF_OPEN


def test_t6_one_probe_at_a_time() -> None:
    """With a probe out the next caller waits at most until its lease ends."""
    driven = Driven().half_opened()
    assert driven.breaker.wait(driven.us) == 0
    driven.grant(lease=7.0)
    assert driven.breaker.probes == 1
    assert driven.breaker.wait(driven.us) == 7 * SECOND


def test_t6_the_wait_for_a_probe_is_told_to_the_microsecond() -> None:
    """It is what is left of the probe's lease, down to the last one."""
    driven = Driven().half_opened()
    driven.grant(lease=60.0)
    assert driven.breaker.wait(driven.us + 60 * SECOND - 2) == 2
    assert driven.breaker.wait(driven.us + 60 * SECOND - 1) == 1


def test_t6_only_a_half_open_breaker_has_probes() -> None:
    """Calls of a closed one decide nothing by themselves."""
    driven = Driven()
    assert not driven.breaker.admit("p", 60 * SECOND)
    assert driven.breaker.probes == 0
    assert driven.half_opened().breaker.admit("q", 60 * SECOND)


def test_t7_good_probes_close_and_the_load_comes_back_slowly() -> None:
    """Two good probes close it with a clear window; calls at once then grow from one."""
    driven = Driven().half_opened()
    driven.call(CallResult.SUCCESS)
    assert driven.breaker.state is HALF_OPEN
    driven.call(CallResult.SUCCESS)
    assert driven.breaker.state is CLOSED
    assert driven.breaker.counts(driven.us) == (0, 0, 0)
    assert driven.breaker.ramp == 1
    driven.call(CallResult.SUCCESS)
    assert driven.breaker.ramp == 2


def test_t7_a_closed_breaker_counts_anew() -> None:
    """Failures in a row from before it opened do not count: it takes all five again."""
    driven = Driven().half_opened()
    driven.call(CallResult.SUCCESS)
    driven.call(CallResult.SUCCESS)
    for _ in range(4):
        driven.call(CallResult.FAILURE)
        assert driven.breaker.state is CLOSED
    driven.call(CallResult.FAILURE)
    assert driven.breaker.state is OPEN


@pytest.mark.parametrize(("result", "latency"), [(CallResult.FAILURE, 1.0), (CallResult.TIMEOUT, 1.0), (CallResult.SUCCESS, 30.0)])
def test_t8_a_bad_probe_opens_for_longer(result: CallResult, latency: float) -> None:
    """A failed, timed-out or slow probe opens it again, for twice as long."""
    driven = Driven().half_opened()
    driven.call(result, latency=latency)
    assert driven.breaker.state is OPEN
    assert (driven.breaker.open_count, driven.breaker.wait(driven.us)) == (2, 10 * SECOND)


def test_t8_the_doubling_ends() -> None:
    """However often it opens, it is never for longer than 300 s."""
    driven = Driven().opened()
    for _ in range(20):
        driven.tick(300)
        driven.call(CallResult.FAILURE)
    assert driven.breaker.wait(driven.us) == 300 * SECOND


def test_t8_refused_credentials_of_a_probe_open_for_long() -> None:
    """AUTH is AUTH for a probe too."""
    driven = Driven().half_opened()
    driven.call(CallResult.AUTH)
    assert driven.breaker.wait(driven.us) == 300 * SECOND


@pytest.mark.parametrize(("asked", "seconds"), [(42.0, 42), (None, 5)])
def test_t9_a_throttled_probe_opens_for_as_long_as_was_asked(asked: float | None, seconds: int) -> None:
    """Being throttled is no failure: the count of openings stays."""
    driven = Driven().half_opened()
    driven.call(CallResult.THROTTLED, retry_after=asked)
    assert driven.breaker.state is OPEN
    assert (driven.breaker.open_count, driven.breaker.wait(driven.us)) == (1, seconds * SECOND)


@pytest.mark.parametrize("result", [CallResult.CANCELLED, CallResult.REJECTED, None])
def test_t10_a_probe_without_a_verdict_gives_its_slot_back(result: CallResult | None) -> None:
    """Cancelled, rejected or released probes say nothing."""
    driven = Driven().half_opened()
    permit = driven.grant()
    if result is None:
        driven.breaker.give_back(permit)
    else:
        driven.report(permit, result)
    assert (driven.breaker.state, driven.breaker.probes, driven.breaker.wait(driven.us)) == (HALF_OPEN, 0, 0)


def test_t11_probes_that_vanish_open_it_in_the_end() -> None:
    """Two lapsed leases give the slot back, the third opens it: half-open is always left."""
    driven = Driven().half_opened()
    for lapsed in range(3):
        assert driven.breaker.state is HALF_OPEN, lapsed
        driven.breaker.lapse(driven.grant(), driven.us)
    assert driven.breaker.state is OPEN


@given(st.lists(st.sampled_from(list(CallResult)), max_size=8))
def test_t12_reports_of_another_generation_change_nothing(results: list[CallResult]) -> None:
    """Whatever late reports say, state, counts and generation stay."""
    driven = Driven().half_opened()
    before = (driven.breaker.state, driven.breaker.generation, driven.breaker.counts(driven.us), driven.breaker.open_count)
    for number, result in enumerate(results):
        driven.report(f"old-{number}", result, generation=0)
    assert (driven.breaker.state, driven.breaker.generation, driven.breaker.counts(driven.us), driven.breaker.open_count) == before


def test_t13_health_forgets_openings() -> None:
    """Each healthy ten seconds forget one opening, never below none; a failure starts the time anew."""
    driven = Driven().half_opened()
    driven.call(CallResult.FAILURE)
    driven.tick(10)
    driven.call(CallResult.SUCCESS)
    driven.call(CallResult.SUCCESS)
    assert driven.breaker.open_count == 2
    driven.tick(9)
    driven.call(CallResult.FAILURE)
    driven.tick(9)
    assert driven.breaker.open_count == 2
    driven.tick(1)
    assert driven.breaker.open_count == 1
    driven.tick(1000)
    assert driven.breaker.open_count == 0


def test_t13_only_a_closed_breaker_forgets() -> None:
    """Time that passes open or half-open heals nothing, and one healthy while forgets one opening, however often somebody looks."""
    driven = Driven().half_opened()
    driven.tick(1000)
    driven.call(CallResult.FAILURE)
    assert (driven.breaker.open_count, driven.breaker.wait(driven.us)) == (2, 10 * SECOND)
    driven.tick(1000)
    driven.call(CallResult.SUCCESS)
    driven.call(CallResult.SUCCESS)
    driven.tick(10)
    for _ in range(9):
        driven.tick(1)
        assert driven.breaker.open_count == 1
    driven.tick(1)
    assert driven.breaker.open_count == 0


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from([*CallResult, "lapse", "release", "wait"]), st.floats(0, 40)), max_size=60))
def test_invariants_hold_over_any_history(history: list[tuple[CallResult | str, float]]) -> None:
    """I8 and L2: at most one probe is out, generations only grow, OPEN and HALF_OPEN are always left."""
    driven = Driven()
    for step, seconds in history:
        generation = driven.breaker.generation
        driven.tick(seconds)
        if driven.breaker.wait(driven.us) == 0:
            permit = driven.grant()
            assert driven.breaker.probes <= 1
            if isinstance(step, CallResult):
                driven.report(permit, step)
            elif step == "lapse":
                driven.breaker.lapse(permit, driven.us)
            elif step == "release":
                driven.breaker.give_back(permit)
        assert driven.breaker.generation >= generation
    # Time and good calls alone bring it back.
    for _ in range(400):
        driven.tick(61)
        for permit in list(driven.breaker._probes):
            driven.breaker.lapse(permit, driven.us)
        if driven.breaker.wait(driven.us) == 0:
            driven.call(CallResult.SUCCESS)
    assert driven.breaker.state is CLOSED


def test_slices_of_another_length_are_dropped() -> None:
    """Their numbers mean other times; with the same length they stay, whatever else changes."""
    driven = Driven()
    driven.tick(100)
    driven.call(CallResult.FAILURE)
    driven.breaker.follow(BreakerRules(minimum_calls=3))
    assert driven.breaker.counts(driven.us) == (1, 1, 0)
    driven.breaker.follow(BreakerRules(bucket_seconds=30))
    assert driven.breaker.counts(driven.us) == (0, 0, 0)
