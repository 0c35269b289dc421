"""What a provider's refusal means, by its HTTP status and its error object.

Nothing that a provider writes goes any further than this: the reasons below are words of ours.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from services.models.outcomes import Outcome
from services.models.permits import CallResult


@dataclass(frozen=True, slots=True)
class Refusal:
    """A refusal in our terms."""

    outcome: Outcome
    call_result: CallResult
    reason: str
    retryable: bool = False


_QUOTA = Refusal(Outcome.PROVIDER_AUTH, CallResult.AUTH, "insufficient_quota")
_FILTERED = Refusal(Outcome.CONTENT_FILTERED, CallResult.REJECTED, "content_filter")
_TOO_LARGE = Refusal(Outcome.PROVIDER_REJECTED, CallResult.REJECTED, "request_too_large")
_UNKNOWN = Refusal(Outcome.PROVIDER_FAILED, CallResult.FAILURE, "provider_error", retryable=True)

# What error objects without a status say, as the status they would have come with.
_STATUS_OF_CODE: Mapping[str, int] = {
    "rate_limit_exceeded": 429,
    "rate_limit_error": 429,
    "rate_limited": 429,
    "too_many_requests": 429,
    "invalid_api_key": 401,
    "authentication_error": 401,
    "permission_error": 403,
    "model_not_found": 404,
    "not_found_error": 404,
    "context_length_exceeded": 400,
    "invalid_request_error": 400,
    "invalid_prompt": 400,
    "request_too_large": 413,
    "server_error": 500,
    "internal_server_error": 500,
    "api_error": 500,
    "overloaded_error": 529,
    "service_unavailable": 503,
    "timeout": 504,
}
_QUOTA_CODES = frozenset({"insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "insufficient_credits"})
_FILTER_CODES = frozenset({"content_filter", "content_policy_violation", "moderation", "responsibleaipolicyviolation"})
_SIZE_CODES = frozenset({"request_too_large", "context_length_exceeded", "string_above_max_length"})


def refusal(status: int | None, error: object) -> Refusal:
    """Return what a refusal means; `error` is the provider's error object, or whatever stood in its place."""
    words = _words(error)
    codes = frozenset(words)
    if status is None:
        status = next((found for code in words if (found := _status_of(code)) is not None), None)
    if codes & _QUOTA_CODES or status == 402:
        return _QUOTA
    if codes & _FILTER_CODES or (status == 403 and _moderated(error)):
        return _FILTERED
    if status == 413 or codes & _SIZE_CODES or (status in {400, 429} and _says_too_large(error)):
        return _TOO_LARGE
    return _UNKNOWN if status is None else _by_status(status)


def _by_status(status: int) -> Refusal:
    reason = f"http_{status}"
    # 498 is a rate limit at one provider, and nothing else anywhere.
    if status in {429, 498}:
        return Refusal(Outcome.RATE_LIMITED, CallResult.THROTTLED, reason, retryable=True)
    if status in {401, 403, 404}:
        return Refusal(Outcome.PROVIDER_AUTH, CallResult.AUTH, reason)
    if status == 408:
        return Refusal(Outcome.PROVIDER_FAILED, CallResult.TIMEOUT, reason, retryable=True)
    if status == 409:
        return Refusal(Outcome.PROVIDER_FAILED, CallResult.FAILURE, reason, retryable=True)
    if 400 <= status < 500:
        return Refusal(Outcome.PROVIDER_REJECTED, CallResult.REJECTED, reason)
    if 500 <= status < 600:
        return Refusal(Outcome.PROVIDER_FAILED, CallResult.FAILURE, reason, retryable=True)
    return Refusal(Outcome.PROVIDER_FAILED, CallResult.FAILURE, reason if 100 <= status < 400 else "provider_error")


def _words(error: object) -> list[str]:
    """Return the machine words of an error object in lower case, the one that says most first: its code before the class that its type names."""
    if not isinstance(error, Mapping):
        return [error.lower()] if isinstance(error, str) else []
    inner = error.get("innererror")
    values = [error.get("code"), inner.get("code") if isinstance(inner, Mapping) else None, error.get("status"), error.get("type")]
    return [str(value).lower() for value in values if isinstance(value, str | int) and not isinstance(value, bool)]


def _status_of(code: str) -> int | None:
    if code.isascii() and code.isdigit() and len(code) == 3:
        return int(code)
    return _STATUS_OF_CODE.get(code)


def _moderated(error: object) -> bool:
    """Whether a 403 is about the prompt's content: OpenRouter names the reasons in the metadata."""
    metadata = error.get("metadata") if isinstance(error, Mapping) else None
    return isinstance(metadata, Mapping) and bool(metadata.get("reasons") or metadata.get("flagged_input"))


def _says_too_large(error: object) -> bool:
    """Whether a 429 or 400 is one that waiting does not heal; some providers say so in words alone."""
    message = error.get("message") if isinstance(error, Mapping) else None
    return isinstance(message, str) and "too large" in message[:2000].lower()
