"""Tokens and money, each with its source."""

from dataclasses import dataclass
from enum import IntEnum


class CostSource(IntEnum):
    """Where a figure in micro-USD comes from; a greater value is a less certain source."""

    NONE = 0
    PROVIDER = 1
    PRICE_TABLE = 2
    ESTIMATE = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens that one or more calls used."""

    input_tokens: int = 0
    """Tokens of the prompt, cached ones included."""
    cached_input_tokens: int = 0
    """Those of input_tokens that the provider read from its cache."""
    output_tokens: int = 0
    """Tokens of the answer, reasoning included."""
    estimated: bool = False
    """True where at least one count is an estimate."""

    def __add__(self, other: "Usage") -> "Usage":
        """Return the sum, flagged as estimated where either part is."""
        return Usage(
            input_tokens=self.input_tokens + other.input_tokens,
            cached_input_tokens=self.cached_input_tokens + other.cached_input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            estimated=self.estimated or other.estimated,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Money that one or more calls cost."""

    micro_usd: int = 0
    """Millionths of a US dollar."""
    source: CostSource = CostSource.NONE

    def __add__(self, other: "Cost") -> "Cost":
        """Return the sum with the less certain of the two sources."""
        return Cost(micro_usd=self.micro_usd + other.micro_usd, source=max(self.source, other.source))
