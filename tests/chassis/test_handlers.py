"""Standing around handlers of every kind, over a real connection."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import pytest

from services.chassis.handlers import AroundInterceptor, Context, Handler
from tests.support.scripted_rpcs import Caller, chat, collect, stream, unary


class Noting(AroundInterceptor):
    """Notes when calls begin and end."""

    def __init__(self) -> None:
        super().__init__()
        self.noted: list[str] = []

    @asynccontextmanager
    async def around(self, method: str, context: Context) -> AsyncIterator[None]:
        """Note the beginning and the end."""
        self.noted.append(f"begin {method}")
        try:
            yield
        finally:
            self.noted.append(f"end {method}")


class Details(grpc.HandlerCallDetails):
    """What an interceptor is told of a call."""

    method = "/ensemble.test.EchoService/One"
    invocation_metadata = ()


class Echo:
    """Says what it was told, in all kinds of methods and both styles of streams."""

    async def one(self, request: bytes, _: Context) -> bytes:
        """Answer once."""
        return request

    async def many(self, request: bytes, _: Context) -> AsyncIterator[bytes]:
        """Answer twice."""
        yield request
        yield request

    async def written(self, request: bytes, context: Context) -> None:
        """Answer twice, in the style that writes."""
        await context.write(request)
        await context.write(request)

    async def joined(self, requests: AsyncIterator[bytes], _: Context) -> bytes:
        """Answer with all that was said."""
        return b"".join([request async for request in requests])

    async def repeated(self, requests: AsyncIterator[bytes], _: Context) -> AsyncIterator[bytes]:
        """Answer each."""
        async for request in requests:
            yield request


async def requests() -> AsyncIterator[bytes]:
    """Send two requests."""
    yield b"a"
    yield b"b"


@asynccontextmanager
async def served(interceptor: AroundInterceptor, service: str) -> AsyncIterator[Caller]:
    """Serve an echo behind an interceptor, and call it."""
    echo = Echo()
    server = grpc.aio.server(interceptors=[interceptor], options=[("grpc.so_reuseport", 0)])
    methods = {"One": unary(echo.one), "Many": stream(echo.many), "Written": stream(echo.written), "Joined": collect(echo.joined), "Chat": chat(echo.repeated)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, methods),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield Caller(channel, service)
    await server.stop(None)


async def test_every_kind_of_handler_is_stood_around() -> None:
    """Answers are unchanged; each call, also the second one of a method, begins and ends once."""
    noting = Noting()
    service = "ensemble.test.EchoService"
    async with served(noting, service) as caller:
        for _ in range(2):
            assert await caller.unary("One", b"x") == b"x"
            assert [response async for response in caller.stream("Many", b"x")] == [b"x", b"x"]
            assert [response async for response in caller.stream("Written", b"x")] == [b"x", b"x"]
            assert await caller.collect("Joined", requests()) == b"ab"
            assert [response async for response in caller.chat("Chat", requests())] == [b"a", b"b"]
    once = [f"{what} {service}/{name}" for name in ("One", "Many", "Written", "Joined", "Chat") for what in ("begin", "end")]
    assert noting.noted == once + once


async def test_services_of_others_pass_untouched() -> None:
    """Health, reflection and whatever else is not ours is not stood around."""
    noting = Noting()
    async with served(noting, "grpc.test.EchoService") as caller:
        assert await caller.unary("One", b"x") == b"x"
    assert noting.noted == []


async def test_a_handler_that_is_replaced_is_not_remembered() -> None:
    """Only the very handler that was wrapped is taken from memory."""
    noting = Noting()
    echo = Echo()

    async def found(handler: Handler) -> Handler:
        async def continuation(_: grpc.HandlerCallDetails) -> Handler:
            return handler

        wrapped = await noting.intercept_service(continuation, Details())
        assert wrapped is not None
        return wrapped

    first, second = unary(echo.one), unary(echo.one)
    assert await found(first) is await found(first)
    assert await found(first) is not await found(second)


def test_an_interceptor_must_say_what_stands_around() -> None:
    """The base stands around nothing."""
    with pytest.raises(NotImplementedError):
        AroundInterceptor().around("ensemble.test.EchoService/One", None)  # type: ignore[arg-type] # there is no call
