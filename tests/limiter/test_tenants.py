"""Tenants: what one may have of all models together, judged in one step with the models' own limits."""

from typing import Any

import pytest

from services.chassis.errors import NotFound
from services.limiter.limits import ModelLimits, TenantLimits
from services.models.permits import BudgetLevel, CallResult, DenialReason, PermitSpec, Settlement
from tests.support.driven_ledger import DrivenLedger

MODELS = {name: ModelLimits(requests_per_minute=600, tokens_per_minute=10_000, concurrency=20) for name in "ab"}


def _driven(**tenant: Any) -> DrivenLedger:
    return DrivenLedger(MODELS, {"t": TenantLimits(**tenant), "u": TenantLimits()})


def _spec(model: str = "a", tokens: int = 0, cost: int = 0) -> PermitSpec:
    return PermitSpec(model=model, input_tokens=tokens, cost_micro_usd=cost)


def _budget(driven: DrivenLedger, number: int = 0) -> tuple[int, int, int]:
    level: BudgetLevel = driven.tenant().budgets[number]
    return level.spent, level.reserved, level.unreconciled


def _levels(driven: DrivenLedger, tenant: str = "t") -> dict[str, int]:
    return {level.name: level.remaining for level in driven.tenant(tenant).limits}


def test_without_tenants_any_name_will_do() -> None:
    """Where none are configured nobody is asked who he is."""
    driven = DrivenLedger(MODELS)
    assert driven.reasons("a", tenant="whoever") == ["granted"]


def test_an_unknown_tenant_is_not_found_and_nobody_else_is_named() -> None:
    """Neither for permits nor for the state; nothing is charged."""
    driven = _driven()
    for ask in (lambda: driven.ask("a", tenant="nobody"), lambda: driven.ledger.state(tenants=["nobody"])):
        with pytest.raises(NotFound) as caught:
            ask()
        assert (caught.value.kind, caught.value.name) == ("tenant", "nobody")
        assert "known are" not in str(caught.value)
    assert driven.model("a").in_flight == 0


def test_without_a_name_it_is_the_default_tenant_if_there_is_one() -> None:
    """One that is configured by that name has limits like any other; where there is none, there are none to pass."""
    driven = DrivenLedger(MODELS, {"default": TenantLimits(concurrency=1), "t": TenantLimits(concurrency=1)})
    assert driven.reasons("a", "a") == ["granted", "CONCURRENCY"]
    assert (driven.tenant("default").in_flight, driven.tenant("t").in_flight) == (1, 0)
    assert _driven(concurrency=1).reasons("a", "a", "a") == ["granted"] * 3


@pytest.mark.parametrize(
    ("limits", "spec", "reason", "limit"),
    [
        ({"requests_per_minute": 60, "request_burst": 2}, _spec(), DenialReason.REQUESTS, "requests_per_minute"),
        ({"tokens_per_minute": 100}, _spec(tokens=50), DenialReason.TOKENS, "tokens_per_minute"),
        ({"concurrency": 2}, _spec(), DenialReason.CONCURRENCY, "concurrency"),
        ({"budget_per_day": 100}, _spec(cost=50), DenialReason.BUDGET, "budget_per_day"),
        ({"budget_per_month": 100}, _spec(cost=50), DenialReason.BUDGET, "budget_per_month"),
    ],
)
def test_a_tenants_limit_is_one_over_all_models(limits: dict[str, int], spec: PermitSpec, reason: DenialReason, limit: str) -> None:
    """Two calls, each of another model, use it up; later ones of the same batch see that; other tenants do not."""
    driven = _driven(**limits)
    other = PermitSpec(model="b", input_tokens=spec.input_tokens, cost_micro_usd=spec.cost_micro_usd)
    assert driven.reasons(spec, other, spec, other, tenant="t") == ["granted", "granted", reason.value, reason.value]
    denial = driven.denial(spec, tenant="t")
    assert (denial.reason, denial.limit) == (reason, f"tenant/t/{limit}")
    assert denial.retry_after_seconds is not None
    assert driven.reasons(spec, other, spec, tenant="u") == ["granted"] * 3
    # L3: the wait was long enough.
    driven.now += denial.retry_after_seconds
    assert driven.reasons(spec, tenant="t") == ["granted"]


@pytest.mark.parametrize("limits", [{"tokens_per_minute": 100}, {"budget_per_day": 100}, {"budget_per_month": 100}])
def test_more_than_a_tenant_can_ever_have_is_too_large(limits: dict[str, int]) -> None:
    """Whatever the wait, so none is named."""
    driven = _driven(**limits)
    denial = driven.denial(_spec(tokens=101, cost=101), tenant="t")
    assert (denial.reason, denial.retry_after_seconds, denial.limit_value, denial.remaining) == (DenialReason.TOO_LARGE, None, 100, 100)


def test_i7_what_a_tenant_is_denied_costs_the_model_nothing_and_the_other_way_round() -> None:
    """A call that fails at one gate takes nothing at the other."""
    driven = _driven(tokens_per_minute=100, budget_per_day=100, concurrency=5, requests_per_minute=60)
    before = driven.ledger.state()
    assert driven.reasons(_spec(tokens=200), tenant="t") == ["TOO_LARGE"]
    assert driven.reasons(_spec(cost=200), tenant="t") == ["TOO_LARGE"]
    assert driven.reasons(_spec(tokens=20_000), tenant="t") == ["TOO_LARGE"]
    assert driven.ledger.state() == before


def test_i7_below_its_least_a_batch_costs_a_tenant_nothing() -> None:
    """The grants that were not enough are taken back at both gates, money too; so are those of a dry run."""
    driven = _driven(tokens_per_minute=100, budget_per_day=100, concurrency=2, requests_per_minute=600)
    before = driven.ledger.state()
    batch = [_spec("a", 30, 30), _spec("b", 30, 30), _spec("a", 30, 30)]
    assert driven.reasons(*batch, tenant="t", min_granted=3) == ["MIN_NOT_MET", "MIN_NOT_MET", "CONCURRENCY"]
    assert driven.reasons(*batch, tenant="t", dry_run=True) == ["granted", "granted", "CONCURRENCY"]
    assert driven.ledger.state() == before
    assert driven.reasons(*batch, tenant="t", min_granted=2) == ["granted", "granted", "CONCURRENCY"]
    assert _levels(driven) == {"requests_per_minute": 98, "tokens_per_minute": 40, "concurrency": 0}
    assert _budget(driven) == (0, 60, 0)


def test_a_report_settles_at_both_gates() -> None:
    """What was not used comes back, what was used beyond is owed, the money is what it did cost."""
    driven = _driven(tokens_per_minute=1000, budget_per_day=1000, budget_per_month=5000)
    permit = driven.grant(_spec(tokens=100, cost=100), tenant="t")
    assert driven.report(permit, input_tokens=30, output_tokens=10, cost_micro_usd=7) is Settlement.SETTLED
    assert (_levels(driven)["tokens_per_minute"], _budget(driven, 0), _budget(driven, 1)) == (960, (7, 0, 0), (7, 0, 0))
    permit = driven.grant(_spec(tokens=100, cost=100), tenant="t")
    assert driven.report(permit, output_tokens=400, cost_micro_usd=300) is Settlement.SETTLED
    assert (_levels(driven)["tokens_per_minute"], _budget(driven)) == (560, (307, 0, 0))
    assert driven.tenant().in_flight == 0


def test_a_report_without_cost_costs_the_estimate() -> None:
    """Nobody knows better; one that says 0 is believed. A cancelled call keeps its tokens taken."""
    driven = _driven(tokens_per_minute=1000, budget_per_day=1000)
    driven.report(driven.grant(_spec(tokens=100, cost=100), tenant="t"), CallResult.CANCELLED, input_tokens=1, output_tokens=1)
    assert (_levels(driven)["tokens_per_minute"], _budget(driven)) == (900, (100, 0, 0))
    driven.report(driven.grant(_spec(cost=100), tenant="t"), cost_micro_usd=0)
    assert _budget(driven) == (100, 0, 0)


def test_a_release_gives_a_tenant_everything_back() -> None:
    """Requests, tokens, place and money."""
    driven = _driven(requests_per_minute=60, tokens_per_minute=1000, concurrency=2, budget_per_day=1000)
    before = driven.ledger.state()
    assert driven.release(driven.grant(_spec(tokens=100, cost=100), tenant="t")) is Settlement.SETTLED
    assert driven.ledger.state() == before


def test_l3_the_last_moment_of_a_lease_is_waited_for() -> None:
    """To the microsecond."""
    driven = _driven(concurrency=1)
    driven.grant("a", tenant="t", lease=10)
    driven.now += 9.999999
    denial = driven.denial("b", tenant="t")
    assert (denial.limit_value, denial.remaining) == (1, 0)
    assert denial.retry_after_seconds == pytest.approx(1e-6)
    driven.now += 1e-6
    assert driven.reasons("b", tenant="t") == ["granted"]


def test_a_lease_that_ends_frees_the_place_and_spends_the_estimate() -> None:
    """It is flagged as unreconciled until a late report says what it was; renewed leases hold the tenant's place too."""
    driven = _driven(concurrency=1, budget_per_day=1000, tokens_per_minute=60_000)
    permit = driven.grant(_spec(tokens=100, cost=100), tenant="t", lease=10)
    driven.now += 9
    driven.ledger.renew([permit], 10)
    driven.now += 9
    assert driven.denial(tenant="t", spec="b").retry_after_seconds == pytest.approx(1)
    driven.now += 1
    assert (driven.tenant().in_flight, _budget(driven)) == (0, (100, 0, 100))
    assert _levels(driven)["tokens_per_minute"] == 60_000
    assert driven.report(permit, CallResult.SUCCESS, input_tokens=150, cost_micro_usd=40) is Settlement.LATE
    assert _budget(driven) == (40, 0, 0)
    assert _levels(driven)["tokens_per_minute"] == 59_950
    assert driven.report(permit, CallResult.SUCCESS, cost_micro_usd=999) is Settlement.DUPLICATE
    assert _budget(driven) == (40, 0, 0)


def test_a_call_belongs_to_the_day_of_its_grant() -> None:
    """What ends after midnight leaves the new day's budget alone, but not the month's."""
    driven = _driven(budget_per_day=1000, budget_per_month=5000)
    driven.now += 12 * 3600 - 1
    permit = driven.grant(_spec(cost=900), tenant="t", lease=60)
    assert driven.denial(_spec(cost=200), tenant="t").retry_after_seconds == pytest.approx(1)
    driven.now += 1
    driven.grant(_spec(cost=1000), tenant="t")
    driven.report(permit, cost_micro_usd=950)
    assert (_budget(driven, 0), _budget(driven, 1)) == ((0, 1000, 0), (950, 1000, 0))


def test_the_whole_state_of_a_tenant_is_told() -> None:
    """Every limit that is configured and no other, in the order asked for."""
    driven = DrivenLedger(MODELS, {"t": TenantLimits(requests_per_minute=60, concurrency=3, budget_per_month=7), "s": TenantLimits()})
    driven.grant(tenant="t", spec="a")
    state = driven.tenant()
    assert [(level.name, level.limit, level.remaining, level.effective) for level in state.limits] == [
        ("requests_per_minute", 60, 9, 60),
        ("concurrency", 3, 2, 3),
    ]
    assert (state.tenant, state.in_flight, [budget.period for budget in state.budgets]) == ("t", 1, ["month"])
    assert [one.tenant for one in driven.ledger.state().tenants] == ["s", "t"]
    assert [one.tenant for one in driven.ledger.state(tenants=["t", "s"]).tenants] == ["t", "s"]
    assert driven.tenant("s").limits == ()
    assert driven.tenant("s").budgets == ()
