"""Two servers in a row, each with telemetry of its own, and a caller before them; all export to one receiver."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc

from services.chassis.telemetry import Telemetry, TelemetrySettings, start_telemetry
from services.chassis.trace_context import current_trace_id
from tests.support.otlp_receiver import OtlpReceiver, ReceivedSpan
from tests.support.scripted_rpcs import SERVICE, Caller, Context, Method, calling, serving, stream, unary

BACK = "ensemble.test.BackService"


@dataclass(slots=True, kw_only=True)
class Hops:
    """What runs, and what it saw."""

    front: Caller
    """Calls the first server, over a channel that is traced."""
    front_address: str
    back_address: str
    receiver: OtlpReceiver
    telemetries: list[Telemetry]
    entered: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a call that hangs has reached the second server."""
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when it was cancelled there."""

    async def spans(self) -> list[ReceivedSpan]:
        """Export what has ended; return all spans. For use at the end: nothing is recorded any more."""
        for telemetry in self.telemetries:
            await telemetry.shutdown()
        return self.receiver.spans


@asynccontextmanager
async def two_hops(receiver: OtlpReceiver) -> AsyncIterator[Hops]:
    """Run a back server, a front server that passes calls on to it, and a caller of the front."""
    settings = TelemetrySettings(endpoint=receiver.endpoint)
    async with AsyncExitStack() as stack:
        telemetries = [start_telemetry(name, settings) for name in ("caller", "front", "back")]
        for telemetry in telemetries:
            stack.push_async_callback(telemetry.shutdown)
        of_caller, of_front, of_back = telemetries

        async def answer(request: bytes, _: Context) -> bytes:
            return request + current_trace_id().encode()

        async def refuse(_: bytes, context: Context) -> bytes:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no")

        async def break_down(_: bytes, __: Context) -> bytes:
            raise ValueError("secret")

        async def hang(_: bytes, __: Context) -> bytes:
            hops.entered.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                hops.cancelled.set()
                raise
            return b""

        async def count(request: bytes, _: Context) -> AsyncIterator[bytes]:
            for number in range(int(request)):
                yield str(number).encode()
            if int(request) > 3:
                await hang(b"", _)

        methods = {"Answer": unary(answer), "Refuse": unary(refuse), "Break": unary(break_down), "Hang": unary(hang), "Count": stream(count)}
        back = await stack.enter_async_context(serving(service=BACK, telemetry=of_back, **methods))
        to_back = await stack.enter_async_context(calling(back.address, service=BACK, telemetry=of_front))

        def passing(method: str) -> Method:
            async def forward(request: bytes, context: Context) -> bytes:
                try:
                    return bytes(await to_back.unary(method, request))
                except grpc.aio.AioRpcError as refused:
                    await context.abort(refused.code(), refused.details() or "")

            return unary(forward)

        async def forward_count(request: bytes, _: Context) -> AsyncIterator[bytes]:
            call = to_back.stream("Count", request)
            try:
                async for number in call:
                    yield number
            finally:
                call.cancel()

        forwards: dict[str, Any] = {name: passing(name) for name in ("Answer", "Refuse", "Break", "Hang")}
        front = await stack.enter_async_context(serving(service=SERVICE, telemetry=of_front, Count=stream(forward_count), **forwards))
        caller = await stack.enter_async_context(calling(front.address, telemetry=of_caller))
        hops = Hops(front=caller, front_address=front.address, back_address=back.address, receiver=receiver, telemetries=telemetries)
        yield hops
