"""Recent latencies: percentiles that hedging does not lower by itself."""

import random

from hypothesis import given
from hypothesis import strategies as st

from services.models.outcomes import Outcome
from services.models.receipt import CallReceipt
from services.orchestrator.recent_latencies import KEPT, LEAST, RecentLatencies


def _call(seconds: float | None, outcome: Outcome = Outcome.OK, model: str = "a") -> CallReceipt:
    return CallReceipt(candidate_id="c", member_id="m", model=model, outcome=outcome, latency_seconds=seconds)


@given(st.lists(st.floats(0.001, 100), min_size=LEAST, max_size=KEPT), st.floats(50, 99.9))
def test_a_percentile_is_a_latency_that_so_many_calls_kept(seconds: list[float], percent: float) -> None:
    """It is one of the latencies seen; at least that share of the calls were no slower, and fewer would be with a shorter one."""
    latencies = RecentLatencies()
    for one in seconds:
        latencies.record(_call(one))
    found = latencies.percentile("a", percent)
    assert found in seconds
    assert sum(one <= found for one in seconds) >= len(seconds) * percent / 100
    assert sum(one < found for one in seconds) < len(seconds) * percent / 100


def test_too_few_calls_say_nothing() -> None:
    """Below twenty calls there is no percentile; models do not share theirs."""
    latencies = RecentLatencies()
    for _ in range(LEAST - 1):
        latencies.record(_call(1.0))
    assert latencies.percentile("a", 50) is None
    latencies.record(_call(1.0))
    assert latencies.percentile("a", 50) == 1.0
    assert latencies.percentile("b", 50) is None


def test_old_calls_are_forgotten() -> None:
    """After as many calls as are kept, only they count."""
    latencies = RecentLatencies()
    for seconds in (100.0, 1.0):
        for _ in range(KEPT):
            latencies.record(_call(seconds))
    assert latencies.percentile("a", 99.9) == 1.0


def test_failures_and_early_cuts_say_nothing() -> None:
    """A failed call, a call that was never made, and one cut off sooner than most take are not counted; one cut off late is."""
    latencies = RecentLatencies()
    for _ in range(LEAST):
        latencies.record(_call(2.0))
    for receipt in (_call(9.0, Outcome.PROVIDER_FAILED), _call(None, Outcome.NOT_STARTED), _call(1.0, Outcome.HEDGE_LOST)):
        latencies.record(receipt)
    assert latencies.percentile("a", 99.9) == 2.0
    latencies.record(_call(7.0, Outcome.HEDGE_LOST))
    assert latencies.percentile("a", 99.9) == 7.0


def test_hedging_does_not_feed_on_itself() -> None:
    """Where each call slower than the percentile is replaced by a hedge, the share of hedged calls stays near what the percentile says."""
    numbers = random.Random(7)
    latencies = RecentLatencies()
    hedged = 0
    calls = 4000
    for _ in range(calls):
        latency, delay = numbers.lognormvariate(0, 0.5), latencies.percentile("a", 95)
        if delay is None or latency <= delay:
            latencies.record(_call(latency))
            continue
        hedged += 1
        other = numbers.lognormvariate(0, 0.5)
        first, second = (Outcome.OK, Outcome.HEDGE_LOST) if latency <= delay + other else (Outcome.HEDGE_LOST, Outcome.OK)
        end = min(latency, delay + other)
        latencies.record(_call(end, first))
        latencies.record(_call(end - delay, second))
    assert 0.02 < hedged / calls < 0.08
