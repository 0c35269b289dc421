"""Telemetry of one service: a tracer and a meter of its own, exported over OTLP where an endpoint is configured, otherwise off.

Each service has its own providers rather than the process-wide ones, because under `ensemble up` four services share a process. When telemetry is off neither
the SDK nor the exporter is imported and no span is made; the trace context still travels from hop to hop.
"""

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass

from opentelemetry import trace
from opentelemetry.metrics import Meter, NoOpMeter

from services.chassis import _semconv as semconv
from services.chassis.configuration import Configuration

SCOPE = "ensemble"
SPAN_EXPORT_DELAY_MILLISECONDS = 1000
METRIC_EXPORT_INTERVAL_MILLISECONDS = 15_000
EXPORT_TIMEOUT_SECONDS = 5.0
LONGEST_SHUTDOWN_SECONDS = 2.0
"""How long an unreachable receiver may hold a service's end up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TelemetrySettings:
    """Where spans and metrics go."""

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
    """What a service traces and measures with."""

    tracer: trace.Tracer
    meter: Meter
    enabled: bool
    """Whether anything is recorded at all."""
    capture_content: bool
    """Whether prompts and answers may be recorded."""
    flush: Callable[[], None]
    """Export what is left and stop; blocks, for `LONGEST_SHUTDOWN_SECONDS` at most."""

    @classmethod
    def off(cls) -> "Telemetry":
        """Return telemetry that records nothing."""
        return cls(tracer=trace.NoOpTracer(), meter=NoOpMeter(SCOPE), enabled=False, capture_content=False, flush=lambda: None)

    async def shutdown(self) -> None:
        """Export what is left and stop; an unreachable receiver holds it up for `LONGEST_SHUTDOWN_SECONDS` at most."""
        if self.enabled:
            await asyncio.to_thread(self.flush)


def start_telemetry(service_name: str, settings: TelemetrySettings) -> Telemetry:
    """Return a service's telemetry; its resource is named "ensemble-" and the service's name."""
    if settings.endpoint is None:
        return Telemetry.off()
    # Imported only here: they take 0.3 s and 20 MB that a service without telemetry need not spend.
    from opentelemetry.sdk.metrics import MeterProvider  # noqa: PLC0415
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader  # noqa: PLC0415
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

    from services.chassis import otlp  # noqa: PLC0415

    otlp.OUTAGES.stand_before(otlp.EXPORTER_LOGGER, otlp.QUEUE_LOGGER)
    resource = Resource.create({semconv.SERVICE_NAME: f"ensemble-{service_name}"})
    insecure = not settings.endpoint.startswith("https://")
    tracers = TracerProvider(resource=resource, shutdown_on_exit=False)
    spans = otlp.SpanExporter(endpoint=settings.endpoint, insecure=insecure, timeout=EXPORT_TIMEOUT_SECONDS)
    tracers.add_span_processor(BatchSpanProcessor(spans, schedule_delay_millis=SPAN_EXPORT_DELAY_MILLISECONDS))
    metrics = otlp.MetricExporter(endpoint=settings.endpoint, insecure=insecure, timeout=EXPORT_TIMEOUT_SECONDS)
    reader = PeriodicExportingMetricReader(metrics, export_interval_millis=METRIC_EXPORT_INTERVAL_MILLISECONDS)
    meters = MeterProvider(metric_readers=[reader], resource=resource, shutdown_on_exit=False)
    return Telemetry(
        tracer=tracers.get_tracer(SCOPE),
        meter=meters.get_meter(SCOPE),
        enabled=True,
        capture_content=settings.capture_content,
        flush=lambda: _run_bounded(tracers.shutdown, meters.shutdown),
    )


def _run_bounded(*ends: Callable[[], object]) -> None:
    """Run each in a thread that does not keep the process alive: an exporter tries batch after batch at a receiver that is gone."""
    threads = [threading.Thread(target=end, name="telemetry's end", daemon=True) for end in ends]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONGEST_SHUTDOWN_SECONDS)
