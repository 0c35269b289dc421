"""A run's own bound on its cost."""

from hypothesis import given
from hypothesis import strategies as st

from services.models.spending import Spending

AMOUNTS = st.integers(0, 50)


@given(st.integers(0, 200), st.lists(st.tuples(AMOUNTS, st.one_of(st.none(), st.floats(0, 1))), max_size=30))
def test_calls_that_cost_no_more_than_their_worst_never_exceed_the_bound(limit: int, calls: list[tuple[int, float | None]]) -> None:
    """Whatever is reserved, spent below its worst case or given back, the sum of both stays within the bound."""
    spending = Spending(limit)
    spent = reserved = 0
    for worst, share in calls:
        if not spending.reserve(worst):
            assert spent + reserved + worst > limit
            continue
        reserved += worst
        if share is None:
            spending.give_back(worst)
            reserved -= worst
        elif share < 0.9:
            spending.spend(int(worst * share), reserved=worst)
            reserved -= worst
            spent += int(worst * share)
        assert spent + reserved <= limit
        assert spending.remaining == limit - spent - reserved


def test_what_costs_more_than_its_worst_leaves_nothing() -> None:
    """A call whose estimate was too low may take the sum above the bound; then nothing is left, not less than nothing."""
    spending = Spending(10)
    assert spending.reserve(10)
    spending.spend(25, reserved=10)
    assert spending.remaining == 0
    assert not spending.reserve(1)


def test_without_a_bound_everything_fits() -> None:
    """No bound refuses nothing and has nothing left to tell."""
    spending = Spending(None)
    assert spending.reserve(10**12)
    assert spending.remaining is None
