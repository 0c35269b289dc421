"""A store that may be down: what is granted meanwhile, what is said about it, and how it goes on when the store is back."""

import asyncio
import logging
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.chassis.errors import DependencyUnavailable, InvalidInput, NotFound
from services.limiter.guarded_store import PREFIX, UNLIMITED, DownPolicies, local_limits
from services.limiter.limits import Limits, ModelLimits, TenantLimits
from services.models.permits import Denial, DenialReason, OverrideMode, Permit, PermitSpec, Settlement
from tests.support.scripted_store import LIMITS, Guarded


@settings(deadline=None)
@given(
    st.integers(1, 10**8),
    st.one_of(st.none(), st.integers(1, 10**8)),
    st.floats(0.0, 1.0),
    st.integers(1, 100),
)
def test_i9_the_shares_of_all_replicas_are_no_more_than_the_limit(limit: int, burst: int | None, share: float, replicas: int) -> None:
    """I9: of rates, bursts, concurrency and budgets, whatever the limit, the share and the number of replicas."""
    model = ModelLimits(requests_per_minute=limit, tokens_per_minute=limit, request_burst=burst, concurrency=limit)
    tenant = TenantLimits(
        requests_per_minute=limit, tokens_per_minute=limit, request_burst=burst, concurrency=limit, budget_per_day=limit, budget_per_month=limit
    )
    policies = DownPolicies(share=share, replicas=replicas, budgets="local_share")
    local = local_limits(Limits(models={"m": model}, tenants={"t": tenant}), policies)
    whole = [model.request_capacity, limit, limit, limit]
    ours, theirs = local.models["m"], local.tenants["t"]
    for one in (ours, theirs):
        parts = [one.request_capacity, one.requests_per_minute, one.tokens_per_minute, one.concurrency]
        assert all(part is not None and 0 <= part * replicas <= most for part, most in zip(parts, whole, strict=True))
    for budget in (theirs.budget_per_day, theirs.budget_per_month):
        assert budget is not None
        assert 0 <= budget * replicas <= limit


def test_what_is_not_limited_stays_so_and_allow_takes_limits_away() -> None:
    """Each kind by its own policy; what is denied keeps its part, which then is never granted."""
    local = local_limits(LIMITS, DownPolicies(rates="allow", concurrency="allow", budgets="allow"))
    model = local.models["m"]
    assert (model.requests_per_minute, model.tokens_per_minute, model.concurrency) == (None, None, UNLIMITED)
    assert (local.tenants["t"].budget_per_day, local.tenants["t"].concurrency) == (None, None)
    local = local_limits(LIMITS, DownPolicies(share=0.5, replicas=2))
    model = local.models["m"]
    assert (model.requests_per_minute, model.request_burst, model.tokens_per_minute, model.concurrency) == (15, 2, 250, 1)
    assert local.models["free"].requests_per_minute is None
    assert local.models["narrow"].concurrency == 0
    assert local.rules == LIMITS.rules


async def test_while_the_store_is_up_it_alone_decides() -> None:
    """Nothing is degraded, and errors of the question itself are passed on."""
    guarded = Guarded()
    reply = await guarded.reply("m", "m")
    assert not reply.degraded
    assert guarded.store.ledger.state(["m"]).models[0].in_flight == 2
    assert not (await guarded.guarded.state()).degraded
    with pytest.raises(NotFound):
        await guarded.reply("nobody")
    permit = await guarded.grant()
    assert not permit.startswith(PREFIX)
    assert await guarded.report(permit) == (Settlement.SETTLED,)
    assert not guarded.guarded.down
    await guarded.guarded.aclose()
    assert guarded.store.closed


async def test_while_it_is_down_a_share_is_granted() -> None:
    """Half of the limits, in replies and a state that say that they are degraded; the store's own counters stay."""
    guarded = Guarded()
    guarded.store.down = True
    reply = await guarded.reply(*["m"] * 5)
    assert (reply.degraded, guarded.guarded.down) == (True, True)
    assert [type(one) for one in reply.decisions] == [Permit] * 3 + [Denial] * 2
    denial = reply.decisions[3]
    assert isinstance(denial, Denial)
    assert (denial.reason, denial.limit_value) == (DenialReason.CONCURRENCY, 3)
    state = await guarded.guarded.state(["m"])
    assert (state.degraded, state.models[0].in_flight) == (True, 3)
    assert guarded.store.ledger.state(["m"]).models[0].in_flight == 0


@pytest.mark.parametrize(
    ("policies", "spec", "tenant", "expected"),
    [
        ({"rates": "deny"}, "m", "rich", "STORE_DOWN"),
        ({"rates": "deny"}, "free", "rich", "granted"),
        ({"rates": "deny"}, "free", "few", "STORE_DOWN"),
        ({"rates": "allow"}, "m", "few", "granted"),
        ({"concurrency": "deny"}, "free", "rich", "STORE_DOWN"),
        ({"concurrency": "allow"}, "narrow", "rich", "granted"),
        ({}, "narrow", "rich", "STORE_DOWN"),
        ({}, "free", "few", "granted"),
        ({"replicas": 3}, "free", "few", "STORE_DOWN"),
        ({"share": 0.0}, "free", "rich", "STORE_DOWN"),
        ({}, PermitSpec(model="free", cost_micro_usd=1), "t", "STORE_DOWN"),
        ({}, PermitSpec(model="free", cost_micro_usd=0), "t", "granted"),
        ({}, PermitSpec(model="free", cost_micro_usd=1), "rich", "granted"),
        ({"budgets": "local_share"}, PermitSpec(model="free", cost_micro_usd=500), "t", "granted"),
        ({"budgets": "local_share"}, PermitSpec(model="free", cost_micro_usd=501), "t", "STORE_DOWN"),
        ({"budgets": "local_share"}, PermitSpec(model="free", cost_micro_usd=1001), "t", "TOO_LARGE"),
        ({"budgets": "allow"}, PermitSpec(model="free", cost_micro_usd=5000), "t", "granted"),
    ],
)
async def test_each_kind_of_limit_has_its_policy(policies: dict[str, Any], spec: PermitSpec | str, tenant: str, expected: str) -> None:
    """deny, a local share, or no limit; a share that is nothing, or too small for the call, denies as well, and says that the store's return may help."""
    guarded = Guarded(**policies)
    guarded.store.down = True
    assert await guarded.reasons(spec, tenant=tenant) == [expected]


@pytest.mark.parametrize("policy", ["deny", "local_share", "allow"])
async def test_what_is_only_measured_denies_nothing_while_the_store_is_down(policy: str) -> None:
    """Limits that deny nothing while the store is there deny nothing while it is not, and are measured whole."""
    limits = Limits(
        models={"m": ModelLimits(requests_per_minute=1, concurrency=1, metrics_only=True)},
        tenants={"t": TenantLimits(budget_per_day=1, concurrency=1, metrics_only=True)},
    )
    guarded = Guarded(limits, rates=policy, concurrency=policy, budgets=policy, share=0.0)
    guarded.store.down = True
    reply = await guarded.reply(*[PermitSpec(model="m", cost_micro_usd=1)] * 3, tenant="t")
    assert reply.degraded
    assert [one.would_have_denied is None for one in reply.decisions if isinstance(one, Permit)] == [True, False, False]


async def test_the_default_tenants_limits_hold_for_those_without_a_name() -> None:
    """As they do in the store."""
    guarded = Guarded(Limits(models=LIMITS.models, tenants={"default": TenantLimits(budget_per_month=1000)}))
    guarded.store.down = True
    assert await guarded.reasons(PermitSpec(model="free", cost_micro_usd=1), "free") == ["STORE_DOWN", "granted"]


async def test_what_is_denied_says_when_to_ask_again() -> None:
    """A second, or as long as the store is not asked at all; the rest of the batch is decided as ever, in its order."""
    guarded = Guarded()
    guarded.store.down = True
    for _ in range(3):
        reply = await guarded.reply("narrow", "free", "narrow", "free")
        first, second, third, fourth = reply.decisions
        assert isinstance(first, Denial)
        assert (first.reason, first.model, first.limit) == (DenialReason.STORE_DOWN, "narrow", "store")
        assert first.retry_after_seconds == pytest.approx(1)
        assert isinstance(third, Denial)
        assert isinstance(second, Permit)
        assert isinstance(fourth, Permit)
    assert await guarded.reasons("narrow", "free", min_granted=2) == ["STORE_DOWN", "MIN_NOT_MET"]
    with pytest.raises(NotFound):
        await guarded.reply("narrow", "nobody")


async def test_i6_a_repeated_request_gets_the_same_permits_here_too() -> None:
    """While the store is down; other specs in the same name are refused; another part that is denied makes it another batch."""
    guarded = Guarded()
    guarded.store.down = True
    first, again = await guarded.reply("free", "m", request_id="same"), await guarded.reply("free", "m", request_id="same")
    assert first.decisions == again.decisions
    assert (await guarded.guarded.state(["free"])).models[0].in_flight == 1
    with pytest.raises(InvalidInput):
        await guarded.reply("m", "free", request_id="same")


async def test_permits_are_settled_where_they_were_granted() -> None:
    """Mixed batches are answered in their order, whether the store is back or not yet asked again."""
    guarded = Guarded()
    theirs = await guarded.grant("free")
    guarded.store.down = True
    ours = [one.permit_id for one in (await guarded.reply(*["free"] * 3)).decisions if isinstance(one, Permit)]
    assert all(permit.startswith(PREFIX) for permit in ours)
    assert await guarded.report(ours[0], PREFIX + "forged") == (Settlement.SETTLED, Settlement.UNKNOWN)
    guarded.store.down = False
    assert await guarded.report(ours[1], theirs, ours[0], "nobody") == (Settlement.SETTLED, Settlement.SETTLED, Settlement.DUPLICATE, Settlement.UNKNOWN)
    renewals = await guarded.guarded.renew([theirs, ours[2]], 60)
    assert [renewal.lease_seconds for renewal in renewals] == [None, 60]
    assert [renewal.permit_id for renewal in renewals] == [theirs, ours[2]]
    other = await guarded.grant("free")
    assert await guarded.guarded.release([other, ours[2], ours[2]]) == (Settlement.SETTLED, Settlement.SETTLED, Settlement.DUPLICATE)
    guarded.store.down = True
    assert not (await guarded.guarded.state()).models[0].in_flight


async def test_permits_of_the_store_cannot_be_settled_while_it_is_down() -> None:
    """The caller hears it, for he may try again; ours of the same batch are settled by then, and known as such."""
    guarded = Guarded()
    theirs = await guarded.grant("free")
    guarded.store.down = True
    ours = await guarded.grant("free")
    for work in (guarded.report(ours, theirs), guarded.guarded.release([theirs]), guarded.guarded.renew([theirs], 5)):
        with pytest.raises(DependencyUnavailable, match="store"):
            await work
    with pytest.raises(DependencyUnavailable):
        await guarded.guarded.override("m", OverrideMode.DISABLED, 5)
    guarded.store.down = False
    guarded.now += 30
    assert await guarded.report(ours, theirs) == (Settlement.DUPLICATE, Settlement.SETTLED)


async def test_its_own_permits_never_ask_the_store() -> None:
    """Nor does an empty part of a batch."""
    guarded = Guarded()
    guarded.store.down = True
    ours = await guarded.grant("free")
    asked = list(guarded.store.asked)
    assert await guarded.report(ours) == (Settlement.SETTLED,)
    assert guarded.store.asked == asked


async def test_a_thousand_failures_are_one_warning_and_the_return_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    """The log says what happened, not how often somebody asked."""
    caplog.set_level(logging.INFO, logger="services.limiter.guarded_store")
    guarded = Guarded()
    guarded.store.down = True
    for _ in range(1000):
        guarded.now += 0.5
        await guarded.reply("free")
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "the store is down (as told)" in caplog.text
    guarded.store.down = False
    guarded.now += 10
    for _ in range(10):
        await guarded.reply("free")
    assert [(record.levelname, record.getMessage()) for record in caplog.records[1:]] == [("INFO", "the store is back")]
    assert not guarded.guarded.down


async def test_after_three_failures_it_is_not_asked_for_a_while_then_once() -> None:
    """A second at first, twice as long after each probe that failed, at most five; one good probe and all ask again."""
    guarded = Guarded()
    guarded.store.down = True
    for _ in range(10):
        await guarded.reply("free")
    assert len(guarded.store.asked) == 3
    # The jitter of the tests takes a fifth off.
    for seconds in (0.8, 1.6, 3.2, 4.0, 4.0):
        asked = len(guarded.store.asked)
        guarded.now += seconds - 1e-6
        await guarded.reply("free")
        assert len(guarded.store.asked) == asked
        guarded.now += 1e-6
        await guarded.reply("free")
        await guarded.reply("free")
        assert len(guarded.store.asked) == asked + 1
    guarded.store.down = False
    guarded.now += 4
    for _ in range(5):
        assert not (await guarded.reply("free")).degraded


async def test_one_probe_at_a_time_and_a_cancelled_one_frees_its_slot() -> None:
    """Others are served from the local share while somebody finds out; if he gives up, the next one does."""
    guarded = Guarded()
    guarded.store.down = True
    for _ in range(3):
        await guarded.reply("free")
    guarded.now += 5
    guarded.store.down = False
    guarded.store.gate = asyncio.Event()
    probe = asyncio.create_task(guarded.reply("free"))
    while len(guarded.store.asked) < 4:
        await asyncio.sleep(0)
    assert (await guarded.reply("free")).degraded
    assert len(guarded.store.asked) == 4
    probe.cancel()
    with pytest.raises(asyncio.CancelledError):
        await probe
    guarded.store.gate = None
    assert not (await guarded.reply("free")).degraded
    # All at once, without a ramp.
    assert not any([(await guarded.reply("free")).degraded for _ in range(5)])


async def test_a_refusal_is_no_failure_of_the_store() -> None:
    """However many unknown models are asked for, and as a probe it shows that the store is there."""
    guarded = Guarded()
    for _ in range(10):
        with pytest.raises(NotFound):
            await guarded.reply("nobody")
    assert not (await guarded.reply("free")).degraded
    guarded.store.down = True
    for _ in range(3):
        await guarded.reply("free")
    guarded.now += 5
    guarded.store.down = False
    with pytest.raises(NotFound):
        await guarded.reply("nobody")
    assert not (await guarded.reply("free")).degraded


async def test_a_lost_reply_counts_as_a_failure() -> None:
    """Nobody knows what was done, so the caller is served here; the permit there ends with its lease."""
    guarded = Guarded()
    guarded.store.loses_replies = True
    reply = await guarded.reply("free")
    assert reply.degraded
    assert isinstance(reply.decisions[0], Permit)
    assert guarded.store.ledger.state(["free"]).models[0].in_flight == 1
