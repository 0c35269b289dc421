"""The limiter's composition root."""

import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import grpc

from ensemble.v1 import limiter_service_pb2_grpc
from services.chassis.configuration import Configuration
from services.chassis.server import RunningServer, serve
from services.chassis.telemetry import TelemetrySettings, start_telemetry
from services.limiter.ledger import Ledger
from services.limiter.memory_store import MemoryStore
from services.limiter.obstacle import Uniform
from services.limiter.servicer import LimiterServicer
from services.limiter.settings import LimiterSettings

SERVICE = "ensemble.v1.LimiterService"


@asynccontextmanager
async def application(
    configuration: Configuration, *, listen: str | None = None, clock: Callable[[], float] = time.monotonic, uniform: Uniform = random.uniform
) -> AsyncIterator[RunningServer]:
    """Run the limiter; tests pass a clock and a source of jitter."""
    settings = LimiterSettings.from_configuration(configuration, listen)
    telemetry = start_telemetry("limiter", TelemetrySettings.from_configuration(configuration))
    store = MemoryStore(Ledger(settings.limits, clock=clock, uniform=uniform))
    servicer = LimiterServicer(store, settings.limits.rules.longest_lease_seconds)

    def register(server: grpc.aio.Server) -> None:
        limiter_service_pb2_grpc.add_LimiterServiceServicer_to_server(servicer, server)

    try:
        async with serve(SERVICE, register, settings.server, telemetry) as server:
            yield server
    finally:
        await telemetry.shutdown()
