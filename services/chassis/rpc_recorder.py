"""The span and the duration of an RPC, on either side, by OpenTelemetry's conventions for RPC."""

import re
import time
from collections.abc import Callable
from typing import Final

import grpc
from opentelemetry.context import Context
from opentelemetry.metrics import Histogram
from opentelemetry.trace import Span, SpanKind, Status, StatusCode

from services.chassis import _semconv as semconv
from services.chassis.telemetry import Telemetry

# A refusal is the caller's failure, not the server's.
_SERVER_ERRORS: Final = frozenset({"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"})
_CLIENT_ERRORS: Final = frozenset(code.name for code in grpc.StatusCode if code is not grpc.StatusCode.OK)
# The conventions' buckets end at 10 s; an ensemble takes longer.
_BUCKETS_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0)
_ADDRESS: Final = re.compile(r"(?:dns:(?://[^/]*/)?|ipv[46]:)?(?P<host>\[[^\]]+\]|[^:/,]+):(?P<port>\d+)")


class RpcRecord:
    """One call that has begun and will end."""

    def __init__(self, span: Span, attributes: dict[str, str | int], errors: frozenset[str], durations: Histogram, clock: Callable[[], float]) -> None:
        self.span = span
        self._attributes = attributes
        self._errors = errors
        self._durations = durations
        self._clock = clock
        self._began = clock()

    def end(self, code: str) -> None:
        """End it with the name of its status code."""
        outcome: dict[str, str | int] = {semconv.RPC_RESPONSE_STATUS_CODE: code}
        if code != "OK":
            outcome[semconv.ERROR_TYPE] = code
        self.span.set_attributes(outcome)
        if code in self._errors:
            self.span.set_status(Status(StatusCode.ERROR))
        self.span.end()
        self._durations.record(self._clock() - self._began, self._attributes | outcome)


class RpcRecorder:
    """Records the calls that one server answers, or that one channel makes."""

    def __init__(self, telemetry: Telemetry, kind: SpanKind, address: str, clock: Callable[[], float] = time.perf_counter) -> None:
        client = kind is SpanKind.CLIENT
        self._tracer = telemetry.tracer
        self._kind = kind
        self._errors = _CLIENT_ERRORS if client else _SERVER_ERRORS
        self._server = server_attributes(address)
        self._clock = clock
        self._durations = telemetry.meter.create_histogram(
            semconv.RPC_CLIENT_CALL_DURATION if client else semconv.RPC_SERVER_CALL_DURATION,
            unit="s",
            description="Duration of RPCs, for streams until their end.",
            explicit_bucket_boundaries_advisory=_BUCKETS_SECONDS,
        )

    def begin(self, method: str, context: Context | None = None) -> RpcRecord:
        """Begin to record a call of a method such as "ensemble.v1.GatewayService/Generate", as a child of the context's span."""
        attributes: dict[str, str | int] = {semconv.RPC_SYSTEM_NAME: "grpc", semconv.RPC_METHOD: method, **self._server}
        span = self._tracer.start_span(method, context=context, kind=self._kind, attributes=attributes)
        return RpcRecord(span, attributes, self._errors, self._durations, self._clock)


def server_attributes(address: str) -> dict[str, str | int]:
    """Return a server's address and port as attributes; a target that is not a single HOST:PORT is told as it stands."""
    parts = _ADDRESS.fullmatch(address)
    if parts is None:
        return {semconv.SERVER_ADDRESS: address}
    return {semconv.SERVER_ADDRESS: parts["host"].strip("[]"), semconv.SERVER_PORT: int(parts["port"])}
