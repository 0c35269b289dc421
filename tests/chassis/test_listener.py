"""A server that gRPC ends itself: it listens again on its port, and nothing that it had begun is lost.

Servers here leave the path of an unknown method to grpc.aio, which ends them where it is not UTF-8.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import grpc
import pytest

from services.chassis.kept_server import KeptServer, LendingCore
from services.chassis.listener import Listener
from tests.support.raw_http2 import ask_for
from tests.support.scripted_rpcs import SERVICE, Caller, Context, Method, calling, serving, stream, unary

BAD_PATH = b"/\xff\xfe"
"""No UTF-8."""
SECONDS = 20.0


class Mortal(KeptServer):
    """A server that a path can end."""

    core = LendingCore


def made(**methods: Method) -> grpc.aio.Server:
    """Return such a server of these methods."""
    server = cast("grpc.aio.Server", Mortal([], [("grpc.so_reuseport", 0)]))
    server.add_registered_method_handlers(SERVICE, methods)
    return server


@asynccontextmanager
async def listening(grace_seconds: float = 5.0, **methods: Method) -> AsyncIterator[str]:
    """Keep a server of these methods listening; yield its address."""
    listener = Listener(lambda: made(**methods), lambda server, port: server.add_insecure_port(f"127.0.0.1:{port}"), grace_seconds=grace_seconds)
    port = await listener.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await listener.stop(grace_seconds)


async def _answered(address: str) -> bytes:
    """Ask until there is an answer."""
    async with asyncio.timeout(SECONDS), grpc.aio.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        call: Any = channel.unary_unary(f"/{SERVICE}/Answer")
        while True:
            try:
                return bytes(await call(b"again", timeout=5, wait_for_ready=True))
            except grpc.aio.AioRpcError as error:
                assert error.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
                await asyncio.sleep(0.01)


@asynccontextmanager
async def _asking(address: str) -> AsyncIterator[Caller]:
    """Open a plain channel: no health is served here."""
    async with grpc.aio.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        yield Caller(channel)


async def _echo(request: bytes, _: Context) -> bytes:
    return request


async def test_a_server_that_was_ended_is_away_for_a_moment_only() -> None:
    """Another one listens on the same port, again and again."""
    async with listening(Answer=unary(_echo)) as address:
        for _ in range(3):
            await ask_for(address, BAD_PATH)
            assert await _answered(address) == b"again"


async def test_our_own_servers_are_not_ended_by_a_path() -> None:
    """It is answered as any unknown method, time after time, while a stream of another caller on the same server goes on."""
    finish = asyncio.Event()

    async def tell(_: bytes, __: Context) -> AsyncIterator[bytes]:
        yield b"first"
        await finish.wait()
        yield b"last"

    async with asyncio.timeout(SECONDS), serving(Answer=unary(_echo), Tell=stream(tell)) as server, calling(server.address) as caller:
        telling = caller.stream("Tell")
        assert await telling.read() == b"first"
        for _ in range(20):
            assert b"Method not found!" in await ask_for(server.address, BAD_PATH)
            assert await caller.unary("Answer", b"still") == b"still"
        finish.set()
        assert await telling.read() == b"last"


async def test_calls_in_flight_finish() -> None:
    """What was begun before goes on to its end on the server that takes no more calls."""
    entered, finish = asyncio.Event(), asyncio.Event()

    async def wait(request: bytes, _: Context) -> bytes:
        entered.set()
        await finish.wait()
        return request

    async def tell(_: bytes, __: Context) -> AsyncIterator[bytes]:
        yield b"first"
        await finish.wait()
        yield b"last"

    async with listening(Answer=unary(_echo), Wait=unary(wait), Tell=stream(tell)) as address, _asking(address) as caller:
        waiting = asyncio.ensure_future(caller.unary("Wait", b"begun"))
        telling = caller.stream("Tell")
        assert await telling.read() == b"first"
        await entered.wait()
        await ask_for(address, BAD_PATH)
        assert await _answered(address) == b"again"
        finish.set()
        assert await waiting == b"begun"
        assert await telling.read() == b"last"


async def test_the_server_stops_although_another_one_has_not_finished() -> None:
    """Told to stop, the one before is waited for no longer than the grace of the last one."""
    entered, cancelled = asyncio.Event(), asyncio.Event()

    async def hang(_: bytes, __: Context) -> bytes:
        entered.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return b""

    async with asyncio.timeout(SECONDS):
        async with listening(0.1, Answer=unary(_echo), Hang=unary(hang)) as address, _asking(address) as caller:
            hanging = asyncio.ensure_future(caller.unary("Hang"))
            await entered.wait()
            await ask_for(address, BAD_PATH)
            assert await _answered(address) == b"again"
        with pytest.raises(grpc.aio.AioRpcError):
            await hanging
        await cancelled.wait()


async def test_what_is_lent_to_the_core_is_kept_until_it_is_given_back() -> None:
    """When the loop that takes calls ends, no request for a next call is thrown away: each ends when the core has answered it, and then none is left."""
    server = made(Answer=unary(_echo))
    assert isinstance(server, Mortal)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with asyncio.timeout(SECONDS):
        while server.lent < 2:
            await asyncio.sleep(0)
    assert await _answered(f"127.0.0.1:{port}") == b"again"
    lent = set(server._server.lent)
    await ask_for(f"127.0.0.1:{port}", BAD_PATH)
    with pytest.raises(UnicodeDecodeError):
        await server.wait_for_termination(timeout=SECONDS)
    await server.stop(None)
    assert server.lent == 0
    assert {task.cancelled() for task in lent} == {False}


async def test_a_port_that_is_taken_in_between_is_waited_for() -> None:
    """Whoever has it: as soon as it can be had, the server listens there again."""
    makings: list[grpc.aio.Server] = []
    bindings: list[grpc.aio.Server] = []
    refusals = 3

    def make() -> grpc.aio.Server:
        server = made(Answer=unary(_echo))
        makings.append(server)
        return server

    def bind(server: grpc.aio.Server, port: int) -> int:
        bindings.append(server)
        if 1 < len(bindings) <= 1 + refusals:
            raise RuntimeError("taken")
        return server.add_insecure_port(f"127.0.0.1:{port}")

    listener = Listener(make, bind, grace_seconds=1.0)
    port = await listener.start()
    try:
        await ask_for(f"127.0.0.1:{port}", BAD_PATH)
        assert await _answered(f"127.0.0.1:{port}") == b"again"
        # None is thrown away, which would end the process sooner or later.
        assert makings == [bindings[0], bindings[-1]]
        assert len(bindings) == 2 + refusals
    finally:
        await listener.stop(None)


async def test_a_server_that_is_being_made_anew_is_stopped_too() -> None:
    """Told to stop in the moment in which another server begins to listen, it leaves none behind that does."""
    begun = asyncio.Event()
    makings = 0

    class Slow(KeptServer):
        core = LendingCore

        async def start(self) -> None:
            await super().start()
            if makings > 1:
                begun.set()
                await asyncio.Event().wait()

    def make() -> grpc.aio.Server:
        nonlocal makings
        makings += 1
        server = cast("grpc.aio.Server", Slow([], [("grpc.so_reuseport", 0)]))
        server.add_registered_method_handlers(SERVICE, {"Answer": unary(_echo)})
        return server

    listener = Listener(make, lambda server, port: server.add_insecure_port(f"127.0.0.1:{port}"), grace_seconds=1.0)
    port = await listener.start()
    await ask_for(f"127.0.0.1:{port}", BAD_PATH)
    async with asyncio.timeout(SECONDS):
        await begun.wait()
        await listener.stop(None)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)
