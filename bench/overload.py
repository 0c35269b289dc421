"""Measure what comes out of a gateway to which ten times more callers come than it can answer.

One real gateway process stands before an orchestrator that can run a few at once, each for about half a second; more wait there in the order of their
arrival, as they would before a model. The capacity is found in a closed loop. Then callers come in an open loop at ten times that, from another process; each
has its patience, comes back when a refusal says so, and gives up when that would be too late. The same is done to a gateway without bounds. Meanwhile a third
process asks for the gateway's health every 20 ms, and for the orchestrator's, which has little to do, to show what the machine itself adds.

The capacity is small on purpose: the callers need processor time on the same cores, and what is measured is whom the gateway takes on, not how many refusals a
second a core can write. All figures come from one run on one machine; compare shares, not absolute figures of different runs.
"""

import argparse
import asyncio
import contextlib
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import grpc
import yaml
from grpc_health.v1 import health_pb2, health_pb2_grpc
from rich.console import Console
from rich.table import Table

from bench.overload_callers import Tally, Task
from bench.stack import Stack, free_ports, serving, start

SLOTS, MEDIAN_SECONDS, SIGMA = 24, 0.6, 0.25
"""What the orchestrator can do: runs at once, and the lognormal distribution of how long each takes."""
BOUNDED: dict[str, object] = {"concurrency": SLOTS, "queue": SLOTS, "longest_wait": "1s"}
UNBOUNDED: dict[str, object] = {"concurrency": 10_000, "queue": 0, "deadline_check": False, "most_calls": 100_000}
PATIENCE_SECONDS = (0.2, 2.0, 2.0, 2.0, 4.0, 4.0, 4.0, 8.0, 8.0, 8.0)
"""One caller in ten has less than any run takes."""
TIMES = 10
SKIPPED_SECONDS = 4.0
"""Until the load is steady."""
PROBE_SECONDS = 0.02
GOAL_GOODPUT, GOAL_HEALTH_SECONDS = 0.9, 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What one gateway showed."""

    name: str
    tally: Tally
    health: list[float]
    """Seconds that the gateway's health checks took, sorted."""
    beside: list[float]
    """Those of the orchestrator at the same moments."""
    cpu: float
    """Share of a core that the gateway used."""
    megabytes: float
    """The most that the gateway had resident so far."""


async def main() -> None:
    """Run everything and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m bench.overload", description=__doc__)
    parser.add_argument("--seconds", type=float, default=24.0, help="length of each measurement (default: 24)")
    seconds = parser.parse_args().seconds
    async with _gateway(BOUNDED) as stack:
        idle = stack.resident_megabytes("gateway")
        task = Task(target=stack.gateway, seconds=seconds / 2, skipped_seconds=SKIPPED_SECONDS, callers=SLOTS + SLOTS // 2)
        closed = await _measured("closed loop", stack, task)
        capacity = closed.tally.good / closed.tally.seconds
        # What was learnt in the closed loop does no harm; callers meet a gateway that has been running.
        flood = Task(target=stack.gateway, seconds=seconds, skipped_seconds=SKIPPED_SECONDS, rate=TIMES * capacity, patience_seconds=PATIENCE_SECONDS)
        bounded = await _measured(f"{TIMES} x capacity", stack, flood)
    async with _gateway(UNBOUNDED) as stack:
        unbounded = await _measured(f"{TIMES} x, no bounds", stack, Task(**asdict(flood) | {"target": stack.gateway}))
    console = Console(width=120)
    _print(console, [closed, bounded, unbounded], capacity, idle)
    _print_goals(console, bounded, capacity)


@contextlib.asynccontextmanager
async def _gateway(load: dict[str, object]) -> AsyncIterator[Stack]:
    """Run a gateway with these bounds before an orchestrator."""
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        orchestrator = await start(stack, "-m", "bench.orchestrator_stub", str(SLOTS), str(MEDIAN_SECONDS), str(SIGMA))
        assert orchestrator.stdout is not None  # nosec B101 # for the type checker; it was asked for
        port = int(await orchestrator.stdout.readline())
        address = f"127.0.0.1:{free_ports(1)[0]}"
        path = folder / "ensemble.yaml"
        await asyncio.to_thread(path.write_text, yaml.safe_dump(_configuration(address, f"127.0.0.1:{port}", load)), "utf-8")
        gateway = await start(stack, "-m", "services.gateway", "--config", str(path))
        await serving(address)
        processes = {"gateway": gateway.pid, "orchestrator": orchestrator.pid}
        yield Stack(gateway=address, provider_port=0, addresses={"gateway": address, "orchestrator": f"127.0.0.1:{port}"}, processes=processes)


def _configuration(address: str, orchestrator: str, load: dict[str, object]) -> dict[str, object]:
    return {
        "gateway": {"listen": address, "orchestrator": orchestrator, "limiter": orchestrator, "load": {**load}},
        "providers": {"mock": {"kind": "openai", "base_url": "http://127.0.0.1:9/v1"}},
        "models": {"mock": {"provider": "mock", "name": "mock"}},
        "profiles": {"default": {"strategy": "single", "members": [{"model": "mock"}]}},
    }


async def _measured(name: str, stack: Stack, task: Task) -> Row:
    """Let callers do their task, and look at the gateway meanwhile."""
    health: list[float] = []
    beside: list[float] = []
    watching = asyncio.create_task(_watch({stack.gateway: health, stack.addresses["orchestrator"]: beside}))
    used, began = stack.cpu_seconds("gateway"), time.perf_counter()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.overload_callers", json.dumps(asdict(task)), stdout=asyncio.subprocess.PIPE, stderr=sys.stderr
    )
    try:
        out, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        watching.cancel()
        await asyncio.wait([watching])
    if process.returncode:
        raise RuntimeError(f"the callers failed (exit code {process.returncode})")
    cpu = (stack.cpu_seconds("gateway") - used) / (time.perf_counter() - began)
    if not watching.cancelled():
        await watching
    return Row(
        name=name, tally=Tally(**json.loads(out)), health=sorted(health), beside=sorted(beside), cpu=cpu, megabytes=stack.most_resident_megabytes("gateway")
    )


async def _watch(servers: dict[str, list[float]]) -> None:
    async with asyncio.TaskGroup() as group:
        for address, took in servers.items():
            group.create_task(_watch_health(address, took))


async def _watch_health(address: str, took: list[float]) -> None:
    """Ask whether the gateway is alive at an even pace, whatever became of the questions before; each must be answered."""
    async with grpc.aio.insecure_channel(address) as channel, asyncio.TaskGroup() as group:
        stub = health_pb2_grpc.HealthStub(channel)
        request = health_pb2.HealthCheckRequest()
        await stub.Check(request)

        async def ask(due: float) -> None:
            await stub.Check(request, timeout=30)
            took.append(time.perf_counter() - due)

        due = time.perf_counter()
        while True:
            group.create_task(ask(max(due, time.perf_counter())))
            due += PROBE_SECONDS
            await asyncio.sleep(max(0.0, due - time.perf_counter()))


def _quantile(values: list[float], share: float) -> float:
    return values[min(len(values) - 1, int(share * len(values)))] if values else float("nan")


def _print(console: Console, rows: list[Row], capacity: float, idle: float) -> None:
    table = Table(
        title=f"{SLOTS} runs at once of median {MEDIAN_SECONDS * 1e3:.0f} ms (lognormal, sigma {SIGMA}); callers wait 2, 4 or 8 s, one in ten 0.2 s",
        title_justify="left",
    )
    for heading in ("", "callers/s", "calls/s", "good/s", "of capacity", "good p50 s", "good p99 s", "CPU", "peak MB"):
        table.add_column(heading, justify="left" if not heading else "right")
    for row in rows:
        tally, latencies = row.tally, sorted(row.tally.latencies)
        table.add_row(
            row.name,
            f"{tally.came / tally.seconds:.0f}",
            f"{tally.attempts / tally.seconds:.0f}",
            f"{tally.good / tally.seconds:.1f}",
            f"{tally.good / tally.seconds / capacity:.0%}",
            f"{_quantile(latencies, 0.5):.2f}",
            f"{_quantile(latencies, 0.99):.2f}",
            f"{row.cpu:.0%}",
            f"{row.megabytes:.0f}",
        )
    console.print(table)
    console.print(f"The gateway had {idle:.0f} MB before its first call.")
    table = Table(title=f"Health, asked every {PROBE_SECONDS * 1e3:.0f} ms: p50 / p99 / max ms", title_justify="left")
    for heading in ("", "gateway", "orchestrator"):
        table.add_column(heading, justify="left" if not heading else "right")
    for row in rows:
        table.add_row(row.name, *(" / ".join(f"{_quantile(took, share) * 1e3:.1f}" for share in (0.5, 0.99, 1.0)) for took in (row.health, row.beside)))
    console.print(table)
    for row in rows[1:]:
        tally = row.tally
        late = sorted(tally.lateness)
        console.print(f"{row.name}: how calls ended without an answer, a second (callers came {_quantile(late, 0.99) * 1e3:.0f} ms late at p99)")
        for word, count in sorted(tally.refusals.items(), key=lambda one: -one[1]):
            if count:
                console.print(f"  {count / tally.seconds:7.1f}  {word}")


def _print_goals(console: Console, row: Row, capacity: float) -> None:
    goodput, slowest = row.tally.good / row.tally.seconds / capacity, row.health[-1]
    goals: list[tuple[str, bool, Any]] = [
        (f"goodput at {TIMES} times the capacity at least {GOAL_GOODPUT:.0%} of it", goodput >= GOAL_GOODPUT, f"{goodput:.1%}"),
        (f"every health check answered within {GOAL_HEALTH_SECONDS * 1e3:.0f} ms", slowest <= GOAL_HEALTH_SECONDS, f"{slowest * 1e3:.1f} ms"),
    ]
    for label, met, figure in goals:
        console.print(f"{'met   ' if met else 'MISSED'} {label}: {figure}")


if __name__ == "__main__":
    asyncio.run(main())
