"""From tokens to money.

A price of one USD per million tokens is one micro-USD per token, so a cost in micro-USD is tokens times price. It is reckoned in fractions, without any
rounding on the way, and rounded up to a whole micro-USD at the end: a receipt never says less than the price table does.
"""

import math
from dataclasses import dataclass
from fractions import Fraction

from services.models.usage import Cost, CostSource, Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What a model's tokens cost, in USD per million; each number means the decimal it is written as."""

    input_usd_per_million: float
    """Tokens of the prompt."""
    output_usd_per_million: float
    """Tokens of the answer."""
    cached_input_usd_per_million: float | None = None
    """Tokens of the prompt that came from the provider's cache; None charges them as the others."""


def cost_of(usage: Usage, price: Price | None, provider_cost_micro_usd: int | None) -> Cost:
    """Return what the tokens cost: as the provider states it, else by the price table; nothing, from no source, where the price is not known either.

    The cost by price is an estimate where the usage is one. It is never negative: a count or statement below zero counts as not made.
    """
    if provider_cost_micro_usd is not None and provider_cost_micro_usd >= 0:
        return Cost(micro_usd=provider_cost_micro_usd, source=CostSource.PROVIDER)
    if price is None:
        return Cost(micro_usd=0, source=CostSource.NONE)
    sent = max(0, usage.input_tokens)
    cached = min(max(0, usage.cached_input_tokens), sent)
    cached_price = price.input_usd_per_million if price.cached_input_usd_per_million is None else price.cached_input_usd_per_million
    exact = (
        (sent - cached) * _exact(price.input_usd_per_million)
        + cached * _exact(cached_price)
        + max(0, usage.output_tokens) * _exact(price.output_usd_per_million)
    )
    return Cost(micro_usd=math.ceil(exact), source=CostSource.ESTIMATE if usage.estimated else CostSource.PRICE_TABLE)


def _exact(usd: float) -> Fraction:
    # 0.1 is meant as a tenth, not as the binary fraction next to it; the shortest text that reads back as the same float says what was written.
    return Fraction(str(usd))
