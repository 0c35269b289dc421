"""Watching a store on virtual time: first everything, then only what has changed, until it is stopped."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from services.chassis.errors import DependencyUnavailable, NotFound
from services.limiter.ledger import Ledger
from services.limiter.limits import Limits, ModelLimits, TenantLimits
from services.limiter.watch import INTERVAL_SECONDS, Watch
from services.models.permits import AcquireRequest, CallResult, LimiterState, OverrideMode, Permit, PermitOutcome, PermitSpec
from tests.support.scripted_store import ScriptedStore
from tests.support.virtual_time import run_virtual

LIMITS = Limits(models={"m": ModelLimits(), "n": ModelLimits()}, tenants={"t": TenantLimits(budget_per_day=1000), "u": TenantLimits()})
Names = tuple[list[str], list[str]]


class Watched:
    """A store that is watched, on the loop's own clock."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.ledger = Ledger(LIMITS, clock=self._loop.time, wall_clock=self._loop.time, uniform=lambda low, _: low)
        self.store = ScriptedStore(self.ledger)
        self.watch = Watch(self.store)
        self._asked = 0

    def later(self, seconds: float, change: Callable[[], object]) -> None:
        """Let something happen after a while."""
        self._loop.call_later(seconds, change)

    def grant(self, model: str = "m", tenant: str = "", cost: int = 0) -> str:
        """Grant a permit."""
        self._asked += 1
        request = AcquireRequest(request_id=f"r{self._asked}", specs=(PermitSpec(model=model, cost_micro_usd=cost),), tenant=tenant, lease_seconds=500)
        (permit,) = self.ledger.acquire(request).decisions
        assert isinstance(permit, Permit)
        return permit.permit_id

    def report(self, permit: str, result: CallResult, **fields: Any) -> None:
        """End a call."""
        self.ledger.report([PermitOutcome(permit_id=permit, result=result, **fields)])


def _names(state: LimiterState) -> Names:
    return [one.model for one in state.models], [one.tenant for one in state.tenants]


async def _next(stream: AsyncIterator[LimiterState], most_seconds: float = 1000) -> Names | None:
    """Return who is in the next message; None where none comes in that time, after which the stream is of no use any more."""
    try:
        async with asyncio.timeout(most_seconds):
            return _names(await anext(stream))
    except TimeoutError:
        return None


def test_first_the_whole_then_only_what_changes() -> None:
    """A change is told at the next look, alone; one that nobody is watching at all takes nothing."""

    async def scenario() -> None:
        watched = Watched()
        stream = watched.watch.follow()
        assert await _next(stream) == (["m", "n"], ["t", "u"])
        watched.later(1.2, lambda: watched.grant("n"))
        assert await _next(stream) == (["n"], [])
        assert asyncio.get_running_loop().time() == pytest.approx(3 * INTERVAL_SECONDS)
        watched.later(0.1, lambda: watched.grant("m", "t", cost=5))
        assert await _next(stream) == (["m"], ["t"])
        assert await _next(stream, 50) is None

    run_virtual(scenario())


def test_a_change_that_was_undone_between_two_looks_is_none() -> None:
    """What is told is the state, not its history."""

    async def scenario() -> None:
        watched = Watched()
        stream = watched.watch.follow()
        await anext(stream)
        permits: list[str] = []
        watched.later(0.1, lambda: permits.append(watched.grant()))
        watched.later(0.2, lambda: watched.ledger.release(permits))
        assert await _next(stream, 50) is None

    run_virtual(scenario())


def test_times_that_only_run_down_are_no_change() -> None:
    """Open breakers, pauses of providers, overrides and periods are told when they begin and when they end."""

    async def scenario() -> None:
        watched = Watched()
        stream = watched.watch.follow(["m", "n"], ["t"])
        await anext(stream)
        watched.report(watched.grant("m"), CallResult.AUTH)
        watched.report(watched.grant("n"), CallResult.THROTTLED, retry_after_seconds=100.0)
        assert await _next(stream) == (["m", "n"], [])
        assert await _next(stream) == (["n"], [])
        assert asyncio.get_running_loop().time() == pytest.approx(100.0)
        watched.ledger.override("n", OverrideMode.DISABLED, 50)
        assert await _next(stream) == (["n"], [])
        assert await _next(stream) == (["n"], [])
        assert asyncio.get_running_loop().time() == pytest.approx(150.0)
        state = await anext(stream)
        assert (_names(state), state.models[0].breaker.state) == ((["m"], []), "HALF_OPEN")
        assert asyncio.get_running_loop().time() == pytest.approx(300.0)

    run_virtual(scenario())


def test_only_those_who_are_named_are_watched() -> None:
    """In the order asked for; what changes elsewhere is not told. Without tenants by name, all of them are."""

    async def scenario() -> None:
        watched = Watched()
        stream = watched.watch.follow(["n"], ["u", "t"])
        assert await _next(stream) == (["n"], ["u", "t"])
        watched.grant("m", "u")
        assert await _next(stream) == ([], ["u"])

    run_virtual(scenario())


def test_an_unknown_name_ends_the_watching() -> None:
    """As it does any question; also when it becomes unknown while it is watched."""

    async def scenario() -> None:
        watched = Watched()
        with pytest.raises(NotFound):
            await anext(watched.watch.follow(["nobody"]))
        with pytest.raises(NotFound):
            await anext(watched.watch.follow([], ["nobody"]))
        stream = watched.watch.follow(["n"])
        await anext(stream)
        watched.ledger.follow(Limits(models={"m": ModelLimits()}))
        with pytest.raises(NotFound):
            await anext(stream)

    run_virtual(scenario())


def test_another_version_is_a_change_by_itself() -> None:
    """Limits that concern nobody who is watched are told by an empty message with the new version; being degraded is, likewise."""

    async def scenario() -> None:
        watched = Watched()
        stream = watched.watch.follow(["m"], ["t"])
        assert (await anext(stream)).config_version == 1
        watched.ledger.follow(Limits(models={**LIMITS.models, "o": ModelLimits()}, tenants=LIMITS.tenants))
        state = await anext(stream)
        assert (state.config_version, _names(state)) == (2, ([], []))
        assert await _next(stream, 50) is None

    run_virtual(scenario())


def test_watchers_do_not_see_each_other() -> None:
    """Each is told the whole first, whenever it comes."""

    async def scenario() -> None:
        watched = Watched()
        first = watched.watch.follow(["m"], ["t"])
        await anext(first)
        watched.grant("m")
        second = watched.watch.follow(["m"], ["t"])
        assert await _next(second) == (["m"], ["t"])
        assert await _next(first) == (["m"], [])
        watched.grant("m")
        assert (await _next(first), await _next(second)) == ((["m"], []), (["m"], []))

    run_virtual(scenario())


def test_being_stopped_ends_all_watching_at_once() -> None:
    """Those who wait for the next look are told immediately, and those who come later too, so that no stream holds up the end of the server."""

    async def scenario() -> None:
        watched = Watched()
        stream = watched.watch.follow()
        await anext(stream)
        watched.later(0.125, watched.watch.stop)
        with pytest.raises(DependencyUnavailable):
            await anext(stream)
        assert asyncio.get_running_loop().time() == pytest.approx(0.125)
        with pytest.raises(DependencyUnavailable):
            await anext(watched.watch.follow())

    run_virtual(scenario())
