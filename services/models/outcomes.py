"""How a call to a model ended, as the caller of Ensemble is told."""

from enum import StrEnum


class Outcome(StrEnum):
    """The typed end of one call; a failed member is data, never an error. The names are those of `ensemble.v1.Outcome`."""

    OK = "OK"
    TIMEOUT = "TIMEOUT"
    STRAGGLER_CANCELLED = "STRAGGLER_CANCELLED"
    HEDGE_LOST = "HEDGE_LOST"
    RATE_LIMITED = "RATE_LIMITED"
    BREAKER_OPEN = "BREAKER_OPEN"
    BUDGET_EXHAUSTED = "BUDGET_EXHAUSTED"
    PROVIDER_REJECTED = "PROVIDER_REJECTED"
    PROVIDER_FAILED = "PROVIDER_FAILED"
    PROVIDER_AUTH = "PROVIDER_AUTH"
    EMPTY = "EMPTY"
    CONTENT_FILTERED = "CONTENT_FILTERED"
    NOT_STARTED = "NOT_STARTED"
    CANCELLED = "CANCELLED"
    LIMITER_UNAVAILABLE = "LIMITER_UNAVAILABLE"
