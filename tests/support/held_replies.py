"""A TCP proxy on loopback that can hold back what the server says, so that a client never hears of what was done for it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class HeldReplies:
    """The proxy's switch."""

    def __init__(self) -> None:
        self.address = ""
        self._open = asyncio.Event()
        self._open.set()

    def hold(self) -> None:
        """Let nothing of the server's through from now on."""
        self._open.clear()

    async def pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, replies: bool) -> None:
        """Carry one direction of a connection until it ends."""
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                if replies:
                    await self._open.wait()
                writer.write(data)
                await writer.drain()
        writer.close()


@asynccontextmanager
async def held_replies(target: str) -> AsyncIterator[HeldReplies]:
    """Run a proxy before a server at HOST:PORT."""
    proxy = HeldReplies()
    host, _, port = target.rpartition(":")
    carrying: set[asyncio.Task[None]] = set()

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        carrying.add(task)
        there, back = await asyncio.open_connection(host, int(port))
        pumps = [asyncio.ensure_future(proxy.pump(reader, back, replies=False)), asyncio.ensure_future(proxy.pump(there, writer, replies=True))]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            # The test is over.
            pass
        finally:
            for one in pumps:
                one.cancel()
            await asyncio.wait(pumps)
            for end in (writer, back):
                end.close()

    server = await asyncio.start_server(carry, "127.0.0.1", 0)
    proxy.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield proxy
    finally:
        server.close()
        for task in carrying:
            task.cancel()
        if carrying:
            await asyncio.wait(carrying)
