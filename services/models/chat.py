"""The port to a provider: one chat completion in, one typed result out.

An adapter never raises for anything a provider does; `complete` returns a `ChatResult` or is cancelled.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from services.models.conversation import Message, Sampling
from services.models.outcomes import Outcome
from services.models.permits import CallResult
from services.models.usage import Usage

OnText = Callable[[str], None]
"""Called with each piece of text as it arrives; the pieces joined are the result's text."""


class StructuredOutput(StrEnum):
    """How an endpoint is told of the JSON Schema that an answer shall satisfy, beside the words of the prompt."""

    JSON_SCHEMA = "json_schema"
    """By the schema itself."""
    JSON_OBJECT = "json_object"
    """Only that the answer is JSON."""
    PROMPT = "prompt"
    """Not at all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """How long to wait for what, in seconds; all count content, so that keep-alive bytes do not reset them."""

    total: float
    """From sending the request to the end of the answer."""
    first_token: float
    """From sending the request to the first text."""
    idle: float
    """From one piece of content to the next."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRequest:
    """One chat completion."""

    provider_model: str
    """The model's name at the provider."""
    messages: tuple[Message, ...]
    sampling: Sampling
    timeouts: Timeouts
    byte_limit: int = 1 << 20
    """Longest answer kept, in bytes of UTF-8; a longer one is cut at a character and flagged truncated."""
    stream: bool = True
    """Ask for server-sent events; False for endpoints that cannot."""
    structured_output: StructuredOutput = StructuredOutput.JSON_SCHEMA
    """How the endpoint is told of `sampling.response_schema`, where there is one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatResult:
    """How a chat completion ended."""

    outcome: Outcome
    """OK, TIMEOUT, RATE_LIMITED, PROVIDER_REJECTED, PROVIDER_FAILED, PROVIDER_AUTH, EMPTY or CONTENT_FILTERED."""
    call_result: CallResult
    """The same in the limiter's terms: what the breaker and the back-off are told."""
    text: str = ""
    """The answer where the outcome is OK; otherwise what had arrived, for inspection only."""
    reason: str = ""
    """A short machine word for why, for example "http_503" or "stream_truncated"; never the provider's text."""
    truncated: bool = False
    finish_reason: str = ""
    usage: Usage | None = None
    """What the provider counted; None where it said nothing sane."""
    provider_cost_micro_usd: int | None = None
    """What the provider says it charged; None where it does not say."""
    response_id: str = ""
    response_model: str = ""
    latency_seconds: float = 0.0
    time_to_first_token_seconds: float | None = None
    retryable: bool = False
    """Whether the same request may succeed later."""
    retry_after_seconds: float | None = None
    """The longest honest wait the provider asked for; None where it named none."""
    rate_limit_headers: Mapping[str, str] = field(default_factory=dict)
    """What the provider says is left of its limits: the headers named in `rate_limit_headers.WANTED`, each at most 256 bytes."""


class ChatModel(Protocol):
    """A provider endpoint that can complete chats."""

    async def complete(self, request: ChatRequest, on_text: OnText | None = None) -> ChatResult:
        """Complete one chat; return how it ended, whatever the provider did. Raises only CancelledError, after the upstream connection is closed."""
        ...

    async def aclose(self) -> None:
        """Close pooled connections."""
        ...
