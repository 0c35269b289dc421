"""The limiter with what stands in for it: who decides when, what is asked how often, and what the log says of it."""

import asyncio
import logging
import socket
from collections.abc import Callable, Coroutine
from typing import Any

import grpc
import pytest
from opentelemetry.context import Context

from services.chassis.channel import open_channel
from services.chassis.errors import DeadlineSpent, DependencyUnavailable, EnsembleError, RemoteError
from services.chassis.telemetry import Telemetry
from services.models.fallback_permits import RETRY_SECONDS, FallbackPermits
from services.models.grpc_permits import GrpcPermits
from services.models.local_permits import PREFIX, LocalLimits, LocalPermits, LocalReply
from services.models.permits import AcquireReply, AcquireRequest, CallResult, Denial, Permit, PermitOutcome, Permits, PermitSpec, Settlement
from services.models.reporter import OutcomeReporter
from tests.support.scripted_permits import ScriptedPermits
from tests.support.virtual_time import run_virtual

AWAY = DependencyUnavailable("limiter")
SILENT = DeadlineSpent("the limiter")
REQUEST = AcquireRequest(request_id="r", specs=(PermitSpec(model="m"),))
HERE = Context()


def _local(*, limited: bool = True) -> LocalPermits:
    return LocalPermits({"m": LocalLimits(concurrency=10_000) if limited else None}, clock=lambda: asyncio.get_running_loop().time())


def _fallback(permits: Permits, local: LocalPermits | None) -> FallbackPermits:
    return FallbackPermits(permits, local, clock=asyncio.get_running_loop().time)


def _virtual(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    run_virtual(scenario())


def _id(reply: AcquireReply) -> str:
    (decision,) = reply.decisions
    assert isinstance(decision, Permit)
    return decision.permit_id


def _outcome(permit_id: str) -> PermitOutcome:
    return PermitOutcome(permit_id=permit_id, result=CallResult.SUCCESS)


@pytest.mark.parametrize("degraded", [False, True])
def test_a_limiter_that_answers_is_left_alone(degraded: bool) -> None:
    """Its replies come as they are, with its own word on its store."""
    permits = ScriptedPermits(degraded=degraded)

    async def scenario() -> None:
        reply = await _fallback(permits, _local()).acquire(REQUEST)
        assert not isinstance(reply, LocalReply)
        assert (_id(reply), reply.degraded) == ("theirs-1-0", degraded)

    _virtual(scenario)
    assert permits.asked == [REQUEST]


@pytest.mark.parametrize("error", [AWAY, SILENT])
@pytest.mark.parametrize("limited", [True, False])
def test_while_it_is_away_permits_are_granted_here(error: EnsembleError, limited: bool) -> None:
    """Gone or silent is the same; what is granted here says so, by its id and by its reply."""
    permits = ScriptedPermits(error=error)

    async def scenario() -> None:
        reply = await _fallback(permits, _local(limited=limited)).acquire(REQUEST)
        assert isinstance(reply, LocalReply)
        assert reply.degraded
        assert _id(reply).startswith(PREFIX)

    _virtual(scenario)


@pytest.mark.parametrize("error", [AWAY, SILENT])
def test_without_anything_that_stands_in_each_call_asks_and_fails(error: EnsembleError) -> None:
    """The error names the limiter and never the deadline, which is not the run's; a failure is not remembered."""
    permits = ScriptedPermits(error=error)

    async def scenario() -> None:
        fallback = _fallback(permits, None)
        for _ in range(3):
            with pytest.raises(DependencyUnavailable) as caught:
                await fallback.acquire(REQUEST)
            assert caught.value.service == "limiter"
        permits.error = None
        assert _id(await fallback.acquire(REQUEST)) == "theirs-4-0"

    _virtual(scenario)
    assert len(permits.asked) == 4


def test_a_refusal_of_the_limiter_is_passed_on() -> None:
    """Whoever answers with an error is there: nothing stands in for it."""
    refusal = RemoteError(code="INVALID_ARGUMENT", message="no", details=b"")
    permits = ScriptedPermits(error=refusal)

    async def scenario() -> None:
        fallback = _fallback(permits, _local())
        for _ in range(2):
            with pytest.raises(RemoteError):
                await fallback.acquire(REQUEST)

    _virtual(scenario)
    assert len(permits.asked) == 2


def test_it_is_asked_once_a_second_while_it_is_away() -> None:
    """Calls in between are decided here at once; the first one after the second finds out."""
    permits = ScriptedPermits(error=AWAY)

    async def scenario() -> None:
        fallback = _fallback(permits, _local())
        for _ in range(100):
            await fallback.acquire(REQUEST)
        assert len(permits.asked) == 1
        await asyncio.sleep(RETRY_SECONDS - 0.001)
        await fallback.acquire(REQUEST)
        assert len(permits.asked) == 1
        await asyncio.sleep(0.001)
        for _ in range(100):
            await fallback.acquire(REQUEST)
        assert len(permits.asked) == 2
        permits.error = None
        assert _id(await fallback.acquire(REQUEST)).startswith(PREFIX)
        await asyncio.sleep(RETRY_SECONDS)
        assert _id(await fallback.acquire(REQUEST)).startswith("theirs")
        assert _id(await fallback.acquire(REQUEST)).startswith("theirs")

    _virtual(scenario)
    assert len(permits.asked) == 4


def test_one_call_waits_for_a_silent_limiter_and_no_other_with_it() -> None:
    """While one finds out for two seconds, everybody else goes on; the second counts from the end of its waiting."""
    permits = ScriptedPermits(error=SILENT, delay_seconds=2.0)

    async def scenario() -> None:
        now = asyncio.get_running_loop().time
        fallback = _fallback(permits, _local())
        # Those who set out before anybody knew wait together.
        await asyncio.gather(*(fallback.acquire(REQUEST) for _ in range(5)))
        assert (now(), len(permits.asked)) == (2.0, 5)
        await asyncio.sleep(RETRY_SECONDS)
        finding_out = asyncio.ensure_future(fallback.acquire(REQUEST))
        await asyncio.sleep(1.5)
        assert not finding_out.done()
        for _ in range(100):
            await fallback.acquire(REQUEST)
        assert (now(), len(permits.asked)) == (4.5, 6)
        await finding_out
        assert now() == 5.0
        await fallback.acquire(REQUEST)
        assert (now(), len(permits.asked)) == (5.0, 6)

    _virtual(scenario)


def test_a_straggler_of_the_first_failure_lets_no_second_one_find_out() -> None:
    """A call that set out before the limiter was known to be away ends without ending the finding out of another."""
    permits = ScriptedPermits(error=AWAY, delay_seconds=0.1)

    async def scenario() -> None:
        fallback = _fallback(permits, _local())
        permits.delay_seconds = 5.0
        straggler = asyncio.ensure_future(fallback.acquire(REQUEST))
        await asyncio.sleep(0)
        permits.delay_seconds = 0.1
        await fallback.acquire(REQUEST)
        await asyncio.sleep(4.0)
        permits.delay_seconds = 50.0
        finding_out = asyncio.ensure_future(fallback.acquire(REQUEST))
        await straggler
        await asyncio.sleep(2 * RETRY_SECONDS)
        before = len(permits.asked)
        await fallback.acquire(REQUEST)
        assert len(permits.asked) == before
        await finding_out

    _virtual(scenario)


def test_whoever_gives_up_finding_out_leaves_it_to_the_next() -> None:
    """A cancelled call does not keep all others from ever asking again."""
    permits = ScriptedPermits(error=AWAY)

    async def scenario() -> None:
        fallback = _fallback(permits, _local())
        await fallback.acquire(REQUEST)
        await asyncio.sleep(RETRY_SECONDS)
        permits.delay_seconds, permits.error = 100.0, None
        finding_out = asyncio.ensure_future(fallback.acquire(REQUEST))
        await asyncio.sleep(1.0)
        finding_out.cancel()
        with pytest.raises(asyncio.CancelledError):
            await finding_out
        permits.delay_seconds = 0.0
        assert _id(await fallback.acquire(REQUEST)).startswith("theirs")

    _virtual(scenario)


@pytest.mark.parametrize(
    ("make", "meanwhile"),
    [
        (lambda: None, "every call is refused"),
        (_local, "this process grants a share of the limits"),
        (lambda: _local(limited=False), "every call is let through"),
    ],
    ids=["deny", "local_share", "allow"],
)
def test_a_thousand_calls_cost_one_warning(make: Callable[[], LocalPermits | None], meanwhile: str, caplog: pytest.LogCaptureFixture) -> None:
    """One when it goes, which says what holds until it is back, and one when it comes back; each time it does."""
    permits = ScriptedPermits()

    async def scenario() -> None:
        local = make()
        fallback = _fallback(permits, local)
        for _ in range(2):
            permits.error = AWAY
            for number in range(500):
                try:
                    await fallback.acquire(REQUEST)
                except DependencyUnavailable:
                    assert local is None
                await asyncio.sleep(RETRY_SECONDS if number % 100 == 0 else 0)
            permits.error = None
            await asyncio.sleep(RETRY_SECONDS)
            for _ in range(500):
                await fallback.acquire(REQUEST)

    with caplog.at_level(logging.INFO, "services.models"):
        _virtual(scenario)
    gone, back = ("WARNING", f"the limiter cannot be reached; until it is back {meanwhile}"), ("INFO", "the limiter can be reached again")
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [gone, back] * 2


def test_an_error_of_the_limiter_says_that_it_is_back(caplog: pytest.LogCaptureFixture) -> None:
    """It need not grant anything for that."""
    permits = ScriptedPermits(error=AWAY)

    async def scenario() -> None:
        fallback = _fallback(permits, None)
        for error in (AWAY, RemoteError(code="NOT_FOUND", message="no", details=b"")):
            permits.error = error
            with pytest.raises(EnsembleError):
                await fallback.acquire(REQUEST)

    with caplog.at_level(logging.INFO, "services.models"):
        _virtual(scenario)
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


def test_each_permit_is_settled_where_it_was_granted() -> None:
    """The limiter never hears of permits that it did not grant, and what it says of its own stays in its place."""
    permits = ScriptedPermits(error=AWAY)

    async def scenario() -> None:
        fallback = _fallback(permits, _local())
        here = [_id(await fallback.acquire(REQUEST)) for _ in range(3)]
        permits.error = None
        assert await fallback.report([_outcome("p1"), _outcome(here[0]), _outcome("p2"), _outcome("local-never")]) == (
            Settlement.LATE,
            Settlement.SETTLED,
            Settlement.LATE,
            Settlement.UNKNOWN,
        )
        assert await fallback.release([here[1], "p3", here[1]]) == (Settlement.SETTLED, Settlement.DUPLICATE, Settlement.UNKNOWN)
        permits.error = AWAY
        with pytest.raises(DependencyUnavailable):
            await fallback.report([_outcome(here[2]), _outcome("p4")])
        with pytest.raises(DependencyUnavailable):
            await fallback.release([here[2], "p5"])
        # Nothing of a batch that failed was settled; of local permits alone the limiter is not even asked.
        assert await fallback.release([here[2]]) == (Settlement.SETTLED,)
        assert await fallback.report([_outcome(here[2])]) == (Settlement.UNKNOWN,)

    _virtual(scenario)
    assert (permits.reported, permits.released) == (["p1", "p2"], ["p3"])


def test_without_anything_that_stands_in_all_permits_are_the_limiters() -> None:
    """Whatever their ids look like."""
    permits = ScriptedPermits()

    async def scenario() -> None:
        fallback = _fallback(permits, None)
        await fallback.report([_outcome("local-1")])
        await fallback.release(["local-2"])

    _virtual(scenario)
    assert (permits.reported, permits.released) == (["local-1"], ["local-2"])


def test_a_place_here_is_free_as_soon_as_its_call_is_reported() -> None:
    """Reports of permits granted here do not wait behind those that the limiter, being away, does not take; its own wait for it."""
    permits = ScriptedPermits()

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        local = LocalPermits({"m": LocalLimits(concurrency=1)}, clock=loop.time)
        fallback = _fallback(permits, local)
        reporter = OutcomeReporter(fallback, local=local)
        theirs = _id(await fallback.acquire(REQUEST))
        permits.error = AWAY
        waiting = reporter.report(_outcome(theirs), HERE)
        for _ in range(3):
            reply = await fallback.acquire(REQUEST)
            assert reporter.report(_outcome(_id(reply)), HERE).done()
            reply = await fallback.acquire(REQUEST)
            reporter.release([_id(reply)], HERE)
        assert isinstance((await fallback.acquire(REQUEST)).decisions[0], Permit)
        assert isinstance((await fallback.acquire(REQUEST)).decisions[0], Denial)
        assert (loop.time(), waiting.done()) == (0.0, False)
        permits.error = None
        await waiting
        assert permits.reported == [theirs]
        await reporter.aclose()

    _virtual(scenario)


async def test_over_real_channels_gone_and_silent_are_told_from_refusing() -> None:
    """A port where nobody listens and a server that never answers are both stood in for, the latter within the RPC's own time."""
    local = LocalPermits({"m": None})
    async with open_channel("127.0.0.1:1", Telemetry.off(), health_service="ensemble.v1.LimiterService") as channel:
        assert isinstance(await FallbackPermits(GrpcPermits(channel), local).acquire(REQUEST), LocalReply)
        with pytest.raises(DependencyUnavailable):
            await FallbackPermits(GrpcPermits(channel), None).acquire(REQUEST)
    # It listens, so connections are made, but nobody takes them.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{silent.getsockname()[1]}") as channel:
            permits = GrpcPermits(channel, timeout_seconds=0.2)
            assert isinstance(await FallbackPermits(permits, local).acquire(REQUEST), LocalReply)
            with pytest.raises(DependencyUnavailable):
                await FallbackPermits(permits, None).acquire(REQUEST)
