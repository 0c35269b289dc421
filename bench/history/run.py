"""One run: start everything, drive it, let it come to rest, check."""

import asyncio
import contextlib
import random
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from redis.asyncio import Redis

from bench.history import checks, replies, states
from bench.history.audit import Entry, NotAnAudit, Op, parse, timeline
from bench.history.calls import Calls
from bench.history.clients import LONGEST_LEASE, Clients
from bench.history.limits import Violation
from bench.history.replicas import Replica, running
from bench.history.set_pieces import SetPieces
from bench.history.setting import LIMITS, WINDOW_SECONDS, configuration
from tests.support.redis_server import RedisServer

POOL = "history"
AUDIT = f"{{{POOL}}}:audit"
OPERATIONS_PER_KILL = 700
LEAST_KILLS = 2


class CannotRun(Exception):
    """There is nothing to check; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What came out of a run."""

    counts: Mapping[str, int]
    denials: Mapping[str, int]
    violations: Sequence[Violation]


async def run(*, operations: int, replicas: int, clients: int, seed: int, store: str) -> Summary:
    """Run it with a store of that kind; raises CannotRun."""
    if store == "memory":
        if replicas != 1:
            raise CannotRun("limiters with a store in memory decide each for itself: --store memory needs --replicas 1")
        return await _drive({"kind": "memory"}, None, operations=operations, count=1, clients=clients, seed=seed)
    async with RedisServer() as server:
        redis = server.client(decode_responses=True)
        await redis.xadd(AUDIT, {"op": "begin"})
        # Time enough that a slow machine is not taken for a store that is down; and where it is, nobody grants anything.
        section = {"kind": "redis", "url": server.url, "pool": POOL, "timeout": "10s", "replicas": replicas}
        down = {"rates": "deny", "concurrency": "deny", "budgets": "deny"}
        return await _drive(section | {"down": down}, redis, operations=operations, count=replicas, clients=clients, seed=seed)


async def _drive(section: dict[str, Any], redis: Redis | None, *, operations: int, count: int, clients: int, seed: int) -> Summary:
    chance = random.Random(seed)  # nosec B311 # repeatable, not secret
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        replicas = await stack.enter_async_context(running(count, configuration(section), folder))
        killer = _Killer(replicas, operations if redis is not None else 0)
        calls = Calls(replicas, chance, killer.see)
        driver = Clients(calls, chance, operations)
        before = await calls.state()
        await driver.run(clients)
        await killer.finish()
        found: list[Violation] = []
        pieces = SetPieces(calls)
        try:
            await pieces.report_stale_failures()
            await pieces.release_after_refill()
        except TimeoutError:
            found.append(Violation("L2", "a breaker does not turn though it should, does not let every call through again, or a bucket does not fill"))
        # Nobody calls any more: the last leases end and the breakers' windows pass.
        await asyncio.sleep(max(LONGEST_LEASE, WINDOW_SECONDS) + 0.5)
        asked = await _now(redis)
        after = await calls.state()
        answered = await _now(redis)
        await pieces.ask_in_vain()
        found += [*states.fresh(before, after), *states.unchanged(after, await calls.state())]
        entries = [] if redis is None else await _audit(redis)
    found += replies.violations(calls.replies)
    found += [Violation("RPC", f"{text} ({times} times)") for text, times in calls.errors.items()]
    if redis is not None:
        if not any(entry.op is Op.GRANT for entry in entries):
            raise CannotRun(f"the store wrote no grant to {AUDIT}, so there is nothing to check")
        broken, ledgers = checks.violations(entries, LIMITS, asked)
        found += broken
        found += states.levels(after, ledgers, asked, answered)
        found += replies.agreement(calls.replies, entries, unanswered=calls.unanswered)
    return Summary(counts=_counts(calls, driver, killer, entries, asked), denials=calls.denials, violations=found)


class _Killer:
    """Kills a limiter each time that so many operations are made, and starts it again."""

    def __init__(self, replicas: Sequence[Replica], operations: int) -> None:
        kills = max(LEAST_KILLS, operations // OPERATIONS_PER_KILL) if operations else 0
        self._replicas = replicas
        self._due = [operations * (number + 1) // (kills + 1) for number in range(kills)]
        self._tasks: list[asyncio.Task[None]] = []
        self.kills = 0

    def see(self, operations: int) -> None:
        """Take note of the number of operations."""
        if self._due and operations >= self._due[0]:
            del self._due[0]
            self._tasks.append(asyncio.create_task(self._kill(self._replicas[self.kills % len(self._replicas)], self._tasks[-1:])))
            self.kills += 1

    async def finish(self) -> None:
        """Wait until all are back; raises CannotStart."""
        await asyncio.gather(*self._tasks)

    async def _kill(self, replica: Replica, before: Sequence[asyncio.Task[None]]) -> None:
        # One after another: somebody should be there to take the calls.
        await asyncio.gather(*before)
        await replica.kill()
        await replica.start()


async def _now(redis: Redis | None) -> int:
    if redis is None:
        return 0
    seconds, micros = await redis.time()
    return int(seconds) * 1_000_000 + int(micros)


async def _audit(redis: Redis) -> list[Entry]:
    """Read the whole stream; raises CannotRun where it cannot be understood."""
    entries: list[Entry] = []
    start = "-"
    try:
        # redis-py leaves open whether replies are text; here they are.
        while page := cast("list[tuple[str, dict[str, str]]]", await redis.xrange(AUDIT, min=start, count=5000)):
            entries += [entry for _, fields in page if (entry := parse(fields)) is not None]
            start = f"({page[-1][0]}"
    except NotAnAudit as error:
        raise CannotRun(f"the audit cannot be read: {error}") from None
    return entries


def _counts(calls: Calls, driver: Clients, killer: _Killer, entries: Sequence[Entry], until: int) -> dict[str, int]:
    # Renewals are in the audit alone, ends of leases in the timeline alone.
    ops = Counter(entry.op for entry in entries if entry.op is not Op.EXPIRE) + Counter(entry.op for entry in timeline(entries, until) if entry.op is Op.EXPIRE)
    granted = {told.permit for reply in calls.replies if isinstance(reply, replies.Acquired) for told in reply.told if told.permit}
    counts = {"operations": calls.operations, "grants": len(granted), "duplicates": calls.duplicates, "crashes": driver.crashes, "late": driver.late}
    counts |= {"kills": killer.kills, "retries": calls.retries, "unanswered": calls.unanswered, "degraded": calls.degraded}
    openings = sum(entry.op is Op.TURN and entry.state == "OPEN" for entry in entries)
    return counts | ({"openings": openings, "audited": len(entries)} | {f"  {op}": ops[op] for op in Op} if entries else {})
