"""Callers of a gateway in a process of their own, so that what they cost delays nobody's answers but theirs; prints what became of them as JSON.

python -m bench.overload_callers '{"target": "127.0.0.1:50051", "rate": 400, ...}'
"""

import asyncio
import json
import random
import sys
import time
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field

import grpc
from google.rpc import error_details_pb2, status_pb2

from ensemble.v1 import gateway_service_pb2, gateway_service_pb2_grpc

CHANNELS = 4
REQUEST = gateway_service_pb2.GenerateRequest(prompt="What is the capital of France?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What the callers are to do."""

    target: str
    seconds: float
    """How long they come, or ask."""
    skipped_seconds: float
    """At the start, of which nothing is counted."""
    callers: int = 0
    """In a closed loop: each asks again when it was answered; 0 for an open one."""
    rate: float = 0.0
    """In an open loop: new callers a second, evenly spaced, whatever became of those before."""
    patience_seconds: tuple[float, ...] = (30.0,)
    """How long callers wait for an answer; each draws one of them. Their calls have what is left of it as deadline."""


@dataclass(slots=True)
class Tally:
    """What became of them."""

    seconds: float = 0.0
    """In which it was counted."""
    good: int = 0
    """Answers that came in time."""
    came: int = 0
    attempts: int = 0
    gave_up: dict[str, int] = field(default_factory=dict)
    """Callers without an answer, by the last word they had."""
    refusals: dict[str, int] = field(default_factory=dict)
    """Calls that ended with an error, by what it said."""
    latencies: list[float] = field(default_factory=list)
    """Of good answers, from a caller's first attempt, in seconds."""
    lateness: list[float] = field(default_factory=list)
    """How much later than due a caller came, because this process had no time; in seconds."""


class Callers:
    """All of them."""

    def __init__(self, task: Task, stubs: "list[gateway_service_pb2_grpc.GatewayServiceAsyncStub]") -> None:
        """Take what to do and whom to call."""
        self._task = task
        self._stubs = stubs
        self._numbers = random.Random(2)  # nosec B311 # repeatable, not secret
        self._from = time.perf_counter() + task.skipped_seconds
        self._until = self._from + task.seconds - task.skipped_seconds
        self.tally = Tally(seconds=task.seconds - task.skipped_seconds)

    async def closed(self) -> None:
        """Ask again and again."""

        async def caller() -> None:
            while time.perf_counter() < self._until:
                await self._ask()

        async with asyncio.TaskGroup() as group:
            for _ in range(self._task.callers):
                group.create_task(caller())

    async def open(self) -> None:
        """Come at an even pace, and wait for everybody's end."""
        started = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for number in range(int(self._task.rate * self._task.seconds)):
                due = started + number / self._task.rate
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                self.tally.lateness.append(time.perf_counter() - due)
                group.create_task(self._ask())

    async def _ask(self) -> None:
        """Ask until there is an answer, as the refusals say, or the patience is at an end."""
        began = time.perf_counter()
        ends = began + self._numbers.choice(self._task.patience_seconds)
        counts = self._from <= began < self._until
        self.tally.came += counts
        while True:
            try:
                await self._numbers.choice(self._stubs).Generate(REQUEST, timeout=ends - time.perf_counter())
            except grpc.aio.AioRpcError as error:
                word, retry_seconds = _read(error)
            else:
                word, retry_seconds = "", None
            now = time.perf_counter()
            # By when it came, not by when it was asked for: what is measured is what comes out in the time.
            counts_now = self._from <= now < self._until
            self.tally.attempts += counts_now
            if not word:
                if counts_now:
                    self.tally.good += 1
                    self.tally.latencies.append(now - began)
                return
            _count(self.tally.refusals, word, counts_now)
            if retry_seconds is None or now + retry_seconds >= ends:
                _count(self.tally.gave_up, word, counts)
                return
            await asyncio.sleep(retry_seconds)


def _count(counts: dict[str, int], word: str, more: int) -> None:
    counts[word] = counts.get(word, 0) + more


def _read(error: grpc.aio.AioRpcError) -> tuple[str, float | None]:
    """Return what an error says in short, and in how many seconds one may come back."""
    details = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin", b"")
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    seconds = None
    for detail in status_pb2.Status.FromString(details if isinstance(details, bytes) else b"").details:
        detail.Unpack(info)
        if detail.Unpack(retry):
            seconds = retry.retry_delay.ToTimedelta().total_seconds()
    if info.reason == "OVERLOADED":
        return (error.details() or "").removeprefix("the gateway is overloaded: "), seconds
    return info.reason or f"{error.code().name} without details", seconds


async def main(task: Task) -> Tally:
    """Call."""
    async with AsyncExitStack() as stack:
        stubs = []
        for number in range(CHANNELS):
            # Channels of other options share no connection.
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(task.target, options=[("bench.number", number)]))
            await channel.channel_ready()
            stub: gateway_service_pb2_grpc.GatewayServiceAsyncStub = gateway_service_pb2_grpc.GatewayServiceStub(channel)
            stubs.append(stub)
        callers = Callers(task, stubs)
        await (callers.closed() if task.callers else callers.open())
        return callers.tally


if __name__ == "__main__":
    json.dump(asdict(asyncio.run(main(Task(**json.loads(sys.argv[1]))))), sys.stdout)
