"""The trace context on its way from hop to hop (W3C Trace Context), with or without spans."""

import random
from collections.abc import Iterable

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

_PROPAGATOR = TraceContextTextMapPropagator()
_CARRIED = {"traceparent": 512, "tracestate": 512}
"""Most characters of each; a longer one counts as none. The standard has us carry a tracestate of 512. With a longer one our own calls might be too large for
the next hop, and where it is malformed the propagator would write all of it to the log."""

Metadatum = tuple[str, str | bytes]


def extract(metadata: Iterable[Metadatum]) -> Context:
    """Return the context that a call brought; an empty one where it brought none, or a malformed one."""
    carrier = {key: value for key, value in metadata if isinstance(value, str) and len(value) <= _CARRIED.get(key, -1)}
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
    identity = trace.SpanContext(random.getrandbits(128) or 1, random.getrandbits(64) or 1, is_remote=False)  # nosec B311 # ids that differ, not secrets
    return trace.set_span_in_context(trace.NonRecordingSpan(identity), context)


def current_trace_id() -> str:
    """Return the current trace's id as 32 hexadecimal digits; empty outside any trace."""
    context = trace.get_current_span().get_span_context()
    return trace.format_trace_id(context.trace_id) if context.is_valid else ""


def current_span_id() -> str:
    """Return the current span's id as 16 hexadecimal digits; empty outside any trace."""
    context = trace.get_current_span().get_span_context()
    return trace.format_span_id(context.span_id) if context.is_valid else ""
