"""The trace context between metadata and the current context."""

import asyncio

import pytest
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context

from services.chassis.trace_context import current_span_id, current_trace_id, extract, injected, rooted

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
SPAN_ID = "b7ad6b7169203331"
PARENT = f"00-{TRACE_ID}-{SPAN_ID}-01"


def span_of(context: Context) -> trace.SpanContext:
    """Return what a context says of the current span."""
    return trace.get_current_span(context).get_span_context()


async def inside(context: Context) -> tuple[str, str, list[tuple[str, str | bytes]]]:
    """Return what is current, and what would be sent on, within a context."""
    otel_context.attach(context)
    return current_trace_id(), current_span_id(), injected()


async def test_what_came_is_what_goes_on() -> None:
    """Without a span of ours the caller's own is passed on, flags and state included."""
    context = extract([("traceparent", PARENT), ("tracestate", "vendor=1"), ("other", "x")])
    # In a task of its own, since contexts are not detached.
    trace_id, span_id, sent = await asyncio.create_task(inside(context))
    assert (trace_id, span_id) == (TRACE_ID, SPAN_ID)
    assert dict(sent) == {"traceparent": PARENT, "tracestate": "vendor=1"}


@pytest.mark.parametrize(
    "metadata",
    [
        [],
        [("traceparent", "")],
        [("traceparent", "00-xyz-abc-01")],
        [("traceparent", f"00-{'0' * 32}-{SPAN_ID}-01")],
        [("traceparent", f"00-{TRACE_ID}-{'0' * 16}-01")],
        [("traceparent", f"ff-{TRACE_ID}-{SPAN_ID}-01")],
        [("traceparent", PARENT.encode())],
        [("tracestate", "vendor=1")],
    ],
)
def test_a_missing_or_malformed_context_is_none(metadata: list[tuple[str, str | bytes]]) -> None:
    """Whatever a caller sends, the call goes on, with a fresh trace."""
    assert not span_of(extract(metadata)).is_valid
    assert span_of(rooted(extract(metadata))).is_valid


def test_a_context_of_the_process_does_not_leak_in() -> None:
    """What came with the call alone counts, not what is current where the server runs."""
    token = otel_context.attach(extract([("traceparent", PARENT)]))
    try:
        assert not span_of(extract([])).is_valid
        assert not span_of(extract([("traceparent", "malformed")])).is_valid
    finally:
        otel_context.detach(token)


def test_a_fresh_trace_is_not_sampled_and_never_the_same() -> None:
    """It carries an id, and asks nobody to record anything."""
    first, second = span_of(rooted(Context())), span_of(rooted(Context()))
    assert first.trace_id != second.trace_id
    assert first.span_id != second.span_id
    assert not first.trace_flags.sampled


def test_a_trace_that_exists_is_kept() -> None:
    """Rooting changes nothing where there is a trace."""
    context = extract([("traceparent", PARENT)])
    assert rooted(context) is context


async def test_outside_any_trace_there_is_no_id() -> None:
    """Nothing is made up, and nothing is sent on."""
    assert await asyncio.create_task(inside(Context())) == ("", "", [])
