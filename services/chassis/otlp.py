"""OpenTelemetry's exporters over gRPC, which complain once for each outage of a receiver instead of with every batch.

    a batch does not arrive: one warning --nor do others: silence--> one arrives: one line that it is over

Imported only where telemetry is on, for what it imports takes its time.
"""

import logging
import threading
from collections.abc import Sequence
from enum import Enum

from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics.export import MetricExportResult, MetricsData
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult

EXPORTER_LOGGER = "opentelemetry.exporter.otlp.proto.grpc.exporter"
QUEUE_LOGGER = "opentelemetry.sdk._shared_internal"

_log = logging.getLogger(__name__)


class Outages(logging.Filter):
    """Which receivers are out; a filter that takes the place of what the exporters say of them."""

    def __init__(self) -> None:
        super().__init__()
        self._out: dict[str, str] = {}
        """The endpoints that are out, each with the signal that told so: one that takes traces and fails at metrics is not over with the next trace."""
        self._refused: set[tuple[str, str]] = set()
        # Each exporter has a thread of its own.
        self._lock = threading.Lock()

    def stand_before(self, *loggers: str) -> None:
        """Stand before whatever else filters these loggers: OpenTelemetry drops what it has said in the same words before, also of another receiver."""
        for logger in map(logging.getLogger, loggers):
            if self not in logger.filters:
                logger.filters.insert(0, self)

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a line of the exporters' is let through: not where it is about a batch that failed, of which the first is told here."""
        what = record.args if isinstance(record.args, tuple) else ()
        # The only thing of that kind in their lines is gRPC's status code.
        code = next((one.name for one in what if isinstance(one, Enum)), None)
        # In the same order in both lines: that about a batch that is tried again and that about one that is given up.
        words = [one for one in what if isinstance(one, str)]
        if code is None or len(words) < 2:
            # That the queue is full, or that an end breaks a retry off, follows from the outage.
            return record.levelno >= logging.ERROR or not self._out
        signal, endpoint = words[:2]
        if code == "UNIMPLEMENTED":
            # A receiver for traces alone, such as Jaeger; it is there.
            self.over(signal, endpoint)
            with self._lock:
                told = (signal, endpoint) in self._refused
                self._refused.add((signal, endpoint))
            if not told:
                _log.warning("%s are not taken by %s: %s", signal, endpoint, code)
            return False
        with self._lock:
            told = endpoint in self._out
            self._out.setdefault(endpoint, signal)
        if not told:
            _log.warning("telemetry does not reach %s: %s; until it does, the oldest is dropped", endpoint, code)
        return False

    def over(self, signal: str, endpoint: str) -> None:
        """Note that a receiver answered."""
        with self._lock:
            if self._out.get(endpoint) != signal:
                return
            del self._out[endpoint]
        _log.info("telemetry reaches %s again", endpoint)


OUTAGES = Outages()
"""Of this process: under `ensemble up` four services tell of one receiver once."""


class SpanExporter(OTLPSpanExporter):
    """Exports spans."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send a batch."""
        result = super().export(spans)
        if result is SpanExportResult.SUCCESS:
            OUTAGES.over(self._exporting, self._endpoint)
        return result


class MetricExporter(OTLPMetricExporter):
    """Exports metrics."""

    def export(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **more: object) -> MetricExportResult:
        """Send a batch."""
        result = super().export(metrics_data, timeout_millis, **more)
        if result is MetricExportResult.SUCCESS:
            OUTAGES.over(self._exporting, self._endpoint)
        return result
