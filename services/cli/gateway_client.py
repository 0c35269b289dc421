"""A client of the gateway: a channel, a deadline, a trace of its own, and the key of whoever asks."""

import os
import random
import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import grpc

from ensemble.v1 import gateway_service_pb2, gateway_service_pb2_grpc
from services.cli.exit_codes import CommandError, ExitCode
from services.cli.rpc_errors import CallFailed, failure_of

MAX_MESSAGE_BYTES = 8 << 20
CHANNEL_OPTIONS = [
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # Where http_proxy is set, gRPC would ask it even for a service on this machine.
    ("grpc.enable_http_proxy", 0),
]
KEY_VARIABLE = "ENSEMBLE_API_KEY"
"""Where the key is; an argument would be seen by everybody on the machine."""
_VISIBLE = re.compile(r"[!-~]+")

Metadata = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Trace:
    """A sampled trace that begins here (W3C Trace Context), so that whoever asks knows its id, however the call ends."""

    trace_id: str
    span_id: str

    @classmethod
    def begun(cls) -> "Trace":
        """Return a fresh one."""
        # Ids must differ, not be unpredictable.
        return cls(f"{random.getrandbits(128) or 1:032x}", f"{random.getrandbits(64) or 1:016x}")

    def metadata(self) -> Metadata:
        """Return what carries it."""
        return (("traceparent", f"00-{self.trace_id}-{self.span_id}-01"),)


@dataclass(frozen=True, slots=True)
class GatewayClient:
    """Calls to one gateway within one trace."""

    stub: "gateway_service_pb2_grpc.GatewayServiceAsyncStub"
    trace: Trace
    authorization: Metadata = field(default=(), repr=False)
    """What carries the key; empty where there is none."""

    async def stream(self, request: gateway_service_pb2.GenerateRequest, *, timeout: float) -> AsyncGenerator[gateway_service_pb2.StreamGenerateResponse, None]:
        """Ask and yield what happens; leaving the stream cancels the run."""
        streamed = gateway_service_pb2.StreamGenerateRequest(generate=request)
        call = self.stub.StreamGenerate(streamed, timeout=timeout, metadata=self._metadata())
        try:
            async for event in call:
                yield event
        finally:
            call.cancel()

    async def generate(self, request: gateway_service_pb2.GenerateRequest, *, timeout: float) -> gateway_service_pb2.GenerateResponse:
        """Ask and return the whole response."""
        return await self.stub.Generate(request, timeout=timeout, metadata=self._metadata())

    async def models(self, *, timeout: float) -> gateway_service_pb2.ListModelsResponse:
        """Return the models."""
        return await self.stub.ListModels(gateway_service_pb2.ListModelsRequest(), timeout=timeout, metadata=self._metadata())

    async def profiles(self, *, timeout: float) -> gateway_service_pb2.ListProfilesResponse:
        """Return the ensembles."""
        return await self.stub.ListProfiles(gateway_service_pb2.ListProfilesRequest(), timeout=timeout, metadata=self._metadata())

    def _metadata(self) -> Metadata:
        return (*self.trace.metadata(), *self.authorization)


@asynccontextmanager
async def gateway_at(address: str) -> AsyncIterator[GatewayClient]:
    """Open a channel to a gateway. Calls that fail inside raise `CallFailed`; an address that is none, or a key that cannot be sent, raises `CommandError`."""
    trace = Trace.begun()
    authorization = authorization_of(os.environ)
    try:
        async with channel_to(address) as channel:
            stub: gateway_service_pb2_grpc.GatewayServiceAsyncStub = gateway_service_pb2_grpc.GatewayServiceStub(channel)
            yield GatewayClient(stub, trace, authorization)
    except grpc.aio.AioRpcError as error:
        raise CallFailed(failure_of(error), address=address, trace_id=trace.trace_id) from None


def authorization_of(environ: Mapping[str, str]) -> Metadata:
    """Return what carries the key that stands in the environment; nothing where none does. Raises `CommandError`, which does not repeat it."""
    key = environ.get(KEY_VARIABLE, "").strip()
    if not key:
        return ()
    if _VISIBLE.fullmatch(key) is None:
        raise CommandError(f"{KEY_VARIABLE} holds what no key is: it must be one word of visible ASCII characters", ExitCode.WRONG)
    return (("authorization", f"Bearer {key}"),)


@asynccontextmanager
async def channel_to(address: str, *options: tuple[str, int]) -> AsyncIterator[grpc.aio.Channel]:
    """Open a channel with further options of gRPC. Raises `CommandError` for what is no address."""
    if _VISIBLE.fullmatch(address) is None:
        raise CommandError(f"{address!r} is not an address; write HOST:PORT", ExitCode.WRONG)
    async with grpc.aio.insecure_channel(address, options=[*CHANNEL_OPTIONS, *options]) as channel:
        yield channel
