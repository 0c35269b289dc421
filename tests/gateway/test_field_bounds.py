"""Every field of a request has a bound that is enforced: the table below is held against the contract's descriptors, so that none is forgotten."""

import math
from collections.abc import Iterator
from typing import Any, TypeAlias

import grpc
import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import Struct, Value

from ensemble.v1 import gateway_service_pb2, gateway_service_pb2_grpc, generation_parameters_pb2, member_pb2, message_pb2, strategy_options_pb2
from services.chassis.errors import InvalidInput
from services.gateway.planner import Planner
from services.gateway.profiles import profiles_from
from services.gateway.servicer import read_question
from tests.support.fake_orchestrator import FakeOrchestrator
from tests.support.gateways import MODELS, configured
from tests.support.rich_errors import violations

Request = gateway_service_pb2.GenerateRequest
Stub: TypeAlias = "gateway_service_pb2_grpc.GatewayServiceAsyncStub"
MIB = 1 << 20
HOUR = Duration(seconds=3601)
WIDE = 2**31 - 1
USER = message_pb2.ROLE_USER


def _asked(**fields: Any) -> Request:
    return Request(prompt="a", **fields)


def _member(**fields: Any) -> Request:
    return _asked(members=[member_pb2.Member(**{"model": "quick", **fields})])


def _options(**fields: Any) -> Request:
    return _asked(options=strategy_options_pb2.StrategyOptions(**fields))


def _refiner(**fields: Any) -> Request:
    return _options(refiner=strategy_options_pb2.RefinerMember(**{"model": "quick", **fields}))


def _hedge(**fields: Any) -> Request:
    return _options(hedge=strategy_options_pb2.HedgePolicy(**fields))


def _retry(**fields: Any) -> Request:
    return _options(retry=strategy_options_pb2.RetryPolicy(**fields))


def _generation(**fields: Any) -> Request:
    return _asked(generation=generation_parameters_pb2.GenerationParameters(**fields))


def _message(**fields: Any) -> Request:
    return Request(messages=[message_pb2.Message(**{"role": USER, "text": "a", **fields})])


BEYOND: dict[str, tuple[Request, str]] = {
    "request_id": (_asked(request_id="a" * 129), "request_id"),
    "profile": (_asked(profile="a" * 129), "profile"),
    "prompt": (Request(prompt="a" * (MIB + 1)), "prompt"),
    "system": (_asked(system="a" * (MIB + 1)), "system"),
    "messages": (Request(messages=[message_pb2.Message(role=USER, text="a")] * 257), "messages"),
    "messages[].role": (_message(role=77), "messages[0].role"),
    "messages[].text": (_message(text="a" * (MIB + 1)), "messages[0].text"),
    "strategy": (_asked(strategy="a" * 129), "strategy"),
    "options.quorum": (_options(quorum=WIDE), "options.quorum"),
    "options.straggler_grace": (_options(straggler_grace=Duration(seconds=601)), "options.straggler_grace"),
    "options.panel_share": (_options(panel_share=1.001), "options.panel_share"),
    "options.refiner.model": (_refiner(model="a" * 129), "options.refiner.model"),
    "options.refiner.temperature": (_refiner(temperature=2.001), "options.refiner.temperature"),
    "options.refiner.max_output_tokens": (_refiner(max_output_tokens=131_073), "options.refiner.max_output_tokens"),
    "options.refiner.timeout": (_refiner(timeout=HOUR), "options.refiner.timeout"),
    "options.candidate_byte_limit": (_options(candidate_byte_limit=MIB + 1), "options.candidate_byte_limit"),
    "options.parameters": (_options(parameters=Struct(fields={"a": Value(string_value="a" * 65_536)})), "options.parameters"),
    "options.hedge.delay": (_hedge(delay=Duration(seconds=601)), "options.hedge.delay"),
    "options.hedge.percentile": (_hedge(percentile=99.91), "options.hedge.percentile"),
    "options.hedge.max": (_hedge(max=65), "options.hedge.max"),
    "options.retry.max_attempts": (_retry(max_attempts=6), "options.retry.max_attempts"),
    "options.retry.rate_limited": (_retry(rate_limited=6), "options.retry.rate_limited"),
    "options.retry.failed": (_retry(failed=6), "options.retry.failed"),
    "options.retry.timed_out": (_retry(timed_out=6), "options.retry.timed_out"),
    "options.early_stop_agreement": (_options(early_stop_agreement=1.001), "options.early_stop_agreement"),
    "members": (_asked(members=[member_pb2.Member(model="quick")] * 9), "members"),
    "members[].id": (_member(id="a" * 65), "members[0].id"),
    "members[].model": (_member(model="a" * 129), "members[0].model"),
    "members[].samples": (_member(samples=9), "members[0].samples"),
    "members[].weight": (_member(weight=100.1), "members[0].weight"),
    "members[].temperature": (_member(temperature=2.001), "members[0].temperature"),
    "members[].max_output_tokens": (_member(max_output_tokens=131_073), "members[0].max_output_tokens"),
    "members[].timeout": (_member(timeout=HOUR), "members[0].timeout"),
    "members[].persona": (_member(persona="a" * (16 * 1024 + 1)), "members[0].persona"),
    "generation.temperature": (_generation(temperature=2.001), "generation.temperature"),
    "generation.top_p": (_generation(top_p=1.001), "generation.top_p"),
    "generation.max_output_tokens": (_generation(max_output_tokens=131_073), "generation.max_output_tokens"),
    "generation.stop": (_generation(stop=["a"] * 5), "generation.stop"),
    "generation.stop[]": (_generation(stop=["a" * 257]), "generation.stop[0]"),
    "labels": (_asked(labels={str(number): "" for number in range(17)}), "labels"),
    "labels{key}": (_asked(labels={"a" * 65: ""}), "labels"),
    "labels{value}": (_asked(labels={"a": "a" * 257}), 'labels["a"]'),
    "max_cost_micro_usd": (_asked(max_cost_micro_usd=10**12 + 1), "max_cost_micro_usd"),
    "response_schema": (_asked(response_schema="{}" + " " * 65_535), "response_schema"),
}
"""A value beyond its bound for each field, and the path that the refusal must name. A field of the contract that is missing here fails the test below."""
ANY_VALUE: dict[str, list[Request]] = {
    "include_candidates": [_asked(include_candidates=True)],
    "skip_deadline_check": [_asked(skip_deadline_check=True)],
    "options.shuffle_seed": [_options(shuffle_seed=-(2**63)), _options(shuffle_seed=2**63 - 1)],
    "generation.seed": [_generation(seed=-(2**63)), _generation(seed=2**63 - 1)],
}
"""Fields of which every value that their type can hold means something, with the outermost ones."""


def fields_of(message: Descriptor, at: str = "") -> Iterator[str]:
    """Yield every field of a message and of those in it; of a list and a map the whole, and what is in it."""
    for field in message.fields:
        path = f"{at}{field.name}"
        entry = field.message_type
        if entry is not None and entry.GetOptions().map_entry:
            yield from (path, f"{path}{{key}}", f"{path}{{value}}")
        elif field.is_repeated:
            yield path
            yield from _inside(field, f"{path}[]")
        else:
            yield from _inside(field, path)


def _inside(field: FieldDescriptor, path: str) -> Iterator[str]:
    # What Google's own types hold is one value of ours.
    if field.message_type is None or not field.message_type.full_name.startswith("ensemble."):
        yield path
    else:
        yield from fields_of(field.message_type, f"{path}.")


def _numbers(message: Descriptor, at: str = "") -> Iterator[str]:
    for field in message.fields:
        path = f"{at}{field.name}{'[]' if field.is_repeated else ''}"
        if field.type == FieldDescriptor.TYPE_DOUBLE:
            yield path
        elif field.message_type is not None and field.message_type.full_name.startswith("ensemble.") and not field.message_type.GetOptions().map_entry:
            yield from _numbers(field.message_type, f"{path}.")


def test_no_field_is_forgotten() -> None:
    """Whoever adds a field to the contract says here what is beyond its bound."""
    assert sorted([*BEYOND, *ANY_VALUE]) == sorted(fields_of(Request.DESCRIPTOR))


@pytest.mark.parametrize("field", BEYOND)
async def test_what_is_beyond_a_fields_bound_is_refused_by_its_path(field: str, stub: Stub, orchestrator: FakeOrchestrator) -> None:
    """INVALID_ARGUMENT names that field and no other, and nothing is begun."""
    request, path = BEYOND[field]
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await stub.Generate(request)
    assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert {named for named, _ in violations(refusal.value)} == {path}
    assert orchestrator.requests == []


@pytest.mark.parametrize("field", ANY_VALUE)
async def test_where_every_value_means_something_none_is_refused(field: str, stub: Stub) -> None:
    """Seeds and switches."""
    for request in ANY_VALUE[field]:
        assert (await stub.Generate(request)).answer == "42"


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf], ids=str)
@pytest.mark.parametrize("path", list(_numbers(Request.DESCRIPTOR)))
def test_a_number_that_is_none_is_refused_everywhere(path: str, number: float) -> None:
    """NaN and the infinities lie beyond every bound."""
    request = _asked()
    *above, name = path.split(".")
    message: Any = request
    for step in above:
        message = getattr(message, step.removesuffix("[]"))
        message = message.add(model="quick") if step.endswith("[]") else message
    setattr(message, name, number)
    if request.options.HasField("refiner"):
        request.options.refiner.model = "quick"
    with pytest.raises(InvalidInput) as refusal:
        Planner(profiles_from(configured("127.0.0.1:1")), MODELS).order(read_question(request))
    assert [violation.field for violation in refusal.value.violations] == [path.replace("[]", "[0]")]
