"""What operators' own programs see of the four services: the real grpc_health_probe, with the exit codes its documentation names."""

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from ensemble.v1 import gateway_service_pb2, gateway_service_pb2_grpc
from services.cli.addresses import SERVICES
from services.cli.up import running
from services.gateway.app import application as gateway
from tests.support.fake_provider import Answer, FakeProvider
from tests.support.stack import MEMBERS, WRITER, Stack, configured
from tests.support.tools import run_tool

FULL_NAMES = {name: f"ensemble.v1.{name.capitalize()}Service" for name in SERVICES}
SERVING, WRONG_ARGUMENTS, CANNOT_CONNECT, RPC_FAILED, NOT_SERVING = range(5)
"""The exit codes of grpc_health_probe."""
PATIENCE = ("-connect-timeout", "10s", "-rpc-timeout", "10s")
"""Its own second is short where the machine has much else to do."""


async def _probe(address: str, service: str = "", *options: str) -> int:
    ended = await run_tool("grpc_health_probe", "-addr", address, "-service", service, *(options or PATIENCE))
    return ended.code


@pytest.fixture
async def address_of_nobody() -> str:
    """Return an address at which somebody listened a moment ago."""
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    server.close()
    await server.wait_closed()
    return f"{host}:{port}"


@pytest.mark.parametrize("name", SERVICES)
async def test_a_service_that_serves_is_healthy_by_both_names(services: Stack, name: str) -> None:
    """The process ("") and the service by its full name: exit code 0. The gateway is ready once it has found its orchestrator."""
    address = services.running.addresses()[name]
    assert await _probe(address) == SERVING
    async with asyncio.timeout(30):
        while (code := await _probe(address, FULL_NAMES[name])) == NOT_SERVING and name == "gateway":
            pass
    assert code == SERVING


@pytest.mark.parametrize("name", SERVICES)
async def test_a_name_that_the_server_does_not_know_fails_the_rpc(services: Stack, name: str) -> None:
    """Also another service's name: a probe that is pointed at the wrong port says so."""
    address = services.running.addresses()[name]
    other = FULL_NAMES["limiter" if name != "limiter" else "refiner"]
    assert [await _probe(address, asked) for asked in ("ensemble.v1.NoSuchService", other)] == [RPC_FAILED, RPC_FAILED]


@pytest.mark.parametrize("name", SERVICES)
async def test_a_service_that_drains_is_unhealthy_by_both_names(services: Stack, name: str) -> None:
    """From the moment it is told to stop, and for as long as it still takes calls."""
    server = getattr(services.running, name)
    server.health.drain()
    assert [await _probe(server.address, asked) for asked in ("", FULL_NAMES[name])] == [NOT_SERVING, NOT_SERVING]


async def test_nobody_listening_is_told_apart_from_an_unhealthy_service(address_of_nobody: str) -> None:
    """A code of its own, and so has a probe that was called wrongly."""
    assert await _probe(address_of_nobody, "", "-connect-timeout", "500ms") == CANNOT_CONNECT
    assert (await run_tool("grpc_health_probe", "-service", "x")).code == WRONG_ARGUMENTS


async def test_a_gateway_without_its_orchestrator_lives_but_is_not_ready(provider: FakeProvider, address_of_nobody: str) -> None:
    """So that it is kept from calls, and not restarted: that would help nobody."""
    configuration = configured(provider, gateway={"orchestrator": address_of_nobody, "limiter": address_of_nobody})
    async with gateway(configuration, listen="127.0.0.1:0") as server:
        assert [await _probe(server.address, asked) for asked in ("", FULL_NAMES["gateway"])] == [SERVING, NOT_SERVING]


async def test_a_probe_fails_all_through_the_drain_of_a_gateway_that_is_busy(provider: FakeProvider) -> None:
    """While the last run goes on: first by what the health says, then because no connection is taken any more; the run is answered all the same."""
    gate = asyncio.Event()
    for name in MEMBERS:
        provider.script(name, Answer(gate=gate))
    async with AsyncExitStack() as ending:
        services = await ending.enter_async_context(running(configured(provider, gateway={"grace": "60s"}), port_base=0, embedded_model=False))
        address = services.gateway.address
        async with grpc.aio.insecure_channel(address) as channel:
            stub: Any = gateway_service_pb2_grpc.GatewayServiceStub(channel)
            asking = stub.Generate(gateway_service_pb2.GenerateRequest(prompt="q"), timeout=60)
            await asyncio.gather(*(provider.started(name) for name in MEMBERS))
            health: Any = health_pb2_grpc.HealthStub(channel)
            watch = health.Watch(health_pb2.HealthCheckRequest(service=""), timeout=60)
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
            stopping = asyncio.create_task(ending.aclose())
            try:
                assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
                async with asyncio.timeout(30):
                    while (code := await _probe(address, "", "-connect-timeout", "500ms", "-rpc-timeout", "10s")) != CANNOT_CONNECT:
                        # Between the two a call may still come in and not be taken any more.
                        assert code in {NOT_SERVING, RPC_FAILED}
                assert not asking.done()
                gate.set()
                assert (await asking).answer == f"an answer from {WRITER}"
            finally:
                gate.set()
                asking.cancel()
                await stopping
