"""An orchestrator and a limiter that do as a test says, on a real server."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from ensemble.v1 import limiter_service_pb2, limiter_service_pb2_grpc, model_state_pb2, orchestrator_service_pb2, orchestrator_service_pb2_grpc

Context = grpc.aio.ServicerContext[Any, Any]
Refusal = tuple[grpc.StatusCode, str, bytes]
"""Code, text and a serialized google.rpc.Status; empty bytes send none."""


async def refuse(context: Context, refusal: Refusal) -> None:
    """End the call with an error, as another service would."""
    code, text, details = refusal
    await context.abort(code, text, (("grpc-status-details-bin", details),) if details else ())


class FakeOrchestrator(orchestrator_service_pb2_grpc.OrchestratorServiceServicer):
    """Records what it is asked, then answers, refuses or hangs."""

    def __init__(self) -> None:
        self.requests: list[orchestrator_service_pb2.RunRequest] = []
        self.seconds_left: list[float] = []
        """What was left of each call's deadline when it arrived."""
        self.metadata: list[dict[str, str | bytes]] = []
        """What came with each call."""
        self.response = orchestrator_service_pb2.RunResponse(answer="42")
        self.events: list[orchestrator_service_pb2.StreamRunResponse] = []
        """What a stream tells before it ends, refuses or hangs."""
        self.endless = False
        """Whether a stream repeats its events for as long as it is read."""
        self.refusal: Refusal | None = None
        self.hanging = False
        self.finish = asyncio.Event()
        """Ends the hanging with an answer."""
        self.arrived = asyncio.Event()
        self.cancelled = asyncio.Event()
        """Set when a call was cancelled from the other side."""

    async def Run(self, request: orchestrator_service_pb2.RunRequest, context: Context) -> orchestrator_service_pb2.RunResponse:
        """Behave as told."""
        await self._begin(request, context)
        await self._end(context)
        return self.response

    async def StreamRun(
        self, request: orchestrator_service_pb2.StreamRunRequest, context: Context
    ) -> AsyncIterator[orchestrator_service_pb2.StreamRunResponse]:
        """Tell the events, then behave as told."""
        await self._begin(request.run, context)
        try:
            for event in self.events:
                yield event
            while self.endless:
                for event in self.events:
                    yield event
        except (asyncio.CancelledError, GeneratorExit):
            self.cancelled.set()
            raise
        await self._end(context)

    async def _begin(self, request: orchestrator_service_pb2.RunRequest, context: Context) -> None:
        self.requests.append(request)
        self.seconds_left.append(context.time_remaining())
        self.metadata.append(dict(context.invocation_metadata() or ()))
        self.arrived.set()

    async def _end(self, context: Context) -> None:
        if self.refusal is not None:
            await refuse(context, self.refusal)
        if self.hanging:
            try:
                await self.finish.wait()
            except asyncio.CancelledError:
                self.cancelled.set()
                raise


class FakeLimiter(limiter_service_pb2_grpc.LimiterServiceServicer):
    """Tells the states it was given."""

    def __init__(self) -> None:
        self.states: list[model_state_pb2.ModelState] = []
        self.refusal: Refusal | None = None

    async def GetState(self, request: limiter_service_pb2.GetStateRequest, context: Context) -> limiter_service_pb2.GetStateResponse:
        """Behave as told."""
        if self.refusal is not None:
            await refuse(context, self.refusal)
        return limiter_service_pb2.GetStateResponse(models=self.states)


class FakeServer:
    """The server that both stand on."""

    def __init__(self, orchestrator: FakeOrchestrator, limiter: FakeLimiter) -> None:
        self._orchestrator = orchestrator
        self._limiter = limiter
        self._server: grpc.aio.Server | None = None
        self._health = health.aio.HealthServicer()
        self.address = "127.0.0.1:0"

    async def start(self) -> None:
        """Listen, on a port of the system's choice at first and on the same one again after `stop`."""
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        self._health = health.aio.HealthServicer()
        orchestrator_service_pb2_grpc.add_OrchestratorServiceServicer_to_server(self._orchestrator, self._server)
        limiter_service_pb2_grpc.add_LimiterServiceServicer_to_server(self._limiter, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        for service in ("ensemble.v1.OrchestratorService", "ensemble.v1.LimiterService"):
            await self._health.set(service, health_pb2.HealthCheckResponse.SERVING)
        port = self._server.add_insecure_port(self.address)
        self.address = f"127.0.0.1:{port}"
        await self._server.start()

    async def stop(self) -> None:
        """Vanish at once."""
        if self._server is not None:
            await self._server.stop(None)
            self._server = None


@asynccontextmanager
async def serve_fakes(orchestrator: FakeOrchestrator, limiter: FakeLimiter) -> AsyncIterator[FakeServer]:
    """Run both on one port."""
    server = FakeServer(orchestrator, limiter)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()
