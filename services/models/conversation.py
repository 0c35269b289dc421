"""What a model is asked: the turns of a conversation and how the answer is sampled."""

from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    """Who said a message; the values are the words of the OpenAI wire format."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One turn of a conversation; its text is never altered."""

    role: Role
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How an answer is sampled; what is None is not sent, so the provider's own default holds."""

    temperature: float | None = None
    """Without unit, 0 to 2."""
    top_p: float | None = None
    """Without unit, above 0 and at most 1."""
    max_output_tokens: int | None = None
    """Longest answer in tokens, at least 1."""
    stop: tuple[str, ...] = ()
    """Texts that end the answer; at most 4."""
    seed: int | None = None
    """For providers that can sample reproducibly."""
    response_schema: str = ""
    """JSON Schema that the answer shall satisfy, as JSON text; sent to models whose endpoint takes one."""

    def overlaid(self, other: "Sampling") -> "Sampling":
        """Return these parameters with every one that `other` sets put over them."""
        return Sampling(
            temperature=self.temperature if other.temperature is None else other.temperature,
            top_p=self.top_p if other.top_p is None else other.top_p,
            max_output_tokens=self.max_output_tokens if other.max_output_tokens is None else other.max_output_tokens,
            stop=other.stop or self.stop,
            seed=self.seed if other.seed is None else other.seed,
            response_schema=other.response_schema or self.response_schema,
        )
