"""Spans of RPCs over two hops, collected by a real OTLP receiver."""

import asyncio
from collections.abc import AsyncIterator
from itertools import pairwise

import grpc
import pytest

from services.chassis.telemetry import Telemetry, TelemetrySettings, start_telemetry
from services.chassis.trace_context import current_trace_id
from tests.support.otlp_receiver import OtlpReceiver, ReceivedSpan, otlp_receiver
from tests.support.scripted_rpcs import SERVICE, Context, calling, chat, collect, serving, stream, unary
from tests.support.traced_hops import BACK, Hops, two_hops

CALLER_TRACE = "0af7651916cd43dd8448eb211c80319c"
CALLER_SPAN = "b7ad6b7169203331"


@pytest.fixture
async def receiver() -> AsyncIterator[OtlpReceiver]:
    """Collect spans."""
    async with otlp_receiver() as running:
        yield running


@pytest.fixture
async def hops(receiver: OtlpReceiver) -> AsyncIterator[Hops]:
    """Run two traced servers and a traced caller."""
    async with two_hops(receiver) as running:
        yield running


def chain(spans: list[ReceivedSpan], method: str) -> list[ReceivedSpan]:
    """Return a call's spans from the outside in: each is the parent of the next."""
    found = []
    for name, kind in ((f"{SERVICE}/{method}", "CLIENT"), (f"{SERVICE}/{method}", "SERVER"), (f"{BACK}/{method}", "CLIENT"), (f"{BACK}/{method}", "SERVER")):
        (span,) = [span for span in spans if (span.name, span.kind) == (name, kind)]
        found.append(span)
    for parent, child in pairwise(found):
        assert (child.parent_id, child.trace_id) == (parent.span_id, parent.trace_id)
    assert len({span.trace_id for span in found}) == 1
    return found


def codes(spans: list[ReceivedSpan]) -> list[str]:
    """Return the status codes that spans tell."""
    return [span.attributes["rpc.response.status_code"] for span in spans]


async def test_each_hop_is_a_client_span_and_a_server_span_under_it(hops: Hops) -> None:
    """One trace, four spans in a row, named and described by the conventions."""
    answer = await hops.front.unary("Answer", b"id ")
    spans = chain(await hops.spans(), "Answer")
    assert answer.decode() == f"id {spans[0].trace_id}"
    assert [span.service for span in spans] == ["ensemble-caller", "ensemble-front", "ensemble-front", "ensemble-back"]
    assert spans[0].parent_id == ""
    for span in spans:
        address = hops.back_address if BACK in span.name else hops.front_address
        host, _, port = address.rpartition(":")
        assert span.attributes == {
            "rpc.system.name": "grpc",
            "rpc.method": span.name,
            "rpc.response.status_code": "OK",
            "server.address": host,
            "server.port": int(port),
        }
        assert not span.error
        assert span.events == ()
        assert span.start_ns < span.end_ns


async def test_the_callers_trace_is_continued(hops: Hops) -> None:
    """A caller without spans of ours gives its traceparent; the first server span is its child."""
    async with grpc.aio.insecure_channel(hops.front_address) as channel:
        call = channel.unary_unary(f"/{SERVICE}/Answer")  # type: ignore[var-annotated] # bytes both ways
        answer = await call(b"", metadata=(("traceparent", f"00-{CALLER_TRACE}-{CALLER_SPAN}-01"),), timeout=10)
    spans = await hops.spans()
    assert answer.decode() == CALLER_TRACE
    assert {span.trace_id for span in spans} == {CALLER_TRACE}
    assert [span.parent_id for span in spans if span.name.startswith(SERVICE)] == [CALLER_SPAN]


async def test_a_caller_who_wants_no_spans_gets_none(hops: Hops) -> None:
    """An unsampled traceparent is continued without a span on any hop."""
    async with grpc.aio.insecure_channel(hops.front_address) as channel:
        call = channel.unary_unary(f"/{SERVICE}/Answer")  # type: ignore[var-annotated] # bytes both ways
        answer = await call(b"", metadata=(("traceparent", f"00-{CALLER_TRACE}-{CALLER_SPAN}-00"),), timeout=10)
    assert answer.decode() == CALLER_TRACE
    assert await hops.spans() == []


async def test_a_refusal_is_an_error_of_the_client_alone(hops: Hops) -> None:
    """NOT_FOUND is what the server is there to say."""
    with pytest.raises(grpc.aio.AioRpcError):
        await hops.front.unary("Refuse")
    spans = chain(await hops.spans(), "Refuse")
    assert codes(spans) == ["NOT_FOUND"] * 4
    assert [span.attributes["error.type"] for span in spans] == ["NOT_FOUND"] * 4
    assert [(span.kind, span.error) for span in spans] == [("CLIENT", True), ("SERVER", False)] * 2


async def test_a_bug_is_an_error_of_both_sides_without_its_text(hops: Hops) -> None:
    """INTERNAL marks the server's span too; no span has the exception, not as an event either."""
    with pytest.raises(grpc.aio.AioRpcError):
        await hops.front.unary("Break")
    spans = chain(await hops.spans(), "Break")
    assert codes(spans) == ["INTERNAL"] * 4
    assert [span.error for span in spans] == [True] * 4
    assert "secret" not in repr(spans)
    assert [span.events for span in spans] == [()] * 4


async def test_a_cancellation_reaches_the_last_hop_and_ends_every_span(hops: Hops) -> None:
    """The caller goes away: the innermost handler is cancelled, and each span says CANCELLED."""
    call = hops.front.unary("Hang")
    await hops.entered.wait()
    call.cancel()
    async with asyncio.timeout(5):
        await hops.cancelled.wait()
    spans = await hops.receiver.wait_for(lambda spans: len(spans) == 4)
    assert codes(chain(spans, "Hang")) == ["CANCELLED"] * 4
    assert [span.error for span in chain(spans, "Hang")] == [True, False, True, False]


async def test_a_cancelled_task_is_a_cancelled_call(hops: Hops) -> None:
    """Not the call but the task that awaits it is cancelled."""
    task = asyncio.ensure_future(hops.front.unary("Hang"))
    await hops.entered.wait()
    task.cancel()
    async with asyncio.timeout(5):
        await hops.cancelled.wait()
    spans = await hops.receiver.wait_for(lambda spans: len(spans) == 4)
    assert codes(chain(spans, "Hang")) == ["CANCELLED"] * 4


async def test_a_call_that_is_cancelled_before_it_began_leaves_no_open_span(hops: Hops) -> None:
    """Whatever was begun by then has ended."""
    call = hops.front.unary("Hang")
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await hops.front.unary("Answer")
    spans = await hops.spans()
    assert {span.attributes["rpc.response.status_code"] for span in spans if span.name.endswith("/Hang")} <= {"CANCELLED"}


async def test_a_deadline_that_passes_is_told_on_both_sides(hops: Hops) -> None:
    """Where gRPC cancels a handler because its time is over, the span says that, and that is an error of the server."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await hops.front.unary("Hang", timeout=0.2)
    assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    spans = await hops.receiver.wait_for(lambda spans: len(spans) == 4)
    client, server, *_ = chain(spans, "Hang")
    assert codes([client, server]) == ["DEADLINE_EXCEEDED"] * 2
    assert (client.error, server.error) == (True, True)


async def test_a_streams_span_ends_with_the_stream(hops: Hops) -> None:
    """Read to its end a stream is OK."""
    assert [number async for number in hops.front.stream("Count", b"3")] == [b"0", b"1", b"2"]
    assert codes(chain(await hops.spans(), "Count")) == ["OK"] * 4


async def test_a_cancelled_streams_spans_end(hops: Hops) -> None:
    """A stream that is cancelled while it hangs, two hops away."""
    call = hops.front.stream("Count", b"5")
    assert await call.read() == b"0"
    await hops.entered.wait()
    call.cancel()
    async with asyncio.timeout(5):
        await hops.cancelled.wait()
    spans = await hops.receiver.wait_for(lambda spans: len(spans) == 4)
    assert codes(chain(spans, "Count")) == ["CANCELLED"] * 4


async def test_an_abandoned_streams_spans_end_with_its_deadline(hops: Hops) -> None:
    """A reader that just stops, without a word: gRPC lets the stream go on until its time is over, and then everything behind it ends."""
    async for _ in hops.front.stream("Count", b"5", timeout=0.5):
        break
    await hops.entered.wait()
    async with asyncio.timeout(5):
        await hops.cancelled.wait()
    spans = await hops.receiver.wait_for(lambda spans: len(spans) == 4)
    assert codes(chain(spans, "Count"))[:2] == ["DEADLINE_EXCEEDED"] * 2


async def test_an_abandoned_streams_spans_end_with_the_channel(receiver: OtlpReceiver) -> None:
    """Closing the channel cancels what is left on it."""
    ended = asyncio.Event()

    async def count(_: bytes, __: Context) -> AsyncIterator[bytes]:
        yield b"0"
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    telemetry = start_telemetry("both", TelemetrySettings(endpoint=receiver.endpoint))
    async with serving(telemetry=telemetry, Count=stream(count)) as server:
        async with calling(server.address, telemetry=telemetry) as caller:
            async for _ in caller.stream("Count"):
                break
        async with asyncio.timeout(5):
            await ended.wait()
    await telemetry.shutdown()
    assert sorted(span.kind for span in receiver.spans) == ["CLIENT", "SERVER"]
    assert codes(receiver.spans) == ["CANCELLED"] * 2


async def test_calls_with_streams_of_requests_are_traced_too(receiver: OtlpReceiver) -> None:
    """The other two kinds of calls have the same two spans."""

    async def join(requests: AsyncIterator[bytes], _: Context) -> bytes:
        return b"".join([request async for request in requests])

    async def echo(requests: AsyncIterator[bytes], _: Context) -> AsyncIterator[bytes]:
        async for request in requests:
            yield request

    async def send() -> AsyncIterator[bytes]:
        yield b"a"
        yield b"b"

    telemetry = start_telemetry("both", TelemetrySettings(endpoint=receiver.endpoint))
    async with (
        serving(telemetry=telemetry, Collect=collect(join), Chat=chat(echo)) as server,
        calling(server.address, telemetry=telemetry) as caller,
    ):
        assert await caller.collect("Collect", send()) == b"ab"
        assert [response async for response in caller.chat("Chat", send())] == [b"a", b"b"]
    await telemetry.shutdown()
    for name in ("Collect", "Chat"):
        by_kind = {span.kind: span for span in receiver.spans if span.name == f"{SERVICE}/{name}"}
        assert by_kind["SERVER"].parent_id == by_kind["CLIENT"].span_id
        assert codes(list(by_kind.values())) == ["OK", "OK"]


async def test_a_server_that_is_not_there_is_in_the_clients_span(receiver: OtlpReceiver) -> None:
    """A call that never reached a server has its span, with UNAVAILABLE."""
    async with serving() as gone:
        address = gone.address
    telemetry = start_telemetry("caller", TelemetrySettings(endpoint=receiver.endpoint))
    async with calling(address, telemetry=telemetry) as caller:
        with pytest.raises(grpc.aio.AioRpcError):
            await caller.unary("Answer")
    await telemetry.shutdown()
    (span,) = receiver.spans
    assert (span.attributes["rpc.response.status_code"], span.error) == ("UNAVAILABLE", True)


async def test_a_calls_own_metadata_stay(receiver: OtlpReceiver) -> None:
    """The trace context comes on top of what the caller sends."""
    seen: list[dict[str, str | bytes]] = []

    async def remember(_: bytes, context: Context) -> bytes:
        seen.append(dict(context.invocation_metadata() or ()))
        return b""

    telemetry = start_telemetry("caller", TelemetrySettings(endpoint=receiver.endpoint))
    async with serving(Ask=unary(remember)) as server, calling(server.address, telemetry=telemetry) as caller:
        await caller.unary("Ask", metadata=(("x-own", "1"), ("x-own-bin", b"2")))
        await caller.unary("Ask")
    await telemetry.shutdown()
    assert (seen[0]["x-own"], seen[0]["x-own-bin"]) == ("1", b"2")
    assert [str(metadata["traceparent"]).split("-")[2] for metadata in seen] == [span.span_id for span in receiver.spans]


async def test_a_call_that_cannot_be_made_ends_its_span(receiver: OtlpReceiver) -> None:
    """On a channel that is closed: the error is raised as gRPC raises it, and no span stays open."""
    telemetry = start_telemetry("caller", TelemetrySettings(endpoint=receiver.endpoint))
    async with serving() as server, calling(server.address, telemetry=telemetry) as caller:
        pass
    with pytest.raises(grpc.aio.UsageError):
        await caller.unary("Answer")
    await telemetry.shutdown()
    assert [(span.attributes["error.type"], span.error) for span in receiver.spans] == [("UNKNOWN", True)]


async def test_without_telemetry_all_hops_share_a_trace_id_and_no_span_is_made(receiver: OtlpReceiver) -> None:
    """The first hop makes the id where the caller brings none; another call has another."""
    seen: list[bytes] = []

    async with serving(service=BACK, Answer=unary(_tell_trace_id)) as back, calling(back.address, service=BACK) as to_back:

        async def forward(request: bytes, context: Context) -> bytes:
            seen.append(await _tell_trace_id(request, context))
            return bytes(await to_back.unary("Answer"))

        async with serving(Ask=unary(forward)) as front, calling(front.address, telemetry=Telemetry.off()) as caller:
            answers = [await caller.unary("Ask") for _ in range(2)]
            given = await caller.unary("Ask", metadata=(("traceparent", f"00-{CALLER_TRACE}-{CALLER_SPAN}-01"),))
            broken = await caller.unary("Ask", metadata=(("traceparent", "00-not-a-trace"), ("tracestate", "a=b")))
    assert seen == [*answers, given, broken]
    assert given.decode() == CALLER_TRACE
    assert len({*answers, broken}) == 3
    assert all(len(answer) == 32 for answer in (*answers, broken))
    assert receiver.spans == []


async def _tell_trace_id(_: bytes, __: Context) -> bytes:
    return current_trace_id().encode()


async def test_durations_are_measured_on_both_sides(hops: Hops) -> None:
    """A histogram of seconds for servers and one for clients, by method and status code."""
    await hops.front.unary("Answer")
    with pytest.raises(grpc.aio.AioRpcError):
        await hops.front.unary("Refuse")
    await hops.spans()
    points = await hops.receiver.wait_for_histogram("rpc.server.call.duration") + await hops.receiver.wait_for_histogram("rpc.client.call.duration")
    told = {(point.name, point.service, point.attributes["rpc.method"], point.attributes["rpc.response.status_code"]) for point in points}
    assert told == {
        (f"rpc.{side}.call.duration", service, f"{at}/{method}", code)
        for side, service, at in (
            ("client", "ensemble-caller", SERVICE),
            ("server", "ensemble-front", SERVICE),
            ("client", "ensemble-front", BACK),
            ("server", "ensemble-back", BACK),
        )
        for method, code in (("Answer", "OK"), ("Refuse", "NOT_FOUND"))
    }
    for point in points:
        assert (point.unit, point.count) == ("s", 1)
        assert 0 < point.sum < 60
        assert point.bounds[-1] == 500.0
        assert ("error.type" in point.attributes) is (point.attributes["rpc.response.status_code"] != "OK")
