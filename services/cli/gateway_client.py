"""A client of the gateway: a channel, a deadline, a trace of its own, and the key of whoever asks."""

import random
import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import grpc

from ensemble.v1 import gateway_service_pb2, gateway_service_pb2_grpc
from services.cli.connection import Connection
from services.cli.exit_codes import CommandError, ExitCode
from services.cli.rpc_errors import CallFailed, failure_of

MAX_MESSAGE_BYTES = 8 << 20
CHANNEL_OPTIONS = [
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # Where http_proxy is set, gRPC would ask it even for a service on this machine.
    ("grpc.enable_http_proxy", 0),
]
_TARGET = re.compile(r"[!-~]+")

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
        return cls(f"{random.getrandbits(128) or 1:032x}", f"{random.getrandbits(64) or 1:016x}")  # nosec B311 # ids that differ, not secrets

    def metadata(self) -> Metadata:
        """Return what carries it."""
        return (("traceparent", f"00-{self.trace_id}-{self.span_id}-01"),)


@dataclass(frozen=True, slots=True)
class GatewayClient:
    """Calls to one gateway within one trace."""

    stub: "gateway_service_pb2_grpc.GatewayServiceAsyncStub"
    trace: Trace
    credentials: Metadata = field(default=(), repr=False)
    """Says who asks."""

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
        return self.trace.metadata() + self.credentials


@asynccontextmanager
async def gateway_at(connection: Connection) -> AsyncIterator[GatewayClient]:
    """Open a channel to a gateway. Calls that fail inside raise `CallFailed`; an address that is none raises `CommandError`."""
    trace = Trace.begun()
    try:
        async with channel_to(connection) as channel:
            stub: gateway_service_pb2_grpc.GatewayServiceAsyncStub = gateway_service_pb2_grpc.GatewayServiceStub(channel)
            yield GatewayClient(stub, trace, connection.credentials())
    except grpc.aio.AioRpcError as error:
        raise CallFailed(failure_of(error), connection=connection, trace_id=trace.trace_id) from None


@asynccontextmanager
async def channel_to(connection: Connection, *more: tuple[str, int]) -> AsyncIterator[grpc.aio.Channel]:
    """Open a channel with further options of gRPC. Raises `CommandError` for what is no address."""
    if _TARGET.fullmatch(connection.address) is None:
        raise CommandError(f"{connection.address!r} is not an address; write HOST:PORT", ExitCode.WRONG)
    options: list[tuple[str, int | str]] = [*CHANNEL_OPTIONS, *more]
    tls = connection.tls
    if tls is None:
        opened = grpc.aio.insecure_channel(connection.address, options=options)
    else:
        if tls.server_name is not None:
            options.append(("grpc.ssl_target_name_override", tls.server_name))
        shown = tls.certificates
        opened = grpc.aio.secure_channel(connection.address, grpc.ssl_channel_credentials(shown.ca, shown.key, shown.chain), options=options)
    async with opened as channel:
        yield channel
