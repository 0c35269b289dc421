"""What a refusal means, by its status and its error object."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.models.outcomes import Outcome
from services.models.permits import CallResult
from services.models.provider_errors import refusal

SECRET = "words of the provider"
WORDS = st.one_of(st.sampled_from(["insufficient_quota", "content_filter", "rate_limit_exceeded", "429"]), st.text(max_size=8))


@pytest.mark.parametrize(
    ("error", "outcome", "told", "reason"),
    [
        ({"code": 429}, Outcome.RATE_LIMITED, CallResult.THROTTLED, "http_429"),
        ({"code": "429"}, Outcome.RATE_LIMITED, CallResult.THROTTLED, "http_429"),
        ({"code": None, "type": "Rate_Limit_Error"}, Outcome.RATE_LIMITED, CallResult.THROTTLED, "http_429"),
        ({"code": "odd", "status": 503}, Outcome.PROVIDER_FAILED, CallResult.FAILURE, "http_503"),
        ({"code": "timeout"}, Outcome.PROVIDER_FAILED, CallResult.FAILURE, "http_504"),
        ({"code": "invalid_api_key", "type": "invalid_request_error"}, Outcome.PROVIDER_AUTH, CallResult.AUTH, None),
        ({"type": "permission_error"}, Outcome.PROVIDER_AUTH, CallResult.AUTH, "http_403"),
        ({"code": "model_not_found"}, Outcome.PROVIDER_AUTH, CallResult.AUTH, "http_404"),
        ({"code": "insufficient_quota", "type": "rate_limit_error"}, Outcome.PROVIDER_AUTH, CallResult.AUTH, "insufficient_quota"),
        ({"code": 402}, Outcome.PROVIDER_AUTH, CallResult.AUTH, "insufficient_quota"),
        ({"code": 403, "metadata": {"flagged_input": "x"}}, Outcome.CONTENT_FILTERED, CallResult.REJECTED, "content_filter"),
        ({"code": "context_length_exceeded"}, Outcome.PROVIDER_REJECTED, CallResult.REJECTED, "request_too_large"),
        ({"code": 429, "message": "Request TOO LARGE for it"}, Outcome.PROVIDER_REJECTED, CallResult.REJECTED, "request_too_large"),
        ({"code": 500, "message": "too large"}, Outcome.PROVIDER_FAILED, CallResult.FAILURE, "http_500"),
        ({"code": True}, Outcome.PROVIDER_FAILED, CallResult.FAILURE, "provider_error"),
        ({"code": 7}, Outcome.PROVIDER_FAILED, CallResult.FAILURE, "provider_error"),
        (SECRET, Outcome.PROVIDER_FAILED, CallResult.FAILURE, "provider_error"),
        (None, Outcome.PROVIDER_FAILED, CallResult.FAILURE, "provider_error"),
    ],
)
def test_errors_without_a_status(error: object, outcome: Outcome, told: CallResult, reason: str | None) -> None:
    """An error inside a 200 is judged by its codes as if it had come with their status; quota and filters come before the status."""
    refused = refusal(None, error)
    assert (refused.outcome, refused.call_result) == (outcome, told)
    assert reason is None or refused.reason == reason


@given(
    st.one_of(st.none(), st.integers(0, 1000)),
    st.dictionaries(
        st.sampled_from(["code", "type", "status", "message", "metadata", "innererror"]),
        st.one_of(st.just(SECRET), st.integers(), st.floats(), st.lists(WORDS), st.dictionaries(st.sampled_from(["code", "reasons"]), WORDS)),
    ),
)
def test_every_refusal_is_in_our_words(status: int | None, error: dict[str, object]) -> None:
    """Whatever is refused however, the reason is one of ours, and only what waiting may heal is worth a repeat."""
    refused = refusal(status, error)
    assert refused.reason.startswith("http_") or refused.reason in {"provider_error", "insufficient_quota", "content_filter", "request_too_large"}
    assert refused.outcome is not Outcome.OK
    assert not refused.retryable or refused.outcome in {Outcome.RATE_LIMITED, Outcome.PROVIDER_FAILED}
    assert (refused.call_result is CallResult.THROTTLED) == (refused.outcome is Outcome.RATE_LIMITED)


def test_two_codes_of_two_statuses_mean_the_graver() -> None:
    """An error may name a class and a case of it; which of them counts does not depend on the order of a set."""
    assert refusal(None, {"code": "invalid_api_key", "type": "invalid_request_error"}).reason == "http_401"
    assert refusal(None, {"code": "rate_limit_exceeded", "type": "invalid_request_error"}).reason == "http_429"
    assert refusal(None, {"code": "model_not_found", "type": "invalid_request_error"}).reason == "http_404"
