"""A store in Redis whose clock is in the hand of the test."""

from collections.abc import Callable
from itertools import count

from redis.asyncio import Redis

from services.limiter.limits import Limits
from services.limiter.obstacle import Uniform
from services.limiter.redis_store import RedisStore

CLOCK_KEY = ":test-clock"
TEST_TIME = f"""\
local function SERVER_TIME()
  local at = tonumber(redis.call('GET', KEYS[1] .. '{CLOCK_KEY}'))
  return {{math.floor(at / 1000000), at % 1000000}}
end
"""


def middle(low: float, high: float) -> float:
    """Give the middle instead of a random number."""
    return low + (high - low) * 0.5


def numbered() -> Callable[[], str]:
    """Return a source of ids that count."""
    numbers = count(1)
    return lambda: f"{next(numbers):032x}"


async def set_clock(client: Redis, pool: str, seconds: float) -> None:
    """Tell a pool the time, in seconds since 1970."""
    await client.set(f"{{{pool}}}:clock{CLOCK_KEY}", str(round(seconds * 1_000_000)))


def timed_store(client: Redis, limits: Limits, pool: str, *, uniform: Uniform = middle) -> RedisStore:
    """Return a store that goes by the time it is told; the client is shared, so the store is not to be closed."""
    return RedisStore(client, limits, pool=pool, timeout_seconds=5.0, uniform=uniform, new_id=numbered(), server_time=TEST_TIME)
