"""What the limiter needs of the configuration."""

from collections.abc import Mapping
from dataclasses import dataclass

from services.chassis.configuration import Configuration
from services.chassis.server import ServerSettings
from services.limiter.limits import BreakerRules, ModelLimits, PermitRules


@dataclass(frozen=True, slots=True, kw_only=True)
class LimiterSettings:
    """Where the limiter listens, and what it enforces."""

    server: ServerSettings
    models: Mapping[str, ModelLimits]
    rules: PermitRules

    @classmethod
    def from_configuration(cls, configuration: Configuration, listen: str | None) -> "LimiterSettings":
        """Take the limiter's section and each model's limits; `listen` stands above the section."""
        section = configuration.limiter
        return cls(
            server=ServerSettings(listen=listen or section.listen, grace_seconds=section.grace_seconds, reflection=section.reflection),
            models={
                name: ModelLimits(
                    requests_per_minute=model.limits.requests_per_minute,
                    tokens_per_minute=model.limits.tokens_per_minute,
                    concurrency=model.limits.concurrency,
                    request_burst=model.limits.request_burst,
                    breaker=BreakerRules(
                        failure_rate=model.breaker.failure_rate,
                        slow_rate=model.breaker.slow_rate,
                        slow_call_seconds=model.breaker.slow_call_seconds,
                        minimum_calls=model.breaker.minimum_calls,
                        consecutive_failures=model.breaker.consecutive_failures,
                        bucket_seconds=model.breaker.bucket_seconds,
                        buckets=model.breaker.buckets,
                        open_seconds=model.breaker.open_seconds,
                        longest_open_seconds=model.breaker.longest_open_seconds,
                        auth_open_seconds=model.breaker.auth_open_seconds,
                        good_probes=model.breaker.good_probes,
                        undecided_leases=model.breaker.undecided_leases,
                    ),
                )
                for name, model in configuration.models.items()
            },
            rules=PermitRules(
                longest_lease_seconds=section.longest_lease_seconds,
                late_report_grace_seconds=section.late_report_grace_seconds,
                idempotency_window_seconds=section.idempotency_window_seconds,
            ),
        )
