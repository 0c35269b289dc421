"""Points in time on an injected clock."""

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from services.chassis.deadline import Deadline

seconds = st.floats(min_value=-1000, max_value=1000)


def at(now: float) -> Callable[[], float]:
    """Return a clock that stands still."""
    return lambda: now


@given(now=seconds, ahead=seconds)
def test_what_remains_is_never_negative(now: float, ahead: float) -> None:
    """A deadline that has passed has nothing left, and says that it has expired."""
    deadline = Deadline(now + ahead, at(now))
    assert deadline.remaining() == max(0.0, (now + ahead) - now)
    assert deadline.expired is (now + ahead <= now)


def test_after_counts_from_now() -> None:
    """So many seconds from now, on the clock that was given."""
    assert Deadline.after(5.0, at(100.0)).at == 105.0
    assert Deadline.after(5.0).remaining() <= 5.0


def test_time_passes() -> None:
    """What remains shrinks as the clock goes on."""
    now = [10.0]
    deadline = Deadline.after(2.0, lambda: now[0])
    now[0] = 11.5
    assert deadline.remaining() == 0.5
    assert not deadline.expired
    now[0] = 12.0
    assert deadline.expired


@given(ahead=seconds, limit=seconds)
def test_the_earlier_of_two_is_never_later_than_either(ahead: float, limit: float) -> None:
    """An additional limit can only shorten."""
    assert Deadline.after(ahead, at(7.0)).earlier(limit).at == min(7.0 + ahead, 7.0 + limit)


@given(ahead=st.floats(min_value=0, max_value=1000), fraction=st.floats(min_value=0, max_value=1))
def test_a_share_lies_between_now_and_the_whole(ahead: float, fraction: float) -> None:
    """A share is a part of what is left."""
    share = Deadline.after(ahead, at(7.0)).share(fraction)
    assert 7.0 <= share.at <= 7.0 + ahead + 1e-9


def test_a_share_of_what_is_over_is_now() -> None:
    """Nothing can be shared out of a deadline that has passed, and no share lies in the past."""
    assert Deadline(1.0, at(5.0)).share(0.5).at == 5.0


def test_a_margin_is_taken_off() -> None:
    """The margin makes it earlier by exactly that much; the clock stays."""
    deadline = Deadline.after(5.0, at(100.0)).minus(2.0)
    assert deadline.at == 103.0
    assert deadline.remaining() == 3.0
