"""Measure AcquirePermits of five models, with the state in memory and in Redis, beside an echo on a bare server.

All figures come from one run on one machine; compare ratios, not absolute figures of different runs. Everything is granted, for a tenant with limits and a
budget of its own. Permits are reported, mostly 255 at a time: the rates have that in them, the latencies are of AcquirePermits alone.
"""

import argparse
import asyncio
import contextlib
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from redis.asyncio import Redis
from rich.console import Console
from rich.table import Table

from bench.history.replicas import CannotStart, running
from bench.limiter_echo import METHOD
from bench.load import Load, load
from ensemble.v1 import limiter_service_pb2, limiter_service_pb2_grpc, permit_pb2
from tests.support.redis_server import RedisServer, RedisServerFailed, RedisServerMissing

MODELS = tuple(f"model-{number}" for number in range(5))
CALLERS = (1, 32)
PACE = 100
"""Requests a second at which Redis's tail is measured, evenly spaced."""
ECHO = 3900
"""What the echo made where the budgets were set."""
SCRIPTS = 400
"""Decisions over which the script's time is taken."""
LIMITS = {
    "requests_per_minute": 100_000_000,
    "tokens_per_minute": 100_000_000,
    "request_burst": 100_000_000,
    "concurrency": 10_000,
    "retries_per_minute": 100_000_000,
}


class Caller:
    """Asks for five permits at a time and reports them 255 at a time."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        """Take a channel to a limiter."""
        self._stub: limiter_service_pb2_grpc.LimiterServiceAsyncStub = limiter_service_pb2_grpc.LimiterServiceStub(channel)
        self._held: list[str] = []

    async def acquire(self) -> None:
        """Get five permits; raises RuntimeError where one is denied."""
        response = await self._stub.AcquirePermits(request())
        permits = [decision.permit.permit_id for decision in response.decisions]
        if not all(permits) or response.degraded:
            raise RuntimeError(f"not everything was granted: {response}")
        self._held += permits

    async def report(self, least: int = 255) -> None:
        """Report, where so many permits are held."""
        while len(self._held) >= max(1, least):
            now, self._held = self._held[:255], self._held[255:]
            response = await self._stub.ReportOutcomes(limiter_service_pb2.ReportOutcomesRequest(outcomes=[_outcome(permit) for permit in now]))
            if set(response.settlements) != {permit_pb2.SETTLEMENT_SETTLED}:
                raise RuntimeError(f"not everything was settled: {response}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What one store showed."""

    name: str
    loads: dict[int, Load]
    """By callers."""
    paced: Load
    script_microseconds: tuple[float, float] | None = None
    """Median and mean."""


def request() -> limiter_service_pb2.AcquirePermitsRequest:
    """Ask for a permit of each model."""
    specs = [permit_pb2.PermitSpec(model=model, input_tokens=100, max_output_tokens=200, cost_micro_usd=500) for model in MODELS]
    return limiter_service_pb2.AcquirePermitsRequest(request_id=uuid.uuid4().hex, tenant="team", specs=specs, min_granted=len(MODELS))


def _outcome(permit: str) -> permit_pb2.PermitOutcome:
    return permit_pb2.PermitOutcome(permit_id=permit, result=permit_pb2.CALL_RESULT_SUCCESS, input_tokens=20, output_tokens=30, cost_micro_usd=40)


async def main() -> int:
    """Run everything and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m bench.limiter", description=__doc__)
    parser.add_argument("--seconds", type=float, default=6.0, help="length of each measurement (default: 6)")
    seconds = parser.parse_args().seconds
    try:
        async with RedisServer() as server, _echo() as channel:
            say: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(METHOD)
            rows: list[Measured] = []
            payload = request().SerializeToString()

            async def echo() -> object:
                return await say(payload)

            echoes = {callers: await load(echo, callers=callers, seconds=seconds) for callers in CALLERS}
            redis = server.client(decode_responses=True)
            rows.append(await _measure("memory", {"kind": "memory"}, None, seconds))
            rows.append(await _measure("redis", {"kind": "redis", "url": server.url, "timeout": "1s"}, redis, seconds))
    except (CannotStart, RedisServerMissing, RedisServerFailed) as error:
        print(f"could not run: {error}", file=sys.stderr)
        return 2
    console = Console(width=110)
    _print_table(console, echoes, rows)
    _print_budgets(console, echoes[CALLERS[-1]], *rows)
    return 0


@contextlib.asynccontextmanager
async def _echo() -> AsyncIterator[grpc.aio.Channel]:
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "bench.limiter_echo", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE)
    try:
        assert process.stdout is not None  # nosec B101 # for the type checker; it was asked for
        async with grpc.aio.insecure_channel(f"127.0.0.1:{int(await process.stdout.readline())}") as channel:
            yield channel
    finally:
        process.kill()
        await process.wait()


async def _measure(name: str, store: dict[str, Any], redis: Redis | None, seconds: float) -> Measured:
    """Run one limiter with a store of that kind and load it."""
    with tempfile.TemporaryDirectory() as folder:
        async with running(1, _configuration(store), Path(folder)) as (replica,):
            channel = replica.channel
            warm = Caller(channel)
            for _ in range(100):
                await warm.acquire()
            await warm.report(0)
            loads = {callers: await _closed(Caller(channel), callers, seconds) for callers in CALLERS}
            paced = await _paced(Caller(channel), seconds)
            script = None if redis is None else await _script_microseconds(Caller(channel), redis)
    return Measured(name=name, loads=loads, paced=paced, script_microseconds=script)


async def _closed(caller: Caller, callers: int, seconds: float) -> Load:
    """Load in a closed loop; the clock goes on while one reports, the latencies do not. All report together, or they would all do it at the same moment."""
    latencies: list[float] = []
    started = time.perf_counter()
    end = started + seconds

    async def one() -> None:
        while (sent := time.perf_counter()) < end:
            await caller.acquire()
            latencies.append(time.perf_counter() - sent)
            await caller.report()

    await asyncio.gather(*(one() for _ in range(callers)))
    elapsed = time.perf_counter() - started
    await caller.report(0)
    return Load(callers=callers, count=len(latencies), seconds=elapsed, latencies=tuple(sorted(latencies)))


async def _paced(caller: Caller, seconds: float) -> Load:
    """Send at a fixed pace, whatever the replies do, and report each five permits as a run does; latencies count from when a request was due."""
    latencies: list[float] = []
    started = time.perf_counter()

    async def one(due: float) -> None:
        await caller.acquire()
        latencies.append(time.perf_counter() - due)
        await caller.report(len(MODELS))

    async with asyncio.TaskGroup() as group:
        for number in range(int(PACE * seconds)):
            due = started + number / PACE
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            group.create_task(one(due))
    elapsed = time.perf_counter() - started
    await caller.report(0)
    return Load(callers=0, count=len(latencies), seconds=elapsed, latencies=tuple(sorted(latencies)))


async def _script_microseconds(caller: Caller, redis: Redis) -> tuple[float, float]:
    """Return how long the script of one decision takes inside Redis, by Redis's own clock: the median, and the mean, which has every interruption in it."""
    await redis.config_set("slowlog-max-len", 2 * SCRIPTS)
    await redis.config_set("slowlog-log-slower-than", 0)
    await redis.slowlog_reset()
    await redis.config_resetstat()
    for _ in range(SCRIPTS):
        await caller.acquire()
    stats: dict[str, Any] = await redis.info("commandstats")
    calls: list[dict[str, Any]] = await redis.slowlog_get(2 * SCRIPTS)
    await redis.config_set("slowlog-log-slower-than", -1)
    await caller.report(0)
    times = [call["duration"] for call in calls if call["command"].startswith(b"EVALSHA")]
    script = stats["cmdstat_evalsha"]
    return statistics.median(times), script["usec"] / script["calls"]


def _configuration(store: dict[str, Any]) -> dict[str, Any]:
    return {
        "limiter": {"store": store},
        "providers": {"mock": {"kind": "openai", "base_url": "http://127.0.0.1:9/v1"}},
        "models": {model: {"provider": "mock", "name": model, "limits": dict(LIMITS)} for model in MODELS},
        "tenants": {"team": {"requests_per_minute": 100_000_000, "request_burst": 100_000_000, "budget": {"per_day": 100_000}}},
        "profiles": {"one": {"strategy": "single", "members": [{"model": MODELS[0]}]}},
    }


def _print_table(console: Console, echoes: dict[int, Load], rows: list[Measured]) -> None:
    table = Table(title="AcquirePermits of five models")
    for heading in ("", "callers", "per second", "p50 ms", "p99 ms", "rate against echo", "p50 against echo", "script us, p50 / mean"):
        table.add_column(heading, justify="left" if not heading else "right")
    every: list[tuple[str, int, Load, tuple[float, float] | None]] = [("echo", callers, one, None) for callers, one in echoes.items()]
    for callers in CALLERS:
        every += [(row.name, callers, row.loads[callers], row.script_microseconds) for row in rows]
    for name, callers, one, script in every:
        beside = echoes[callers]
        ratios = ("", "") if one is beside else (f"{one.per_second / beside.per_second:.2f} x", f"{one.quantile(0.5) / beside.quantile(0.5):.1f} x")
        figures = (f"{one.per_second:.0f}", f"{one.quantile(0.5) * 1e3:.2f}", f"{one.quantile(0.99) * 1e3:.2f}")
        table.add_row(name, str(callers), *figures, *ratios, "" if script is None else f"{script[0]:.0f} / {script[1]:.0f}")
    console.print(table)
    for row in rows:
        console.print(f"{row.name}, {PACE} a second evenly spaced: p50 {row.paced.quantile(0.5) * 1e3:.2f} ms, p99 {row.paced.quantile(0.99) * 1e3:.2f} ms")


def _print_budgets(console: Console, echo: Load, memory: Measured, redis: Measured) -> None:
    script = (redis.script_microseconds or (0.0, 0.0))[0]
    for label, measured, unit, met in (
        ("memory: at least 2500 a second at 32 callers", memory.loads[32].per_second, "a second", memory.loads[32].per_second >= 2500),
        ("memory: p50 at most 1.5 ms at one caller", memory.loads[1].quantile(0.5) * 1e3, "ms", memory.loads[1].quantile(0.5) <= 1.5e-3),
        ("redis: at least 1500 a second at 32 callers", redis.loads[32].per_second, "a second", redis.loads[32].per_second >= 1500),
        ("redis: script at most 250 us", script, "us", 0 < script <= 250),
        (f"redis: p99 at most 15 ms at {PACE} a second", redis.paced.quantile(0.99) * 1e3, "ms", redis.paced.quantile(0.99) <= 15e-3),
    ):
        console.print(f"{'met   ' if met else 'MISSED'} {label}: {measured:.{0 if measured >= 100 else 2}f} {unit}")
    console.print(f"The budgets are for a machine whose echo makes {ECHO} a second at 32 callers; here it makes {echo.per_second:.0f}.")


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
