"""How long a run that was denied its permits waits."""

from services.chassis.deadline import Deadline
from services.models.outcomes import Outcome
from services.models.patience import healing_seconds, wait_seconds
from services.models.receipt import CallReceipt


def _denied(retry_after: float | None, *, retryable: bool = True) -> CallReceipt:
    return CallReceipt(candidate_id="a", member_id="a", model="a", outcome=Outcome.RATE_LIMITED, retryable=retryable, retry_after_seconds=retry_after)


def _wait(*waits: float, needed: int, left: float, before: int = 0, draw: float = 0.0) -> float | None:
    return wait_seconds([_denied(wait) for wait in waits], needed=needed, deadline=Deadline(left, lambda: 0.0), waits=before, draw=lambda: draw)


def test_it_waits_until_as_many_as_are_needed_can_be_had() -> None:
    """Of waits of 1, 4 and 9 seconds two permits can be had after 4, three after 9."""
    assert _wait(9.0, 1.0, 4.0, needed=2, left=100.0) == 4.0
    assert _wait(9.0, 1.0, 4.0, needed=3, left=100.0) == 9.0


def test_what_heals_never_is_not_waited_for() -> None:
    """Where too few can ever be had there is no wait."""
    assert healing_seconds([_denied(1.0), _denied(None, retryable=False)], 2) is None
    assert healing_seconds([], 1) is None


def test_what_could_have_been_had_needs_no_wait() -> None:
    """A permit denied for others' sake heals at once."""
    assert healing_seconds([_denied(None), _denied(3.0)], 1) == 0.0
    assert healing_seconds([_denied(None), _denied(3.0)], 2) == 3.0


def test_half_of_the_time_is_the_longest_wait() -> None:
    """A wait that would leave less than half of the time is not begun."""
    assert _wait(5.0, needed=1, left=10.0) == 5.0
    assert _wait(5.01, needed=1, left=10.0) is None


def test_waits_have_jitter_and_grow() -> None:
    """The wait is prolonged by up to a tenth; short ones grow with each one, so that a run that always comes second does not hammer."""
    assert _wait(5.0, needed=1, left=100.0, draw=1.0) == 5.5
    assert _wait(0.0, needed=1, left=100.0) == 0.01
    assert _wait(0.0, needed=1, left=100.0, before=5) == 0.32
