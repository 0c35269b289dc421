"""Requests whose bytes do not make a message."""

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2

from ensemble.v1 import gateway_service_pb2
from services.chassis.channel import MAX_MESSAGE_BYTES
from tests.support.rich_errors import rich, violations
from tests.support.scripted_rpcs import Caller, Context, calling, serving

SECRET = b"a prompt that nobody may read"
REQUEST = gateway_service_pb2.GenerateRequest
NOT_UTF8 = b"\x1a\x20" + SECRET + b"\xff\xfe\xfd"
CUT_OFF = REQUEST(prompt=SECRET.decode()).SerializeToString()[:-5]


async def answer(request: gateway_service_pb2.GenerateRequest, _: Context) -> bytes:
    """Say the prompt back."""
    return request.prompt.encode()


async def stream(request: gateway_service_pb2.GenerateRequest, _: Context) -> AsyncIterator[bytes]:
    """Say the prompt back."""
    yield request.prompt.encode()


async def joined(requests: AsyncIterator[gateway_service_pb2.GenerateRequest], _: Context) -> bytes:
    """Say all prompts back at once."""
    return b"".join([request.prompt.encode() async for request in requests])


async def echoed(requests: AsyncIterator[gateway_service_pb2.GenerateRequest], _: Context) -> AsyncIterator[bytes]:
    """Say each prompt back."""
    async for request in requests:
        yield request.prompt.encode()


METHODS: dict[str, Any] = {
    "Unary": grpc.unary_unary_rpc_method_handler(answer, REQUEST.FromString),
    "Stream": grpc.unary_stream_rpc_method_handler(stream, REQUEST.FromString),
    "Collect": grpc.stream_unary_rpc_method_handler(joined, REQUEST.FromString),
    "Chat": grpc.stream_stream_rpc_method_handler(echoed, REQUEST.FromString),
}


async def sent(*requests: bytes) -> AsyncIterator[bytes]:
    """Send requests."""
    for request in requests:
        yield request


@pytest.mark.parametrize("data", [NOT_UTF8, CUT_OFF], ids=["not UTF-8", "cut off"])
async def test_bytes_that_are_no_message_are_invalid_input(data: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """Each kind of method refuses them with details, and neither the caller nor the log reads anything of what was sent."""
    caplog.set_level("DEBUG")
    good = REQUEST(prompt="hello").SerializeToString()
    async with serving(**METHODS) as server, calling(server.address) as caller:
        assert await caller.unary("Unary", good) == b"hello"
        assert [text async for text in caller.stream("Stream", good)] == [b"hello"]
        assert await caller.collect("Collect", sent(good, good)) == b"hellohello"
        chat = caller.chat("Chat", sent(good, data))
        assert await chat.read() == b"hello"
        calls = [caller.unary("Unary", data), caller.stream("Stream", data).read(), caller.collect("Collect", sent(good, data)), chat.read()]
        for call in calls:
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await call
            assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert violations(raised.value)[0][0] == "request"
            assert rich(raised.value).details[0].Is(error_details_pb2.ErrorInfo.DESCRIPTOR)
            assert SECRET.decode() not in repr(raised.value)
            assert "DecodeError" not in repr(raised.value)
    assert SECRET.decode() not in caplog.text
    assert sum("INVALID_ARGUMENT" in record.getMessage() for record in caplog.records if record.name == "ensemble.rpc") == len(calls)


@pytest.mark.parametrize(
    "method", ["/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch", "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"]
)
async def test_health_and_reflection_say_no_more_than_that(method: str, caplog: pytest.LogCaptureFixture) -> None:
    """What strangers send to gRPC's own services is refused in our words, not in the decoder's, and is no error of the server."""
    async with serving(reflection=True) as server, grpc.aio.insecure_channel(server.address) as channel:
        ask: Any = channel.stream_stream(method)
        call = ask(sent(b"\x0a\x20" + SECRET + b"\xff\xfe\xfd"), timeout=10)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call.read()
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert violations(raised.value)[0][0] == "request"
    assert SECRET.decode() not in repr(raised.value) + caplog.text
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_a_message_beyond_the_limit_is_refused_by_grpc() -> None:
    """8 MiB pass; more is RESOURCE_EXHAUSTED on the caller's side already, or on the server's where the caller has no limit."""
    over = REQUEST(prompt="a" * MAX_MESSAGE_BYTES).SerializeToString()
    within = REQUEST(prompt="a" * (MAX_MESSAGE_BYTES - 64)).SerializeToString()
    async with serving(**METHODS) as server, calling(server.address) as caller:
        assert len(await caller.unary("Unary", within)) == MAX_MESSAGE_BYTES - 64
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await caller.unary("Unary", over)
        assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        async with grpc.aio.insecure_channel(server.address, options=[("grpc.max_send_message_length", -1)]) as unlimited:
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await Caller(unlimited).unary("Unary", over)
        assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
