"""Traces, counts and logs each call that a server answers."""

import logging
import time
from contextlib import AbstractAsyncContextManager
from contextvars import ContextVar
from types import TracebackType
from typing import cast

import grpc
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace import SpanKind

from services.chassis import _semconv as semconv
from services.chassis.calls_in_flight import CallsInFlight
from services.chassis.handlers import AroundInterceptor, Context
from services.chassis.rpc_recorder import RpcRecord, RpcRecorder
from services.chassis.server_deadline import OVERSTATED_SHARE
from services.chassis.telemetry import Telemetry
from services.chassis.trace_context import extract, rooted

_log = logging.getLogger("ensemble.rpc")

_NAMES = {code.value[0]: code.name for code in grpc.StatusCode}
_DEADLINE_TOLERANCE_SECONDS = 0.02
_call_under_way: "ContextVar[_TracedCall | None]" = ContextVar("call_under_way", default=None)
"""gRPC runs each call in a context of its own."""


def tell_tenant(tenant: str) -> None:
    """Put the name of the tenant on whose behalf the call under way is made on its span and its log line; never on a metric."""
    call = _call_under_way.get()
    if call is not None:
        call.tell_tenant(tenant)


class ServerTracing(AroundInterceptor):
    """Continues the caller's trace, spans the call, and writes one log line for it."""

    def __init__(self, telemetry: Telemetry, calls: CallsInFlight) -> None:
        super().__init__()
        self._telemetry = telemetry
        self._calls = calls
        self._recorder: RpcRecorder | None = None

    def listening_on(self, address: str) -> None:
        """Take the server's address for the spans; it is known only when the server has been made."""
        if self._telemetry.enabled:
            self._recorder = RpcRecorder(self._telemetry, SpanKind.SERVER, address)

    def around(self, method: str, context: Context) -> AbstractAsyncContextManager[None]:
        """Return what traces one call."""
        return _TracedCall(method, context, self._recorder, self._calls)


class _TracedCall(AbstractAsyncContextManager[None]):
    def __init__(self, method: str, context: Context, recorder: RpcRecorder | None, calls: CallsInFlight) -> None:
        self._method = method
        self._context = context
        self._recorder = recorder
        self._calls = calls
        self._record: RpcRecord | None = None
        self._began = time.monotonic()
        self._budget: float | None = None
        self._tenant = ""

    def tell_tenant(self, tenant: str) -> None:
        self._tenant = tenant
        if self._record is not None:
            self._record.span.set_attribute(semconv.ENSEMBLE_TENANT, tenant)

    async def __aenter__(self) -> None:
        self._calls.begin()
        _call_under_way.set(self)
        caller = extract(self._context.invocation_metadata() or ())
        if self._recorder is not None:
            self._record = self._recorder.begin(self._method, caller)
            caller = trace.set_span_in_context(self._record.span, caller)
        # Each call runs in a task of its own, so the context needs no detaching; a stream that is closed by another task could not even do it.
        otel_context.attach(rooted(caller))
        self._budget = self._context.time_remaining()

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        code = self._code(error)
        if self._record is not None:
            self._record.end(code)
        extra: dict[str, object] = {"rpc": self._method, "code": code, "seconds": round(time.monotonic() - self._began, 6)}
        if self._tenant:
            extra["tenant"] = self._tenant
        _log.info("%s %s", self._method, code, extra=extra)
        self._calls.end()

    def _code(self, error: BaseException | None) -> str:
        if error is None or isinstance(error, grpc.aio.AbortError):
            # Whatever the stubs say: nothing where nobody has set it, else what was set, which may be a number.
            code: object = self._context.code()
            if isinstance(code, grpc.StatusCode):
                return code.name
            return "OK" if code is None else _NAMES.get(cast("int", code), "UNKNOWN")
        if isinstance(error, Exception):
            return "UNKNOWN"
        # The call was cancelled or its stream closed: the caller went away, or his deadline passed. gRPC does not say which, and the two ends' clocks differ a
        # little: the wire overstates timeouts.
        if self._budget is not None and self._context.time_remaining() <= _DEADLINE_TOLERANCE_SECONDS + OVERSTATED_SHARE * self._budget:
            return "DEADLINE_EXCEEDED"
        return "CANCELLED"
