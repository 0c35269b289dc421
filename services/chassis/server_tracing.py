"""Traces and logs each call that a server answers."""

import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import grpc
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode

from services.chassis import _semconv as semconv
from services.chassis.handlers import OURS, Context, Handler, wrapped
from services.chassis.telemetry import Telemetry
from services.chassis.trace_context import extract, rooted

_log = logging.getLogger("ensemble.rpc")

# A refusal is the caller's failure, not the server's (semantic conventions for RPC).
_SERVER_ERRORS = frozenset(
    code.name
    for code in (
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    )
)
_NAMES = {code.value[0]: code.name for code in grpc.StatusCode}


class ServerTracing(grpc.aio.ServerInterceptor):
    """Continues the caller's trace, spans the call, and writes one log line for it."""

    def __init__(self, telemetry: Telemetry, address: str) -> None:
        self._telemetry = telemetry
        host, _, port = address.rpartition(":")
        self._server = {semconv.SERVER_ADDRESS: host, semconv.SERVER_PORT: int(port) if port.isdigit() else 0}

    async def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]], handler_call_details: grpc.HandlerCallDetails
    ) -> Handler | None:
        """Stand around the handlers of our own services."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or not method.startswith(OURS):
            return handler
        caller = extract(handler_call_details.invocation_metadata)
        return wrapped(handler, lambda context: self._call(method[1:], caller, context))

    @asynccontextmanager
    async def _call(self, method: str, caller: otel_context.Context, context: Context) -> AsyncIterator[None]:
        span: Span | None = None
        if self._telemetry.enabled:
            attributes = {semconv.RPC_SYSTEM_NAME: "grpc", semconv.RPC_METHOD: method, **self._server}
            span = self._telemetry.tracer.start_span(method, context=caller, kind=SpanKind.SERVER, attributes=attributes)
            caller = trace.set_span_in_context(span, caller)
        # Each call runs in a task of its own, so the context needs no detaching; a stream may even be closed from another task, where that would fail.
        otel_context.attach(rooted(caller))
        started = time.monotonic()
        code = "OK"
        try:
            yield
        except grpc.aio.AbortError:
            code = _code_of(context)
            raise
        except Exception:
            code = "UNKNOWN"
            raise
        except BaseException:
            # The caller went away or his deadline passed: the call was cancelled, or its stream was closed.
            code = "CANCELLED"
            raise
        finally:
            if span is not None:
                _end(span, code)
            _log.info("%s %s", method, code, extra={"rpc": method, "code": code, "seconds": round(time.monotonic() - started, 6)})


def _code_of(context: Context) -> str:
    code: object = context.code()
    return code.name if isinstance(code, grpc.StatusCode) else _NAMES.get(code if isinstance(code, int) else 2, "UNKNOWN")


def _end(span: Span, code: str) -> None:
    span.set_attribute(semconv.RPC_RESPONSE_STATUS_CODE, code)
    if code != "OK":
        span.set_attribute(semconv.ERROR_TYPE, code)
    if code in _SERVER_ERRORS:
        span.set_status(Status(StatusCode.ERROR))
    span.end()
