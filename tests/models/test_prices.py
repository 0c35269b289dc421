"""From tokens to money."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.models.prices import Price, cost_of
from services.models.usage import CostSource, Usage

usd = st.integers(0, 10**9).map(lambda pico: pico / 10**6)
prices = st.builds(Price, input_usd_per_million=usd, output_usd_per_million=usd, cached_input_usd_per_million=st.none() | usd)
tokens = st.integers(0, 10**7)


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    """Usages that a provider may state: cached tokens are among those of the prompt."""
    sent = draw(tokens)
    return Usage(input_tokens=sent, cached_input_tokens=draw(st.integers(0, sent)), output_tokens=draw(tokens))


def micro_usd(usage: Usage, price: Price) -> int:
    """Return the cost by the price table."""
    return cost_of(usage, price, None).micro_usd


@pytest.mark.parametrize(
    ("usage", "price", "expected"),
    [
        (Usage(input_tokens=1_000_000), Price(input_usd_per_million=3.0, output_usd_per_million=15.0), 3_000_000),
        (Usage(output_tokens=2), Price(input_usd_per_million=3.0, output_usd_per_million=15.0), 30),
        (Usage(input_tokens=1), Price(input_usd_per_million=0.15, output_usd_per_million=0.6), 1),
        (Usage(input_tokens=10, output_tokens=10), Price(input_usd_per_million=0.1, output_usd_per_million=0.2), 3),
        (Usage(input_tokens=30), Price(input_usd_per_million=0.1, output_usd_per_million=0.0), 3),
        (Usage(input_tokens=10, cached_input_tokens=4), Price(input_usd_per_million=1, output_usd_per_million=1, cached_input_usd_per_million=0.25), 7),
        (Usage(input_tokens=10, cached_input_tokens=4), Price(input_usd_per_million=1, output_usd_per_million=1), 10),
        (Usage(input_tokens=10, cached_input_tokens=4), Price(input_usd_per_million=1, output_usd_per_million=1, cached_input_usd_per_million=0.0), 6),
        (Usage(input_tokens=100, output_tokens=100), Price(input_usd_per_million=0.0, output_usd_per_million=0.0), 0),
        (Usage(input_tokens=10**15), Price(input_usd_per_million=99999.999999, output_usd_per_million=0.0), 99999999999 * 10**9),
    ],
)
def test_a_price_per_million_is_micro_usd_per_token(usage: Usage, price: Price, expected: int) -> None:
    """Tokens times price, exactly, rounded up once; cached tokens have a price of their own where one is known."""
    cost = cost_of(usage, price, None)
    assert (cost.micro_usd, cost.source) == (expected, CostSource.PRICE_TABLE)


@given(usages(), prices)
def test_the_cost_is_the_exact_one_rounded_up(usage: Usage, price: Price) -> None:
    """Reckoned in decimals, the cost lies within one micro-USD above the exact one."""
    cached = price.input_usd_per_million if price.cached_input_usd_per_million is None else price.cached_input_usd_per_million
    exact = (
        (usage.input_tokens - usage.cached_input_tokens) * Decimal(str(price.input_usd_per_million))
        + usage.cached_input_tokens * Decimal(str(cached))
        + usage.output_tokens * Decimal(str(price.output_usd_per_million))
    )
    assert 0 <= micro_usd(usage, price) - exact < 1


@given(usages(), usages(), prices)
def test_costs_add_up_but_for_the_rounding(one: Usage, other: Usage, price: Price) -> None:
    """Two calls cost what one call with the tokens of both costs, or one micro-USD more."""
    assert 0 <= micro_usd(one, price) + micro_usd(other, price) - micro_usd(one + other, price) <= 1


@given(usages(), usages(), prices)
def test_more_tokens_never_cost_less(usage: Usage, more: Usage, price: Price) -> None:
    """The cost grows with the tokens."""
    assert micro_usd(usage + more, price) >= micro_usd(usage, price)


@given(usages(), usages().map(lambda more: Usage(input_tokens=more.input_tokens)), prices)
def test_tokens_from_the_cache_never_cost_more(usage: Usage, more: Usage, price: Price) -> None:
    """Where the cache is cheaper, a prompt with more cached tokens is not dearer."""
    uncached = Usage(input_tokens=usage.input_tokens + more.input_tokens, output_tokens=usage.output_tokens)
    cached = Usage(input_tokens=uncached.input_tokens, cached_input_tokens=usage.cached_input_tokens, output_tokens=uncached.output_tokens)
    if price.cached_input_usd_per_million is None or price.cached_input_usd_per_million <= price.input_usd_per_million:
        assert micro_usd(cached, price) <= micro_usd(uncached, price)


@given(
    st.builds(Usage, input_tokens=st.integers(), cached_input_tokens=st.integers(), output_tokens=st.integers()), st.none() | prices, st.none() | st.integers()
)
def test_no_cost_is_negative(usage: Usage, price: Price | None, stated: int | None) -> None:
    """Whatever a provider states, nobody is paid for asking; more cached tokens than the prompt has are not believed."""
    assert cost_of(usage, price, stated).micro_usd >= 0


def test_more_cached_tokens_than_the_prompt_has_are_cut() -> None:
    """A prompt cannot be cached more than wholly."""
    price = Price(input_usd_per_million=2.0, output_usd_per_million=0.0, cached_input_usd_per_million=1.0)
    assert micro_usd(Usage(input_tokens=10, cached_input_tokens=99), price) == 10


def test_what_the_provider_states_wins() -> None:
    """A stated cost, zero too, stands over the table and over estimated tokens."""
    price = Price(input_usd_per_million=3.0, output_usd_per_million=15.0)
    for stated in (0, 7):
        cost = cost_of(Usage(input_tokens=1000, estimated=True), price, stated)
        assert (cost.micro_usd, cost.source) == (stated, CostSource.PROVIDER)


def test_a_negative_statement_counts_as_not_made() -> None:
    """A cost below zero falls back to the price table."""
    cost = cost_of(Usage(input_tokens=2), Price(input_usd_per_million=3.0, output_usd_per_million=15.0), -1)
    assert (cost.micro_usd, cost.source) == (6, CostSource.PRICE_TABLE)


def test_without_a_price_nothing_is_known() -> None:
    """An unknown price is not a price of zero: the source says that there is none."""
    cost = cost_of(Usage(input_tokens=1000), None, None)
    assert (cost.micro_usd, cost.source) == (0, CostSource.NONE)


def test_estimated_tokens_make_an_estimated_cost() -> None:
    """The cost is no more certain than the tokens it rests on."""
    price = Price(input_usd_per_million=3.0, output_usd_per_million=15.0)
    assert cost_of(Usage(input_tokens=1000, estimated=True), price, None).source is CostSource.ESTIMATE
