"""Makes the calls, over a few connections, without a serializer: the bytes are sent as they are."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any, cast

import grpc

from bench.fuzz.cases import CHECK, GENERATE, HEALTH, LISTS, REFLECTION, Case, Leave

CONNECTIONS = 4
MARGIN_SECONDS = 5.0
"""How long after its deadline a call may still be under way; generous, for a busy machine."""
LONGEST_SECONDS = 60.0
"""After which a call is given up that has a longer deadline, or none."""
NOT_SENT = "NOT_SENT"
"""In place of a status where the client itself would not send it."""
_LOCAL = "Internal error from Core"
"""What the client itself says of a call that ended before all of its messages were sent; what the server said is lost."""
UNARY = frozenset({GENERATE, *LISTS, CHECK, HEALTH + "List"})
_OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_reconnect_backoff_ms", 200),
    ("grpc.initial_reconnect_backoff_ms", 50),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a call ended, as its caller saw it."""

    code: str
    text: str = ""
    trailers: tuple[tuple[str, str | bytes], ...] = ()
    responses: tuple[bytes, ...] = ()
    seconds: float = 0.0
    given_up: bool = False
    """Whether it had not ended when the time was over in which it had to."""


class Callers:
    """Connections to one gateway."""

    def __init__(self, target: str) -> None:
        self._channels = [grpc.aio.insecure_channel(target, options=_OPTIONS) for _ in range(CONNECTIONS)]

    async def close(self) -> None:
        """Close them."""
        for channel in self._channels:
            await channel.close()

    async def call(self, case: Case) -> Ended:
        """Make a call and wait for its end."""
        started = time.monotonic()
        longest = LONGEST_SECONDS if case.timeout is None else min(case.timeout, LONGEST_SECONDS)
        received: list[bytes] = []
        try:
            call = _begun(self._channels[case.number % CONNECTIONS], case)
        except (ValueError, TypeError, OverflowError) as refused:
            return Ended(code=NOT_SENT, text=type(refused).__name__)
        try:
            async with asyncio.timeout(longest + MARGIN_SECONDS):
                await (_read_one if case.method in UNARY and len(case.messages) == 1 else _read)(call, case.leave, received)
                code, text, trailers = await call.code(), await call.details(), await call.trailing_metadata()
        except TimeoutError:
            call.cancel()
            return Ended(code="NONE", seconds=time.monotonic() - started, given_up=True, responses=tuple(received))
        if text == _LOCAL:
            code = grpc.StatusCode.CANCELLED
        pairs = tuple((str(key), value) for key, value in trailers or ())
        return Ended(code=code.name, text=text or "", trailers=pairs, responses=tuple(received), seconds=time.monotonic() - started)


@contextlib.asynccontextmanager
async def calling(target: str) -> AsyncIterator[Callers]:
    """Open connections to a gateway."""
    callers = Callers(target)
    try:
        yield callers
    finally:
        await callers.close()


def _begun(channel: Any, case: Case) -> Any:
    # The stubs want a serializer, of which bytes have no need.
    how = {"timeout": case.timeout, "metadata": case.metadata or None, "compression": case.compression}
    if len(case.messages) != 1 or case.method == REFLECTION:
        return channel.stream_stream(case.method)(_handed(case.messages), **how)
    return (channel.unary_unary if case.method in UNARY else channel.unary_stream)(case.method)(case.messages[0], **how)


async def _read_one(call: Any, leave: Leave | None, received: list[bytes]) -> None:
    timer = None if leave is None else asyncio.get_running_loop().call_later(leave.seconds or 0.0, call.cancel)
    try:
        received.append(cast("bytes", await call))
    except grpc.aio.AioRpcError:
        # What became of it is asked of the call itself.
        pass
    except asyncio.CancelledError:
        if _cancelling():
            raise
    finally:
        if timer is not None:
            timer.cancel()


async def _read(call: Any, leave: Leave | None, received: list[bytes]) -> None:
    seconds = None if leave is None else leave.seconds
    timer = None if seconds is None else asyncio.get_running_loop().call_later(seconds, call.cancel)
    try:
        while leave is None or leave.responses is None or len(received) < leave.responses:
            response = await call.read()
            if response is grpc.aio.EOF:
                break
            received.append(cast("bytes", response))
        else:
            call.cancel()
    except grpc.aio.AioRpcError:
        # What became of it is asked of the call itself.
        pass
    except asyncio.CancelledError:
        # Reading from a call that was cancelled here raises what a cancellation of the reader itself would.
        if _cancelling():
            raise
    finally:
        if timer is not None:
            timer.cancel()


def _cancelling() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _handed(messages: tuple[bytes, ...]) -> Iterator[bytes]:
    yield from messages
