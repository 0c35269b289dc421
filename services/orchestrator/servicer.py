"""OrchestratorService on the wire."""

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import grpc

from ensemble.v1 import candidate_pb2, orchestrator_service_pb2, orchestrator_service_pb2_grpc, run_event_pb2
from services.chassis.event_stream import Put, stream_events
from services.chassis.server_deadline import deadline_of
from services.chassis.trace_context import current_trace_id
from services.models.prompting.fitting import fair_shares
from services.models.wire.permits import ATTEMPT_KINDS
from services.models.wire.plans import plan_from_proto
from services.models.wire.receipts import OUTCOMES, call_to_proto, degradations_to_proto, provenance_to_proto, receipt_to_proto, stage_to_proto
from services.models.wire.refinements import analysis_to_proto
from services.orchestrator.ensemble import Ensemble, RunResult
from services.orchestrator.events import (
    AnswerDelta,
    Candidate,
    CandidateDelta,
    CandidateFinished,
    CandidateStarted,
    RefinementStarted,
    RunEvent,
    RunStarted,
    StageFinished,
)

RESPONSE_BYTES = 4 << 20
"""What a gRPC client takes that sets no limit of its own."""
ROOM_FOR_THE_REST_BYTES = 1 << 19
"""For everything of a response but its texts: receipt, provenance, analysis."""
DEFAULT_DEADLINE_SECONDS = 60.0
DEADLINE_CAP_SECONDS = 3600.0

Context = grpc.aio.ServicerContext[Any, Any]


class OrchestratorServicer(orchestrator_service_pb2_grpc.OrchestratorServiceServicer):
    """Translates; the `Ensemble` decides."""

    def __init__(self, ensemble: Ensemble) -> None:
        self._ensemble = ensemble

    async def Run(self, request: orchestrator_service_pb2.RunRequest, context: Context) -> orchestrator_service_pb2.RunResponse:
        """Run a plan and return the answer with its receipt."""
        plan = plan_from_proto(request)
        deadline = deadline_of(context, default_seconds=DEFAULT_DEADLINE_SECONDS, cap_seconds=DEADLINE_CAP_SECONDS)
        return result_to_proto(await self._ensemble.run(plan, deadline))

    async def StreamRun(
        self, request: orchestrator_service_pb2.StreamRunRequest, context: Context
    ) -> AsyncIterator[orchestrator_service_pb2.StreamRunResponse]:
        """Run a plan and stream what happens; the last event is the whole response."""
        plan = plan_from_proto(request.run)
        deadline = deadline_of(context, default_seconds=DEFAULT_DEADLINE_SECONDS, cap_seconds=DEADLINE_CAP_SECONDS)
        trace_id = current_trace_id()

        async def work(put: Put[orchestrator_service_pb2.StreamRunResponse]) -> orchestrator_service_pb2.StreamRunResponse:
            result = await self._ensemble.run(plan, deadline, lambda event: put(event_to_proto(event, trace_id)))
            return orchestrator_service_pb2.StreamRunResponse(run_finished=result_to_proto(result))

        async with aclosing(stream_events(work)) as events:
            async for event in events:
                yield event


def candidate_to_proto(candidate: Candidate) -> candidate_pb2.Candidate:
    """Return the message."""
    return candidate_pb2.Candidate(
        candidate_id=candidate.candidate_id,
        member_id=candidate.member_id,
        model=candidate.model,
        outcome=OUTCOMES.to_wire(candidate.call.outcome),
        text=candidate.text,
        truncated=candidate.truncated,
        finish_reason=candidate.finish_reason,
    )


def fitting(candidates: Sequence[Candidate], room: int) -> list[Candidate]:
    """Return the candidates with their texts cut, in even shares, to so many bytes together: a response that is too large would lose a run that is paid for."""
    sizes = [len(candidate.text.encode()) for candidate in candidates]
    if sum(sizes) <= room:
        return list(candidates)
    return [
        candidate if size <= share else replace(candidate, text=candidate.text.encode()[:share].decode(errors="ignore"), truncated=True)
        for candidate, size, share in zip(candidates, sizes, fair_shares(sizes, room), strict=True)
    ]


def result_to_proto(result: RunResult) -> orchestrator_service_pb2.RunResponse:
    """Return the message."""
    room = RESPONSE_BYTES - ROOM_FOR_THE_REST_BYTES - len(result.answer.text.encode())
    return orchestrator_service_pb2.RunResponse(
        run_id=result.run_id,
        answer=result.answer.text,
        candidates=[candidate_to_proto(candidate) for candidate in fitting(result.candidates, room)],
        receipt=receipt_to_proto(result.receipt),
        provenance=provenance_to_proto(result.answer.provenance),
        degraded=bool(result.answer.degradations),
        degradations=degradations_to_proto(result.answer.degradations),
        trace_id=result.trace_id,
        analysis=None if result.answer.analysis is None else analysis_to_proto(result.answer.analysis),
    )


def event_to_proto(event: RunEvent, trace_id: str) -> orchestrator_service_pb2.StreamRunResponse:
    """Return the message."""
    response = orchestrator_service_pb2.StreamRunResponse
    match event:
        case RunStarted():
            return response(
                run_started=run_event_pb2.RunStarted(run_id=event.run_id, strategy=event.strategy, candidate_ids=event.candidate_ids, trace_id=trace_id)
            )
        case CandidateStarted():
            return response(
                candidate_started=run_event_pb2.CandidateStarted(
                    candidate_id=event.candidate_id, model=event.model, attempt=event.attempt, attempt_kind=ATTEMPT_KINDS.to_wire(event.kind)
                )
            )
        case CandidateDelta():
            return response(candidate_delta=run_event_pb2.CandidateDelta(candidate_id=event.candidate_id, text=event.text, restart=event.restart))
        case CandidateFinished():
            return response(
                candidate_finished=run_event_pb2.CandidateFinished(candidate=candidate_to_proto(event.candidate), call=call_to_proto(event.candidate.call))
            )
        case RefinementStarted():
            return response(refinement_started=run_event_pb2.RefinementStarted(model=event.model, candidate_ids=event.candidate_ids, stage=event.stage))
        case StageFinished():
            return response(stage_finished=run_event_pb2.StageFinished(stage=stage_to_proto(event.stage)))
        case AnswerDelta():
            return response(answer_delta=run_event_pb2.AnswerDelta(text=event.text, restart=event.restart))
