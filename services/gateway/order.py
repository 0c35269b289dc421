"""A question that was checked and may be answered: the run that answers it, and what the gateway itself must know of it on the way there."""

from dataclasses import dataclass

from services.models.plan import RunPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One run that a caller wants."""

    plan: RunPlan
    request_id: str = ""
    """The caller's own id of the request; empty where he gave none, so that it has no repeats."""
    content: bytes = b""
    """SHA-256 of everything that was asked but the request's id: equal exactly where the same was asked; empty where there is no id."""
    profile: str = ""
    """Name of the profile whose runs this one is like; empty where the request has a panel, strategy, options or sampling of its own."""
    check_deadline: bool = True
    """Whether the run is refused where its deadline is shorter than what the profile's recent runs took."""
    cache_seconds: float | None = None
    """How old an answer to an equal request may be that is given instead of a run; None always runs."""
