"""Telemetry of one service: a tracer of its own, exported over OTLP where an endpoint is configured, otherwise off.

Each service has its own provider rather than the process-wide one, because under `ensemble up` four services share a process. When telemetry is off neither the
SDK nor the exporter is imported and no span is made; the trace context still travels from hop to hop.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from opentelemetry import trace

from services.chassis import _semconv as semconv
from services.chassis.configuration import Configuration

SCOPE = "ensemble"
EXPORT_DELAY_MILLISECONDS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class TelemetrySettings:
    """Where spans go."""

    endpoint: str | None = None
    """The OTLP gRPC receiver, for example "http://127.0.0.1:4317"; None switches telemetry off."""
    capture_content: bool = False
    """Put prompts and answers into spans."""

    @classmethod
    def from_configuration(cls, configuration: Configuration) -> "TelemetrySettings":
        """Take the section `telemetry`."""
        return cls(endpoint=configuration.telemetry.endpoint, capture_content=configuration.telemetry.capture_content)


@dataclass(frozen=True, slots=True, kw_only=True)
class Telemetry:
    """What a service traces with."""

    tracer: trace.Tracer
    enabled: bool
    capture_content: bool
    flush: Callable[[], None]
    """Export what is left and stop; blocks."""

    @classmethod
    def off(cls) -> "Telemetry":
        """Return telemetry that records nothing."""
        return cls(tracer=trace.NoOpTracer(), enabled=False, capture_content=False, flush=lambda: None)

    async def shutdown(self) -> None:
        """Export what is left and stop; an unreachable receiver holds it up for a few seconds at most."""
        if self.enabled:
            await asyncio.to_thread(self.flush)


def start_telemetry(service_name: str, settings: TelemetrySettings) -> Telemetry:
    """Return a service's telemetry; its resource is named "ensemble-" and the service's name."""
    if settings.endpoint is None:
        return Telemetry.off()
    # Imported only here: they take 0.3 s and 20 MB that a service without telemetry need not spend.
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

    provider = TracerProvider(resource=Resource.create({semconv.SERVICE_NAME: f"ensemble-{service_name}"}), shutdown_on_exit=False)
    exporter = OTLPSpanExporter(endpoint=settings.endpoint, insecure=not settings.endpoint.startswith("https://"), timeout=5)
    provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=EXPORT_DELAY_MILLISECONDS))
    return Telemetry(tracer=provider.get_tracer(SCOPE), enabled=True, capture_content=settings.capture_content, flush=provider.shutdown)
