"""When refused callers may come back."""

from hypothesis import given
from hypothesis import strategies as st

from services.gateway.retry_pace import LONGEST_SECONDS, RetryPace


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


def test_before_any_run_has_ended_a_second_is_taken() -> None:
    """Behind three who wait, with one place."""
    assert RetryPace(1, Clock(), lambda: 0.0).retry_after_seconds(3) == 4.0


def test_the_time_a_place_is_held_is_learnt() -> None:
    """The first run counts in full, later ones by a tenth, so that one slow run does not send everybody away."""
    pace = RetryPace(10, Clock(), lambda: 0.0)
    pace.ended(10.0)
    pace.ended(20.0)
    assert round(pace.retry_after_seconds(1), 9) == 2 * 1.1


def test_each_refusal_has_a_moment_of_its_own() -> None:
    """Moments lie one place's time apart; where nobody was refused for a while they begin anew."""
    clock = Clock()
    pace = RetryPace(2, clock, lambda: 0.0)
    assert [pace.retry_after_seconds(0) for _ in range(3)] == [0.5, 1.0, 1.5]
    clock.now += 1.0
    assert pace.retry_after_seconds(0) == 1.0
    clock.now += 100.0
    assert pace.retry_after_seconds(0) == 0.5


def test_the_jitter_lengthens_and_never_shortens() -> None:
    """By half at most."""
    assert RetryPace(1, Clock(), lambda: 1.0).retry_after_seconds(1) == 3.0


def test_a_flood_of_refusals_is_forgotten_soon() -> None:
    """Moments are handed out no further than the bound, so that a burst whose callers never come back does not send others away for minutes."""
    clock = Clock()
    pace = RetryPace(1, clock, lambda: 0.0)
    assert max(pace.retry_after_seconds(0) for _ in range(1000)) == LONGEST_SECONDS
    clock.now += LONGEST_SECONDS
    assert pace.retry_after_seconds(0) == 1.0


@given(st.integers(1, 10_000), st.lists(st.floats(0, 1e6), max_size=5), st.lists(st.integers(0, 10_000), min_size=1, max_size=20), st.floats(0, 1))
def test_it_is_bounded(places: int, ends: list[float], waiting: list[int], drawn: float) -> None:
    """Whatever is known, a tenth of a second to thirty seconds."""
    pace = RetryPace(places, Clock(), lambda: drawn)
    for seconds in ends:
        pace.ended(seconds)
    assert all(0.1 <= pace.retry_after_seconds(count) <= 30.0 for count in waiting)
