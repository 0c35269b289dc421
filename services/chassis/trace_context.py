"""The trace context on its way from hop to hop (W3C Trace Context), with or without spans."""

import random
from collections.abc import Iterable

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

_PROPAGATOR = TraceContextTextMapPropagator()
_CARRIED = ("traceparent", "tracestate")

Metadatum = tuple[str, str | bytes]


def extract(metadata: Iterable[Metadatum]) -> Context:
    """Return the context that a call brought; an empty one where it brought none, or a malformed one."""
    carrier = {key: value for key, value in metadata if key in _CARRIED and isinstance(value, str)}
    return _PROPAGATOR.extract(carrier, Context()) if carrier else Context()


def injected() -> list[Metadatum]:
    """Return the metadata that carry the current context to the next hop."""
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier)
    return list(carrier.items())


def rooted(context: Context) -> Context:
    """Return the context, with a fresh unsampled trace begun where it has none: responses and logs of all hops then share an id even without spans."""
    if trace.get_current_span(context).get_span_context().is_valid:
        return context
    # Ids must differ, not be unpredictable.
    identity = trace.SpanContext(random.getrandbits(128) or 1, random.getrandbits(64) or 1, is_remote=False)
    return trace.set_span_in_context(trace.NonRecordingSpan(identity), context)


def current_trace_id() -> str:
    """Return the current trace's id as 32 hexadecimal digits; empty outside any trace."""
    context = trace.get_current_span().get_span_context()
    return trace.format_trace_id(context.trace_id) if context.is_valid else ""


def current_span_id() -> str:
    """Return the current span's id as 16 hexadecimal digits; empty outside any trace."""
    context = trace.get_current_span().get_span_context()
    return trace.format_span_id(context.span_id) if context.is_valid else ""
