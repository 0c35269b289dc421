"""What a provider says about itself: counts in its headers, 429 with and without a wait, and what adaptive concurrency makes of it."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.limiter.limits import BreakerRules, ModelLimits
from services.models.permits import BreakerState, CallResult, DenialReason, PermitSpec, Settlement
from tests.support.driven_ledger import DrivenLedger

RATED = ModelLimits(requests_per_minute=600, request_burst=50, tokens_per_minute=6000, concurrency=50)
CALM = BreakerRules(minimum_calls=1000, consecutive_failures=1000)
ADAPTIVE = ModelLimits(concurrency=20, adaptive_concurrency=True, breaker=CALM)


def _driven(limits: ModelLimits) -> DrivenLedger:
    return DrivenLedger({"m": limits, "n": limits})


def _levels(driven: DrivenLedger, model: str = "m") -> tuple[int, int]:
    return driven.left("requests_per_minute", model), driven.left("tokens_per_minute", model)


def _places(driven: DrivenLedger) -> int:
    return next(level.effective for level in driven.model().limits if level.name == "concurrency")


def _headers(requests: object = None, tokens: object = None) -> dict[str, str]:
    told = {"requests": requests, "tokens": tokens}
    return {f"anthropic-ratelimit-{what}-remaining": str(count) for what, count in told.items() if count is not None}


@pytest.mark.parametrize(
    ("headers", "left"),
    [
        (_headers(3, 200), (3, 200)),
        (_headers(0, 0), (0, 0)),
        (_headers(requests=7), (7, 5990)),
        (_headers(tokens=7), (49, 7)),
        (_headers(1_000_000, 1_000_000), (49, 5990)),
        (_headers("-5", "nonsense"), (49, 5990)),
        ({}, (49, 5990)),
    ],
)
def test_counts_in_headers_lower_a_level(headers: dict[str, str], left: tuple[int, int]) -> None:
    """To what the provider says is left, after the call's own settlement; never up, and only of its own model."""
    driven = _driven(RATED)
    driven.call(CallResult.SUCCESS, PermitSpec(model="m", input_tokens=100), input_tokens=10, rate_limit_headers=headers)
    assert _levels(driven) == left
    assert _levels(driven, "n") == (50, 6000)


def test_a_lowered_level_refills_as_ever() -> None:
    """The provider's word holds for the moment it was given."""
    driven = _driven(RATED)
    driven.call(rate_limit_headers=_headers(0, 0))
    denial = driven.denial(PermitSpec(model="m", input_tokens=200))
    assert denial.reason is DenialReason.TOKENS
    assert denial.retry_after_seconds == pytest.approx(2)
    driven.now += 2
    assert _levels(driven) == (20, 200)


def test_headers_of_a_late_report_are_too_old_to_count() -> None:
    """What they say was true when the call ended, at the latest."""
    driven = _driven(RATED)
    permit = driven.grant(lease=1)
    driven.now += 2
    before = _levels(driven)
    assert driven.report(permit, rate_limit_headers=_headers(0, 0)) is Settlement.LATE
    assert _levels(driven) == before


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 200), st.integers(0, 3), st.sampled_from(list(CallResult)), st.integers(0, 60), st.integers(0, 8000)), max_size=30))
def test_headers_only_ever_lower_levels(history: list[tuple[int, int, CallResult, int, int]]) -> None:
    """Of two limiters that live through the same, the one whose provider sends headers never has more left."""
    limits = ModelLimits(requests_per_minute=600, request_burst=50, tokens_per_minute=6000, concurrency=50, metrics_only=True)
    told, untold = _driven(limits), _driven(limits)
    for tokens, wait, result, requests_left, tokens_left in history:
        for driven in (told, untold):
            driven.now += wait
            headers = _headers(requests_left, tokens_left) if driven is told else {}
            driven.call(result, PermitSpec(model="m", input_tokens=tokens), input_tokens=tokens // 2, rate_limit_headers=headers)
        if told.model().would_have_denied or untold.model().would_have_denied:
            # From here on they are charged for different calls.
            break
        assert all(less <= more for less, more in zip(_levels(told), _levels(untold), strict=True))


@pytest.mark.parametrize(("asked", "wait"), [(0.5, 0.5), (119.0, 119.0), (120.0, 120.0), (121.0, 120.0), (86_400.0, 120.0)])
def test_a_wait_that_was_asked_for_is_heeded_up_to_two_minutes(asked: float, wait: float) -> None:
    """All calls of the model wait, those of others do not; it is no failure, so the breaker stays as it was."""
    driven = _driven(RATED)
    driven.call(CallResult.THROTTLED, retry_after_seconds=asked)
    denial = driven.denial()
    assert (denial.reason, denial.limit) == (DenialReason.PROVIDER_BACKOFF, "model/m/provider_backoff")
    assert denial.retry_after_seconds == pytest.approx(wait)
    assert driven.model().provider_backoff_seconds == pytest.approx(wait)
    assert (driven.model().breaker.state, driven.model().breaker.window_calls) == (BreakerState.CLOSED, 0)
    assert driven.reasons("n") == ["granted"]
    driven.now += wait - 1e-6
    assert driven.reasons("m") == ["PROVIDER_BACKOFF"]
    driven.now += 1e-6
    assert driven.reasons("m") == ["granted"]
    assert driven.model().provider_backoff_seconds is None


def test_a_wait_of_nothing_is_none() -> None:
    """A provider that says 0 is asked at once."""
    driven = _driven(RATED)
    driven.call(CallResult.THROTTLED, retry_after_seconds=0.0)
    assert driven.reasons("m") == ["granted"]


@pytest.mark.parametrize("jitter", [1.0, 1.1, 1.2])
def test_without_a_wait_it_doubles_up_to_a_minute(jitter: float) -> None:
    """1, 2, 4 and so on to 60 seconds, and up to a fifth on top; one success begins it anew."""
    driven = DrivenLedger({"m": RATED}, uniform=lambda low, high: min(high, max(low, jitter)))
    for seconds in [1, 2, 4, 8, 16, 32, 60, 60, 60, 60] + [60] * 20:
        driven.call(CallResult.THROTTLED)
        assert driven.model().provider_backoff_seconds == pytest.approx(seconds * jitter)
        driven.now += seconds * jitter + 1e-6
    driven.call(CallResult.FAILURE)
    driven.call(CallResult.THROTTLED)
    assert driven.model().provider_backoff_seconds == pytest.approx(60 * jitter)
    driven.now += 100
    driven.call(CallResult.SUCCESS)
    driven.call(CallResult.THROTTLED)
    assert driven.model().provider_backoff_seconds == pytest.approx(jitter)


def test_a_shorter_wait_does_not_end_a_longer_one() -> None:
    """Of calls that were under way together the longest wait holds; a success of one of them does not end it either."""
    driven = _driven(RATED)
    first, second, third = (driven.grant() for _ in range(3))
    driven.report(first, CallResult.THROTTLED, retry_after_seconds=50)
    driven.report(second, CallResult.THROTTLED, retry_after_seconds=5)
    driven.report(third, CallResult.SUCCESS)
    assert driven.model().provider_backoff_seconds == pytest.approx(50)


@pytest.mark.parametrize(
    ("result", "places"),
    [
        (CallResult.THROTTLED, 18),
        (CallResult.FAILURE, 18),
        (CallResult.TIMEOUT, 18),
        (CallResult.SUCCESS, 20),
        (CallResult.REJECTED, 20),
        (CallResult.CANCELLED, 20),
        (CallResult.AUTH, 20),
    ],
)
def test_what_lowers_adaptive_concurrency(result: CallResult, places: int) -> None:
    """Throttling, failures and timeouts; what is the caller's doing or about credentials says nothing about load."""
    driven = _driven(ADAPTIVE)
    driven.call(result, retry_after_seconds=0.0)
    assert _places(driven) == places


def test_adaptive_concurrency_falls_once_a_window_and_rises_under_load() -> None:
    """Twenty calls that fail together are one sign; successes raise it only while at least half of it is in use."""
    driven = _driven(ADAPTIVE)
    permits = [driven.grant() for _ in range(20)]
    for permit in permits[:10]:
        driven.report(permit, CallResult.FAILURE)
    assert _places(driven) == 18
    driven.now += 9.999
    driven.report(driven.grant(lease=60), CallResult.TIMEOUT)
    assert _places(driven) == 18
    driven.now += 0.001
    driven.report(driven.grant(), CallResult.TIMEOUT)
    assert _places(driven) == 16
    driven.call(CallResult.SUCCESS)
    assert _places(driven) == 16
    permits = [driven.grant() for _ in range(8)]
    driven.report(permits[0])
    assert _places(driven) == 17
    driven.report(permits[1])
    assert _places(driven) == 17


def test_i1_adaptive_concurrency_is_enforced() -> None:
    """No more calls at once than it says; the wait reaches to the end that makes room (L3)."""
    driven = _driven(ModelLimits(concurrency=3, adaptive_concurrency=True, breaker=CALM))
    for _ in range(2):
        driven.call(CallResult.FAILURE)
        driven.now += 10
    assert _places(driven) == 1
    driven.grant(lease=7)
    denial = driven.denial()
    assert (denial.reason, denial.limit_value) == (DenialReason.CONCURRENCY, 1)
    assert denial.retry_after_seconds == pytest.approx(7)
    driven.now += 7
    assert driven.reasons("m", "m") == ["granted", "CONCURRENCY"]


def test_it_is_optional() -> None:
    """Without it failures leave the concurrency alone."""
    driven = _driven(ModelLimits(concurrency=20, breaker=CALM))
    driven.call(CallResult.FAILURE)
    assert _places(driven) == 20


@pytest.mark.parametrize(
    ("result", "fields", "state", "seconds"),
    [
        (CallResult.AUTH, {}, BreakerState.OPEN, 300),
        (CallResult.REJECTED, {}, BreakerState.CLOSED, None),
        (CallResult.CANCELLED, {}, BreakerState.CLOSED, None),
        (CallResult.THROTTLED, {"retry_after_seconds": 1.0}, BreakerState.CLOSED, None),
    ],
)
def test_what_one_signal_does_to_the_breaker(result: CallResult, fields: dict[str, Any], state: BreakerState, seconds: float | None) -> None:
    """Refused credentials open it at once and for long; what says nothing about the provider's health changes nothing."""
    driven = _driven(RATED)
    driven.call(result, **fields)
    breaker = driven.model().breaker
    assert (breaker.state, breaker.open_for_seconds, breaker.window_calls) == (state, seconds, 0)


def test_a_throttled_probe_waits_no_longer_than_two_minutes() -> None:
    """The provider's wait is capped for the breaker too; the count of openings stays."""
    driven = _driven(ModelLimits(concurrency=5, breaker=BreakerRules(consecutive_failures=1)))
    driven.call(CallResult.FAILURE)
    driven.now += 5
    assert driven.permit(dry_run=True).permit_id == ""
    driven.call(CallResult.THROTTLED, retry_after_seconds=3600.0)
    breaker = driven.model().breaker
    assert (breaker.state, breaker.open_count) == (BreakerState.OPEN, 1)
    assert breaker.open_for_seconds == pytest.approx(120)
    driven.now += 120
    assert driven.permit().probe
