"""A gateway whose Redis freezes (SIGSTOP) or dies (SIGKILL), in every phase of a request, over real RPCs and a real server."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from ensemble.v1 import gateway_service_pb2, orchestrator_service_pb2
from services.chassis.configuration import load_configuration
from services.chassis.server import CannotStartError
from services.cli.rpc_errors import failure_of
from services.gateway.app import application
from tests.support.fake_orchestrator import FakeOrchestrator, FakeServer
from tests.support.gateways import MODELS, PROFILES, calling
from tests.support.redis_server import RedisServer, redis_server

Request = gateway_service_pb2.GenerateRequest
ANSWER = orchestrator_service_pb2.RunResponse(run_id="id", answer="42", trace_id="1" * 32)


@asynccontextmanager
async def _gateway(fakes: FakeServer, server: RedisServer, *, cache: bool = False) -> AsyncIterator[Any]:
    alone = {"strategy": "single", "members": [{"model": "quick"}], **({"cache": {"ttl": "1h"}} if cache else {})}
    configuration = load_configuration(
        environ={},
        folder=Path(__file__).parent,
        overrides={
            "providers": {"local": {"kind": "openai", "base_url": "http://127.0.0.1:9"}},
            "models": MODELS,
            "profiles": {**PROFILES, "alone": alone},
            "limiter": {"store": {"url": server.url, "timeout": "300ms"}},
            "gateway": {
                "listen": "127.0.0.1:0",
                "orchestrator": fakes.address,
                "limiter": fakes.address,
                "grace": "1s",
                "idempotency": {"store": "redis", "lease": "1s"},
                "cache": {"store": "redis"},
            },
        },
    )
    async with application(configuration) as running, calling(running) as stub:
        yield stub


@pytest.fixture
async def server() -> AsyncIterator[RedisServer]:
    """Run a Redis."""
    async with redis_server() as running:
        yield running


async def _take_away(server: RedisServer, how: str) -> None:
    if how == "freeze":
        server.stop_answering()
    else:
        await server.kill()


async def _give_back(server: RedisServer, how: str) -> None:
    if how == "freeze":
        server.go_on()
    else:
        await server.restart()


async def _ask(stub: Any, request_id: str = "id", **fields: Any) -> gateway_service_pb2.GenerateResponse:
    response: gateway_service_pb2.GenerateResponse = await stub.Generate(Request(prompt="Why?", request_id=request_id, **fields), timeout=20)
    return response


async def _listen(stub: Any, request_id: str = "id") -> list[gateway_service_pb2.StreamGenerateResponse]:
    request = gateway_service_pb2.StreamGenerateRequest(generate=Request(prompt="Why?", request_id=request_id))
    return [event async for event in stub.StreamGenerate(request, timeout=20)]


async def _refused(work: Any) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await work
    failure = failure_of(caught.value)
    assert (failure.code, failure.reason, failure.retry_after_seconds) == ("UNAVAILABLE", "STORE_UNAVAILABLE", 1.0)


async def _until_answered(stub: Any, request_id: str) -> gateway_service_pb2.GenerateResponse:
    """Retry as callers do, within a bound."""
    async with asyncio.timeout(20):
        while True:
            try:
                return await _ask(stub, request_id)
            except grpc.aio.AioRpcError as error:
                assert error.code() is grpc.StatusCode.UNAVAILABLE
                await asyncio.sleep(0.05)


HOW = pytest.mark.parametrize("how", ["freeze", "kill"])


@HOW
async def test_before_the_run(fakes: FakeServer, orchestrator: FakeOrchestrator, server: RedisServer, how: str) -> None:
    """A request with an id is refused and nothing is run; one without is answered; when the store is back a retry is answered, once."""
    orchestrator.response = ANSWER
    async with _gateway(fakes, server) as stub:
        await _take_away(server, how)
        await _refused(_ask(stub))
        await _refused(_listen(stub))
        assert orchestrator.requests == []
        assert (await _ask(stub, "")).answer == "42"
        await _give_back(server, how)
        assert (await _until_answered(stub, "id")).answer == "42"
        assert (await _ask(stub)).answer == "42"
        assert len(orchestrator.requests) == 2


@HOW
async def test_during_the_run(fakes: FakeServer, orchestrator: FakeOrchestrator, server: RedisServer, how: str, caplog: pytest.LogCaptureFixture) -> None:
    """The run goes on; a store that is back before its end keeps the response, even if it has forgotten all else."""
    orchestrator.response, orchestrator.hanging = ANSWER, True
    async with _gateway(fakes, server) as stub:
        asking = asyncio.ensure_future(_ask(stub))
        await orchestrator.arrived.wait()
        with caplog.at_level(logging.WARNING, "services.gateway"):
            await _take_away(server, how)
            async with asyncio.timeout(10):
                while not any("is down" in message for message in caplog.messages):
                    await asyncio.sleep(0.01)
            # One that comes now joins in this process.
            joining = asyncio.ensure_future(_listen(stub))
            await _give_back(server, how)
            async with asyncio.timeout(10):
                while not any("is back" in message for message in caplog.messages):
                    await asyncio.sleep(0.01)
        orchestrator.finish.set()
        response = await asking
        assert (await joining)[-1].run_finished == response == await _ask(stub)
        assert len(orchestrator.requests) == 1


@HOW
async def test_at_the_end_of_the_run(
    fakes: FakeServer, orchestrator: FakeOrchestrator, server: RedisServer, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The answer is given all the same, to all who wait; the log says that it could not be kept, and a later repeat is run once more."""
    orchestrator.response, orchestrator.hanging = ANSWER, True
    async with _gateway(fakes, server) as stub:
        asking = asyncio.ensure_future(_ask(stub))
        await orchestrator.arrived.wait()
        joining = asyncio.ensure_future(_listen(stub))
        await _take_away(server, how)
        orchestrator.finish.set()
        response = await asking
        assert response.answer == "42"
        assert (await joining)[-1].run_finished == response
        assert any("a response could not be kept" in message for message in caplog.messages)
        await _give_back(server, how)
        assert (await _until_answered(stub, "id")).answer == "42"
        # What a frozen server was sent it does when it can; one that was killed has forgotten all.
        assert len(orchestrator.requests) in ({1, 2} if how == "freeze" else {2})


@HOW
async def test_while_waiting_for_another_gateway(fakes: FakeServer, orchestrator: FakeOrchestrator, server: RedisServer, how: str) -> None:
    """One who waits elsewhere is refused, and may come again; the one whose run it is has his answer."""
    orchestrator.response, orchestrator.hanging = ANSWER, True
    async with _gateway(fakes, server) as stub, _gateway(fakes, server) as other:
        asking = asyncio.ensure_future(_ask(stub))
        await orchestrator.arrived.wait()
        waiting = asyncio.ensure_future(_refused(_ask(other)))
        client = server.client()
        async with asyncio.timeout(10):
            while not any(one["name"] == "ensemble-gateway" and one["cmd"] == "evalsha" for one in await client.client_list()):
                await asyncio.sleep(0.01)
        await _take_away(server, how)
        await waiting
        orchestrator.finish.set()
        assert (await asking).answer == "42"
        await _give_back(server, how)
        assert (await _until_answered(other, "id")).answer == "42"


@HOW
async def test_a_cache_that_is_down_fails_nobody(
    fakes: FakeServer, orchestrator: FakeOrchestrator, server: RedisServer, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Every request is run meanwhile, with one warning in the log; afterwards answers are cached again."""
    orchestrator.response = ANSWER
    async with _gateway(fakes, server, cache=True) as stub:
        assert not (await _ask(stub, "", profile="alone")).receipt.cached
        assert (await _ask(stub, "", profile="alone")).receipt.cached
        await _take_away(server, how)
        for _ in range(20):
            assert not (await _ask(stub, "", profile="alone")).receipt.cached
        assert len([message for message in caplog.messages if "is down" in message]) == 1
        await _give_back(server, how)
        async with asyncio.timeout(20):
            while not (await _ask(stub, "", profile="alone")).receipt.cached:
                await asyncio.sleep(0.05)


async def test_a_store_that_is_down_at_the_start(
    fakes: FakeServer, orchestrator: FakeOrchestrator, server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """The gateway starts all the same, and says so; requests with an id are answered once it is there."""
    orchestrator.response = ANSWER
    await server.kill()
    async with _gateway(fakes, server) as stub:
        assert any("the gateway starts all the same" in message for message in caplog.messages)
        await _refused(_ask(stub))
        await server.restart()
        assert (await _until_answered(stub, "id")).answer == "42"


async def test_a_store_that_evicts_is_no_start(fakes: FakeServer) -> None:
    """It would drop claims without a word, and requests would be paid twice."""
    async with redis_server("--maxmemory-policy", "allkeys-lru") as server:
        with pytest.raises(CannotStartError, match="set it to noeviction"):
            async with _gateway(fakes, server):
                pass


async def test_a_store_that_is_full_refuses_and_keeps_what_it_has(fakes: FakeServer, orchestrator: FakeOrchestrator) -> None:
    """A server out of memory counts as down for new claims, and still tells what was kept."""
    orchestrator.response = ANSWER
    async with redis_server() as server, _gateway(fakes, server) as stub:
        await _ask(stub)
        await server.client().config_set("maxmemory", "1")
        await _refused(_ask(stub, "another"))
        await server.client().config_set("maxmemory", "0")
        assert (await _ask(stub)).answer == "42"
        assert len(orchestrator.requests) == 1
