"""What a run shall do: the panel, the strategy and its options, complete, with nothing left to a profile."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from services.models.conversation import Message, Sampling
from services.models.refinement import DEFAULT_CANDIDATE_BYTE_LIMIT, Writer

MOST_CALLS = 8
"""Most calls in one panel; more is refused, never clamped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One seat in the panel: a model of the catalogue and how it is asked."""

    member_id: str
    model: str
    samples: int = 1
    """How many answers the seat gives, each from a call of its own."""
    weight: float = 1.0
    """In the deterministic rule that picks an answer when the refiner cannot."""
    temperature: float | None = None
    max_output_tokens: int | None = None
    timeout_seconds: float | None = None
    """Longest time for one call; None takes the model's own."""
    persona: str = ""
    """Instructions put before the conversation for this seat alone."""

    def candidate_ids(self) -> tuple[str, ...]:
        """Return the names of the seat's calls: the member's id, with "/2", "/3", … for further samples."""
        return (self.member_id, *(f"{self.member_id}/{sample}" for sample in range(2, self.samples + 1)))


@dataclass(frozen=True, slots=True, kw_only=True)
class StrategyOptions:
    """What every strategy may be told; None takes the strategy's own default."""

    quorum: int | None = None
    """How many good answers are enough."""
    straggler_grace_seconds: float = 8.0
    """How long stragglers may still arrive after the quorum is met."""
    panel_share: float = 0.6
    """Share of the time left that the panel may spend."""
    refiner: Writer | None = None
    shuffle_seed: int | None = None
    candidate_byte_limit: int = DEFAULT_CANDIDATE_BYTE_LIMIT
    parameters: Mapping[str, object] = field(default_factory=dict)
    """Options that one strategy alone understands."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPlan:
    """One run."""

    run_id: str
    messages: tuple[Message, ...]
    strategy: str
    members: tuple[Member, ...]
    tenant: str = ""
    options: StrategyOptions = StrategyOptions()
    sampling: Sampling = Sampling()
    include_candidates: bool = False
