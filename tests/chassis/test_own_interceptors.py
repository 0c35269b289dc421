"""A service's own interceptors: inside the tracing and the error boundary, before the request counts."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType
from typing import Any

import grpc
import pytest

from ensemble.v1 import gateway_service_pb2
from services.chassis.channel import MAX_MESSAGE_BYTES
from services.chassis.errors import Unauthenticated
from services.chassis.handlers import AroundInterceptor, Context
from services.chassis.server import ServerSettings, serve
from services.chassis.server_tracing import tell_tenant
from services.chassis.telemetry import Telemetry
from tests.support.raw_http2 import ask_for
from tests.support.rich_errors import rich
from tests.support.scripted_rpcs import SERVICE, calling

REQUEST = gateway_service_pb2.GenerateRequest
NOT_UTF8 = b"\x1a\x02\xff\xfe"


class Door(AroundInterceptor):
    """Lets calls in, or refuses them; notes in which order it was asked."""

    def __init__(self, name: str, seen: list[str], *, closed: bool = False) -> None:
        super().__init__()
        self.name, self.seen, self.closed = name, seen, closed

    def around(self, method: str, context: Context) -> AbstractAsyncContextManager[None]:
        """Return what stands around a call."""
        return _Passage(self)


class _Passage(AbstractAsyncContextManager[None]):
    def __init__(self, door: Door) -> None:
        self._door = door

    async def __aenter__(self) -> None:
        self._door.seen.append(self._door.name)
        tell_tenant("team-a")
        if self._door.closed:
            raise Unauthenticated("not you")

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        pass


async def _answer(request: gateway_service_pb2.GenerateRequest, _: Context) -> bytes:
    return request.prompt.encode()


async def _stream(request: gateway_service_pb2.GenerateRequest, _: Context) -> AsyncIterator[bytes]:
    yield request.prompt.encode()


async def _echoed(requests: AsyncIterator[gateway_service_pb2.GenerateRequest], _: Context) -> AsyncIterator[bytes]:
    async for request in requests:
        yield request.prompt.encode()


METHODS: dict[str, Any] = {
    "Unary": grpc.unary_unary_rpc_method_handler(_answer, REQUEST.FromString),
    "Stream": grpc.unary_stream_rpc_method_handler(_stream, REQUEST.FromString),
    "Chat": grpc.stream_stream_rpc_method_handler(_echoed, REQUEST.FromString),
}


@asynccontextmanager
async def _served(*doors: Door, **settings: Any) -> AsyncIterator[str]:
    """Serve behind the doors; yield the address."""

    def register(server: grpc.aio.Server) -> None:
        server.add_registered_method_handlers(SERVICE, METHODS)

    how = ServerSettings(listen="127.0.0.1:0", grace_seconds=0, **settings)
    async with serve(SERVICE, register, how, Telemetry.off(), interceptors=doors) as server:
        yield server.address


async def _codes(*doors: Door) -> list[str]:
    """Return how calls of three kinds end whose request is no message."""

    async def sent() -> AsyncIterator[bytes]:
        yield NOT_UTF8

    codes = []
    async with _served(*doors) as address, calling(address) as caller:
        for call in (caller.unary("Unary", NOT_UTF8), caller.stream("Stream", NOT_UTF8).read(), caller.chat("Chat", sent()).read()):
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await call
            assert rich(raised.value).details
            codes.append(raised.value.code().name)
    return codes


async def test_they_decide_before_it_matters_what_was_sent() -> None:
    """A call that is not let in is not told that its request is no message; one that is let in is. The first one stands outermost."""
    seen: list[str] = []
    assert await _codes(Door("a", seen), Door("b", seen)) == ["INVALID_ARGUMENT"] * 3
    assert seen == ["a", "b"] * 3
    seen.clear()
    assert await _codes(Door("a", seen, closed=True), Door("b", seen)) == ["UNAUTHENTICATED"] * 3
    assert seen == ["a"] * 3


@pytest.mark.parametrize("method", [b"Unary", b"Stream"])
async def test_they_decide_before_a_request_is_read(method: bytes) -> None:
    """Whoever is not let in is refused at once, though most of what he announced has not arrived: it would take memory for as long as he likes."""
    async with _served(Door("a", [], closed=True)) as address:
        path = f"/{SERVICE}/".encode() + method
        assert b"grpc-status\x0216" in await ask_for(address, path, message=b"the beginning", announced=MAX_MESSAGE_BYTES)


@pytest.mark.parametrize("method", [f"/{SERVICE}/Unary", f"/{SERVICE}/Stream", "/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"])
async def test_a_request_that_does_not_arrive_is_not_waited_for(method: str) -> None:
    """Who was let in, or need not be, has so long and no longer."""
    async with _served(Door("a", []), request_seconds=0.1) as address:
        assert b"grpc-status\x014" in await ask_for(address, method.encode(), message=b"the beginning", announced=MAX_MESSAGE_BYTES)


@pytest.mark.parametrize("method", [f"/{SERVICE}/Unary", f"/{SERVICE}/Stream", "/grpc.health.v1.Health/Check"])
async def test_a_call_without_a_request_is_invalid(method: str) -> None:
    """The caller has said that nothing more will come."""
    async with _served(Door("a", [])) as address:
        assert b"grpc-status\x013" in await ask_for(address, method.encode(), announced=0)


async def test_their_refusals_are_traced_like_any_other(caplog: pytest.LogCaptureFixture) -> None:
    """One line for each call with its code, and with the tenant where somebody told it."""
    caplog.set_level("INFO")
    await _codes(Door("a", [], closed=True))
    lines = [record for record in caplog.records if record.name == "ensemble.rpc"]
    assert [(getattr(line, "code", ""), getattr(line, "tenant", "")) for line in lines] == [("UNAUTHENTICATED", "team-a")] * 3


def test_a_tenant_that_is_told_outside_of_a_call_is_not_minded() -> None:
    """There is no line to put it on."""
    tell_tenant("team-a")
