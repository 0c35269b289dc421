"""Receipts, provenance and degradations, both ways."""

from collections.abc import Iterable

from ensemble.v1 import degradation_pb2, outcome_pb2, provenance_pb2, receipt_pb2
from services.models.outcomes import Outcome
from services.models.permits import AttemptKind
from services.models.provenance import Degradation, Method, Provenance, Verdict, VoteCount
from services.models.receipt import CallReceipt, Receipt, StageReceipt
from services.models.usage import Cost, CostSource, Usage
from services.models.wire.durations import to_duration, to_optional_duration, to_seconds
from services.models.wire.enums import EnumMap
from services.models.wire.permits import ATTEMPT_KINDS

OUTCOMES = EnumMap(Outcome, outcome_pb2.Outcome.items(), "OUTCOME_")
METHODS = EnumMap(Method, provenance_pb2.Method.items(), "METHOD_")
DEGRADATIONS = EnumMap(Degradation, degradation_pb2.Degradation.items(), "DEGRADATION_")
_COST_SOURCES = {
    CostSource.NONE: receipt_pb2.COST_SOURCE_UNSPECIFIED,
    CostSource.PROVIDER: receipt_pb2.COST_SOURCE_PROVIDER,
    CostSource.PRICE_TABLE: receipt_pb2.COST_SOURCE_PRICE_TABLE,
    CostSource.ESTIMATE: receipt_pb2.COST_SOURCE_ESTIMATE,
}
_COST_SOURCES_BACK = {int(wire): source for source, wire in _COST_SOURCES.items()}


def usage_to_proto(usage: Usage) -> receipt_pb2.Usage:
    """Return the message."""
    return receipt_pb2.Usage(
        input_tokens=usage.input_tokens,
        cached_input_tokens=usage.cached_input_tokens,
        output_tokens=usage.output_tokens,
        estimated=usage.estimated,
    )


def cost_to_proto(cost: Cost) -> receipt_pb2.Cost:
    """Return the message."""
    return receipt_pb2.Cost(micro_usd=cost.micro_usd, source=_COST_SOURCES[cost.source])


def call_to_proto(call: CallReceipt) -> receipt_pb2.CallReceipt:
    """Return the message."""
    return receipt_pb2.CallReceipt(
        candidate_id=call.candidate_id,
        member_id=call.member_id,
        model=call.model,
        attempt=call.attempt,
        outcome=OUTCOMES.to_wire(call.outcome),
        reason=call.reason,
        started_after=to_optional_duration(call.started_after_seconds),
        latency=to_optional_duration(call.latency_seconds),
        time_to_first_token=to_optional_duration(call.time_to_first_token_seconds),
        usage=usage_to_proto(call.usage),
        cost=cost_to_proto(call.cost),
        retry_after=to_optional_duration(call.retry_after_seconds),
        attempt_kind=ATTEMPT_KINDS.to_wire(call.attempt_kind),
    )


def call_from_proto(message: receipt_pb2.CallReceipt) -> CallReceipt:
    """Return the record; an outcome that this version does not know counts as a failure of the provider."""
    return CallReceipt(
        candidate_id=message.candidate_id,
        member_id=message.member_id,
        model=message.model,
        attempt=message.attempt,
        outcome=OUTCOMES.from_wire(message.outcome) or Outcome.PROVIDER_FAILED,
        reason=message.reason,
        started_after_seconds=to_seconds(message.started_after) if message.HasField("started_after") else None,
        latency_seconds=to_seconds(message.latency) if message.HasField("latency") else None,
        time_to_first_token_seconds=to_seconds(message.time_to_first_token) if message.HasField("time_to_first_token") else None,
        usage=Usage(
            input_tokens=message.usage.input_tokens,
            cached_input_tokens=message.usage.cached_input_tokens,
            output_tokens=message.usage.output_tokens,
            estimated=message.usage.estimated,
        ),
        cost=Cost(micro_usd=message.cost.micro_usd, source=_COST_SOURCES_BACK.get(message.cost.source, CostSource.ESTIMATE)),
        retry_after_seconds=to_seconds(message.retry_after) if message.HasField("retry_after") else None,
        attempt_kind=ATTEMPT_KINDS.from_wire(message.attempt_kind) or AttemptKind.FIRST,
    )


def stage_to_proto(stage: StageReceipt) -> receipt_pb2.StageReceipt:
    """Return the message."""
    return receipt_pb2.StageReceipt(
        stage=stage.stage, latency=to_duration(stage.latency_seconds), usage=usage_to_proto(stage.usage), cost=cost_to_proto(stage.cost)
    )


def receipt_to_proto(receipt: Receipt) -> receipt_pb2.Receipt:
    """Return the message."""
    return receipt_pb2.Receipt(
        calls=[call_to_proto(call) for call in receipt.calls],
        stages=[stage_to_proto(stage) for stage in receipt.stages],
        latency=to_duration(receipt.latency_seconds),
        overhead=to_duration(receipt.overhead_seconds),
        usage=usage_to_proto(receipt.usage),
        cost=cost_to_proto(receipt.cost),
        agreement=receipt.agreement,
    )


def provenance_to_proto(provenance: Provenance) -> provenance_pb2.Provenance:
    """Return the message."""
    return provenance_pb2.Provenance(
        method=METHODS.to_wire(provenance.method),
        candidate_ids=provenance.candidate_ids,
        display_order=provenance.display_order,
        prompt_version=provenance.prompt_version,
        answer_model=provenance.answer_model,
        verdict=None if provenance.verdict is None else _verdict_to_proto(provenance.verdict),
    )


def provenance_from_proto(message: provenance_pb2.Provenance) -> Provenance:
    """Return the provenance; a method that this version does not know counts as a fallback."""
    return Provenance(
        method=METHODS.from_wire(message.method) or Method.FALLBACK,
        candidate_ids=tuple(message.candidate_ids),
        display_order=tuple(message.display_order),
        prompt_version=message.prompt_version,
        answer_model=message.answer_model,
        verdict=_verdict_from_proto(message.verdict) if message.HasField("verdict") else None,
    )


def _verdict_to_proto(verdict: Verdict) -> provenance_pb2.Verdict:
    return provenance_pb2.Verdict(
        judges=verdict.judges,
        ranking=verdict.ranking,
        scores=verdict.scores,
        agreed=verdict.agreed,
        chosen_positions=verdict.chosen_positions,
        judge_also_proposed=verdict.judge_also_proposed,
        length_correlation=verdict.length_correlation,
        votes=[provenance_pb2.VoteCount(value=vote.value, weight=vote.weight, candidate_ids=vote.candidate_ids) for vote in verdict.votes],
    )


def _verdict_from_proto(message: provenance_pb2.Verdict) -> Verdict:
    return Verdict(
        judges=tuple(message.judges),
        ranking=tuple(message.ranking),
        scores=tuple(message.scores),
        agreed=message.agreed,
        chosen_positions=tuple(message.chosen_positions),
        judge_also_proposed=message.judge_also_proposed,
        length_correlation=message.length_correlation if message.HasField("length_correlation") else None,
        votes=tuple(VoteCount(value=vote.value, weight=vote.weight, candidate_ids=tuple(vote.candidate_ids)) for vote in message.votes),
    )


def degradations_to_proto(degradations: Iterable[Degradation]) -> list[degradation_pb2.Degradation.ValueType]:
    """Return the wire values."""
    return [DEGRADATIONS.to_wire(degradation) for degradation in degradations]


def degradations_from_proto(values: Iterable[int]) -> tuple[Degradation, ...]:
    """Return the reasons; one that this version does not know is left out."""
    return tuple(degradation for value in values if (degradation := DEGRADATIONS.from_wire(value)) is not None)
