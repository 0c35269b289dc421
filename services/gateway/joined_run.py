"""One run, and everybody who waits for it: it goes on as long as anybody does."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from services.chassis.deadline import Deadline
from services.chassis.errors import DeadlineSpent, DeadlineTooShort, EnsembleError, Overloaded, RemoteError
from services.gateway.event_log import EventLog
from services.gateway.order import Order
from services.gateway.results import EventT, Results, ResultT

Returned = TypeVar("Returned")

WAITING = "the wait for the first request of this id"
"""The stage at which a joiner's time runs out."""
RUNNING = "the run"
"""The stage at which the time of the one whose run it is runs out, where the run does not say so first."""
_SPENT = frozenset({"DEADLINE_EXCEEDED", "CANCELLED"})


def noted(task: "asyncio.Task[Returned]") -> "asyncio.Task[Returned]":
    """Return the task, whose error is not worth a warning from the event loop where nobody waits for it any longer."""
    task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
    return task


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Waiter:
    """One request that waits."""

    order: Order
    deadline: Deadline
    streamed: bool
    """Whether it wants the events."""


class JoinedRun(Generic[ResultT, EventT]):
    """A run under way in a task of its own."""

    def __init__(
        self, name: str, first: Waiter, results: Results[ResultT, EventT], work: Callable[["JoinedRun[ResultT, EventT]"], Coroutine[Any, Any, ResultT]]
    ) -> None:
        """Begin the work; `first` is the one who asked for it."""
        self.name = name
        self.content = first.order.content
        self.waiters = [first]
        self.starter = first
        """Whose order is carried out, within whose deadline."""
        self.log: EventLog[EventT] = EventLog(results.size)
        self.told = False
        """Whether the events that were told are those of the result."""
        self.task = noted(asyncio.create_task(work(self), name="joined run"))
        self.task.add_done_callback(lambda _: self.log.wake())

    def remaining(self) -> float:
        """Return the seconds that are left to the one who has the most time."""
        return max((waiter.deadline.remaining() for waiter in self.waiters), default=0.0)

    def settle_starter(self, *, waited: bool) -> None:
        """Settle whose run it is: of the one who asked first, or, where that one has left or the run could not begin at once, of the one with the most time."""
        if waited or self.starter not in self.waiters:
            self.starter = max(self.waiters, key=lambda waiter: waiter.deadline.remaining(), default=self.starter)

    async def result(self, waiter: Waiter) -> ResultT:
        """Wait for the result. Raises what the run raised, or `DeadlineSpent`."""
        done, _ = await asyncio.wait([self.task], timeout=waiter.deadline.remaining())
        if not done:
            raise self._spent(waiter)
        return self.task.result()

    async def event(self, place: int, waiter: Waiter) -> EventT | None:
        """Wait for the event at a place; None where none will come: the run is over, or it is kept no longer. Raises `DeadlineSpent`."""
        while (event := self.log.at(place)) is None and not self.task.done() and place >= self.log.first:
            try:
                async with asyncio.timeout(waiter.deadline.remaining()):
                    await self.log.changed()
            except TimeoutError:
                raise self._spent(waiter) from None
        return event

    def _spent(self, waiter: Waiter) -> DeadlineSpent:
        return DeadlineSpent(RUNNING if waiter is self.starter else WAITING)

    def lets_run_again(self, error: EnsembleError, waiter: Waiter) -> bool:
        """Whether an error means nothing to one who joined: it was the starter's deadline that passed, or was too near, and there is time left."""
        if self.starter is waiter or waiter.deadline.expired:
            return False
        match error:
            case DeadlineSpent():
                # What is raised here is the waiter's own, even if its timer was a moment early.
                return error.stage != WAITING
            case RemoteError():
                return error.code in _SPENT
            case Overloaded():
                return error.for_want_of_time
            case _:
                return isinstance(error, DeadlineTooShort)
