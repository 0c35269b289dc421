"""The panel: N calls at once, each under a permit, until enough is enough.

    admitted --> calls under way --> quorum met --> grace, or agreement, or decided --> stragglers cancelled
       |              |-- quorum out of reach --> seats that were denied ask again --> ...
       |              |                            `-- none can heal in time --------> the rest cancelled
       |              `-- the panel's time is over ----------------------------------> the rest timed out
       `-- fewer than the quorum --> nothing is charged --> wait within the deadline, ask again

Each seat may take several attempts: retries and hedges, as the run's options say. Whatever ends the panel, a cancellation from outside included, no call is
left running and no permit unreported when it returns.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from services.chassis.deadline import Deadline
from services.chassis.errors import EnsembleError
from services.chassis.see_out import see_out
from services.models.answering import Answered, Answering
from services.models.completion import Attempt, PlannedCall
from services.models.outcomes import Outcome
from services.orchestrator.run import Run, Survivor, too_few
from services.orchestrator.spans import panel_span
from services.orchestrator.tenant_quota import QUORUM_UNREACHABLE

Decided = Callable[[Sequence[Survivor], Sequence[PlannedCall]], Awaitable[bool]]
"""Tells whether good answers so far settle the matter, whatever the calls still under way may bring."""


@dataclass(slots=True, kw_only=True)
class _Seat:
    """One call of the panel."""

    call: PlannedCall
    first: Attempt
    answering: Answering
    begun: bool = False
    """Whether its attempts are, or were, under way."""
    closed: bool = False
    """Whether its end is on the record."""
    answered: Answered | None = None

    @property
    def may_heal(self) -> bool:
        """Whether it was denied a permit that time may bring, and has not asked for it again."""
        return not self.begun and not self.closed and self.first.finished.receipt.retryable

    def stop(self, outcome: Outcome, reason: str) -> None:
        """Say what the cancellation that follows means."""
        if not self.first.started:
            self.first.stop_outcome, self.first.stop_reason = outcome, reason
        self.answering.stop(outcome, reason)


def stage_name(number: int) -> str:
    """Return the name of a run's panel on the receipt, counted from 1."""
    return "panel" if number == 1 else f"panel/{number}"


async def gather(
    run: Run, calls: Sequence[PlannedCall], quorum: int, deadline: Deadline, *, stage: str = "panel", decided: Decided | None = None
) -> list[Survivor]:
    """Make the calls and return the good answers, in the order of the calls; the run knows all of them afterwards.

    Raises `QuotaExhausted`, `NoQuorum` or `DeadlineSpent` where there are fewer than the quorum, `DependencyUnavailable` where the limiter cannot be reached.
    """
    survivors = await gather_any(run, calls, quorum, deadline, stage=stage, decided=decided)
    if len(survivors) < quorum:
        raise too_few(run, calls, quorum, deadline)
    return survivors


async def gather_any(
    run: Run, calls: Sequence[PlannedCall], quorum: int, deadline: Deadline, *, stage: str = "panel", decided: Decided | None = None
) -> list[Survivor]:
    """Do the same, but return however few there are."""
    started = run.clock()
    known = len(run.receipts)
    try:
        await Panel(run=run, quorum=quorum, deadline=deadline, decided=decided or _agreed(run)).hold(calls)
    finally:
        run.close_stage(stage, started, run.receipts[known:])
    survivors = run.survivors(calls)
    run.agreement = run.agreement_of(survivors)
    return survivors


def _agreed(run: Run) -> Decided | None:
    """Return the rule that ends a panel whose answers agree, where the run has one."""
    threshold = run.plan.options.early_stop_agreement
    if threshold is None:
        return None

    async def agreed(survivors: Sequence[Survivor], _: Sequence[PlannedCall]) -> bool:
        agreement = run.agreement_of(survivors)
        return agreement is not None and agreement >= threshold

    return agreed


class Panel:
    """The seats of one panel."""

    def __init__(self, *, run: Run, quorum: int, deadline: Deadline, decided: Decided | None) -> None:
        self._run = run
        self._quorum = quorum
        self._deadline = deadline
        self._decided = decided
        self._seats: list[_Seat] = []
        self._tasks: dict[asyncio.Task[None], _Seat] = {}

    async def hold(self, calls: Sequence[PlannedCall]) -> None:
        """Make the calls; the run knows how each ended. Raises `DependencyUnavailable` where the limiter cannot be reached."""
        run = self._run
        options = run.plan.options
        hedges = run.panel_hedges(len(calls))
        self._seats = [
            _Seat(
                call=call,
                first=Attempt(planned=call),
                answering=Answering(
                    run.guarded,
                    call,
                    deadline=self._deadline,
                    retry=options.retry,
                    hedging=None if hedges is None else hedges.of(call.model),
                    listener=run.candidate_listener(call),
                    on_attempt=run.on_attempt(),
                ),
            )
            for call in calls
        ]
        admitted = await run.guarded.admit([seat.first for seat in self._seats], min_granted=self._quorum, deadline=self._deadline, patient=True)
        for seat in self._seats:
            if not admitted or (seat.first.permit is None and not seat.may_heal):
                self._close(seat)
        with panel_span(run.telemetry, size=len(calls), quorum=self._quorum) as finish:
            try:
                await self._call_all([seat for seat in self._seats if seat.first.permit is not None])
            finally:
                for seat in self._seats:
                    self._close(seat)
            finish([run.completion(call) for call in calls])

    async def _call_all(self, seats: Sequence[_Seat]) -> None:
        """Make the calls; leave none running."""
        pending = {self._begin(seat) for seat in seats}
        stop_at = self._deadline.at
        met = False
        try:
            while pending or any(seat.may_heal for seat in self._seats):
                good = self._good()
                if len(good) >= self._quorum:
                    if not met:
                        met = True
                        stop_at = min(stop_at, self._run.clock() + self._run.plan.options.straggler_grace_seconds)
                    if not pending:
                        break
                    if self._decided is not None and await self._decided(good, [self._tasks[task].call for task in pending]):
                        self._stop(pending, Outcome.STRAGGLER_CANCELLED, "decided")
                        break
                elif len(good) + len(pending) < self._quorum:
                    # Those that were denied have not been missed until now.
                    pending |= {self._begin(seat) for seat in self._seats if seat.may_heal}
                    if len(good) + len(pending) < self._quorum:
                        self._stop(pending, Outcome.CANCELLED, QUORUM_UNREACHABLE)
                        break
                patience = stop_at - self._run.clock()
                done: set[asyncio.Task[None]] = set()
                if patience > 0:
                    done, pending = await asyncio.wait(pending, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
                if not done:
                    if met:
                        self._stop(pending, Outcome.STRAGGLER_CANCELLED, "grace_over")
                    else:
                        self._stop(pending, Outcome.TIMEOUT, "panel_deadline")
                    break
        finally:
            for task in pending:
                task.cancel()
            try:
                await see_out(pending)
            finally:
                # A task that was cancelled before its first step never reached the guard; its permit goes back unused.
                self._run.guarded.give_back([seat.first for seat in seats])
        errors = [error for task in self._tasks if not task.cancelled() and (error := task.exception()) is not None]
        for error in errors:
            # That a seat which was asked for again could not be had is an error only where it is missed.
            if len(self._good()) < self._quorum or not isinstance(error, EnsembleError):
                raise error

    def _begin(self, seat: _Seat) -> asyncio.Task[None]:
        """Begin a seat's attempts; one that was denied asks for its permit again, and is patient."""
        seat.begun = True
        task = asyncio.create_task(self._attempts(seat), name=f"call {seat.call.candidate_id}")
        self._tasks[task] = seat
        return task

    async def _attempts(self, seat: _Seat) -> None:
        try:
            seat.answered = await seat.answering.answer(seat.first)
        except BaseException:
            seat.answered = seat.answering.answered()
            raise
        finally:
            self._close(seat)

    def _good(self) -> list[Survivor]:
        ended = [(seat.call, seat.answered.completion) for seat in self._seats if seat.answered is not None]
        return [Survivor(call=call, completion=completion) for call, completion in ended if completion.ok]

    def _stop(self, pending: set[asyncio.Task[None]], outcome: Outcome, reason: str) -> None:
        for task in pending:
            self._tasks[task].stop(outcome, reason)

    def _close(self, seat: _Seat) -> None:
        """Put a seat's end on the record, once, and tell of it."""
        if seat.closed:
            return
        seat.closed = True
        # One that never began its attempts is what its permit came to.
        first = seat.first.finished
        self._run.record(seat.call, seat.answered or Answered(completion=first, receipts=(first.receipt,)))
        self._run.tell_finished(seat.call)
