"""Traces each call that a client makes, and carries the trace context to the server.

An interceptor must hand the call back as it is: one that awaits the call's code, as opentelemetry-instrumentation-grpc does, keeps a cancellation from ever
reaching the server. So the span is ended from a callback of the call. A stream that its reader abandons without cancelling it goes on in gRPC until its
deadline or the end of its channel, and so does its span.
"""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import grpc
from opentelemetry import trace
from opentelemetry.trace import SpanKind

from services.chassis.rpc_recorder import RpcRecorder
from services.chassis.telemetry import Telemetry
from services.chassis.trace_context import injected

Call = TypeVar("Call", bound=grpc.aio.Call)
Details = grpc.aio.ClientCallDetails


class _Tracing:
    """What the four kinds of calls share."""

    def __init__(self, recorder: RpcRecorder | None) -> None:
        self._recorder = recorder

    async def _traced(self, continuation: Callable[[Details, Any], Awaitable[Call]], details: Details, request: Any) -> Call:
        if self._recorder is None:
            return await continuation(_carrying(details), request)
        # gRPC says that it is text and gives bytes.
        method: str | bytes = details.method
        record = self._recorder.begin((method.decode() if isinstance(method, bytes) else method).lstrip("/"))
        try:
            with trace.use_span(record.span, end_on_exit=False, record_exception=False, set_status_on_exception=False):
                call = await continuation(_carrying(details), request)
        except BaseException:
            # There is no call, for example because the channel is closed.
            record.end("UNKNOWN")
            raise
        call.add_done_callback(lambda ended: record.end(_code_of(ended)))
        return call


class UnaryUnaryTracing(_Tracing, grpc.aio.UnaryUnaryClientInterceptor):
    """For calls with one request and one response."""

    async def intercept_unary_unary(self, continuation: Any, client_call_details: Details, request: Any) -> Any:
        """Trace the call."""
        return await self._traced(continuation, client_call_details, request)


class UnaryStreamTracing(_Tracing, grpc.aio.UnaryStreamClientInterceptor):
    """For calls with a stream of responses; the span ends with the stream."""

    async def intercept_unary_stream(self, continuation: Any, client_call_details: Details, request: Any) -> Any:
        """Trace the call."""
        return await self._traced(continuation, client_call_details, request)


class StreamUnaryTracing(_Tracing, grpc.aio.StreamUnaryClientInterceptor):
    """For calls with a stream of requests."""

    async def intercept_stream_unary(self, continuation: Any, client_call_details: Details, request_iterator: Any) -> Any:
        """Trace the call."""
        return await self._traced(continuation, client_call_details, request_iterator)


class StreamStreamTracing(_Tracing, grpc.aio.StreamStreamClientInterceptor):
    """For calls with streams both ways; the span ends with the stream of responses."""

    async def intercept_stream_stream(self, continuation: Any, client_call_details: Details, request_iterator: Any) -> Any:
        """Trace the call."""
        return await self._traced(continuation, client_call_details, request_iterator)


def client_interceptors(telemetry: Telemetry, target: str) -> list[grpc.aio.ClientInterceptor]:
    """Return one interceptor for each kind of call; gRPC takes each for a single kind only."""
    recorder = RpcRecorder(telemetry, SpanKind.CLIENT, target) if telemetry.enabled else None
    return [kind(recorder) for kind in (UnaryUnaryTracing, UnaryStreamTracing, StreamUnaryTracing, StreamStreamTracing)]


def _carrying(details: Details) -> Details:
    """Return the details with the current trace context in the metadata."""
    carried = injected()
    if not carried:
        return details
    metadata = grpc.aio.Metadata(*(tuple(details.metadata) if details.metadata is not None else ()), *carried)
    return Details(details.method, details.timeout, metadata, details.credentials, details.wait_for_ready)


def _code_of(call: Any) -> str:
    """Return the code of a call that has ended.

    `code()` is a coroutine that only waits for the end, which has come; one step brings its result, without a task that could outlive the event loop.
    """
    code = "UNKNOWN"
    step = call.code()
    try:
        step.send(None)
    except StopIteration as done:
        code = done.value.name
    finally:
        step.close()
    return code
