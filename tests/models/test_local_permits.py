"""Permits that a process grants itself: a share of the limits, honest denials, and nothing that is held for ever."""

import itertools
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.chassis.configuration import Configuration, LimitsSection
from services.chassis.errors import NotFound
from services.models.local_permits import AWAY_SECONDS, PREFIX, LimiterDown, LocalLimits, LocalPermits
from services.models.permits import AcquireRequest, CallResult, Denial, DenialReason, Permit, PermitOutcome, PermitSpec, Settlement

DOWN = LimiterDown(policy="local_share", share=0.25)


@dataclass(slots=True, kw_only=True)
class Local:
    """Local permits on a clock that stands until it is moved, with the least jitter."""

    limits: dict[str, LocalLimits | None]
    now: float = 1000.0
    permits: LocalPermits = field(init=False)

    def __post_init__(self) -> None:
        numbers = itertools.count()
        self.permits = LocalPermits(self.limits, clock=lambda: self.now, uniform=lambda least, _: least, new_id=lambda: str(next(numbers)))

    def ask(self, *models: str, tokens: int = 0, **fields: Any) -> list[Permit | Denial]:
        """Ask for a permit for each model."""
        specs = tuple(PermitSpec(model=model, input_tokens=tokens // 2, max_output_tokens=tokens - tokens // 2) for model in models)
        reply = self.permits.acquire(AcquireRequest(request_id="r", specs=specs, **fields))
        assert reply.degraded
        return list(reply.decisions)

    def grant(self, model: str = "m", **fields: Any) -> Permit:
        """Ask for one permit that must be granted."""
        (decision,) = self.ask(model, **fields)
        assert isinstance(decision, Permit), decision
        return decision

    def deny(self, model: str = "m", **fields: Any) -> Denial:
        """Ask for one permit that must be denied."""
        (decision,) = self.ask(model, **fields)
        assert isinstance(decision, Denial), decision
        return decision

    def report(self, permit: Permit, result: CallResult = CallResult.SUCCESS, **fields: Any) -> Settlement:
        """Report one permit."""
        return self.permits.settle(PermitOutcome(permit_id=permit.permit_id, result=result, **fields))


def _one(**limits: Any) -> Local:
    return Local(limits={"m": LocalLimits(**{"concurrency": 100, **limits})})


@pytest.mark.parametrize(
    ("section", "share", "expected"),
    [
        (LimitsSection(), 0.25, LocalLimits(concurrency=2)),
        (LimitsSection(concurrency=3), 0.25, LocalLimits(concurrency=1)),
        (LimitsSection(concurrency=7), 0.5, LocalLimits(concurrency=3)),
        (LimitsSection(concurrency=100), 0.29, LocalLimits(concurrency=29)),
        (LimitsSection(concurrency=5), 1.0, LocalLimits(concurrency=5)),
        (LimitsSection(requests_per_minute=63), 0.25, LocalLimits(concurrency=2, requests_per_minute=15, request_burst=2)),
        (LimitsSection(requests_per_minute=600, request_burst=10), 0.25, LocalLimits(concurrency=2, requests_per_minute=150, request_burst=2)),
        (LimitsSection(requests_per_minute=3, request_burst=1), 0.25, LocalLimits(concurrency=2, requests_per_minute=0, request_burst=1)),
        (LimitsSection(tokens_per_minute=1001), 0.25, LocalLimits(concurrency=2, tokens_per_minute=250, largest_call=1001)),
    ],
)
def test_a_share_is_rounded_down_but_for_one_call(section: LimitsSection, share: float, expected: LocalLimits) -> None:
    """Several processes' shares together stay within the limit; one call at once is always possible."""
    assert LocalLimits.share_of(section, share) == expected


@given(st.integers(1, 10_000), st.floats(0.001, 1))
def test_shares_sum_to_no_more_than_the_limit(limit: int, share: float) -> None:
    """As many processes as the share is meant for have at most the whole limit together."""
    part = LocalLimits.share_of(LimitsSection(requests_per_minute=limit, tokens_per_minute=limit), share)
    for rate in (part.requests_per_minute, part.tokens_per_minute):
        assert rate is not None
        assert rate * int(1 / share) <= limit


def _configuration(**overrides: Any) -> Configuration:
    model = {"provider": "p", "name": "n"}
    models = {
        "tight": {**model, "limits": {"concurrency": 4, "requests_per_minute": 60}},
        "measured": {**model, "limits": {"concurrency": 4, "metrics_only": True}},
    }
    return Configuration.model_validate({"providers": {"p": {"kind": "openai", "base_url": "http://127.0.0.1:1/v1"}}, "models": models, **overrides})


def test_each_policy_makes_what_it_wants() -> None:
    """Deny stands in for nothing, a share limits, allow does not; models that are only measured are not limited either."""
    assert LocalPermits.from_configuration(_configuration(), LimiterDown()) is None
    shared = LocalPermits.from_configuration(_configuration(), DOWN)
    free = LocalPermits.from_configuration(_configuration(), LimiterDown(policy="allow"))
    measured = LocalPermits.from_configuration(_configuration(limiter={"metrics_only": True}), DOWN)
    assert shared is not None
    assert free is not None
    assert measured is not None
    assert (shared.limited, free.limited, measured.limited) == (True, False, False)

    def granted(permits: LocalPermits, model: str) -> int:
        reply = permits.acquire(AcquireRequest(request_id="r", specs=(PermitSpec(model=model),) * 50))
        return sum(isinstance(decision, Permit) for decision in reply.decisions)

    assert (granted(shared, "tight"), granted(shared, "measured")) == (1, 50)
    assert (granted(free, "tight"), granted(measured, "tight")) == (50, 50)


def test_concurrency_is_a_share_and_a_reported_call_makes_room() -> None:
    """Beyond the share the denial says when the first lease ends; a report or a release frees the place at once."""
    local = _one(concurrency=2)
    first, second = local.grant(lease_seconds=30), local.grant(lease_seconds=20)
    assert first.permit_id.startswith(PREFIX)
    assert first.permit_id != second.permit_id
    denial = local.deny()
    assert (denial.reason, denial.limit, denial.limit_value, denial.remaining) == (DenialReason.CONCURRENCY, "model/m/concurrency", 2, 0)
    assert denial.retry_after_seconds == 20
    assert local.report(first) is Settlement.SETTLED
    third = local.grant()
    assert local.permits.release(third.permit_id) is Settlement.SETTLED
    local.grant()
    local.deny()


def test_a_lost_report_blocks_no_place_for_ever() -> None:
    """A lease ends by itself when it said it would, not before; a report that comes after it changes nothing."""
    local = _one(concurrency=1, tokens_per_minute=600, largest_call=600)
    lost = local.grant(lease_seconds=30, tokens=600)
    local.now += 29.9
    retry = local.deny().retry_after_seconds
    assert retry == pytest.approx(0.1)
    local.now += 0.1
    held = local.grant()
    assert local.report(lost, input_tokens=0, output_tokens=0) is Settlement.UNKNOWN
    assert local.permits.release(lost.permit_id) is Settlement.UNKNOWN
    assert local.deny().reason is DenialReason.CONCURRENCY
    # What the lost call had reserved may have been used, so only time brings it back.
    local.report(held)
    assert local.deny(tokens=301).reason is DenialReason.TOKENS
    local.grant(tokens=300)


def test_requests_come_at_the_rate() -> None:
    """A burst, then one at a time; the wait that a denial names is enough, and none less is."""
    local = _one(requests_per_minute=12, request_burst=2)
    local.grant()
    local.grant()
    denial = local.deny()
    assert (denial.reason, denial.limit, denial.limit_value, denial.retry_after_seconds) == (DenialReason.REQUESTS, "model/m/requests_per_minute", 12, 5.0)
    local.now += 4.999
    local.deny()
    local.now += 0.001
    local.grant()
    local.deny()


def test_tokens_come_at_the_rate() -> None:
    """Prompt and cap are reserved; the wait that a denial names is enough."""
    local = _one(tokens_per_minute=600, largest_call=2400)
    assert local.grant(tokens=500).reserved_tokens == 500
    denial = local.deny(tokens=200)
    assert (denial.reason, denial.limit_value, denial.remaining, denial.retry_after_seconds) == (DenialReason.TOKENS, 600, 100, 10.0)
    local.now += 10
    local.grant(tokens=200)


@pytest.mark.parametrize(
    ("result", "reported", "left"),
    [
        (CallResult.SUCCESS, {"input_tokens": 50, "output_tokens": 50}, 500),
        (CallResult.FAILURE, {"input_tokens": 0, "output_tokens": 0}, 600),
        (CallResult.SUCCESS, {"output_tokens": 100}, 500),
        (CallResult.SUCCESS, {}, 200),
        (CallResult.SUCCESS, {"input_tokens": 300, "output_tokens": 200}, 100),
        # Whoever leaves early is billed for what goes on behind him.
        (CallResult.CANCELLED, {"input_tokens": 10, "output_tokens": 10}, 200),
        (CallResult.CANCELLED, {"input_tokens": 300, "output_tokens": 200}, 100),
    ],
)
def test_a_report_corrects_what_was_reserved(result: CallResult, reported: dict[str, int], left: int) -> None:
    """Unused tokens come back, and what was used beyond the reservation is charged."""
    local = _one(tokens_per_minute=600, largest_call=2400)
    local.report(local.grant(tokens=400), result, **reported)
    assert local.deny(tokens=left + 1).reason is DenialReason.TOKENS
    local.grant(tokens=left)


def test_a_permit_ends_once() -> None:
    """A second report and a release after it give nothing back."""
    local = _one(concurrency=2, tokens_per_minute=600, largest_call=600)
    other, permit = local.grant(tokens=100), local.grant(tokens=500)
    assert local.report(permit) is Settlement.SETTLED
    assert local.report(permit, input_tokens=0) is Settlement.UNKNOWN
    assert local.permits.release(permit.permit_id) is Settlement.UNKNOWN
    assert local.deny(tokens=1).reason is DenialReason.TOKENS
    assert local.permits.release(other.permit_id) is Settlement.SETTLED
    local.grant(tokens=100)


def test_what_no_share_covers_is_for_the_limiter() -> None:
    """A call that is too large for the share may be tried again when the limiter is back; one that is too large for it, never."""
    local = _one(tokens_per_minute=600, largest_call=2400)
    denial = local.deny(tokens=601)
    assert (denial.reason, denial.retry_after_seconds) == (DenialReason.TOKENS, AWAY_SECONDS)
    denial = local.deny(tokens=2401)
    assert (denial.reason, denial.retry_after_seconds, denial.limit_value) == (DenialReason.TOO_LARGE, None, 2400)
    local.grant(tokens=600)


@pytest.mark.parametrize("rates", [{"requests_per_minute": 0}, {"tokens_per_minute": 0, "largest_call": 3}])
def test_a_share_of_nothing_grants_nothing(rates: dict[str, int]) -> None:
    """A rate that is too small to be shared is for the limiter alone."""
    assert _one(**rates).deny().retry_after_seconds == AWAY_SECONDS


def test_the_longest_wait_is_told() -> None:
    """Where several limits refuse, the one that takes longest to heal is named."""
    local = _one(concurrency=1, requests_per_minute=6, request_burst=1)
    permit = local.grant(lease_seconds=5)
    assert local.deny().reason is DenialReason.REQUESTS
    local.now += 3
    local.permits.release(permit.permit_id)
    local.grant(lease_seconds=50)
    assert local.deny().reason is DenialReason.CONCURRENCY


def test_waits_are_spread_upwards() -> None:
    """Those who were told the same do not all come back at once, and none too early."""
    permits = LocalPermits({"m": LocalLimits(concurrency=1)}, clock=lambda: 0.0)
    request = AcquireRequest(request_id="r", specs=(PermitSpec(model="m"),), lease_seconds=10.0)
    permits.acquire(request)
    waits = [decision.retry_after_seconds for _ in range(20) for decision in permits.acquire(request).decisions if isinstance(decision, Denial)]
    assert len(set(waits)) > 1
    assert all(wait is not None and 10.0 <= wait <= 12.0 for wait in waits)


def test_later_ones_of_a_batch_see_what_earlier_ones_took() -> None:
    """A batch is decided in its order."""
    local = _one(concurrency=2)
    assert [type(decision) for decision in local.ask("m", "m", "m")] == [Permit, Permit, Denial]


def test_fewer_than_the_least_worth_having_take_nothing() -> None:
    """Nothing is charged, those that could have been had say so, and the others why not."""
    local = Local(
        limits={"a": LocalLimits(concurrency=1, requests_per_minute=6, tokens_per_minute=60, largest_call=60), "b": LocalLimits(concurrency=1), "c": None}
    )
    busy = local.grant("b")
    decisions = local.ask("a", "b", "c", tokens=60, min_granted=3)
    assert [decision.reason if isinstance(decision, Denial) else None for decision in decisions] == [
        DenialReason.MIN_NOT_MET,
        DenialReason.CONCURRENCY,
        DenialReason.MIN_NOT_MET,
    ]
    local.report(busy)
    assert all(isinstance(decision, Permit) for decision in local.ask("a", "b", "c", tokens=60, min_granted=3))


def test_a_trial_takes_nothing() -> None:
    """A dry run says what would be granted, without ids, and leaves everything as it was."""
    local = _one(concurrency=1, requests_per_minute=6, tokens_per_minute=60, largest_call=60)
    for _ in range(3):
        granted, denied = local.ask("m", "m", tokens=60, dry_run=True)
        assert isinstance(granted, Permit)
        assert granted.permit_id == ""
        assert isinstance(denied, Denial)
    local.grant(tokens=60)


def test_a_model_without_limits_is_never_denied() -> None:
    """Its permits are counted all the same, and end like all others."""
    local = Local(limits={"m": None})
    permits = [local.grant(tokens=10**9, lease_seconds=5) for _ in range(100)]
    assert len({permit.permit_id for permit in permits}) == 100
    assert local.report(permits[0]) is Settlement.SETTLED
    assert local.permits.release(permits[1].permit_id) is Settlement.SETTLED
    local.now += 5
    assert local.report(permits[2]) is Settlement.UNKNOWN


def test_an_unknown_model_takes_nothing() -> None:
    """The mistake is named as the limiter would name it, before anything is taken."""
    local = _one(concurrency=1)
    with pytest.raises(NotFound):
        local.ask("m", "nobody")
    local.grant()


calls = st.lists(
    st.tuples(st.sampled_from(["ask", "report", "release", "lose", "wait"]), st.integers(0, 40), st.floats(0, 20)),
    max_size=60,
)


@given(calls)
def test_no_history_gets_more_than_the_share(steps: list[tuple[str, int, float]]) -> None:
    """At every moment at most the share is under way, no stretch of time begins more than burst and rate allow, and after all leases everything is back."""
    local = _one(concurrency=3, requests_per_minute=30, request_burst=5, tokens_per_minute=300, largest_call=300)
    open_until: dict[str, float] = {}
    starts: list[float] = []
    for kind, number, seconds in steps:
        open_until = {permit_id: end for permit_id, end in open_until.items() if end > local.now}
        if kind == "ask":
            (decision,) = local.ask("m", tokens=number, lease_seconds=seconds + 0.001)
            if isinstance(decision, Permit):
                open_until[decision.permit_id] = local.now + seconds + 0.001
                starts.append(local.now)
            assert len(open_until) <= 3
        elif kind == "wait":
            local.now += seconds
        elif open_until and kind != "lose":
            permit_id = sorted(open_until)[number % len(open_until)]
            del open_until[permit_id]
            if kind == "release":
                local.permits.release(permit_id)
                # What was never sent makes room for others; how many are sent then is the bucket's own affair.
                starts.clear()
            else:
                local.permits.settle(PermitOutcome(permit_id=permit_id, result=CallResult.SUCCESS, input_tokens=number))
    for first, begin in enumerate(starts):
        for last in range(first, len(starts)):
            assert last - first + 1 <= 5 + (starts[last] - begin) * 30 / 60 + 1e-6
    local.now += 600
    assert all(isinstance(decision, Permit) for decision in local.ask("m", "m", "m", tokens=100))
