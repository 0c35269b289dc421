"""A gRPC server that no path ends, and that survives its own end all the same.

    a call of a method that is served --> its handler
    a call of any other method        --> UNIMPLEMENTED, its path never read

grpc.aio (seen with 1.85) decodes the path of a call to a method that it does not know outside of any handler, and a path that is not UTF-8 ends the loop that
takes calls. Whoever sends such a path again and again would keep the port closed. Methods that are served are registered with the core, which knows their calls
by itself, so what comes as a call of another method is answered here, before that loop sees it.

Should the loop end after all, what the server has lent to gRPC's core stays in memory until the core gives it back.

For each method the server always has one request for the next call out in the core, which writes the call into it. Where the loop that takes calls ends by an
error (see `services.chassis.listener`), grpc.aio (seen with 1.85) drops those requests at once, and the core writes into memory that is no longer theirs: a
process in which that has happened ends by SIGSEGV, sooner or later. So each request is kept by a task that nothing but its own end ends.

This reaches into grpc.aio, since nothing public does; where a later version is built otherwise, its own server is taken as it is.
"""

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, ClassVar, TypeAlias, cast

import grpc
from grpc._cython import cygrpc  # not public
from grpc.aio import _server as aio_server  # as above

Options: TypeAlias = Sequence[tuple[str, int]]


class LendingCore(cygrpc.AioServer):  # type: ignore[misc] # it has no types
    """grpc.aio's server beneath its public face."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.lent: set[asyncio.Task[Any]] = set()

    async def _request_call(self) -> Any:
        return await self._kept(super()._request_call())

    async def _request_registered_call(self, method: bytes) -> Any:
        return await self._kept(super()._request_registered_call(method))

    async def _kept(self, request: Coroutine[Any, Any, Any]) -> Any:
        task = asyncio.get_running_loop().create_task(request)
        self.lent.add(task)
        task.add_done_callback(self._given_back)
        return await asyncio.shield(task)

    def _given_back(self, task: asyncio.Task[Any]) -> None:
        self.lent.discard(task)
        if not task.cancelled():
            # When a server stops, the core gives every request back as a failure, which nobody waits for.
            task.exception()


class AnsweringCore(LendingCore):
    """Answers calls of methods that are not registered by itself; generic handlers are not asked."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        # Looked up here, so that a version that has them no longer is noticed as the server is made.
        self._handle = cygrpc._handle_rpc  # noqa: SLF001 - nothing public does
        self._schedule = cygrpc._schedule_rpc_coro  # noqa: SLF001 - as above
        self._nothing = cygrpc._MethodResolver([], {})  # noqa: SLF001 - as above
        self._answering: set[asyncio.Task[Any]] = set()

    async def _request_call(self) -> Any:
        while True:
            call = await super()._request_call()
            task = asyncio.get_running_loop().create_task(self._refuse(call))
            self._answering.add(task)
            task.add_done_callback(self._answering.discard)

    async def _refuse(self, call: Any) -> None:
        """Answer a call as grpc.aio answers one of a method that it does not know."""
        loop, name = asyncio.get_running_loop(), "unknown"
        answer = self._handle(name, self._nothing, (), call, loop, False)
        await self._schedule(answer, call, loop, name)


class KeptServer(aio_server.Server):
    """What `grpc.aio.server` returns, over a core that answers unknown methods by itself and keeps what it lends."""

    core: ClassVar[type[LendingCore]] = AnsweringCore

    def __init__(self, interceptors: Sequence[grpc.aio.ServerInterceptor], options: Options) -> None:
        # In place of the parent's own, which would make a core of the other kind.
        self._loop = cygrpc.get_working_loop()
        self._server = self.core(self._loop, None, (), tuple(interceptors), tuple(options), None)

    @property
    def lent(self) -> int:
        """How many requests are out in the core."""
        return len(self._server.lent)


def kept_server(interceptors: Sequence[grpc.aio.ServerInterceptor], options: Options) -> grpc.aio.Server:
    """Return a server with these interceptors, the outermost first, and channel arguments."""
    try:
        return cast("grpc.aio.Server", KeptServer(interceptors, options))
    except (AttributeError, TypeError):
        return grpc.aio.server(interceptors=interceptors, options=options)
