"""From tokens to money.

A price of one USD per million tokens is one micro-USD per token, so a cost in micro-USD is tokens times price. It is reckoned exactly, without any
rounding on the way, and rounded up to a whole micro-USD at the end: a receipt never says less than the price table does.
"""

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import cache

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
    rates = _rates(price)
    parts = (sent - cached) * rates.input + cached * rates.cached_input + max(0, usage.output_tokens) * rates.output
    return Cost(micro_usd=-(-parts // rates.parts), source=CostSource.ESTIMATE if usage.estimated else CostSource.PRICE_TABLE)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rates:
    """A price as whole parts of a micro-USD per token, so that each call is reckoned in integers."""

    input: int
    cached_input: int
    output: int
    parts: int
    """How many parts make one micro-USD."""


@cache
def _rates(price: Price) -> _Rates:
    cached = price.input_usd_per_million if price.cached_input_usd_per_million is None else price.cached_input_usd_per_million
    # 0.1 is meant as a tenth, not as the binary fraction next to it; the shortest text that reads back as the same float says what was written.
    exact = [Fraction(str(usd)) for usd in (price.input_usd_per_million, cached, price.output_usd_per_million)]
    parts = math.lcm(*(rate.denominator for rate in exact))
    whole = [int(rate * parts) for rate in exact]
    return _Rates(input=whole[0], cached_input=whole[1], output=whole[2], parts=parts)
