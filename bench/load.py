"""Closed-loop load: a number of callers, each sending its next request when the last one is answered."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What a run of load measured."""

    callers: int
    count: int
    seconds: float
    latencies: tuple[float, ...]
    """Seconds, sorted."""

    @property
    def per_second(self) -> float:
        """Requests answered a second."""
        return self.count / self.seconds

    def quantile(self, share: float) -> float:
        """Return a latency in seconds by the nearest rank."""
        return self.latencies[min(len(self.latencies) - 1, int(share * len(self.latencies)))]


async def load(ask: Callable[[], Awaitable[object]], *, callers: int, seconds: float, warm_up: int = 50) -> Load:
    """Ask for the given time after a warm-up; every request must succeed."""
    for _ in range(warm_up):
        await ask()
    latencies: list[float] = []
    started = time.perf_counter()
    end = started + seconds

    async def caller() -> None:
        while (sent := time.perf_counter()) < end:
            await ask()
            latencies.append(time.perf_counter() - sent)

    async with asyncio.TaskGroup() as group:
        for _ in range(callers):
            group.create_task(caller())
    return Load(callers=callers, count=len(latencies), seconds=time.perf_counter() - started, latencies=tuple(sorted(latencies)))
