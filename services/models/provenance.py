"""How an answer came about, and why it may be less than was asked for."""

from dataclasses import dataclass
from enum import StrEnum


class Method(StrEnum):
    """The way from candidates to the answer. The names are those of `ensemble.v1.Method`."""

    SINGLE = "SINGLE"
    FUSED = "FUSED"
    SOLE_SURVIVOR = "SOLE_SURVIVOR"
    FALLBACK = "FALLBACK"


class Degradation(StrEnum):
    """Why an answer is less than was asked for. The names are those of `ensemble.v1.Degradation`."""

    SOLE_SURVIVOR = "SOLE_SURVIVOR"
    REFINER_FAILED = "REFINER_FAILED"
    NO_TIME_TO_REFINE = "NO_TIME_TO_REFINE"
    REFINER_UNAVAILABLE = "REFINER_UNAVAILABLE"
    TRUNCATED = "TRUNCATED"
    LIMITER_DOWN = "LIMITER_DOWN"
    LIMITER_STORE_DOWN = "LIMITER_STORE_DOWN"


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
