"""The vocabulary of refinement, shared by the orchestrator that asks for it and the refiner that does it, and the port between the two."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from services.chassis.deadline import Deadline
from services.models.conversation import Message, Sampling
from services.models.provenance import Degradation, Provenance
from services.models.receipt import CallReceipt

DEFAULT_CANDIDATE_BYTE_LIMIT = 65_536

OnAnswer = Callable[[str, bool], None]
"""Called with each piece of the answer as it grows, and whether all that came before is void."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Writer:
    """The model that writes the one answer, and how it is asked."""

    model: str
    temperature: float | None = None
    max_output_tokens: int | None = None
    timeout_seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RefinementCandidate:
    """One text the answer may rest on; to the refiner it is data."""

    candidate_id: str
    model: str
    text: str
    weight: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Refinement:
    """What shall be refined, and how."""

    run_id: str
    messages: tuple[Message, ...]
    """The conversation that the candidates answer."""
    candidates: tuple[RefinementCandidate, ...]
    """In the order of the panel."""
    writer: Writer
    tenant: str = ""
    sampling: Sampling = Sampling()
    shuffle_seed: int | None = None
    """None derives the order from the run id."""
    candidate_byte_limit: int = DEFAULT_CANDIDATE_BYTE_LIMIT


@dataclass(frozen=True, slots=True, kw_only=True)
class Refined:
    """The one answer."""

    answer: str
    provenance: Provenance
    calls: tuple[CallReceipt, ...] = ()
    """Counted from the start of the refinement."""
    degradations: tuple[Degradation, ...] = ()


class Refiner(Protocol):
    """The refiner, as the orchestrator sees it."""

    async def refine(self, refinement: Refinement, deadline: Deadline, on_answer: OnAnswer | None = None) -> Refined:
        """Make one answer. Raises `DependencyUnavailable`, `DeadlineSpent` or `RemoteError`."""
        ...


def best_candidate(candidates: Sequence[RefinementCandidate]) -> RefinementCandidate:
    """Return the candidate with the greatest weight, the first of them where several have it; never random, never by length."""
    return max(candidates, key=lambda candidate: candidate.weight)
