"""One attempt at a model from plan to end: what was planned, how far it got, how it ended."""

from dataclasses import dataclass, field

from services.models.chat import ChatResult
from services.models.conversation import Message, Sampling
from services.models.outcomes import Outcome
from services.models.permits import AttemptKind, Denial, DenialReason, Permit
from services.models.receipt import CallReceipt
from services.models.usage import Cost, Usage

PROMPT_ECHOED = "prompt_echoed"
"""The reason of an answer that repeats its prompt, and so is none."""
MIN_NOT_MET = "denied_min_not_met"
"""The reason of a call that could have been made, had enough others been granted too."""
_DENIED = {
    DenialReason.REQUESTS: Outcome.RATE_LIMITED,
    DenialReason.TOKENS: Outcome.RATE_LIMITED,
    DenialReason.CONCURRENCY: Outcome.RATE_LIMITED,
    DenialReason.RETRY_BUDGET: Outcome.RATE_LIMITED,
    DenialReason.PROVIDER_BACKOFF: Outcome.RATE_LIMITED,
    DenialReason.TOO_LARGE: Outcome.RATE_LIMITED,
    DenialReason.BUDGET: Outcome.BUDGET_EXHAUSTED,
    DenialReason.BREAKER_OPEN: Outcome.BREAKER_OPEN,
    DenialReason.FORCED_OPEN: Outcome.BREAKER_OPEN,
    DenialReason.MIN_NOT_MET: Outcome.NOT_STARTED,
    DenialReason.STORE_DOWN: Outcome.LIMITER_UNAVAILABLE,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedCall:
    """One call that shall be made."""

    candidate_id: str
    """Empty for a refiner's call."""
    member_id: str
    model: str
    messages: tuple[Message, ...]
    sampling: Sampling = Sampling()
    timeout_seconds: float | None = None
    """None takes the model's own."""
    weight: float = 1.0
    nonce: str = ""
    """The code in the frame around candidates, where the prompt has one; an answer that holds it is no answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """How an attempt ended."""

    text: str = ""
    """The answer where the outcome is OK; otherwise empty: a cut answer is never used as one."""
    truncated: bool = False
    finish_reason: str = ""
    receipt: CallReceipt

    @property
    def ok(self) -> bool:
        """Whether there is an answer."""
        return self.receipt.outcome is Outcome.OK

    @classmethod
    def of(cls, attempt: "Attempt", result: ChatResult, *, usage: Usage, cost: Cost, started_after_seconds: float) -> "Completion":
        """Return the record of a call that was made."""
        return cls(
            text=result.text if result.outcome is Outcome.OK else "",
            truncated=result.truncated and result.outcome is Outcome.OK,
            finish_reason=result.finish_reason,
            receipt=CallReceipt(
                candidate_id=attempt.planned.candidate_id,
                member_id=attempt.planned.member_id,
                model=attempt.planned.model,
                attempt=attempt.number,
                attempt_kind=attempt.kind,
                outcome=result.outcome,
                reason=result.reason,
                started_after_seconds=started_after_seconds,
                latency_seconds=result.latency_seconds,
                time_to_first_token_seconds=result.time_to_first_token_seconds,
                usage=usage,
                cost=cost,
                retryable=result.retryable,
                retry_after_seconds=result.retry_after_seconds,
            ),
        )


@dataclass(slots=True, kw_only=True)
class Attempt:
    """One attempt under way; the guard fills it in, its owner reads it."""

    planned: PlannedCall
    number: int = 1
    """1 for the first attempt at the same answer."""
    kind: AttemptKind = AttemptKind.FIRST
    permit: Permit | None = None
    reserved_micro_usd: int = 0
    """What is set aside for it of the run's own bound on its cost."""
    budget_seconds: float = 0.0
    """How long the call may last, set at the admission."""
    started: bool = False
    stop_outcome: Outcome = Outcome.CANCELLED
    """What a cancellation of the call means; its owner sets it before he cancels."""
    stop_reason: str = "run_cancelled"
    completion: Completion | None = field(default=None)

    @property
    def finished(self) -> Completion:
        """The completion; an attempt that nobody finished counts as never started."""
        return self.completion or never_started(self, Outcome.NOT_STARTED, "run_ended")


def denied(attempt: Attempt, denial: Denial) -> Completion:
    """Return the completion of an attempt whose permit was denied."""
    return Completion(
        receipt=CallReceipt(
            candidate_id=attempt.planned.candidate_id,
            member_id=attempt.planned.member_id,
            model=attempt.planned.model,
            attempt=attempt.number,
            attempt_kind=attempt.kind,
            outcome=_DENIED[denial.reason],
            # Whose limit it was is for the caller to see: its own it can wait for, or have raised.
            reason=f"denied_{'tenant_' if denial.of_tenant else ''}{denial.reason.lower()}",
            # What could have been had, had the others been granted too, may be had later.
            retryable=denial.retry_after_seconds is not None or denial.reason is DenialReason.MIN_NOT_MET,
            retry_after_seconds=denial.retry_after_seconds,
            denial=denial,
        )
    )


def never_started(attempt: Attempt, outcome: Outcome, reason: str, *, retryable: bool = True) -> Completion:
    """Return the completion of an attempt that was never begun; `retryable` says whether a later one may succeed."""
    return Completion(
        receipt=CallReceipt(
            candidate_id=attempt.planned.candidate_id,
            member_id=attempt.planned.member_id,
            model=attempt.planned.model,
            attempt=attempt.number,
            attempt_kind=attempt.kind,
            outcome=outcome,
            reason=reason,
            retryable=retryable,
        )
    )
