"""The limiters under test: processes on fixed ports, over one store, that can be killed and started again."""

import asyncio
import contextlib
import random
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import grpc
import yaml
from grpc_health.v1 import health_pb2, health_pb2_grpc

from ensemble.v1 import limiter_service_pb2_grpc

SECONDS_TO_START = 60.0
PORTS = range(20_000, 32_000)
"""Below the ports of outgoing connections, which may be taken while a limiter that was killed is not yet back."""
_CHANNEL = (("grpc.initial_reconnect_backoff_ms", 100), ("grpc.min_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 400))


class CannotStart(Exception):
    """A limiter does not serve; the text has the end of its log."""


class Replica:
    """One limiter process."""

    def __init__(self, number: int, folder: Path) -> None:
        """Take a folder that has an ensemble.yaml."""
        self.number = number
        self.address = f"127.0.0.1:{_free_port()}"
        self.channel = grpc.aio.insecure_channel(self.address, options=_CHANNEL)
        self.stub: limiter_service_pb2_grpc.LimiterServiceAsyncStub = limiter_service_pb2_grpc.LimiterServiceStub(self.channel)
        self._folder = folder
        self._process: asyncio.subprocess.Process | None = None

    @property
    def log(self) -> Path:
        """Where it writes."""
        return self._folder / f"limiter-{self.number}.log"

    async def start(self) -> None:
        """Start it and wait until it serves; raises CannotStart."""
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "services.limiter", "--config", str(self._folder / "ensemble.yaml"), "--listen", self.address),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        serving, ended = asyncio.create_task(self._serve()), asyncio.create_task(self._process.wait())
        try:
            await asyncio.wait({serving, ended}, timeout=SECONDS_TO_START, return_when=asyncio.FIRST_COMPLETED)
            if not serving.done():
                why = "does not serve" if self._process.returncode is None else f"ended with {self._process.returncode}"
                raise CannotStart(f"limiter {self.number} {why}: {self.log.read_text('utf-8')[-2000:]}")
            await serving
        finally:
            serving.cancel()
            ended.cancel()

    async def _serve(self) -> None:
        """Wait until it answers."""
        async with grpc.aio.insecure_channel(self.address, options=_CHANNEL) as channel:
            while True:
                try:
                    await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), wait_for_ready=True)
                except grpc.aio.AioRpcError as error:
                    # A connection may come about and be lost again while it starts.
                    if error.code() is not grpc.StatusCode.UNAVAILABLE:
                        raise
                    await asyncio.sleep(0.05)
                else:
                    return

    async def kill(self) -> None:
        """End it outright (SIGKILL)."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
            self._process = None


@contextlib.asynccontextmanager
async def running(count: int, configuration: Mapping[str, object], folder: Path) -> AsyncIterator[list[Replica]]:
    """Run so many limiters with one configuration, and end them."""
    await asyncio.to_thread((folder / "ensemble.yaml").write_text, yaml.safe_dump(dict(configuration)), "utf-8")
    replicas = [Replica(number, folder) for number in range(count)]
    try:
        async with asyncio.TaskGroup() as group:
            for replica in replicas:
                group.create_task(replica.start())
        yield replicas
    finally:
        for replica in replicas:
            await replica.channel.close()
            await replica.kill()


def _free_port() -> int:
    while True:
        port = random.choice(PORTS)  # nosec B311 # a port, not a secret
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
