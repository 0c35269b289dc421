"""Receipts: sums, order, and the time that no call covers."""

from hypothesis import given
from hypothesis import strategies as st

from services.models.outcomes import Outcome
from services.models.receipt import CallReceipt, idle_seconds, in_order, totals
from services.models.usage import Cost, CostSource, Usage

counts = st.integers(0, 10**6)
usages = st.builds(Usage, input_tokens=counts, cached_input_tokens=counts, output_tokens=counts, estimated=st.booleans())
costs = st.builds(Cost, micro_usd=counts, source=st.sampled_from(CostSource))
starts = st.one_of(st.none(), st.integers(0, 100).map(float))


@st.composite
def receipts(draw: st.DrawFn) -> CallReceipt:
    """Return a call that was made or not."""
    start = draw(starts)
    return CallReceipt(
        candidate_id="c",
        member_id="m",
        model="m",
        outcome=Outcome.OK,
        started_after_seconds=start,
        latency_seconds=None if start is None else float(draw(st.integers(0, 50))),
        usage=draw(usages),
        cost=draw(costs),
    )


@given(st.lists(receipts(), max_size=8))
def test_totals_are_the_sums_of_their_parts(calls: list[CallReceipt]) -> None:
    """Tokens and money add up; one estimate makes the sum an estimate; the source is the least certain one."""
    usage, cost = totals(calls)
    assert usage.input_tokens == sum(call.usage.input_tokens for call in calls)
    assert usage.cached_input_tokens == sum(call.usage.cached_input_tokens for call in calls)
    assert usage.output_tokens == sum(call.usage.output_tokens for call in calls)
    assert usage.estimated == any(call.usage.estimated for call in calls)
    assert cost.micro_usd == sum(call.cost.micro_usd for call in calls)
    assert cost.source == max((call.cost.source for call in calls), default=CostSource.NONE)


@given(st.lists(receipts(), max_size=8))
def test_calls_stand_in_the_order_they_were_begun(calls: list[CallReceipt]) -> None:
    """Begun calls come first, by their start; the others keep their order behind them."""
    ordered = in_order(calls)
    begun = [call.started_after_seconds for call in ordered if call.started_after_seconds is not None]
    assert begun == sorted(begun)
    assert all(call.started_after_seconds is None for call in ordered[len(begun) :])
    assert len(ordered) == len(calls)


@given(st.lists(receipts(), max_size=8), st.integers(0, 200))
def test_idle_time_is_what_no_call_covers(calls: list[CallReceipt], latency: int) -> None:
    """Counting second by second which are covered by any call gives the same."""
    covered = {
        second
        for call in calls
        if call.started_after_seconds is not None and call.latency_seconds is not None
        for second in range(int(call.started_after_seconds), int(call.started_after_seconds + call.latency_seconds))
    }
    assert idle_seconds(calls, float(latency)) == len(set(range(latency)) - covered)


@given(receipts(), st.integers(0, 100))
def test_shifting_moves_the_start_alone(call: CallReceipt, seconds: int) -> None:
    """A record counted from a later origin moves by the difference; one that was never begun stays."""
    shifted = call.shifted(float(seconds))
    assert shifted.latency_seconds == call.latency_seconds
    if call.started_after_seconds is None:
        assert shifted is call
    else:
        assert shifted.started_after_seconds == call.started_after_seconds + seconds
