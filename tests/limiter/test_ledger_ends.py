"""The ledger at the ends: the last moment of a lease, how long things are remembered, and how a wait is told."""

import pytest

from services.limiter.ledger import jittered
from services.limiter.limits import ModelLimits
from services.models.permits import PermitSpec, Settlement
from tests.support.driven_ledger import DrivenLedger


@pytest.mark.parametrize(
    ("chance", "wait", "told"),
    [(1.0, 10.0, 10.0), (1.2, 10.0, 12.0), (1.1, 10.0, 11.0), (9.0, 10.0, 12.0), (0.0, 10.0, 10.0), (1.2, 400.0, 460.0), (1.2, 290.0, 348.0)],
)
def test_a_wait_is_told_with_up_to_a_fifth_and_a_minute_more(chance: float, wait: float, told: float) -> None:
    """Never with less, so that it stays sufficient; those who were told the same do not come back together."""
    assert jittered(wait, lambda low, high: min(high, max(low, chance))) == pytest.approx(told)


def test_l3_the_last_moment_of_a_lease_is_waited_for() -> None:
    """To the microsecond."""
    driven = DrivenLedger({"m": ModelLimits(concurrency=1)})
    driven.grant(lease=10)
    driven.now += 9.999999
    denial = driven.denial()
    assert (denial.limit_value, denial.remaining) == (1, 0)
    assert denial.retry_after_seconds == pytest.approx(1e-6)
    driven.now += 1e-6
    assert driven.reasons("m") == ["granted"]


def test_what_was_granted_nothing_is_not_remembered() -> None:
    """Denials are judged afresh, and the id of a request that got nothing may be used for another."""
    driven = DrivenLedger({"m": ModelLimits(concurrency=1)})
    driven.grant()
    remembered = driven.ledger.remembered
    assert driven.reasons("m", request_id="same") == ["CONCURRENCY"]
    assert driven.reasons("m", "m", request_id="same") == ["CONCURRENCY"] * 2
    assert driven.ledger.remembered == remembered


def test_a_repeated_request_may_get_what_it_was_denied_before() -> None:
    """The grants of before come again, and the denials are judged afresh; both count for the fewest that are worth having."""
    driven = DrivenLedger({"m": ModelLimits(concurrency=2)})
    other = driven.grant()
    first = driven.ask("m", "m", request_id="same", min_granted=1)
    assert driven.reasons("m", "m", request_id="same", min_granted=1) == ["granted", "CONCURRENCY"]
    assert driven.reasons("m", "m", request_id="same", min_granted=2) == ["granted", "CONCURRENCY"]
    driven.release(other)
    again = driven.ask("m", "m", request_id="same", min_granted=2)
    assert again[0] == first[0]
    assert driven.ask("m", "m", request_id="same") == again
    assert driven.model().in_flight == 2


def test_i6_a_late_report_is_known_for_as_long_as_any_other() -> None:
    """Its window begins with it, not with the end of its lease, and ends like any other's."""
    driven = DrivenLedger()
    permit = driven.grant(lease=10)
    driven.now += 29
    assert driven.report(permit) is Settlement.LATE
    driven.now += 29.5
    assert driven.report(permit) is Settlement.DUPLICATE
    driven.now += 0.5
    assert driven.report(permit) is Settlement.UNKNOWN


def test_a_request_id_is_known_for_its_window() -> None:
    """From its first grant on, to the microsecond; afterwards the same id is a new request."""
    driven = DrivenLedger({"m": ModelLimits(concurrency=9)})
    first = driven.permit(request_id="same", lease=90)
    driven.now += 30 - 1e-6
    again = driven.permit(request_id="same", lease=90)
    assert again.permit_id == first.permit_id
    assert again.lease_seconds == pytest.approx(60, abs=1e-5)
    driven.now += 1e-6
    assert driven.permit(request_id="same", lease=90).permit_id != first.permit_id


def test_request_ids_of_one_tenant_are_not_those_of_another() -> None:
    """Nobody gets another's permits by guessing the name of his request."""
    driven = DrivenLedger({"m": ModelLimits(concurrency=9)})
    assert driven.grant(request_id="same", tenant="a") != driven.grant(request_id="same", tenant="b")


@pytest.mark.parametrize("limits", [ModelLimits(requests_per_minute=60, request_burst=1), ModelLimits(tokens_per_minute=1)])
def test_l3_a_rate_is_waited_for_to_the_last_moment(limits: ModelLimits) -> None:
    """A microsecond too early is too early."""
    driven = DrivenLedger({"m": limits})
    spec = PermitSpec(model="m", input_tokens=1)
    driven.grant(spec)
    wait = driven.denial(spec).retry_after_seconds
    assert wait is not None
    driven.now += wait - 1e-6
    assert driven.denial(spec).retry_after_seconds == pytest.approx(1e-6)
    driven.now += 1e-6
    assert driven.reasons(spec) == ["granted"]


def test_renewing_again_and_again_takes_no_room() -> None:
    """However often a permit is renewed, at one moment or at many, what is kept stays in proportion to the permits."""
    driven = DrivenLedger({"m": ModelLimits(concurrency=3)})
    permits = [driven.grant(lease=10) for _ in range(3)]
    for _ in range(2000):
        driven.now += 0.001
        driven.ledger.renew(permits * 5, 10.0)
    assert len(driven.ledger._lease_heap) <= 2 * 3 + 64
    assert [len(gate._leases._heap) <= 2 * 3 + 64 for gate in driven.ledger._models.values()] == [True]
    driven.now += 9.9
    assert driven.ledger.state(["m"]).models[0].in_flight == 3
    driven.now += 0.1
    assert driven.ledger.state(["m"]).models[0].in_flight == 0
