"""Refinements, both ways: the orchestrator asks, the refiner answers."""

from collections.abc import Iterator

from ensemble.v1 import analysis_pb2, refiner_service_pb2
from services.chassis.errors import FieldViolation, InvalidInput
from services.models.refinement import (
    DEFAULT_CANDIDATE_BYTE_LIMIT,
    MOST_JUDGES,
    MOST_SCHEMA_BYTES,
    Analysis,
    Refined,
    Refinement,
    RefinementCandidate,
    RefineMethod,
)
from services.models.wire.enums import EnumMap
from services.models.wire.plans import (
    message_from_proto,
    message_to_proto,
    retry_from_proto,
    retry_to_proto,
    sampling_from_proto,
    sampling_to_proto,
    writer_from_proto,
    writer_to_proto,
)
from services.models.wire.receipts import (
    call_from_proto,
    call_to_proto,
    degradations_from_proto,
    degradations_to_proto,
    provenance_from_proto,
    provenance_to_proto,
)

LEAST_BYTE_LIMIT, MOST_BYTE_LIMIT = 256, 1 << 20
MOST_CANDIDATES = 64
MOST_PASSES = 2
LONGEST_PROBLEM = 1024
METHODS = EnumMap(RefineMethod, refiner_service_pb2.RefineMethod.items(), "REFINE_METHOD_")
_OF_ONE_CANDIDATE = frozenset({RefineMethod.SCORE, RefineMethod.REPAIR})


def refinement_to_proto(refinement: Refinement) -> refiner_service_pb2.RefineRequest:
    """Return the message."""
    return refiner_service_pb2.RefineRequest(
        run_id=refinement.run_id,
        tenant=refinement.tenant,
        messages=[message_to_proto(message) for message in refinement.messages],
        candidates=[
            refiner_service_pb2.RefinementCandidate(
                candidate_id=candidate.candidate_id, model=candidate.model, text=candidate.text, weight=candidate.weight, rank=candidate.rank
            )
            for candidate in refinement.candidates
        ],
        writer=writer_to_proto(refinement.writer),
        generation=sampling_to_proto(refinement.sampling),
        shuffle_seed=refinement.shuffle_seed,
        candidate_byte_limit=refinement.candidate_byte_limit,
        method=METHODS.to_wire(refinement.method),
        judges=[writer_to_proto(judge) for judge in refinement.judges],
        passes=refinement.passes,
        analysis=None if refinement.analysis is None else analysis_to_proto(refinement.analysis),
        response_schema=refinement.response_schema,
        max_cost_micro_usd=refinement.max_cost_micro_usd,
        problem=refinement.problem,
        retry=retry_to_proto(refinement.retry),
    )


def refinement_from_proto(message: refiner_service_pb2.RefineRequest) -> Refinement:
    """Return the refinement. Raises `InvalidInput` naming every field that is wrong."""
    violations = _violations(message)
    if violations:
        raise InvalidInput(violations)
    return Refinement(
        run_id=message.run_id,
        tenant=message.tenant,
        messages=tuple(message_from_proto(turn, f"messages[{position}]") for position, turn in enumerate(message.messages)),
        candidates=tuple(
            RefinementCandidate(
                candidate_id=candidate.candidate_id,
                model=candidate.model,
                text=candidate.text,
                weight=candidate.weight if candidate.HasField("weight") else 1.0,
                rank=candidate.rank if candidate.HasField("rank") else None,
            )
            for candidate in message.candidates
        ),
        writer=writer_from_proto(message.writer),
        sampling=sampling_from_proto(message.generation),
        shuffle_seed=message.shuffle_seed if message.HasField("shuffle_seed") else None,
        candidate_byte_limit=message.candidate_byte_limit if message.HasField("candidate_byte_limit") else DEFAULT_CANDIDATE_BYTE_LIMIT,
        method=METHODS.from_wire(message.method) or RefineMethod.FUSE,
        judges=tuple(writer_from_proto(judge) for judge in message.judges),
        passes=message.passes if message.HasField("passes") else 1,
        analysis=analysis_from_proto(message.analysis) if message.HasField("analysis") else None,
        response_schema=message.response_schema,
        max_cost_micro_usd=message.max_cost_micro_usd if message.HasField("max_cost_micro_usd") else None,
        problem=message.problem,
        retry=retry_from_proto(message.retry),
    )


def _violations(message: refiner_service_pb2.RefineRequest) -> list[FieldViolation]:
    found = [
        FieldViolation(field=field, description="is required")
        for field, present in (
            ("run_id", message.run_id),
            ("messages", message.messages),
            ("candidates", message.candidates),
            ("writer.model", message.writer.model),
        )
        if not present
    ]
    if len(message.candidates) > MOST_CANDIDATES:
        found.append(FieldViolation(field="candidates", description=f"has {len(message.candidates)} entries; at most {MOST_CANDIDATES} are allowed"))
    seen: set[str] = set()
    for position, candidate in enumerate(message.candidates):
        if not candidate.candidate_id:
            found.append(FieldViolation(field=f"candidates[{position}].candidate_id", description="is required"))
        elif candidate.candidate_id in seen:
            found.append(FieldViolation(field=f"candidates[{position}].candidate_id", description="is given twice"))
        seen.add(candidate.candidate_id)
        if not candidate.text:
            found.append(FieldViolation(field=f"candidates[{position}].text", description="is required"))
    if message.HasField("candidate_byte_limit") and not LEAST_BYTE_LIMIT <= message.candidate_byte_limit <= MOST_BYTE_LIMIT:
        found.append(FieldViolation(field="candidate_byte_limit", description=f"must lie between {LEAST_BYTE_LIMIT} and {MOST_BYTE_LIMIT}"))
    return [*found, *_method_violations(message)]


def _method_violations(message: refiner_service_pb2.RefineRequest) -> Iterator[FieldViolation]:
    method = METHODS.from_wire(message.method)
    if message.method and method is None:
        yield FieldViolation(field="method", description="is not one that this version knows")
    if method in _OF_ONE_CANDIDATE and len(message.candidates) > 1:
        yield FieldViolation(field="candidates", description=f"has {len(message.candidates)} entries; the method takes one")
    if len(message.judges) > MOST_JUDGES:
        yield FieldViolation(field="judges", description=f"has {len(message.judges)} entries; at most {MOST_JUDGES} are allowed")
    for position, judge in enumerate(message.judges):
        if not judge.model:
            yield FieldViolation(field=f"judges[{position}].model", description="is required")
    if message.HasField("passes") and not 1 <= message.passes <= MOST_PASSES:
        yield FieldViolation(field="passes", description=f"must lie between 1 and {MOST_PASSES}")
    if len(message.response_schema.encode()) > MOST_SCHEMA_BYTES:
        yield FieldViolation(field="response_schema", description=f"is larger than {MOST_SCHEMA_BYTES} bytes")
    if message.HasField("max_cost_micro_usd") and message.max_cost_micro_usd < 0:
        yield FieldViolation(field="max_cost_micro_usd", description="must be at least 0")
    if len(message.problem) > LONGEST_PROBLEM:
        yield FieldViolation(field="problem", description=f"has more than {LONGEST_PROBLEM} characters")


def analysis_to_proto(analysis: Analysis) -> analysis_pb2.Analysis:
    """Return the message."""
    return analysis_pb2.Analysis(
        consensus=analysis.consensus,
        contradictions=analysis.contradictions,
        partial_coverage=analysis.partial_coverage,
        unique_insights=analysis.unique_insights,
        blind_spots=analysis.blind_spots,
    )


def analysis_from_proto(message: analysis_pb2.Analysis) -> Analysis:
    """Return the analysis."""
    return Analysis(
        consensus=tuple(message.consensus),
        contradictions=tuple(message.contradictions),
        partial_coverage=tuple(message.partial_coverage),
        unique_insights=tuple(message.unique_insights),
        blind_spots=tuple(message.blind_spots),
    )


def refined_to_proto(refined: Refined) -> refiner_service_pb2.RefineResponse:
    """Return the message."""
    return refiner_service_pb2.RefineResponse(
        answer=refined.answer,
        provenance=provenance_to_proto(refined.provenance),
        calls=[call_to_proto(call) for call in refined.calls],
        degradations=degradations_to_proto(refined.degradations),
        analysis=None if refined.analysis is None else analysis_to_proto(refined.analysis),
        score=refined.score,
    )


def refined_from_proto(message: refiner_service_pb2.RefineResponse) -> Refined:
    """Return the one answer."""
    return Refined(
        answer=message.answer,
        provenance=provenance_from_proto(message.provenance),
        calls=tuple(call_from_proto(call) for call in message.calls),
        degradations=degradations_from_proto(message.degradations),
        analysis=analysis_from_proto(message.analysis) if message.HasField("analysis") else None,
        score=message.score if message.HasField("score") else None,
    )
