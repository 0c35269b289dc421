"""The vocabulary of refinement, shared by the orchestrator that asks for it and the refiner that does it, and the port between the two."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from services.chassis.deadline import Deadline
from services.models.conversation import Message, Sampling
from services.models.provenance import Degradation, Provenance
from services.models.receipt import CallReceipt
from services.models.retry_policy import RetryPolicy

DEFAULT_CANDIDATE_BYTE_LIMIT = 65_536
MOST_SCHEMA_BYTES = 64 << 10
"""Of the JSON Schema that an answer must satisfy, in UTF-8."""
MOST_JUDGES = 8
LEAST_RANKED = 2
"""With fewer candidates before it, of which none is its own, a judge that ranks has nothing to say."""

OnAnswer = Callable[[str, bool], None]
"""Called with each piece of the answer as it grows, and whether all that came before is void."""


class RefineMethod(StrEnum):
    """What is made of the candidates. The names are those of `ensemble.v1.RefineMethod`."""

    FUSE = "FUSE"
    JUDGE = "JUDGE"
    RANK = "RANK"
    CONSISTENT = "CONSISTENT"
    SCORE = "SCORE"
    ANALYSE = "ANALYSE"
    REPAIR = "REPAIR"


@dataclass(frozen=True, slots=True, kw_only=True)
class Analysis:
    """What candidates have in common and where they differ, in a model's words."""

    consensus: tuple[str, ...] = ()
    contradictions: tuple[str, ...] = ()
    partial_coverage: tuple[str, ...] = ()
    unique_insights: tuple[str, ...] = ()
    blind_spots: tuple[str, ...] = ()


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
    rank: int | None = None
    """From an earlier stage, 1 for the best; None where there was none."""


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
    method: RefineMethod = RefineMethod.FUSE
    judges: tuple[Writer, ...] = ()
    """Of RANK; empty takes the writer."""
    passes: int = 1
    """Of JUDGE and CONSISTENT: 2 judges once more with the order reversed."""
    analysis: Analysis | None = None
    """For the writer of FUSE to look at."""
    response_schema: str = ""
    """JSON Schema that the answer must satisfy, as JSON text; empty for none."""
    problem: str = ""
    """What is wrong with the candidate of REPAIR, in words that hold nothing of it."""
    retry: RetryPolicy = RetryPolicy()
    max_cost_micro_usd: int | None = None
    """Most that the refinement may cost, in micro-USD; None for no bound."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refined:
    """What became of the candidates."""

    answer: str
    provenance: Provenance
    calls: tuple[CallReceipt, ...] = ()
    """Counted from the start of the refinement."""
    degradations: tuple[Degradation, ...] = ()
    analysis: Analysis | None = None
    """What ANALYSE found; None where it failed."""
    score: float | None = None
    """What SCORE found, 0 to 1; None where it failed."""


class Refiner(Protocol):
    """The refiner, as the orchestrator sees it."""

    async def refine(self, refinement: Refinement, deadline: Deadline, on_answer: OnAnswer | None = None) -> Refined:
        """Make one answer. Raises `DependencyUnavailable`, `DeadlineSpent` or `RemoteError`."""
        ...


def best_candidate(candidates: Sequence[RefinementCandidate]) -> RefinementCandidate:
    """Return the candidate of the best rank, else of the greatest weight, else the first; never random, never by length."""
    return min(candidates, key=lambda candidate: (float("inf") if candidate.rank is None else candidate.rank, -candidate.weight))
