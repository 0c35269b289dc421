"""What happens during a run, as it happens."""

from collections.abc import Callable
from dataclasses import dataclass

from services.models.permits import AttemptKind
from services.models.receipt import CallReceipt, StageReceipt


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
    """An attempt at a candidate begins."""

    candidate_id: str
    model: str
    attempt: int = 1
    kind: AttemptKind = AttemptKind.FIRST


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateDelta:
    """A member said more, or, where `restart` is set, starts anew."""

    candidate_id: str
    text: str
    restart: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateFinished:
    """A candidate is there, or all attempts at it ended in whatever way."""

    candidate: Candidate


@dataclass(frozen=True, slots=True, kw_only=True)
class RefinementStarted:
    """Candidates are in; a stage of refinement begins."""

    model: str
    candidate_ids: tuple[str, ...]
    stage: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StageFinished:
    """A stage is over."""

    stage: StageReceipt


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerDelta:
    """The answer grew, or, where `restart` is set, starts anew."""

    text: str
    restart: bool = False


RunEvent = RunStarted | CandidateStarted | CandidateDelta | CandidateFinished | RefinementStarted | StageFinished | AnswerDelta

Emit = Callable[[RunEvent], None]
"""Takes an event; must neither block nor raise."""
