"""`first`: one member is asked; the next one joins after a delay, or at once where one fails; the first good answer wins, and the others are cancelled.

    asked --good--> the answer
      |-- hedge.delay, or the percentile of the model's recent latency, passes --> the next member is asked too (a hedge) --> ...
      `-- failed --> the next member is asked --> ...

Hedging a few slow requests takes most of the tail off the latency for few calls more (Dean and Barroso, "The Tail at Scale", CACM 56(2), 2013).
"""

import asyncio
from collections import deque

from services.models.answering import Answering
from services.models.completion import Attempt, PlannedCall
from services.models.leading_text import LeadingText, both
from services.models.outcomes import Outcome
from services.models.permits import AttemptKind
from services.models.plan import HedgePolicy, RunPlan
from services.models.provenance import Method, Provenance
from services.models.retry_policy import NO_RETRY
from services.orchestrator.hedges import Hedges
from services.orchestrator.options import of_one_answer
from services.orchestrator.parameters import parameters_of
from services.orchestrator.refining import truncation
from services.orchestrator.run import Run, Survivor, too_few
from services.orchestrator.strategies.single import speaking_as
from services.orchestrator.strategy import Answer, Strategy


class First(Strategy):
    """The first good answer of members that are asked one after the other, without waiting for each to end."""

    def prepared(self, plan: RunPlan) -> RunPlan:
        """Refuse a quorum other than one."""
        parameters_of(self.parameters, plan)
        return of_one_answer(plan)

    async def answer(self, run: Run) -> Answer:
        """Race. Raises `NoQuorum` where none answers, `DeadlineSpent` where time runs out first."""
        started = run.clock()
        try:
            winner = await _Race(run).run()
        finally:
            run.close_stage("panel", started, run.receipts)
        if winner is None:
            raise too_few(run, run.calls, 1, run.deadline)
        return Answer(
            text=winner.text,
            provenance=Provenance(method=Method.FIRST, candidate_ids=(winner.call.candidate_id,), answer_model=winner.call.model),
            degradations=truncation(winner),
        )


class _Race:
    """The members under way."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._hedges = Hedges(run.plan.options.hedge or HedgePolicy(), run.latencies, most=len(run.calls) - 1)
        self._waiting = deque(enumerate(run.calls))
        self._text = LeadingText(run.answer_listener())
        self._running: dict[asyncio.Task[None], tuple[PlannedCall, Answering]] = {}
        self._hedge_at: float | None = None

    async def run(self) -> Survivor | None:
        """Return the first good answer, None where all failed; leave no call under way."""
        self._ask_next(AttemptKind.FIRST)
        try:
            while self._running:
                done, _ = await asyncio.wait(self._running, timeout=self._patience(), return_when=asyncio.FIRST_COMPLETED)
                if not done:
                    self._hedge_at = None
                    if self._hedges.take():
                        self._ask_next(AttemptKind.HEDGE)
                    continue
                ended = [self._running.pop(task)[0] for task in done]
                for task in done:
                    task.result()
                winners = self._run.survivors(ended)
                if winners:
                    self._text.win(self._run.calls.index(winners[0].call))
                    for _, answering in self._running.values():
                        answering.stop(Outcome.HEDGE_LOST, "hedge_lost")
                    return winners[0]
                for _ in ended:
                    if self._waiting:
                        self._ask_next(AttemptKind.FIRST)
            return None
        finally:
            for task in self._running:
                task.cancel()
            if self._running:
                await asyncio.wait(self._running)

    def _patience(self) -> float | None:
        """Return how long to wait before the next hedge; None where there will be none."""
        if self._hedge_at is None or not self._waiting or not self._hedges.left:
            return None
        return max(0.0, self._hedge_at - self._run.clock())

    def _ask_next(self, kind: AttemptKind) -> None:
        position, call = self._waiting.popleft()
        last = not self._waiting
        answering = Answering(
            self._run.guarded,
            call,
            deadline=self._run.deadline,
            # The next member is the better retry, as long as there is one.
            retry=self._run.plan.options.retry if last else NO_RETRY,
            listener=both(speaking_as(self._text, position), self._run.candidate_listener(call)),
            on_attempt=self._run.on_attempt(),
        )
        attempt = Attempt(planned=call, kind=kind)
        task = asyncio.create_task(self._call(position, call, answering, attempt, patient=last), name=f"call {call.candidate_id}")
        self._running[task] = (call, answering)
        self._hedge_at = self._run.clock() + self._hedges.after_seconds(call.model)

    async def _call(self, position: int, call: PlannedCall, answering: Answering, attempt: Attempt, *, patient: bool) -> None:
        try:
            self._run.record(call, await answering.answer(attempt, patient=patient))
        except asyncio.CancelledError:
            self._run.record(call, answering.answered())
            raise
        if not self._run.completion(call).ok:
            self._text.fail(position)
        self._run.tell_finished(call)
