"""Repeats of a request: each id is answered once, however often and wherever it is asked.

    asked --joins--> the run of this process --claims--> runs, renewing its lease --keeps the result--> all who wait are told
                                                `- runs elsewhere: asked again and again until finished, or free
                                                `- finished: all who wait are told

An id belongs to its tenant. Nothing is remembered of a run that failed.
"""

import asyncio
import hashlib
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Generic
from uuid import uuid4

from services.chassis.deadline import Deadline
from services.chassis.errors import DeadlineSpent, DependencyUnavailable, EnsembleError, FieldViolation, InvalidInput
from services.chassis.see_out import see_out
from services.gateway.joined_run import RUNNING, JoinedRun, Waiter, noted
from services.gateway.kept_answers import Claimed, Claims, Finished, OtherContent, StoreDown, StoreHurried
from services.gateway.order import Order
from services.gateway.outage import Outage
from services.gateway.results import EventT, Results, ResultT
from services.gateway.runs import Runs

_log = logging.getLogger(__name__)

FIRST_PAUSE_SECONDS = 0.01
LONGEST_PAUSE_SECONDS = 0.2
"""Between two looks at a run that is under way elsewhere."""
RETRY_SECONDS = 1.0
"""When to ask again after the store was down."""
WAY_BACK_SECONDS = 0.005
"""Of a run's time, kept for telling a result that cannot be kept."""
RENEWALS = 3
"""In one lease, so that one that fails costs nothing."""


def new_owner() -> str:
    """Return 32 random hexadecimal figures."""
    return uuid4().hex


def name_of(order: Order) -> str:
    """Return the name under which an order's id is known: a digest of tenant and id, which no other pair of them has."""
    tenant = order.plan.tenant.encode()
    return hashlib.sha256(len(tenant).to_bytes(8) + tenant + order.request_id.encode()).hexdigest()


class Replays(Generic[ResultT, EventT]):
    """Satisfies `Runs`; orders without a request id pass."""

    def __init__(
        self,
        runs: Runs[ResultT, EventT],
        claims: Claims,
        results: Results[ResultT, EventT],
        *,
        lease_seconds: float,
        new_id: Callable[[], str] = new_owner,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take what runs, where claims are kept and for how long each holds unless it is renewed."""
        self._runs = runs
        self._claims = claims
        self._results = results
        self._renewal = lease_seconds / RENEWALS
        self._new_id = new_id
        self._outage = Outage("store of requests' ids", "requests with an id are refused", clock=clock)
        # By content as well: which of two contents an id belongs to is decided where the claims are kept.
        self._under_way: dict[tuple[str, bytes], JoinedRun[ResultT, EventT]] = {}

    async def run(self, order: Order, deadline: Deadline) -> ResultT:
        """Run, join the run of an equal request, or return what it brought. Raises any `EnsembleError`; being cancelled cancels a run nobody else waits for."""
        if not order.request_id:
            return await self._runs.run(order, deadline)
        waiter = Waiter(order=order, deadline=deadline, streamed=False)
        while True:
            async with self._joined(waiter) as joined:
                try:
                    return await joined.result(waiter)
                except EnsembleError as error:
                    if not joined.lets_run_again(error, waiter):
                        raise

    async def stream(self, order: Order, deadline: Deadline) -> AsyncGenerator[EventT, None]:
        """Do the same, and yield what happens from the beginning on; of an answer that is there already, its run's beginning, itself and its run's end."""
        if not order.request_id:
            async with aclosing(self._runs.stream(order, deadline)) as passed:
                async for one in passed:
                    yield one
            return
        waiter = Waiter(order=order, deadline=deadline, streamed=True)
        begun = False
        while True:
            async with self._joined(waiter) as joined:
                try:
                    place = 0
                    # Who was told of a run that failed is told of the next one no more than its answer.
                    while not (begun and place == 0) and (event := await joined.event(place, waiter)) is not None:
                        place += 1
                        begun = True
                        yield event
                    result = await joined.result(waiter)
                except EnsembleError as error:
                    if not joined.lets_run_again(error, waiter):
                        raise
                    continue
                if not (joined.told and 0 < place == joined.log.end):
                    if not begun:
                        yield self._results.beginning(result, order.plan.strategy)
                    yield self._results.answer(result, restart=begun)
                yield self._results.ending(result)
                return

    @asynccontextmanager
    async def _joined(self, waiter: Waiter) -> AsyncIterator[JoinedRun[ResultT, EventT]]:
        """Join what is under way, or begin; where the last one leaves, the run is cancelled, and has ended when this ends."""
        name = name_of(waiter.order)
        joined = self._under_way.get((name, waiter.order.content))
        if joined is None:
            joined = self._under_way[name, waiter.order.content] = JoinedRun(name, waiter, self._results, self._carried_out)
        else:
            joined.waiters.append(waiter)
        try:
            yield joined
        finally:
            joined.waiters.remove(waiter)
            if not joined.waiters and not joined.task.done():
                self._forget(joined)
                joined.task.cancel()
                await see_out([joined.task])

    async def _carried_out(self, joined: JoinedRun[ResultT, EventT]) -> ResultT:
        owner = self._new_id()
        settled = False
        try:
            finished = await self._claimed(joined, owner)
            if finished is not None:
                settled = True
                told = self._read(finished)
                if told is None:
                    raise DependencyUnavailable("store", RETRY_SECONDS)
                return told
            result = await self._ran(joined, owner)
            # What is paid for is kept, even where the last one leaves just now: he may come back for it.
            keeping = noted(asyncio.create_task(self._kept(joined, owner, result), name="keeping a result"))
            settled = True
            await see_out([keeping])
            return keeping.result()
        finally:
            self._forget(joined)
            if not settled:
                # Whoever is still to be told of a failure may leave now, and the claim must not stay for that.
                await see_out([asyncio.create_task(self._released(joined, owner), name="giving a claim up")])

    async def _claimed(self, joined: JoinedRun[ResultT, EventT], owner: str) -> Finished | None:
        """Wait until the run may begin, then return None; or until somebody else's is over."""
        pause, waited = FIRST_PAUSE_SECONDS, False
        while True:
            try:
                standing = await self._claims.claim(joined.name, joined.content, owner, within_seconds=joined.remaining())
            except StoreHurried as hurried:
                # The time of all who waited when it was asked is over; it says nothing to one who has come meanwhile and has more.
                raise DeadlineSpent(RUNNING) from hurried
            except StoreDown as down:
                self._outage.failed(down)
                raise DependencyUnavailable("store", RETRY_SECONDS) from down
            self._outage.answered()
            match standing:
                case Claimed():
                    joined.settle_starter(waited=waited)
                    return None
                case Finished():
                    return standing
                case OtherContent():
                    raise InvalidInput([FieldViolation(field="request_id", description="was used before for another request")])
            await asyncio.sleep(pause)
            pause, waited = min(2 * pause, LONGEST_PAUSE_SECONDS), True

    async def _ran(self, joined: JoinedRun[ResultT, EventT], owner: str) -> ResultT:
        """Run while the claim is renewed; where it was lost and somebody else's run is over by then, return what that one brought.

        A cancellation that comes when the run has its result already is not raised: what is paid for is to be kept.
        """
        running = noted(asyncio.create_task(self._run_told(joined), name="claimed run"))
        renewing = noted(asyncio.create_task(self._renewed(joined, owner), name="renewing a claim"))
        cancelled: asyncio.CancelledError | None = None
        try:
            await asyncio.wait([running, renewing], return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError as error:
            cancelled = error
        lost = renewing.done() and not running.done()
        running.cancel()
        renewing.cancel()
        try:
            await see_out([running, renewing])
        except asyncio.CancelledError as error:
            cancelled = error
        if cancelled is not None and (running.cancelled() or running.exception() is not None):
            raise cancelled
        if lost:
            joined.told = False
            return renewing.result()
        return running.result()

    async def _run_told(self, joined: JoinedRun[ResultT, EventT]) -> ResultT:
        order, deadline = joined.starter.order, joined.starter.deadline
        if not any(waiter.streamed for waiter in joined.waiters):
            return await self._runs.run(order, deadline)
        result: ResultT | None = None
        async with aclosing(self._runs.stream(order, deadline)) as events:
            async for event in events:
                # Read to its end: a call that is left just before would count as cancelled.
                found = self._results.result_in(event)
                if found is None:
                    joined.log.append(event)
                else:
                    result = found
        if result is None:
            raise DependencyUnavailable("orchestrator")
        joined.told = True
        return result

    async def _renewed(self, joined: JoinedRun[ResultT, EventT], owner: str) -> ResultT:
        """Renew the claim until cancelled; return what somebody else's run brought, where it was lost to one."""
        while True:
            await asyncio.sleep(self._renewal)
            try:
                standing = await self._claims.claim(joined.name, joined.content, owner, within_seconds=self._renewal)
            except StoreDown as down:
                # The run is paid for already; whether anybody else may begin it meanwhile is a matter of the lease.
                self._outage.failed(down)
                continue
            self._outage.answered()
            if isinstance(standing, Finished) and (told := self._read(standing)) is not None:
                return told

    async def _kept(self, joined: JoinedRun[ResultT, EventT], owner: str, result: ResultT) -> ResultT:
        """Keep the result before anybody is told; return the one that stands, and this one where it cannot be kept."""
        data = self._results.encode(result)
        within_seconds = joined.starter.deadline.remaining() - WAY_BACK_SECONDS
        try:
            finished = await self._claims.finish(joined.name, joined.content, owner, data, within_seconds=within_seconds)
        except StoreDown as down:
            self._outage.failed(down)
            _log.warning("a response could not be kept for repeats of its request (%s)", down)
            return result
        self._outage.answered()
        if finished.result == data or (told := self._read(finished)) is None:
            return result
        joined.told = False
        return told

    def _read(self, finished: Finished) -> ResultT | None:
        """Return what a run brought as it was kept; None where whatever stands there is no response."""
        try:
            return self._results.decode(finished.result)
        except ValueError:
            _log.error("the store of requests' ids holds what is no response of a gateway; somebody else writes there")
            return None

    async def _released(self, joined: JoinedRun[ResultT, EventT], owner: str) -> None:
        try:
            await self._claims.release(joined.name, owner, within_seconds=self._renewal)
        except StoreDown as down:
            # It ends by itself, with its lease.
            self._outage.failed(down)

    def _forget(self, joined: JoinedRun[ResultT, EventT]) -> None:
        if self._under_way.get((joined.name, joined.content)) is joined:
            del self._under_way[joined.name, joined.content]
