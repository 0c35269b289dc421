"""Repeats of one request at real gateways: several gateways over one stack of services, and callers of either kind."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import grpc

from ensemble.v1 import gateway_service_pb2, gateway_service_pb2_grpc
from services.gateway.app import application
from tests.support.fake_provider import FakeProvider
from tests.support.redis_server import RedisServer
from tests.support.stack import MEMBERS, WRITER, Stack, configured, stack

Response = gateway_service_pb2.GenerateResponse


def in_redis(server: RedisServer, *, lease: str = "10s", timeout: str = "2s") -> dict[str, Any]:
    """Return the overrides that keep answers in a Redis."""
    return {
        "limiter": {"store": {"url": server.url, "timeout": timeout}},
        "gateway": {"idempotency": {"store": "redis", "lease": lease}, "cache": {"store": "redis"}},
    }


@asynccontextmanager
async def gateways(provider: FakeProvider, count: int, **overrides: Any) -> "AsyncIterator[tuple[Stack, list[Any]]]":
    """Run the services with so many gateways; yield them with a stub for each gateway."""
    async with AsyncExitStack() as opened:
        services = await opened.enter_async_context(stack(provider, **overrides))
        stubs = [services.gateway]
        addresses = {name: services.running.addresses()[name] for name in ("orchestrator", "limiter")}
        for _ in range(count - 1):
            configuration = configured(provider, **{**overrides, "gateway": {**overrides.get("gateway", {}), **addresses}})
            server = await opened.enter_async_context(application(configuration, listen="127.0.0.1:0"))
            channel = await opened.enter_async_context(grpc.aio.insecure_channel(server.address))
            stubs.append(gateway_service_pb2_grpc.GatewayServiceStub(channel))
        yield services, stubs


async def ask(stub: Any, request_id: str, *, streamed: bool = False, timeout: float = 30.0, **fields: Any) -> Response:
    """Ask, with or without events, and return the response."""
    request = gateway_service_pb2.GenerateRequest(**{"prompt": "What is it?", "request_id": request_id, **fields})
    if not streamed:
        response: Response = await stub.Generate(request, timeout=timeout, wait_for_ready=True)
        return response
    call = stub.StreamGenerate(gateway_service_pb2.StreamGenerateRequest(generate=request), timeout=timeout, wait_for_ready=True)
    last = gateway_service_pb2.StreamGenerateResponse()
    answer = ""
    async for event in call:
        last = event
        if event.HasField("answer_delta"):
            answer = event.answer_delta.text if event.answer_delta.restart else answer + event.answer_delta.text
    assert last.HasField("run_finished")
    assert last.run_finished.answer == answer
    return last.run_finished


def counted(provider: FakeProvider) -> list[int]:
    """Return how often each model was asked."""
    return [len(provider.asked(name)) for name in (*MEMBERS, WRITER)]


def one_of(responses: Sequence[Response]) -> Response:
    """Check that all responses are the same, byte for byte, and return it."""
    assert len({response.SerializeToString(deterministic=True) for response in responses}) == 1
    return responses[0]


async def gone(tasks: "Sequence[asyncio.Future[Any]]") -> None:
    """Cancel calls, and wait until they have ended here."""
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)
