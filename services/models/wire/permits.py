"""Permits, both ways: those who call models ask and report, the limiter answers."""

from ensemble.v1 import limiter_service_pb2, model_state_pb2, permit_pb2
from services.models.permits import (
    AcquireReply,
    AcquireRequest,
    AttemptKind,
    BreakerSnapshot,
    BreakerState,
    BudgetLevel,
    CallResult,
    Denial,
    DenialReason,
    LimiterState,
    LimitLevel,
    ModelState,
    OverrideMode,
    Permit,
    PermitOutcome,
    PermitSpec,
    Settlement,
    TenantState,
)
from services.models.wire.durations import to_duration, to_optional_duration, to_seconds
from services.models.wire.enums import EnumMap

ATTEMPT_KINDS = EnumMap(AttemptKind, permit_pb2.AttemptKind.items(), "ATTEMPT_KIND_")
DENIAL_REASONS = EnumMap(DenialReason, permit_pb2.DenialReason.items(), "DENIAL_REASON_")
CALL_RESULTS = EnumMap(CallResult, permit_pb2.CallResult.items(), "CALL_RESULT_")
SETTLEMENTS = EnumMap(Settlement, permit_pb2.Settlement.items(), "SETTLEMENT_")
OVERRIDE_MODES = EnumMap(OverrideMode, model_state_pb2.OverrideMode.items(), "OVERRIDE_MODE_")
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
                would_have_denied=_reason_to_wire(decision.would_have_denied),
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
            would_have_denied=DENIAL_REASONS.from_wire(permit.would_have_denied),
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


def limiter_state_to_proto(state: LimiterState) -> limiter_service_pb2.GetStateResponse:
    """Return the message."""
    return limiter_service_pb2.GetStateResponse(
        models=[model_to_proto(model) for model in state.models],
        config_version=state.config_version,
        degraded=state.degraded,
        tenants=[tenant_to_proto(tenant) for tenant in state.tenants],
        learning_for=to_optional_duration(state.learning_seconds),
    )


def watched_state_to_proto(state: LimiterState) -> limiter_service_pb2.WatchStateResponse:
    """Return the message."""
    return limiter_service_pb2.WatchStateResponse(
        models=[model_to_proto(model) for model in state.models],
        config_version=state.config_version,
        degraded=state.degraded,
        tenants=[tenant_to_proto(tenant) for tenant in state.tenants],
        learning_for=to_optional_duration(state.learning_seconds),
    )


def model_to_proto(state: ModelState) -> model_state_pb2.ModelState:
    """Return the message."""
    return model_state_pb2.ModelState(
        model=state.model,
        limits=[_level_to_proto(level) for level in state.limits],
        in_flight=state.in_flight,
        breaker=_breaker_to_proto(state.breaker),
        provider_backoff=to_optional_duration(state.provider_backoff_seconds),
        override=model_state_pb2.OVERRIDE_MODE_UNSPECIFIED if state.override is None else OVERRIDE_MODES.to_wire(state.override),
        override_for=to_optional_duration(state.override_seconds),
        metrics_only=state.metrics_only,
        would_have_denied={reason.value: count for reason, count in state.would_have_denied.items()},
    )


def tenant_to_proto(state: TenantState) -> model_state_pb2.TenantState:
    """Return the message."""
    return model_state_pb2.TenantState(
        tenant=state.tenant,
        limits=[_level_to_proto(level) for level in state.limits],
        in_flight=state.in_flight,
        budgets=[_budget_to_proto(budget) for budget in state.budgets],
    )


def _level_to_proto(level: LimitLevel) -> model_state_pb2.LimitLevel:
    return model_state_pb2.LimitLevel(name=level.name, limit=level.limit, remaining=level.remaining, effective=level.effective)


def _budget_to_proto(budget: BudgetLevel) -> model_state_pb2.BudgetLevel:
    return model_state_pb2.BudgetLevel(
        period=budget.period,
        limit_micro_usd=budget.limit,
        spent_micro_usd=budget.spent,
        reserved_micro_usd=budget.reserved,
        unreconciled_micro_usd=budget.unreconciled,
        resets_in=to_duration(budget.resets_in_seconds),
    )


def _reason_to_wire(reason: DenialReason | None) -> permit_pb2.DenialReason.ValueType:
    return permit_pb2.DENIAL_REASON_UNSPECIFIED if reason is None else DENIAL_REASONS.to_wire(reason)


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
