"""A gateway that demands client certificates: the names in them say which tenant calls, and a key says it before them."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import TypeAlias

import grpc
import pytest

from ensemble.v1 import gateway_service_pb2, gateway_service_pb2_grpc
from services.chassis.server import RunningServer
from services.gateway.app import application
from tests.support.certificates import HERE, Authority, CertificateFolder, Pair
from tests.support.fake_orchestrator import FakeLimiter, FakeOrchestrator, serve_fakes
from tests.support.tenants import Metadata, bearer, configured, entry_of

Stub: TypeAlias = "gateway_service_pb2_grpc.GatewayServiceAsyncStub"
PERSON, ROBOT, BOTH, NOBODY = ("person.example",), ("spiffe://example/robot",), ("person.example", "spiffe://example/robot"), ("stranger.example",)
TENANTS = {
    "people": {"sans": ["person.example"], "profiles": ["default"]},
    "robots": {"sans": ["spiffe://example/robot"], "keys": [entry_of("robot")], "profiles": ["alone"]},
}


@pytest.fixture
def authority() -> Authority:
    """Signs the gateway's certificate and those of its callers."""
    return Authority()


@pytest.fixture
async def gateway(tmp_path: Path, authority: Authority) -> AsyncIterator[tuple[RunningServer, FakeOrchestrator]]:
    """Run a gateway over TLS before an orchestrator that answers."""
    shown = CertificateFolder.with_pair(tmp_path / "shown", authority.issue(*HERE), authority.pem)
    section = {"certificate": shown.section["certificate"], "key": shown.section["key"], "client_ca": shown.section["ca"]}
    orchestrator = FakeOrchestrator()
    async with (
        serve_fakes(orchestrator, FakeLimiter()) as fakes,  # type: ignore[abstract]  # The RPCs it lacks answer UNIMPLEMENTED.
        application(configured(fakes.address, TENANTS, tls=section)) as server,
    ):
        yield server, orchestrator


async def _asked(server: RunningServer, authority: Authority, pair: Pair | None, profile: str, metadata: Metadata = ()) -> str:
    """Ask over a connection with this certificate; return the status."""
    credentials = grpc.ssl_channel_credentials(authority.pem, *((pair.key, pair.certificate) if pair is not None else ()))
    async with grpc.aio.secure_channel(server.address, credentials) as channel:
        stub: Stub = gateway_service_pb2_grpc.GatewayServiceStub(channel)
        try:
            await stub.Generate(gateway_service_pb2.GenerateRequest(prompt="q", profile=profile), metadata=metadata, timeout=10)
        except grpc.aio.AioRpcError as error:
            return error.code().name
    return "OK"


@pytest.mark.parametrize(
    ("names", "holder", "profile", "status", "tenant"),
    [
        (PERSON, None, "default", "OK", "people"),
        (PERSON, None, "alone", "PERMISSION_DENIED", None),
        (ROBOT, None, "alone", "OK", "robots"),
        (ROBOT, None, "default", "PERMISSION_DENIED", None),
        (BOTH, None, "default", "UNAUTHENTICATED", None),
        (NOBODY, None, "default", "UNAUTHENTICATED", None),
        (PERSON, "robot", "alone", "OK", "robots"),
        (PERSON, "somebody", "default", "UNAUTHENTICATED", None),
    ],
)
async def test_names_and_keys_say_who_calls(
    gateway: tuple[RunningServer, FakeOrchestrator],
    authority: Authority,
    names: tuple[str, ...],
    holder: str | None,
    profile: str,
    status: str,
    tenant: str | None,
) -> None:
    """A name stands for its tenant and for no other one, names of two tenants for none; a key stands above them, a bad one too."""
    server, orchestrator = gateway
    assert await _asked(server, authority, authority.issue(*names), profile, () if holder is None else bearer(holder)) == status
    assert [request.tenant for request in orchestrator.requests] == ([tenant] if tenant else [])


async def test_a_certificate_of_nobodys_is_not_let_in(gateway: tuple[RunningServer, FakeOrchestrator], authority: Authority) -> None:
    """Without one, or with the right name signed by somebody else, the connection does not come about, whatever key is sent."""
    server, orchestrator = gateway
    for pair in (None, Authority().issue(*PERSON), authority.issue(*PERSON, expired=True)):
        assert await _asked(server, authority, pair, "alone", bearer("robot")) == "UNAVAILABLE"
    assert orchestrator.requests == []
