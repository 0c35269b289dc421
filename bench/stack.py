"""The stack under test: a mock provider and the four services, each a process of its own."""

import asyncio
import contextlib
import os
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import grpc
import yaml
from grpc_health.v1 import health_pb2, health_pb2_grpc

from bench.mock_provider import TAILED

SERVICES = ("limiter", "refiner", "orchestrator", "gateway")
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_GENEROUS = {"requests_per_minute": 10_000_000, "tokens_per_minute": 100_000_000, "concurrency": 1000}


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """Where the stack listens and which processes it is made of."""

    gateway: str
    provider_port: int
    addresses: dict[str, str]
    processes: dict[str, int]
    """Process ids by name: the four services and "provider"."""

    def cpu_seconds(self, name: str) -> float:
        """Return the processor time a process has used (proc(5), fields utime and stime)."""
        fields = Path(f"/proc/{self.processes[name]}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def resident_megabytes(self, name: str) -> float:
        """Return a process's resident memory in MB (proc(5), statm)."""
        return int(Path(f"/proc/{self.processes[name]}/statm").read_text(encoding="ascii").split()[1]) * _PAGE / 1e6

    def most_resident_megabytes(self, name: str) -> float:
        """Return the most resident memory that a process has had, in MB (proc(5), status)."""
        status = Path(f"/proc/{self.processes[name]}/status").read_text(encoding="ascii", errors="replace")
        return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) * 1024 / 1e6


@contextlib.asynccontextmanager
async def running_stack(profiles: Mapping[str, object] | None = None) -> AsyncIterator[Stack]:
    """Start everything, with further profiles where they are given, wait until it serves, and end it by process id."""
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        provider = await start(stack, "-m", "bench.mock_provider")
        assert provider.stdout is not None  # nosec B101 # for the type checker; it was asked for
        port = int(await provider.stdout.readline())
        ports = dict(zip(SERVICES, free_ports(len(SERVICES)), strict=True))
        addresses = {name: f"127.0.0.1:{number}" for name, number in ports.items()}
        path = folder / "ensemble.yaml"
        await asyncio.to_thread(path.write_text, yaml.safe_dump(_configuration(port, addresses, profiles or {})), "utf-8")
        processes = {"provider": provider.pid}
        for name in SERVICES:
            process = await start(stack, "-m", f"services.{name}", "--config", str(path))
            processes[name] = process.pid
            try:
                await serving(addresses[name])
            except TimeoutError:
                raise RuntimeError(f"services.{name} does not serve (exit code {process.returncode})") from None
        yield Stack(gateway=addresses["gateway"], provider_port=port, addresses=addresses, processes=processes)


def _configuration(port: int, addresses: dict[str, str], profiles: Mapping[str, object]) -> dict[str, object]:
    price = {"input": 1.0, "output": 2.0}
    model = {"provider": "mock", "name": "mock", "limits": _GENEROUS, "price": price}
    members = [{"model": "mock", "id": seat} for seat in ("a", "b", "c")]
    return {
        "gateway": {"listen": addresses["gateway"], "orchestrator": addresses["orchestrator"], "limiter": addresses["limiter"]},
        "orchestrator": {"listen": addresses["orchestrator"], "limiter": addresses["limiter"], "refiner": addresses["refiner"]},
        "limiter": {"listen": addresses["limiter"]},
        "refiner": {"listen": addresses["refiner"], "limiter": addresses["limiter"]},
        "providers": {"mock": {"kind": "openai", "base_url": f"http://127.0.0.1:{port}/v1"}},
        # Each its own: the configuration reads no YAML anchors, which one shared value would be written with.
        "models": {
            "mock": {**model},
            "writer": {**model, "limits": {**_GENEROUS}, "price": {**price}},
            "tailed": {**model, "name": TAILED, "limits": {**_GENEROUS}, "price": {**price}},
        },
        "profiles": {**profiles, "bench": {"strategy": "fusion", "members": members, "refiner": {"model": "writer"}, "quorum": 3}},
    }


def free_ports(count: int) -> list[int]:
    """Return ports of this machine that nobody listens on."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


async def start(stack: contextlib.AsyncExitStack, *arguments: str) -> asyncio.subprocess.Process:
    """Start Python with these arguments; the process ends with the stack."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )

    async def stop() -> None:
        if process.returncode is None:
            process.terminate()
            await process.wait()

    stack.push_async_callback(stop)
    return process


async def serving(address: str) -> None:
    """Wait until a server answers. Raises `TimeoutError` after 30 seconds."""
    async with grpc.aio.insecure_channel(address) as channel, asyncio.timeout(30):
        stub = health_pb2_grpc.HealthStub(channel)
        await stub.Check(health_pb2.HealthCheckRequest(), wait_for_ready=True)
