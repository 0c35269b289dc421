"""Answers kept in Redis, or Valkey, for any number of gateways: each operation is one run of one script, so it is indivisible, and goes by the server's time.

Names of keys hold digests alone; values are the callers' answers as they are.
"""

from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import Any

from services.chassis.redis_client import SERVER_TIME, PatientRedis, RedisDown, RedisHurried, Script
from services.gateway.kept_answers import (
    CONTENT_BYTES,
    ENTRY_OVERHEAD_BYTES,
    Claimed,
    Entry,
    Finished,
    OtherContent,
    Running,
    Standing,
    StoreDown,
    StoreHurried,
)

_MADE_AT_BYTES = 13
"""Figures of the milliseconds since 1970, for the next 260 years."""


@cache
def script(*parts: str, ahead: int, server_time: str = SERVER_TIME) -> Script:
    """Return the script that the parts make, in their order, for values with so many bytes ahead of the answer."""
    folder = resources.files("services.gateway.lua")
    numbers = f"local AHEAD, OVERHEAD = {ahead}, {ENTRY_OVERHEAD_BYTES}\n"
    return Script(server_time + numbers + "\n".join(folder.joinpath(f"{part}.lua").read_text(encoding="utf-8") for part in ("kept", *parts)))


def _keys(pool: str, kind: str) -> list[str]:
    # The pool is the hash tag, so that in a cluster all keys of a script lie together.
    return [f"{{{pool}}}:{kind}:{part}" for part in ("values", "ends", "bytes")]


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))


class RedisClaims:
    """Satisfies `services.gateway.kept_answers.Claims`."""

    def __init__(self, redis: PatientRedis, *, pool: str, window_seconds: float, lease_seconds: float, most_bytes: int, server_time: str = SERVER_TIME) -> None:
        """Take the server, which is closed by whoever opened it, and how long and how much is kept; tests give a clock of their own."""
        self._redis = redis
        self._pool = pool
        self._keys = _keys(pool, "replays")
        self._window = _milliseconds(window_seconds)
        self._lease = _milliseconds(lease_seconds)
        self._most = most_bytes
        self._claim, self._finish, self._release = (
            script("claims", part, ahead=CONTENT_BYTES, server_time=server_time) for part in ("claim", "finish", "release")
        )

    async def claim(self, name: str, content: bytes, owner: str, *, within_seconds: float) -> Standing:
        """Take the claim if it is free or the owner's already, and return how things stand."""
        word, *result = await self._run(self._claim, name, [content, owner, self._lease], within_seconds)
        match word:
            case b"claimed":
                return Claimed()
            case b"running":
                return Running()
            case b"finished":
                return Finished(result=result[0])
            case _:
                return OtherContent()

    async def finish(self, name: str, content: bytes, owner: str, result: bytes, *, within_seconds: float) -> Finished:
        """Keep the result, unless one is kept already, and give the claim up; return what everybody who repeats this content is to be told."""
        return Finished(result=await self._run(self._finish, name, [content, owner, self._window, self._most, result], within_seconds))

    async def release(self, name: str, owner: str, *, within_seconds: float) -> None:
        """Give the claim up, if it is the owner's, with nothing to show."""
        await self._run(self._release, name, [b"", owner], within_seconds)

    async def _run(self, operation: Script, name: str, arguments: Sequence[str | bytes | int], within_seconds: float) -> Any:
        keys = [*self._keys, f"{{{self._pool}}}:replays:claim:{name}"]
        return await _ran(self._redis, operation, keys, [name, *arguments], within_seconds)


class RedisEntries:
    """Satisfies `services.gateway.kept_answers.Entries`."""

    def __init__(self, redis: PatientRedis, *, pool: str, most_bytes: int, server_time: str = SERVER_TIME) -> None:
        """Take the server, which is closed by whoever opened it, and how much is kept; tests give a clock of their own."""
        self._redis = redis
        self._keys = _keys(pool, "cache")
        self._most = most_bytes
        self._get, self._put = (script(part, ahead=_MADE_AT_BYTES, server_time=server_time) for part in ("get", "put"))

    async def get(self, name: str, *, within_seconds: float) -> Entry | None:
        """Return what is kept under a name; None where nothing is, or nothing any longer."""
        found = await _ran(self._redis, self._get, self._keys, [name], within_seconds)
        return Entry(data=found[1], age_seconds=max(0, found[0]) / 1000) if found else None

    async def put(self, name: str, data: bytes, ttl_seconds: float, *, within_seconds: float) -> bool:
        """Keep something in the place of what was kept under the name; return whether it is kept: too much is not."""
        return bool(await _ran(self._redis, self._put, self._keys, [name, _milliseconds(ttl_seconds), self._most, data], within_seconds))


async def _ran(redis: PatientRedis, operation: Script, keys: Sequence[str], arguments: Sequence[str | bytes | int], within_seconds: float) -> Any:
    try:
        return await redis.run(operation, keys, *arguments, within_seconds=within_seconds)
    except RedisHurried as hurried:
        raise StoreHurried(str(hurried)) from hurried
    except RedisDown as down:
        raise StoreDown(str(down)) from down
