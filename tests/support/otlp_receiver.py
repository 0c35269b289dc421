"""A real OTLP receiver: a gRPC server that collects the spans and metrics that are exported to it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.common.v1 import common_pb2
from opentelemetry.proto.metrics.v1 import metrics_pb2
from opentelemetry.proto.trace.v1 import trace_pb2

SECONDS_TO_WAIT = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedEvent:
    """One event of a span."""

    name: str
    attributes: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedSpan:
    """One span as it was exported."""

    service: str
    name: str
    kind: str
    """SERVER, CLIENT or INTERNAL."""
    trace_id: str
    span_id: str
    parent_id: str
    attributes: dict[str, Any]
    error: bool
    events: tuple[ReceivedEvent, ...]
    links: tuple[str, ...]
    """Ids of the linked spans."""
    start_ns: int
    end_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedHistogram:
    """One data point of a histogram, as it was exported."""

    service: str
    name: str
    unit: str
    attributes: dict[str, Any]
    count: int
    sum: float
    bounds: tuple[float, ...]


class OtlpReceiver(trace_service_pb2_grpc.TraceServiceServicer):
    """Collects spans, and histograms where it is told to take metrics."""

    def __init__(self) -> None:
        self.spans: list[ReceivedSpan] = []
        self.histograms: list[ReceivedHistogram] = []
        self.exports: list[bytes] = []
        """Every export of spans or metrics as it came, serialized: also what is not read here."""
        self.endpoint = ""
        self._changed = asyncio.Condition()

    async def Export(  # noqa: N802 - the RPC's name
        self,
        request: trace_service_pb2.ExportTraceServiceRequest,
        context: Any,
    ) -> trace_service_pb2.ExportTraceServiceResponse:
        """Take a batch."""
        async with self._changed:
            self.exports.append(request.SerializeToString())
            for resource in request.resource_spans:
                service = _attributes(resource.resource.attributes).get("service.name", "")
                self.spans += [_received(service, span) for scope in resource.scope_spans for span in scope.spans]
            self._changed.notify_all()
        return trace_service_pb2.ExportTraceServiceResponse()

    async def take_metrics(self, request: metrics_service_pb2.ExportMetricsServiceRequest) -> None:
        """Take a batch of metrics."""
        async with self._changed:
            self.exports.append(request.SerializeToString())
            for resource in request.resource_metrics:
                service = _attributes(resource.resource.attributes).get("service.name", "")
                metrics = [metric for scope in resource.scope_metrics for metric in scope.metrics]
                self.histograms += [_received_point(service, metric, point) for metric in metrics for point in metric.histogram.data_points]
            self._changed.notify_all()

    async def wait_for_histogram(self, name: str) -> list[ReceivedHistogram]:
        """Wait until points of a histogram have come; return them."""
        async with asyncio.timeout(SECONDS_TO_WAIT), self._changed:
            await self._changed.wait_for(lambda: any(point.name == name for point in self.histograms))
        return [point for point in self.histograms if point.name == name]

    async def wait_for(self, reached: Callable[[list[ReceivedSpan]], bool]) -> list[ReceivedSpan]:
        """Wait until the spans so far satisfy a condition; return them."""
        async with asyncio.timeout(SECONDS_TO_WAIT), self._changed:
            await self._changed.wait_for(lambda: reached(self.spans))
        return list(self.spans)


class _MetricsServicer(metrics_service_pb2_grpc.MetricsServiceServicer):
    def __init__(self, receiver: OtlpReceiver) -> None:
        self._receiver = receiver

    async def Export(  # noqa: N802 - the RPC's name
        self,
        request: metrics_service_pb2.ExportMetricsServiceRequest,
        context: Any,
    ) -> metrics_service_pb2.ExportMetricsServiceResponse:
        """Take a batch."""
        await self._receiver.take_metrics(request)
        return metrics_service_pb2.ExportMetricsServiceResponse()


@asynccontextmanager
async def otlp_receiver(*, metrics: bool = True) -> AsyncIterator[OtlpReceiver]:
    """Run a receiver on a free port; without metrics it is one for traces alone, as Jaeger's is."""
    receiver = OtlpReceiver()
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(receiver, server)  # type: ignore[no-untyped-call] # generated without types
    if metrics:
        metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(_MetricsServicer(receiver), server)  # type: ignore[no-untyped-call] # as above
    port = server.add_insecure_port("127.0.0.1:0")
    receiver.endpoint = f"http://127.0.0.1:{port}"
    await server.start()
    try:
        yield receiver
    finally:
        await server.stop(1.0)


def _received(service: str, span: trace_pb2.Span) -> ReceivedSpan:
    return ReceivedSpan(
        service=service,
        name=span.name,
        kind=trace_pb2.Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        attributes=_attributes(span.attributes),
        error=span.status.code == trace_pb2.Status.STATUS_CODE_ERROR,
        events=tuple(ReceivedEvent(name=event.name, attributes=_attributes(event.attributes)) for event in span.events),
        links=tuple(link.span_id.hex() for link in span.links),
        start_ns=span.start_time_unix_nano,
        end_ns=span.end_time_unix_nano,
    )


def _received_point(service: str, metric: metrics_pb2.Metric, point: metrics_pb2.HistogramDataPoint) -> ReceivedHistogram:
    return ReceivedHistogram(
        service=service,
        name=metric.name,
        unit=metric.unit,
        attributes=_attributes(point.attributes),
        count=point.count,
        sum=point.sum,
        bounds=tuple(point.explicit_bounds),
    )


def _attributes(values: Any) -> dict[str, Any]:
    return {one.key: _value(one.value) for one in values}


def _value(value: common_pb2.AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(one) for one in value.array_value.values]
    return getattr(value, kind) if kind is not None else None
