"""Refinements, both ways: the orchestrator asks, the refiner answers."""

from ensemble.v1 import refiner_service_pb2
from services.chassis.errors import FieldViolation, InvalidInput
from services.models.refinement import DEFAULT_CANDIDATE_BYTE_LIMIT, Refined, Refinement, RefinementCandidate
from services.models.wire.plans import message_from_proto, message_to_proto, sampling_from_proto, sampling_to_proto, writer_from_proto, writer_to_proto
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


def refinement_to_proto(refinement: Refinement) -> refiner_service_pb2.RefineRequest:
    """Return the message."""
    return refiner_service_pb2.RefineRequest(
        run_id=refinement.run_id,
        tenant=refinement.tenant,
        messages=[message_to_proto(message) for message in refinement.messages],
        candidates=[
            refiner_service_pb2.RefinementCandidate(candidate_id=candidate.candidate_id, model=candidate.model, text=candidate.text, weight=candidate.weight)
            for candidate in refinement.candidates
        ],
        writer=writer_to_proto(refinement.writer),
        generation=sampling_to_proto(refinement.sampling),
        shuffle_seed=refinement.shuffle_seed,
        candidate_byte_limit=refinement.candidate_byte_limit,
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
            )
            for candidate in message.candidates
        ),
        writer=writer_from_proto(message.writer),
        sampling=sampling_from_proto(message.generation),
        shuffle_seed=message.shuffle_seed if message.HasField("shuffle_seed") else None,
        candidate_byte_limit=message.candidate_byte_limit if message.HasField("candidate_byte_limit") else DEFAULT_CANDIDATE_BYTE_LIMIT,
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
    return found


def refined_to_proto(refined: Refined) -> refiner_service_pb2.RefineResponse:
    """Return the message."""
    return refiner_service_pb2.RefineResponse(
        answer=refined.answer,
        provenance=provenance_to_proto(refined.provenance),
        calls=[call_to_proto(call) for call in refined.calls],
        degradations=degradations_to_proto(refined.degradations),
    )


def refined_from_proto(message: refiner_service_pb2.RefineResponse) -> Refined:
    """Return the one answer."""
    return Refined(
        answer=message.answer,
        provenance=provenance_from_proto(message.provenance),
        calls=tuple(call_from_proto(call) for call in message.calls),
        degradations=degradations_from_proto(message.degradations),
    )
