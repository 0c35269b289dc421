"""The limits of one model, and the rules of permits in general, as plain values."""

from dataclasses import dataclass

BURST_SECONDS = 10
"""A request bucket holds what so many seconds of its rate allow, where no burst is configured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerRules:
    """When a breaker opens, and how it closes again."""

    failure_rate: float = 0.5
    slow_rate: float = 0.8
    slow_call_seconds: float = 30.0
    minimum_calls: int = 10
    consecutive_failures: int = 5
    bucket_seconds: float = 10.0
    buckets: int = 12
    open_seconds: float = 5.0
    longest_open_seconds: float = 300.0
    auth_open_seconds: float = 300.0
    good_probes: int = 2
    undecided_leases: int = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelLimits:
    """What may be asked of one model; a rate that is None is not limited."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrency: int = 8
    request_burst: int | None = None
    breaker: BreakerRules = BreakerRules()

    @property
    def request_capacity(self) -> int:
        """Requests that may come at once after a quiet time."""
        if self.request_burst is not None:
            return self.request_burst
        return max(1, (self.requests_per_minute or 0) * BURST_SECONDS // 60)


@dataclass(frozen=True, slots=True, kw_only=True)
class PermitRules:
    """How long permits are held and remembered, in seconds."""

    longest_lease_seconds: float = 600.0
    late_report_grace_seconds: float = 60.0
    """How long after its lease a permit's report is still taken."""
    idempotency_window_seconds: float = 60.0
    """How long a request's grants are found again, and a settled permit is known as such."""
