"""`grpc.health.v1` from named components.

The name "" says that the process is alive; the full service name says that every component is ready. On drain everything says NOT_SERVING and each open Watch
ends, since an open one would hold the server's stop up for the whole grace.
"""

import asyncio
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class DrainingHealthServicer(health.aio.HealthServicer):  # type: ignore[misc] # the package ships no types
    """The standard servicer, whose Watch streams end when the server drains."""

    def __init__(self) -> None:
        super().__init__()
        self._draining = asyncio.Event()

    async def Watch(self, request: health_pb2.HealthCheckRequest, context: grpc.aio.ServicerContext[Any, Any]) -> None:  # noqa: N802 - the RPC's name
        """Stream changes until the caller leaves or the server drains."""
        watching = asyncio.ensure_future(super().Watch(request, context))
        draining = asyncio.ensure_future(self._draining.wait())
        try:
            await asyncio.wait({watching, draining}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            draining.cancel()
            watching.cancel()
            await asyncio.wait({watching, draining})
        if self._draining.is_set():
            await context.write(health_pb2.HealthCheckResponse(status=_NOT_SERVING))

    async def drain(self) -> None:
        """Say NOT_SERVING for good and end every Watch."""
        await self.enter_graceful_shutdown()
        self._draining.set()


class ComponentHealth:
    """A service's readiness as the conjunction of its components'."""

    def __init__(self, service_name: str) -> None:
        self.servicer = DrainingHealthServicer()
        self._service_name = service_name
        self._ready: dict[str, bool] = {}
        self._updates: set[asyncio.Task[None]] = set()

    @property
    def components(self) -> dict[str, bool]:
        """Which components there are and whether each is ready."""
        return dict(self._ready)

    def set(self, component: str, ready: bool) -> None:
        """Say whether a component is ready; the service is while all are."""
        self._ready[component] = ready
        status = _SERVING if all(self._ready.values()) else _NOT_SERVING
        update = asyncio.ensure_future(self.servicer.set(self._service_name, status))
        # The event loop keeps no task alive by itself.
        self._updates.add(update)
        update.add_done_callback(self._updates.discard)

    async def drain(self) -> None:
        """Say NOT_SERVING for good and end every Watch."""
        if self._updates:
            await asyncio.wait(self._updates)
        await self.servicer.drain()
