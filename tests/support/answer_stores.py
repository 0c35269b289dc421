"""Stores of claims and cached answers, in memory and in Redis, whose clock is in the hand of the test."""

from dataclasses import dataclass
from itertools import count

from redis.asyncio import Redis

from services.chassis.redis_client import PatientRedis
from services.gateway.kept_answers import Claims, Entries
from services.gateway.memory_answers import MemoryClaims, MemoryEntries
from services.gateway.redis_answers import RedisClaims, RedisEntries

_CLOCK = ":test-clock"
TEST_TIME = f"""\
local function SERVER_TIME()
  local at = tonumber(redis.call('GET', KEYS[1] .. '{_CLOCK}'))
  return {{math.floor(at / 1000000), at % 1000000}}
end
"""
BEGIN = 1_700_000_000

_pools = count()


@dataclass(slots=True, kw_only=True)
class Clock:
    """Seconds that pass when they are told to."""

    now: float = BEGIN

    def __call__(self) -> float:
        """Return the time."""
        return self.now


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerStores:
    """Both stores of one kind, on one clock."""

    claims: Claims
    entries: Entries
    clock: Clock
    redis: Redis | None = None
    pool: str = ""

    async def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.clock.now += seconds
        await self.tell_time()

    async def tell_time(self) -> None:
        """Tell Redis the time."""
        if self.redis is not None:
            for kind in ("replays", "cache"):
                await self.redis.set(f"{{{self.pool}}}:{kind}:values{_CLOCK}", str(round(self.clock.now * 1_000_000)))

    async def bytes_in_redis(self, kind: str) -> tuple[int, int, int]:
        """Return what the counter says, how many bytes there are, and how many answers: of "replays" or "cache"."""
        assert self.redis is not None
        values = await self.redis.hgetall(f"{{{self.pool}}}:{kind}:values")
        counted = int(await self.redis.get(f"{{{self.pool}}}:{kind}:bytes") or 0)
        assert await self.redis.zcard(f"{{{self.pool}}}:{kind}:ends") == len(values)
        return counted, sum(map(len, values.values())), len(values)


def in_memory(*, window: float = 60, lease: float = 10, most_bytes: int = 1 << 20) -> AnswerStores:
    """Return stores in memory."""
    clock = Clock()
    claims = MemoryClaims(window_seconds=window, lease_seconds=lease, most_bytes=most_bytes, clock=clock)
    return AnswerStores(claims=claims, entries=MemoryEntries(most_bytes=most_bytes, clock=clock), clock=clock)


async def in_redis(client: Redis, *, window: float = 60, lease: float = 10, most_bytes: int = 1 << 20) -> AnswerStores:
    """Return stores in Redis, in a pool of their own; the client is the caller's to close."""
    pool = f"pool-{next(_pools)}"
    redis = PatientRedis(client, 5.0)
    claims = RedisClaims(redis, pool=pool, window_seconds=window, lease_seconds=lease, most_bytes=most_bytes, server_time=TEST_TIME)
    entries = RedisEntries(redis, pool=pool, most_bytes=most_bytes, server_time=TEST_TIME)
    stores = AnswerStores(claims=claims, entries=entries, clock=Clock(), redis=client, pool=pool)
    await stores.tell_time()
    return stores
