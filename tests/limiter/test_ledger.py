"""The store in memory: atomic batches, leases, idempotency, late reports, bounded memory."""

from collections.abc import Sequence
from itertools import count

import pytest

from services.chassis.errors import InvalidInput, NotFound
from services.limiter.ledger import Ledger
from services.limiter.limits import BreakerRules, Limits, ModelLimits, PermitRules
from services.models.permits import AcquireRequest, BreakerState, CallResult, Denial, DenialReason, Permit, PermitOutcome, PermitSpec, Settlement

RULES = PermitRules(longest_lease_seconds=100, late_report_grace_seconds=20, idempotency_window_seconds=30)


class Limiter:
    """A store with a clock in the hand of the test, and short words for its operations."""

    def __init__(self, **models: ModelLimits) -> None:
        self.now = 1000.0
        numbers = count()
        self.store = Ledger(
            Limits(models=models or {"m": ModelLimits(concurrency=2)}, rules=RULES),
            clock=lambda: self.now,
            uniform=lambda low, _: low,
            new_id=lambda: f"p{next(numbers)}",
        )
        self._requests = count()

    def acquire(
        self, *specs: PermitSpec | str, request_id: str = "", min_granted: int = 0, lease: float = 10.0, dry_run: bool = False
    ) -> list[Permit | Denial]:
        """Acquire a batch; a text stands for a spec of that model."""
        request = AcquireRequest(
            request_id=request_id or f"r{next(self._requests)}",
            specs=tuple(PermitSpec(model=spec) if isinstance(spec, str) else spec for spec in specs),
            min_granted=min_granted,
            lease_seconds=lease,
            dry_run=dry_run,
        )
        return list(self.store.acquire(request).decisions)

    def grant(self, *specs: PermitSpec | str, lease: float = 10.0) -> str:
        """Acquire one permit that must be granted."""
        (decision,) = self.acquire(*(specs or ("m",)), lease=lease)
        assert isinstance(decision, Permit)
        return decision.permit_id

    def report(self, permit_id: str, result: CallResult = CallResult.SUCCESS, **fields: object) -> Settlement:
        """Report one permit."""
        return self.store.report([PermitOutcome(permit_id=permit_id, result=result, **fields)])[0]  # type: ignore[arg-type] # fields of the outcome by name

    def left(self, name: str, model: str = "m") -> int:
        """Return what is left of a limit."""
        return next(level.remaining for level in self.store.state([model]).models[0].limits if level.name == name)


def _reasons(decisions: Sequence[Permit | Denial]) -> list[str]:
    return [decision.reason if isinstance(decision, Denial) else "granted" for decision in decisions]


def test_concurrency_and_its_wait() -> None:
    """Beyond the limit a call is denied until the earliest lease ends; a report frees the place at once."""
    limiter = Limiter()
    first = limiter.grant(lease=10)
    limiter.now += 3
    limiter.grant(lease=10)
    (denial,) = limiter.acquire("m")
    assert isinstance(denial, Denial)
    assert (denial.reason, denial.limit) == (DenialReason.CONCURRENCY, "model/m/concurrency")
    assert denial.retry_after_seconds == pytest.approx(7)
    assert limiter.report(first) is Settlement.SETTLED
    limiter.grant()


def test_requests_refill_continuously() -> None:
    """Sixty a minute with a burst of ten: ten at once, then one each second."""
    limiter = Limiter(m=ModelLimits(requests_per_minute=60, concurrency=100))
    assert _reasons(limiter.acquire(*["m"] * 11)) == ["granted"] * 10 + ["REQUESTS"]
    (denial,) = limiter.acquire("m")
    assert isinstance(denial, Denial)
    assert denial.retry_after_seconds == pytest.approx(1.0)
    limiter.now += denial.retry_after_seconds or 0
    assert _reasons(limiter.acquire("m", "m")) == ["granted", "REQUESTS"]


def test_tokens_are_reserved_and_settled() -> None:
    """The reservation is taken, the difference comes back or is owed, and a need beyond the bucket is refused for good."""
    limiter = Limiter(m=ModelLimits(tokens_per_minute=1000, concurrency=100))
    permit = limiter.grant(PermitSpec(model="m", input_tokens=100, max_output_tokens=500))
    assert limiter.left("tokens_per_minute") == 400
    limiter.report(permit, input_tokens=100, output_tokens=50)
    assert limiter.left("tokens_per_minute") == 850
    permit = limiter.grant(PermitSpec(model="m", input_tokens=100))
    limiter.report(permit, input_tokens=100, output_tokens=1000)
    assert limiter.left("tokens_per_minute") == -250
    (denial,) = limiter.acquire(PermitSpec(model="m", input_tokens=1001))
    assert isinstance(denial, Denial)
    assert (denial.reason, denial.retry_after_seconds, denial.limit_value) == (DenialReason.TOO_LARGE, None, 1000)


def test_tokens_of_cancelled_and_unreported_calls_stay_taken() -> None:
    """A cancelled call keeps its reservation; a report without counts does too."""
    limiter = Limiter(m=ModelLimits(tokens_per_minute=1000, concurrency=100))
    for fields in ({"result": CallResult.CANCELLED, "input_tokens": 1, "output_tokens": 1}, {"result": CallResult.SUCCESS}):
        permit = limiter.grant(PermitSpec(model="m", input_tokens=100))
        limiter.report(permit, **fields)
    assert limiter.left("tokens_per_minute") == 800


def test_a_batch_below_its_least_charges_nothing() -> None:
    """I7: the truly denied keep their reason, the others say that too few could be had, and no counter moves."""
    limiter = Limiter(a=ModelLimits(requests_per_minute=60, tokens_per_minute=100, concurrency=5), b=ModelLimits(concurrency=1))
    limiter.grant("b")
    before = limiter.store.state()
    decisions = limiter.acquire(PermitSpec(model="a", input_tokens=10), "b", PermitSpec(model="a", input_tokens=10), min_granted=3)
    assert _reasons(decisions) == ["MIN_NOT_MET", "CONCURRENCY", "MIN_NOT_MET"]
    assert limiter.store.state() == before


def test_later_specs_see_what_earlier_ones_took() -> None:
    """Within a batch the order counts."""
    limiter = Limiter(m=ModelLimits(tokens_per_minute=100, concurrency=5))
    specs = [PermitSpec(model="m", input_tokens=tokens) for tokens in (60, 60, 40)]
    assert _reasons(limiter.acquire(*specs)) == ["granted", "TOKENS", "granted"]


def test_a_dry_run_leaves_no_trace() -> None:
    """It decides, but nothing is taken and nothing can be reported."""
    limiter = Limiter()
    decisions = limiter.acquire("m", "m", "m", dry_run=True, request_id="same")
    assert _reasons(decisions) == ["granted", "granted", "CONCURRENCY"]
    assert [decision.permit_id for decision in decisions if isinstance(decision, Permit)] == ["", ""]
    assert limiter.store.state().models[0].in_flight == 0
    assert limiter.store.remembered == 0


def test_i6_a_repeated_acquire_returns_the_same_permits() -> None:
    """Grants come again with what is left of their leases; denials are judged afresh; nothing is charged twice."""
    limiter = Limiter()
    first = limiter.acquire("m", "m", "m", request_id="same")
    limiter.now += 4
    again = limiter.acquire("m", "m", "m", request_id="same")
    assert [d.permit_id for d in again if isinstance(d, Permit)] == [d.permit_id for d in first if isinstance(d, Permit)]
    assert [d.lease_seconds for d in again if isinstance(d, Permit)] == pytest.approx([6, 6])
    assert limiter.store.state().models[0].in_flight == 2
    assert isinstance(first[0], Permit)
    limiter.report(first[0].permit_id)
    third = limiter.acquire("m", "m", "m", request_id="same")
    assert _reasons(third) == ["granted"] * 3
    assert isinstance(third[0], Permit)
    assert third[0].lease_seconds == 0.0
    assert limiter.store.state().models[0].in_flight == 2


def test_a_request_id_is_for_one_batch() -> None:
    """The same id with other specs is refused and names the field."""
    limiter = Limiter()
    limiter.acquire("m", request_id="same")
    with pytest.raises(InvalidInput) as caught:
        limiter.acquire("m", "m", request_id="same")
    assert caught.value.violations[0].field == "request_id"


def test_i6_a_repeated_report_changes_nothing() -> None:
    """The second report of a permit, and one of a permit nobody knows, say so and do nothing."""
    limiter = Limiter(m=ModelLimits(tokens_per_minute=1000, concurrency=5))
    permit = limiter.grant(PermitSpec(model="m", input_tokens=100))
    limiter.report(permit, input_tokens=10, output_tokens=0)
    before = limiter.store.state()
    assert limiter.report(permit, CallResult.FAILURE, input_tokens=0, output_tokens=0) is Settlement.DUPLICATE
    assert limiter.report("nobody") is Settlement.UNKNOWN
    assert limiter.store.state() == before


def test_a_lease_that_ends_frees_the_place_but_not_the_tokens() -> None:
    """A holder that died blocks nobody for longer than his lease; what he reserved may have been used."""
    limiter = Limiter(m=ModelLimits(tokens_per_minute=600, concurrency=1))
    limiter.grant(PermitSpec(model="m", input_tokens=500), lease=1)
    limiter.now += 1
    assert limiter.store.state().models[0].in_flight == 0
    # Ten have come back in the second by themselves.
    assert limiter.left("tokens_per_minute") == 110
    limiter.grant()


def test_a_late_report_charges_only_what_was_used_beyond() -> None:
    """Within the grace it counts as late, once; after it nobody knows the permit any more."""
    limiter = Limiter(m=ModelLimits(tokens_per_minute=60_000, concurrency=5))
    early, over, gone = (limiter.grant(PermitSpec(model="m", input_tokens=30_000 if number == 0 else 100), lease=10) for number in range(3))
    limiter.now += 15
    before = limiter.left("tokens_per_minute")
    assert limiter.report(early, input_tokens=0, output_tokens=0) is Settlement.LATE
    assert limiter.left("tokens_per_minute") == before
    assert limiter.report(over, input_tokens=600, output_tokens=0) is Settlement.LATE
    assert limiter.left("tokens_per_minute") == before - 500
    assert limiter.report(over, input_tokens=600, output_tokens=0) is Settlement.DUPLICATE
    limiter.now += 15.1
    assert limiter.report(gone) is Settlement.UNKNOWN


def test_a_release_gives_everything_back() -> None:
    """Requests, tokens and the place, once; an expired permit has nothing to give."""
    limiter = Limiter(m=ModelLimits(requests_per_minute=6, request_burst=2, tokens_per_minute=60, concurrency=1))
    before = limiter.store.state()
    permit = limiter.grant(PermitSpec(model="m", input_tokens=50))
    assert limiter.store.release([permit, "nobody"]) == (Settlement.SETTLED, Settlement.UNKNOWN)
    assert limiter.store.state() == before
    assert limiter.store.release([permit]) == (Settlement.DUPLICATE,)
    assert limiter.report(permit) is Settlement.DUPLICATE
    expired = limiter.grant(lease=1)
    limiter.now += 2
    assert limiter.store.release([expired]) == (Settlement.LATE,)


def test_a_renewed_lease_lasts_longer() -> None:
    """The place stays taken until the new end, which is cut to the longest lease; what has ended cannot be renewed."""
    limiter = Limiter(m=ModelLimits(concurrency=1))
    permit = limiter.grant(lease=10)
    limiter.now += 9
    (renewal,) = limiter.store.renew([permit], 1000)
    assert renewal.lease_seconds == RULES.longest_lease_seconds
    limiter.now += 50
    assert _reasons(limiter.acquire("m")) == ["CONCURRENCY"]
    limiter.now += 50
    limiter.grant()
    assert limiter.store.renew([permit, "nobody"], 10)[0].lease_seconds is None


@pytest.mark.parametrize(("asked", "waits"), [(7.0, [7.0]), (500.0, [120.0]), (None, [1.0, 2.0, 4.0])])
def test_a_throttling_provider_is_left_alone(asked: float | None, waits: list[float]) -> None:
    """For as long as it asked, at most 120 s; else for a doubling while; a success ends the doubling."""
    limiter = Limiter()
    for seconds in waits:
        limiter.report(limiter.grant(), CallResult.THROTTLED, retry_after_seconds=asked)
        (denial,) = limiter.acquire("m")
        assert isinstance(denial, Denial)
        assert denial.reason is DenialReason.PROVIDER_BACKOFF
        assert denial.retry_after_seconds == pytest.approx(seconds)
        assert limiter.store.state().models[0].provider_backoff_seconds == pytest.approx(seconds)
        limiter.now += seconds
    limiter.report(limiter.grant(), CallResult.SUCCESS)
    limiter.report(limiter.grant(), CallResult.THROTTLED)
    (denial,) = limiter.acquire("m")
    assert isinstance(denial, Denial)
    assert denial.retry_after_seconds == pytest.approx(1.0)


def test_the_longest_obstacle_is_told() -> None:
    """Where several limits refuse, the one that takes longest to heal names the wait; after it, all have healed (L3)."""
    limiter = Limiter(m=ModelLimits(requests_per_minute=60, request_burst=1, concurrency=1))
    permit = limiter.grant(lease=30)
    (denial,) = limiter.acquire("m")
    assert isinstance(denial, Denial)
    assert denial.reason is DenialReason.CONCURRENCY
    limiter.report(permit)
    (denial,) = limiter.acquire("m")
    assert isinstance(denial, Denial)
    assert denial.reason is DenialReason.REQUESTS
    limiter.now += denial.retry_after_seconds or 0
    limiter.grant()


def test_i8_half_open_lets_one_probe_through_and_its_lease_frees_it() -> None:
    """While the probe is out everybody else waits; a probe undone with its batch gives the slot back."""
    limiter = Limiter(m=ModelLimits(concurrency=10, breaker=BreakerRules(consecutive_failures=1)), n=ModelLimits(concurrency=1))
    limiter.report(limiter.grant(), CallResult.FAILURE)
    assert _reasons(limiter.acquire("m")) == ["BREAKER_OPEN"]
    limiter.now += 10
    limiter.grant("n")
    assert _reasons(limiter.acquire("m", "n", min_granted=2)) == ["MIN_NOT_MET", "CONCURRENCY"]
    probe, other = limiter.acquire("m", "m", lease=5)
    assert isinstance(probe, Permit)
    assert probe.probe
    assert isinstance(other, Denial)
    assert other.reason is DenialReason.BREAKER_OPEN
    assert other.retry_after_seconds == pytest.approx(5)
    limiter.now += 5
    limiter.grant()
    assert limiter.store.state(["m"]).models[0].breaker.state is BreakerState.HALF_OPEN


def test_a_closed_breaker_lets_the_load_come_back_slowly() -> None:
    """After closing one call at a time, then two, until the limit."""
    limiter = Limiter(m=ModelLimits(concurrency=3, breaker=BreakerRules(consecutive_failures=1, good_probes=1)))
    limiter.report(limiter.grant(), CallResult.FAILURE)
    limiter.now += 10
    limiter.report(limiter.grant(), CallResult.SUCCESS)
    assert _reasons(limiter.acquire("m", "m")) == ["granted", "CONCURRENCY"]
    limiter.report("p2", CallResult.SUCCESS)
    assert _reasons(limiter.acquire("m", "m", "m")) == ["granted", "granted", "CONCURRENCY"]
    for number in range(3, 10):
        limiter.report(f"p{number}", CallResult.SUCCESS)
    assert _reasons(limiter.acquire("m", "m", "m")) == ["granted"] * 3


def test_the_surplus_over_a_ramp_waits_for_enough_ends() -> None:
    """When more calls are under way than are allowed now, the wait reaches to the end that makes room."""
    limiter = Limiter(m=ModelLimits(concurrency=3, breaker=BreakerRules(consecutive_failures=1, good_probes=1)))
    failing = limiter.grant(lease=90)
    limiter.grant(lease=30)
    limiter.grant(lease=60)
    limiter.report(failing, CallResult.FAILURE)
    limiter.now += 6
    probe = limiter.acquire("m")[0]
    assert isinstance(probe, Permit)
    limiter.report(probe.permit_id, CallResult.SUCCESS)
    (denial,) = limiter.acquire("m")
    assert isinstance(denial, Denial)
    # Two are under way, one is allowed: the second end makes room.
    assert denial.retry_after_seconds == pytest.approx(54)


def test_an_unknown_model_charges_nothing() -> None:
    """It is named, and the rest of its batch is not touched."""
    limiter = Limiter()
    with pytest.raises(NotFound):
        limiter.acquire("m", "nobody")
    with pytest.raises(NotFound):
        limiter.store.state(["nobody"])
    assert limiter.store.state().models[0].in_flight == 0


def test_i5_after_all_ends_nothing_is_remembered() -> None:
    """When everything has ended and the windows have passed, the state is that of a fresh store, and so is its memory."""
    limiter = Limiter(m=ModelLimits(requests_per_minute=600, tokens_per_minute=6000, concurrency=50))
    fresh = limiter.store.state()
    for number in range(40):
        permit = limiter.grant(PermitSpec(model="m", input_tokens=10), lease=5)
        match number % 4:
            case 0:
                limiter.report(permit, input_tokens=5, output_tokens=5)
            case 1:
                limiter.store.release([permit])
            case 2:
                limiter.store.renew([permit], 8)
        limiter.now += 0.2
    limiter.now += 300
    assert limiter.store.state() == fresh
    assert limiter.store.remembered == 0
    assert limiter.store._lease_heap == limiter.store._forget_heap == []
