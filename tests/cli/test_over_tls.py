"""The command line as a client of services with TLS: as configured, as given, and what it says where that does not come about."""

import asyncio
import json
from pathlib import Path

import pytest
import yaml
from pydantic import SecretStr

from services.chassis.server_tls import ServerTls
from services.cli.connection import Connection
from services.cli.listings import list_profiles
from tests.support.certificates import HERE, Authority, CertificateFolder
from tests.support.command_line import ensemble
from tests.support.fake_provider import FakeProvider
from tests.support.scripted_rpcs import Context, serving, unary
from tests.support.stack import stack

KEY = "sk-Planted-0123456789"
GATEWAY = "ensemble.v1.GatewayService"


@pytest.fixture
def authority() -> Authority:
    """Return who signs the services' certificates."""
    return Authority()


@pytest.fixture
def own(tmp_path: Path, authority: Authority) -> CertificateFolder:
    """Return the certificate of the services."""
    return CertificateFolder.with_pair(tmp_path / "own", authority.issue(*HERE), authority.pem)


async def test_commands_reach_services_as_they_are_configured(own: CertificateFolder, tmp_path: Path) -> None:
    """All four for their health, the gateway for an answer, the limiter for its limits; the file says everything that is needed."""
    async with FakeProvider() as provider, stack(provider, tls=own.section) as services:
        there = services.running.addresses()
        configuration = {
            "tls": own.section,
            "gateway": {"listen": there["gateway"], "orchestrator": there["orchestrator"], "limiter": there["limiter"]},
            "orchestrator": {"refiner": there["refiner"], "limiter": there["limiter"]},
        }
        await asyncio.to_thread((tmp_path / "ensemble.yaml").write_text, yaml.safe_dump(configuration), "utf-8")
        health = await ensemble("health", "--json", folder=tmp_path)
        assert (health.code, json.loads(health.text)["serving"]) == (0, True), health
        asked = await ensemble("ask", "What is it?", folder=tmp_path)
        assert (asked.code, bool(asked.text.strip())) == (0, True), asked
        limits = await ensemble("limits", "--json", folder=tmp_path)
        assert (limits.code, "models" in json.loads(limits.text)) == (0, True), limits


async def test_commands_say_what_is_wrong_with_tls(own: CertificateFolder, tmp_path: Path) -> None:
    """With an address that is given nothing of the configuration counts: plain text, then authorities that do not know the server, then the right ones."""
    tls = ServerTls(files=own.files)
    authorities, stranger = own.folder / "ca.pem", CertificateFolder.with_pair(tmp_path / "stranger", Authority().issue("x"), Authority().pem)

    async def nothing(_: bytes, __: Context) -> bytes:
        return b""

    async with serving(service=GATEWAY, ListProfiles=unary(nothing), how={"tls": tls}) as server:
        plain = await ensemble("profiles", "-g", server.address, folder=tmp_path)
        assert (plain.code, "it may speak TLS (--tls" in plain.err) == (3, True), plain
        unknown = await ensemble("profiles", "-g", server.address, "--ca", str(stranger.folder / "ca.pem"), folder=tmp_path)
        assert (unknown.code, "an authority that is not trusted" in unknown.err) == (3, True), unknown
        known = await ensemble("profiles", "-g", server.address, "--json", folder=tmp_path, environ={"ENSEMBLE_CA": str(authorities)})
        assert (known.code, json.loads(known.text)) == (0, {"profiles": []}), known


async def test_the_api_key_arrives_as_a_bearer_token_and_is_shown_nowhere(capsys: pytest.CaptureFixture[str]) -> None:
    """In the metadata of each call to the gateway."""
    seen: list[dict[str, str | bytes]] = []

    async def told(_: bytes, context: Context) -> bytes:
        seen.append(dict(context.invocation_metadata() or ()))
        return b""

    async with serving(service=GATEWAY, ListProfiles=unary(told)) as server:
        await list_profiles(Connection(address=server.address, api_key=SecretStr(KEY)), as_json=True)
        await list_profiles(Connection(address=server.address), as_json=True)
    assert [call.get("authorization") for call in seen] == [f"Bearer {KEY}", None]
    assert all("traceparent" in call for call in seen)
    assert KEY not in capsys.readouterr().out


async def test_the_key_itself_is_no_option(tmp_path: Path) -> None:
    """Every process of the machine can read arguments; and in plain text the key goes to this machine alone."""
    refused = await ensemble("profiles", "--api-key", KEY, folder=tmp_path)
    assert refused.code == 2
    far = await ensemble("ask", "q", "-g", "192.0.2.1:1", folder=tmp_path, environ={"ENSEMBLE_API_KEY": KEY})
    assert (far.code, "in plain text" in far.err, KEY in far.err) == (2, True, False), far
