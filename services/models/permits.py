"""The vocabulary of permits, shared by those who ask for them and the limiter that grants them, and the port between the two.

A permit's life:

    (none) --acquire--> HELD --report--> SETTLED
                         |---release---> RELEASED
                         `--lease ends-> EXPIRED --report within the grace--> SETTLED (LATE)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol


class AttemptKind(StrEnum):
    """Why a permit is asked for; retries and hedges draw on the retry budget."""

    FIRST = "FIRST"
    RETRY = "RETRY"
    HEDGE = "HEDGE"


class DenialReason(StrEnum):
    """Why a permit was denied. The names are those of `ensemble.v1.DenialReason`."""

    REQUESTS = "REQUESTS"
    TOKENS = "TOKENS"
    CONCURRENCY = "CONCURRENCY"
    BUDGET = "BUDGET"
    RETRY_BUDGET = "RETRY_BUDGET"
    BREAKER_OPEN = "BREAKER_OPEN"
    PROVIDER_BACKOFF = "PROVIDER_BACKOFF"
    MIN_NOT_MET = "MIN_NOT_MET"
    TOO_LARGE = "TOO_LARGE"
    STORE_DOWN = "STORE_DOWN"
    FORCED_OPEN = "FORCED_OPEN"


class CallResult(StrEnum):
    """How a permitted call ended, as far as limits and breakers care. The names are those of `ensemble.v1.CallResult`."""

    SUCCESS = "SUCCESS"
    FAILURE = "FAILURE"
    TIMEOUT = "TIMEOUT"
    THROTTLED = "THROTTLED"
    REJECTED = "REJECTED"
    CANCELLED = "CANCELLED"
    AUTH = "AUTH"


class Settlement(StrEnum):
    """What a report did. The names are those of `ensemble.v1.Settlement`."""

    SETTLED = "SETTLED"
    DUPLICATE = "DUPLICATE"
    LATE = "LATE"
    UNKNOWN = "UNKNOWN"


class BreakerState(StrEnum):
    """What a circuit breaker lets through: every call, none, or one probe at a time."""

    CLOSED = "CLOSED"
    OPEN = "OPEN"
    HALF_OPEN = "HALF_OPEN"


class OverrideMode(StrEnum):
    """An operator's word that stands above limits and breaker. The names are those of `ensemble.v1.OverrideMode`."""

    FORCED_OPEN = "FORCED_OPEN"
    """Every call is denied."""
    DISABLED = "DISABLED"
    """The breaker lets every call through and counts none."""
    METRICS_ONLY = "METRICS_ONLY"
    """Limits and breaker count, and deny nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PermitSpec:
    """One call that wants a permit."""

    model: str
    input_tokens: int = 0
    """Estimated tokens of the prompt."""
    max_output_tokens: int = 0
    """The cap on the answer's tokens that will really be sent; the sum of both is reserved."""
    cost_micro_usd: int = 0
    """Estimated cost in micro-USD."""
    attempt_kind: AttemptKind = AttemptKind.FIRST


@dataclass(frozen=True, slots=True, kw_only=True)
class Permit:
    """The right to make one call until it is reported, released or its lease ends."""

    permit_id: str
    model: str
    lease_seconds: float
    """How long it is held, counted by the holder from before it sent the request."""
    reserved_tokens: int = 0
    reserved_cost_micro_usd: int = 0
    breaker_generation: int = 0
    probe: bool = False
    """True where the call decides whether a half-open breaker closes."""
    would_have_denied: DenialReason | None = None
    """Why it would have been denied where limits are only measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Denial:
    """A permit that was not granted; nothing was charged for it."""

    model: str
    reason: DenialReason
    retry_after_seconds: float | None = None
    """When to ask again; None where asking again is useless."""
    limit: str = ""
    """Name of the limit that refused, for example "model/careful/tokens_per_minute"."""
    limit_value: int = 0
    remaining: int = 0
    """What is left of the limit in its own unit; below zero while it is in debt."""

    @property
    def of_tenant(self) -> bool:
        """Whether it was the tenant's own limit or budget, and not the model's."""
        return self.limit.startswith("tenant/")


@dataclass(frozen=True, slots=True, kw_only=True)
class AcquireRequest:
    """A batch of calls that want permits; decided in one indivisible step."""

    request_id: str
    """Makes the grants idempotent."""
    specs: tuple[PermitSpec, ...]
    """In order of preference; later ones see what earlier ones were charged."""
    tenant: str = ""
    min_granted: int = 0
    """Fewest grants worth having; below it nothing is charged and all are denied."""
    lease_seconds: float = 60.0
    dry_run: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class AcquireReply:
    """One decision for each spec, in the order of the specs."""

    decisions: tuple[Permit | Denial, ...]
    degraded: bool = False
    config_version: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PermitOutcome:
    """What became of one permit; what is None is unknown, so the reservation stands."""

    permit_id: str
    result: CallResult
    input_tokens: int | None = None
    cached_input_tokens: int | None = None
    output_tokens: int | None = None
    cost_micro_usd: int | None = None
    latency_seconds: float | None = None
    time_to_first_token_seconds: float | None = None
    retry_after_seconds: float | None = None
    rate_limit_headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewal:
    """What became of one renewal; lease_seconds is None where the permit is no longer held."""

    permit_id: str
    lease_seconds: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitLevel:
    """A limit and what is left of it, in its own unit."""

    name: str
    """requests_per_minute, tokens_per_minute, concurrency or retries."""
    limit: int
    remaining: int
    effective: int
    """What holds of the limit now; less than it while something keeps it lower."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerSnapshot:
    """A circuit breaker as it stands."""

    state: BreakerState
    generation: int
    open_for_seconds: float | None = None
    """Until the next probe may be tried; None where it is not open."""
    open_count: int = 0
    probes: int = 0
    window_calls: int = 0
    window_failures: int = 0
    window_slow: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelState:
    """One model's limits, levels and breaker as they stand."""

    model: str
    limits: tuple[LimitLevel, ...]
    in_flight: int
    breaker: BreakerSnapshot
    provider_backoff_seconds: float | None = None
    override: OverrideMode | None = None
    override_seconds: float | None = None
    """Until the override ends; None where there is none."""
    metrics_only: bool = False
    """True where the configuration only measures this model."""
    would_have_denied: Mapping[DenialReason, int] = field(default_factory=dict)
    """Permits granted though limits or breaker would have denied them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetLevel:
    """A tenant's budget for the current period, in micro-USD."""

    period: str
    """day or month, both of UTC."""
    limit: int
    spent: int
    reserved: int
    unreconciled: int
    """The part of `spent` that is only an estimate, because its permit ended without a report."""
    resets_in_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantState:
    """One tenant's limits, levels and budgets as they stand."""

    tenant: str
    limits: tuple[LimitLevel, ...]
    in_flight: int
    budgets: tuple[BudgetLevel, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LimiterState:
    """Everything the limiter knows that others may."""

    models: tuple[ModelState, ...] = ()
    tenants: tuple[TenantState, ...] = ()
    config_version: int = 0
    degraded: bool = False
    """True while the store is down; the state is then that of the local share."""
    learning_seconds: float | None = None
    """How much longer a store that lost its data allows only half of each concurrency; None where it did not."""


class Permits(Protocol):
    """The limiter, as those who call models see it."""

    async def acquire(self, request: AcquireRequest) -> AcquireReply:
        """Decide a batch. Raises `DependencyUnavailable` where the limiter cannot be reached."""
        ...

    async def report(self, outcomes: Sequence[PermitOutcome]) -> tuple[Settlement, ...]:
        """Settle a batch. Raises `DependencyUnavailable` where the limiter cannot be reached."""
        ...

    async def release(self, permit_ids: Sequence[str]) -> tuple[Settlement, ...]:
        """Give back permits whose calls were never sent. Raises `DependencyUnavailable` where the limiter cannot be reached."""
        ...
