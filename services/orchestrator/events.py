"""What happens during a run, as it happens."""

from collections.abc import Callable
from dataclasses import dataclass

from services.models.receipt import CallReceipt


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """What one call of the panel brought."""

    candidate_id: str
    member_id: str
    model: str
    call: CallReceipt
    text: str = ""
    truncated: bool = False
    finish_reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted:
    """The run begins."""

    run_id: str
    strategy: str
    candidate_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateStarted:
    """A call to a member begins."""

    candidate_id: str
    model: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateDelta:
    """A member said more."""

    candidate_id: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateFinished:
    """A call to a member ended, in whatever way."""

    candidate: Candidate


@dataclass(frozen=True, slots=True, kw_only=True)
class RefinementStarted:
    """Candidates are in; refinement begins."""

    model: str
    candidate_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerDelta:
    """The answer grew, or, where `restart` is set, starts anew."""

    text: str
    restart: bool = False


RunEvent = RunStarted | CandidateStarted | CandidateDelta | CandidateFinished | RefinementStarted | AnswerDelta

Emit = Callable[[RunEvent], None]
"""Takes an event; must neither block nor raise."""
