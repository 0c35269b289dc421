"""A client of the gateway: a channel, a deadline, a trace of its own."""

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc

from ensemble.v1 import gateway_service_pb2, gateway_service_pb2_grpc

MAX_MESSAGE_BYTES = 8 << 20
_OPTIONS = [("grpc.max_receive_message_length", MAX_MESSAGE_BYTES), ("grpc.max_send_message_length", MAX_MESSAGE_BYTES)]

Metadata = tuple[tuple[str, str], ...]


@asynccontextmanager
async def gateway_at(address: str) -> "AsyncIterator[gateway_service_pb2_grpc.GatewayServiceAsyncStub]":
    """Open a channel to a gateway."""
    async with grpc.aio.insecure_channel(address, options=_OPTIONS) as channel:
        stub: gateway_service_pb2_grpc.GatewayServiceAsyncStub = gateway_service_pb2_grpc.GatewayServiceStub(channel)
        yield stub


def new_trace() -> Metadata:
    """Begin a sampled trace (W3C Trace Context), so that whoever asks knows its id beforehand."""
    # Ids must differ, not be unpredictable.
    trace_id, span_id = random.getrandbits(128) or 1, random.getrandbits(64) or 1
    return (("traceparent", f"00-{trace_id:032x}-{span_id:016x}-01"),)


async def ask_stream(
    stub: "gateway_service_pb2_grpc.GatewayServiceAsyncStub", request: gateway_service_pb2.GenerateRequest, *, timeout: float
) -> AsyncIterator[gateway_service_pb2.StreamGenerateResponse]:
    """Ask and yield what happens; leaving the stream cancels the run."""
    call = stub.StreamGenerate(gateway_service_pb2.StreamGenerateRequest(generate=request), timeout=timeout, metadata=new_trace())
    try:
        async for event in call:
            yield event
    finally:
        call.cancel()


async def ask(
    stub: "gateway_service_pb2_grpc.GatewayServiceAsyncStub", request: gateway_service_pb2.GenerateRequest, *, timeout: float
) -> gateway_service_pb2.GenerateResponse:
    """Ask and return the whole response."""
    return await stub.Generate(request, timeout=timeout, metadata=new_trace())
