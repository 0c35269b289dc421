"""What a run shall do: the panel, the strategy and its options, complete, with nothing left to a profile."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from services.models.conversation import Message, Sampling
from services.models.refinement import DEFAULT_CANDIDATE_BYTE_LIMIT, Writer
from services.models.retry_policy import RetryPolicy

MOST_CALLS = 8
"""Most calls in one panel; more is refused, never clamped."""

OWN_SAMPLES = frozenset({"self_moa"})
"""Strategies that decide themselves how often their member is asked; what depends on the number of calls is theirs to check."""

JUDGES = "judges"
"""The one parameter of strategies that names models; whoever restricts which models are called goes by it."""


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
        """Return the names of the seat's calls: the member's id, with "/2", "/3", … for further samples, of which no more are named than show too many."""
        return (self.member_id, *(f"{self.member_id}/{sample}" for sample in range(2, min(self.samples, MOST_CALLS + 1) + 1)))


@dataclass(frozen=True, slots=True, kw_only=True)
class HedgePolicy:
    """When a second call for the same answer is started while the first is still under way."""

    delay_seconds: float = 2.0
    """How long a call may take before it is hedged."""
    percentile: float | None = None
    """Instead of the delay: the percentage of the model's recent calls that were faster, once there are enough of them."""
    most: int | None = None
    """Most hedges in one run; None takes the strategy's own."""


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
    hedge: HedgePolicy | None = None
    """None hedges nothing, but for the strategy whose point it is."""
    retry: RetryPolicy = RetryPolicy()
    early_stop_agreement: float | None = None
    """The panel ends once its quorum is met and its answers agree this far, above 0 to 1."""
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
    max_cost_micro_usd: int | None = None
    """Most that the run may cost, in micro-USD; None for no bound."""
    response_schema: str = ""
    """JSON Schema that the answer must satisfy, as JSON text; empty for none."""
