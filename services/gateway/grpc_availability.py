"""The port to the limiter over gRPC."""

from collections.abc import Mapping

import grpc

from ensemble.v1 import limiter_service_pb2, limiter_service_pb2_grpc, model_state_pb2
from services.chassis.channel import timeout_for
from services.chassis.deadline import Deadline
from services.chassis.status import from_rpc_error


class GrpcAvailability:
    """The limiter behind a channel; satisfies `services.gateway.availability.Availability` in terms of the wire's own messages."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub: limiter_service_pb2_grpc.LimiterServiceAsyncStub = limiter_service_pb2_grpc.LimiterServiceStub(channel)

    async def states(self, deadline: Deadline) -> Mapping[str, model_state_pb2.ModelState]:
        """Return the state of every model by its name."""
        try:
            reply = await self._stub.GetState(limiter_service_pb2.GetStateRequest(), timeout=timeout_for(deadline))
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error("limiter", error) from error
        return {state.model: state for state in reply.models}
