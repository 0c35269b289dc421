"""An orchestrator in memory that runs as a test says, in terms of the wire's messages; and orders for it."""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from ensemble.v1 import candidate_pb2, orchestrator_service_pb2, receipt_pb2, run_event_pb2
from services.chassis.deadline import Deadline
from services.chassis.errors import DeadlineSpent, EnsembleError
from services.gateway.order import Order
from tests.support.ensembles import plan

Result = orchestrator_service_pb2.RunResponse
Event = orchestrator_service_pb2.StreamRunResponse
PIECES = ("It ", "is ", "so.")


def order(request_id: str = "", content: str = "q", *, tenant: str = "", cache_seconds: float | None = None, **fields: Any) -> Order:
    """Return an order whose content is a digest of the text."""
    digest = hashlib.sha256(content.encode()).digest()
    asked = replace(plan("a", "b"), tenant=tenant, run_id=request_id or "made", **fields)
    return Order(plan=asked, request_id=request_id, content=digest, cache_seconds=cache_seconds)


def within(seconds: float) -> Deadline:
    """Return a deadline on the running loop's clock."""
    return Deadline.after(seconds, asyncio.get_running_loop().time)


@dataclass(slots=True, kw_only=True)
class ScriptedRuns:
    """Satisfies `Runs`: each run takes its time, then brings an answer that no other run brings, or fails."""

    seconds: float = 1.0
    """How long a run takes; one whose deadline comes first fails with `DeadlineSpent`."""
    errors: list[EnsembleError | None] = field(default_factory=list)
    """What the first runs end in."""
    lingers: float = 0.0
    """How long a run that is cancelled takes to end."""
    degraded: bool = False
    pieces: tuple[str, ...] = PIECES
    """What a stream tells, evenly over its time."""
    began: list[tuple[float, Order]] = field(default_factory=list)
    """When each run began, and what was ordered."""
    ended: list[tuple[float, str]] = field(default_factory=list)
    """When each run ended, and how: "done", "failed" or "cancelled"."""
    ended_orders: list[Order] = field(default_factory=list)
    """What each of those was."""
    under_way: list[Order] = field(default_factory=list)

    async def run(self, order: Order, deadline: Deadline) -> Result:
        """Run."""
        async with self._one(order) as number:
            await self._pass(self.seconds, deadline)
            return self._result(number, order)

    async def stream(self, order: Order, deadline: Deadline) -> AsyncGenerator[Event, None]:
        """Run and tell."""
        async with self._one(order) as number:
            yield Event(run_started=run_event_pb2.RunStarted(run_id=order.plan.run_id, strategy=order.plan.strategy, candidate_ids=["a", "b"]))
            for piece in self.pieces:
                await self._pass(self.seconds / len(self.pieces), deadline)
                yield Event(answer_delta=run_event_pb2.AnswerDelta(text=piece))
            yield Event(run_finished=self._result(number, order))

    @asynccontextmanager
    async def _one(self, order: Order) -> AsyncIterator[int]:
        clock = asyncio.get_running_loop().time
        self.began.append((clock(), order))
        self.under_way.append(order)
        number, how = len(self.began), "cancelled"
        try:
            yield number
            how = "done"
        except EnsembleError:
            how = "failed"
            raise
        finally:
            try:
                if how == "cancelled":
                    await asyncio.sleep(self.lingers)
            finally:
                self.under_way.remove(order)
                self.ended.append((clock(), how))
                self.ended_orders.append(order)

    async def _pass(self, seconds: float, deadline: Deadline) -> None:
        await asyncio.sleep(min(seconds, deadline.remaining()))
        if deadline.expired:
            raise DeadlineSpent("the orchestrator")

    def _result(self, number: int, order: Order) -> Result:
        if len(self.errors) >= number and (error := self.errors[number - 1]) is not None:
            raise error
        return Result(
            run_id=order.plan.run_id,
            answer="".join(self.pieces),
            trace_id=f"{number:032x}",
            candidates=[candidate_pb2.Candidate(candidate_id=name) for name in ("a", "b")],
            receipt=receipt_pb2.Receipt(
                calls=[receipt_pb2.CallReceipt(candidate_id="a")],
                stages=[receipt_pb2.StageReceipt(stage="panel")],
                usage=receipt_pb2.Usage(input_tokens=5, output_tokens=3),
                cost=receipt_pb2.Cost(micro_usd=7),
                agreement=0.5,
            ),
            degraded=self.degraded,
        )


def told(events: Iterable[Event]) -> Result:
    """Check that events are those of one run, whatever was taken back on the way, and return the response at their end."""
    kinds, answer, last = [], "", Result()
    for event in events:
        kind = event.WhichOneof("event")
        kinds.append(kind)
        if kind == "answer_delta":
            answer = event.answer_delta.text if event.answer_delta.restart else answer + event.answer_delta.text
        elif kind == "run_finished":
            last = event.run_finished
    assert kinds[0] == "run_started"
    assert kinds.count("run_started") == kinds.count("run_finished") == 1
    assert kinds[-1] == "run_finished"
    assert answer == last.answer
    return last
