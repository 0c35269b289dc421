"""The panel: N calls at once, each under a permit, until enough is enough.

    admitted --> calls under way --> quorum met --> grace --> stragglers cancelled
                      |-- quorum out of reach ------------------> the rest cancelled
                      `-- the panel's time is over -------------> the rest timed out

Whatever ends the panel, a cancellation from outside included, no call is left running and no permit unreported when it returns.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from services.chassis.deadline import Deadline
from services.chassis.telemetry import Telemetry
from services.models.completion import Attempt, Completion, PlannedCall
from services.models.guard import GuardedRun
from services.models.outcomes import Outcome
from services.orchestrator.events import CandidateStarted, Emit
from services.orchestrator.progress import candidate_finished, delta_listener
from services.orchestrator.spans import panel_span


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """How candidates are gathered."""

    quorum: int
    """How many good answers are enough."""
    grace_seconds: float
    """How long stragglers may still arrive after the quorum is met."""
    deadline: Deadline
    """When the panel's time is over."""
    telemetry: Telemetry
    emit: Emit | None = None
    include_text: bool = False
    """Whether events carry the candidates' texts."""
    clock: Callable[[], float] = time.monotonic

    async def gather(self, run: GuardedRun, calls: Sequence[PlannedCall]) -> list[Completion]:
        """Return one completion for each call, in the order of the calls. Raises `DependencyUnavailable` where the limiter cannot be reached."""
        attempts = [Attempt(planned=call) for call in calls]
        admitted = await run.admit(attempts, min_granted=self.quorum, deadline=self.deadline)
        for attempt in attempts:
            if attempt.permit is None:
                self._tell_finished(attempt)
        with panel_span(self.telemetry, size=len(calls), quorum=self.quorum) as finish:
            await self._call_all(run, admitted)
            completions = [attempt.finished for attempt in attempts]
            finish(completions)
        return completions

    async def _call_all(self, run: GuardedRun, admitted: Sequence[Attempt]) -> None:
        """Make the calls; leave none running."""
        tasks = {asyncio.create_task(self._call(run, attempt), name=f"call {attempt.planned.candidate_id}"): attempt for attempt in admitted}
        pending = set(tasks)
        stop_at = self.deadline.at
        met = False
        try:
            while pending:
                good = sum(attempt.completion is not None and attempt.completion.ok for attempt in admitted)
                if not met and good >= self.quorum:
                    met = True
                    stop_at = min(stop_at, self.clock() + self.grace_seconds)
                if good + len(pending) < self.quorum:
                    self._stop(tasks, pending, Outcome.CANCELLED, "quorum_unreachable")
                    break
                patience = stop_at - self.clock()
                done: set[asyncio.Task[None]] = set()
                if patience > 0:
                    done, pending = await asyncio.wait(pending, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
                if not done:
                    if met:
                        self._stop(tasks, pending, Outcome.STRAGGLER_CANCELLED, "grace_over")
                    else:
                        self._stop(tasks, pending, Outcome.TIMEOUT, "panel_deadline")
                    break
        finally:
            for task in pending:
                task.cancel()
            if pending:
                await asyncio.wait(pending)
            # A task that was cancelled before its first step never reached the guard; its permit goes back unused.
            run.give_back(admitted)
        for task in tasks:
            if not task.cancelled():
                task.result()

    async def _call(self, run: GuardedRun, attempt: Attempt) -> None:
        if self.emit is not None:
            self.emit(CandidateStarted(candidate_id=attempt.planned.candidate_id, model=attempt.planned.model))
        try:
            await run.call(attempt, delta_listener(self.emit, attempt.planned.candidate_id) if self.include_text else None)
        finally:
            self._tell_finished(attempt)

    def _stop(self, tasks: dict[asyncio.Task[None], Attempt], pending: set[asyncio.Task[None]], outcome: Outcome, reason: str) -> None:
        for task in pending:
            tasks[task].stop_outcome = outcome
            tasks[task].stop_reason = reason

    def _tell_finished(self, attempt: Attempt) -> None:
        if self.emit is not None:
            self.emit(candidate_finished(attempt.planned, attempt.finished, include_text=self.include_text))
