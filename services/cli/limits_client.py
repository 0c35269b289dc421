"""A client of the limiter: a channel, a deadline, a trace of its own."""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

import grpc
from google.protobuf.duration_pb2 import Duration

from ensemble.v1 import limiter_service_pb2, limiter_service_pb2_grpc, model_state_pb2
from services.cli.connection import Connection
from services.cli.gateway_client import Trace, channel_to
from services.cli.rpc_errors import CallFailed, failure_of

_WATCHING = (
    # A watch may say nothing for hours; without this it would not notice that the other end is gone.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Whose state is asked for; none named means all."""

    models: Sequence[str] = ()
    tenants: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class LimiterClient:
    """Calls to one limiter within one trace."""

    stub: "limiter_service_pb2_grpc.LimiterServiceAsyncStub"
    trace: Trace

    async def state(self, selection: Selection, *, timeout: float) -> limiter_service_pb2.GetStateResponse:
        """Return the state as it stands."""
        request = limiter_service_pb2.GetStateRequest(models=selection.models, tenants=selection.tenants)
        return await self.stub.GetState(request, timeout=timeout, metadata=self.trace.metadata())

    async def watch(self, selection: Selection) -> AsyncGenerator[limiter_service_pb2.WatchStateResponse, None]:
        """Yield the whole state, then each change; leaving the stream ends it."""
        request = limiter_service_pb2.WatchStateRequest(models=selection.models, tenants=selection.tenants)
        call = self.stub.WatchState(request, metadata=self.trace.metadata())
        try:
            async for response in call:
                yield response
        finally:
            call.cancel()

    async def set_override(
        self, model: str, mode: model_state_pb2.OverrideMode.ValueType, seconds: float | None, *, timeout: float
    ) -> limiter_service_pb2.SetOverrideResponse:
        """Set an override for so many seconds, or lift it."""
        request = limiter_service_pb2.SetOverrideRequest(model=model, mode=mode)
        if seconds is not None:
            ttl = Duration()
            ttl.FromTimedelta(timedelta(seconds=seconds))
            request.ttl.CopyFrom(ttl)
        return await self.stub.SetOverride(request, timeout=timeout, metadata=self.trace.metadata())


@asynccontextmanager
async def limiter_at(connection: Connection, *, watching: bool = False) -> AsyncIterator[LimiterClient]:
    """Open a channel to a limiter. Calls that fail inside raise `CallFailed`; an address that is none raises `CommandError`."""
    trace = Trace.begun()
    try:
        async with channel_to(connection, *(_WATCHING if watching else ())) as channel:
            stub: limiter_service_pb2_grpc.LimiterServiceAsyncStub = limiter_service_pb2_grpc.LimiterServiceStub(channel)
            yield LimiterClient(stub, trace)
    except grpc.aio.AioRpcError as error:
        raise CallFailed(failure_of(error), connection=connection, trace_id=trace.trace_id, service="limiter") from None
