"""A gateway that says what a test tells it to, on a real server."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from ensemble.v1 import candidate_pb2, gateway_service_pb2, gateway_service_pb2_grpc, outcome_pb2, provenance_pb2, receipt_pb2, run_event_pb2

Context = grpc.aio.ServicerContext[Any, Any]
Gateway = TypeVar("Gateway", bound="FakeGateway")


class FakeGateway(gateway_service_pb2_grpc.GatewayServiceServicer):
    """Records what it is asked, then tells its events or answers, refuses or hangs."""

    def __init__(self) -> None:
        self.address = ""
        self.requests: list[gateway_service_pb2.GenerateRequest] = []
        self.traceparents: list[str] = []
        self.answer = "an answer"
        self.texts = {"alpha": "its text"}
        """Candidates' texts by their ids."""
        self.deltas: list[run_event_pb2.AnswerDelta] = []
        """What a stream tells of the answer before it is whole."""
        self.cached_age: Duration | None = None
        """How long ago the answer was made; None where it is not cached."""
        self.models: list[gateway_service_pb2.Model] = []
        self.finishing = True
        """Whether a stream ends with the whole response."""
        self.refusal: tuple[grpc.StatusCode, str, bytes] | None = None
        """Code, text and details of the error that every call ends with."""
        self.hanging = False
        """Whether calls wait until they are released."""
        self._released = asyncio.Event()
        self.arrived = asyncio.Event()
        self.cancelled = asyncio.Event()

    def release(self) -> None:
        """Let the calls that wait go on; later ones wait again."""
        self._released.set()
        self._released = asyncio.Event()

    def response(self) -> gateway_service_pb2.GenerateResponse:
        """Return the whole response."""
        cached = self.cached_age is not None
        called = [] if cached else list(self.texts)
        calls = [receipt_pb2.CallReceipt(candidate_id=name, member_id=name, model="m", outcome=outcome_pb2.OUTCOME_OK) for name in called]
        return gateway_service_pb2.GenerateResponse(
            run_id="run-1",
            answer=self.answer,
            candidates=[candidate_pb2.Candidate(candidate_id=name, outcome=outcome_pb2.OUTCOME_OK, text=text) for name, text in self.texts.items()],
            receipt=receipt_pb2.Receipt(calls=calls, cached=cached, cached_age=self.cached_age),
            provenance=provenance_pb2.Provenance(method=provenance_pb2.METHOD_FUSED, candidate_ids=list(self.texts), answer_model="w"),
            trace_id=self.traceparents[-1].split("-")[1],
        )

    async def Generate(self, request: gateway_service_pb2.GenerateRequest, context: Context) -> gateway_service_pb2.GenerateResponse:
        """Behave as told."""
        await self._begin(request, context)
        return self.response()

    async def StreamGenerate(
        self, request: gateway_service_pb2.StreamGenerateRequest, context: Context
    ) -> AsyncIterator[gateway_service_pb2.StreamGenerateResponse]:
        """Behave as told."""
        self._record(request.generate, context)
        for event in self._events():
            yield event
        await self._end(context)
        if self.finishing:
            yield gateway_service_pb2.StreamGenerateResponse(run_finished=self.response())

    async def ListModels(self, request: gateway_service_pb2.ListModelsRequest, context: Context) -> gateway_service_pb2.ListModelsResponse:
        """Behave as told."""
        await self._end(context)
        return gateway_service_pb2.ListModelsResponse(models=self.models)

    async def ListProfiles(self, request: gateway_service_pb2.ListProfilesRequest, context: Context) -> gateway_service_pb2.ListProfilesResponse:
        """Behave as told; there are none."""
        await self._end(context)
        return gateway_service_pb2.ListProfilesResponse()

    def _events(self) -> list[gateway_service_pb2.StreamGenerateResponse]:
        event = gateway_service_pb2.StreamGenerateResponse
        started = run_event_pb2.RunStarted(run_id="run-1", strategy="fusion", candidate_ids=list(self.texts), trace_id="")
        return [
            event(run_started=started),
            *(event(candidate_started=run_event_pb2.CandidateStarted(candidate_id=name, model="m")) for name in self.texts),
            *(event(answer_delta=delta) for delta in self.deltas),
        ]

    async def _begin(self, request: gateway_service_pb2.GenerateRequest, context: Context) -> None:
        self._record(request, context)
        await self._end(context)

    def _record(self, request: gateway_service_pb2.GenerateRequest, context: Context) -> None:
        self.requests.append(request)
        self.traceparents += [str(value) for key, value in context.invocation_metadata() or () if key == "traceparent"]

    async def _end(self, context: Context) -> None:
        self.arrived.set()
        if self.refusal is not None:
            code, text, details = self.refusal
            await context.abort(code, text, (("grpc-status-details-bin", details),) if details else ())
        if self.hanging:
            try:
                await self._released.wait()
            except asyncio.CancelledError:
                self.cancelled.set()
                raise


@asynccontextmanager
async def fake_gateway() -> AsyncIterator[FakeGateway]:
    """Run one on a free port."""
    async with serving(FakeGateway()) as gateway:
        yield gateway


@asynccontextmanager
async def serving(gateway: Gateway) -> AsyncIterator[Gateway]:
    """Run this one on a free port."""
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", -1)])
    gateway_service_pb2_grpc.add_GatewayServiceServicer_to_server(gateway, server)
    gateway.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        yield gateway
    finally:
        await server.stop(None)


def details(*messages: Message, reason: str = "", **metadata: str) -> bytes:
    """Return a serialized google.rpc.Status with these details and, where there is a reason, an ErrorInfo."""
    status = status_pb2.Status()
    info = error_details_pb2.ErrorInfo(reason=reason, domain="ensemble", metadata=metadata)
    for message in (*([info] if reason else []), *messages):
        status.details.add().Pack(message)
    return bytes(status.SerializeToString())
