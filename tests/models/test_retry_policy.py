"""Which failures are tried again, how often, and after what wait."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.models.outcomes import Outcome
from services.models.receipt import CallReceipt
from services.models.retry_policy import NO_RETRY, ErrorClass, RetryPolicy, backoff_seconds, error_class


def _failed(outcome: Outcome, reason: str = "", *, retryable: bool = True, started: float | None = 0.0, retry_after: float | None = None) -> CallReceipt:
    return CallReceipt(
        candidate_id="a",
        member_id="a",
        model="a",
        outcome=outcome,
        reason=reason,
        retryable=retryable,
        started_after_seconds=started,
        retry_after_seconds=retry_after,
    )


@pytest.mark.parametrize(
    ("receipt", "kind"),
    [
        (_failed(Outcome.RATE_LIMITED, "http_429"), ErrorClass.RATE_LIMITED),
        (_failed(Outcome.PROVIDER_FAILED, "http_503"), ErrorClass.FAILED),
        (_failed(Outcome.PROVIDER_FAILED, "http_408"), ErrorClass.FAILED),
        (_failed(Outcome.PROVIDER_FAILED, "connection_failed"), ErrorClass.FAILED),
        (_failed(Outcome.TIMEOUT, "timeout_first_token"), ErrorClass.TIMED_OUT),
        (_failed(Outcome.TIMEOUT, "timeout_idle"), None),
        (_failed(Outcome.TIMEOUT, "timeout_total"), None),
        (_failed(Outcome.PROVIDER_REJECTED, "http_400", retryable=False), None),
        (_failed(Outcome.PROVIDER_AUTH, "http_401", retryable=False), None),
        (_failed(Outcome.CONTENT_FILTERED, "content_filter", retryable=False), None),
        (_failed(Outcome.RATE_LIMITED, "denied_requests", started=None), None),
        (_failed(Outcome.EMPTY), None),
    ],
)
def test_classes_of_failures(receipt: CallReceipt, kind: ErrorClass | None) -> None:
    """429, failing providers and missing first tokens may heal; refusals, slow answers and calls that were never made are not tried again."""
    assert error_class(receipt) is kind
    assert RetryPolicy(max_attempts=5).allows(receipt, 1) is (kind is not None)


def test_each_class_has_its_own_bound() -> None:
    """A class without a number of its own takes the general one, which stands above all."""
    policy = RetryPolicy(max_attempts=3, rate_limited=1, failed=5)
    assert not policy.allows(_failed(Outcome.RATE_LIMITED), 1)
    assert policy.allows(_failed(Outcome.PROVIDER_FAILED), 2)
    assert not policy.allows(_failed(Outcome.PROVIDER_FAILED), 3)
    assert policy.allows(_failed(Outcome.TIMEOUT, "timeout_first_token"), 2)
    assert not NO_RETRY.allows(_failed(Outcome.PROVIDER_FAILED), 1)


@given(st.integers(1, 20), st.floats(0, 1), st.one_of(st.none(), st.floats(0, 1000)))
def test_waits(made: int, draw: float, asked: float | None) -> None:
    """Waits double up to a bound, never shrink below half of it, and never below what the provider asked for."""
    wait = backoff_seconds(_failed(Outcome.RATE_LIMITED, retry_after=asked), made, lambda: draw)
    longest = min(8.0, 0.5 * 2 ** (made - 1))
    assert wait >= longest / 2
    assert wait >= (asked or 0.0)
    assert wait <= max(longest, (asked or 0.0) * 1.2)


def test_jitter_spreads() -> None:
    """Two clients that draw differently come back at different times, also where a provider told both the same."""
    for asked in (None, 30.0):
        receipt = _failed(Outcome.RATE_LIMITED, retry_after=asked)
        assert backoff_seconds(receipt, 1, lambda: 0.0) < backoff_seconds(receipt, 1, lambda: 1.0)
