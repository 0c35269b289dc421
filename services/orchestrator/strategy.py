"""What a strategy is: it gathers candidates and makes an answer of them.

A strategy is one module with a class that satisfies `Strategy`, and one line in `services.orchestrator.registry`.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from services.chassis.deadline import Deadline
from services.chassis.errors import DeadlineSpent, NoQuorum
from services.chassis.telemetry import Telemetry
from services.models.completion import Completion, PlannedCall
from services.models.guard import GuardedRun
from services.models.outcomes import Outcome
from services.models.plan import RunPlan
from services.models.provenance import Degradation, Provenance
from services.models.receipt import CallReceipt, StageReceipt, totals
from services.models.refinement import Refiner
from services.orchestrator.events import AnswerDelta, Candidate, Emit
from services.orchestrator.progress import candidate


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a strategy brings."""

    text: str
    provenance: Provenance
    degradations: tuple[Degradation, ...] = ()


@dataclass(slots=True, kw_only=True)
class Run:
    """One run under way: what a strategy works with and what it leaves behind for the receipt."""

    plan: RunPlan
    calls: tuple[PlannedCall, ...]
    """The panel's calls in order of preference."""
    guarded: GuardedRun
    refiner: Refiner
    deadline: Deadline
    telemetry: Telemetry
    emit: Emit | None = None
    clock: Callable[[], float] = time.monotonic
    completions: dict[str, Completion] = field(default_factory=dict)
    """By candidate id, as far as they are known."""
    extra_calls: list[CallReceipt] = field(default_factory=list)
    """The refiner's calls, counted from the start of the run."""
    stages: list[StageReceipt] = field(default_factory=list)

    def completion(self, call: PlannedCall) -> Completion:
        """Return how a call ended; one that was never begun says so."""
        return self.completions.get(call.candidate_id) or Completion(
            receipt=CallReceipt(
                candidate_id=call.candidate_id, member_id=call.member_id, model=call.model, outcome=Outcome.NOT_STARTED, reason="not_needed", retryable=True
            )
        )

    def close_stage(self, stage: str, started: float, calls: Sequence[CallReceipt]) -> None:
        """Put one stage on the receipt."""
        usage, cost = totals(calls)
        self.stages.append(StageReceipt(stage=stage, latency_seconds=self.clock() - started, usage=usage, cost=cost))

    def say(self, text: str, *, restart: bool = False) -> None:
        """Emit a piece of the answer."""
        if self.emit is not None and (text or restart):
            self.emit(AnswerDelta(text=text, restart=restart))

    def candidates(self) -> tuple[Candidate, ...]:
        """Return what each call of the panel brought, in the order of the panel."""
        return tuple(candidate(call, self.completion(call), include_text=self.plan.include_candidates) for call in self.calls)


class Strategy(Protocol):
    """A way from members to an answer."""

    def check(self, plan: RunPlan) -> None:
        """Refuse options that make no sense for this strategy. Raises `InvalidInput` with the fields' paths."""
        ...

    async def answer(self, run: Run) -> Answer:
        """Make the answer. Raises `NoQuorum`, `DeadlineSpent` or `DependencyUnavailable`."""
        ...


def too_few(run: Run, needed: int, deadline: Deadline) -> NoQuorum | DeadlineSpent:
    """Return the error that says why there are too few candidates: nothing arrived before the deadline, or too many members failed."""
    ended: Mapping[str, Completion] = {call.candidate_id: run.completion(call) for call in run.calls}
    receipts = [completion.receipt for completion in ended.values()]
    succeeded = sum(completion.ok for completion in ended.values())
    if succeeded == 0 and deadline.expired:
        return DeadlineSpent("the panel")
    healing = sorted(receipt.retry_after_seconds or 0.0 for receipt in receipts if receipt.outcome is not Outcome.OK and receipt.retryable)
    missing = needed - succeeded
    retryable = len(healing) >= missing
    return NoQuorum(
        needed=needed,
        succeeded=succeeded,
        outcomes={
            candidate_id: f"{completion.receipt.outcome}:{completion.receipt.reason}" if completion.receipt.reason else str(completion.receipt.outcome)
            for candidate_id, completion in ended.items()
        },
        retryable=retryable,
        # The quorum can be had once as many members as are missing have healed.
        retry_after_seconds=healing[missing - 1] or None if retryable else None,
    )
