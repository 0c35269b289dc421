"""Spans that cannot be delivered are nobody's problem but the operator's: answers come as ever, and what waits to be sent is bounded."""

import asyncio
import gc
import logging
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc
from opentelemetry.sdk.trace import ReadableSpan

from ensemble.v1 import gateway_service_pb2
from services.chassis.telemetry import TelemetrySettings, start_telemetry
from tests.support.fake_provider import FakeProvider
from tests.support.jaeger import Jaeger
from tests.support.stack import WRITER, stack
from tests.support.tools import tool

QUEUE = 2048
BATCH = 512
"""How many spans of one service wait, and how many are under way, at most; OpenTelemetry's own figures."""


class HungReceiver(trace_service_pb2_grpc.TraceServiceServicer):
    """Takes batches and never answers."""

    def __init__(self) -> None:
        self.endpoint = ""
        self.taken = asyncio.Event()

    async def Export(self, request: Any, context: Any) -> Any:  # noqa: N802 - the RPC's name
        """Take a batch, and that is all."""
        self.taken.set()
        await asyncio.Event().wait()


@asynccontextmanager
async def _hung_receiver() -> AsyncIterator[HungReceiver]:
    receiver = HungReceiver()
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(receiver, server)  # type: ignore[no-untyped-call] # generated without types
    receiver.endpoint = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        yield receiver
    finally:
        await server.stop(None)


async def test_a_receiver_that_never_answers_holds_no_answer_up(provider: FakeProvider) -> None:
    """While an exporter waits for it, calls are answered, whole and not degraded."""
    async with _hung_receiver() as receiver, stack(provider, telemetry={"endpoint": receiver.endpoint}) as services:
        await services.ask(timeout=60)
        async with asyncio.timeout(60):
            await receiver.taken.wait()
        answers = await asyncio.gather(*(services.ask(timeout=60) for _ in range(8)))
    assert [(response.answer, response.degraded) for response in answers] == [(f"an answer from {WRITER}", False)] * 8


async def test_what_waits_to_be_sent_is_bounded(provider: FakeProvider) -> None:
    """However many spans end meanwhile: the oldest are given up."""
    gc.collect()
    before = _spans_in_memory()
    async with _hung_receiver() as receiver:
        telemetry = start_telemetry("gateway", TelemetrySettings(endpoint=receiver.endpoint))
        for _ in range(3 * (QUEUE + BATCH)):
            telemetry.tracer.start_span("x").end()
        async with asyncio.timeout(60):
            await receiver.taken.wait()
        for _ in range(QUEUE + BATCH):
            telemetry.tracer.start_span("x").end()
        gc.collect()
        assert QUEUE <= _spans_in_memory() - before <= QUEUE + BATCH
        await telemetry.shutdown()


def _spans_in_memory() -> int:
    return sum(isinstance(one, ReadableSpan) for one in gc.get_objects())


async def test_jaeger_may_go_and_come_back(provider: FakeProvider, caplog: pytest.LogCaptureFixture) -> None:
    """Calls are answered while it is away, and once it is back it is sent the spans of what comes then; the log tells of both, once."""
    caplog.set_level(logging.INFO)
    with Jaeger(tool("jaeger")) as jaeger:
        async with stack(provider, telemetry={"endpoint": jaeger.endpoint}) as services:

            async def ask() -> str:
                trace_id = secrets.token_hex(16)
                metadata = (("traceparent", f"00-{trace_id}-{secrets.token_hex(8)}-01"),)
                response = await services.gateway.Generate(gateway_service_pb2.GenerateRequest(prompt="q"), timeout=60, metadata=metadata)
                assert (response.answer, response.degraded) == (f"an answer from {WRITER}", False)
                return trace_id

            await jaeger.trace(await ask(), lambda spans: len({span.service for span in spans}) == 4)
            jaeger.kill()
            async with asyncio.timeout(60):
                # Batch after batch, until it is noticed and for a while after.
                while not any("does not reach" in message for message in caplog.messages):
                    await ask()
            for _ in range(5):
                await ask()
            await asyncio.to_thread(jaeger.start)
            # A batch that is being tried at the receiver that is gone is given up after some seconds; then the next one finds the new one.
            await jaeger.trace(await ask(), lambda spans: len({span.service for span in spans}) == 4)
            told = [message.partition(";")[0] for message in caplog.messages if "reach" in message]
            assert told[0] == f"telemetry does not reach {jaeger.endpoint.removeprefix('http://')}: UNAVAILABLE"
            # Who noticed it first is who takes it back; that may be metrics, with their next batch.
            assert told[1:] in ([], [f"telemetry reaches {jaeger.endpoint.removeprefix('http://')} again"])
    assert not [message for message in caplog.messages if "Failed to export" in message or "Transient error" in message]
