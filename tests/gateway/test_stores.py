"""The stores that a configuration names."""

import sys
from pathlib import Path

import pytest

from services.chassis.configuration import Configuration, load_configuration
from services.chassis.server import CannotStartError
from services.gateway.app import application
from services.gateway.memory_answers import MemoryClaims, MemoryEntries
from services.gateway.redis_answers import RedisClaims, RedisEntries
from services.gateway.stores import open_stores
from tests.support.redis_server import redis_server


def configured(url: str = "redis://127.0.0.1:1/0", *, idempotency: str = "memory", cache: str = "memory") -> Configuration:
    """Return a configuration with stores of these kinds."""
    gateway = {"listen": "127.0.0.1:0", "idempotency": {"store": idempotency}, "cache": {"store": cache}}
    return load_configuration(environ={}, folder=Path(__file__).parent, overrides={"limiter": {"store": {"url": url}}, "gateway": gateway})


@pytest.mark.parametrize("idempotency", ["memory", "redis"])
@pytest.mark.parametrize("cache", ["memory", "redis"])
async def test_each_is_of_the_kind_that_it_is_given(idempotency: str, cache: str) -> None:
    """Claims and cached answers may be kept in different places; the limiter's own store may be of another kind."""
    async with redis_server() as server, open_stores(configured(server.url, idempotency=idempotency, cache=cache)) as stores:
        assert isinstance(stores.claims, RedisClaims if idempotency == "redis" else MemoryClaims)
        assert isinstance(stores.entries, RedisEntries if cache == "redis" else MemoryEntries)


@pytest.mark.parametrize("section", ["idempotency", "cache"])
async def test_without_the_client_there_is_no_start(monkeypatch: pytest.MonkeyPatch, section: str) -> None:
    """The text names the setting and the extra."""
    monkeypatch.delitem(sys.modules, "services.chassis.redis_client", raising=False)
    for name in [name for name in sys.modules if name.partition(".")[0] == "redis"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "redis", None)
    monkeypatch.setitem(sys.modules, "redis.asyncio", None)
    configuration = configured(idempotency="redis") if section == "idempotency" else configured(cache="redis")
    with pytest.raises(CannotStartError) as caught:
        async with application(configuration):
            pass
    assert str(caught.value) == f'gateway.{section}.store is redis, but the client is not installed; install the extra "redis"'
