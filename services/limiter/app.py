"""The limiter's composition root."""

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import grpc

from ensemble.v1 import limiter_service_pb2_grpc
from services.chassis.configuration import Configuration
from services.chassis.reloading import ConfigurationSource, reloading
from services.chassis.server import CannotStartError, RunningServer, serve
from services.chassis.telemetry import TelemetrySettings, start_telemetry
from services.limiter.guarded_store import DownPolicies, GuardedStore
from services.limiter.ledger import Ledger
from services.limiter.memory_store import MemoryStore
from services.limiter.obstacle import Uniform
from services.limiter.servicer import LimiterServicer
from services.limiter.settings import LimiterSettings, limits_of
from services.limiter.store import Store, StoreDown, StoreUnsuitable

_log = logging.getLogger(__name__)

SERVICE = "ensemble.v1.LimiterService"
HEARTBEAT_SECONDS = 2.0
"""How often a store outside is looked at while nobody asks: so that its clock goes on, its return is seen, and operators' words are known when it goes."""


@asynccontextmanager
async def application(
    configuration: Configuration,
    *,
    listen: str | None = None,
    insecure: bool = False,
    source: ConfigurationSource | None = None,
    clock: Callable[[], float] = time.monotonic,
    uniform: Uniform = random.uniform,
) -> AsyncIterator[RunningServer]:
    """Run the limiter; tests pass a clock and a source of jitter. Raises `CannotStartError` where the store cannot keep permits."""
    settings = LimiterSettings.from_configuration(configuration, listen, insecure=insecure)
    telemetry = start_telemetry("limiter", TelemetrySettings.from_configuration(configuration))
    try:
        async with _store(settings, clock, uniform) as store:
            servicer = LimiterServicer(store, settings.limits.rules.longest_lease_seconds)

            def register(server: grpc.aio.Server) -> None:
                limiter_service_pb2_grpc.add_LimiterServiceServicer_to_server(servicer, server)

            async def follow(changed: Configuration) -> None:
                await store.follow(limits_of(changed))
                _log.info("limits were read again; version %d is in force", (await store.state()).config_version)

            async with serve(SERVICE, register, settings.server, telemetry) as server, reloading(source, follow):
                try:
                    yield server
                finally:
                    servicer.stop_watching()
    finally:
        await telemetry.shutdown()


@asynccontextmanager
async def _store(settings: LimiterSettings, clock: Callable[[], float], uniform: Uniform) -> AsyncIterator[Store]:
    """Open the configured store. A new kind of store is one file beside this one, and one more way here."""
    section = settings.store
    if section.kind == "memory":
        if section.replicas > 1:
            _log.warning(
                "limiter.store is memory, but limiter.store.replicas is %d: each replica grants the whole of every limit by itself; use a shared store",
                section.replicas,
            )
        yield MemoryStore(Ledger(settings.limits, clock=clock, uniform=uniform))
        return
    try:
        # The client is an extra, and takes a while to import.
        from services.chassis.redis_client import open_redis  # noqa: PLC0415
        from services.limiter.redis_store import RedisStore  # noqa: PLC0415
    except ModuleNotFoundError:
        raise CannotStartError('limiter.store is redis, but the client is not installed; install the extra "redis"') from None
    redis = RedisStore(
        open_redis(section, client_name="ensemble-limiter"), settings.limits, pool=section.pool, timeout_seconds=section.timeout_seconds, uniform=uniform
    )
    down = section.down
    policies = DownPolicies(rates=down.rates, concurrency=down.concurrency, budgets=down.budgets, share=down.share, replicas=section.replicas)
    store = GuardedStore(redis, settings.limits, policies, clock=clock, uniform=uniform)
    try:
        await redis.prepare()
    except StoreUnsuitable as unsuitable:
        await redis.aclose()
        raise CannotStartError(str(unsuitable)) from None
    except StoreDown as down_now:
        _log.warning("the store is down (%s); the limiter starts all the same, and asks again", down_now)
    heartbeat = asyncio.create_task(_look_now_and_then(store), name="store-heartbeat")
    try:
        yield store
    finally:
        heartbeat.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await heartbeat
        await store.aclose()


async def _look_now_and_then(store: Store) -> None:
    while True:
        await asyncio.sleep(HEARTBEAT_SECONDS)
        try:
            await store.state()
        except Exception as error:  # noqa: BLE001 - whatever it is, the next look must come
            _log.error("the store could not be looked at (%s)", type(error).__name__)
