"""Turns attempts into the events and candidates a caller sees."""

from services.models.chat import OnText
from services.models.completion import Completion, PlannedCall
from services.orchestrator.events import Candidate, CandidateDelta, CandidateFinished, Emit


def candidate(planned: PlannedCall, completion: Completion, *, include_text: bool) -> Candidate:
    """Return what the caller is shown of one call; its text only where he asked for texts."""
    return Candidate(
        candidate_id=planned.candidate_id,
        member_id=planned.member_id,
        model=planned.model,
        call=completion.receipt,
        text=completion.text if include_text else "",
        truncated=completion.truncated,
        finish_reason=completion.finish_reason,
    )


def candidate_finished(planned: PlannedCall, completion: Completion, *, include_text: bool) -> CandidateFinished:
    """Return the event that a call ended."""
    return CandidateFinished(candidate=candidate(planned, completion, include_text=include_text))


def delta_listener(emit: Emit | None, candidate_id: str) -> OnText | None:
    """Return a listener that emits a candidate's text as it grows; None where nobody listens."""
    if emit is None:
        return None

    def listen(text: str) -> None:
        emit(CandidateDelta(candidate_id=candidate_id, text=text))

    return listen
