"""Measure the main job: three members and a writer, against a mock provider without delay, beside a naive client that makes the same calls with no services.

All figures of one table come from one run on one machine; compare ratios, not absolute figures of different runs.
"""

import argparse
import asyncio
import statistics
import subprocess  # nosec B404 # runs our own code
import sys
import time
from collections.abc import Awaitable, Callable

import aiohttp
import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from rich.console import Console
from rich.table import Table

from bench.load import Load, load
from bench.stack import SERVICES, Stack, running_stack
from ensemble.v1 import gateway_service_pb2, gateway_service_pb2_grpc

QUESTION = "What is the capital of France?"
HOPS = 7
"""RPCs of one ensemble: Generate, Run, Refine, two AcquirePermits, two ReportOutcomes."""
BUDGETS = {"megabytes": 90.0, "import_seconds": 1.0, "ensembles": 150.0}


async def main() -> None:
    """Run everything and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=8.0, help="length of each measurement")
    seconds = parser.parse_args().seconds
    console = Console(width=110)
    async with running_stack() as stack:
        idle = {name: stack.resident_megabytes(name) for name in SERVICES}
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session, grpc.aio.insecure_channel(stack.gateway) as channel:
            naive, ensemble = _naive(session, stack), _ensemble(channel)
            hop = await load(_health(channel), callers=1, seconds=seconds / 4)
            rows: list[tuple[str, Load, dict[str, float]]] = []
            for callers in (1, 32):
                for name, ask in (("naive client", naive), ("ensemble", ensemble)):
                    before = {process: stack.cpu_seconds(process) for process in stack.processes}
                    own = time.process_time()
                    measured = await load(ask, callers=callers, seconds=seconds)
                    cpu = {process: stack.cpu_seconds(process) - used for process, used in before.items()}
                    cpu["caller"] = time.process_time() - own
                    rows.append((name, measured, cpu))
    _print_throughput(console, rows, hop)
    _print_processes(console, rows, idle)


def _naive(session: aiohttp.ClientSession, stack: Stack) -> Callable[[], Awaitable[object]]:
    url = f"http://127.0.0.1:{stack.provider_port}/v1/chat/completions"

    async def call(text: str) -> str:
        async with session.post(url, json={"model": "mock", "messages": [{"role": "user", "content": text}]}) as response:
            return str((await response.json())["choices"][0]["message"]["content"])

    async def ask() -> object:
        drafts = await asyncio.gather(*(call(QUESTION) for _ in range(3)))
        return await call("\n\n".join([QUESTION, *drafts]))

    return ask


def _ensemble(channel: grpc.aio.Channel) -> Callable[[], Awaitable[object]]:
    stub: gateway_service_pb2_grpc.GatewayServiceAsyncStub = gateway_service_pb2_grpc.GatewayServiceStub(channel)

    async def ask() -> object:
        response = await stub.Generate(gateway_service_pb2.GenerateRequest(profile="bench", prompt=QUESTION), timeout=30)
        if response.degraded or len(response.receipt.calls) != 4:
            raise RuntimeError(f"not the whole job: {response.receipt}")
        return response

    return ask


def _health(channel: grpc.aio.Channel) -> Callable[[], Awaitable[object]]:
    stub = health_pb2_grpc.HealthStub(channel)

    async def ask() -> object:
        return await stub.Check(health_pb2.HealthCheckRequest())

    return ask


def _print_throughput(console: Console, rows: list[tuple[str, Load, dict[str, float]]], hop: Load) -> None:
    table = Table(title="3 + 1 calls, provider without delay")
    for heading in ("", "callers", "per second", "p50 ms", "p99 ms", "p50 against naive", "rate against naive"):
        table.add_column(heading, justify="left" if not heading else "right")
    naive = {measured.callers: measured for name, measured, _ in rows if name == "naive client"}
    for name, measured, _ in rows:
        beside = naive[measured.callers]
        table.add_row(
            name,
            str(measured.callers),
            f"{measured.per_second:.0f}",
            f"{measured.quantile(0.5) * 1e3:.2f}",
            f"{measured.quantile(0.99) * 1e3:.2f}",
            f"{measured.quantile(0.5) / beside.quantile(0.5):.1f} x",
            f"{measured.per_second / beside.per_second:.2f} x",
        )
    console.print(table)
    alone = next(measured for name, measured, _ in rows if name == "ensemble" and measured.callers == 1)
    overhead = (alone.quantile(0.5) - naive[1].quantile(0.5)) / HOPS
    console.print(f"overhead per hop at one caller: {overhead * 1e3:.2f} ms ({HOPS} RPCs; a bare health check takes {hop.quantile(0.5) * 1e3:.2f} ms)")


def _print_processes(console: Console, rows: list[tuple[str, Load, dict[str, float]]], idle: dict[str, float]) -> None:
    table = Table(title="Processor time of one ensemble at 32 callers, idle memory, import")
    for heading in ("process", "CPU ms", "idle MB", "import s"):
        table.add_column(heading, justify="left" if heading == "process" else "right")
    _, measured, cpu = next(row for row in rows if row[0] == "ensemble" and row[1].callers == 32)
    imports = {name: _import_seconds(name) for name in SERVICES}
    for process, used in cpu.items():
        table.add_row(
            process,
            f"{used / measured.count * 1e3:.2f}",
            f"{idle[process]:.0f}" if process in idle else "",
            f"{imports[process]:.2f}" if process in imports else "",
        )
    table.add_row("all", f"{sum(cpu.values()) / measured.count * 1e3:.2f}", "", "")
    console.print(table)
    for label, met in (
        (f"idle memory of each service at most {BUDGETS['megabytes']:.0f} MB", max(idle.values()) <= BUDGETS["megabytes"]),
        (f"import of each service at most {BUDGETS['import_seconds']:.0f} s", max(imports.values()) <= BUDGETS["import_seconds"]),
        (f"at least {BUDGETS['ensembles']:.0f} ensembles a second at 32 callers", measured.per_second >= BUDGETS["ensembles"]),
    ):
        console.print(f"{'met   ' if met else 'MISSED'} {label}")


def _import_seconds(name: str) -> float:
    """Return the median time of three fresh interpreters that import a service, less that of starting the interpreter."""

    def run(code: str) -> float:
        started = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)  # nosec B603 # our own code, no shell
        return time.perf_counter() - started

    return statistics.median(run(f"import services.{name}.app") for _ in range(3)) - statistics.median(run("") for _ in range(3))


if __name__ == "__main__":
    asyncio.run(main())
