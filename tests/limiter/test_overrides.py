"""An operator's word, and limits that are only measured: what is granted, what is counted, and what is charged."""

from typing import Any

import pytest

from services.chassis.errors import NotFound
from services.limiter.limits import BreakerRules, ModelLimits, TenantLimits
from services.models.permits import BreakerState, CallResult, DenialReason, OverrideMode, PermitSpec
from tests.support.driven_ledger import DrivenLedger

FORCED_OPEN, DISABLED, METRICS_ONLY = OverrideMode.FORCED_OPEN, OverrideMode.DISABLED, OverrideMode.METRICS_ONLY
TIGHT = ModelLimits(requests_per_minute=60, request_burst=1, tokens_per_minute=100, concurrency=1, breaker=BreakerRules(consecutive_failures=1))


def _driven(mode: OverrideMode | None = None, *, seconds: float = 30, limits: ModelLimits = TIGHT, **tenant: Any) -> DrivenLedger:
    driven = DrivenLedger({"m": limits}, {"t": TenantLimits(**tenant)} if tenant else {})
    if mode is not None:
        driven.ledger.override("m", mode, seconds)
    return driven


def test_forced_open_denies_everything_until_it_ends() -> None:
    """The wait is what is left of it, to the microsecond; then all is as before."""
    driven = _driven(FORCED_OPEN)
    driven.now += 10
    denial = driven.denial()
    assert (denial.reason, denial.limit) == (DenialReason.FORCED_OPEN, "model/m/override")
    assert denial.retry_after_seconds == pytest.approx(20)
    assert driven.model().override is FORCED_OPEN
    assert driven.model().override_seconds == pytest.approx(20)
    driven.now += 20 - 1e-6
    assert driven.reasons("m") == ["FORCED_OPEN"]
    driven.now += 1e-6
    assert (driven.model().override, driven.model().override_seconds) == (None, None)
    assert driven.reasons("m") == ["granted"]


def test_an_override_can_be_replaced_and_lifted() -> None:
    """The last word holds; lifting what is not set changes nothing, not even the generation."""
    driven = _driven(FORCED_OPEN, seconds=5)
    state = driven.ledger.override("m", DISABLED, 60)
    assert (state.override, state.override_seconds) == (DISABLED, 60)
    driven.now += 6
    assert driven.model().override is DISABLED
    state = driven.ledger.override("m", None, 0)
    assert (state.override, state.override_seconds) == (None, None)
    generation = state.breaker.generation
    assert driven.ledger.override("m", None, 0).breaker.generation == generation
    with pytest.raises(NotFound):
        driven.ledger.override("nobody", DISABLED, 1)


def test_i8_an_override_begins_a_new_generation_when_it_is_set_and_when_it_ends() -> None:
    """Reports of calls from before, and from under it, say nothing to the breaker; the state itself stays."""
    driven = _driven(limits=ModelLimits(concurrency=9, breaker=BreakerRules(consecutive_failures=1)))
    before, generation = driven.grant(), driven.model().breaker.generation
    driven.ledger.override("m", DISABLED, 10)
    assert driven.model().breaker.generation == generation + 1
    driven.report(before, CallResult.FAILURE)
    under = driven.grant()
    driven.now += 10
    assert driven.model().breaker.generation == generation + 2
    driven.report(under, CallResult.FAILURE)
    snapshot = driven.model().breaker
    assert (snapshot.state, snapshot.window_calls, snapshot.generation) == (BreakerState.CLOSED, 0, generation + 2)


def test_disabled_lets_everything_past_the_breaker_and_counts_nothing() -> None:
    """Limits hold all the same; what was open is open again afterwards, for the rest of its time."""
    driven = _driven(limits=ModelLimits(concurrency=2, breaker=BreakerRules(consecutive_failures=1, open_seconds=60)))
    driven.call(CallResult.FAILURE)
    assert driven.reasons("m") == ["BREAKER_OPEN"]
    driven.ledger.override("m", DISABLED, 10)
    for result in (CallResult.FAILURE, CallResult.AUTH, CallResult.TIMEOUT):
        driven.call(result)
    permits = [driven.permit(), driven.permit()]
    assert [permit.probe for permit in permits] == [False, False]
    assert driven.reasons("m") == ["CONCURRENCY"]
    assert (driven.model().breaker.state, driven.model().breaker.open_count) == (BreakerState.OPEN, 1)
    for permit in permits:
        driven.release(permit.permit_id)
    driven.now += 10
    assert driven.reasons("m") == ["BREAKER_OPEN"]


def test_disabled_grants_no_probes_of_a_half_open_breaker() -> None:
    """Many go through at once, and none of them decides anything; afterwards one probe does."""
    driven = _driven(limits=ModelLimits(concurrency=9, breaker=BreakerRules(consecutive_failures=1, good_probes=1)))
    driven.call(CallResult.FAILURE)
    driven.now += 6
    probe = driven.permit()
    assert probe.probe
    driven.ledger.override("m", DISABLED, 10)
    assert driven.model().breaker.probes == 0
    driven.report(probe.permit_id, CallResult.SUCCESS)
    for _ in range(3):
        driven.call(CallResult.SUCCESS)
    assert driven.model().breaker.state is BreakerState.HALF_OPEN
    driven.now += 10
    assert driven.permit().probe


@pytest.mark.parametrize("by_configuration", [False, True])
def test_metrics_only_grants_and_counts_what_would_have_been_denied(by_configuration: bool) -> None:
    """By override and by configuration: the permit and the state say why; the reason is that of the longest wait."""
    limits = ModelLimits(requests_per_minute=60, request_burst=1, concurrency=5, metrics_only=by_configuration)
    driven = _driven(None if by_configuration else METRICS_ONLY, limits=limits)
    assert driven.model().metrics_only is by_configuration
    permits = [driven.permit(), driven.permit(), driven.permit()]
    assert [permit.would_have_denied for permit in permits] == [None, DenialReason.REQUESTS, DenialReason.REQUESTS]
    assert driven.model().would_have_denied == {DenialReason.REQUESTS: 2}
    driven.permit()
    driven.permit()
    # The sixth would wait for a lease longer than for a request.
    assert driven.permit().would_have_denied is DenialReason.CONCURRENCY
    assert driven.model().would_have_denied == {DenialReason.REQUESTS: 4, DenialReason.CONCURRENCY: 1}
    assert (driven.model().in_flight, driven.left("concurrency")) == (6, 0)


def test_what_would_have_been_denied_is_not_charged() -> None:
    """It would not have been made, so the levels are those of the calls that would; its report charges nothing either, late or not."""
    driven = _driven(METRICS_ONLY, seconds=3600)
    driven.grant(PermitSpec(model="m", input_tokens=90))
    for lease in (10, 1):
        permit = driven.grant(PermitSpec(model="m", input_tokens=50), lease=lease)
        assert (driven.left("requests_per_minute"), driven.left("tokens_per_minute")) == (0, 10)
        driven.now += 1 if lease == 1 else 0
        level = driven.left("tokens_per_minute")
        driven.report(permit, input_tokens=80)
        assert driven.left("tokens_per_minute") == level
    released = driven.grant(PermitSpec(model="m", input_tokens=500))
    level = driven.left("tokens_per_minute")
    driven.release(released)
    assert driven.left("tokens_per_minute") == level


def test_dry_runs_and_undone_batches_are_not_counted() -> None:
    """Only calls that are made for certain count as what would have been denied."""
    driven = DrivenLedger({"m": ModelLimits(concurrency=1, metrics_only=True), "n": ModelLimits(concurrency=1)})
    driven.grant("n")
    assert driven.reasons("m", "m", dry_run=True) == ["granted"] * 2
    assert driven.reasons("m", "m", "n", min_granted=3) == ["MIN_NOT_MET", "MIN_NOT_MET", "CONCURRENCY"]
    assert driven.model().would_have_denied == {}


def test_under_metrics_only_the_breaker_goes_on_as_ever() -> None:
    """Failures open it, calls that it would have denied decide nothing, one that it would have let through is its probe."""
    driven = _driven(limits=ModelLimits(concurrency=9, metrics_only=True, breaker=BreakerRules(consecutive_failures=1, good_probes=1)))
    driven.call(CallResult.FAILURE)
    passed = driven.permit()
    assert (passed.would_have_denied, passed.probe) == (DenialReason.BREAKER_OPEN, False)
    driven.now += 6
    driven.report(passed.permit_id, CallResult.SUCCESS)
    assert driven.model().breaker.state is BreakerState.HALF_OPEN
    probe, other = driven.permit(), driven.permit()
    assert (probe.probe, other.probe, other.would_have_denied) == (True, False, DenialReason.BREAKER_OPEN)
    driven.report(other.permit_id, CallResult.FAILURE)
    assert driven.model().breaker.state is BreakerState.HALF_OPEN
    driven.report(probe.permit_id, CallResult.SUCCESS)
    assert driven.model().breaker.state is BreakerState.CLOSED


def test_forced_open_stands_above_metrics_only_of_the_configuration() -> None:
    """While it holds, nothing is granted; DISABLED is about the breaker alone, and limits that are only measured stay so."""
    driven = _driven(FORCED_OPEN, limits=ModelLimits(concurrency=1, metrics_only=True))
    assert driven.reasons("m", "m") == ["FORCED_OPEN", "FORCED_OPEN"]
    driven.ledger.override("m", DISABLED, 30)
    assert driven.reasons("m", "m", lease=60) == ["granted", "granted"]
    driven.now += 30
    assert driven.permit().would_have_denied is DenialReason.CONCURRENCY


def test_an_enforced_tenant_still_denies_under_metrics_only_of_a_model() -> None:
    """Each scope is measured or enforced by itself."""
    driven = _driven(METRICS_ONLY, concurrency=2)
    assert driven.reasons("m", "m", "m", tenant="t") == ["granted", "granted", "CONCURRENCY"]
    assert driven.denial(tenant="t").limit == "tenant/t/concurrency"


def test_money_is_always_counted() -> None:
    """A tenant whose limits are only measured is charged no rates beyond them, but every cost, for it is really spent."""
    driven = _driven(metrics_only=True, tokens_per_minute=100, budget_per_day=100, limits=ModelLimits(concurrency=9))
    first = driven.permit(PermitSpec(model="m", input_tokens=90, cost_micro_usd=90), tenant="t")
    second = driven.permit(PermitSpec(model="m", input_tokens=90, cost_micro_usd=90), tenant="t")
    assert (first.would_have_denied, second.would_have_denied) == (None, DenialReason.BUDGET)
    state = driven.tenant()
    assert ([level.remaining for level in state.limits], state.budgets[0].reserved, state.in_flight) == ([10], 180, 2)
    driven.report(second.permit_id, input_tokens=900, cost_micro_usd=70)
    state = driven.tenant()
    assert ([level.remaining for level in state.limits], state.budgets[0].reserved, state.budgets[0].spent) == ([10], 90, 70)
    assert driven.model().would_have_denied == {DenialReason.BUDGET: 1}


def test_the_ramp_of_a_closed_breaker_outlives_an_override() -> None:
    """Load that comes back slowly does not jump because an operator spoke."""
    driven = _driven(limits=ModelLimits(concurrency=5, breaker=BreakerRules(consecutive_failures=1, good_probes=1)))
    driven.call(CallResult.FAILURE)
    driven.now += 6
    driven.call(CallResult.SUCCESS)
    driven.ledger.override("m", DISABLED, 5)
    assert driven.reasons("m", "m") == ["granted", "CONCURRENCY"]
    assert next(level for level in driven.model().limits if level.name == "concurrency").effective == 1
