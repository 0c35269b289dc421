"""`first`: one member is asked; the next one joins after a delay, or at once where one fails; the first good answer wins, and the others are cancelled.

    asked --good--> the answer
      |-- hedge.delay, or the percentile of the model's recent latency, passes --> the next member is asked too (a hedge) --> ...
      |             `-- denied its permit --> another hedge, of the one after it; this one is asked again, as itself, when nobody else is left
      `-- failed --> the next member is asked --> ...

Hedging a few slow requests takes most of the tail off the latency for few calls more (Dean and Barroso, "The Tail at Scale", CACM 56(2), 2013).
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from services.chassis.errors import EnsembleError
from services.chassis.see_out import see_out
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
        """Race. Raises `QuotaExhausted` or `NoQuorum` where none answers, `DeadlineSpent` where time runs out first."""
        started = run.clock()
        race = _Race(run)
        try:
            winner = await race.run()
        finally:
            run.close_stage("panel", started, run.receipts)
        if winner is None:
            raise race.error or too_few(run, run.calls, 1, run.deadline)
        return Answer(
            text=winner.text,
            provenance=Provenance(method=Method.FIRST, candidate_ids=(winner.call.candidate_id,), answer_model=winner.call.model),
            degradations=truncation(winner),
        )


@dataclass(slots=True, kw_only=True)
class _Entrant:
    """A member in the race."""

    position: int
    call: PlannedCall
    attempt: Attempt
    answering: Answering

    @property
    def denied_hedge(self) -> bool:
        """Whether it was to join another one and got no permit for that; it has not failed."""
        return self.attempt.kind is AttemptKind.HEDGE and not self.attempt.started


class _Race:
    """The members under way."""

    def __init__(self, run: Run) -> None:
        self._run = run
        policy = run.plan.options.hedge or HedgePolicy()
        self._hedges = Hedges(policy, run.latencies, most=len(run.calls) - 1 if policy.most is None else policy.most)
        self._waiting = deque((position, call, 1) for position, call in enumerate(run.calls))
        """Position, call, and the number of its next attempt."""
        self._denied: list[_Entrant] = []
        """Hedges that got no permit, which may be asked as themselves when nobody else is left."""
        self._text = LeadingText(run.answer_listener())
        self._running: dict[asyncio.Task[None], _Entrant] = {}
        self._hedge_at: float | None = None
        self.error: EnsembleError | None = None
        """Why a member could not even be asked; it matters only where none answers."""

    async def run(self) -> Survivor | None:
        """Return the first good answer, None where all failed; leave no call under way."""
        self._ask_next(AttemptKind.FIRST)
        try:
            while self._running:
                done, _ = await asyncio.wait(self._running, timeout=self._patience(), return_when=asyncio.FIRST_COMPLETED)
                if not done:
                    self._hedge_at = None
                    self._hedge()
                    continue
                ended = sorted((self._running.pop(task) for task in done), key=lambda entrant: entrant.position)
                for task in done:
                    self._note(task.exception())
                winners = self._run.survivors([entrant.call for entrant in ended])
                if winners:
                    self._text.win(self._run.calls.index(winners[0].call))
                    for entrant in self._running.values():
                        entrant.answering.stop(Outcome.HEDGE_LOST, "hedge_lost")
                    return winners[0]
                self._replace(ended)
            return None
        finally:
            for task in self._running:
                task.cancel()
            try:
                await see_out(self._running)
            finally:
                for entrant in self._denied:
                    self._run.tell_finished(entrant.call)

    def _note(self, error: BaseException | None) -> None:
        if isinstance(error, EnsembleError):
            self.error = self.error or error
        elif error is not None:
            raise error

    def _replace(self, ended: Sequence[_Entrant]) -> None:
        """Ask others in place of those that brought nothing."""
        for entrant in ended:
            if entrant.denied_hedge:
                self._denied.append(entrant)
                self._hedge()
            else:
                self._run.tell_finished(entrant.call)
                self._ask_next(AttemptKind.FIRST)
        if not self._running:
            self._ask_next(AttemptKind.FIRST)

    def _hedge(self) -> None:
        if self._waiting and self._hedges.take():
            self._ask_next(AttemptKind.HEDGE)

    def _patience(self) -> float | None:
        """Return how long to wait before the next hedge; None where there will be none."""
        if self._hedge_at is None or not self._waiting or not self._hedges.left:
            return None
        return max(0.0, self._hedge_at - self._run.clock())

    def _ask_next(self, kind: AttemptKind) -> None:
        if not self._waiting:
            self._waiting.extend((entrant.position, entrant.call, entrant.attempt.number + 1) for entrant in self._denied)
            self._denied.clear()
        if not self._waiting:
            return
        position, call, number = self._waiting.popleft()
        # The next member is the better retry, and better than waiting, as long as there is one.
        last = kind is AttemptKind.FIRST and not self._waiting and not self._denied
        answering = Answering(
            self._run.guarded,
            call,
            deadline=self._run.deadline,
            retry=self._run.plan.options.retry if last else NO_RETRY,
            listener=both(speaking_as(self._text, position), self._run.candidate_listener(call)),
            on_attempt=self._run.on_attempt(),
        )
        entrant = _Entrant(position=position, call=call, attempt=Attempt(planned=call, number=number, kind=kind), answering=answering)
        self._running[asyncio.create_task(self._call(entrant, patient=last), name=f"call {call.candidate_id}")] = entrant
        self._hedge_at = self._run.clock() + self._hedges.after_seconds(call.model)

    async def _call(self, entrant: _Entrant, *, patient: bool) -> None:
        try:
            answered = await entrant.answering.answer(entrant.attempt, patient=patient)
        except asyncio.CancelledError:
            self._run.record(entrant.call, entrant.answering.answered())
            self._run.tell_finished(entrant.call)
            raise
        except EnsembleError:
            self._run.record(entrant.call, entrant.answering.answered())
            raise
        self._run.record(entrant.call, answered)
        if answered.completion.ok:
            self._run.tell_finished(entrant.call)
        else:
            self._text.fail(entrant.position)
