"""Bad requests over real RPCs: refused by name, with nothing begun."""

import math
from typing import TypeAlias

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import Struct, Value
from google.rpc import error_details_pb2

from ensemble.v1 import gateway_service_pb2, gateway_service_pb2_grpc, generation_parameters_pb2, member_pb2, message_pb2, strategy_options_pb2
from tests.support.fake_orchestrator import FakeOrchestrator
from tests.support.rich_errors import rich, violations

Request = gateway_service_pb2.GenerateRequest
Stub: TypeAlias = "gateway_service_pb2_grpc.GatewayServiceAsyncStub"
Options = strategy_options_pb2.StrategyOptions
Hedge = strategy_options_pb2.HedgePolicy
Retry = strategy_options_pb2.RetryPolicy
Generation = generation_parameters_pb2.GenerationParameters
Member = member_pb2.Member
USER = message_pb2.ROLE_USER
ASSISTANT = message_pb2.ROLE_ASSISTANT

BAD = {
    "empty": (Request(), "prompt"),
    "too long": (Request(prompt="a" * (2 << 20)), "prompt"),
    "too large": (Request(prompt="a" * (5 << 20)), "request"),
    "prompt and messages": (Request(prompt="a", messages=[message_pb2.Message(role=USER, text="a")]), "prompt"),
    "no role": (Request(messages=[message_pb2.Message(text="a")]), "messages[0].role"),
    "unknown role": (Request(messages=[message_pb2.Message(role=77, text="a")]), "messages[0].role"),  # type: ignore[arg-type]  # that is the point
    "last is not the user": (Request(messages=[message_pb2.Message(role=USER, text="a"), message_pb2.Message(role=ASSISTANT, text="a")]), "messages[1].role"),
    "empty text": (Request(messages=[message_pb2.Message(role=USER)]), "messages[0].text"),
    "very many messages": (Request(messages=[message_pb2.Message(role=USER, text="a")] * 100_000), "messages"),
    "nine members": (Request(prompt="a", members=[Member(model="quick")] * 9), "members"),
    "nine calls": (Request(prompt="a", members=[Member(model="quick", samples=3)] * 3), "members"),
    "temperature 3": (Request(prompt="a", members=[Member(model="quick"), Member(model="quick", temperature=3)]), "members[1].temperature"),
    "NaN": (Request(prompt="a", generation=Generation(temperature=math.nan)), "generation.temperature"),
    "infinity": (Request(prompt="a", members=[Member(model="quick", weight=math.inf)]), "members[0].weight"),
    "weight of 0": (Request(prompt="a", members=[Member(model="quick", weight=0)]), "members[0].weight"),
    "negative samples": (Request(prompt="a", members=[Member(model="quick", samples=-1)]), "members[0].samples"),
    "control character": (Request(prompt="ab\x07"), "prompt"),
    "control character in a persona": (Request(prompt="a", members=[Member(model="quick", persona="\x1b")]), "members[0].persona"),
    "duplicate ids": (Request(prompt="a", members=[Member(id="x", model="quick"), Member(id="x", model="careful")]), "members[1].id"),
    "no model": (Request(prompt="a", members=[Member()]), "members[0].model"),
    "quorum": (Request(prompt="a", options=Options(quorum=4)), "options.quorum"),
    "quorum of 0": (Request(prompt="a", options=Options(quorum=0)), "options.quorum"),
    "five stops": (Request(prompt="a", generation=Generation(stop=["a"] * 5)), "generation.stop"),
    "empty stop": (Request(prompt="a", generation=Generation(stop=["a", ""])), "generation.stop[1]"),
    "negative grace": (Request(prompt="a", options=Options(straggler_grace=Duration(seconds=-1))), "options.straggler_grace"),
    "malformed duration": (Request(prompt="a", options=Options(straggler_grace=Duration(seconds=1, nanos=-1))), "options.straggler_grace"),
    "overflowing nanos": (Request(prompt="a", members=[Member(model="quick", timeout=Duration(nanos=1_000_000_000))]), "members[0].timeout"),
    "no timeout at all": (Request(prompt="a", members=[Member(model="quick", timeout=Duration())]), "members[0].timeout"),
    "refiner": (Request(prompt="a", options=Options(refiner=strategy_options_pb2.RefinerMember(timeout=Duration(seconds=3601)))), "options.refiner.model"),
    "large parameters": (Request(prompt="a", options=Options(parameters=Struct(fields={"a": Value(string_value="a" * 65536)}))), "options.parameters"),
    "NaN parameter": (Request(prompt="a", options=Options(parameters=Struct(fields={"a": Value(number_value=math.nan)}))), "options.parameters"),
    "labels": (Request(prompt="a", labels={"A": ""}), "labels"),
    "many labels": (Request(prompt="a", labels={str(index): "" for index in range(17)}), "labels"),
    "request id": (Request(prompt="a", request_id="ü"), "request_id"),
    "no cost": (Request(prompt="a", max_cost_micro_usd=0), "max_cost_micro_usd"),
    "high cost": (Request(prompt="a", max_cost_micro_usd=10**12 + 1), "max_cost_micro_usd"),
    "hedge delay": (Request(prompt="a", options=Options(hedge=Hedge(delay=Duration()))), "options.hedge.delay"),
    "malformed hedge delay": (Request(prompt="a", options=Options(hedge=Hedge(delay=Duration(seconds=1, nanos=-1)))), "options.hedge.delay"),
    "hedge percentile": (Request(prompt="a", options=Options(hedge=Hedge(percentile=0.0))), "options.hedge.percentile"),
    "hedges": (Request(prompt="a", options=Options(hedge=Hedge(max=-1))), "options.hedge.max"),
    "attempts": (Request(prompt="a", options=Options(retry=Retry(max_attempts=0))), "options.retry.max_attempts"),
    "rate limited": (Request(prompt="a", options=Options(retry=Retry(rate_limited=0))), "options.retry.rate_limited"),
    "failed": (Request(prompt="a", options=Options(retry=Retry(failed=6))), "options.retry.failed"),
    "timed out": (Request(prompt="a", options=Options(retry=Retry(timed_out=0))), "options.retry.timed_out"),
    "no agreement": (Request(prompt="a", options=Options(early_stop_agreement=0.0)), "options.early_stop_agreement"),
    "large schema": (Request(prompt="a", response_schema="{}" + " " * (1 << 20)), "response_schema"),
    "no schema": (Request(prompt="a", response_schema="[]"), "response_schema"),
}


@pytest.mark.parametrize("name", BAD)
async def test_bad_input_is_refused_before_anything_begins(name: str, stub: Stub, orchestrator: FakeOrchestrator) -> None:
    """Each is INVALID_ARGUMENT that names the field, in a stream with its prefix, and the orchestrator hears nothing."""
    request, field = BAD[name]
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await stub.Generate(request)
    assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert violations(refusal.value)[0][0] == field

    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await stub.StreamGenerate(gateway_service_pb2.StreamGenerateRequest(generate=request)).read()
    assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    # The request as a whole has one name in both.
    assert violations(refusal.value)[0][0] == (field if field == "request" else f"generate.{field}")
    assert orchestrator.requests == []


async def test_many_violations_still_arrive(stub: Stub) -> None:
    """Of a request with hundreds of bad fields up to 32 are told, and the status survives its way."""
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await stub.Generate(Request(messages=[message_pb2.Message(text="\0")] * 256))
    assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert 0 < len(violations(refusal.value)) <= 32


@pytest.mark.parametrize(
    ("request_", "kind", "name"),
    [
        (Request(prompt="a", profile="nope"), "profile", "nope"),
        (Request(prompt="a", members=[Member(model="quick"), Member(model="gone")]), "model", "gone"),
        (Request(prompt="a", options=Options(refiner=strategy_options_pb2.RefinerMember(model="gone"))), "model", "gone"),
    ],
)
async def test_what_does_not_exist_is_named(request_: Request, kind: str, name: str, stub: Stub, orchestrator: FakeOrchestrator) -> None:
    """An unknown profile or model is NOT_FOUND with its name as a resource."""
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await stub.Generate(request_)
    assert refusal.value.code() is grpc.StatusCode.NOT_FOUND
    resource = error_details_pb2.ResourceInfo()
    for detail in rich(refusal.value).details:
        detail.Unpack(resource)
    assert (resource.resource_type, resource.resource_name) == (kind, name)
    assert orchestrator.requests == []
