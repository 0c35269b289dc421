"""The orchestrator's composition root, and the carrier of its port to the refiner."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import grpc

from ensemble.v1 import orchestrator_service_pb2_grpc, refiner_service_pb2, refiner_service_pb2_grpc
from services.chassis.channel import open_channel, timeout_for
from services.chassis.configuration import Configuration
from services.chassis.deadline import Deadline
from services.chassis.errors import DependencyUnavailable
from services.chassis.server import RunningServer, serve
from services.chassis.status import from_rpc_error
from services.chassis.telemetry import TelemetrySettings, start_telemetry
from services.models.chat import ChatModel
from services.models.guarded_models import open_guard
from services.models.refinement import OnAnswer, Refined, Refinement
from services.models.wire.refinements import refined_from_proto, refinement_to_proto
from services.orchestrator.ensemble import Ensemble
from services.orchestrator.servicer import OrchestratorServicer
from services.orchestrator.settings import OrchestratorSettings

SERVICE = "ensemble.v1.OrchestratorService"
REFINER_SERVICE = "ensemble.v1.RefinerService"


class GrpcRefiner:
    """The refiner behind a channel; satisfies `services.models.refinement.Refiner`."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub: refiner_service_pb2_grpc.RefinerServiceAsyncStub = refiner_service_pb2_grpc.RefinerServiceStub(channel)

    async def refine(self, refinement: Refinement, deadline: Deadline, on_answer: OnAnswer | None = None) -> Refined:
        """Make one answer; streamed where somebody listens. Raises `DependencyUnavailable`, `DeadlineSpent` or `RemoteError`."""
        request = refinement_to_proto(refinement)
        try:
            if on_answer is None:
                return refined_from_proto(await self._stub.Refine(request, timeout=timeout_for(deadline)))
            return await self._stream(request, deadline, on_answer)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error("refiner", error) from error

    async def _stream(self, request: refiner_service_pb2.RefineRequest, deadline: Deadline, on_answer: OnAnswer) -> Refined:
        call = self._stub.StreamRefine(refiner_service_pb2.StreamRefineRequest(refinement=request), timeout=timeout_for(deadline))
        refined: Refined | None = None
        try:
            # Read to the very end: a stream that is left after its last event counts as cancelled on both sides.
            async for event in call:
                if event.HasField("finished"):
                    refined = refined_from_proto(event.finished)
                else:
                    on_answer(event.answer_delta.text, event.answer_delta.restart)
        finally:
            # Leaving the loop early does not end the stream by itself; the refiner would go on, and so would the writer it pays.
            call.cancel()
        if refined is None:
            raise DependencyUnavailable("refiner")
        return refined


@asynccontextmanager
async def application(
    configuration: Configuration, *, listen: str | None = None, insecure: bool = False, providers: Mapping[str, ChatModel] | None = None
) -> AsyncIterator[RunningServer]:
    """Run the orchestrator; tests pass fake providers."""
    settings = OrchestratorSettings.from_configuration(configuration, listen, insecure=insecure)
    telemetry = start_telemetry("orchestrator", TelemetrySettings.from_configuration(configuration))
    try:
        async with (
            open_guard(configuration, settings.limiter, settings.limiter_down, telemetry, providers=providers) as guard,
            open_channel(settings.refiner, telemetry, health_service=REFINER_SERVICE, identity=configuration.identity) as channel,
        ):
            servicer = OrchestratorServicer(Ensemble(guard=guard, refiner=GrpcRefiner(channel), telemetry=telemetry))

            def register(server: grpc.aio.Server) -> None:
                orchestrator_service_pb2_grpc.add_OrchestratorServiceServicer_to_server(servicer, server)

            async with serve(SERVICE, register, settings.server, telemetry) as server:
                yield server
    finally:
        await telemetry.shutdown()
