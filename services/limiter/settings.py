"""What the limiter needs of the configuration."""

from dataclasses import dataclass

from services.chassis.configuration import BreakerSection, Configuration, ModelSection, StoreSection, TenantSection
from services.chassis.server import ServerSettings
from services.limiter.limits import BreakerRules, Limits, ModelLimits, PermitRules, TenantLimits

_MICRO = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class LimiterSettings:
    """Where the limiter listens, what it enforces, and where it keeps its permits."""

    server: ServerSettings
    limits: Limits
    store: StoreSection

    @classmethod
    def from_configuration(cls, configuration: Configuration, listen: str | None, *, insecure: bool = False) -> "LimiterSettings":
        """Take the limiter's section and the limits of models and tenants; `listen` stands above the section."""
        section = configuration.limiter
        return cls(
            server=ServerSettings.of_internal("limiter", section, configuration, listen, insecure=insecure),
            limits=limits_of(configuration),
            store=section.store,
        )


def limits_of(configuration: Configuration) -> Limits:
    """Return everything that is enforced."""
    section = configuration.limiter
    return Limits(
        models={name: _model(model, metrics_only=section.metrics_only) for name, model in configuration.models.items()},
        tenants={name: _tenant(tenant, metrics_only=section.metrics_only) for name, tenant in configuration.tenants.items()},
        rules=PermitRules(
            longest_lease_seconds=section.longest_lease_seconds,
            late_report_grace_seconds=section.late_report_grace_seconds,
            idempotency_window_seconds=section.idempotency_window_seconds,
        ),
        revision=section.revision,
    )


def _model(model: ModelSection, *, metrics_only: bool) -> ModelLimits:
    limits = model.limits
    return ModelLimits(
        requests_per_minute=limits.requests_per_minute,
        tokens_per_minute=limits.tokens_per_minute,
        request_burst=limits.request_burst,
        concurrency=limits.concurrency,
        adaptive_concurrency=limits.adaptive_concurrency,
        retry_share=limits.retry_share,
        retries_per_minute=limits.retries_per_minute,
        metrics_only=metrics_only or limits.metrics_only,
        breaker=_breaker(model.breaker),
    )


def _breaker(breaker: BreakerSection) -> BreakerRules:
    return BreakerRules(
        failure_rate=breaker.failure_rate,
        slow_rate=breaker.slow_rate,
        slow_call_seconds=breaker.slow_call_seconds,
        minimum_calls=breaker.minimum_calls,
        consecutive_failures=breaker.consecutive_failures,
        bucket_seconds=breaker.bucket_seconds,
        buckets=breaker.buckets,
        open_seconds=breaker.open_seconds,
        longest_open_seconds=breaker.longest_open_seconds,
        auth_open_seconds=breaker.auth_open_seconds,
        good_probes=breaker.good_probes,
        undecided_leases=breaker.undecided_leases,
    )


def _tenant(tenant: TenantSection, *, metrics_only: bool) -> TenantLimits:
    return TenantLimits(
        requests_per_minute=tenant.requests_per_minute,
        tokens_per_minute=tenant.tokens_per_minute,
        request_burst=tenant.request_burst,
        concurrency=tenant.concurrency,
        budget_per_day=_micro(tenant.budget.per_day),
        budget_per_month=_micro(tenant.budget.per_month),
        metrics_only=metrics_only,
    )


def _micro(usd: float | None) -> int | None:
    return None if usd is None else round(usd * _MICRO)
