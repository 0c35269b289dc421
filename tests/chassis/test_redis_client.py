"""Asking a shared Redis: how long one waits, and whose fault it is that no answer came."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from services.chassis.configuration import StoreSection
from services.chassis.redis_client import CONNECTIONS, PatientRedis, RedisDown, RedisHurried, Script, open_redis
from tests.support.redis_server import RedisServer, redis_server

TRIPLED = Script("return redis.call('INCRBY', KEYS[1], 3 * ARGV[1])")


@pytest.fixture
async def server() -> AsyncIterator[RedisServer]:
    """Run a server for one test."""
    async with redis_server() as running:
        yield running


@pytest.fixture
async def redis(server: RedisServer) -> AsyncIterator[PatientRedis]:
    """Return a client that waits half a second."""
    client = PatientRedis(open_redis(StoreSection(kind="redis", url=server.url), client_name="ensemble-test"), 0.5)
    yield client
    await client.aclose()


async def test_a_script_is_sent_once_and_known_afterwards(redis: PatientRedis, server: RedisServer) -> None:
    """A server that has forgotten it, as after a restart, is sent it again."""
    assert [await redis.run(TRIPLED, ["k"], 1), await redis.run(TRIPLED, ["k"], 2)] == [3, 9]
    await server.script_flush()
    assert await redis.run(TRIPLED, ["k"], 1) == 12
    assert "INCRBY" not in repr(TRIPLED)


async def test_a_server_that_does_not_answer_is_down(redis: PatientRedis, server: RedisServer) -> None:
    """In the time that the client has; when it answers again, it is not."""
    server.stop_answering()
    with pytest.raises(RedisDown) as caught:
        await redis.run(TRIPLED, ["k"], 1)
    assert not isinstance(caught.value, RedisHurried)
    server.go_on()
    assert await redis.run(TRIPLED, ["k"], 1) in {3, 6}


async def test_one_in_a_hurry_says_nothing_about_the_server(redis: PatientRedis, server: RedisServer) -> None:
    """Who has less time than the client's is told so, however many there are, and others are still asked for."""
    with pytest.raises(RedisHurried, match="no time to ask"):
        await redis.run(TRIPLED, ["k"], 1, within_seconds=-1.0)
    server.stop_answering()
    hurried = [redis.run(TRIPLED, ["k"], 1, within_seconds=0.01) for _ in range(2 * CONNECTIONS)]
    for error in await asyncio.gather(*hurried, return_exceptions=True):
        assert isinstance(error, RedisHurried)
    server.go_on()
    assert await redis.run(TRIPLED, ["k"], 1, within_seconds=100.0) >= 3


async def test_a_refusal_is_handed_on_only_where_it_is_expected(redis: PatientRedis) -> None:
    """Any other counts as a server that cannot answer; its text is not told."""
    refusing = Script("return redis.error_reply('NO secret')")
    with pytest.raises(RedisDown, match=r"^ResponseError$"):
        await redis.run(refusing, [])
    with pytest.raises(Exception, match="NO secret"):
        await redis.run(refusing, [], refusals=("NO",))


@pytest.mark.parametrize(("policy", "suitable"), [("noeviction", True), ("allkeys-lru", False), ("volatile-ttl", False)])
async def test_a_server_that_may_drop_what_it_holds_is_unsuitable(policy: str, suitable: bool) -> None:
    """The reason names the setting, and what to set it to."""
    async with redis_server("--maxmemory-policy", policy) as server:
        redis = PatientRedis(server.client(), 5.0)
        reason = await redis.unsuitable()
    assert (reason == "") is suitable
    if not suitable:
        assert f"maxmemory-policy is {policy}" in reason
        assert reason.endswith("set it to noeviction")
