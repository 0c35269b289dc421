"""An orchestrator and a limiter that answer at once, wait a little or refuse, as the request's own bytes decide; for the bulk of the requests.

Three runs of models take fifty times what the gateway takes for its part, and it is the gateway that strangers talk to.
"""

import asyncio
import sys
import zlib
from collections.abc import AsyncIterator
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from ensemble.v1 import (
    candidate_pb2,
    limiter_service_pb2,
    model_state_pb2,
    orchestrator_service_pb2,
    orchestrator_service_pb2_grpc,
    run_event_pb2,
)
from services.chassis.channel import MAX_MESSAGE_BYTES
from services.chassis.errors import EnsembleError, FieldViolation, InvalidInput, NoQuorum, NotFound
from services.chassis.status import DETAILS_KEY, to_status

Context = grpc.aio.ServicerContext[Any, Any]
ANSWER = "The capital of France is Paris."
_WAITS = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.002, 0.005, 0.02, 0.1)


class Orchestrator(orchestrator_service_pb2_grpc.OrchestratorServiceServicer):
    """Answers without a model."""

    async def Run(self, request: orchestrator_service_pb2.RunRequest, context: Context) -> orchestrator_service_pb2.RunResponse:  # noqa: N802 - an RPC
        """Answer, sooner or later, or refuse."""
        await _decide(request, context)
        return _response(request)

    async def StreamRun(  # noqa: N802 - an RPC
        self, request: orchestrator_service_pb2.StreamRunRequest, context: Context
    ) -> AsyncIterator[orchestrator_service_pb2.StreamRunResponse]:
        """Tell what happens, answer, or refuse."""
        response = orchestrator_service_pb2.StreamRunResponse
        yield response(run_started=run_event_pb2.RunStarted(run_id=request.run.run_id, strategy=request.run.strategy))
        await _decide(request.run, context)
        for word in ANSWER.split():
            yield response(answer_delta=run_event_pb2.AnswerDelta(text=word))
        yield response(run_finished=_response(request.run))


def limiter_handler() -> grpc.GenericRpcHandler:
    """Return the one method of the limiter that a gateway asks for, with one state."""

    async def tell(_: bytes, __: Context) -> bytes:
        return limiter_service_pb2.GetStateResponse(models=[model_state_pb2.ModelState(model="alpha")]).SerializeToString()

    return grpc.method_handlers_generic_handler("ensemble.v1.LimiterService", {"GetState": grpc.unary_unary_rpc_method_handler(tell)})


async def _decide(request: orchestrator_service_pb2.RunRequest, context: Context) -> None:
    decision = zlib.crc32(request.SerializeToString())
    if wait := _WAITS[decision % len(_WAITS)]:
        await asyncio.sleep(wait)
    # Those that ask for no candidates may be the good ones, which nobody refuses.
    refusal = _refusals(request).get(decision // 16 % 40) if request.include_candidates else None
    if refusal is not None:
        status = to_status(refusal)
        await context.abort(status.code, status.message, ((DETAILS_KEY, status.details),))


def _refusals(request: orchestrator_service_pb2.RunRequest) -> dict[int, EnsembleError]:
    """Return what an orchestrator may refuse a run with, by a number below 40."""
    outcomes = {member.id: "PROVIDER_FAILED:server_error" for member in request.members}
    return {
        0: NoQuorum(needed=2, succeeded=0, outcomes=outcomes, retryable=True, retry_after_seconds=1.5, cost_micro_usd=7),
        1: InvalidInput([FieldViolation(field="options.parameters.passes", description="should be less than or equal to 2")]),
        2: NotFound("strategy", request.strategy, ("fusion",)),
    }


def _response(request: orchestrator_service_pb2.RunRequest) -> orchestrator_service_pb2.RunResponse:
    candidates = [candidate_pb2.Candidate(candidate_id=member.id, member_id=member.id, model=member.model, text=ANSWER) for member in request.members]
    return orchestrator_service_pb2.RunResponse(run_id=request.run_id, answer=ANSWER, candidates=candidates)


async def serve() -> None:
    """Serve on a free port, print it, and end when standard input is closed."""
    server = grpc.aio.server(
        options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES), ("grpc.max_send_message_length", MAX_MESSAGE_BYTES)]
    )
    healthy = health.aio.HealthServicer()
    orchestrator_service_pb2_grpc.add_OrchestratorServiceServicer_to_server(Orchestrator(), server)
    server.add_generic_rpc_handlers((limiter_handler(),))
    health_pb2_grpc.add_HealthServicer_to_server(healthy, server)
    for service in ("ensemble.v1.OrchestratorService", "ensemble.v1.LimiterService"):
        await healthy.set(service, health_pb2.HealthCheckResponse.SERVING)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await server.stop(None)


if __name__ == "__main__":
    asyncio.run(serve())
