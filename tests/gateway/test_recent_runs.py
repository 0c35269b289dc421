"""What recent runs say of a deadline."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.chassis.deadline import Deadline
from services.chassis.errors import DeadlineTooShort
from services.gateway.order import Order
from services.gateway.recent_runs import KEPT, KEPT_SECONDS, LEAST, TRIAL_SECONDS, RecentRuns
from tests.support.orders import order


class Runs:
    """Recent runs with a clock of their own."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.recent = RecentRuns(lambda: self.now)

    def record(self, *seconds: float, given: float = 600.0, of: Order | None = None) -> None:
        """Let runs bring answers."""
        for one in seconds:
            self.recent.record(of or order(), seconds=one, given_seconds=given)

    def refuses(self, left: float, of: Order | None = None) -> bool:
        """Whether a run with so much time is refused."""
        try:
            self.recent.check(of or order(), Deadline.after(left, lambda: self.now))
        except DeadlineTooShort:
            return True
        return False


def test_less_time_than_the_fastest_run_took_is_refused() -> None:
    """The error says whose runs, how long they take and what is left."""
    runs = Runs()
    runs.record(*[9.0] * 20, 5.0)
    with pytest.raises(DeadlineTooShort) as refusal:
        runs.recent.check(order(), Deadline.after(4.5, lambda: runs.now))
    assert (refusal.value.profile, refusal.value.recent_seconds, refusal.value.left_seconds) == ("default", 5.0, 4.5)
    assert not runs.refuses(5.0)
    assert not runs.refuses(8.0)


def test_a_few_runs_say_nothing() -> None:
    """Ten are wanted."""
    runs = Runs()
    runs.record(*[9.0] * (LEAST - 1))
    assert not runs.refuses(1.0)
    runs.record(9.0)
    assert runs.refuses(1.0)


def test_each_profile_is_its_own() -> None:
    """A run that is like no profile's teaches nothing, and is held to nothing."""
    runs = Runs()
    runs.record(*[9.0] * LEAST)
    runs.record(*[9.0] * LEAST, of=order(""))
    assert not runs.refuses(1.0, order("other"))
    assert not runs.refuses(1.0, order(""))
    assert runs.refuses(1.0)


def test_who_wants_no_check_has_none() -> None:
    """Neither is it refused, nor is anything said of how long it usually takes."""
    runs = Runs()
    runs.record(*[9.0] * LEAST)
    unchecked = order(check_deadline=False)
    assert not runs.refuses(1.0, unchecked)
    assert runs.recent.usual_seconds(unchecked) == 0.0
    assert runs.recent.usual_seconds(order()) == 9.0


def test_samples_age() -> None:
    """Two minutes after the last answer a profile is tried again, however its runs were."""
    runs = Runs()
    runs.record(*[9.0] * LEAST)
    runs.now += KEPT_SECONDS - 0.1
    assert runs.refuses(1.0)
    runs.now += 0.1
    assert not runs.refuses(1.0)


def test_the_latest_samples_count() -> None:
    """A fast run is forgotten once 64 others have followed it."""
    runs = Runs()
    runs.record(0.5, *[9.0] * (KEPT - 1))
    assert not runs.refuses(1.0)
    runs.record(9.0)
    assert runs.refuses(1.0)


@pytest.mark.parametrize("panel_share", [0.2, 0.6, 1.0])
@given(data=st.data())
def test_runs_that_take_whatever_they_are_given_lock_nobody_out(panel_share: float, data: st.DataObject) -> None:
    """Where a quorum is never met, so that a run lasts at least as long as its panel may, no deadline is refused however short it is beside those before."""
    runs = Runs()
    hungry = order(panel_share=panel_share)
    for given_seconds in data.draw(st.lists(st.floats(0.5, 600.0), min_size=LEAST, max_size=KEPT)):
        used = data.draw(st.floats(panel_share, 1.0))
        runs.record(given_seconds * used, given=given_seconds, of=hungry)
    assert not runs.refuses(data.draw(st.floats(0.01, 600.0)), hungry)


def test_a_hurried_run_shows_how_fast_it_can_go() -> None:
    """It is no evidence that more time is needed, but it is that less does."""
    runs = Runs()
    runs.record(*[9.0] * LEAST)
    assert runs.refuses(7.0)
    runs.record(6.0, given=8.0)
    assert not runs.refuses(7.0)


def test_refusals_are_put_to_the_test() -> None:
    """While callers with more time keep the samples fresh, one run in thirty seconds is let through; its answer lowers the bar."""
    runs = Runs()
    refused = []
    for _ in range(round(2.5 * TRIAL_SECONDS)):
        runs.record(*[9.0] * LEAST)
        refused.append(runs.refuses(5.0))
        runs.now += 1.0
    assert [second for second, one in enumerate(refused) if not one] == [TRIAL_SECONDS, 2 * TRIAL_SECONDS]
    runs.record(4.0, given=5.0)
    assert not runs.refuses(5.0)


def test_what_runs_usually_take_is_the_ninetieth_percentile_of_the_unhurried() -> None:
    """Stalls do not make everybody wait in vain, and hurried runs say nothing of what is needed."""
    runs = Runs()
    assert runs.recent.usual_seconds(order()) == 0.0
    runs.record(*[float(second) for second in range(1, 11)], *[500.0] * 20)
    assert runs.recent.usual_seconds(order()) == 9.0
