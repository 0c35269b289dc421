"""Opens the configured stores of claims and cached answers. A new kind of store is one file beside this one, and one more way here."""

import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from services.chassis.configuration import Configuration, StoreSection
from services.gateway.kept_answers import Claims, Entries, StoreUnsuitable
from services.gateway.memory_answers import MemoryClaims, MemoryEntries

if TYPE_CHECKING:
    from services.chassis.redis_client import PatientRedis

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stores:
    """Where the gateway keeps answers."""

    claims: Claims
    entries: Entries


@asynccontextmanager
async def open_stores(configuration: Configuration, *, clock: Callable[[], float] = time.monotonic) -> AsyncIterator[Stores]:
    """Open the stores that the gateway's section names. Raises `StoreUnsuitable` where one cannot be used; one that is down is waited for by nobody."""
    idempotency, cache, shared = configuration.gateway.idempotency, configuration.gateway.cache, configuration.limiter.store
    window, lease = idempotency.window_seconds, idempotency.lease_seconds
    claims: Claims = MemoryClaims(window_seconds=window, lease_seconds=lease, most_bytes=idempotency.most_bytes, clock=clock)
    entries: Entries = MemoryEntries(most_bytes=cache.most_bytes, clock=clock)
    in_redis = [name for name, section in (("idempotency", idempotency), ("cache", cache)) if section.store == "redis"]
    async with AsyncExitStack() as stack:
        if in_redis:
            redis = await stack.enter_async_context(_shared_redis(shared, f"gateway.{in_redis[0]}.store"))
            # With the client there, what stands on it can be imported.
            from services.gateway.redis_answers import RedisClaims, RedisEntries  # noqa: PLC0415

            if idempotency.store == "redis":
                claims = RedisClaims(redis, pool=shared.pool, window_seconds=window, lease_seconds=lease, most_bytes=idempotency.most_bytes)
            if cache.store == "redis":
                entries = RedisEntries(redis, pool=shared.pool, most_bytes=cache.most_bytes)
        yield Stores(claims=claims, entries=entries)


@asynccontextmanager
async def _shared_redis(section: StoreSection, setting: str) -> AsyncIterator["PatientRedis"]:
    try:
        # The client is an extra, and takes a while to import.
        from services.chassis.redis_client import PatientRedis, RedisDown, open_redis  # noqa: PLC0415
    except ModuleNotFoundError:
        raise StoreUnsuitable(f'{setting} is redis, but the client is not installed; install the extra "redis"') from None
    redis = PatientRedis(open_redis(section, client_name="ensemble-gateway"), section.timeout_seconds)
    try:
        try:
            reason = await redis.unsuitable()
        except RedisDown as down:
            _log.warning("the store is down (%s); the gateway starts all the same", down)
            reason = ""
        if reason:
            raise StoreUnsuitable(reason)
        yield redis
    finally:
        await redis.aclose()
