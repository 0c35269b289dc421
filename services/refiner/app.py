"""The refiner's composition root."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import grpc

from ensemble.v1 import refiner_service_pb2_grpc
from services.chassis.configuration import Configuration
from services.chassis.server import RunningServer, serve
from services.chassis.telemetry import TelemetrySettings, start_telemetry
from services.models.chat import ChatModel
from services.models.guarded_models import open_guard
from services.refiner.bias import BiasRecorder
from services.refiner.guarded_refiner import GuardedRefiner
from services.refiner.servicer import RefinerServicer
from services.refiner.settings import RefinerSettings

SERVICE = "ensemble.v1.RefinerService"


@asynccontextmanager
async def application(
    configuration: Configuration, *, listen: str | None = None, insecure: bool = False, providers: Mapping[str, ChatModel] | None = None
) -> AsyncIterator[RunningServer]:
    """Run the refiner; tests pass fake providers."""
    settings = RefinerSettings.from_configuration(configuration, listen, insecure=insecure)
    telemetry = start_telemetry("refiner", TelemetrySettings.from_configuration(configuration))
    try:
        async with open_guard(configuration, settings.limiter, settings.limiter_down, telemetry, providers=providers) as guard:
            servicer = RefinerServicer(GuardedRefiner(guard=guard, bias=BiasRecorder(telemetry)))

            def register(server: grpc.aio.Server) -> None:
                refiner_service_pb2_grpc.add_RefinerServiceServicer_to_server(servicer, server)

            async with serve(SERVICE, register, settings.server, telemetry) as server:
                yield server
    finally:
        await telemetry.shutdown()
