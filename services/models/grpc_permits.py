"""The limiter behind a channel."""

from collections.abc import Sequence

import grpc

from ensemble.v1 import limiter_service_pb2, limiter_service_pb2_grpc
from services.chassis.status import from_rpc_error
from services.models.permits import AcquireReply, AcquireRequest, PermitOutcome, Settlement
from services.models.wire.permits import acquire_to_proto, outcome_to_proto, reply_from_proto, settlement_from_proto

TIMEOUT_SECONDS = 2.0


class GrpcPermits:
    """Satisfies `services.models.permits.Permits` over gRPC."""

    def __init__(self, channel: grpc.aio.Channel, *, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        """Take a channel to the limiter, and how long one call to it may take."""
        self._stub: limiter_service_pb2_grpc.LimiterServiceAsyncStub = limiter_service_pb2_grpc.LimiterServiceStub(channel)
        self._timeout = timeout_seconds

    async def acquire(self, request: AcquireRequest) -> AcquireReply:
        """Decide a batch. Raises `DependencyUnavailable`, `DeadlineSpent` or `RemoteError`."""
        try:
            return reply_from_proto(await self._stub.AcquirePermits(acquire_to_proto(request), timeout=self._timeout))
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error("limiter", error) from error

    async def report(self, outcomes: Sequence[PermitOutcome]) -> tuple[Settlement, ...]:
        """Settle a batch. Raises as `acquire`."""
        request = limiter_service_pb2.ReportOutcomesRequest(outcomes=[outcome_to_proto(outcome) for outcome in outcomes])
        try:
            response = await self._stub.ReportOutcomes(request, timeout=self._timeout)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error("limiter", error) from error
        return tuple(settlement_from_proto(value) for value in response.settlements)

    async def release(self, permit_ids: Sequence[str]) -> tuple[Settlement, ...]:
        """Give permits back unused. Raises as `acquire`."""
        request = limiter_service_pb2.ReleasePermitsRequest(permit_ids=permit_ids)
        try:
            response = await self._stub.ReleasePermits(request, timeout=self._timeout)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error("limiter", error) from error
        return tuple(settlement_from_proto(value) for value in response.settlements)
