"""What a run did and what it cost: one record for each attempt, a sum for each stage, and the whole."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from services.models.outcomes import Outcome
from services.models.permits import AttemptKind, Denial
from services.models.usage import Cost, Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class CallReceipt:
    """One attempt at a model, whether or not it got as far as the provider."""

    candidate_id: str
    """The candidate the attempt was for; empty for a refiner's call."""
    member_id: str
    """The seat in the panel; "refiner" for a refiner's call."""
    model: str
    attempt: int = 1
    """1 for the first attempt at the same answer."""
    outcome: Outcome
    reason: str = ""
    """A short machine word for why; never a provider's text."""
    started_after_seconds: float | None = None
    """From the start of the run to the start of the call; None where none was started."""
    latency_seconds: float | None = None
    time_to_first_token_seconds: float | None = None
    usage: Usage = Usage()
    cost: Cost = Cost()
    retryable: bool = False
    """Whether another attempt may succeed later; not sent on the wire."""
    retry_after_seconds: float | None = None
    attempt_kind: AttemptKind = AttemptKind.FIRST
    denial: Denial | None = None
    """The limiter's word where it denied the permit; not sent on the wire."""

    def shifted(self, seconds: float) -> "CallReceipt":
        """Return the same record counted from an origin that lies `seconds` earlier."""
        if self.started_after_seconds is None:
            return self
        return replace(self, started_after_seconds=self.started_after_seconds + seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class StageReceipt:
    """The time and cost of one stage of the run."""

    stage: str
    latency_seconds: float
    usage: Usage
    cost: Cost


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """The whole run."""

    calls: tuple[CallReceipt, ...]
    """In the order in which they were begun; those never begun come last."""
    stages: tuple[StageReceipt, ...]
    latency_seconds: float
    overhead_seconds: float
    """The part of the latency during which no model call was under way."""
    usage: Usage
    cost: Cost
    agreement: float | None = None
    """How far the good candidates agree, 0 to 1; None below two of them."""


def totals(calls: Iterable[CallReceipt]) -> tuple[Usage, Cost]:
    """Return the tokens and the money of all the calls."""
    usage, cost = Usage(), Cost()
    for call in calls:
        usage += call.usage
        cost += call.cost
    return usage, cost


def in_order(calls: Iterable[CallReceipt]) -> tuple[CallReceipt, ...]:
    """Return the calls in the order in which they were begun; the sort is stable, so calls never begun keep theirs at the end."""
    return tuple(sorted(calls, key=lambda call: float("inf") if call.started_after_seconds is None else call.started_after_seconds))


def idle_seconds(calls: Sequence[CallReceipt], latency_seconds: float) -> float:
    """Return how much of the first `latency_seconds` no call covers: the length of the complement of the union of the calls' intervals."""
    covered = reached = 0.0
    for call in in_order(calls):
        if call.started_after_seconds is None or call.latency_seconds is None:
            continue
        start = max(call.started_after_seconds, reached)
        end = min(call.started_after_seconds + call.latency_seconds, latency_seconds)
        if end > start:
            covered += end - start
            reached = end
    return max(0.0, latency_seconds - covered)
