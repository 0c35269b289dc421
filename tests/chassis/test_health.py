"""Health over a real connection: the process, the service, its components, and the drain."""

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from hypothesis import given
from hypothesis import strategies as st

from services.chassis.health import ComponentHealth, HealthServicer

SERVICE = "ensemble.v1.GatewayService"
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


@pytest.fixture
def health() -> ComponentHealth:
    """A service that has said nothing yet."""
    return ComponentHealth(SERVICE)


@pytest.fixture
async def stub(health: ComponentHealth) -> AsyncIterator[health_pb2_grpc.HealthStub]:
    """A probe of it."""
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    health_pb2_grpc.add_HealthServicer_to_server(HealthServicer(health), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield health_pb2_grpc.HealthStub(channel)
    await server.stop(None)


async def check(stub: health_pb2_grpc.HealthStub, service: str) -> int:
    """Return a name's status."""
    reply = await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=5)
    return int(reply.status)


async def test_a_service_is_ready_once_its_components_are(health: ComponentHealth, stub: health_pb2_grpc.HealthStub) -> None:
    """The process is alive from the start; the service while there are components and all are ready."""
    assert (await check(stub, ""), await check(stub, SERVICE)) == (SERVING, NOT_SERVING)
    health.set("server", True)
    assert await check(stub, SERVICE) == SERVING
    health.set("orchestrator", False)
    assert await check(stub, SERVICE) == NOT_SERVING
    health.set("server", True)
    assert await check(stub, SERVICE) == NOT_SERVING
    health.set("orchestrator", True)
    assert (await check(stub, ""), await check(stub, SERVICE)) == (SERVING, SERVING)
    assert health.components == {"server": True, "orchestrator": True}


@given(said=st.lists(st.tuples(st.sampled_from("abc"), st.booleans())))
async def test_readiness_is_the_conjunction_of_the_last_words(said: list[tuple[str, bool]]) -> None:
    """Whatever is said in whatever order: the last word of each component counts."""
    health = ComponentHealth(SERVICE)
    for component, ready in said:
        health.set(component, ready)
    expected = bool(said) and all(dict(said).values())
    assert health.statuses() == {"": SERVING, SERVICE: SERVING if expected else NOT_SERVING}
    health.drain()
    assert health.statuses() == {"": NOT_SERVING, SERVICE: NOT_SERVING}


async def test_a_name_that_is_not_known_is_not_found(stub: health_pb2_grpc.HealthStub) -> None:
    """As the protocol of health checks demands."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await check(stub, "ensemble.v1.Nothing")
    assert raised.value.code() is grpc.StatusCode.NOT_FOUND


async def test_all_names_can_be_listed(health: ComponentHealth, stub: health_pb2_grpc.HealthStub) -> None:
    """The process and the service."""
    health.set("server", True)
    reply = await stub.List(health_pb2.HealthListRequest(), timeout=5)
    assert {name: status.status for name, status in reply.statuses.items()} == {"": SERVING, SERVICE: SERVING}


async def test_a_watcher_sees_the_status_now_and_each_change(health: ComponentHealth, stub: health_pb2_grpc.HealthStub) -> None:
    """Changes that change nothing are not told."""
    watch = stub.Watch(health_pb2.HealthCheckRequest(service=SERVICE), timeout=20)
    assert (await watch.read()).status == NOT_SERVING
    health.set("server", True)
    assert (await watch.read()).status == SERVING
    health.set("limiter", True)
    health.set("limiter", False)
    assert (await watch.read()).status == NOT_SERVING
    watch.cancel()


async def test_a_watcher_of_an_unknown_name_is_told_so(health: ComponentHealth, stub: health_pb2_grpc.HealthStub) -> None:
    """The stream stays, as the protocol demands, and ends with the drain like any other."""
    watch = stub.Watch(health_pb2.HealthCheckRequest(service="ensemble.v1.Nothing"), timeout=20)
    assert (await watch.read()).status == SERVICE_UNKNOWN
    health.drain()
    assert await watch.read() is grpc.aio.EOF


async def test_the_drain_is_told_and_ends_every_watch(health: ComponentHealth, stub: health_pb2_grpc.HealthStub) -> None:
    """NOT_SERVING for the process and for the service, then the end; it is for good."""
    health.set("server", True)
    watches = [stub.Watch(health_pb2.HealthCheckRequest(service=name), timeout=20) for name in ("", SERVICE, SERVICE)]
    assert [(await watch.read()).status for watch in watches] == [SERVING] * 3
    health.drain()
    async with asyncio.timeout(10):
        assert [[reply.status async for reply in _rest(watch)] for watch in watches] == [[NOT_SERVING]] * 3
    health.set("server", True)
    assert (await check(stub, ""), await check(stub, SERVICE)) == (NOT_SERVING, NOT_SERVING)
    late = stub.Watch(health_pb2.HealthCheckRequest(service=SERVICE), timeout=20)
    assert [reply.status async for reply in late] == [NOT_SERVING]


async def _rest(
    watch: "grpc.aio.UnaryStreamCall[health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse]",
) -> AsyncIterator[health_pb2.HealthCheckResponse]:
    while (reply := await watch.read()) is not grpc.aio.EOF:
        yield reply
