"""Who is let in, over real RPCs, and what is written of those who are not."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from io import StringIO
from typing import Any, TypeAlias

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from ensemble.v1 import gateway_service_pb2, gateway_service_pb2_grpc
from services.chassis.api_keys import sha256_of
from services.chassis.logs import JsonFormatter
from services.gateway.app import SERVICE, application
from services.gateway.caller import Caller
from services.gateway.callers import Credentials, Directory
from tests.support.fake_orchestrator import FakeOrchestrator, FakeServer
from tests.support.otlp_receiver import otlp_receiver
from tests.support.rich_errors import rich
from tests.support.tenants import Certificates, Metadata, bearer, configured, dns, email, entry_of, ip, key_of, uri, who, who_server

Stub: TypeAlias = "gateway_service_pb2_grpc.GatewayServiceAsyncStub"
Generate = gateway_service_pb2.GenerateRequest
TENANTS = {"team-a": {"keys": [entry_of("alice")]}, "team-b": {"keys": [entry_of("bob")]}}
GOOD = bearer("alice")
BAD: dict[str, Metadata] = {
    "no key": (),
    "a bad key": bearer("nobody"),
    "another scheme": (("authorization", f"Digest {key_of('alice')}"),),
    "a bare key": (("authorization", key_of("alice")),),
    "two values": GOOD + GOOD,
    "two keys": GOOD + bearer("bob"),
    "a binary value": (("authorization-bin", f"Bearer {key_of('alice')}".encode()),),
    "another name": (("x-api-key", key_of("alice")), ("proxy-authorization", f"Bearer {key_of('alice')}")),
}


@asynccontextmanager
async def gateway(fakes: FakeServer, tenants: Any = TENANTS, **settings: Any) -> AsyncIterator[tuple[Stub, grpc.aio.Channel]]:
    """Run a gateway with these tenants; yield a stub before it and its channel."""
    async with application(configured(fakes.address, tenants, **settings)) as server, grpc.aio.insecure_channel(server.address) as channel:
        yield gateway_service_pb2_grpc.GatewayServiceStub(channel), channel


async def refused(call: Any) -> grpc.aio.AioRpcError:
    """Return the error of a call, which must be that of a caller who is not known."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    assert raised.value.code() is grpc.StatusCode.UNAUTHENTICATED
    (info,) = rich(raised.value).details
    found = error_details_pb2.ErrorInfo()
    assert info.Unpack(found)
    assert (found.reason, found.domain, dict(found.metadata)) == ("UNAUTHENTICATED", "ensemble", {})
    return raised.value


@pytest.mark.parametrize("metadata", BAD.values(), ids=BAD)
async def test_nobody_gets_past_the_door_with_anything_but_one_key(fakes: FakeServer, orchestrator: FakeOrchestrator, metadata: Metadata) -> None:
    """Whatever is called, with details, before anything runs; what was sent is not said again."""
    async with gateway(fakes) as (stub, _):
        calls = [
            stub.Generate(Generate(prompt="a"), metadata=metadata),
            stub.StreamGenerate(gateway_service_pb2.StreamGenerateRequest(generate=Generate(prompt="a")), metadata=metadata).read(),
            stub.ListProfiles(gateway_service_pb2.ListProfilesRequest(), metadata=metadata),
            stub.ListModels(gateway_service_pb2.ListModelsRequest(), metadata=metadata),
        ]
        for call in calls:
            assert key_of("alice") not in repr(await refused(call))
    assert orchestrator.requests == []


@pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
async def test_a_key_calls_for_its_tenant(fakes: FakeServer, orchestrator: FakeOrchestrator, scheme: str) -> None:
    """The run is the tenant's, whichever of the two calls it is."""
    async with gateway(fakes) as (stub, _):
        for holder in ("alice", "bob"):
            metadata = (("authorization", f"{scheme} {key_of(holder)}"),)
            assert (await stub.Generate(Generate(prompt="a"), metadata=metadata)).answer == "42"
            async for _event in stub.StreamGenerate(gateway_service_pb2.StreamGenerateRequest(generate=Generate(prompt="a")), metadata=metadata):
                pass
    assert [request.tenant for request in orchestrator.requests] == ["team-a", "team-a", "team-b", "team-b"]


async def test_other_metadata_do_not_count(fakes: FakeServer, orchestrator: FakeOrchestrator) -> None:
    """A binary value beside the key is none of its kind, and neither is any other name."""
    async with gateway(fakes) as (stub, _):
        await stub.Generate(Generate(prompt="a"), metadata=(*GOOD, *BAD["a binary value"], *BAD["another name"]))
    assert [request.tenant for request in orchestrator.requests] == ["team-a"]


async def test_calls_at_once_do_not_mix_up_their_tenants(fakes: FakeServer, orchestrator: FakeOrchestrator) -> None:
    """Each is its own caller's, however they are interleaved."""
    async with gateway(fakes) as (stub, _):
        holders = ["alice", "bob"] * 25
        await asyncio.gather(
            *(stub.Generate(Generate(prompt=holder, request_id=f"{holder}-{number}"), metadata=bearer(holder)) for number, holder in enumerate(holders))
        )
    tenants = {"alice": "team-a", "bob": "team-b"}
    assert len(orchestrator.requests) == len(holders)
    assert all(request.tenant == tenants[request.run_id.partition("-")[0]] for request in orchestrator.requests)


@pytest.mark.parametrize("tenants", [{}, {"team-a": {"concurrency": 5}}])
async def test_where_no_tenant_has_a_key_nobody_is_asked(fakes: FakeServer, orchestrator: FakeOrchestrator, tenants: Any) -> None:
    """Any authorization is passed over."""
    async with gateway(fakes, tenants) as (stub, _):
        for metadata in ((), *BAD.values()):
            assert (await stub.Generate(Generate(prompt="a"), metadata=metadata)).answer == "42"
    assert {request.tenant for request in orchestrator.requests} == {""}


@pytest.mark.parametrize("tenants", [{"team-a": {"keys": []}}, {"team-a": {"sans": []}}, {"team-a": {"sans": ["a.example"]}}])
async def test_a_tenant_that_lists_no_key_lets_nobody_in(fakes: FakeServer, tenants: Any) -> None:
    """An empty list is not the same as none."""
    async with gateway(fakes, tenants) as (stub, _):
        await refused(stub.Generate(Generate(prompt="a")))
        await refused(stub.Generate(Generate(prompt="a"), metadata=GOOD))


async def test_idle_restrictions_are_told_at_the_start(fakes: FakeServer, caplog: pytest.LogCaptureFixture) -> None:
    """A tenant whose profiles are listed restricts nobody where nobody is asked."""
    async with gateway(fakes, {"team-a": {"profiles": ["alone"]}, "team-b": {}}):
        pass
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING" and "restrict nobody" in record.getMessage()] == [
        "nobody is asked who he is, because no tenant has keys or sans, so the profiles and models of team-a restrict nobody"
    ]


NOT_UTF8 = b"\x1a\x02\xff\xfe"


async def test_who_is_not_known_is_not_told_what_is_wrong_with_his_request(fakes: FakeServer) -> None:
    """Authentication comes before the request is looked at, be it undecodable or invalid; who is known is told."""
    async with gateway(fakes) as (stub, channel):
        # The stubs type a method by its messages, which bytes are none of.
        untyped: Any = channel
        raw = untyped.unary_unary(f"/{SERVICE}/Generate")
        await refused(raw(NOT_UTF8))
        await refused(untyped.unary_stream(f"/{SERVICE}/StreamGenerate")(NOT_UTF8).read())
        await refused(stub.Generate(Generate()))
        for data in (NOT_UTF8, b""):
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await raw(data, metadata=GOOD)
            assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("reflects", [True, False])
async def test_health_and_reflection_ask_for_no_key(fakes: FakeServer, reflects: bool) -> None:
    """They are gRPC's own; reflection that is switched off is not there at all, with a key or without."""
    async with gateway(fakes, reflection=reflects) as (_, channel):
        health = health_pb2_grpc.HealthStub(channel)
        assert (await health.Check(health_pb2.HealthCheckRequest())).status == health_pb2.HealthCheckResponse.SERVING
        async with asyncio.timeout(30):
            async for reply in health.Watch(health_pb2.HealthCheckRequest(service=SERVICE)):
                if reply.status == health_pb2.HealthCheckResponse.SERVING:
                    break
        for metadata in ((), GOOD):
            question = reflection_pb2.ServerReflectionRequest(list_services="")
            stub = reflection_pb2_grpc.ServerReflectionStub(channel)
            call = stub.ServerReflectionInfo(iter([question]), metadata=metadata)
            if reflects:
                assert SERVICE in {one.name for one in (await call.read()).list_services_response.service}
                call.cancel()
            else:
                with pytest.raises(grpc.aio.AioRpcError) as raised:
                    await call.read()
                assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_logs_and_spans_name_the_tenant_and_nothing_of_the_key(fakes: FakeServer) -> None:
    """Those of calls that were let in; those of the others tell no more than that they were refused. Metrics know no tenant."""
    written = StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        async with otlp_receiver() as receiver:
            configuration = configured(fakes.address, TENANTS)
            telemetry = configuration.telemetry.model_copy(update={"endpoint": receiver.endpoint})
            async with application(configuration.model_copy(update={"telemetry": telemetry})) as server, grpc.aio.insecure_channel(server.address) as channel:
                stub: Stub = gateway_service_pb2_grpc.GatewayServiceStub(channel)
                await stub.Generate(Generate(prompt="a"), metadata=GOOD)
                for metadata in BAD.values():
                    await refused(stub.Generate(Generate(prompt="a"), metadata=metadata))
            calls = [span for span in receiver.spans if span.kind == "SERVER"]
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
    assert [(span.attributes["rpc.response.status_code"], span.attributes.get("ensemble.tenant")) for span in calls] == [
        ("OK", "team-a"),
        *[("UNAUTHENTICATED", None)] * len(BAD),
    ]
    lines = [line for line in map(json.loads, written.getvalue().splitlines()) if line.get("rpc") == f"{SERVICE}/Generate"]
    assert [(line["code"], line.get("tenant")) for line in lines] == [("OK", "team-a"), *[("UNAUTHENTICATED", None)] * len(BAD)]
    assert receiver.histograms
    assert not any("ensemble.tenant" in point.attributes for point in receiver.histograms)
    everything = written.getvalue() + repr(receiver.spans) + repr(receiver.histograms)
    for secret in (key_of("alice"), key_of("nobody"), sha256_of(key_of("alice")), "Bearer", "authorization"):
        assert secret not in everything


A, B = Caller(tenant="team-a"), Caller(tenant="team-b")
NAMES = ("a.example", "spiffe://example/ns/a", "a@example.org", "10.0.0.7", "2001:db8::7")
DIRECTORY = Directory(
    [
        Credentials(caller=A, names=NAMES, digests=(bytes.fromhex(sha256_of(key_of("alice"))),)),
        Credentials(caller=B, names=("b.example",), digests=(bytes.fromhex(sha256_of(key_of("bob"))),)),
    ],
    secret=bytes(32),
)


async def test_each_kind_of_name_in_a_certificate_is_its_tenants() -> None:
    """DNS names, URIs, e-mail and IP addresses; names of nobody do not count beside them, and a key that is shown does in place of them."""
    ours = Certificates()
    async with who_server(DIRECTORY, ours.server(clients_of=ours)) as port:
        for name in (dns("a.example"), uri("spiffe://example/ns/a"), email("a@example.org"), ip("10.0.0.7"), ip("2001:db8::7")):
            assert await who(port, ours.client(name)) == "team-a"
        assert await who(port, ours.client(dns("other.example"), dns("b.example"))) == "team-b"
        assert await who(port, ours.client(dns("a.example")), bearer("bob")) == "team-b"
        assert await who(port, ours.client(), bearer("bob")) == "team-b"


async def test_certificates_of_nobody_and_of_two_are_refused() -> None:
    """The common name counts for nothing, and a good certificate does not make up for a bad key."""
    ours = Certificates()
    async with who_server(DIRECTORY, ours.server(clients_of=ours)) as port:
        for names in ((), (dns("other.example"),), (dns("a.example"), dns("b.example")), (dns("b.example"), uri("spiffe://example/ns/a"))):
            assert "authorization: Bearer KEY" in str((await refused(who(port, ours.client(*names)))).details())
        for metadata in (bearer("nobody"), bearer("alice") + bearer("alice"), (("authorization", "Basic x"),)):
            await refused(who(port, ours.client(dns("a.example")), metadata))


async def test_only_verified_certificates_count() -> None:
    """One of another authority, or none, does not even connect; a server that asks for none sees none, whatever the client has."""
    ours, others = Certificates(), Certificates()
    async with who_server(DIRECTORY, ours.server(clients_of=ours)) as port:
        for credentials in (others.client(dns("a.example"), server=ours), ours.stranger()):
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await who(port, credentials, bearer("alice"))
            assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
    async with who_server(DIRECTORY, ours.server(clients_of=None)) as port:
        await refused(who(port, ours.client(dns("a.example"))))
        assert await who(port, ours.client(dns("a.example")), bearer("alice")) == "team-a"
    async with who_server(DIRECTORY) as port:
        await refused(who(port, None))
        assert await who(port, None, bearer("bob")) == "team-b"
