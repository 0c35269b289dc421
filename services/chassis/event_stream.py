"""Work that tells what happens while it happens, as a stream."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import TypeVar

Event = TypeVar("Event")
Put = Callable[[Event], None]


async def stream_events(work: Callable[[Put[Event]], Awaitable[Event]]) -> AsyncGenerator[Event, None]:
    """Run `work`, yield each event that it puts, then the one that it returns; raise what it raises.

    Leaving the stream early, or being cancelled, cancels the work and waits for its end. Events that the reader has not taken are kept without a bound of their
    own: what is put is bounded by the answers it is made of.
    """
    events: asyncio.Queue[Event | None] = asyncio.Queue()

    async def run() -> Event:
        try:
            return await work(events.put_nowait)
        finally:
            events.put_nowait(None)

    task = asyncio.create_task(run(), name="streamed work")
    try:
        while (event := await events.get()) is not None:
            yield event
        yield await task
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait([task])
        # An error that nobody will read any more, because the reader left first, is not worth a warning from the event loop.
        elif not task.cancelled():
            task.exception()
