"""What a caller asks, as it arrived, and the limits of each of its fields.

The classes are plain data with pydantic's constraints beside the types: the servicer fills them with whatever came, `services.gateway.validation` holds them
against the constraints. A text field that is empty was not set, and a number that is None was not set, as in proto3.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from pydantic import AfterValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from services.gateway.text_rules import clean_text, sized_text, utf8_length
from services.models.conversation import Role
from services.models.plan import MOST_CALLS
from services.models.refinement import MOST_SCHEMA_BYTES
from services.models.retry_policy import MOST_ATTEMPTS

MOST_MESSAGES = 256
MOST_MESSAGE_BYTES = 1 << 20
MOST_CONVERSATION_BYTES = 2 << 20
MOST_PARAMETER_BYTES = 64 << 10
"""Of `StrategyOptions.parameters` in protobuf's encoding."""
MOST_COST_MICRO_USD = 10**12
MOST_HEDGES = 64
MOST_STOPS = 4
MOST_LABELS = 16
_ROLES = frozenset(Role)
LABEL_NAME = re.compile(r"[a-z0-9_-]{1,64}")

_CHECKED = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, revalidate_instances="always", hide_input_in_errors=True)


def _matches(pattern: re.Pattern[str], words: str) -> AfterValidator:
    def rule(text: str) -> str:
        if text and pattern.fullmatch(text) is None:
            raise PydanticCustomError("characters", "must be {words}", {"words": words})
        return text

    return AfterValidator(rule)


def _known_role(role: str) -> str:
    if role not in _ROLES:
        raise PydanticCustomError("role", "must be ROLE_SYSTEM, ROLE_USER or ROLE_ASSISTANT")
    return role


def _known_parameters(parameters: Mapping[str, object] | None) -> Mapping[str, object] | None:
    if parameters is None:
        raise PydanticCustomError("too_many_bytes", "is larger than {most} bytes", {"most": MOST_PARAMETER_BYTES})
    if not _finite(parameters):
        raise PydanticCustomError("finite_numbers", "must hold finite numbers only")
    return parameters


def _finite(value: object) -> bool:
    if isinstance(value, Mapping):
        return all(map(_finite, value.values()))
    if isinstance(value, list):
        return all(map(_finite, value))
    return not isinstance(value, float) or math.isfinite(value)


def _known_schema(text: str) -> str:
    # A character takes at least one byte, so a text with too many characters need not be encoded to be refused.
    if len(text) > MOST_SCHEMA_BYTES or utf8_length(text) > MOST_SCHEMA_BYTES:
        raise PydanticCustomError("too_many_bytes", "is larger than {most} bytes", {"most": MOST_SCHEMA_BYTES})
    if text:
        # Few requests have one, and what checks it takes its time to load.
        from services.models.answer_schema import AnswerSchema  # noqa: PLC0415 - see above
        from services.models.schema_reach import BadSchema  # noqa: PLC0415 - see above

        try:
            AnswerSchema.parse(text)
        except BadSchema as refusal:
            raise PydanticCustomError("schema", "{words}", {"words": str(refusal)}) from None
    return text


def _seconds(rule: Callable[[float], bool], words: str) -> AfterValidator:
    def checked(seconds: float | None) -> float | None:
        if seconds is not None and math.isnan(seconds):
            raise PydanticCustomError("duration", "is not a well-formed duration")
        if seconds is not None and not rule(seconds):
            raise PydanticCustomError("duration", "must be {words}", {"words": words})
        return seconds

    return AfterValidator(checked)


OptionalName = Annotated[str, Field(max_length=128), AfterValidator(clean_text)]
Name = Annotated[str, Field(min_length=1, max_length=128), AfterValidator(clean_text)]
Temperature = Annotated[float | None, Field(ge=0, le=2)]
OutputTokens = Annotated[int | None, Field(ge=1, le=131_072)]
CallTimeout = Annotated[float | None, Field(allow_inf_nan=True), _seconds(lambda seconds: 0 < seconds <= 3600, "above 0 and at most 1 hour")]
HedgeDelay = Annotated[float | None, Field(allow_inf_nan=True), _seconds(lambda seconds: 0.001 <= seconds <= 600, "from 1 ms to 10 minutes")]
Attempts = Annotated[int | None, Field(ge=1, le=MOST_ATTEMPTS)]
Grace = Annotated[float | None, Field(allow_inf_nan=True), _seconds(lambda seconds: 0 <= seconds <= 600, "from 0 to 10 minutes")]


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedMessage:
    """One turn of the conversation."""

    __pydantic_config__: ClassVar[ConfigDict] = _CHECKED
    role: Annotated[str, AfterValidator(_known_role)] = Role.USER
    """A word of `Role`; empty where it is none."""
    text: Annotated[str, Field(min_length=1), AfterValidator(sized_text(MOST_MESSAGE_BYTES))]


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedMember:
    """One seat in the panel."""

    __pydantic_config__: ClassVar[ConfigDict] = _CHECKED
    id: Annotated[str, _matches(re.compile(r"[a-zA-Z0-9_.#-]{1,64}"), '1 to 64 characters of a-z, A-Z, 0-9, "-", "_", "." and "#"')] = ""
    model: Name
    samples: Annotated[int, Field(ge=1, le=MOST_CALLS)] = 1
    weight: Annotated[float, Field(gt=0, le=100)] = 1.0
    temperature: Temperature = None
    max_output_tokens: OutputTokens = None
    timeout: CallTimeout = None
    """Seconds; NaN where the duration was malformed."""
    persona: Annotated[str, AfterValidator(sized_text(16 << 10))] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedRefiner:
    """The model that writes the answer."""

    __pydantic_config__: ClassVar[ConfigDict] = _CHECKED
    model: Name
    temperature: Temperature = None
    max_output_tokens: OutputTokens = None
    timeout: CallTimeout = None
    """Seconds; NaN where the duration was malformed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedHedge:
    """When a second call for the same answer is started."""

    __pydantic_config__: ClassVar[ConfigDict] = _CHECKED
    delay: HedgeDelay = None
    """Seconds; NaN where the duration was malformed."""
    percentile: Annotated[float | None, Field(ge=50, le=99.9)] = None
    max: Annotated[int | None, Field(ge=0, le=MOST_HEDGES)] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedRetry:
    """When a failed call is made again."""

    __pydantic_config__: ClassVar[ConfigDict] = _CHECKED
    max_attempts: Attempts = None
    rate_limited: Attempts = None
    failed: Attempts = None
    timed_out: Attempts = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedOptions:
    """What the strategy may be told."""

    __pydantic_config__: ClassVar[ConfigDict] = _CHECKED
    quorum: Annotated[int | None, Field(ge=1)] = None
    straggler_grace: Grace = None
    """Seconds; NaN where the duration was malformed."""
    panel_share: Annotated[float | None, Field(gt=0, le=1)] = None
    refiner: AskedRefiner | None = None
    shuffle_seed: int | None = None
    candidate_byte_limit: Annotated[int | None, Field(ge=256, le=1 << 20)] = None
    parameters: Annotated[dict[str, object] | None, AfterValidator(_known_parameters)] = field(default_factory=dict)
    """Empty where none were given; None where they were too large to be read."""
    hedge: AskedHedge | None = None
    retry: AskedRetry | None = None
    early_stop_agreement: Annotated[float | None, Field(gt=0, le=1)] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedGeneration:
    """How answers are sampled."""

    __pydantic_config__: ClassVar[ConfigDict] = _CHECKED
    temperature: Temperature = None
    top_p: Annotated[float | None, Field(gt=0, le=1)] = None
    max_output_tokens: OutputTokens = None
    stop: Annotated[tuple[Annotated[str, Field(min_length=1, max_length=256), AfterValidator(clean_text)], ...], Field(max_length=MOST_STOPS)] = ()
    seed: int | None = None


NO_OPTIONS = AskedOptions()
NO_GENERATION = AskedGeneration()


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One request; its names are those of `ensemble.v1.GenerateRequest`, so that they make the paths of violations."""

    __pydantic_config__: ClassVar[ConfigDict] = _CHECKED
    request_id: Annotated[str, _matches(re.compile(r"[\x21-\x7e]{1,128}"), "1 to 128 visible ASCII characters")] = ""
    profile: OptionalName = ""
    prompt: Annotated[str, AfterValidator(sized_text(MOST_MESSAGE_BYTES))] = ""
    system: Annotated[str, AfterValidator(sized_text(MOST_MESSAGE_BYTES))] = ""
    messages: Annotated[tuple[AskedMessage, ...], Field(max_length=MOST_MESSAGES)] = ()
    strategy: OptionalName = ""
    options: AskedOptions = NO_OPTIONS
    members: Annotated[tuple[AskedMember, ...], Field(max_length=MOST_CALLS)] = ()
    generation: AskedGeneration = NO_GENERATION
    include_candidates: bool = False
    labels: Annotated[
        dict[
            Annotated[str, Field(min_length=1), _matches(LABEL_NAME, 'named with 1 to 64 characters of a-z, 0-9, "-" and "_"')],
            Annotated[str, Field(max_length=256), AfterValidator(clean_text)],
        ],
        Field(max_length=MOST_LABELS),
    ] = field(default_factory=dict)
    """For the caller's own use: in no log, span or metric."""
    max_cost_micro_usd: Annotated[int | None, Field(ge=1, le=MOST_COST_MICRO_USD)] = None
    response_schema: Annotated[str, AfterValidator(_known_schema)] = ""
    skip_deadline_check: bool = False
