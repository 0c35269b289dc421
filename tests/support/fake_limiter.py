"""A limiter that tells the states a test gives it, on a real server."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc

from ensemble.v1 import limiter_service_pb2, limiter_service_pb2_grpc, model_state_pb2

Context = grpc.aio.ServicerContext[Any, Any]
Step = limiter_service_pb2.WatchStateResponse | asyncio.Event | grpc.StatusCode
"""Of a stream: something to tell, something to wait for, or the status to end with."""


class FakeLimiter(limiter_service_pb2_grpc.LimiterServiceServicer):
    """Records what it is asked, then tells its state or streams, refuses or hangs; it decides nothing."""

    def __init__(self) -> None:
        self.address = ""
        self.requests: list[Any] = []
        self.state = limiter_service_pb2.GetStateResponse()
        self.streams: list[Sequence[Step]] = []
        """What each watch is told, first come, first served; a watch that was told everything is left open."""
        self.refusal: tuple[grpc.StatusCode, str, bytes] | None = None
        """Code, text and details of the error that every call ends with."""
        self.hanging = False
        """Whether calls wait until they are cancelled."""
        self.arrived = asyncio.Event()
        self.cancelled = asyncio.Event()

    async def AcquirePermits(self, request: limiter_service_pb2.AcquirePermitsRequest, context: Context) -> limiter_service_pb2.AcquirePermitsResponse:
        """Never asked."""
        raise NotImplementedError

    async def ReportOutcomes(self, request: limiter_service_pb2.ReportOutcomesRequest, context: Context) -> limiter_service_pb2.ReportOutcomesResponse:
        """Never asked."""
        raise NotImplementedError

    async def RenewPermits(self, request: limiter_service_pb2.RenewPermitsRequest, context: Context) -> limiter_service_pb2.RenewPermitsResponse:
        """Never asked."""
        raise NotImplementedError

    async def ReleasePermits(self, request: limiter_service_pb2.ReleasePermitsRequest, context: Context) -> limiter_service_pb2.ReleasePermitsResponse:
        """Never asked."""
        raise NotImplementedError

    async def GetState(self, request: limiter_service_pb2.GetStateRequest, context: Context) -> limiter_service_pb2.GetStateResponse:
        """Tell the state, whatever was asked for."""
        await self._begin(request, context)
        return self.state

    async def WatchState(self, request: limiter_service_pb2.WatchStateRequest, context: Context) -> AsyncIterator[limiter_service_pb2.WatchStateResponse]:
        """Go through the next stream."""
        await self._begin(request, context)
        for step in self.streams.pop(0):
            if isinstance(step, asyncio.Event):
                await step.wait()
            elif isinstance(step, grpc.StatusCode):
                if step is not grpc.StatusCode.OK:
                    await context.abort(step, "as told")
                return
            else:
                yield step
        await self._hang()

    async def SetOverride(self, request: limiter_service_pb2.SetOverrideRequest, context: Context) -> limiter_service_pb2.SetOverrideResponse:
        """Put the override on the model's state."""
        await self._begin(request, context)
        state = model_state_pb2.ModelState(model=request.model, override=request.mode)
        if request.HasField("ttl"):
            state.override_for.CopyFrom(request.ttl)
        return limiter_service_pb2.SetOverrideResponse(model=state)

    async def _begin(self, request: Any, context: Context) -> None:
        self.requests.append(request)
        self.arrived.set()
        if self.refusal is not None:
            code, text, details = self.refusal
            await context.abort(code, text, (("grpc-status-details-bin", details),) if details else ())
        if self.hanging:
            await self._hang()

    async def _hang(self) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise


@asynccontextmanager
async def fake_limiter(limiter: FakeLimiter | None = None) -> AsyncIterator[FakeLimiter]:
    """Run one on a free port, or one that ran before where it was."""
    limiter = limiter or FakeLimiter()
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    limiter_service_pb2_grpc.add_LimiterServiceServicer_to_server(limiter, server)
    limiter.address = f"127.0.0.1:{server.add_insecure_port(limiter.address or '127.0.0.1:0')}"
    await server.start()
    try:
        yield limiter
    finally:
        await server.stop(None)
