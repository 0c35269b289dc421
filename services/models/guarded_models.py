"""Puts the permit guard together: the limiter's channel, the catalogue, the providers and the reporter."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from services.chassis.channel import open_channel
from services.chassis.configuration import Configuration
from services.chassis.telemetry import Telemetry
from services.models.catalogue import Catalogue
from services.models.chat import ChatModel
from services.models.fallback_permits import FallbackPermits
from services.models.grpc_permits import GrpcPermits
from services.models.guard import Guard
from services.models.local_permits import LimiterDown, LocalPermits
from services.models.providers import open_providers
from services.models.reporter import OutcomeReporter

LIMITER_SERVICE = "ensemble.v1.LimiterService"


@asynccontextmanager
async def open_guard(
    configuration: Configuration, limiter: str, limiter_down: LimiterDown, telemetry: Telemetry, *, providers: Mapping[str, ChatModel] | None = None
) -> AsyncIterator[Guard]:
    """Open what guarded calls need; on leaving, send the last reports, then close the providers' connections.

    The limiter is a gRPC target; `limiter_down` says what stands in for it while it cannot be reached. Given providers are used as they are and left open.
    """
    opened: Mapping[str, ChatModel] = {} if providers is not None else open_providers(configuration)
    try:
        async with open_channel(limiter, telemetry, health_service=LIMITER_SERVICE, identity=configuration.identity) as channel:
            local = LocalPermits.from_configuration(configuration, limiter_down)
            permits = FallbackPermits(GrpcPermits(channel), local)
            reporter = OutcomeReporter(permits, local=local, batch_per_context=telemetry.enabled)
            try:
                yield Guard(
                    permits=permits,
                    reporter=reporter,
                    catalogue=Catalogue.from_configuration(configuration),
                    providers=opened if providers is None else providers,
                    telemetry=telemetry,
                )
            finally:
                await reporter.aclose()
    finally:
        for provider in opened.values():
            await provider.aclose()
