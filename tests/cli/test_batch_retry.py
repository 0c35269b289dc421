"""When a prompt of a batch is asked again."""

import pytest

from services.cli.batch_retry import Patience
from services.cli.rpc_errors import RpcFailure


def _wait(code: str, *, after: float | None = None, attempts: int = 1, waited: float = 0.0, chance: float = 0.0, most: int = 9) -> float | None:
    failure = RpcFailure(code=code, message="", retry_after_seconds=after)
    return Patience(attempts=most, chance=lambda: chance).wait_seconds(failure, attempts=attempts, waited_seconds=waited)


def test_a_time_that_was_told_is_kept() -> None:
    """Never less, and up to a quarter more, so that not all come back together."""
    assert _wait("UNAVAILABLE", after=8.0) == 8.0
    assert _wait("UNAVAILABLE", after=8.0, chance=1.0) == 10.0
    assert _wait("FAILED_PRECONDITION", after=8.0) == 8.0
    assert _wait("RESOURCE_EXHAUSTED", after=8.0) == 8.0


def test_without_one_the_waits_double_up_to_half_a_minute() -> None:
    """Spread likewise."""
    assert [_wait("UNAVAILABLE", attempts=count) for count in range(1, 8)] == [1, 2, 4, 8, 16, 30, 30]
    assert _wait("UNAVAILABLE", chance=1.0) == 0.75


@pytest.mark.parametrize("code", ["INVALID_ARGUMENT", "NOT_FOUND", "INTERNAL", "FAILED_PRECONDITION", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED"])
def test_what_waiting_does_not_help_is_not_asked_again(code: str) -> None:
    """Nor what spent its time."""
    assert _wait(code) is None


def test_attempts_and_waits_are_bounded() -> None:
    """A wait that does not fit is not begun."""
    assert _wait("UNAVAILABLE", attempts=3, most=3) is None
    assert _wait("UNAVAILABLE", after=60.0, waited=240.0) == 60.0
    assert _wait("UNAVAILABLE", after=60.0, waited=240.1) is None
    assert _wait("UNAVAILABLE", after=301.0) is None
