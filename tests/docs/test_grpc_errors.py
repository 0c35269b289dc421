"""What a client sees of the errors that gRPC itself makes: the code and the text that the page names, and nothing of ours."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from scripts.grpc_errors import GRPC_ERRORS
from services.chassis.channel import MAX_MESSAGE_BYTES
from services.chassis.status import DETAILS_KEY
from tests.support.scripted_rpcs import Caller, Context, serving, unary

ANY_SIZE = [("grpc.max_send_message_length", -1)]


class Hanging:
    """A method that says when it has begun, and never answers."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()

    async def __call__(self, _: bytes, __: Context) -> bytes:
        """Hang."""
        self.entered.set()
        await asyncio.Event().wait()
        return b""


async def large(_: bytes, __: Context) -> bytes:
    """Answer with more than clients take unless they say so."""
    return b"x" * (5 << 20)


@asynccontextmanager
async def plain(address: str, options: Sequence[tuple[str, Any]] = ()) -> AsyncIterator[Caller]:
    """Yield a client with gRPC's own settings."""
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        yield Caller(channel)


async def nobody_listens() -> None:
    """Call a port that was free a moment ago."""
    async with serving() as server:
        address = server.address
    async with plain(address) as caller:
        await caller.unary("Ask")


async def tls_to_a_server_without() -> None:
    """Speak TLS to a server that does not."""
    async with serving() as server, grpc.aio.secure_channel(server.address, grpc.ssl_channel_credentials()) as channel:
        await Caller(channel).unary("Ask")


async def stopped_meanwhile() -> None:
    """Stop the server while it works."""
    hanging = Hanging()
    async with serving(Ask=unary(hanging), grace_seconds=0.01, notice_seconds=0.0) as server:
        channel = grpc.aio.insecure_channel(server.address)
        call = Caller(channel).unary("Ask")
        await hanging.entered.wait()
    try:
        await call
    finally:
        await channel.close()


async def out_of_time() -> None:
    """Give up before the server does."""
    async with serving(Ask=unary(Hanging())) as server, plain(server.address) as caller:
        await caller.unary("Ask", timeout=0.05)


async def cancelled() -> None:
    """Cancel the call."""
    hanging = Hanging()
    async with serving(Ask=unary(hanging)) as server, plain(server.address) as caller:
        call = caller.unary("Ask")
        await hanging.entered.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        # In asyncio a cancelled call raises as a cancelled task does; its status is that of the error.
        raise grpc.aio.AioRpcError(await call.code(), grpc.aio.Metadata(), await call.trailing_metadata(), await call.details())


async def a_large_request() -> None:
    """Send more than the server takes."""
    async with serving(Ask=unary(large)) as server, plain(server.address, ANY_SIZE) as caller:
        await caller.unary("Ask", b"x" * (MAX_MESSAGE_BYTES + 1))


async def a_large_response() -> None:
    """Be sent more than the client takes."""
    async with serving(Ask=unary(large)) as server, plain(server.address) as caller:
        await caller.unary("Ask")


async def large_metadata() -> None:
    """Send more metadata than the server takes, in one entry."""
    async with serving(Ask=unary(large)) as server, plain(server.address) as caller:
        await caller.unary("Ask", metadata=(("x-large", "x" * 20_000),))


async def no_such_method() -> None:
    """Call what is not there."""
    async with serving() as server, plain(server.address) as caller:
        await caller.unary("Nothing")


CASES: dict[Callable[[], Awaitable[None]], str] = {
    nobody_listens: "failed to connect to all addresses",
    tls_to_a_server_without: "failed to connect to all addresses",
    stopped_meanwhile: "Cancelling all calls",
    out_of_time: "Deadline Exceeded",
    cancelled: "Locally cancelled by application!",
    a_large_request: "Received message larger than max",
    a_large_response: "Received message larger than max",
    large_metadata: "received metadata size exceeds",
    no_such_method: "Method not found!",
}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
async def test_what_grpc_says_itself_has_no_details_of_ours(case: Callable[[], Awaitable[None]]) -> None:
    """Code and text are as written down; that no ErrorInfo comes along is what tells them from ours."""
    (row,) = [row for row in GRPC_ERRORS if row.text == CASES[case]]
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await case()
    assert raised.value.code() is row.code
    assert row.text in (raised.value.details() or "")
    assert DETAILS_KEY not in dict(raised.value.trailing_metadata() or ())


async def test_more_entries_of_metadata_than_a_server_takes_are_refused_too() -> None:
    """By gRPC itself, with the same code; the text may be empty then."""
    async with serving(Ask=unary(large)) as server, plain(server.address) as caller:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await caller.unary("Ask", metadata=tuple((f"x-{number}", "") for number in range(2_000)))
    assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert DETAILS_KEY not in dict(raised.value.trailing_metadata() or ())


def test_each_is_tried() -> None:
    """None is written down that nobody has seen."""
    assert {row.text for row in GRPC_ERRORS} == set(CASES.values())
