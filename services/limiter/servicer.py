"""LimiterService on the wire."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc

from ensemble.v1 import limiter_service_pb2, limiter_service_pb2_grpc, model_state_pb2, permit_pb2
from services.chassis.errors import FieldViolation
from services.limiter import validation
from services.limiter.store import Store
from services.limiter.validation import refuse
from services.limiter.watch import Watch
from services.models.wire.durations import to_optional_duration, to_seconds
from services.models.wire.permits import (
    CALL_RESULTS,
    OVERRIDE_MODES,
    SETTLEMENTS,
    acquire_from_proto,
    limiter_state_to_proto,
    model_to_proto,
    outcome_from_proto,
    reply_to_proto,
    watched_state_to_proto,
)

Context = grpc.aio.ServicerContext[Any, Any]


class LimiterServicer(limiter_service_pb2_grpc.LimiterServiceServicer):
    """Translates and checks; the store decides."""

    def __init__(self, store: Store, longest_lease_seconds: float) -> None:
        self._store = store
        self._watch = Watch(store)
        self._longest_lease = longest_lease_seconds

    def stop_watching(self) -> None:
        """End the streams of all watchers, so that they hold up no end of the server."""
        self._watch.stop()

    async def AcquirePermits(self, request: limiter_service_pb2.AcquirePermitsRequest, context: Context) -> limiter_service_pb2.AcquirePermitsResponse:
        """Decide a batch of permits in one indivisible step."""
        refuse(self._acquire_violations(request))
        return reply_to_proto(await self._store.acquire(acquire_from_proto(request)))

    async def ReportOutcomes(self, request: limiter_service_pb2.ReportOutcomesRequest, context: Context) -> limiter_service_pb2.ReportOutcomesResponse:
        """Settle a batch of permits and feed the breakers."""
        refuse(_report_violations(request))
        settlements = await self._store.report([outcome_from_proto(outcome) for outcome in request.outcomes])
        return limiter_service_pb2.ReportOutcomesResponse(settlements=[SETTLEMENTS.to_wire(settlement) for settlement in settlements])

    async def RenewPermits(self, request: limiter_service_pb2.RenewPermitsRequest, context: Context) -> limiter_service_pb2.RenewPermitsResponse:
        """Extend leases."""
        refuse(self._renew_violations(request))
        renewals = await self._store.renew(request.permit_ids, to_seconds(request.lease_ttl))
        return limiter_service_pb2.RenewPermitsResponse(
            renewals=[
                limiter_service_pb2.Renewal(
                    permit_id=renewal.permit_id, renewed=renewal.lease_seconds is not None, lease_ttl=to_optional_duration(renewal.lease_seconds)
                )
                for renewal in renewals
            ]
        )

    async def ReleasePermits(self, request: limiter_service_pb2.ReleasePermitsRequest, context: Context) -> limiter_service_pb2.ReleasePermitsResponse:
        """Give permits back unused."""
        refuse(validation.permit_id_violations(request.permit_ids))
        settlements = await self._store.release(request.permit_ids)
        return limiter_service_pb2.ReleasePermitsResponse(settlements=[SETTLEMENTS.to_wire(settlement) for settlement in settlements])

    async def GetState(self, request: limiter_service_pb2.GetStateRequest, context: Context) -> limiter_service_pb2.GetStateResponse:
        """Tell limits, levels, budgets and breakers as they stand."""
        refuse(validation.selection_violations(request.models, request.tenants))
        return limiter_state_to_proto(await self._store.state(request.models, request.tenants))

    async def WatchState(self, request: limiter_service_pb2.WatchStateRequest, context: Context) -> AsyncIterator[limiter_service_pb2.WatchStateResponse]:
        """Stream the state: first the whole, then each change."""
        refuse(validation.selection_violations(request.models, request.tenants))
        async for state in self._watch.follow(request.models, request.tenants):
            yield watched_state_to_proto(state)

    async def SetOverride(self, request: limiter_service_pb2.SetOverrideRequest, context: Context) -> limiter_service_pb2.SetOverrideResponse:
        """Set or lift an operator's override for one model."""
        refuse(_override_violations(request))
        state = await self._store.override(request.model, OVERRIDE_MODES.from_wire(request.mode), to_seconds(request.ttl))
        return limiter_service_pb2.SetOverrideResponse(model=model_to_proto(state))

    def _acquire_violations(self, request: limiter_service_pb2.AcquirePermitsRequest) -> Iterator[FieldViolation]:
        yield from validation.name_violations("request_id", request.request_id)
        yield from validation.name_violations("tenant", request.tenant, required=False)
        yield from validation.count_violations("specs", request.specs, validation.MOST_SPECS)
        for position, spec in enumerate(request.specs[: validation.MOST_SPECS]):
            yield from validation.spec_violations(f"specs[{position}]", spec)
        yield from validation.range_violations("min_granted", request.min_granted, 0, len(request.specs))
        if request.HasField("lease_ttl"):
            yield from self._lease_violations(to_seconds(request.lease_ttl))

    def _renew_violations(self, request: limiter_service_pb2.RenewPermitsRequest) -> Iterator[FieldViolation]:
        yield from validation.permit_id_violations(request.permit_ids)
        yield from self._lease_violations(to_seconds(request.lease_ttl))

    def _lease_violations(self, seconds: float) -> Iterator[FieldViolation]:
        # A longer lease than the longest is cut by the store, not refused: callers ask for what they would like.
        if seconds < validation.LEAST_LEASE_SECONDS:
            yield FieldViolation(field="lease_ttl", description=f"must be at least 1 ms and is cut to {self._longest_lease:g} s")


def _override_violations(request: limiter_service_pb2.SetOverrideRequest) -> Iterator[FieldViolation]:
    yield from validation.name_violations("model", request.model)
    if request.mode == model_state_pb2.OVERRIDE_MODE_UNSPECIFIED:
        return
    if OVERRIDE_MODES.from_wire(request.mode) is None:
        yield FieldViolation(field="mode", description="must be a known mode")
    if not validation.SHORTEST_OVERRIDE_SECONDS <= to_seconds(request.ttl) <= validation.LONGEST_OVERRIDE_SECONDS:
        yield FieldViolation(field="ttl", description="must lie between 1 second and 24 hours")


def _report_violations(request: limiter_service_pb2.ReportOutcomesRequest) -> Iterator[FieldViolation]:
    yield from validation.count_violations("outcomes", request.outcomes, validation.MOST_PERMITS)
    for position, outcome in enumerate(request.outcomes[: validation.MOST_PERMITS]):
        yield from _outcome_violations(f"outcomes[{position}]", outcome)


def _outcome_violations(field: str, outcome: permit_pb2.PermitOutcome) -> Iterator[FieldViolation]:
    yield from validation.name_violations(f"{field}.permit_id", outcome.permit_id)
    if CALL_RESULTS.from_wire(outcome.result) is None:
        yield FieldViolation(field=f"{field}.result", description="is required and must be a known result")
    yield from validation.range_violations(f"{field}.input_tokens", outcome.input_tokens, 0, validation.MOST_TOKENS)
    yield from validation.range_violations(f"{field}.cached_input_tokens", outcome.cached_input_tokens, 0, validation.MOST_TOKENS)
    yield from validation.range_violations(f"{field}.output_tokens", outcome.output_tokens, 0, validation.MOST_TOKENS)
    yield from validation.range_violations(f"{field}.cost_micro_usd", outcome.cost_micro_usd, 0, validation.MOST_MICRO_USD)
    for name, duration in (("latency", outcome.latency), ("time_to_first_token", outcome.time_to_first_token), ("retry_after", outcome.retry_after)):
        if to_seconds(duration) < 0:
            yield FieldViolation(field=f"{field}.{name}", description="must not be negative")
    headers = outcome.rate_limit_headers
    if len(headers) > validation.MOST_HEADERS or any(len(text) > validation.LONGEST_HEADER for pair in headers.items() for text in pair):
        yield FieldViolation(
            field=f"{field}.rate_limit_headers", description=f"at most {validation.MOST_HEADERS} of at most {validation.LONGEST_HEADER} bytes are allowed"
        )
