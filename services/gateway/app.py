"""The gateway's composition root."""

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import grpc

from ensemble.v1 import gateway_service_pb2_grpc
from services.chassis.channel import open_channel
from services.chassis.configuration import Configuration, answering_digest
from services.chassis.reloading import ConfigurationSource
from services.chassis.server import CannotStartError, RunningServer, serve
from services.chassis.telemetry import TelemetrySettings, start_telemetry
from services.gateway.admission import Admission
from services.gateway.admission_metrics import AdmissionMetrics
from services.gateway.admitted import Admitted
from services.gateway.cached import Cached
from services.gateway.grpc_authentication import Authentication
from services.gateway.grpc_availability import GrpcAvailability
from services.gateway.grpc_calls_cap import CallsCap, TenantCallsCap
from services.gateway.grpc_results import GrpcResults
from services.gateway.grpc_runs import GrpcRuns
from services.gateway.kept_answers import StoreUnsuitable
from services.gateway.load_rules import LoadRules
from services.gateway.planner import Planner, new_run_id
from services.gateway.profiles import profiles_from
from services.gateway.recent_runs import RecentRuns
from services.gateway.replays import Replays
from services.gateway.retry_pace import RetryPace
from services.gateway.servicer import GatewayServicer
from services.gateway.settings import GatewaySettings, callers_pass_for_services
from services.gateway.stores import open_stores
from services.gateway.tenancy import tenancy_of
from services.models.catalogue import Catalogue

_log = logging.getLogger(__name__)

SERVICE = "ensemble.v1.GatewayService"
ORCHESTRATOR_SERVICE = "ensemble.v1.OrchestratorService"
LIMITER_SERVICE = "ensemble.v1.LimiterService"


async def follow(channel: grpc.aio.Channel, tell: Callable[[bool], None]) -> None:
    """Tell whether the other end of a channel can be reached, now and with each change, until cancelled.

    The other end is reached once the channel is READY, which by the health check in its service configuration means that it says it serves. Only a failure
    takes that back: while the channel is idle or connects again, the last word holds.
    """
    state = channel.get_state(try_to_connect=True)
    while True:
        if state is grpc.ChannelConnectivity.READY:
            tell(True)
        elif state is grpc.ChannelConnectivity.TRANSIENT_FAILURE:
            tell(False)
        await channel.wait_for_state_change(state)
        state = channel.get_state(try_to_connect=True)


@asynccontextmanager
async def application(
    configuration: Configuration,
    *,
    listen: str | None = None,
    insecure: bool = False,
    source: ConfigurationSource | None = None,
    new_id: Callable[[], str] = new_run_id,
) -> AsyncIterator[RunningServer]:
    """Run the gateway; tests pass a source of run ids.

    Of a changed configuration the tenants' keys, names of certificates, profiles and models are followed, and nothing else. Raises `ConfigurationError` where
    the keys file is wrong, `CannotStartError` where a store cannot be used.
    """
    settings = GatewaySettings.from_configuration(configuration, listen, insecure=insecure)
    if callers_pass_for_services(configuration):
        _log.warning("gateway.tls.client_ca and tls.ca share an authority, so callers may call orchestrator, limiter and refiner too; set tls.callers")
    catalogue = Catalogue.from_configuration(configuration)
    profiles = profiles_from(configuration)
    telemetry = start_telemetry("gateway", TelemetrySettings.from_configuration(configuration))
    try:
        async with (
            open_channel(settings.orchestrator, telemetry, health_service=ORCHESTRATOR_SERVICE, identity=configuration.identity) as orchestrator,
            open_channel(settings.limiter, telemetry, health_service=LIMITER_SERVICE, identity=configuration.identity) as limiter,
            open_stores(configuration) as stores,
            tenancy_of(configuration, source, secret=secrets.token_bytes(32)) as callers,
        ):
            rules, metrics = LoadRules.from_configuration(configuration), AdmissionMetrics(telemetry)
            admission = Admission(rules, RetryPace(rules.concurrency), on_refusal=metrics.refused)
            admitted = Admitted(GrpcRuns(orchestrator), admission, RecentRuns() if rules.deadline_check else None, metrics)
            results = GrpcResults()
            # Neither a repeat nor a cached answer takes a place, and a repeat of a cached answer finds it as it was first given.
            cached = Cached(admitted, stores.entries, results, digest=answering_digest(configuration))
            servicer = GatewayServicer(
                planner=Planner(profiles, catalogue.names(), new_id),
                profiles=profiles.values(),
                models=[catalogue.get(name) for name in catalogue.names()],
                runs=Replays(cached, stores.claims, results, lease_seconds=settings.lease_seconds),
                availability=GrpcAvailability(limiter),
                settings=settings,
            )

            def register(server: grpc.aio.Server) -> None:
                gateway_service_pb2_grpc.add_GatewayServiceServicer_to_server(servicer, server)

            interceptors = [
                CallsCap(rules.most_calls, admission.retry_after_seconds),
                Authentication(callers),
                TenantCallsCap(rules.tenant_calls, admission.retry_after_seconds),
            ]
            async with serve(SERVICE, register, settings.server, telemetry, interceptors=interceptors) as server:
                server.health.set("orchestrator", False)
                following = asyncio.create_task(follow(orchestrator, lambda ready: server.health.set("orchestrator", ready)), name="orchestrator's readiness")
                try:
                    yield server
                finally:
                    following.cancel()
                    await asyncio.wait([following])
    except StoreUnsuitable as unsuitable:
        raise CannotStartError(str(unsuitable)) from None
    finally:
        await telemetry.shutdown()
