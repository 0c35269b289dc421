"""What GetState must say when nobody calls any more: what it said at first (I5), with the levels and budgets that the history gives."""

from collections.abc import Iterator

from bench.history.checks import Ledgers
from bench.history.limits import Violation
from ensemble.v1 import limiter_service_pb2, model_state_pb2

RATES = {"requests_per_minute", "tokens_per_minute"}
"""They come back in their own time, which may be a minute; `levels` says how far they must have come."""
_PASSING = {"retries"}
"""What is left of it depends on kinds of attempts, which no audit tells."""

State = limiter_service_pb2.GetStateResponse


def fresh(before: State, after: State) -> Iterator[Violation]:
    """Compare a state after all ends and one window with the one before the first call."""
    then = dict(_scopes(before))
    for scope, levels in _scopes(after):
        for name, level in levels.items():
            if name not in RATES | _PASSING and level != then[scope].get(name):
                yield Violation("I5", f"{scope}/{name} is {level} after all, and was {then[scope].get(name)} at first")
    for model in after.models:
        breaker = model.breaker
        _, _, *counts = _breaker(model)
        if breaker.state != model_state_pb2.BREAKER_STATE_CLOSED or any(counts):
            name = model_state_pb2.BreakerState.Name(breaker.state)
            yield Violation("I5", f"model/{model.model}: breaker {name} with probes, calls, failures, slow {counts} after all")
        if model.HasField("provider_backoff"):
            yield Violation("I5", f"model/{model.model}: a provider's pause lasts on after all")


def levels(state: State, ledgers: Ledgers, asked: int, answered: int) -> Iterator[Violation]:
    """Compare levels and budgets with those of the history; the times, of the store's clock, are from before and after the state was told."""
    told_scopes = dict(_scopes(state))
    # The limiters may know more models than the history is about.
    for scope, rates in ledgers.rates.items():
        found = told_scopes.get(scope, {})
        for name, bucket in rates.buckets.items():
            least, most = bucket.left(asked), bucket.left(answered)
            if name not in found or not least <= found[name][1] <= most:
                yield Violation("I5", f"{scope}/{name}: {found.get(name)} (limit, left, effective), by the history {least} to {most} are left")
    for tenant in state.tenants:
        for budget in tenant.budgets:
            ledger = ledgers.budgets.get(tenant.tenant)
            if ledger is None or budget.period != "day":
                continue
            ledger.roll(asked)
            told = (budget.spent_micro_usd, budget.reserved_micro_usd, budget.unreconciled_micro_usd)
            if told != (ledger.spent, ledger.reserved, ledger.unreconciled):
                expected = (ledger.spent, ledger.reserved, ledger.unreconciled)
                yield Violation("I5", f"tenant/{tenant.tenant}/budget_per_day: spent, reserved, unreconciled {told}, by the history {expected}")


def unchanged(before: State, after: State) -> Iterator[Violation]:
    """I7: nothing but time lies between two states; levels may only have grown, up to their limits, and everything else is as it was."""
    then = dict(_scopes(before))
    for scope, found in _scopes(after):
        for name, (limit, left, effective) in found.items():
            was = then[scope][name]
            if left < was[1] or (name not in RATES | _PASSING and (limit, left, effective) != was):
                yield Violation("I7", f"{scope}/{name} is {(limit, left, effective)} after calls that were denied, and was {was}")
    for model, old in zip(after.models, before.models, strict=True):
        if _breaker(model) != _breaker(old):
            yield Violation("I7", f"model/{model.model}: the breaker changed by calls that were denied")
    for tenant, earlier in zip(after.tenants, before.tenants, strict=True):
        told = [(one.spent_micro_usd, one.reserved_micro_usd, one.unreconciled_micro_usd) for one in tenant.budgets]
        if told != [(one.spent_micro_usd, one.reserved_micro_usd, one.unreconciled_micro_usd) for one in earlier.budgets]:
            yield Violation("I7", f"tenant/{tenant.tenant}: its budgets changed by calls that were denied")


def _breaker(model: model_state_pb2.ModelState) -> tuple[int, ...]:
    """Return what time alone does not change, but for the window, of a breaker that is not open."""
    one = model.breaker
    return one.state, one.generation, one.probes, one.window_calls, one.window_failures, one.window_slow


def _scopes(state: State) -> Iterator[tuple[str, dict[str, tuple[int, int, int]]]]:
    """Give each scope's limits: the limit, what is left and what holds; and what is under way, as one more."""
    scopes = [(f"model/{one.model}", one.limits, one.in_flight) for one in state.models]
    scopes += [(f"tenant/{one.tenant}", one.limits, one.in_flight) for one in state.tenants]
    for scope, limits, in_flight in scopes:
        yield scope, {level.name: (level.limit, level.remaining, level.effective) for level in limits} | {"in_flight": (0, in_flight, 0)}
