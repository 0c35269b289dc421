"""A gRPC server that listens again when gRPC has ended it.

    listening --an error in gRPC--> ended by gRPC --within a moment--> another one listens, calls in flight finish on the old one

An error in the loop of grpc.aio (seen with 1.85) that takes calls ends it: without this, the port would be closed for good, with the process still alive and
its health unasked. The one cause that is known, a path that is not UTF-8, does not get that far (`services.chassis.kept_server`), unless a later version of
gRPC is built otherwise.
"""

import asyncio
import logging
from collections.abc import Callable

import grpc

LOOK_SECONDS = 0.1
"""How often the server is looked at; only then does gRPC say that it has ended itself."""

_log = logging.getLogger(__name__)


class Listener:
    """Keeps a server on an address from `start` to `stop`."""

    def __init__(self, make: Callable[[], grpc.aio.Server], bind: Callable[[grpc.aio.Server, int], int], *, grace_seconds: float) -> None:
        """Take what makes a server with all that it serves, and what binds it to a port, the same one again where it is not 0, and returns it.

        `bind` raises `RuntimeError` where the port cannot be had. Calls in flight on a server that has ended itself may go on for the grace.
        """
        self._make = make
        self._bind = bind
        self._grace_seconds = grace_seconds
        self._server = make()
        self._keeping: asyncio.Task[None] | None = None
        self._ending: set[asyncio.Task[None]] = set()

    async def start(self) -> int:
        """Listen; return the port. Raises `RuntimeError` where it cannot be had."""
        port = self._bind(self._server, 0)
        await self._server.start()
        self._keeping = asyncio.create_task(self._keep(port), name="listener")
        return port

    async def stop(self, grace_seconds: float | None) -> None:
        """Take no more calls, let those in flight go on for the grace, and cancel the rest; None cancels them at once."""
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.wait([self._keeping])
        await self._server.stop(grace_seconds)
        for ending in self._ending:
            ending.cancel()
        if self._ending:
            await asyncio.wait(self._ending)

    async def _keep(self, port: int) -> None:
        while True:
            await _ended_itself(self._server)
            _log.error("gRPC has ended the server because of a request that it could not read; it is made anew")
            old = asyncio.create_task(_finish(self._server, self._grace_seconds), name="ended server")
            self._ending.add(old)
            old.add_done_callback(self._ending.discard)
            self._server = await self._again(port)

    async def _again(self, port: int) -> grpc.aio.Server:
        # Made once: a server that was never started and is thrown away takes the process with it (SIGSEGV, seen with 1.85).
        server = self._make()
        while True:
            try:
                self._bind(server, port)
                await server.start()
            except Exception as error:  # noqa: BLE001 - whatever it is, nothing is served until it has passed; at first the old one may hold the port yet
                _log.warning("the server cannot listen again yet (%s)", type(error).__name__)
                await asyncio.sleep(LOOK_SECONDS)
            except asyncio.CancelledError:
                # Told to stop while it begins: it may listen already, and nobody knows it yet who would end it.
                await server.stop(None)
                raise
            else:
                return server


async def _ended_itself(server: grpc.aio.Server) -> None:
    """Wait until the server has ended without being told to."""
    while True:
        try:
            await server.wait_for_termination(timeout=LOOK_SECONDS)
        except Exception:  # noqa: BLE001 - whatever ended it is what is raised here
            return


async def _finish(server: grpc.aio.Server, grace_seconds: float) -> None:
    try:
        await server.stop(grace_seconds)
    except asyncio.CancelledError:
        await server.stop(None)
        raise
