"""A Redis, or Valkey, that several processes of ours share: how it is reached, how long it is waited for, and whether it can be relied on.

Whoever uses it imports this module only then, for the client is an extra.
"""

import asyncio
import hashlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, RedisError, ResponseError

from services.chassis.configuration import StoreSection

CONNECTIONS = 16
"""Questions under way at once; the server takes them one by one anyway."""
PATIENCE = 3
"""So many failures while a question waits for its turn are enough not to ask it."""
OLDEST_VERSION = (6, 2)
SERVER_TIME = "local function SERVER_TIME() return redis.call('TIME') end\n"
"""Where a script's time comes from: the server's clock, never a client's."""


class RedisDown(Exception):
    """It did not answer, or could not; nobody knows whether what was asked was done. The text names the kind of failure."""


class RedisHurried(RedisDown):
    """It did not answer in the time that the asker had, which was less than it is given otherwise; that says nothing about the server."""


def open_redis(section: StoreSection, *, client_name: str) -> Redis:
    """Return a client for the configured server; nothing is opened yet."""
    pool = BlockingConnectionPool.from_url(
        section.url,
        username=section.username,
        password=None if section.password is None else section.password.get_secret_value(),
        max_connections=CONNECTIONS,
        socket_connect_timeout=section.timeout_seconds,
        socket_timeout=None,
        # A connection that the server has closed meanwhile is replaced once; more is decided by those who know what stands in for the store.
        retry=Retry(NoBackoff(), 1),
        retry_on_error=[RedisConnectionError],
        client_name=client_name,
    )
    return Redis.from_pool(pool)


@dataclass(frozen=True, slots=True)
class Script:
    """A script that the server runs, indivisibly."""

    text: str = field(repr=False)
    sha: str = field(init=False)
    """The name under which the server knows it once it has seen it."""

    def __post_init__(self) -> None:
        """Name it."""
        object.__setattr__(self, "sha", hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest())


class PatientRedis:
    """Asks a server, waiting so long and no longer."""

    def __init__(self, client: Redis, timeout_seconds: float) -> None:
        """Take a client, which is closed with this, and the longest time for one answer."""
        self.client = client
        self._timeout = timeout_seconds
        self._places = asyncio.Semaphore(CONNECTIONS)
        self._failures = 0

    async def ask(self, question: Callable[[], Any], *, within_seconds: float | None = None, refusals: Collection[str] = ()) -> Any:
        """Return the answer. Raises `RedisDown`, or `ResponseError` for a refusal that begins with one of these words.

        The bound on the time is the client's own or, where that is shorter, `within_seconds`.
        """
        hurried = within_seconds is not None and within_seconds < self._timeout
        if within_seconds is not None and within_seconds <= 0:
            raise RedisHurried("no time to ask")
        # Waiting for a place is this process's own load, and says nothing about the store.
        failures = self._failures
        async with self._places:
            if self._failures - failures >= PATIENCE:
                # What was asked meanwhile says enough; each one more would only wait in its turn.
                raise RedisDown("it failed those who asked before")
            try:
                async with asyncio.timeout(within_seconds if hurried else self._timeout):
                    return await question()
            except (TimeoutError, OSError) as error:
                if hurried and isinstance(error, TimeoutError):
                    raise RedisHurried(type(error).__name__) from error
                self._failures += 1
                raise RedisDown(type(error).__name__) from error
            except ResponseError as error:
                if str(error).partition(" ")[0] in refusals:
                    raise
                # Such as OOM, READONLY after a failover, or LOADING after a restart.
                raise RedisDown(type(error).__name__) from error
            except RedisError as error:
                self._failures += 1
                raise RedisDown(type(error).__name__) from error

    async def run(
        self, script: Script, keys: Sequence[str], *arguments: str | bytes | int, within_seconds: float | None = None, refusals: Collection[str] = ()
    ) -> Any:
        """Run a script over the keys that it may touch, and return what it answers. Raises as `ask`."""

        async def evaluate() -> Any:
            try:
                return await self.client.evalsha(script.sha, len(keys), *keys, *arguments)
            except NoScriptError:
                return await self.client.eval(script.text, len(keys), *keys, *arguments)

        return await self.ask(evaluate, within_seconds=within_seconds, refusals=refusals)

    async def unsuitable(self) -> str:
        """Return why the server cannot be relied on to keep what it is told, and what to change; empty where it can. Raises `RedisDown`."""
        server = await self.ask(lambda: self.client.info("server"))
        memory = await self.ask(lambda: self.client.info("memory"))
        version = str(server.get("redis_version", "0"))
        if tuple(int(part) for part in version.split(".")[:2]) < OLDEST_VERSION:
            return f"the store is Redis {version}; 6.2 or later, or Valkey, is needed"
        policy = str(memory.get("maxmemory_policy", "noeviction"))
        if policy != "noeviction":
            return (
                f"the store's maxmemory-policy is {policy}: when memory is short it would drop what it was told to keep without a word, permits, budgets and "
                "claims among it, and nothing would hold any longer; set it to noeviction"
            )
        return ""

    async def aclose(self) -> None:
        """Close the connections."""
        await self.client.aclose()
