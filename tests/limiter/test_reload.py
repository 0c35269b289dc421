"""Other limits while the limiter runs: what is kept, what is cut, and what becomes of permits whose model or tenant is gone."""

from dataclasses import replace
from typing import Any

import pytest

from services.chassis.errors import NotFound
from services.limiter.limits import BreakerRules, Limits, ModelLimits, PermitRules, TenantLimits
from services.models.permits import BreakerState, CallResult, DenialReason, PermitSpec, Settlement
from tests.support.driven_ledger import DrivenLedger

MODEL = ModelLimits(requests_per_minute=60, request_burst=10, tokens_per_minute=6000, concurrency=5, breaker=BreakerRules(consecutive_failures=2))
TENANT = TenantLimits(tokens_per_minute=6000, concurrency=5, budget_per_day=1000, budget_per_month=5000)


def _driven() -> DrivenLedger:
    return DrivenLedger({"m": MODEL, "n": ModelLimits()}, {"t": TENANT, "u": TenantLimits()})


def _follow(driven: DrivenLedger, *, models: Any = None, tenants: Any = None, **others: Any) -> None:
    """Go by other limits; models and tenants are those of before except for what is given, and None takes one out."""
    merged: dict[str, Any] = {}
    for name, old, new in (("models", driven.ledger.limits.models, models), ("tenants", driven.ledger.limits.tenants, tenants)):
        merged[name] = {key: value for key, value in {**old, **(new or {})}.items() if value is not None}
    driven.ledger.follow(replace(driven.ledger.limits, **merged, **others))


def _levels(driven: DrivenLedger) -> dict[str, int]:
    return {level.name: level.remaining for level in driven.model().limits}


def test_each_change_is_a_version() -> None:
    """The same limits are none, whoever read them; the same content with another revision is one."""
    driven = _driven()
    assert driven.ledger.version == 1
    driven.ledger.follow(replace(driven.limits))
    assert driven.ledger.version == 1
    _follow(driven, models={"m": replace(MODEL, concurrency=6)})
    assert driven.ledger.version == driven.ledger.state().config_version == 2
    _follow(driven, revision=1)
    _follow(driven, rules=PermitRules())
    assert driven.ledger.version == 4
    driven.grant()
    assert driven.ledger.limits.revision == 1


def test_levels_stay_as_far_as_they_fit() -> None:
    """A higher limit gives nothing at once, a lower one cuts what is there; time then fills it at the new rate."""
    driven = _driven()
    driven.grant(PermitSpec(model="m", input_tokens=2000))
    assert _levels(driven) == {"requests_per_minute": 9, "tokens_per_minute": 4000, "concurrency": 4, "retries": 10}
    _follow(driven, models={"m": replace(MODEL, requests_per_minute=600, request_burst=100, tokens_per_minute=60_000, concurrency=50, retries_per_minute=20)})
    assert _levels(driven) == {"requests_per_minute": 9, "tokens_per_minute": 4000, "concurrency": 49, "retries": 10}
    driven.now += 1
    assert _levels(driven) == {"requests_per_minute": 19, "tokens_per_minute": 5000, "concurrency": 49, "retries": 10}
    _follow(driven, models={"m": replace(MODEL, requests_per_minute=6, request_burst=3, tokens_per_minute=600, concurrency=1, retries_per_minute=2)})
    assert _levels(driven) == {"requests_per_minute": 3, "tokens_per_minute": 600, "concurrency": 0, "retries": 2}


def test_what_has_come_before_the_change_came_at_the_old_rate() -> None:
    """Time is not counted again at the new one."""
    driven = _driven()
    driven.grant(PermitSpec(model="m", input_tokens=6000))
    driven.now += 10
    _follow(driven, models={"m": replace(MODEL, tokens_per_minute=60)})
    assert _levels(driven)["tokens_per_minute"] == 60
    driven = _driven()
    driven.grant(PermitSpec(model="m", input_tokens=6000))
    driven.now += 10
    _follow(driven, models={"m": replace(MODEL, tokens_per_minute=60_000)})
    assert _levels(driven)["tokens_per_minute"] == 1000


def test_a_limit_that_is_taken_away_and_put_back_is_a_new_one() -> None:
    """It begins full, and refunds of charges of the old one do not count."""
    driven = _driven()
    permit = driven.grant(PermitSpec(model="m", input_tokens=4000))
    _follow(driven, models={"m": replace(MODEL, tokens_per_minute=None)})
    assert "tokens_per_minute" not in _levels(driven)
    driven.now += 1
    _follow(driven, models={"m": MODEL})
    driven.grant(PermitSpec(model="m", input_tokens=5000))
    assert driven.release(permit) is Settlement.SETTLED
    assert _levels(driven)["tokens_per_minute"] == 1000


def test_a_limit_that_is_new_does_not_concern_calls_of_before() -> None:
    """Their settlement neither gives to it nor takes from it."""
    driven = DrivenLedger({"m": ModelLimits()}, {"t": TenantLimits()})
    permits = [driven.grant(PermitSpec(model="m", input_tokens=100), tenant="t") for _ in range(2)]
    _follow(driven, models={"m": MODEL}, tenants={"t": TENANT})
    driven.grant(PermitSpec(model="m", input_tokens=1000, cost_micro_usd=10), tenant="t")
    driven.report(permits[0], input_tokens=5000, cost_micro_usd=900)
    driven.release(permits[1])
    assert _levels(driven) == {"requests_per_minute": 9, "tokens_per_minute": 5000, "concurrency": 4, "retries": 10}
    day = driven.tenant().budgets[0]
    assert (day.spent, day.reserved) == (0, 10)


def test_i1_a_lowered_concurrency_waits_for_enough_ends() -> None:
    """Calls under way go on; the next is granted when there are fewer than the new limit (L3)."""
    driven = _driven()
    for lease in (10, 20, 30):
        driven.grant(lease=lease)
    _follow(driven, models={"m": replace(MODEL, concurrency=2)})
    assert driven.model().in_flight == 3
    denial = driven.denial()
    assert denial.retry_after_seconds == pytest.approx(20)
    driven.now += 20
    assert driven.reasons("m", "m") == ["granted", "CONCURRENCY"]


def test_the_breaker_stays_as_it_is() -> None:
    """Open is open for the rest of its time; counts stay unless the slices have another length; new thresholds hold at once."""
    driven = _driven()
    driven.call(CallResult.FAILURE)
    _follow(driven, models={"m": replace(MODEL, breaker=replace(MODEL.breaker, consecutive_failures=3))})
    assert driven.model().breaker.window_failures == 1
    driven.call(CallResult.FAILURE)
    assert driven.model().breaker.state is BreakerState.CLOSED
    driven.call(CallResult.FAILURE)
    generation = driven.model().breaker.generation
    _follow(driven, models={"m": replace(MODEL, breaker=BreakerRules(bucket_seconds=3, open_seconds=60))})
    breaker = driven.model().breaker
    assert (breaker.state, breaker.open_for_seconds, breaker.generation, breaker.window_calls) == (BreakerState.OPEN, 4, generation, 0)


def test_adaptive_concurrency_keeps_what_it_learnt() -> None:
    """As far as it fits; switched off and on again it begins at the limit."""
    limits = ModelLimits(concurrency=10, adaptive_concurrency=True, breaker=BreakerRules(consecutive_failures=99))
    driven = DrivenLedger({"m": limits})
    driven.call(CallResult.FAILURE)
    for concurrency, adaptive, places in ((20, True, 9), (5, True, 5), (8, True, 8), (8, False, 8), (12, True, 12)):
        _follow(driven, models={"m": replace(limits, concurrency=concurrency, adaptive_concurrency=adaptive)})
        assert next(level.effective for level in driven.model().limits if level.name == "concurrency") == places


def test_adaptive_concurrency_that_was_off_learns_nothing() -> None:
    """What it had learnt before it was switched off is forgotten."""
    limits = ModelLimits(concurrency=10, adaptive_concurrency=True, breaker=BreakerRules(consecutive_failures=99))
    driven = DrivenLedger({"m": limits})
    driven.call(CallResult.FAILURE)
    _follow(driven, models={"m": replace(limits, adaptive_concurrency=False)})
    driven.call(CallResult.FAILURE)
    _follow(driven, models={"m": limits})
    assert driven.left("concurrency") == 10


def test_a_model_that_is_taken_out_is_not_found_but_its_permits_settle() -> None:
    """Nothing new is granted; what was, ends as ever; put back it goes on where it stood."""
    driven = _driven()
    settled, released, renewed, forgotten = (driven.grant(PermitSpec(model="m", input_tokens=100), tenant="t", lease=20) for _ in range(4))
    asked = driven.permit("n", request_id="same")
    _follow(driven, models={"m": None})
    for ask in (lambda: driven.ask("m"), lambda: driven.ledger.state(["m"]), lambda: driven.ledger.override("m", None, 0)):
        with pytest.raises(NotFound):
            ask()
    assert [state.model for state in driven.ledger.state().models] == ["n"]
    assert driven.permit("n", request_id="same").permit_id == asked.permit_id
    assert driven.report(settled, input_tokens=30) is Settlement.SETTLED
    assert driven.release(released) is Settlement.SETTLED
    assert driven.ledger.renew([renewed], 60)[0].lease_seconds == 60
    assert driven.tenant().in_flight == 2
    driven.now += 20
    assert driven.tenant().in_flight == 1
    assert driven.report(forgotten) is Settlement.LATE
    _follow(driven, models={"m": MODEL})
    assert driven.model().in_flight == 1
    driven.now += 600
    assert _levels(driven) == {"requests_per_minute": 10, "tokens_per_minute": 6000, "concurrency": 5, "retries": 10}
    assert driven.ledger.remembered == 0


def test_a_tenant_that_is_taken_out_is_not_found_but_its_permits_settle() -> None:
    """What they cost counts, should the tenant come back in the same period."""
    driven = _driven()
    permit = driven.grant(PermitSpec(model="m", cost_micro_usd=100), tenant="t")
    _follow(driven, tenants={"t": None})
    with pytest.raises(NotFound):
        driven.ask("m", tenant="t")
    with pytest.raises(NotFound):
        driven.ledger.state(tenants=["t"])
    assert driven.report(permit, cost_micro_usd=70) is Settlement.SETTLED
    _follow(driven, tenants={"t": TENANT})
    assert [(budget.spent, budget.reserved) for budget in driven.tenant().budgets] == [(70, 0)] * 2
    assert driven.tenant().in_flight == 0


def test_a_tenants_new_limits_hold_at_once() -> None:
    """Calls at once, and whether they are only measured, count what was there before."""
    driven = _driven()
    driven.grant(tenant="t")
    _follow(driven, tenants={"t": TenantLimits(concurrency=2)})
    assert driven.reasons("m", "m", tenant="t") == ["granted", "CONCURRENCY"]
    _follow(driven, tenants={"t": TenantLimits(concurrency=2, metrics_only=True)})
    assert driven.permit(tenant="t").would_have_denied is DenialReason.CONCURRENCY
    assert [(level.limit, level.remaining) for level in driven.tenant().limits] == [(2, 0)]


def test_without_any_tenant_left_nobody_is_asked_who_he_is() -> None:
    """The last one that is taken out takes its limits with it."""
    driven = _driven()
    _follow(driven, tenants={"t": None, "u": None})
    assert driven.reasons("m", tenant="whoever") == ["granted"]


def test_i4_a_budget_that_is_taken_away_and_put_back_goes_on() -> None:
    """Calls that it had counted end in it, so that no more can be spent than it allows; the order in the state is always day, month."""
    driven = _driven()
    settled, released = (driven.grant(PermitSpec(model="m", cost_micro_usd=400), tenant="t") for _ in range(2))
    _follow(driven, tenants={"t": replace(TENANT, budget_per_day=None)})
    assert [budget.period for budget in driven.tenant().budgets] == ["month"]
    uncounted = driven.grant(PermitSpec(model="m", cost_micro_usd=3000), tenant="t")
    driven.report(settled, cost_micro_usd=300)
    _follow(driven, tenants={"t": replace(TENANT, budget_per_day=900)})
    driven.release(released)
    driven.report(uncounted, cost_micro_usd=3000)
    day, month = driven.tenant().budgets
    assert (day.period, day.limit, day.spent, day.reserved) == ("day", 900, 300, 0)
    assert (month.period, month.spent, month.reserved) == ("month", 3300, 0)
    assert driven.reasons(PermitSpec(model="m", cost_micro_usd=601), tenant="t") == ["BUDGET"]
    assert driven.reasons(PermitSpec(model="m", cost_micro_usd=600), tenant="t") == ["granted"]
    driven.now += 86_400
    _follow(driven, tenants={"t": replace(TENANT, budget_per_day=None)})
    driven.now += 86_400
    _follow(driven, tenants={"t": TENANT})
    assert driven.tenant().budgets[0].spent == 0


def test_rules_of_permits_hold_from_now_on() -> None:
    """What has been granted keeps its lease; a shorter longest lease cuts new ones and renewals."""
    driven = _driven()
    permit = driven.permit(lease=90)
    _follow(driven, rules=PermitRules(longest_lease_seconds=5, late_report_grace_seconds=1, idempotency_window_seconds=2))
    assert (permit.lease_seconds, driven.permit(lease=90).lease_seconds) == (90, 5)
    driven.now += 50
    assert driven.ledger.renew([permit.permit_id], 90)[0].lease_seconds == 5
    driven.now += 5.5
    assert driven.report(permit.permit_id) is Settlement.LATE
    driven.now += 2
    assert driven.report(permit.permit_id) is Settlement.UNKNOWN


def test_the_digest_is_that_of_the_content() -> None:
    """The order of names does not matter, everything else does."""
    limits = Limits(models={"m": MODEL, "n": ModelLimits()}, tenants={"t": TENANT})
    assert limits.digest == Limits(models={"n": ModelLimits(), "m": MODEL}, tenants={"t": TENANT}).digest
    others = [
        replace(limits, models={"m": MODEL}),
        replace(limits, tenants={}),
        replace(limits, rules=PermitRules(longest_lease_seconds=1)),
        replace(limits, revision=1),
        replace(limits, models={**limits.models, "m": replace(MODEL, breaker=BreakerRules())}),
    ]
    assert len({limits.digest, *(other.digest for other in others)}) == 6
