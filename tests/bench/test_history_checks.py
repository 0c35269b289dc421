"""The history checker on histories made by hand: each invariant with one that keeps it and one that does not."""

from collections.abc import Sequence

from bench.history.audit import Entry, Op
from bench.history.checks import violations
from bench.history.limits import Limits, Scope

SECOND = 1_000_000
NOON = 20_000 * 86_400 * SECOND + 43_200 * SECOND
BOUNDLESS = Scope()


def grant(permit: str, at: float, *, lease: float = 10.0, model: str = "m", tenant: str = "t", tokens: int = 0, cost: int = 0, **more: int) -> Entry:
    """Grant a permit at so many seconds after noon."""
    now = NOON + round(at * SECOND)
    end = now + round(lease * SECOND)
    generation, probe = more.get("generation", 0), bool(more.get("probe", 0))
    return Entry(at=now, op=Op.GRANT, permit=permit, model=model, tenant=tenant, tokens=tokens, cost=cost, lease_end=end, generation=generation, probe=probe)


def end(op: Op, permit: str, at: float, *, used: int | None = None, charged: int | None = None, result: str = "SUCCESS") -> Entry:
    """End a permit."""
    return Entry(at=NOON + round(at * SECOND), op=op, permit=permit, used=used, charged=charged, result=result)


def renew(permit: str, at: float, lease: float) -> Entry:
    """Give a permit another lease."""
    return Entry(at=NOON + round(at * SECOND), op=Op.RENEW, permit=permit, lease_end=NOON + round((at + lease) * SECOND))


def turn(state: str, generation: int, at: float) -> Entry:
    """Let the model's breaker turn."""
    return Entry(at=NOON + round(at * SECOND), op=Op.TURN, model="m", state=state, generation=generation)


def broken(entries: Sequence[Entry], model: Scope = BOUNDLESS, tenant: Scope = BOUNDLESS) -> list[str]:
    """Return the invariants that a history violates."""
    found, _ = violations(entries, Limits(models={"m": model}, tenants={"t": tenant}), NOON + 3600 * SECOND)
    return [violation.invariant for violation in found]


def test_more_permits_than_the_concurrency_are_found() -> None:
    """A place is free from the settlement on, or from the end of the lease, not a microsecond earlier; of models and tenants alike (I1)."""
    settled = [grant("a", 0), end(Op.SETTLE, "a", 1), grant("b", 1)]
    lapsed = [grant("a", 0, lease=2), grant("b", 2)]
    early = [grant("a", 0, lease=2), grant("b", 1.999999)]
    for scopes in ((Scope(concurrency=1), Scope()), (Scope(), Scope(concurrency=1))):
        assert broken(settled, *scopes) == []
        assert broken(lapsed, *scopes) == []
        assert broken(early, *scopes) == ["I1"]


def test_a_renewed_lease_holds_its_place() -> None:
    """The place is taken until the new end, whether it comes later or earlier (I1)."""
    assert broken([grant("a", 0, lease=2), renew("a", 1, 5), grant("b", 3)], Scope(concurrency=1)) == ["I1"]
    assert broken([grant("a", 0, lease=9), renew("a", 1, 1), grant("b", 2)], Scope(concurrency=1)) == []


def test_more_requests_than_burst_and_rate_allow_are_found() -> None:
    """Two at once and one each second after; the grant that comes a microsecond too early is found (I2)."""
    scope = Scope(requests_per_minute=60, request_burst=2)
    in_time = [grant("a", 0), grant("b", 0), grant("c", 1), grant("d", 2)]
    assert broken(in_time, scope) == []
    assert broken([*in_time, grant("e", 2.999999)], scope) == ["I2"]
    assert broken([*in_time, grant("e", 2.999999)], tenant=scope) == ["I2"]


def test_a_released_request_may_be_made_again_unless_time_gave_it_back() -> None:
    """A release gives back what it took, but not where the bucket was full in between (I2)."""
    scope = Scope(requests_per_minute=60, request_burst=2)
    assert broken([grant("a", 0), grant("b", 0), end(Op.RELEASE, "b", 0.1), grant("c", 0.1)], scope) == []
    assert broken([grant("a", 0), grant("b", 2), grant("c", 2), end(Op.RELEASE, "a", 2), grant("d", 2)], scope) == ["I2"]
    assert broken([grant("a", 0), grant("b", 0), end(Op.SETTLE, "b", 0.1), grant("c", 0.1)], scope) == ["I2"]
    # Half of it has come back by itself: only the other half is given back.
    assert broken([grant("a", 0), end(Op.RELEASE, "a", 0.5), grant("b", 0.5), grant("c", 0.5), grant("d", 1)], scope) == ["I2"]


def test_more_tokens_than_the_rate_allows_are_found() -> None:
    """What a call did not use may be used by another, and what it used beyond its reservation may not; after a lease nothing comes back (I3)."""
    scope = Scope(tokens_per_minute=60)
    assert broken([grant("a", 0, tokens=40), grant("b", 0, tokens=20)], scope) == []
    assert broken([grant("a", 0, tokens=40), grant("b", 0, tokens=21)], scope) == ["I3"]
    assert broken([grant("a", 0, tokens=40), end(Op.SETTLE, "a", 0, used=30), grant("b", 0, tokens=30)], scope) == []
    assert broken([grant("a", 0, tokens=40), end(Op.SETTLE, "a", 0, used=41), grant("b", 0, tokens=20)], scope) == ["I3"]
    assert broken([grant("a", 0, tokens=40), end(Op.SETTLE, "a", 0), grant("b", 0, tokens=21)], scope) == ["I3"]
    assert broken([grant("a", 0, tokens=40), end(Op.SETTLE, "a", 0, used=30, result="CANCELLED"), grant("b", 0, tokens=21)], scope) == ["I3"]
    late = [grant("a", 0, tokens=40, lease=1), end(Op.LATE, "a", 1, used=0)]
    assert broken([*late, grant("b", 1, tokens=21)], scope) == []
    assert broken([*late, grant("b", 1, tokens=22)], scope) == ["I3"]
    assert broken([grant("a", 0, tokens=40, lease=1), end(Op.LATE, "a", 1, used=50), grant("b", 1, tokens=12)], scope) == ["I3"]


def test_debt_is_no_violation_by_itself() -> None:
    """A call that used more than there was overdraws the bucket; only the next grant would be wrong (I3)."""
    debt = [grant("a", 0, tokens=60), end(Op.SETTLE, "a", 0, used=100)]
    assert broken(debt, Scope(tokens_per_minute=60)) == []
    assert broken([*debt, grant("b", 41, tokens=1)], Scope(tokens_per_minute=60)) == []
    assert broken([*debt, grant("b", 40, tokens=1)], Scope(tokens_per_minute=60)) == ["I3"]


def test_more_money_than_the_budget_is_found() -> None:
    """Estimates count until the cost is known, and for good where it never is; what costs nothing is not refused (I4)."""
    poor = Scope(budget_per_day=100)
    assert broken([grant("a", 0, cost=60), grant("b", 0, cost=40)], tenant=poor) == []
    assert broken([grant("a", 0, cost=60), grant("b", 0, cost=41)], tenant=poor) == ["I4"]
    assert broken([grant("a", 0, cost=60), end(Op.SETTLE, "a", 1, charged=20), grant("b", 1, cost=80)], tenant=poor) == []
    assert broken([grant("a", 0, cost=60), end(Op.RELEASE, "a", 1), grant("b", 1, cost=100)], tenant=poor) == []
    assert broken([grant("a", 0, cost=60, lease=1), grant("b", 2, cost=41)], tenant=poor) == ["I4"]
    assert broken([grant("a", 0, cost=60, lease=1), end(Op.LATE, "a", 2, charged=20), grant("b", 2, cost=80)], tenant=poor) == []
    overdrawn = [grant("a", 0, cost=60), end(Op.SETTLE, "a", 1, charged=500)]
    assert broken([*overdrawn, grant("b", 1, cost=0)], tenant=poor) == []
    assert broken([*overdrawn, grant("b", 1, cost=1)], tenant=poor) == ["I4"]


def test_a_day_has_its_own_budget() -> None:
    """After midnight there is a whole one, and what becomes of yesterday's calls does not count (I4)."""
    midnight = 43_200.0
    history = [grant("a", midnight - 1, cost=100), grant("b", midnight, cost=100), end(Op.SETTLE, "a", midnight, charged=50)]
    assert broken(history, tenant=Scope(budget_per_day=100)) == []
    assert broken([*history, grant("c", midnight + 1, cost=1)], tenant=Scope(budget_per_day=100)) == ["I4"]


def test_a_life_that_is_not_a_permits_is_found() -> None:
    """Nothing ends that never began; a lease is over when it is over, and not before (I5)."""
    assert broken([end(Op.SETTLE, "a", 0)]) == ["I5"]
    for op in (Op.SETTLE, Op.RELEASE):
        assert broken([grant("a", 0, lease=2), end(op, "a", 1.999999)]) == []
        assert broken([grant("a", 0, lease=2), end(op, "a", 2)]) == ["I5"]
    assert broken([grant("a", 0, lease=2), renew("a", 2, 1)]) == ["I5"]
    assert broken([grant("a", 0, lease=2), renew("a", 1, 2), end(Op.SETTLE, "a", 2)]) == []
    assert broken([grant("a", 0, lease=2), renew("a", 0, 1), end(Op.SETTLE, "a", 1)]) == ["I5"]
    assert broken([grant("a", 0, lease=2), end(Op.LATE, "a", 1)]) == ["I5"]
    assert broken([grant("a", 0, lease=2), end(Op.EXPIRE, "a", 1)]) == ["I5"]
    assert broken([grant("a", 0, lease=2), end(Op.EXPIRE, "a", 3), end(Op.LATE, "a", 4)]) == []


def test_what_takes_effect_twice_is_found() -> None:
    """A permit is granted once, and settled or released once (I6)."""
    for first in (Op.SETTLE, Op.RELEASE):
        for second in (Op.SETTLE, Op.RELEASE):
            assert broken([grant("a", 0), end(first, "a", 1), end(second, "a", 1)]) == ["I6"]
    assert broken([grant("a", 0, lease=1), end(Op.LATE, "a", 1), end(Op.LATE, "a", 1)]) == ["I6"]
    assert broken([grant("a", 0), grant("a", 1)]) == ["I6"]


# A breaker that opens, tries a call and closes: what made it turn is reported in the same script.
OPENED = [grant("z", -1), end(Op.SETTLE, "z", 0), turn("OPEN", 1, 0)]
HALF = [*OPENED, turn("HALF_OPEN", 2, 1)]
CLOSED = [*HALF, grant("y", 1, generation=2, probe=1), end(Op.SETTLE, "y", 2), turn("CLOSED", 3, 2)]


def test_a_grant_against_the_breaker_is_found() -> None:
    """OPEN grants nothing, HALF_OPEN a probe and nothing else, CLOSED no probe (I8)."""
    assert broken([*OPENED, grant("a", 0, generation=1)]) == ["I8"]
    assert broken([*HALF, grant("a", 1, generation=2)]) == ["I8"]
    assert broken([*HALF, grant("a", 1, generation=2, probe=1)]) == []
    assert broken([*OPENED, grant("a", 1, generation=2, probe=1), turn("HALF_OPEN", 2, 1)]) == []
    assert broken([*CLOSED, grant("a", 2, generation=3)]) == []
    assert broken([*CLOSED, grant("a", 2, generation=3, probe=1)]) == ["I8"]


def test_a_second_probe_is_found() -> None:
    """The next one may go when the first was settled or its lease ended (I8)."""
    probed = [*HALF, grant("a", 1, generation=2, probe=1, lease=2)]
    assert broken([*probed, grant("b", 2, generation=2, probe=1)]) == ["I8"]
    assert broken([*probed, end(Op.SETTLE, "a", 2), grant("b", 2, generation=2, probe=1)]) == []
    assert broken([*probed, grant("b", 3, generation=2, probe=1)]) == []


def test_generations_that_do_not_grow_are_found() -> None:
    """A turn has a higher generation than the one before, or is the same turn said again, and a grant has that of the last turn (I8)."""
    assert broken([*HALF, turn("HALF_OPEN", 2, 2)]) == []
    assert broken([*OPENED, turn("HALF_OPEN", 1, 1)]) == ["I8"]
    assert broken([*HALF, turn("OPEN", 1, 1)]) == ["I8"]
    assert broken([grant("a", 0, generation=0), grant("b", 0, generation=1)]) == ["I8"]
    assert broken([*CLOSED, grant("a", 3, generation=1)]) == ["I8"]


def test_a_turn_by_a_stale_report_is_found() -> None:
    """CLOSED opens, and HALF_OPEN closes, by the report of a call of their own generation; HALF_OPEN may also open because leases of probes ended (I8)."""
    assert broken([turn("OPEN", 1, 0)]) == ["I8"]
    assert broken([*CLOSED, grant("a", 2, generation=3), end(Op.SETTLE, "a", 3), turn("OPEN", 4, 3)]) == []
    stale = [grant("x", -1), *CLOSED, end(Op.SETTLE, "x", 3)]
    assert broken([*stale, turn("OPEN", 4, 3)]) == ["I8"]
    assert broken([*HALF, turn("CLOSED", 3, 2)]) == ["I8"]
    assert broken([*HALF, turn("OPEN", 3, 2)]) == []


def test_turns_that_leave_out_a_state_are_found() -> None:
    """OPEN does not close, and CLOSED does not become half-open (I8)."""
    assert broken([*OPENED, turn("CLOSED", 2, 1)]) == ["I8"]
    assert broken([turn("HALF_OPEN", 1, 1)]) == ["I8"]


def test_a_clock_that_goes_back_is_found() -> None:
    """Entries stand in the order of their times."""
    assert broken([grant("a", 1), grant("b", 0.999999)]) == ["clock"]
    assert broken([grant("a", 1), grant("b", 1)]) == []
