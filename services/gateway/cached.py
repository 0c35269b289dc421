"""Answers that serve equal requests of the same tenant for a while, where a profile says so.

Equal is what asks the models for the same, whole and exactly: the plan as it would be sent, whatever its run is called. Only answers that are all that was
asked for are kept. A store that is down costs no request more than the time in which it fails to answer.
"""

import hashlib
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Generic

from services.chassis.deadline import Deadline
from services.gateway.kept_answers import Entries, StoreDown
from services.gateway.order import Order
from services.gateway.outage import Outage
from services.gateway.results import EventT, Results, ResultT
from services.gateway.runs import Runs

WAY_BACK_SECONDS = 0.01
"""Of a request's time, kept for an answer that cannot be kept."""


class Cached(Generic[ResultT, EventT]):
    """Satisfies `Runs`; orders of profiles without a cache pass."""

    def __init__(
        self,
        runs: Runs[ResultT, EventT],
        entries: Entries,
        results: Results[ResultT, EventT],
        *,
        digest: bytes,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take what runs, where answers are kept, and the digest of what they depend on beside the request, 32 bytes."""
        self._runs = runs
        self._entries = entries
        self._results = results
        self._digest = digest
        self._clock = clock
        self._outage = Outage("store of cached answers", "every request is run", clock=clock)

    async def run(self, order: Order, deadline: Deadline) -> ResultT:
        """Return a cached answer, or run. Raises any `EnsembleError`; being cancelled cancels the run."""
        if order.cache_seconds is None:
            return await self._runs.run(order, deadline)
        name = self._name(order)
        if (cached := await self._found(name, order, order.cache_seconds, deadline)) is not None:
            return cached
        result = await self._runs.run(order, deadline)
        await self._keep(name, result, order.cache_seconds, deadline)
        return result

    async def stream(self, order: Order, deadline: Deadline) -> AsyncGenerator[EventT, None]:
        """Do the same, and yield what happens; of a cached answer its run's beginning, itself and its run's end."""
        name = self._name(order) if order.cache_seconds is not None else ""
        if order.cache_seconds is not None and (cached := await self._found(name, order, order.cache_seconds, deadline)) is not None:
            yield self._results.beginning(cached, order.plan.strategy)
            yield self._results.answer(cached, restart=False)
            yield self._results.ending(cached)
            return
        async with aclosing(self._runs.stream(order, deadline)) as events:
            async for event in events:
                if order.cache_seconds is not None and (result := self._results.result_in(event)) is not None:
                    await self._keep(name, result, order.cache_seconds, deadline)
                yield event

    def _name(self, order: Order) -> str:
        """Return a digest of tenant, configuration and question that no other three of them have."""
        tenant = order.plan.tenant.encode()
        return hashlib.sha256(len(tenant).to_bytes(8) + tenant + self._digest + self._results.asked(order.plan)).hexdigest()

    async def _found(self, name: str, order: Order, ttl_seconds: float, deadline: Deadline) -> ResultT | None:
        began = self._clock()
        if self._outage.resting:
            return None
        try:
            entry = await self._entries.get(name, within_seconds=deadline.remaining() - WAY_BACK_SECONDS)
        except StoreDown as down:
            self._outage.failed(down)
            return None
        self._outage.answered()
        # Another profile may keep the same answer for longer than this one wants it.
        if entry is None or entry.age_seconds >= ttl_seconds:
            return None
        try:
            result = self._results.decode(entry.data)
        except ValueError:
            # Whoever else wrote there, it is no answer.
            return None
        latency_seconds = self._clock() - began
        return self._results.as_cached(result, run_id=order.plan.run_id, age_seconds=entry.age_seconds, latency_seconds=latency_seconds)

    async def _keep(self, name: str, result: ResultT, ttl_seconds: float, deadline: Deadline) -> None:
        if self._outage.resting or self._results.degraded(result):
            return
        try:
            await self._entries.put(name, self._results.encode(result), ttl_seconds, within_seconds=deadline.remaining() - WAY_BACK_SECONDS)
        except StoreDown as down:
            self._outage.failed(down)
            return
        self._outage.answered()
