"""The four services over mTLS: a run through all of them, certificates that are replaced meanwhile, and what refuses to listen."""

import asyncio
import sys
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from ensemble.v1 import gateway_service_pb2, gateway_service_pb2_grpc
from services.chassis.configuration import ConfigurationError
from services.cli.up import running
from tests.support.certificates import HERE, Authority, CertificateFolder, Pair
from tests.support.command_line import Ended, ended, ensemble
from tests.support.fake_provider import FakeProvider
from tests.support.otlp_receiver import otlp_receiver
from tests.support.stack import configured, stack

RUN = "ensemble.v1.OrchestratorService/Run"
SPIFFE = "spiffe://ensemble.test/gateway"


@pytest.fixture
def authority() -> Authority:
    """Return who signs the services' certificates."""
    return Authority()


@pytest.fixture
def own(tmp_path: Path, authority: Authority) -> CertificateFolder:
    """Return the certificate of the services."""
    return CertificateFolder.with_pair(tmp_path / "own", authority.issue(*HERE, SPIFFE), authority.pem)


async def test_a_run_goes_through_all_four_over_mtls(provider: FakeProvider, own: CertificateFolder, authority: Authority) -> None:
    """Gateway, orchestrator, limiter and refiner, each of which knows who calls; no permit is left behind."""
    async with stack(provider, tls=own.section | {"callers": [SPIFFE]}) as services:
        response = await services.ask()
        assert response.answer
        assert not response.degraded
        assert await services.in_flight() == 0
        for server in (services.running.orchestrator, services.running.limiter, services.running.refiner):
            assert not await let_in(server.address, None, authority.pem)
            assert not await let_in(server.address, Authority().issue(SPIFFE), authority.pem)
            assert await let_in(server.address, authority.issue("probe"), authority.pem)


async def test_spans_know_the_addresses_over_tls_too(provider: FakeProvider, own: CertificateFolder) -> None:
    """One trace over the hops, each of whose ends names where the server is."""
    async with otlp_receiver() as receiver, stack(provider, tls=own.section, telemetry={"endpoint": receiver.endpoint}) as services:
        response = await services.ask()
        there = int(services.running.orchestrator.address.rpartition(":")[2])
        spans = await receiver.wait_for(lambda got: {span.kind for span in got if span.name == RUN} >= {"CLIENT", "SERVER"})
    ends = [span for span in spans if span.name == RUN]
    assert {span.trace_id for span in ends} == {response.trace_id}
    assert [(span.attributes["server.address"], span.attributes["server.port"]) for span in ends] == [("127.0.0.1", there)] * 2


async def test_a_caller_that_is_not_named_gets_nothing_from_the_services_within(
    provider: FakeProvider, own: CertificateFolder, caplog: pytest.LogCaptureFixture
) -> None:
    """Here the gateway's own certificate is not among the callers: that is for the log and for whoever runs it, not for callers of the gateway."""
    async with stack(provider, tls=own.section | {"callers": ["somebody.else"]}) as services:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await services.ask()
    assert raised.value.code() is grpc.StatusCode.INTERNAL
    assert "tls.callers" not in (raised.value.details() or "")
    assert "the orchestrator does not let this service call it" in caplog.text


async def test_callers_of_the_gateway_may_have_to_show_a_certificate(provider: FakeProvider, own: CertificateFolder, tmp_path: Path) -> None:
    """Of an authority of their own; the gateway's certificate is one that the world knows, under another name."""
    world, callers = Authority(), Authority()
    shown = CertificateFolder.with_pair(tmp_path / "shown", world.issue("ensemble.example"), callers.pem)
    section = {"certificate": str(shown.files.certificate), "key": str(shown.files.key), "client_ca": str(shown.files.ca)}
    caller = callers.issue("team-a")
    async with running(configured(provider, tls=own.section, gateway={"tls": section}), port_base=0, embedded_model=False) as started:
        name = [("grpc.ssl_target_name_override", "ensemble.example")]
        request = gateway_service_pb2.GenerateRequest(prompt="q")
        credentials = grpc.ssl_channel_credentials(world.pem, caller.key, caller.certificate)
        async with grpc.aio.secure_channel(started.gateway.address, credentials, options=name) as channel:
            assert (await gateway_service_pb2_grpc.GatewayServiceStub(channel).Generate(request, timeout=20)).answer
        async with grpc.aio.secure_channel(started.gateway.address, grpc.ssl_channel_credentials(world.pem), options=name) as channel:
            with pytest.raises(grpc.aio.AioRpcError):
                await gateway_service_pb2_grpc.GatewayServiceStub(channel).Generate(request, timeout=20)


async def let_in(address: str, pair: Pair | None, ca: bytes) -> bool:
    """Whether a new connection with this certificate, which believes these authorities, is answered."""
    credentials = grpc.ssl_channel_credentials(ca, pair.key, pair.certificate) if pair else grpc.ssl_channel_credentials(ca)
    async with grpc.aio.secure_channel(address, credentials, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        try:
            await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=20)
        except grpc.aio.AioRpcError as error:
            assert error.code() is grpc.StatusCode.UNAVAILABLE
            return False
        return True


async def test_the_authority_of_all_services_is_replaced_without_a_failed_run(provider: FakeProvider, own: CertificateFolder, authority: Authority) -> None:
    """Both are trusted, then everybody shows the new certificate, then the old authority counts no more; runs go on all the while."""
    new = Authority()
    before, after = authority.issue(*HERE), new.issue(*HERE)
    asked = 0
    async with asyncio.timeout(90), stack(provider, tls=own.section) as services:
        gateway, *others = services.running.addresses().values()
        stop = asyncio.Event()

        async def asking() -> None:
            nonlocal asked
            while not stop.is_set():
                assert not (await services.ask()).degraded
                asked += 1

        async def until(pair: Pair, ca: bytes, *, expected: bool, among: list[str]) -> None:
            for address in among:
                while await let_in(address, pair, ca) is not expected:
                    await asyncio.sleep(0.05)

        async with asyncio.TaskGroup() as group:
            for _ in range(3):
                group.create_task(asking())
            own.put(ca=authority.pem + new.pem)
            # The gateway asks for no certificate, so it says nothing about whom it would believe.
            await until(after, authority.pem, expected=True, among=others)
            own.put(after)
            await until(after, new.pem, expected=True, among=[gateway, *others])
            own.put(ca=new.pem)
            await until(before, new.pem, expected=False, among=others)
            at_last = asked
            while asked < at_last + 10:
                await asyncio.sleep(0.01)
            stop.set()
    assert asked > 10


async def service(name: str, path: Path, *more: str) -> asyncio.subprocess.Process:
    """Start a service."""
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", f"services.{name}", "--config", str(path), *more),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


@pytest.fixture
def opened(tmp_path: Path) -> Path:
    """Return a configuration whose services others could reach."""
    path = tmp_path / "open.yaml"
    path.write_text("".join(f"{name}: {{listen: '0.0.0.0:0'}}\n" for name in ("gateway", "orchestrator", "limiter", "refiner")))
    return path


@pytest.mark.parametrize("name", ["gateway", "orchestrator", "limiter", "refiner"])
async def test_a_service_does_not_listen_openly(opened: Path, name: str) -> None:
    """Exit code 2 and what to do: the configuration must change, or somebody must say that it is right."""
    told = await ended(await service(name, opened))
    assert told.code == 2
    assert f"{name}.listen: others can reach 0.0.0.0:0, and there is no TLS and authentication." in told.err
    assert "--insecure" in told.err
    assert "Traceback" not in told.err


async def test_a_service_that_may_listen_openly_says_so_once(opened: Path) -> None:
    """With --insecure it listens, and the log has one warning."""
    process = await service("refiner", opened, "--insecure")
    assert process.stderr is not None
    lines: list[bytes] = []
    try:
        async with asyncio.timeout(60):
            while not lines or b" listens on 0.0.0.0:" not in lines[-1] or b"--insecure" in lines[-1]:
                lines.append(await process.stderr.readline())
                assert lines[-1]
    finally:
        process.terminate()
        rest = (await process.communicate())[1]
    assert sum(b"--insecure" in line for line in (*lines, *rest.splitlines())) == 1


async def test_up_does_not_listen_openly_either(opened: Path, provider: FakeProvider) -> None:
    """Whichever of the four it is; on ports in a row they are on loopback."""
    told: Ended = await ensemble("up", "--config", str(opened))
    assert told.code == 2
    assert "limiter.listen: others can reach" in told.err
    free = {name: {"listen": "127.0.0.1:0"} for name in ("orchestrator", "limiter", "refiner")}
    everywhere = configured(provider, gateway={"listen": "0.0.0.0:0"}, **free)
    with pytest.raises(ConfigurationError, match=r"^gateway\.listen: "):
        async with running(everywhere, embedded_model=False):
            pytest.fail("it listens")
    async with running(everywhere, port_base=0, embedded_model=False) as started:
        assert started.gateway.address.startswith("127.0.0.1:")
