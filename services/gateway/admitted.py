"""Runs that wait for their place, and are refused where there is none or no time: a layer before the orchestrator.

    time enough at all? -> place? -> wait -> still time enough? -> run
         `- DeadlineTooShort  `- Overloaded      `- Overloaded

Whoever waited is told that the gateway is overloaded, not that the deadline is too short: with an idle gateway the same deadline would do.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Generic, TypeVar

from services.chassis.deadline import Deadline
from services.chassis.errors import DeadlineTooShort
from services.gateway.admission import Admission, State, Visit
from services.gateway.admission_metrics import AdmissionMetrics
from services.gateway.order import Order
from services.gateway.recent_runs import RecentRuns
from services.gateway.runs import Runs

ResultT = TypeVar("ResultT")
EventT = TypeVar("EventT")


class Admitted(Generic[ResultT, EventT]):
    """Satisfies `services.gateway.runs.Runs` before another that does."""

    def __init__(self, runs: Runs[ResultT, EventT], admission: Admission, recent: RecentRuns | None, metrics: AdmissionMetrics) -> None:
        """Take what runs; without recent runs no deadline is held against them."""
        self._runs = runs
        self._admission = admission
        self._recent = recent
        self._metrics = metrics

    async def run(self, order: Order, deadline: Deadline) -> ResultT:
        """Run once there is a place. Raises `Overloaded` or `DeadlineTooShort` where nothing was begun, else what the run raises."""
        async with self._place(order, deadline):
            began, given_seconds = self._admission.clock(), deadline.remaining()
            result = await self._runs.run(order, deadline)
            self._record(order, self._admission.clock() - began, given_seconds)
            return result

    async def stream(self, order: Order, deadline: Deadline) -> AsyncGenerator[EventT, None]:
        """Run once there is a place, and yield what happens; the place is held until the stream has ended or is closed. Raises as `run`."""
        async with self._place(order, deadline):
            clock = self._admission.clock
            began, given_seconds, held_up = clock(), deadline.remaining(), 0.0
            async with aclosing(self._runs.stream(order, deadline)) as events:
                async for event in events:
                    told = clock()
                    yield event
                    # What a slow reader takes is not what the run needs.
                    held_up += clock() - told
            self._record(order, clock() - began - held_up, given_seconds)

    @asynccontextmanager
    async def _place(self, order: Order, deadline: Deadline) -> AsyncIterator[None]:
        usual_seconds = 0.0
        if self._recent is not None:
            try:
                self._recent.check(order, deadline)
            except DeadlineTooShort:
                self._admission.count_too_short()
                raise
            usual_seconds = self._recent.usual_seconds(order)
        woken = asyncio.get_running_loop().create_future()
        visit = self._admission.arrive(
            order.plan.tenant,
            deadline_at=deadline.at,
            # While others wait, a place goes to who will probably use it: one run in ten may take longer than this.
            start_by=deadline.at - usual_seconds,
            wake=lambda: None if woken.done() else woken.set_result(None),
        )
        try:
            if visit.state is State.WAITING:
                await self._wait(visit, woken)
                self._check_again(visit, order, deadline)
            self._metrics.waited(visit.waited_seconds)
            yield
        finally:
            # Whatever the end, and also where a cancellation came at the moment when the place did.
            self._admission.leave(visit)

    async def _wait(self, visit: Visit, woken: "asyncio.Future[None]") -> None:
        """Wait for the place. Raises `Overloaded` once the visit's time is over, or another found it so."""
        await asyncio.wait([woken], timeout=visit.give_up_at - self._admission.clock())
        self._admission.expire(visit)
        if visit.refusal is not None:
            raise visit.refusal

    def _check_again(self, visit: Visit, order: Order, deadline: Deadline) -> None:
        """Raises `Overloaded` where the place came too late: what is known of recent runs may have changed during the wait."""
        if self._recent is not None and deadline.remaining() < self._recent.fastest_seconds(order):
            raise self._admission.refuse_begun(visit)

    def _record(self, order: Order, seconds: float, given_seconds: float) -> None:
        if self._recent is not None:
            self._recent.record(order, seconds=seconds, given_seconds=given_seconds)
