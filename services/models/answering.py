"""One answer of one model, by as many attempts as the policies allow.

    first ----ok----------------------------------------------------------> answered
      |-- takes longer than `hedge_after_seconds` --> hedge, beside it: the first good one wins, the other is cancelled (HEDGE_LOST)
      `-- all under way failed, a repeat may heal --> wait --> retry ------> ...

Each attempt has a permit of its own; retries and hedges draw on the model's retry budget. Whatever happens, a cancellation from outside included, no attempt is
left under way when it returns.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from services.chassis.deadline import Deadline
from services.chassis.errors import EnsembleError
from services.chassis.see_out import see_out
from services.models.completion import Attempt, Completion, PlannedCall, never_started
from services.models.guard import GuardedRun
from services.models.leading_text import LeadingText, Listener
from services.models.outcomes import Outcome
from services.models.permits import AttemptKind
from services.models.receipt import CallReceipt
from services.models.retry_policy import RetryPolicy, backoff_seconds, error_class

OnAttempt = Callable[[Attempt], None]
"""Called when an attempt has its permit and is about to be made."""
TakeHedge = Callable[[], bool]
"""Takes one of the hedges that a run may make; False where none is left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """How it ended."""

    completion: Completion
    """The one that counts: the good one, else the last failure at the provider, else the denial."""
    receipts: tuple[CallReceipt, ...]
    """Of all attempts, in the order in which they were begun."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hedging:
    """When a second attempt joins one that is under way."""

    after_seconds: float
    take: TakeHedge


class Answering:
    """The attempts at one answer."""

    def __init__(
        self,
        run: GuardedRun,
        planned: PlannedCall,
        *,
        deadline: Deadline,
        retry: RetryPolicy,
        hedging: Hedging | None = None,
        listener: Listener | None = None,
        on_attempt: OnAttempt | None = None,
    ) -> None:
        self._run = run
        self._planned = planned
        self._deadline = deadline
        self._retry = retry
        self._hedging = hedging
        self._on_attempt = on_attempt
        self._text = LeadingText(listener)
        self._attempts: list[Attempt] = []
        self._running: dict[asyncio.Task[None], Attempt] = {}
        self._hedge_timer: asyncio.TimerHandle | None = None
        self._joined: asyncio.Future[None] | None = None
        """Done when an attempt has joined those that are being waited for."""
        self._won = False

    async def answer(self, first: Attempt | None = None, *, patient: bool = True) -> Answered:
        """Make attempts until one is good or no more may be made.

        `first` may have its permit already, or be a hedge for another answer; without patience it is not waited for where its permit is denied. Raises
        `DependencyUnavailable` where the limiter cannot be reached for a first attempt that is no hedge.
        """
        self._start(first or Attempt(planned=self._planned), patient=patient)
        try:
            if await self._race() is not None:
                self.stop(Outcome.HEDGE_LOST, "hedge_lost")
                self._won = True
        finally:
            try:
                await self._end()
            finally:
                # Also where this was cancelled in the turn in which an attempt became good: it is the one that counts then.
                good = next((attempt for attempt in self._attempts if attempt.finished.ok), None)
                if good is not None:
                    self._text.win(good.number)
        return self.answered()

    def stop(self, outcome: Outcome, reason: str) -> None:
        """Say what the cancellation that follows means for the attempts under way."""
        # Where one has won, the others have lost to it, whoever stops them while they clean up.
        if not self._won:
            for attempt in self._running.values():
                attempt.stop_outcome, attempt.stop_reason = outcome, reason

    def answered(self) -> Answered:
        """Return how it stands; attempts that were given up before they reached anybody are left out, unless there is nothing else."""
        told = [attempt for attempt in self._attempts if attempt.completion is not None] or self._attempts[:1]
        good = [attempt for attempt in told if attempt.finished.ok]
        called = [attempt for attempt in told if attempt.started]
        counts = (good or called[-1:] or told)[0]
        return Answered(completion=counts.finished, receipts=tuple(attempt.finished.receipt for attempt in told))

    async def _race(self) -> Attempt | None:
        """Return the first good attempt; None where all failed."""
        while self._running:
            self._joined = asyncio.get_running_loop().create_future()
            done, _ = await asyncio.wait({*self._running, self._joined}, return_when=asyncio.FIRST_COMPLETED)
            ended = [(task, attempt) for task, attempt in self._running.items() if task in done]
            for task, _ in ended:
                del self._running[task]
            for task, attempt in ended:
                task.result()
                if attempt.finished.ok:
                    return attempt
                self._text.fail(attempt.number)
            if not self._running:
                self._retry_after_failure()
        return None

    def _retry_after_failure(self) -> None:
        """Begin another attempt, where the last failure allows it and its wait ends in time."""
        made = [attempt for attempt in self._attempts if attempt.started]
        refused = self._attempts[-1].kind is AttemptKind.RETRY and not self._attempts[-1].started
        # Where one attempt failed in a way that a repeat does not heal, that another one failed otherwise makes the request no better.
        if not made or refused or any(error_class(attempt.finished.receipt) is None for attempt in made):
            return
        receipt = made[-1].finished.receipt
        if self._retry.allows(receipt, len(made)):
            wait = backoff_seconds(receipt, len(made), self._run.draw)
            if wait < self._deadline.remaining():
                self._start(self._next(AttemptKind.RETRY), patient=True, wait=wait)

    def _next(self, kind: AttemptKind) -> Attempt:
        return Attempt(planned=self._planned, number=self._attempts[-1].number + 1, kind=kind)

    def _start(self, attempt: Attempt, *, patient: bool, wait: float = 0.0) -> None:
        self._attempts.append(attempt)
        name = f"attempt {attempt.number} {self._planned.candidate_id}"
        self._running[asyncio.create_task(self._attempt(attempt, patient=patient, wait=wait), name=name)] = attempt

    async def _attempt(self, attempt: Attempt, *, patient: bool, wait: float) -> None:
        """Wait, ask for a permit where there is none yet, and make the call; the attempt says how it ended."""
        if wait:
            await asyncio.sleep(wait)
        if attempt.permit is None and not await self._admitted(attempt, patient=patient):
            return
        if attempt.budget_seconds <= 0:
            # Its permit came too late. A call without time would say nothing of the provider, but count against it.
            attempt.stop_outcome, attempt.stop_reason = Outcome.NOT_STARTED, "deadline"
            self._run.give_back([attempt])
            return
        if self._on_attempt is not None:
            self._on_attempt(attempt)
        self._set_hedge_timer()
        try:
            await self._run.call(attempt, self._text.microphone(attempt.number))
        finally:
            self._clear_hedge_timer()

    async def _admitted(self, attempt: Attempt, *, patient: bool) -> bool:
        """Ask for the attempt's permit; return whether it has one."""
        try:
            return bool(await self._run.admit([attempt], min_granted=1, deadline=self._deadline, patient=patient))
        except EnsembleError:
            attempt.completion = never_started(attempt, Outcome.LIMITER_UNAVAILABLE, "limiter_unavailable")
            # Of a hedge or a retry it is no error: what the attempt before it brought, or still may bring, counts.
            if attempt.kind is AttemptKind.FIRST:
                raise
            return False

    def _set_hedge_timer(self) -> None:
        """Have the call that begins now joined by another one if it takes too long; each answer is hedged once."""
        if self._hedging is not None and not any(attempt.kind is AttemptKind.HEDGE for attempt in self._attempts):
            self._hedge_timer = asyncio.get_running_loop().call_later(self._hedging.after_seconds, self._hedge, self._hedging.take)

    def _clear_hedge_timer(self) -> None:
        if self._hedge_timer is not None:
            self._hedge_timer.cancel()
            self._hedge_timer = None

    def _hedge(self, take: TakeHedge) -> None:
        self._hedge_timer = None
        if take():
            self._start(self._next(AttemptKind.HEDGE), patient=False)
            if self._joined is not None and not self._joined.done():
                self._joined.set_result(None)

    async def _end(self) -> None:
        """Cancel what is still under way and wait for its end."""
        self._clear_hedge_timer()
        for task in self._running:
            task.cancel()
        try:
            await see_out(self._running)
        finally:
            # A task that was cancelled before its first step never reached the guard; its permit goes back unused.
            self._run.give_back(self._attempts)
