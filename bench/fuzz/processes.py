"""The processes of a run: a gateway before the stub, the four services over the mock provider, and what they wrote."""

import asyncio
import contextlib
import json
import os
import random
import socket
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import grpc
import yaml
from grpc_health.v1 import health_pb2, health_pb2_grpc

from bench.fuzz.setting import Doors, configuration

SERVICES = ("limiter", "refiner", "orchestrator", "gateway")
FRONT = "front"
"""The gateway before the stub, which most requests go to."""
GATEWAY = "gateway"
"""The gateway before the other three services."""
SERVICE = "ensemble.v1.GatewayService"
SECONDS_TO_START = 60.0
SECONDS_TO_END = 30.0
PORTS = range(20_000, 32_000)
"""Below the ports of outgoing connections, of which this run makes many."""
_PAGE = os.sysconf("SC_PAGE_SIZE")


class CannotStart(Exception):
    """A process does not serve; the text has the end of its log."""


class Died(Exception):
    """A service is gone, and with it the run; the text has the end of its log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Processes:
    """Everything that runs."""

    addresses: Mapping[str, str]
    folder: Path
    running: Mapping[str, asyncio.subprocess.Process]

    def resident_mb(self, name: str) -> float:
        """Return a process's resident memory in MB (proc(5), statm); raises Died."""
        try:
            return int(Path(f"/proc/{self.running[name].pid}/statm").read_text(encoding="ascii").split()[1]) * _PAGE / 1e6
        except OSError:
            raise self.died(name) from None

    def died(self, name: str) -> "Died":
        """Return the error that says how a process has ended."""
        return Died(f"{name} ended with {self.running[name].returncode}: {self.log_of(name).read_text('utf-8', errors='backslashreplace')[-3000:]}")

    def log_of(self, name: str) -> Path:
        """Return where a process writes."""
        return self.folder / f"{name}.log"

    def lines(self) -> Iterator[tuple[str, str]]:
        """Yield every line that a service wrote, with the service's name."""
        for name in (*SERVICES, FRONT):
            with self.log_of(name).open(encoding="utf-8", errors="backslashreplace") as log:
                for line in log:
                    yield name, line.rstrip("\n")

    async def health(self, name: str) -> str:
        """Return what a gateway says of its health, for example "SERVING"."""
        async with grpc.aio.insecure_channel(self.addresses[name]) as channel:
            try:
                reply = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=SERVICE), timeout=10, wait_for_ready=True)
            except grpc.aio.AioRpcError as error:
                return error.code().name
            return str(health_pb2.HealthCheckResponse.ServingStatus.Name(reply.status))

    async def end(self) -> dict[str, int | None]:
        """Tell the services to stop, gateways first; return how they ended, None for one that did not in time."""
        codes: dict[str, int | None] = {}
        for name in (FRONT, *reversed(SERVICES)):
            process = self.running[name]
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            try:
                async with asyncio.timeout(SECONDS_TO_END):
                    codes[name] = await process.wait()
            except TimeoutError:
                codes[name] = None
        return codes


@contextlib.asynccontextmanager
async def running(folder: Path, receiver: str, doors: Doors) -> AsyncIterator[Processes]:
    """Start everything and wait until both gateways are ready; raises CannotStart."""
    async with contextlib.AsyncExitStack() as stack:
        processes: dict[str, asyncio.subprocess.Process] = {}
        ports = {}
        for name, module in (("provider", "bench.mock_provider"), ("stub", "bench.fuzz.stub")):
            processes[name] = await _started(stack, folder / f"{name}.log", "-m", module)
            ports[name] = await _printed_port(processes[name], folder / f"{name}.log")
        addresses = dict(zip((*SERVICES, FRONT), _free_addresses(len(SERVICES) + 1), strict=True))
        path = folder / "ensemble.yaml"
        settings = configuration(provider_port=ports["provider"], addresses=addresses, receiver=receiver, doors=doors)
        await asyncio.to_thread(path.write_text, yaml.safe_dump(settings), "utf-8")
        before_stub = {f"ENSEMBLE__GATEWAY__{name}": f"127.0.0.1:{ports['stub']}" for name in ("ORCHESTRATOR", "LIMITER")}
        for name in (*SERVICES, FRONT):
            service = GATEWAY if name == FRONT else name
            arguments = ("-m", f"services.{service}", "--config", str(path), "--listen", addresses[name])
            processes[name] = await _started(stack, folder / f"{name}.log", *arguments, environ=before_stub if name == FRONT else {})
        started = Processes(addresses=addresses, folder=folder, running=processes)
        for name in (GATEWAY, FRONT):
            await _ready(started, name)
        yield started


async def _ready(processes: Processes, name: str) -> None:
    try:
        async with asyncio.timeout(SECONDS_TO_START):
            while await processes.health(name) != "SERVING":
                if processes.running[name].returncode is not None:
                    raise CannotStart(f"{name} ended: {processes.log_of(name).read_text('utf-8')[-2000:]}")
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise CannotStart(f"{name} does not serve: {processes.log_of(name).read_text('utf-8')[-2000:]}") from None


async def _printed_port(process: asyncio.subprocess.Process, log: Path) -> int:
    assert process.stdout is not None  # nosec B101 # for the type checker; it was asked for
    try:
        return int(await process.stdout.readline())
    except ValueError:
        raise CannotStart(f"{log.stem} does not serve; it prints no port") from None


async def _started(stack: contextlib.AsyncExitStack, log: Path, *arguments: str, environ: Mapping[str, str] | None = None) -> asyncio.subprocess.Process:
    with log.open("ab") as errors:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, *arguments),
            stdin=asyncio.subprocess.PIPE,
            # What prints its port; the services print nothing.
            stdout=asyncio.subprocess.PIPE if environ is None else errors,
            stderr=errors,
            # One pool of memory: the allocator keeps one for each thread, and each fills by itself, so that what is kept could not be told from that.
            env={**os.environ, "MALLOC_ARENA_MAX": "1", **(environ or {})},
        )

    async def end() -> None:
        if process.returncode is None:
            process.kill()
            await process.wait()

    stack.push_async_callback(end)
    return process


def _free_addresses(count: int) -> list[str]:
    free: dict[int, None] = {}
    while len(free) < count:
        port = random.choice(PORTS)  # nosec B311 # a port, not a secret
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            free[port] = None
    return [f"127.0.0.1:{port}" for port in free]


def entry_of(line: str) -> dict[str, object] | None:
    """Return a line of a service's log as it was written; None for one that is no JSON."""
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None
