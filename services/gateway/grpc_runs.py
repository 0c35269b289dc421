"""The port to the orchestrator over gRPC."""

from collections.abc import AsyncGenerator

import grpc

from ensemble.v1 import orchestrator_service_pb2, orchestrator_service_pb2_grpc
from services.chassis.channel import timeout_for
from services.chassis.deadline import Deadline
from services.chassis.status import from_rpc_error
from services.gateway.order import Order
from services.models.wire.plans import plan_to_proto


class GrpcRuns:
    """The orchestrator behind a channel; satisfies `services.gateway.runs.Runs` in terms of the wire's own messages."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub: orchestrator_service_pb2_grpc.OrchestratorServiceAsyncStub = orchestrator_service_pb2_grpc.OrchestratorServiceStub(channel)

    async def run(self, order: Order, deadline: Deadline) -> orchestrator_service_pb2.RunResponse:
        """Run and return what it brought."""
        try:
            return await self._stub.Run(plan_to_proto(order.plan), timeout=timeout_for(deadline))
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error("orchestrator", error) from error

    async def stream(self, order: Order, deadline: Deadline) -> AsyncGenerator[orchestrator_service_pb2.StreamRunResponse, None]:
        """Run and yield what happens."""
        request = orchestrator_service_pb2.StreamRunRequest(run=plan_to_proto(order.plan))
        call = self._stub.StreamRun(request, timeout=timeout_for(deadline))
        try:
            async for event in call:
                yield event
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error("orchestrator", error) from error
        finally:
            # Leaving the loop does not end the stream by itself; the run would go on, and so would the calls it pays.
            call.cancel()
