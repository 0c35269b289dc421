"""The gateway as a person at a terminal meets it: the real grpcurl, which knows the services by reflection alone."""

import json
from typing import Any

import pytest

from scripts.tools import ROOT
from services.cli.addresses import SERVICES
from tests.support.fake_provider import FakeProvider
from tests.support.stack import MEMBERS, WRITER, Stack, stack
from tests.support.tools import Ended, run_tool

GATEWAY = "ensemble.v1.GatewayService"
BAD_ARGUMENT_STATUS = 64 + 3
"""grpcurl ends with 64 and the status's number; INVALID_ARGUMENT is 3."""


async def _grpcurl(address: str, *arguments: str, options: tuple[str, ...] = ()) -> Ended:
    return await run_tool("grpcurl", "-plaintext", "-connect-timeout", "10", "-max-time", "20", *options, address, *arguments)


async def _called(services: Stack, method: str, request: object) -> list[dict[str, Any]]:
    """Call a method of the gateway; return the messages that came."""
    ended = await _grpcurl(services.running.gateway.address, f"{GATEWAY}/{method}", options=("-d", json.dumps(request)))
    assert (ended.code, ended.errors) == (0, "")
    decoder, rest, messages = json.JSONDecoder(), ended.output.strip(), []
    while rest:
        message, end = decoder.raw_decode(rest)
        messages.append(message)
        rest = rest[end:].strip()
    return messages


@pytest.mark.parametrize("name", SERVICES)
async def test_each_service_tells_what_it_offers(services: Stack, name: str) -> None:
    """Its own service, health and reflection; and each method and message can be described."""
    address, own = services.running.addresses()[name], f"ensemble.v1.{name.capitalize()}Service"
    listed = await _grpcurl(address, "list")
    assert listed.code == 0, listed.errors
    assert {own, "grpc.health.v1.Health"} <= set(listed.output.split())
    methods = (await _grpcurl(address, "list", own)).output.split()
    assert methods
    described = (await _grpcurl(address, "describe", own)).output
    assert all(f"rpc {method.rpartition('.')[2]} (" in described for method in methods)


async def test_messages_are_described_with_those_that_they_import(services: Stack) -> None:
    """Also types of other files, down to Google's own."""
    address = services.running.gateway.address
    for message, field in (("GenerateRequest", "string prompt = 3"), ("StrategyOptions", "google.protobuf.Duration"), ("Receipt", "message Receipt")):
        described = await _grpcurl(address, "describe", f"ensemble.v1.{message}")
        assert described.code == 0, described.errors
        assert field in described.output


async def test_every_public_method_can_be_called(services: Stack) -> None:
    """All that the gateway lists answers to JSON; the fields bear their names of the proto files."""
    (answered,) = await _called(services, "Generate", {"prompt": "What is it?", "include_candidates": True, "options": {"quorum": 3}})
    assert answered["answer"] == f"an answer from {WRITER}"
    assert {candidate["text"] for candidate in answered["candidates"]} == {f"an answer from {name}" for name in MEMBERS}

    streamed = await _called(services, "StreamGenerate", {"generate": {"prompt": "What is it?"}})
    events = [next(iter(message)) for message in streamed]
    assert (events[0], events[-1]) == ("run_started", "run_finished")
    assert streamed[-1]["run_finished"]["answer"] == f"an answer from {WRITER}"

    (profiles,) = await _called(services, "ListProfiles", {})
    assert {"default", "chain"} <= {profile["name"] for profile in profiles["profiles"]}

    (models,) = await _called(services, "ListModels", {})
    assert {model["name"] for model in models["models"]} == {*MEMBERS, WRITER}

    methods = (await _grpcurl(services.running.gateway.address, "list", GATEWAY)).output.split()
    assert {method.rpartition(".")[2] for method in methods} == {"Generate", "StreamGenerate", "ListProfiles", "ListModels"}


async def test_a_refusal_is_shown_with_its_details(services: Stack) -> None:
    """The status, the field and the reason: grpcurl reads the details by reflection too."""
    ended = await _grpcurl(services.running.gateway.address, f"{GATEWAY}/Generate", options=("-d", "{}"))
    assert ended.code == BAD_ARGUMENT_STATUS
    assert "Code: InvalidArgument" in ended.errors
    assert '"field": "prompt"' in ended.errors
    assert '"domain": "ensemble"' in ended.errors


async def test_without_reflection_the_tool_says_so_and_the_proto_files_still_do(provider: FakeProvider) -> None:
    """A gateway that keeps its services to itself refuses to list them, and answers who has the protos."""
    async with stack(provider, gateway={"reflection": False}) as services:
        address = services.running.gateway.address
        for arguments in (("list",), ("describe", GATEWAY), (f"{GATEWAY}/ListProfiles",)):
            refused = await _grpcurl(address, *arguments)
            assert (refused.code, refused.output) == (1, "")
            assert "does not support the reflection API" in refused.errors
        protos = ("-import-path", str(ROOT / "protos"), "-proto", "ensemble/v1/gateway_service.proto", "-d", '{"prompt": "What is it?"}')
        answered = await _grpcurl(address, f"{GATEWAY}/Generate", options=protos)
        assert (answered.code, json.loads(answered.output)["answer"]) == (0, f"an answer from {WRITER}")
