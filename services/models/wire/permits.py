"""Permits, both ways: those who call models ask and report, the limiter answers."""

from ensemble.v1 import limiter_service_pb2, model_state_pb2, permit_pb2
from services.models.permits import (
    AcquireReply,
    AcquireRequest,
    AttemptKind,
    BreakerSnapshot,
    BreakerState,
    CallResult,
    Denial,
    DenialReason,
    ModelState,
    Permit,
    PermitOutcome,
    PermitSpec,
    Settlement,
)
from services.models.wire.durations import to_duration, to_optional_duration, to_seconds
from services.models.wire.enums import EnumMap

ATTEMPT_KINDS = EnumMap(AttemptKind, permit_pb2.AttemptKind.items(), "ATTEMPT_KIND_")
DENIAL_REASONS = EnumMap(DenialReason, permit_pb2.DenialReason.items(), "DENIAL_REASON_")
CALL_RESULTS = EnumMap(CallResult, permit_pb2.CallResult.items(), "CALL_RESULT_")
SETTLEMENTS = EnumMap(Settlement, permit_pb2.Settlement.items(), "SETTLEMENT_")
BREAKER_STATES = EnumMap(BreakerState, model_state_pb2.BreakerState.items(), "BREAKER_STATE_")

DEFAULT_LEASE_SECONDS = 60.0


def acquire_to_proto(request: AcquireRequest) -> limiter_service_pb2.AcquirePermitsRequest:
    """Return the message."""
    return limiter_service_pb2.AcquirePermitsRequest(
        request_id=request.request_id,
        tenant=request.tenant,
        specs=[
            permit_pb2.PermitSpec(
                model=spec.model,
                input_tokens=spec.input_tokens,
                max_output_tokens=spec.max_output_tokens,
                cost_micro_usd=spec.cost_micro_usd,
                attempt_kind=ATTEMPT_KINDS.to_wire(spec.attempt_kind),
            )
            for spec in request.specs
        ],
        min_granted=request.min_granted,
        lease_ttl=to_duration(request.lease_seconds),
        dry_run=request.dry_run,
    )


def acquire_from_proto(message: limiter_service_pb2.AcquirePermitsRequest) -> AcquireRequest:
    """Return the request; its fields must have been checked."""
    return AcquireRequest(
        request_id=message.request_id,
        tenant=message.tenant,
        specs=tuple(
            PermitSpec(
                model=spec.model,
                input_tokens=spec.input_tokens,
                max_output_tokens=spec.max_output_tokens,
                cost_micro_usd=spec.cost_micro_usd,
                attempt_kind=ATTEMPT_KINDS.from_wire(spec.attempt_kind) or AttemptKind.FIRST,
            )
            for spec in message.specs
        ),
        min_granted=message.min_granted,
        lease_seconds=to_seconds(message.lease_ttl) if message.HasField("lease_ttl") else DEFAULT_LEASE_SECONDS,
        dry_run=message.dry_run,
    )


def reply_to_proto(reply: AcquireReply) -> limiter_service_pb2.AcquirePermitsResponse:
    """Return the message."""
    return limiter_service_pb2.AcquirePermitsResponse(
        decisions=[_decision_to_proto(decision) for decision in reply.decisions], degraded=reply.degraded, config_version=reply.config_version
    )


def reply_from_proto(message: limiter_service_pb2.AcquirePermitsResponse) -> AcquireReply:
    """Return the reply."""
    return AcquireReply(
        decisions=tuple(_decision_from_proto(decision) for decision in message.decisions), degraded=message.degraded, config_version=message.config_version
    )


def _decision_to_proto(decision: Permit | Denial) -> permit_pb2.PermitDecision:
    if isinstance(decision, Permit):
        return permit_pb2.PermitDecision(
            permit=permit_pb2.Permit(
                permit_id=decision.permit_id,
                model=decision.model,
                lease_ttl=to_duration(decision.lease_seconds),
                reserved_tokens=decision.reserved_tokens,
                reserved_cost_micro_usd=decision.reserved_cost_micro_usd,
                breaker_generation=decision.breaker_generation,
                probe=decision.probe,
            )
        )
    return permit_pb2.PermitDecision(
        denial=permit_pb2.Denial(
            model=decision.model,
            reason=DENIAL_REASONS.to_wire(decision.reason),
            retry_after=to_optional_duration(decision.retry_after_seconds),
            limit=decision.limit,
            limit_value=decision.limit_value,
            remaining=decision.remaining,
        )
    )


def _decision_from_proto(message: permit_pb2.PermitDecision) -> Permit | Denial:
    if message.HasField("permit"):
        permit = message.permit
        return Permit(
            permit_id=permit.permit_id,
            model=permit.model,
            lease_seconds=to_seconds(permit.lease_ttl),
            reserved_tokens=permit.reserved_tokens,
            reserved_cost_micro_usd=permit.reserved_cost_micro_usd,
            breaker_generation=permit.breaker_generation,
            probe=permit.probe,
        )
    denial = message.denial
    return Denial(
        model=denial.model,
        # A reason that this version does not know is a denial all the same.
        reason=DENIAL_REASONS.from_wire(denial.reason) or DenialReason.REQUESTS,
        retry_after_seconds=to_seconds(denial.retry_after) if denial.HasField("retry_after") else None,
        limit=denial.limit,
        limit_value=denial.limit_value,
        remaining=denial.remaining,
    )


def outcome_to_proto(outcome: PermitOutcome) -> permit_pb2.PermitOutcome:
    """Return the message."""
    return permit_pb2.PermitOutcome(
        permit_id=outcome.permit_id,
        result=CALL_RESULTS.to_wire(outcome.result),
        input_tokens=outcome.input_tokens,
        cached_input_tokens=outcome.cached_input_tokens,
        output_tokens=outcome.output_tokens,
        cost_micro_usd=outcome.cost_micro_usd,
        latency=to_optional_duration(outcome.latency_seconds),
        time_to_first_token=to_optional_duration(outcome.time_to_first_token_seconds),
        retry_after=to_optional_duration(outcome.retry_after_seconds),
        rate_limit_headers=outcome.rate_limit_headers,
    )


def outcome_from_proto(message: permit_pb2.PermitOutcome) -> PermitOutcome:
    """Return the outcome; its fields must have been checked."""
    return PermitOutcome(
        permit_id=message.permit_id,
        result=CALL_RESULTS.from_wire(message.result) or CallResult.FAILURE,
        input_tokens=message.input_tokens if message.HasField("input_tokens") else None,
        cached_input_tokens=message.cached_input_tokens if message.HasField("cached_input_tokens") else None,
        output_tokens=message.output_tokens if message.HasField("output_tokens") else None,
        cost_micro_usd=message.cost_micro_usd if message.HasField("cost_micro_usd") else None,
        latency_seconds=to_seconds(message.latency) if message.HasField("latency") else None,
        time_to_first_token_seconds=to_seconds(message.time_to_first_token) if message.HasField("time_to_first_token") else None,
        retry_after_seconds=to_seconds(message.retry_after) if message.HasField("retry_after") else None,
        rate_limit_headers=dict(message.rate_limit_headers),
    )


def settlement_from_proto(value: int) -> Settlement:
    """Return the settlement; one that this version does not know changed nothing that it could rely on."""
    return SETTLEMENTS.from_wire(value) or Settlement.UNKNOWN


def state_to_proto(state: ModelState) -> model_state_pb2.ModelState:
    """Return the message."""
    return model_state_pb2.ModelState(
        model=state.model,
        limits=[model_state_pb2.LimitLevel(name=level.name, limit=level.limit, remaining=level.remaining) for level in state.limits],
        in_flight=state.in_flight,
        breaker=_breaker_to_proto(state.breaker),
        provider_backoff=to_optional_duration(state.provider_backoff_seconds),
    )


def _breaker_to_proto(breaker: BreakerSnapshot) -> model_state_pb2.BreakerSnapshot:
    return model_state_pb2.BreakerSnapshot(
        state=BREAKER_STATES.to_wire(breaker.state),
        generation=breaker.generation,
        open_for=to_optional_duration(breaker.open_for_seconds),
        open_count=breaker.open_count,
        probes=breaker.probes,
        window_calls=breaker.window_calls,
        window_failures=breaker.window_failures,
        window_slow=breaker.window_slow,
    )
