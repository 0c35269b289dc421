"""One run under way: what a strategy works with, and what it leaves behind for the receipt."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from services.chassis.deadline import Deadline
from services.chassis.errors import DeadlineSpent, NoQuorum, QuotaExhausted
from services.chassis.telemetry import Telemetry
from services.models.answering import Answered, OnAttempt
from services.models.completion import Attempt, Completion, PlannedCall
from services.models.guard import GuardedRun
from services.models.leading_text import Listener
from services.models.outcomes import Outcome
from services.models.patience import healing_seconds
from services.models.plan import RunPlan
from services.models.provenance import Degradation
from services.models.receipt import CallReceipt, StageReceipt, totals
from services.models.refinement import RefinementCandidate, Refiner
from services.orchestrator.agreement import Bag, agreement_of, bag_of, most_agreeing
from services.orchestrator.events import AnswerDelta, Candidate, CandidateDelta, CandidateFinished, CandidateStarted, Emit, StageFinished
from services.orchestrator.hedges import Hedges
from services.orchestrator.recent_latencies import RecentLatencies
from services.orchestrator.tenant_quota import quota_exhausted

_OF_PERMITS = frozenset({Degradation.LIMITER_DOWN, Degradation.LIMITER_STORE_DOWN, Degradation.MAX_COST_REACHED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Survivor:
    """A call of the panel that brought a good answer."""

    call: PlannedCall
    completion: Completion

    @property
    def text(self) -> str:
        """The answer."""
        return self.completion.text

    def candidate(self, rank: int | None = None) -> RefinementCandidate:
        """Return it as the refiner is shown it."""
        return RefinementCandidate(candidate_id=self.call.candidate_id, model=self.call.model, text=self.text, weight=self.call.weight, rank=rank)


@dataclass(slots=True, kw_only=True)
class Run:
    """One run under way."""

    plan: RunPlan
    calls: list[PlannedCall]
    """The panel's calls in order of preference; a strategy of several layers adds to them."""
    guarded: GuardedRun
    refiner: Refiner
    deadline: Deadline
    telemetry: Telemetry
    latencies: RecentLatencies
    emit: Emit | None = None
    clock: Callable[[], float] = time.monotonic
    hedges: Hedges | None = None
    """Those that the whole run may make, where its options say how many; otherwise each panel has its own."""
    completions: dict[str, Completion] = field(default_factory=dict)
    """The one that counts by candidate id, as far as they are known."""
    receipts: list[CallReceipt] = field(default_factory=list)
    """Of all attempts that were begun or denied, the refiner's included, counted from the start of the run."""
    stages: list[StageReceipt] = field(default_factory=list)
    bags: dict[str, Bag] = field(default_factory=dict)
    """The words of good answers by candidate id, so that none is counted twice."""
    agreement: float | None = None
    """How far the good candidates agree, 0 to 1."""
    noted: dict[Degradation, None] = field(default_factory=dict)
    """What was wrong with how the refiner's permits were decided, whatever came of them."""
    said: bool = False
    """Whether a listener has heard any text of the answer."""

    @property
    def cost_micro_usd(self) -> int:
        """What the run has cost so far."""
        return totals(self.receipts)[1].micro_usd

    def completion(self, call: PlannedCall) -> Completion:
        """Return how a call ended; one that was never begun says so."""
        return self.completions.get(call.candidate_id) or Completion(
            receipt=CallReceipt(
                candidate_id=call.candidate_id, member_id=call.member_id, model=call.model, outcome=Outcome.NOT_STARTED, reason="not_needed", retryable=True
            )
        )

    def record(self, call: PlannedCall, answered: Answered) -> None:
        """Note how a call ended, with all attempts at it."""
        self.completions[call.candidate_id] = answered.completion
        self.receipts.extend(answered.receipts)
        for receipt in answered.receipts:
            self.latencies.record(receipt)

    def survivors(self, calls: Sequence[PlannedCall]) -> list[Survivor]:
        """Return those of the calls that brought a good answer, in their order."""
        return [Survivor(call=call, completion=completion) for call in calls if (completion := self.completion(call)).ok]

    def agreement_of(self, survivors: Sequence[Survivor]) -> float | None:
        """Return how far these answers agree, by their words."""
        return agreement_of([self._bag(survivor) for survivor in survivors])

    def medoid(self, survivors: Sequence[Survivor]) -> Survivor:
        """Return the answer that is most like the others, by their words; there must be one."""
        return survivors[most_agreeing([self._bag(survivor) for survivor in survivors])]

    def _bag(self, survivor: Survivor) -> Bag:
        candidate_id = survivor.call.candidate_id
        if candidate_id not in self.bags:
            self.bags[candidate_id] = bag_of(survivor.text)
        return self.bags[candidate_id]

    def close_stage(self, stage: str, started: float, calls: Sequence[CallReceipt]) -> None:
        """Put one stage on the receipt, and tell of it."""
        usage, cost = totals(calls)
        self.stages.append(StageReceipt(stage=stage, latency_seconds=self.clock() - started, usage=usage, cost=cost))
        if self.emit is not None:
            self.emit(StageFinished(stage=self.stages[-1]))

    def note(self, degradations: Iterable[Degradation]) -> None:
        """Remember those that hold for the run as a whole."""
        self.noted.update(dict.fromkeys(reason for reason in degradations if reason in _OF_PERMITS))

    def panel_hedges(self, calls: int) -> Hedges | None:
        """Return the hedges that a panel of so many calls may make; None where nothing is hedged."""
        policy = self.plan.options.hedge
        if policy is None or policy.most is None:
            return None if policy is None else Hedges(policy, self.latencies, most=calls)
        self.hedges = self.hedges or Hedges(policy, self.latencies, most=policy.most)
        return self.hedges

    def say(self, text: str, *, restart: bool = False) -> None:
        """Emit a piece of the answer."""
        if self.emit is not None and (text or restart):
            self.emit(AnswerDelta(text=text, restart=restart))
            self.said = True

    def say_whole(self, text: str) -> None:
        """Emit the answer as a whole; what was said of it before is void."""
        self.say(text, restart=self.said)

    def answer_listener(self) -> Listener | None:
        """Return who hears a call that may become the answer; None where nobody listens."""
        return None if self.emit is None else _listener(self.say)

    def candidate_listener(self, call: PlannedCall) -> Listener | None:
        """Return who hears a candidate grow; None where nobody listens, or the caller did not ask for texts."""
        emit = self.emit
        if emit is None or not self.plan.include_candidates:
            return None

        def say(text: str, *, restart: bool) -> None:
            emit(CandidateDelta(candidate_id=call.candidate_id, text=text, restart=restart))

        return _listener(say)

    def on_attempt(self) -> OnAttempt | None:
        """Return what tells of each attempt that begins; None where nobody listens."""
        emit = self.emit
        if emit is None:
            return None

        def tell(attempt: Attempt) -> None:
            planned = attempt.planned
            emit(CandidateStarted(candidate_id=planned.candidate_id, model=planned.model, attempt=attempt.number, kind=attempt.kind))

        return tell

    def tell_finished(self, call: PlannedCall) -> None:
        """Tell that a candidate is there, or all attempts at it have ended."""
        if self.emit is not None:
            self.emit(CandidateFinished(candidate=self.candidate(call)))

    def candidate(self, call: PlannedCall) -> Candidate:
        """Return what the caller is shown of one call; its text only where he asked for texts."""
        completion = self.completion(call)
        return Candidate(
            candidate_id=call.candidate_id,
            member_id=call.member_id,
            model=call.model,
            call=completion.receipt,
            text=completion.text if self.plan.include_candidates else "",
            truncated=completion.truncated,
            finish_reason=completion.finish_reason,
        )

    def candidates(self) -> tuple[Candidate, ...]:
        """Return what each call of the panel brought, in the order of the panel."""
        return tuple(self.candidate(call) for call in self.calls)


class _Say(Protocol):
    def __call__(self, text: str, *, restart: bool) -> None:
        """Tell of a piece of text."""
        ...


def _listener(say: _Say) -> Listener:
    """Return a listener that flags the first piece after a restart."""
    restart = False

    def on_restart() -> None:
        nonlocal restart
        restart = True

    def on_text(text: str) -> None:
        nonlocal restart
        say(text, restart=restart)
        restart = False

    return Listener(on_text=on_text, on_restart=on_restart)


def too_few(run: Run, calls: Sequence[PlannedCall], needed: int, deadline: Deadline) -> QuotaExhausted | NoQuorum | DeadlineSpent:
    """Return the error that says why there are too few: nothing arrived before the deadline, the tenant's own limits were in the way, or members failed."""
    ended: Mapping[str, Completion] = {call.candidate_id: run.completion(call) for call in calls}
    receipts = [completion.receipt for completion in ended.values()]
    succeeded = sum(completion.ok for completion in ended.values())
    if succeeded == 0 and deadline.expired:
        return DeadlineSpent("the panel", run.cost_micro_usd)
    exhausted = quota_exhausted(receipts, needed, run.cost_micro_usd)
    if exhausted is not None:
        return exhausted
    healing = healing_seconds([receipt for receipt in receipts if receipt.outcome is not Outcome.OK], needed - succeeded)
    return NoQuorum(
        needed=needed,
        succeeded=succeeded,
        outcomes={
            candidate_id: f"{completion.receipt.outcome}:{completion.receipt.reason}" if completion.receipt.reason else str(completion.receipt.outcome)
            for candidate_id, completion in ended.items()
        },
        retryable=healing is not None,
        # The quorum can be had once as many members as are missing have healed.
        retry_after_seconds=healing or None,
        cost_micro_usd=run.cost_micro_usd,
    )
