"""What is enforced: the limits of models and tenants, and the rules of permits in general, as plain values.

Times are microseconds where they are named so, and seconds elsewhere.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

SECOND = 1_000_000
"""A second in microseconds, the unit of every clock in this package."""
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
class RateLimits:
    """What models and tenants have in common; what is None is not limited."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    request_burst: int | None = None

    @property
    def request_capacity(self) -> int:
        """Requests that may come at once after a quiet time."""
        if self.request_burst is not None:
            return self.request_burst
        return max(1, (self.requests_per_minute or 0) * BURST_SECONDS // 60)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelLimits(RateLimits):
    """What may be asked of one model."""

    concurrency: int = 8
    adaptive_concurrency: bool = False
    retry_share: float = 0.2
    """Retries and hedges that each first attempt allows."""
    retries_per_minute: int = 10
    """Retries and hedges that time alone allows; as many may come at once."""
    metrics_only: bool = False
    breaker: BreakerRules = BreakerRules()


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantLimits(RateLimits):
    """What one tenant may have of all models together; budgets are micro-USD."""

    concurrency: int | None = None
    budget_per_day: int | None = None
    budget_per_month: int | None = None
    metrics_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PermitRules:
    """How long permits are held and remembered, in seconds."""

    longest_lease_seconds: float = 600.0
    late_report_grace_seconds: float = 60.0
    """How long after its lease a permit's report is still taken."""
    idempotency_window_seconds: float = 60.0
    """How long a request's grants are found again, and a settled permit is known as such."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Everything that is enforced, as one value that is put into force at once."""

    models: Mapping[str, ModelLimits]
    tenants: Mapping[str, TenantLimits] = field(default_factory=dict)
    rules: PermitRules = PermitRules()
    revision: int = 0
    """Means nothing by itself; makes limits that were superseded new again."""

    @property
    def digest(self) -> str:
        """The same for the same limits, whoever reads them."""
        content = {
            "models": {name: asdict(limits) for name, limits in self.models.items()},
            "tenants": {name: asdict(limits) for name, limits in self.tenants.items()},
            "rules": asdict(self.rules),
            "revision": self.revision,
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]
