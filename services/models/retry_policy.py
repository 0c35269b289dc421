"""When a failed call is made again, and how long to wait before.

Waits grow by doubling and are drawn from the upper half of their range, so that clients that failed together do not come back together (the "equal jitter" of
Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015). A wait that the provider named is kept in full and only prolonged by the jitter.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from services.models.outcomes import Outcome
from services.models.receipt import CallReceipt

FIRST_BACKOFF_SECONDS = 0.5
LONGEST_BACKOFF_SECONDS = 8.0
ASKED_WAIT_JITTER = 0.2
"""How much longer than asked for one waits, at most, as a share of the wait."""
FIRST_TOKEN_REASON = "timeout_first_token"  # noqa: S105 - a reason word  # nosec B105 # as the rule before
MOST_ATTEMPTS = 5


class ErrorClass(StrEnum):
    """Failures that a repeat can heal."""

    RATE_LIMITED = "rate_limited"
    """The provider said that its limit is reached."""
    FAILED = "failed"
    """The provider or the connection to it failed."""
    TIMED_OUT = "timed_out"
    """No first token in time; a call that was speaking is never repeated for its slowness."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How many attempts each class of failure gets; None takes `max_attempts`."""

    max_attempts: int = 2
    """Most attempts at one answer, the first included."""
    rate_limited: int | None = None
    failed: int | None = None
    timed_out: int | None = None

    def allows(self, failed: CallReceipt, made: int) -> bool:
        """Whether another attempt may follow one that failed, after so many were made in all."""
        kind = error_class(failed)
        if kind is None or made >= self.max_attempts:
            return False
        own: int | None = getattr(self, kind.value)
        return own is None or made < own


NO_RETRY = RetryPolicy(max_attempts=1)


def error_class(receipt: CallReceipt) -> ErrorClass | None:
    """Return what kind of failure a call that reached its provider ended in; None for one that a repeat does not heal, and for calls never made."""
    if receipt.started_after_seconds is None or not receipt.retryable:
        return None
    match receipt.outcome:
        case Outcome.RATE_LIMITED:
            return ErrorClass.RATE_LIMITED
        case Outcome.PROVIDER_FAILED:
            return ErrorClass.FAILED
        case Outcome.TIMEOUT if receipt.reason == FIRST_TOKEN_REASON:
            return ErrorClass.TIMED_OUT
        case _:
            return None


def backoff_seconds(failed: CallReceipt, made: int, draw: Callable[[], float]) -> float:
    """Return how long to wait before the next attempt, after so many were made; `draw` gives a number from 0 to 1."""
    longest = min(LONGEST_BACKOFF_SECONDS, FIRST_BACKOFF_SECONDS * 2.0 ** (made - 1))
    own = longest * (1 + draw()) / 2
    if failed.retry_after_seconds is None:
        return own
    return max(own, failed.retry_after_seconds * (1 + ASKED_WAIT_JITTER * draw()))
