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
from typing import TYPE_CHECKING

from services.chassis.deadline import Deadline
from services.chassis.errors import DependencyUnavailable
from services.models.completion import Attempt, Completion, PlannedCall, never_started
from services.models.leading_text import LeadingText, Listener
from services.models.outcomes import Outcome
from services.models.permits import AttemptKind
from services.models.receipt import CallReceipt
from services.models.retry_policy import RetryPolicy, backoff_seconds

if TYPE_CHECKING:
    from services.models.guard import GuardedRun

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
    """When a second attempt joins the first."""

    after_seconds: float
    take: TakeHedge


class Answering:
    """The attempts at one answer."""

    def __init__(
        self,
        run: "GuardedRun",
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

    async def answer(self, first: Attempt | None = None, *, patient: bool = True) -> Answered:
        """Make attempts until one is good or no more may be made.

        `first` may have its permit already, or be a hedge for another answer; without patience it is not waited for where its permit is denied. Raises
        `DependencyUnavailable` where the limiter cannot be reached for a first attempt that is no hedge.
        """
        self._start(first or Attempt(planned=self._planned), patient=patient)
        try:
            winner = await self._race()
            if winner is not None:
                self._text.win(winner.number)
                self.stop(Outcome.HEDGE_LOST, "hedge_lost")
        finally:
            await self._end()
        return self.answered()

    def stop(self, outcome: Outcome, reason: str) -> None:
        """Say what the cancellation that follows means for the attempts under way."""
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
        hedge_at = None if self._hedging is None else self._run.now() + self._hedging.after_seconds
        while self._running:
            patience = None if hedge_at is None else max(0.0, hedge_at - self._run.now())
            done, _ = await asyncio.wait(self._running, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                hedge_at = None
                # Only what is really being waited for is hedged: an attempt that waits for its permit would just have a rival for it.
                if self._hedging is not None and any(attempt.started for attempt in self._running.values()) and self._hedging.take():
                    self._start(self._next(AttemptKind.HEDGE), patient=False)
            ended = [self._running.pop(task) for task in done]
            for task in done:
                task.result()
            for attempt in sorted(ended, key=lambda one: one.number):
                if attempt.finished.ok:
                    return attempt
                self._text.fail(attempt.number)
            if not self._running:
                self._retry_after(ended)
        return None

    def _retry_after(self, ended: list[Attempt]) -> None:
        """Begin another attempt, where the last failure allows it and its wait ends in time."""
        failed = max(ended, key=lambda one: one.number)
        made = sum(attempt.started for attempt in self._attempts)
        if not failed.started:
            return
        receipt = failed.finished.receipt
        if self._retry.allows(receipt, made):
            wait = backoff_seconds(receipt, made, self._run.draw)
            if wait < self._deadline.remaining():
                self._start(self._next(AttemptKind.RETRY), patient=True, wait=wait)

    def _next(self, kind: AttemptKind) -> Attempt:
        return Attempt(planned=self._planned, number=len(self._attempts) + 1, kind=kind)

    def _start(self, attempt: Attempt, *, patient: bool, wait: float = 0.0) -> None:
        self._attempts.append(attempt)
        name = f"attempt {attempt.number} {self._planned.candidate_id}"
        self._running[asyncio.create_task(self._attempt(attempt, patient=patient, wait=wait), name=name)] = attempt

    async def _attempt(self, attempt: Attempt, *, patient: bool, wait: float) -> None:
        """Wait, ask for a permit where there is none yet, and make the call; the attempt says how it ended."""
        if wait:
            await asyncio.sleep(wait)
        if attempt.permit is None:
            if self._deadline.expired:
                attempt.completion = never_started(attempt, Outcome.NOT_STARTED, "deadline")
                return
            try:
                if not await self._run.admit([attempt], min_granted=1, deadline=self._deadline, patient=patient):
                    return
            except DependencyUnavailable:
                if attempt.kind is AttemptKind.FIRST:
                    raise
                # The first attempt's own failure, or the answer that it still may bring, counts; another attempt was only a chance.
                attempt.completion = never_started(attempt, Outcome.LIMITER_UNAVAILABLE, "limiter_unavailable")
                return
        if self._on_attempt is not None:
            self._on_attempt(attempt)
        await self._run.call(attempt, self._text.microphone(attempt.number))

    async def _end(self) -> None:
        """Cancel what is still under way and wait for its end."""
        for task in self._running:
            task.cancel()
        if self._running:
            await asyncio.wait(self._running)
        # A task that was cancelled before its first step never reached the guard; its permit goes back unused.
        self._run.give_back(self._attempts)
