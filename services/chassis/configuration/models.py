"""The section `models`: the catalogue of what may be called, and within which limits."""

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator
from pydantic.functional_validators import AfterValidator
from pydantic_core import PydanticCustomError

from services.chassis.configuration.durations import CallSeconds, LongSeconds
from services.chassis.configuration.section import Section
from services.chassis.configuration.surroundings import known_provider

IDLE_SECONDS = 20.0

OutputTokens = Annotated[int, Field(ge=1, le=131_072)]
Usd = Annotated[float, Field(ge=0, le=100_000)]
Share = Annotated[float, Field(gt=0, le=1)]
Limit = Annotated[int, Field(ge=1, le=100_000_000)]
Count = Annotated[int, Field(ge=1, le=10_000)]


class PriceSection(Section):
    """What a model's tokens cost, in USD per million."""

    input: Usd
    """Tokens of the prompt."""
    output: Usd
    """Tokens of the answer, reasoning included."""
    cached_input: Usd | None = None
    """Tokens of the prompt that the provider read from its cache; None charges them as the others."""


class LimitsSection(Section):
    """What may be asked of a model; a rate that is None is not limited."""

    requests_per_minute: Limit | None = None
    tokens_per_minute: Limit | None = None
    """Of prompts and answers together."""
    concurrency: Count = 8
    """Calls at once; the connections to its provider are counted by it."""
    request_burst: Limit | None = None
    """Requests that may come at once after a quiet time; None is what ten seconds of the rate allow, at least 1."""
    adaptive_concurrency: bool = False
    """Lower the concurrency by a tenth when the provider throttles or fails, and raise it again by one with each success near the limit (AIMD)."""
    retry_share: Annotated[float, Field(ge=0, le=1)] = 0.2
    """Retries and hedges that may be made for each first attempt."""
    retries_per_minute: Limit = 10
    """Retries and hedges that may be made in any case, so that quiet models have some."""
    metrics_only: bool = False
    """Count what limits and breaker would have denied, and deny nothing."""


class BreakerSection(Section):
    """When a model's circuit breaker opens, and how it closes again."""

    failure_rate: Share = 0.5
    """Share of failed calls in the window that opens it."""
    slow_rate: Share = 0.8
    """Share of slow calls in the window that opens it."""
    slow_call_seconds: CallSeconds = Field(default=30.0, alias="slow_call")
    """A call that takes longer is slow."""
    minimum_calls: Count = 10
    """Calls in the window below which the rates say nothing."""
    consecutive_failures: Count = 5
    """Failures in a row that open it, however few calls there are."""
    bucket_seconds: LongSeconds = Field(default=10.0, alias="bucket")
    """Length of one bucket of the window; also the healthy time that forgets one opening."""
    buckets: Annotated[int, Field(ge=1, le=360)] = 12
    """Buckets in the window."""
    open_seconds: LongSeconds = Field(default=5.0, alias="open")
    """How long it stays open the first time; doubled with each further opening."""
    longest_open_seconds: LongSeconds = Field(default=300.0, alias="longest_open")
    """Where the doubling ends."""
    auth_open_seconds: LongSeconds = Field(default=300.0, alias="auth_open")
    """How long it stays open after the provider refused the credentials."""
    good_probes: Annotated[int, Field(ge=1, le=100)] = 2
    """Good probes that close it."""
    undecided_leases: Annotated[int, Field(ge=1, le=100)] = 3
    """Leases of probes that may end without a report before it opens again."""

    @field_validator("longest_open_seconds")
    @classmethod
    def _longest_covers_first(cls, longest: float, info: ValidationInfo) -> float:
        if longest < info.data.get("open_seconds", 0.0):
            raise PydanticCustomError("longest_open", "must not be shorter than open")
        return longest


def _timeout(data: dict[str, Any]) -> float:
    seconds: float = data["timeout_seconds"]
    return seconds


def _idle(data: dict[str, Any]) -> float:
    return min(IDLE_SECONDS, _timeout(data))


class ModelSection(Section):
    """One model of the catalogue."""

    provider: Annotated[str, AfterValidator(known_provider)]
    """Name of the provider that serves it."""
    name: Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[!-~]+$")]
    """Its name at the provider."""
    timeout_seconds: CallSeconds = Field(default=60.0, alias="timeout")
    """Longest time for one call."""
    first_token_timeout_seconds: CallSeconds = Field(default_factory=_timeout, alias="first_token_timeout")
    """Longest time to the first text; by default the timeout."""
    idle_timeout_seconds: CallSeconds = Field(default_factory=_idle, alias="idle_timeout")
    """Longest time from one piece of text to the next; by default 20 s, or the timeout where that is shorter."""
    max_output_tokens: OutputTokens = 1024
    """Cap on the answer where the request names none."""
    stream: bool = True
    """Ask for server-sent events; false for endpoints that cannot."""
    structured_output: Literal["json_schema", "json_object", "prompt"] = "json_schema"
    """How the endpoint is told of a JSON Schema that the answer shall satisfy: by the schema, that it is JSON at all, or in words of the prompt alone."""
    context_tokens: Annotated[int, Field(ge=256, le=100_000_000)] | None = None
    """Longest prompt and answer together; candidates are cut to it before they are refined. None does not cut them for it."""
    price: PriceSection | None = None
    """None where it is not known."""
    limits: LimitsSection = Field(default_factory=LimitsSection)
    breaker: BreakerSection = Field(default_factory=BreakerSection)

    @field_validator("first_token_timeout_seconds", "idle_timeout_seconds")
    @classmethod
    def _within_timeout(cls, seconds: float, info: ValidationInfo) -> float:
        if seconds > info.data.get("timeout_seconds", seconds):
            raise PydanticCustomError("timeout", "must not be longer than timeout")
        return seconds
