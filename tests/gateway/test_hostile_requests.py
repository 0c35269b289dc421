"""Requests that are made to hurt: large, deep, malformed on the wire, and with metadata to match."""

from collections.abc import AsyncIterator
from typing import Any, TypeAlias

import grpc
import pytest
from google.protobuf.struct_pb2 import Struct, Value

from ensemble.v1 import gateway_service_pb2, gateway_service_pb2_grpc, generation_parameters_pb2, member_pb2, message_pb2, strategy_options_pb2
from services.chassis.channel import MAX_MESSAGE_BYTES
from services.chassis.configuration import GatewaySection
from services.chassis.server import RunningServer
from services.chassis.status import DETAILS_KEY
from services.gateway.app import application
from tests.support.fake_orchestrator import FakeOrchestrator, FakeServer
from tests.support.gateways import calling, configured
from tests.support.rich_errors import violations

Request = gateway_service_pb2.GenerateRequest
Streamed = gateway_service_pb2.StreamGenerateRequest
Stub: TypeAlias = "gateway_service_pb2_grpc.GatewayServiceAsyncStub"
Call: TypeAlias = "grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]"
USER = message_pb2.ROLE_USER
TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
TRACEPARENT = f"00-{TRACE_ID}-b7ad6b7169203331-01"


@pytest.fixture
async def raw(gateway: RunningServer) -> AsyncIterator[Call]:
    """A caller that sends what bytes it likes."""
    async with grpc.aio.insecure_channel(gateway.address, options=[("grpc.max_send_message_length", -1)]) as channel:
        yield channel.unary_unary("/ensemble.v1.GatewayService/Generate")


def _varint(number: int) -> bytes:
    out = b""
    while number > 0x7F:
        out += bytes([number & 0x7F | 0x80])
        number >>= 7
    return out + bytes([number])


def _field(tag: int, content: bytes) -> bytes:
    return bytes([tag]) + _varint(len(content)) + content


def _nested(levels: int) -> bytes:
    """Return a `Struct` with so many in each other. By hand, for protobuf writes no deeper than it reads."""
    inner = b""
    for _ in range(levels):
        inner = _field(0x0A, _field(0x0A, b"a") + _field(0x12, _field(0x2A, inner)))
    return inner


def _listed(levels: int) -> bytes:
    """Return a `Struct` that holds so many lists in each other."""
    inner = b"\x20\x01"
    for _ in range(levels):
        inner = _field(0x32, _field(0x0A, inner))
    return _field(0x0A, _field(0x0A, b"a") + _field(0x12, inner))


def _with_parameters(parameters: bytes) -> bytes:
    return Request(prompt="a").SerializeToString() + _field(0x3A, _field(0x3A, parameters))


async def _refused(call: Any) -> list[tuple[str, str]]:
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await call
    assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    return violations(refusal.value)


async def test_a_request_may_have_so_many_bytes_and_no_more(fakes: FakeServer, orchestrator: FakeOrchestrator) -> None:
    """To the byte, as one call and as a stream; the refusal names the request, since no field of it was looked at."""
    async with application(configured(fakes.address, most_request_bytes=2048)) as server, calling(server) as stub:
        request = Request(prompt="a" * 1900)
        request.system = "a" * (2048 - request.ByteSize() - 3)
        assert request.ByteSize() == 2048
        assert (await stub.Generate(request)).answer == "42"
        request.system += "a"
        assert await _refused(stub.Generate(request)) == [("request", "is larger than 2048 bytes")]
        assert await _refused(stub.StreamGenerate(Streamed(generate=Request(prompt="a" * 2048))).read()) == [("request", "is larger than 2048 bytes")]
    assert len(orchestrator.requests) == 1


async def test_the_largest_request_that_is_valid_fits_the_default(stub: Stub) -> None:
    """With every text at its longest, in letters of four bytes where letters are counted, it is well below what is taken by default."""
    wide = "\N{GRINNING FACE}"
    options = strategy_options_pb2.StrategyOptions(parameters=Struct(fields={"a": Value(string_value="a" * 65_000)}))
    members = [member_pb2.Member(model="quick", id="a" * 62 + str(number), persona="a" * (16 << 10)) for number in range(8)]
    request = Request(
        messages=[message_pb2.Message(role=USER, text="a" * (1 << 20))] * 2,
        members=members,
        options=options,
        labels={f"{number:064}": wide * 256 for number in range(16)},
        generation=generation_parameters_pb2.GenerationParameters(stop=[wide * 256] * 4),
        response_schema='{"const": "' + "a" * 65_000 + '"}',
    )
    assert request.ByteSize() < 3 << 20
    assert (await stub.Generate(request)).answer == "42"
    assert GatewaySection().most_request_bytes == 4 << 20 < MAX_MESSAGE_BYTES


async def test_beyond_the_transports_limit_grpc_itself_refuses(stub: Stub, orchestrator: FakeOrchestrator) -> None:
    """RESOURCE_EXHAUSTED without any detail of ours; between the two limits it is ours."""
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await stub.Generate(Request(prompt="a" * MAX_MESSAGE_BYTES))
    assert refusal.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert DETAILS_KEY not in dict(refusal.value.trailing_metadata() or ())
    assert (await _refused(stub.Generate(Request(prompt="a" * (MAX_MESSAGE_BYTES - 64)))))[0][0] == "request"
    assert orchestrator.requests == []


@pytest.mark.parametrize("parameters", [_nested(30), _listed(45)], ids=["objects", "lists"])
async def test_deep_parameters_are_read_as_far_as_protobuf_reads_them(parameters: bytes, raw: Call, orchestrator: FakeOrchestrator) -> None:
    """They reach the orchestrator whole, for only a strategy knows what it takes."""
    answer = gateway_service_pb2.GenerateResponse.FromString(await raw(_with_parameters(parameters)))
    assert answer.answer == "42"
    assert orchestrator.requests[0].options.parameters == Struct.FromString(parameters)


@pytest.mark.parametrize("parameters", [_nested(200), _listed(300), _nested(3000)], ids=["objects", "lists", "very deep"])
async def test_deeper_ones_are_no_message(parameters: bytes, raw: Call, orchestrator: FakeOrchestrator) -> None:
    """Protobuf gives up at a depth of 100, before any code of ours could run out of stack."""
    assert [field for field, _ in await _refused(raw(_with_parameters(parameters)))] == ["request"]
    assert orchestrator.requests == []


@pytest.mark.parametrize(
    "data",
    [
        b"\x1a\x03\xed\xa0\x80",
        b"\x1a\x02\xc3\x28",
        b"\x1a\xff\xff\xff\xff\x0f",
        b"\x1a\x05ab",
        b"\xff" * 64,
        b"\x5a\x05\x0a\x03\xed\xa0\x80",
    ],
    ids=["a lone surrogate", "no UTF-8", "a length without end", "cut off", "noise", "a lone surrogate in a label"],
)
async def test_bytes_that_make_no_request_are_refused_as_such(data: bytes, raw: Call, orchestrator: FakeOrchestrator) -> None:
    """INVALID_ARGUMENT that names the request, with nothing of the decoder's own words."""
    ((field, words),) = await _refused(raw(data))
    assert (field, words.startswith("cannot be decoded")) == ("request", True)
    assert orchestrator.requests == []


async def test_fields_that_nobody_knows_count_as_bytes_and_do_nothing(raw: Call, orchestrator: FakeOrchestrator) -> None:
    """A newer client is understood; a field of megabytes is not carried along."""
    known = Request(prompt="a").SerializeToString()
    unknown = b"\xfa\x3e" + _varint(1000) + b"x" * 1000
    answer = gateway_service_pb2.GenerateResponse.FromString(await raw(known + unknown))
    assert answer.answer == "42"
    assert b"xxxx" not in orchestrator.requests[0].SerializeToString()
    large = b"\xfa\x3e" + _varint(5 << 20) + b"x" * (5 << 20)
    assert [field for field, _ in await _refused(raw(known + large))] == ["request"]


async def test_very_many_labels_are_not_looked_at(stub: Stub) -> None:
    """Of a map that is too large no more is read than shows it to be."""
    assert (await _refused(stub.Generate(Request(prompt="a", labels={f"l{number}": "" for number in range(100_000)}))))[0][0] == "labels"


@pytest.mark.parametrize(
    "metadata",
    [
        (("traceparent", ""),),
        (("traceparent", "00-" + "0" * 32 + "-" + "0" * 16 + "-01"),),
        (("traceparent", "ff-" + TRACEPARENT[3:]),),
        (("traceparent", " " * 5000),),
        (("traceparent", "-" * 5000),),
        (("traceparent", TRACEPARENT + "x" * 5000),),
        (("traceparent-bin", b"\x00" * 100),),
        (("traceparent", TRACEPARENT), ("traceparent", "nonsense")),
        (("tracestate", "a=b"),),
        (("baggage", "a=" + "b" * 5000),),
        tuple((f"x-{number}", "") for number in range(150)),
        tuple(("traceparent", TRACEPARENT) for _ in range(50)),
    ],
    ids=["empty", "zeros", "version ff", "blanks", "dashes", "a long tail", "binary", "twice", "no parent", "baggage", "many entries", "many parents"],
)
async def test_metadata_of_any_kind_hinder_no_call(metadata: tuple[tuple[str, str | bytes], ...], stub: Stub) -> None:
    """A trace context that is none begins another trace."""
    assert (await stub.Generate(Request(prompt="a"), metadata=metadata)).answer == "42"


@pytest.mark.parametrize(
    "state",
    ["a=" + "b" * 4000, ",".join(f"k{number}=v" for number in range(600)), "a=b" + " " * 4000 + "c", "a=" + "b" * 511],
    ids=["one value", "many members", "blanks", "a letter too much"],
)
async def test_a_large_tracestate_is_not_carried_on(state: str, stub: Stub, orchestrator: FakeOrchestrator, caplog: pytest.LogCaptureFixture) -> None:
    """The call goes on within its trace; the next hop gets no more metadata for it, and nothing of it is written to the log."""
    assert (await stub.Generate(Request(prompt="a"), metadata=(("traceparent", TRACEPARENT), ("tracestate", state)))).answer == "42"
    (received,) = orchestrator.metadata
    assert str(received["traceparent"]).split("-")[1] == TRACE_ID
    assert "tracestate" not in received
    assert state[:100] not in caplog.text


async def test_a_tracestate_of_512_characters_is_carried_on(stub: Stub, orchestrator: FakeOrchestrator) -> None:
    """As the standard wants."""
    state = f"a={'b' * 256},c={'d' * 251}"
    assert len(state) == 512
    await stub.Generate(Request(prompt="a"), metadata=(("traceparent", TRACEPARENT), ("tracestate", state)))
    assert sorted(str(orchestrator.metadata[0]["tracestate"]).split(",")) == sorted(state.split(","))
