"""The history checker's look at GetState: what must be as it was, and what must be as the history says."""

import pytest
from google.protobuf.duration_pb2 import Duration

from bench.history.audit import Entry, Op
from bench.history.checks import Ledgers, violations
from bench.history.limits import Limits, Scope
from bench.history.states import State, fresh, levels, unchanged
from ensemble.v1 import model_state_pb2

SECOND = 1_000_000
NOON = 20_000 * 86_400 * SECOND + 43_200 * SECOND
LIMITS = Limits(models={"m": Scope(concurrency=4, requests_per_minute=60, request_burst=10)}, tenants={"t": Scope(budget_per_day=100)})


def state() -> State:
    """Return what a limiter says that nobody has called."""
    limits = [
        model_state_pb2.LimitLevel(name="requests_per_minute", limit=60, remaining=10, effective=60),
        model_state_pb2.LimitLevel(name="concurrency", limit=4, remaining=4, effective=4),
        model_state_pb2.LimitLevel(name="retries", limit=10, remaining=10, effective=10),
    ]
    breaker = model_state_pb2.BreakerSnapshot(state=model_state_pb2.BREAKER_STATE_CLOSED)
    budget = model_state_pb2.BudgetLevel(period="day", limit_micro_usd=100)
    return State(
        models=[model_state_pb2.ModelState(model="m", limits=limits, breaker=breaker)], tenants=[model_state_pb2.TenantState(tenant="t", budgets=[budget])]
    )


def test_rates_and_what_was_counted_may_differ() -> None:
    """A bucket that still fills, retries, generation, openings and money are no leftovers (I5)."""
    after = state()
    after.models[0].limits[0].remaining = 3
    after.models[0].limits[2].remaining = 3
    after.models[0].breaker.generation = 7
    after.models[0].breaker.open_count = 2
    after.tenants[0].budgets[0].spent_micro_usd = 5
    assert list(fresh(state(), after)) == []


@pytest.mark.parametrize("left_over", ["in_flight", "remaining", "effective", "tenant", "breaker", "probes", "window_calls", "backoff"])
def test_what_is_left_over_is_found(left_over: str) -> None:
    """A place, a lower limit, a breaker that is not closed, a call in its window, a pause (I5)."""
    after = state()
    model = after.models[0]
    if left_over == "in_flight":
        model.in_flight = 1
    elif left_over == "tenant":
        after.tenants[0].in_flight = 1
    elif left_over == "breaker":
        model.breaker.state = model_state_pb2.BREAKER_STATE_HALF_OPEN
    elif left_over == "backoff":
        model.provider_backoff.CopyFrom(Duration(seconds=1))
    elif left_over in {"probes", "window_calls"}:
        setattr(model.breaker, left_over, 1)
    else:
        setattr(model.limits[1], left_over, 3)
    assert [violation.invariant for violation in fresh(state(), after)] == ["I5"]


def ledgers() -> Ledgers:
    """Return the ledgers of a history: three requests at noon, one is never reported, one in time and one late."""
    costs = {"crashed": 40, "reported": 0, "late": 20}
    grants = [Entry(at=NOON, op=Op.GRANT, permit=name, model="m", tenant="t", cost=cost, lease_end=NOON + SECOND) for name, cost in costs.items()]
    settle = Entry(at=NOON, op=Op.SETTLE, permit="reported", charged=4)
    found, result = violations([*grants, settle, Entry(at=NOON + SECOND, op=Op.LATE, permit="late", charged=3)], LIMITS, NOON + SECOND)
    assert not found
    return result


def test_levels_are_those_of_the_history() -> None:
    """Between what was left before the state was told and after; the budget to the micro-USD (I5)."""
    told = state()
    told.models[0].limits[0].remaining = 8
    told.tenants[0].budgets[0].spent_micro_usd = 47
    told.tenants[0].budgets[0].unreconciled_micro_usd = 40
    assert list(levels(told, ledgers(), NOON + SECOND, NOON + SECOND)) == []
    for asked, answered, count in ((1, 2, 0), (0.5, 1, 0), (0.2, 0.9, 1), (2, 3, 1)):
        assert len(list(levels(told, ledgers(), NOON + round(asked * SECOND), NOON + round(answered * SECOND)))) == count
    told.tenants[0].budgets[0].reserved_micro_usd = 1
    assert [violation.invariant for violation in levels(told, ledgers(), NOON + SECOND, NOON + SECOND)] == ["I5"]


def test_a_denied_call_that_leaves_a_trace_is_found() -> None:
    """Rates may have grown; everything else is as it was (I7)."""
    grown = state()
    grown.models[0].limits[0].remaining = 11
    assert list(unchanged(state(), grown)) == []
    less, held, counted, reserved = state(), state(), state(), state()
    less.models[0].limits[0].remaining = 9
    held.models[0].in_flight = 1
    counted.models[0].breaker.window_calls = 1
    reserved.tenants[0].budgets[0].reserved_micro_usd = 1
    for after in (less, held, counted, reserved):
        assert {violation.invariant for violation in unchanged(state(), after)} == {"I7"}
