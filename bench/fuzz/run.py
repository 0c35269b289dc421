"""One run: start everything, send the requests, let it come to rest, and look at what was written, traced and kept."""

import asyncio
import contextlib
import random
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from bench.fuzz import shrink, wire
from bench.fuzz.calls import LONGEST_SECONDS, MARGIN_SECONDS, Callers, Ended, calling
from bench.fuzz.cases import Case, Cases
from bench.fuzz.memory import LEAST_GROWTH_MB, MOST_GROWTH_MB, SHORT_GROWTH_MB, SHORT_RUN, Growth, growth
from bench.fuzz.processes import FRONT, GATEWAY, Died, Processes, entry_of, running
from bench.fuzz.receiver import Receiver, receiving
from bench.fuzz.setting import Doors
from bench.fuzz.verdicts import Finding, findings, may_be_told

AT_ONCE = 32
SHRUNK = 5
"""Findings of each rule that are made smaller."""
CHECKS = 20
"""How often in a run a good request is sent and the health is asked."""
SAMPLES = 200
"""How often in a run the memory is looked at."""
ENDINGS = 2
"""How often, after the requests, each gateway's gRPC is made to end its server; it must be back for the next good request."""
_GOOD_NUMBER = 0x60000000
"""Where the numbers of the good requests between the others begin."""
SECONDS_TO_RECOVER = 20.0
"""How long breakers, opened by calls that were cut short, may keep the models from a good request."""


@dataclass(slots=True)
class Summary:
    """What came out of a run."""

    requests: Counter[str] = field(default_factory=Counter)
    """By family, and "full"."""
    codes: Counter[str] = field(default_factory=Counter)
    growths: dict[str, Growth] = field(default_factory=dict)
    received: Counter[str] = field(default_factory=Counter)
    lines: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)
    longest_seconds: float = 0.0
    checks: int = 0


async def run(
    *,
    requests: int,
    seed: int,
    at_once: int = AT_ONCE,
    full_share: float = 0.06,
    doors: Doors | None = None,
    only: Sequence[int] = (),
    tell: Callable[[str], None] = lambda _: None,
) -> Summary:
    """Run it; `only` sends the requests of these numbers instead. Raises CannotStart."""
    doors = doors or Doors()
    cases = Cases(seed, doors=doors, full_share=full_share)
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        receiver = await stack.enter_async_context(receiving(cases.canaries))
        processes = await stack.enter_async_context(running(folder, receiver.endpoint, doors))
        async with _driver(cases, processes, tell) as driver:
            await driver.drive(only or range(requests), at_once)
            for _ in range(ENDINGS):
                await driver.end_both()
                await driver.check()
        driver.summary.findings += await _ended(processes)
        driver.summary.findings += _in_spans(cases, receiver)
        driver.summary.findings += await asyncio.to_thread(lambda: list(_in_logs(cases, processes, driver.summary)))
        driver.summary.received = receiver.received
        return driver.summary


@contextlib.asynccontextmanager
async def _driver(cases: Cases, processes: Processes, tell: Callable[[str], None]) -> AsyncIterator["Driver"]:
    async with calling(processes.addresses[FRONT]) as front, calling(processes.addresses[GATEWAY]) as gateway:
        yield Driver(cases, processes, front, gateway, tell)


class Driver:
    """Sends the requests and judges how they end."""

    def __init__(self, cases: Cases, processes: Processes, front: Callers, gateway: Callers, tell: Callable[[str], None]) -> None:
        self.summary = Summary()
        self._cases = cases
        self._processes = processes
        self._callers = {False: front, True: gateway}
        self._tell = tell
        self._made = 0
        self._samples: dict[str, list[tuple[int, float]]] = {FRONT: [], GATEWAY: []}

    async def drive(self, numbers: Sequence[int], at_once: int) -> None:
        """Send the requests of these numbers, so many at once."""
        left = iter(numbers)
        every = max(1, len(numbers) // CHECKS)
        sample_every = max(1, len(numbers) // SAMPLES)

        async def worker() -> None:
            for number in left:
                await self._one(self._cases.case(number))
                self._made += 1
                if self._made % sample_every == 0:
                    for name, samples in self._samples.items():
                        samples.append((self._made, self._processes.resident_mb(name)))
                if self._made % every == 0:
                    await self.check()

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(at_once):
                    group.create_task(worker())
        except* Died as died:
            raise died.exceptions[0] from None
        for name, samples in self._samples.items():
            if found := growth(samples):
                self.summary.growths[name] = found
                if not found.bounded:
                    words = f"grew by {found.total_mb:.1f} MB, {found.per_100k_mb:.1f} MB in 100,000 requests"
                    words += f"; the bounds are {SHORT_GROWTH_MB if found.requests < SHORT_RUN else LEAST_GROWTH_MB} and {MOST_GROWTH_MB} MB"
                    self.summary.findings.append(Finding(rule="memory", text=f"{name} {words}"))

    async def check(self) -> None:
        """Send a good request to each gateway and ask for its health."""
        self.summary.checks += 1
        number = _GOOD_NUMBER + self.summary.checks
        for full, name in ((False, FRONT), (True, GATEWAY)):
            if self._processes.running[name].returncode is not None:
                raise self._processes.died(name)
            case = self._cases.good(number, full=full)
            ended = await self._recovered(case)
            self.summary.findings += findings(case, ended, self._cases.canaries)
            if (health := await self._processes.health(name)) != "SERVING":
                raise Died(f"{name} says {health} after {self._made} requests: {self._processes.log_of(name).read_text('utf-8')[-2000:]}")
        self._tell(
            f"{self._made} requests, {len(self.summary.findings)} findings, " + ", ".join(f"{n} {self._processes.resident_mb(n):.0f} MB" for n in self._samples)
        )

    async def end_both(self) -> None:
        """Send each gateway what ends gRPC's own server."""
        for name in self._samples:
            await wire.ended_by(self._processes.addresses[name], self._cases.canaries.word(_GOOD_NUMBER, "w"))

    async def _recovered(self, case: Case) -> Ended:
        until = time.monotonic() + SECONDS_TO_RECOVER
        while True:
            ended = await self._send(case)
            if ended.code not in {"UNAVAILABLE", "CANCELLED"} or time.monotonic() > until:
                return ended
            await asyncio.sleep(0.2)

    async def _one(self, case: Case) -> None:
        ended = await self._send(case)
        self.summary.requests[case.family] += 1
        self.summary.requests["(full)"] += case.full
        self.summary.codes[ended.code] += 1
        self.summary.longest_seconds = max(self.summary.longest_seconds, ended.seconds)
        for finding in findings(case, ended, self._cases.canaries):
            self.summary.findings.append(await self._smaller(case, finding))

    async def _send(self, case: Case) -> Ended:
        if case.family == "wire":
            chance = random.Random(f"{self._cases.seed}/{case.number}/wire")  # nosec B311 # repeatable, not secret
            address = self._processes.addresses[GATEWAY if case.full else FRONT]
            return await wire.sent(address, case, chance, partial(self._cases.canaries.word, case.number))
        return await self._callers[case.full].call(case)

    async def _smaller(self, case: Case, finding: Finding) -> Finding:
        if case.family == "wire" or sum(one.rule == finding.rule for one in self.summary.findings) >= SHRUNK or finding.rule in {"hang", "memory"}:
            return finding

        async def breaks(smaller: Case) -> bool:
            return any(one.rule == finding.rule for one in findings(smaller, await self._send(smaller), self._cases.canaries))

        smallest = await shrink.shrunk(case, breaks)
        return Finding(rule=finding.rule, number=finding.number, text=f"{finding.text}\n    smaller: {shrink.described(smallest)}")


async def _ended(processes: Processes) -> list[Finding]:
    codes = await processes.end()
    return [Finding(rule="end", text=f"{name} ended with {code} when it was told to stop") for name, code in codes.items() if code != 0]


def _in_spans(cases: Cases, receiver: Receiver) -> Iterator[Finding]:
    for (place, canary), times in receiver.found.items():
        # Of a request that is not known nobody can say whether its bytes were changed.
        exact = 0 <= canary.number < _GOOD_NUMBER and cases.case(canary.number).exact
        if not may_be_told(place, canary.place, exact=exact):
            yield Finding(rule="leak", text=f"a canary of place {canary.place!r} is in {place}, {times} times", number=canary.number)
    if not receiver.received["exports"]:
        yield Finding(rule="spans", text="none came, so that nothing was looked at")


def _in_logs(cases: Cases, processes: Processes, summary: Summary) -> Iterator[Finding]:
    for name, line in processes.lines():
        summary.lines[name] += 1
        for canary in cases.canaries.found(line.encode()):
            yield Finding(rule="leak", text=f"the log of {name} tells a canary of place {canary.place!r}: {line[:300]}", number=canary.number)
        entry = entry_of(line)
        if entry is None:
            yield Finding(rule="log", text=f"{name} wrote what is no line of its log: {line[:300]}")
        elif entry.get("level") in {"ERROR", "CRITICAL"} and not _told_by_grpc(entry):
            yield Finding(rule="log", text=f"{name}: {line[:300]}")
        elif isinstance(seconds := entry.get("seconds"), float) and seconds > LONGEST_SECONDS + MARGIN_SECONDS:
            yield Finding(rule="hang", text=f"{name} took {seconds:.0f} s for one call: {line[:300]}")
    yield from _missing(summary.lines)


def _told_by_grpc(entry: Mapping[str, object]) -> bool:
    """Whether a line is no sign of a bug of ours: what comes when gRPC has ended its server, and what it says of callers that leave while they are answered."""
    told = str(entry.get("message"))
    expected = ("gRPC has ended the server", "'utf-8' codec can't decode", "Invalid encoding", "ExecuteBatchError raised in core")
    return told.startswith(expected) or entry.get("exception") == "UnicodeDecodeError"


def _missing(lines: Counter[str]) -> Iterable[Finding]:
    return (Finding(rule="log", text=f"{name} wrote nothing, so that nothing was looked at") for name in (FRONT, GATEWAY) if not lines[name])
