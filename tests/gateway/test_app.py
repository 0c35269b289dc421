"""The gateway as a process: its readiness, its drain, its carriers."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from ensemble.v1 import gateway_service_pb2
from services.chassis.configuration import load_configuration
from services.chassis.server import RunningServer
from services.gateway.app import SERVICE, application
from tests.support.certificates import HERE, Authority, CertificateFolder
from tests.support.fake_orchestrator import FakeOrchestrator, FakeServer
from tests.support.gateways import calling, configured

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@asynccontextmanager
async def watching(server: RunningServer) -> AsyncIterator["Watch"]:
    """Watch a gateway's readiness."""
    async with grpc.aio.insecure_channel(server.address) as channel:
        call = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=SERVICE))
        try:
            yield Watch(call)
        finally:
            call.cancel()


class Watch:
    """A health stream."""

    def __init__(self, call: grpc.aio.UnaryStreamCall[health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse]) -> None:
        self._call = call

    async def until(self, status: int) -> None:
        """Wait until the gateway says so."""
        async with asyncio.timeout(30):
            async for reply in self._call:
                if reply.status == status:
                    return
        pytest.fail("the health stream ended")


async def test_readiness_follows_the_orchestrator(fakes: FakeServer) -> None:
    """The gateway is ready while an orchestrator can be reached, is not when it is gone, and is again when it is back; calls follow."""
    async with application(configured(fakes.address)) as server, watching(server) as watch, calling(server) as stub:
        await watch.until(SERVING)
        await fakes.stop()
        await watch.until(NOT_SERVING)
        await fakes.start()
        await watch.until(SERVING)
        assert (await stub.Generate(gateway_service_pb2.GenerateRequest(prompt="a"))).answer == "42"


async def test_a_gateway_without_an_orchestrator_starts_and_is_alive(fakes: FakeServer) -> None:
    """It serves what it can: it says that it is alive and not ready, and lists its profiles."""
    await fakes.stop()
    async with application(configured(fakes.address)) as server, calling(server) as stub, grpc.aio.insecure_channel(server.address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        assert (await health.Check(health_pb2.HealthCheckRequest())).status == SERVING
        assert (await health.Check(health_pb2.HealthCheckRequest(service=SERVICE))).status == NOT_SERVING
        assert (await stub.ListProfiles(gateway_service_pb2.ListProfilesRequest())).profiles


async def test_a_gateway_is_not_ready_before_it_has_reached_the_orchestrator() -> None:
    """While the other end has accepted the connection and says nothing, the gateway does not claim to be ready."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host, port = silent.getsockname()
        async with application(configured(f"{host}:{port}")) as server, grpc.aio.insecure_channel(server.address) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            assert (await health.Check(health_pb2.HealthCheckRequest(service=SERVICE))).status == NOT_SERVING


async def test_a_run_under_way_outlives_the_drain(fakes: FakeServer, orchestrator: FakeOrchestrator) -> None:
    """Leaving the application lets a call that is under way finish, by its channel staying open until the server has drained."""
    orchestrator.hanging = True
    async with asyncio.timeout(30), AsyncExitStack() as running:
        server = await running.enter_async_context(application(configured(fakes.address, grace="5s")))
        async with calling(server) as stub, watching(server) as watch:
            await watch.until(SERVING)
            call = stub.Generate(gateway_service_pb2.GenerateRequest(prompt="a"))
            await orchestrator.arrived.wait()
            leaving = asyncio.create_task(running.aclose())
            await watch.until(NOT_SERVING)
            orchestrator.finish.set()
            assert (await call).answer == "42"
            await leaving


async def test_run_ids_come_from_the_source_that_was_given(fakes: FakeServer, orchestrator: FakeOrchestrator) -> None:
    """Where the caller gives no id, the injected source makes it."""
    async with application(configured(fakes.address), new_id=lambda: "made") as server, calling(server) as stub:
        await stub.Generate(gateway_service_pb2.GenerateRequest(prompt="a"))
    assert [run.run_id for run in orchestrator.requests] == ["made"]


async def test_the_process_serves_until_it_is_told_to_stop(tmp_path: Path) -> None:
    """`python -m services.gateway` listens, and ends in peace at SIGTERM."""
    root = Path(__file__).parents[2]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services.gateway", "--listen", "127.0.0.1:0"),
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(root), str(root / "protos")])},
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    try:
        async with asyncio.timeout(60):
            while b"listens on" not in await process.stderr.readline():
                assert not process.stderr.at_eof()
            process.send_signal(signal.SIGTERM)
            await process.stderr.read()
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.mark.parametrize(
    ("same", "named", "said"), [(True, [], True), (True, ["gateway.internal"], False), (False, [], False)], ids=["one authority", "named", "two authorities"]
)
async def test_an_authority_of_callers_that_is_the_services_own_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, same: bool, named: list[str], said: bool
) -> None:
    """With it, and nobody named, a caller's certificate is good for the services within; also where the file has the certificate among others."""
    within, other = Authority(), Authority()
    services = CertificateFolder.with_pair(tmp_path / "within", within.issue(*HERE), within.pem)
    believed = other.pem + (within.pem.replace(b"\n", b"\r\n") if same else b"")
    shown = CertificateFolder.with_pair(tmp_path / "shown", other.issue(*HERE), believed)
    gateway = shown.section | {"client_ca": shown.section["ca"]}
    del gateway["ca"]
    overrides = {"tls": services.section | {"callers": named}, "gateway": {"listen": "127.0.0.1:0", "tls": gateway}}
    async with application(load_configuration(environ={}, folder=tmp_path, overrides=overrides)):
        pass
    assert ("share an authority" in caplog.text) is said
