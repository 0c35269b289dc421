"""How an answer came about, and why it may be less than was asked for."""

from dataclasses import dataclass
from enum import StrEnum


class Method(StrEnum):
    """The way from candidates to the answer. The names are those of `ensemble.v1.Method`."""

    SINGLE = "SINGLE"
    FUSED = "FUSED"
    SOLE_SURVIVOR = "SOLE_SURVIVOR"
    FALLBACK = "FALLBACK"
    FIRST = "FIRST"
    JUDGED = "JUDGED"
    RANKED = "RANKED"
    VOTED = "VOTED"
    CASCADED = "CASCADED"


class Degradation(StrEnum):
    """Why an answer is less than was asked for. The names are those of `ensemble.v1.Degradation`."""

    SOLE_SURVIVOR = "SOLE_SURVIVOR"
    REFINER_FAILED = "REFINER_FAILED"
    NO_TIME_TO_REFINE = "NO_TIME_TO_REFINE"
    REFINER_UNAVAILABLE = "REFINER_UNAVAILABLE"
    TRUNCATED = "TRUNCATED"
    LIMITER_DOWN = "LIMITER_DOWN"
    LIMITER_STORE_DOWN = "LIMITER_STORE_DOWN"
    ANALYSIS_FAILED = "ANALYSIS_FAILED"
    NOTHING_EXTRACTED = "NOTHING_EXTRACTED"
    MAX_COST_REACHED = "MAX_COST_REACHED"
    LAYER_FAILED = "LAYER_FAILED"
    BELOW_THRESHOLD = "BELOW_THRESHOLD"


@dataclass(frozen=True, slots=True, kw_only=True)
class VoteCount:
    """One extracted answer and who gave it."""

    value: str
    """As extracted and normalised."""
    weight: float
    """Sum of the weights of its voters."""
    candidate_ids: tuple[str, ...]
    """In the order of the panel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What judges or votes said of the candidates."""

    judges: tuple[str, ...] = ()
    """Models whose judgements counted."""
    ranking: tuple[str, ...] = ()
    """Candidate ids from best to worst."""
    scores: tuple[float, ...] = ()
    """One for each id of the ranking, 0 to 1; empty where judges only picked."""
    agreed: bool = True
    """Whether all passes and judges put the same candidate first."""
    chosen_positions: tuple[int, ...] = ()
    """For each judgement that counted, the position from 1 at which its choice was shown."""
    judge_also_proposed: bool = False
    length_correlation: float | None = None
    """Spearman's rank correlation of length with rank, -1 to 1; None below three candidates."""
    votes: tuple[VoteCount, ...] = ()
    """Most first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Which candidates the answer rests on, and how."""

    method: Method
    candidate_ids: tuple[str, ...]
    """Those used, in the order of the panel."""
    display_order: tuple[str, ...] = ()
    """The order in which the refiner saw them; empty where it saw none."""
    prompt_version: str = ""
    answer_model: str = ""
    verdict: Verdict | None = None
    """None where nobody judged."""
