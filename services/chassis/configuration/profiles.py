"""The section `profiles`: named ensembles that a request may ask for.

What an option means belongs to the strategies; a profile carries it. Here it is only held against the panel: a quorum that the panel cannot reach, or two
calls of one name, would fail every request.
"""

import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Annotated

from pydantic import AfterValidator, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from services.chassis.configuration.durations import CallSeconds, GraceSeconds, HedgeSeconds
from services.chassis.configuration.gateway_stores import ProfileCacheSection
from services.chassis.configuration.models import OutputTokens, Share
from services.chassis.configuration.parameters import Parameters, plain_parameters
from services.chassis.configuration.section import Listed, Section, nothing
from services.chassis.configuration.surroundings import known_model, known_strategy, taken_by_strategy

MOST_CALLS = 8
"""Most calls in one panel."""
MOST_PERSONA_BYTES = 16 << 10
REFINING = frozenset({"best_of_n", "fusion", "moa", "rank_then_fuse", "self_moa"})
"""Strategies that cannot do without a refiner; of others it depends on their parameters."""

_MEMBER_ID = re.compile(r"[a-zA-Z0-9_.#-]{1,64}")
_CONTROL = re.compile(r"[^\t\n\r\x20-\x7e\xa0-\ud7ff\ue000-\U0010ffff]")


def _member_id(name: str) -> str:
    if _MEMBER_ID.fullmatch(name) is None:
        raise PydanticCustomError("member_id", 'must be 1 to 64 of a-z, A-Z, 0-9, "-", "_", "." and "#"')
    return name


def _clean(text: str) -> str:
    if _CONTROL.search(text):
        raise PydanticCustomError("control_character", "must not hold broken Unicode, nor control characters other than tab, newline and carriage return")
    return text


def _persona(text: str) -> str:
    if len(text.encode("utf-8", "replace")) > MOST_PERSONA_BYTES:
        raise PydanticCustomError("too_many_bytes", "must be at most {most} bytes of UTF-8", {"most": MOST_PERSONA_BYTES})
    return text


ModelName = Annotated[str, AfterValidator(known_model)]
Temperature = Annotated[float, Field(ge=0, le=2)]
Seed = Annotated[int, Field(ge=-(1 << 63), lt=1 << 63)]
Attempts = Annotated[int, Field(ge=1, le=5)]


class MemberSection(Section):
    """One seat in the panel; what is None is the model's own, or the request's."""

    model: ModelName
    id: Annotated[str, AfterValidator(_member_id)] | None = None
    """Name of the seat; None takes the model's name, with "#2", "#3", … for its second, third, … seat."""
    samples: Annotated[int, Field(ge=1, le=MOST_CALLS)] = 1
    """How many answers the seat gives, each from a call of its own."""
    weight: Annotated[float, Field(gt=0, le=100)] = 1.0
    """In the rule that picks an answer when the refiner cannot."""
    temperature: Temperature | None = None
    max_output_tokens: OutputTokens | None = None
    timeout_seconds: CallSeconds | None = Field(default=None, alias="timeout")
    persona: Annotated[str, AfterValidator(_clean), AfterValidator(_persona)] = ""
    """Instructions put before the conversation for this seat alone."""


class RefinerMemberSection(Section):
    """The model that makes one answer of the candidates."""

    model: ModelName
    temperature: Temperature | None = None
    max_output_tokens: OutputTokens | None = None
    timeout_seconds: CallSeconds | None = Field(default=None, alias="timeout")


class GenerationSection(Section):
    """How answers are sampled; what is None is not sent."""

    temperature: Temperature | None = None
    top_p: Share | None = None
    max_output_tokens: OutputTokens | None = None
    stop: Annotated[Listed[Annotated[str, Field(min_length=1, max_length=256), AfterValidator(_clean)]], Field(max_length=4)] = ()
    """Texts that end an answer."""
    seed: Seed | None = None


class HedgeSection(Section):
    """When a second call for the same answer is started while the first is still under way."""

    delay_seconds: HedgeSeconds | None = Field(default=None, alias="delay")
    """How long a call may take before it is hedged; None takes 2 s."""
    percentile: Annotated[float, Field(ge=50, le=99.9)] | None = None
    """Instead of the delay: the percentage of the model's recent calls that were faster, once there are enough of them."""
    most: Annotated[int, Field(ge=0, le=64)] | None = Field(default=None, alias="max")
    """Most hedges in one run; None takes the strategy's own."""


class RetrySection(Section):
    """How many attempts at one answer there are, the first included; the others by what the attempt before ended with, and None takes max_attempts."""

    max_attempts: Attempts | None = None
    """Most of them in any case; None takes 2."""
    rate_limited: Attempts | None = None
    """Where the provider said that its limit is reached."""
    failed: Attempts | None = None
    """Where the provider or the connection to it failed."""
    timed_out: Attempts | None = None
    """Where no first token came in time."""


class ProfileSection(Section):
    """One named ensemble."""

    description: Annotated[str, Field(max_length=1024), AfterValidator(_clean)] = ""
    """For those who choose among profiles."""
    strategy: Annotated[str, Field(min_length=1, max_length=128), AfterValidator(known_strategy)]
    members: Annotated[Listed[MemberSection], Field(min_length=1, max_length=MOST_CALLS)]
    """The panel, in order of preference."""
    refiner: Annotated[RefinerMemberSection | None, Field(validate_default=True)] = None
    quorum: Annotated[int, Field(ge=1, le=MOST_CALLS)] | None = None
    """How many good answers are enough; None takes the strategy's own rule."""
    straggler_grace_seconds: GraceSeconds | None = Field(default=None, alias="straggler_grace")
    """How long stragglers may still arrive after the quorum is met."""
    panel_share: Share | None = None
    """Share of the time left that the panel may spend."""
    candidate_byte_limit: Annotated[int, Field(ge=256, le=1 << 20)] | None = None
    """Longest part of one candidate shown to the refiner, in bytes of UTF-8."""
    shuffle_seed: Seed | None = None
    """Of the order in which the refiner sees the candidates; None derives it from each request's id."""
    hedge: HedgeSection | None = None
    """None hedges nothing, but for the strategy whose point it is."""
    retry: RetrySection | None = None
    """None retries once."""
    early_stop_agreement: Share | None = None
    """The panel ends once its quorum is met and its answers agree this far."""
    max_cost: Annotated[float, Field(gt=0, le=1_000_000)] | None = None
    """Most that a run may cost, in USD; None for no bound."""
    parameters: Parameters = Field(default_factory=nothing, validate_default=True)
    """Options that the strategy alone understands."""
    generation: GenerationSection = Field(default_factory=GenerationSection)
    cache: ProfileCacheSection | None = None
    """None caches no answers; an answer that was sampled once then serves all who ask the same."""

    @field_validator("members")
    @classmethod
    def _a_panel(cls, members: tuple[MemberSection, ...]) -> tuple[MemberSection, ...]:
        calls = sum(member.samples for member in members)
        if calls > MOST_CALLS:
            raise PydanticCustomError("too_many_calls", "make {calls} calls in all; at most {most} are possible", {"calls": calls, "most": MOST_CALLS})
        seen: set[str] = set()
        for member_id in _ids(members):
            if member_id in seen:
                raise PydanticCustomError("member_id", 'have the id "{id}" more than once', {"id": member_id})
            seen.add(member_id)
        return members

    @field_validator("refiner")
    @classmethod
    def _a_refiner_where_one_is_needed(cls, refiner: RefinerMemberSection | None, info: ValidationInfo) -> RefinerMemberSection | None:
        strategy = info.data.get("strategy")
        if refiner is None and strategy in REFINING:
            raise PydanticCustomError("refiner", "is required by the strategy {strategy}", {"strategy": strategy})
        return refiner

    @field_validator("parameters")
    @classmethod
    def _of_the_strategy(cls, parameters: Mapping[str, object], info: ValidationInfo) -> Mapping[str, object]:
        taken_by_strategy(info.data.get("strategy"), plain_parameters(parameters), info)
        return parameters

    @property
    def max_cost_micro_usd(self) -> int | None:
        """The bound on the cost in micro-USD, rounded down but never to nothing."""
        return None if self.max_cost is None else max(1, int(Decimal(repr(self.max_cost)) * 1_000_000))

    @field_validator("quorum")
    @classmethod
    def _reachable(cls, quorum: int | None, info: ValidationInfo) -> int | None:
        calls = sum(member.samples for member in info.data.get("members", ()))
        # How often self_moa asks its member stands in its parameters, if anywhere.
        if quorum is not None and 0 < calls < quorum and info.data.get("strategy") != "self_moa":
            raise PydanticCustomError("quorum", "must be at most the number of calls in the panel, which is {calls}", {"calls": calls})
        return quorum


def _ids(members: tuple[MemberSection, ...]) -> Iterator[str]:
    """Yield the name of each seat, by the rule that `MemberSection.id` tells."""
    seats: dict[str, int] = {}
    for member in members:
        seat = seats[member.model] = seats.get(member.model, 0) + 1
        yield member.id or (member.model if seat == 1 else f"{member.model}#{seat}")
