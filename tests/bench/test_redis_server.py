"""The redis-server of tests and benchmarks: a real one, and never one that stays behind."""

import asyncio
import os
import sys
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from tests.support import redis_server as module
from tests.support.redis_server import RedisServer, RedisServerFailed, RedisServerMissing, find_redis_server, redis_server

SECONDS_TO_WAIT = 20


def client(server: RedisServer) -> Redis:
    """Return a client that tries once more where its connection is gone."""
    return server.client(decode_responses=True, retry=Retry(NoBackoff(), 1))


async def gone(pid: int) -> None:
    """Wait until there is no such process, or only its entry waits for somebody to take note."""
    async with asyncio.timeout(SECONDS_TO_WAIT):
        while alive(pid):
            await asyncio.sleep(0.01)


def alive(pid: int) -> bool:
    """Tell whether a process runs."""
    try:
        return Path(f"/proc/{pid}/stat").read_text("ascii").rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def test_it_serves_and_is_gone() -> None:
    """A client may be awaited or used at once; nothing is evicted or saved; at the end process and folder are gone, even of a server that was stopped."""
    async with redis_server() as server:
        first = await server.client(decode_responses=True)
        assert await first.set("name", "value")
        assert await server.client(decode_responses=True).get("name") == "value"
        assert await first.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        assert await first.config_get("save") == {"save": ""}
        pid, folder = server.pid, server.folder
        server.stop_answering()
    await gone(pid)
    assert not folder.exists()


async def test_what_it_was_given_can_be_lost_or_kept() -> None:
    """The keys are kept by a restart that is told to, and lost by one that is not, by a kill and by a flush; the port stays."""
    async with redis_server() as server:
        port, redis = server.port, client(server)
        await redis.set("name", "value")
        await server.restart(keep_data=True)
        assert await redis.get("name") == "value"
        await server.restart()
        assert await redis.get("name") is None
        await redis.set("name", "value")
        await server.kill()
        assert not server.running
        await server.start()
        assert await redis.get("name") is None
        await redis.set("name", "value")
        await server.flush()
        assert await redis.get("name") is None
        assert server.port == port


async def test_scripts_can_be_forgotten() -> None:
    """As after a restart, but with the data kept."""
    async with redis_server() as server:
        redis = client(server)
        await redis.set("name", "value")
        sha = await redis.script_load("return 1")
        await server.script_flush()
        assert await redis.script_exists(sha) == [False]
        assert await redis.get("name") == "value"


async def test_it_can_be_made_to_hang() -> None:
    """While it is stopped a command gets no answer, and connections still come about; afterwards it answers what was asked in between."""
    async with redis_server() as server:
        redis = client(server)
        await redis.set("name", "value")
        server.stop_answering()
        waiting = asyncio.ensure_future(redis.get("name"))
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        done, _ = await asyncio.wait({waiting}, timeout=0.2)
        assert not done
        server.go_on()
        assert await waiting == "value"
        writer.close()
        await writer.wait_closed()


async def test_more_arguments_stand_above_the_defaults() -> None:
    """A password and another policy, for example; readiness is seen all the same."""
    async with redis_server("--requirepass", "open sesame", "--maxmemory-policy", "allkeys-lru") as server:
        redis = server.client(password="open sesame", decode_responses=True)
        assert await redis.config_get("maxmemory-policy") == {"maxmemory-policy": "allkeys-lru"}


async def test_one_that_cannot_start_says_why() -> None:
    """The error has the end of its log, and the folder is gone."""
    server = RedisServer("--no-such-setting", "1")
    with pytest.raises(RedisServerFailed, match="no-such-setting"):
        await server.__aenter__()
    assert not server.folder.exists()


async def test_it_dies_with_its_parent() -> None:
    """Even where the parent is killed and can do nothing about it."""
    program = """
import asyncio
from tests.support.redis_server import RedisServer

async def main():
    async with RedisServer() as server:
        print(server.pid, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).parents[2])
    assert parent.stdout is not None
    async with asyncio.timeout(SECONDS_TO_WAIT):
        pid = int(await parent.stdout.readline())
    os.kill(pid, 0)
    parent.kill()
    await parent.communicate()
    await gone(pid)


async def test_without_a_redis_server_a_test_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is missing is named."""
    monkeypatch.setattr(module, "NAMES", ("no-such-server",))
    monkeypatch.setattr(module, "WHEELS", ("no_such_wheel",))
    with pytest.raises(RedisServerMissing, match=r"no-such-server.*no_such_wheel"):
        find_redis_server()
    with pytest.raises(pytest.skip.Exception, match="no-such-server"):
        async with redis_server():
            pass


def test_a_server_of_a_wheel_is_found_without_importing_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Some of these packages start servers when they are imported; a file that cannot be run does not count."""
    package = tmp_path / "wheel_with_redis"
    (package / "bin").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')", "utf-8")
    executable = package / "bin" / "redis-server"
    executable.touch(mode=0o600)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(module, "NAMES", ())
    monkeypatch.setattr(module, "WHEELS", ("wheel_with_redis",))
    with pytest.raises(RedisServerMissing):
        find_redis_server()
    executable.chmod(0o700)
    assert find_redis_server() == str(executable)
