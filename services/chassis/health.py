"""`grpc.health.v1` from named components.

The name "" says that the process is alive; the full service name says that every component is ready. On drain everything says NOT_SERVING and each open Watch
ends, since an open one would hold the server's stop up for the whole grace. The servicer of grpcio-health-checking is not used: its Watch streams cannot be
ended from outside, and setting a status is a coroutine there, so that the order of two changes would hang on two tasks.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN

Context = grpc.aio.ServicerContext[Any, Any]


class ComponentHealth:
    """A service's readiness as the conjunction of its components'; what the health servicer tells."""

    def __init__(self, service_name: str) -> None:
        self._service_name = service_name
        self._ready: dict[str, bool] = {}
        self._draining = False
        self._changed = asyncio.Event()
        self._watchers = 0

    @property
    def components(self) -> dict[str, bool]:
        """Which components there are and whether each is ready."""
        return dict(self._ready)

    @property
    def draining(self) -> bool:
        """Whether the server is about to stop."""
        return self._draining

    @property
    def watched(self) -> bool:
        """Whether anybody is told of changes."""
        return self._watchers > 0

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Count a watcher."""
        self._watchers += 1
        try:
            yield
        finally:
            self._watchers -= 1

    def statuses(self) -> Mapping[str, int]:
        """Return the status of each name that is known."""
        ready = not self._draining and bool(self._ready) and all(self._ready.values())
        return {"": _NOT_SERVING if self._draining else _SERVING, self._service_name: _SERVING if ready else _NOT_SERVING}

    def set(self, component: str, ready: bool) -> None:
        """Say whether a component is ready; the service is while all are."""
        self._ready[component] = ready
        self._tell()

    def drain(self) -> None:
        """Say NOT_SERVING for good and end every Watch."""
        self._draining = True
        self._tell()

    async def changed(self) -> None:
        """Wait until something is said anew."""
        await self._changed.wait()

    def _tell(self) -> None:
        # Whoever waits holds the old event; whoever waits next gets a fresh one.
        self._changed.set()
        self._changed = asyncio.Event()


class HealthServicer(health_pb2_grpc.HealthServicer):  # type: ignore[misc] # the package ships no types
    """Answers probes."""

    def __init__(self, health: ComponentHealth) -> None:
        self._health = health

    async def Check(self, request: health_pb2.HealthCheckRequest, context: Context) -> health_pb2.HealthCheckResponse:  # noqa: N802 - the RPC's name
        """Tell a name's status; NOT_FOUND for a name that is not known."""
        status = self._health.statuses().get(request.service)
        if status is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no service of that name")
        return health_pb2.HealthCheckResponse(status=status)

    async def List(self, request: health_pb2.HealthListRequest, context: Context) -> health_pb2.HealthListResponse:  # noqa: ARG002, N802 - an RPC
        """Tell the status of every name."""
        statuses = {name: health_pb2.HealthCheckResponse(status=status) for name, status in self._health.statuses().items()}
        return health_pb2.HealthListResponse(statuses=statuses)

    async def Watch(self, request: health_pb2.HealthCheckRequest, context: Context) -> AsyncIterator[health_pb2.HealthCheckResponse]:  # noqa: ARG002, N802 - an RPC
        """Tell a name's status now and with each change, until the caller leaves or the server drains."""
        told = None
        with self._health.watching():
            while True:
                status = self._health.statuses().get(request.service, _UNKNOWN)
                if status != told:
                    told = status
                    yield health_pb2.HealthCheckResponse(status=status)
                elif self._health.draining:
                    return
                else:
                    await self._health.changed()
