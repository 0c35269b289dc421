"""Repeats of a request, on virtual time over scripted runs."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

import pytest

from services.chassis.errors import (
    DeadlineSpent,
    DeadlineTooShort,
    DependencyUnavailable,
    EnsembleError,
    InvalidInput,
    Overloaded,
    QuotaExhausted,
    RemoteError,
)
from services.gateway.event_log import MOST_KEPT_BYTES
from services.gateway.grpc_results import GrpcResults
from services.gateway.joined_run import WAITING
from services.gateway.kept_answers import Claimed, Finished, Standing, StoreDown
from services.gateway.memory_answers import MemoryClaims
from services.gateway.order import Order
from services.gateway.replays import LONGEST_PAUSE_SECONDS, Replays, name_of
from tests.support.answer_stores import Clock
from tests.support.remote_claims import RemoteClaims
from tests.support.scripted_runs import Event, Result, ScriptedRuns, order, told, within
from tests.support.virtual_time import run_virtual

WINDOW, LEASE = 600.0, 10.0


class Bench:
    """Replays over scripted runs, with claims in memory; everything goes by the loop's clock."""

    def __init__(self, claims: Any = None, **script: Any) -> None:
        clock = asyncio.get_running_loop().time
        self.claims: Any = claims or MemoryClaims(window_seconds=WINDOW, lease_seconds=LEASE, most_bytes=1 << 20, clock=clock)
        self.runs = ScriptedRuns(**script)
        self.replays = Replays(self.runs, self.claims, GrpcResults(), lease_seconds=LEASE, clock=clock)

    async def ask(self, asked: Order, seconds: float = 60.0) -> Result:
        """Ask for an answer."""
        return await self.replays.run(asked, within(seconds))

    async def listen(self, asked: Order, seconds: float = 60.0) -> list[Event]:
        """Ask for events."""
        async with aclosing(self.replays.stream(asked, within(seconds))) as events:
            return [event async for event in events]

    def nothing_left(self) -> None:
        """Check that nothing runs and nothing is claimed."""
        assert self.runs.under_way == []
        assert self.replays._under_way == {}
        if isinstance(self.claims, MemoryClaims):
            assert self.claims._claims == {}


async def at(seconds: float, work: Callable[[], Awaitable[Any]]) -> Any:
    """Do something so many seconds from now."""
    await asyncio.sleep(seconds)
    return await work()


async def _each(events: AsyncGenerator[Event, None], tell: Callable[[Event], None]) -> None:
    async with aclosing(events):
        async for event in events:
            tell(event)


async def refused(work: Awaitable[Any]) -> EnsembleError:
    """Return what something fails with."""
    with pytest.raises(EnsembleError) as caught:
        await work
    return caught.value


def test_without_an_id_nothing_happens() -> None:
    """Equal requests without one are run each for itself."""

    async def work() -> None:
        bench = Bench()
        first, second = await asyncio.gather(bench.ask(order()), bench.ask(order()))
        assert first.trace_id != second.trace_id
        assert told(await bench.listen(order())).trace_id not in {first.trace_id, second.trace_id}
        assert len(bench.runs.began) == 3
        bench.nothing_left()

    run_virtual(work())


def test_a_repeat_within_the_window_gets_the_same_response() -> None:
    """Its bytes are equal and nothing is run; when the window has ended the next one runs again."""

    async def work() -> None:
        bench = Bench()
        first = await bench.ask(order("id"))
        await asyncio.sleep(WINDOW - 1)
        assert (await bench.ask(order("id"))).SerializeToString() == first.SerializeToString()
        assert told(await bench.listen(order("id"))).SerializeToString() == first.SerializeToString()
        assert len(bench.runs.began) == 1
        await asyncio.sleep(1)
        assert (await bench.ask(order("id"))).trace_id != first.trace_id
        assert len(bench.runs.began) == 2
        bench.nothing_left()

    run_virtual(work())


def test_an_answer_that_is_there_is_told_in_one_piece() -> None:
    """The run's beginning, the whole answer, the response."""

    async def work() -> None:
        bench = Bench()
        first = await bench.ask(order("id"))
        begun, answer, ended = await bench.listen(order("id"))
        assert (begun.run_started.run_id, begun.run_started.strategy, list(begun.run_started.candidate_ids)) == ("id", "fusion", ["a", "b"])
        assert begun.run_started.trace_id == first.trace_id
        assert (answer.answer_delta.text, answer.answer_delta.restart) == ("It is so.", False)
        assert ended.run_finished == first

    run_virtual(work())


def test_repeats_at_once_are_one_run() -> None:
    """Whatever their kinds, and whichever came first: sixty-four get one response of one run."""

    async def work(streamed_first: bool) -> None:
        bench = Bench()
        asks: list[Callable[[], Awaitable[Any]]] = [lambda: bench.ask(order("id")), lambda: bench.listen(order("id"))]
        asked = [at(0.01 * number, asks[(number + int(streamed_first)) % 2]) for number in range(64)]
        answers = [one if isinstance(one, Result) else told(one) for one in await asyncio.gather(*asked)]
        assert len({one.SerializeToString() for one in answers}) == 1
        assert len(bench.runs.began) == 1
        bench.nothing_left()

    run_virtual(work(True))
    run_virtual(work(False))


def test_one_who_joins_a_stream_is_told_all_of_it_from_the_beginning() -> None:
    """What happened before it came at once, the rest as it happens."""

    async def work() -> None:
        bench = Bench(seconds=3.0)
        times: list[float] = []
        first = asyncio.ensure_future(bench.listen(order("id")))
        await asyncio.sleep(1.5)
        events = []
        async with aclosing(bench.replays.stream(order("id"), within(60))) as joined:
            async for event in joined:
                times.append(asyncio.get_running_loop().time())
                events.append(event)
        assert events == await first
        assert times == [1.5, 1.5, 2.0, 3.0, 3.0]

    run_virtual(work())


def test_tenants_never_share_an_id() -> None:
    """The same id of two tenants is two requests, and no two pairs of tenant and id have one name."""

    async def work() -> None:
        bench = Bench()
        answers = await asyncio.gather(*(bench.ask(order("id", tenant=tenant)) for tenant in ("", "a", "b")))
        assert len({one.trace_id for one in answers}) == 3
        await bench.ask(order("id", "other", tenant="c"))

    run_virtual(work())
    assert len({name_of(order("bc", tenant="a")), name_of(order("c", tenant="ab")), name_of(order("abc"))}) == 3


@pytest.mark.parametrize("streamed", [False, True])
def test_another_content_is_refused(streamed: bool) -> None:
    """While the first runs and after it, with the field's path; it has no effect on the first."""

    async def work() -> None:
        bench = Bench()

        async def other() -> None:
            asked = bench.listen(order("id", "other")) if streamed else bench.ask(order("id", "other"))
            error = await refused(asked)
            assert isinstance(error, InvalidInput)
            assert [(one.field, one.description) for one in error.violations] == [("request_id", "was used before for another request")]

        first = asyncio.ensure_future(bench.ask(order("id")))
        await at(0.5, other)
        assert not first.done()
        assert (await first).run_id == "id"
        await other()
        assert len(bench.runs.began) == 1
        bench.nothing_left()

    run_virtual(work())


def test_a_failure_leaves_nothing() -> None:
    """Those who had joined get the same error; the next repeat runs again, and may be another request."""

    async def work() -> None:
        error: EnsembleError = QuotaExhausted("tenant", "too much")
        bench = Bench(errors=[error])
        caught = await asyncio.gather(refused(bench.ask(order("id"))), refused(at(0.3, lambda: bench.ask(order("id")))), refused(bench.listen(order("id"))))
        assert list(caught) == [error] * 3
        assert (await bench.ask(order("id", "other"))).run_id == "id"
        assert len(bench.runs.began) == 2
        bench.nothing_left()

    run_virtual(work())


def test_the_run_goes_on_as_long_as_anybody_waits() -> None:
    """The first one's leaving changes nothing for the others; with the last one the run is cancelled at that very moment."""

    async def work() -> None:
        bench = Bench(seconds=10.0)
        asking = [asyncio.ensure_future(one) for one in (bench.ask(order("id")), bench.listen(order("id")), bench.ask(order("id")))]
        for number, one in enumerate(asking):
            await asyncio.sleep(1)
            assert len(bench.runs.under_way) == 1
            one.cancel()
            await asyncio.wait([one])
            assert one.cancelled()
            assert len(bench.runs.under_way) == (1 if number < 2 else 0)
        assert bench.runs.ended == [(3.0, "cancelled")]
        bench.nothing_left()
        assert (await bench.ask(order("id"))).run_id == "id"

    run_virtual(work())


def test_nobody_joins_a_run_that_is_being_cancelled() -> None:
    """Whoever comes while it still ends gets a run of his own after it, and the one who left is gone only when it has ended."""

    async def work() -> None:
        bench = Bench(lingers=2.0)
        first = asyncio.ensure_future(bench.ask(order("id")))
        await asyncio.sleep(0.5)
        first.cancel()
        second = await at(1.0, lambda: bench.ask(order("id")))
        assert first.cancelled()
        assert second.trace_id == f"{2:032x}"
        ((ended, _), _) = bench.runs.ended
        assert 2.5 == ended <= bench.runs.began[1][0] <= ended + LONGEST_PAUSE_SECONDS
        bench.nothing_left()

    run_virtual(work())


def test_a_joiner_waits_no_longer_than_its_own_deadline() -> None:
    """The run goes on for those who have more time."""

    async def work() -> None:
        bench = Bench(seconds=10.0)
        first = asyncio.ensure_future(bench.ask(order("id")))
        await asyncio.sleep(1)
        for asked in (bench.ask(order("id"), 2.0), bench.listen(order("id"), 2.0)):
            began = asyncio.get_running_loop().time()
            error = await refused(asked)
            assert isinstance(error, DeadlineSpent)
            assert error.stage == WAITING
            assert asyncio.get_running_loop().time() == began + 2.0
        assert (await first).run_id == "id"
        assert len(bench.runs.began) == 1

    run_virtual(work())


def test_one_with_time_left_runs_again_after_the_firsts_deadline() -> None:
    """The first one's time was its own; all others share one new run, and one who was told of the old run is told of the new one's answer alone."""

    async def work() -> None:
        bench = Bench(seconds=3.0)
        first, one, events, another = await asyncio.gather(
            refused(bench.listen(order("id"), 2.0)), bench.ask(order("id"), 30.0), bench.listen(order("id"), 30.0), bench.ask(order("id"), 30.0)
        )
        assert isinstance(first, DeadlineSpent)
        assert told(events) == one == another
        assert [moment for moment, _ in bench.runs.began] == [0.0, 2.0]
        assert [event.WhichOneof("event") for event in events] == ["run_started", "answer_delta", "answer_delta", "run_finished"]
        assert events[-2].answer_delta.restart
        bench.nothing_left()

    run_virtual(work())


@pytest.mark.parametrize(("code", "again"), [("DEADLINE_EXCEEDED", True), ("CANCELLED", True), ("UNAVAILABLE", False)])
def test_what_the_orchestrator_says_of_a_deadline_is_the_firsts_too(code: str, again: bool) -> None:
    """A refusal that was passed on counts by its code."""

    async def work() -> None:
        bench = Bench(errors=[RemoteError(code=code, message="no", details=b"")])
        first, other = await asyncio.gather(bench.ask(order("id")), bench.ask(order("id")), return_exceptions=True)
        assert isinstance(first, RemoteError)
        assert isinstance(other, Result) is again
        assert len(bench.runs.began) == (2 if again else 1)

    run_virtual(work())


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (DeadlineTooShort("usual", recent_seconds=2.0, left_seconds=1.0), True),
        (Overloaded("too late", 1.0, for_want_of_time=True), True),
        (Overloaded("full", 1.0), False),
    ],
)
def test_a_refusal_for_the_firsts_deadline_is_the_firsts_alone(error: EnsembleError, again: bool) -> None:
    """Whoever joined with more time is no part of it and runs; what is refused for load is refused for everybody."""

    async def work() -> None:
        bench = Bench(errors=[error])
        first, other = await asyncio.gather(bench.ask(order("id")), bench.ask(order("id")), return_exceptions=True)
        assert first is error
        assert isinstance(other, Result) is again
        assert other is error or again
        bench.nothing_left()

    run_virtual(work())


def test_one_with_time_left_asks_a_slow_store_again() -> None:
    """How long the claim may take is settled by those who wait when it is asked for; for them there was no time, for one who comes meanwhile there is."""

    async def work() -> None:
        claims = MemoryClaims(window_seconds=WINDOW, lease_seconds=LEASE, most_bytes=1 << 20, clock=asyncio.get_running_loop().time)
        bench = Bench(RemoteClaims(claims=claims, way_seconds=0.01))
        hurried, patient = await asyncio.gather(refused(bench.ask(order("id"), 0.005)), at(0.001, lambda: bench.ask(order("id"), 60.0)))
        assert isinstance(hurried, DeadlineSpent)
        assert patient.run_id == "id"
        assert claims._claims == {}
        bench.nothing_left()

    run_virtual(work())


def test_a_claim_is_given_up_although_its_last_caller_leaves_meanwhile() -> None:
    """A run has failed, and before its caller is told of it he leaves: a repeat runs at once, not when the lease has ended."""

    async def work() -> None:
        claims = MemoryClaims(window_seconds=WINDOW, lease_seconds=LEASE, most_bytes=1 << 20, clock=asyncio.get_running_loop().time)
        bench = Bench(RemoteClaims(claims=claims, way_seconds=0.1), errors=[QuotaExhausted("tenant", "too much")])
        asking = asyncio.ensure_future(bench.ask(order("id")))
        # The claim has taken two ways, the run a second.
        await asyncio.sleep(1.25)
        asking.cancel()
        await asyncio.wait([asking])
        assert asking.cancelled()
        assert claims._claims == {}
        bench.nothing_left()

    run_virtual(work())


def test_a_slow_reader_holds_nothing_up_and_misses_nothing_that_is_kept() -> None:
    """The run ends in its time; the reader finds all its events afterwards."""

    async def work() -> None:
        bench = Bench(seconds=3.0)
        slow = bench.replays.stream(order("id"), within(600))
        assert (await anext(slow)).HasField("run_started")
        other = asyncio.ensure_future(bench.ask(order("id")))
        await asyncio.sleep(100)
        assert bench.runs.ended == [(3.0, "done")]
        rest = [event async for event in slow]
        assert [event.WhichOneof("event") for event in rest] == ["answer_delta"] * 3 + ["run_finished"]
        assert rest[-1].run_finished == await other

    run_virtual(work())


def test_a_reader_that_falls_too_far_behind_is_told_the_answer_in_one_piece() -> None:
    """No more events are kept than the bound allows; what it missed of the answer is in the piece that takes the place of all before."""

    async def work() -> None:
        pieces = ("x" * (MOST_KEPT_BYTES // 3),) * 5
        bench = Bench(seconds=5.0, pieces=pieces)
        slow = bench.replays.stream(order("id"), within(600))
        assert (await anext(slow)).HasField("run_started")
        await asyncio.sleep(2.5)
        late = asyncio.ensure_future(at(2.0, lambda: bench.listen(order("id"))))
        await asyncio.sleep(100)
        rest = [event async for event in slow]
        assert [event.WhichOneof("event") for event in rest] == ["answer_delta", "run_finished"]
        assert rest[0].answer_delta.restart
        assert rest[0].answer_delta.text == rest[1].run_finished.answer == "".join(pieces)
        # One who came when the beginning was gone is told of it when all is over.
        assert [event.WhichOneof("event") for event in await late] == ["run_started", "answer_delta", "run_finished"]

    run_virtual(work())


class TroubledClaims:
    """Claims in memory whose store is down for some of what it is asked."""

    def __init__(self, *, claim: int = 0, renew: int = 0, finish: int = 0, release: int = 0) -> None:
        """Take how often each fails, from the first time on."""
        self.claims = MemoryClaims(window_seconds=WINDOW, lease_seconds=LEASE, most_bytes=1 << 20, clock=asyncio.get_running_loop().time)
        self.left = {"claim": claim, "renew": renew, "finish": finish, "release": release}
        self.asked: list[str] = []
        self._owners: set[str] = set()

    async def claim(self, name: str, content: bytes, owner: str, *, within_seconds: float) -> Standing:
        """Claim, or fail."""
        self._ask("renew" if owner in self._owners else "claim")
        standing = await self.claims.claim(name, content, owner, within_seconds=within_seconds)
        if isinstance(standing, Claimed):
            self._owners.add(owner)
        return standing

    async def finish(self, name: str, content: bytes, owner: str, result: bytes, *, within_seconds: float) -> Finished:
        """Finish, or fail."""
        self._ask("finish")
        return await self.claims.finish(name, content, owner, result, within_seconds=within_seconds)

    async def release(self, name: str, owner: str, *, within_seconds: float) -> None:
        """Release, or fail."""
        self._ask("release")
        await self.claims.release(name, owner, within_seconds=within_seconds)

    def _ask(self, what: str) -> None:
        self.asked.append(what)
        if self.left[what] > 0:
            self.left[what] -= 1
            raise StoreDown("TimeoutError")


def test_a_store_that_is_down_at_the_start_refuses() -> None:
    """Rather than risk paying twice; a retry can help, and says when."""

    async def work() -> None:
        bench = Bench(TroubledClaims(claim=1))
        error = await refused(bench.ask(order("id")))
        assert isinstance(error, DependencyUnavailable)
        assert (error.service, error.retry_after_seconds) == ("store", 1.0)
        assert bench.runs.began == []
        assert (await bench.ask(order())).run_id == "made"
        assert (await bench.ask(order("id"))).run_id == "id"

    run_virtual(work())


def test_a_store_that_is_down_at_the_end_costs_nobody_the_answer(caplog: pytest.LogCaptureFixture) -> None:
    """All who wait are told; the log says that repeats will not be; the next one waits for the lease and runs."""

    async def work() -> None:
        bench = Bench(TroubledClaims(finish=1))
        first, other = await asyncio.gather(bench.ask(order("id")), bench.listen(order("id")))
        assert told(other) == first
        assert (await bench.ask(order("id"))).trace_id != first.trace_id
        assert LEASE <= bench.runs.began[1][0] <= LEASE + 0.5
        bench.nothing_left()

    run_virtual(work())
    assert "a response could not be kept for repeats of its request (TimeoutError)" in caplog.messages


def test_a_store_that_is_down_in_between_is_not_noticed(caplog: pytest.LogCaptureFixture) -> None:
    """Renewals are tried again; it is said once that it is down and once that it is back."""

    async def work() -> None:
        bench = Bench(TroubledClaims(renew=2), seconds=25.0)
        first = await bench.ask(order("id"))
        assert bench.claims.asked.count("renew") == 7
        assert await bench.ask(order("id")) == first

    run_virtual(work())
    assert [message.partition(" is ")[2].partition(" ")[0] for message in caplog.messages] == ["down", "back"]


def test_a_claim_that_cannot_be_given_up_ends_with_its_lease() -> None:
    """The one who failed is told of his failure, not of the store's."""

    async def work() -> None:
        error = QuotaExhausted("tenant", "too much")
        bench = Bench(TroubledClaims(release=1), errors=[error])
        assert await refused(bench.ask(order("id"))) is error
        await bench.ask(order("id"))
        assert LEASE <= bench.runs.began[1][0] <= LEASE + 0.5

    run_virtual(work())


def test_the_claim_of_a_gateway_that_died_is_taken_over() -> None:
    """One who waits for a run elsewhere begins when the lease has ended, with the most time that anybody has; nobody waits longer than he wants."""

    async def work() -> None:
        bench = Bench()
        asked = order("id")
        await bench.claims.claim(name_of(asked), asked.content, "the dead", within_seconds=1)
        # The run takes longer than the second of them has.
        short, cut, events, answer = await asyncio.gather(
            refused(bench.ask(asked, 5.0)), refused(bench.ask(asked, LEASE + 0.5)), bench.listen(asked, 60.0), bench.ask(asked, 30.0)
        )
        assert isinstance(short, DeadlineSpent)
        assert isinstance(cut, DeadlineSpent)
        assert told(events) == answer
        ((began, ordered),) = bench.runs.began
        assert LEASE <= began <= LEASE + 0.5
        assert ordered is asked
        bench.nothing_left()

    run_virtual(work())


def test_a_claim_that_was_lost_brings_nobody_another_answer() -> None:
    """Where somebody else's run is over first, its result stands and the own run is stopped; all are told the same, also those who were told other events."""

    async def work() -> None:
        bench = Bench(seconds=100.0)
        asked = order("id")
        other = Result(run_id="id", answer="Another.", trace_id="f" * 32)
        listening = asyncio.ensure_future(bench.listen(asked, 600.0))
        await asyncio.sleep(61)
        bench.claims._claims.clear()
        await bench.claims.claim(name_of(asked), asked.content, "the other", within_seconds=1)
        await bench.claims.finish(name_of(asked), asked.content, "the other", other.SerializeToString(), within_seconds=1)
        assert told(await listening) == other
        ((ended, how),) = bench.runs.ended
        assert (how, 61 < ended < 61 + LEASE / 3) == ("cancelled", True)
        assert await bench.ask(asked) == other
        bench.nothing_left()

    run_virtual(work())


def test_the_first_result_stands() -> None:
    """One who lost his claim to a run that is still under way keeps his result if his run is over first; the other tells it too."""

    async def work() -> None:
        claims = MemoryClaims(window_seconds=WINDOW, lease_seconds=LEASE, most_bytes=1 << 20, clock=asyncio.get_running_loop().time)
        slow, quick = Bench(claims, seconds=6.5), Bench(claims, seconds=5.0)
        # So that the two do not bring the same: answers are numbered.
        await quick.ask(order())
        slow_asking = asyncio.ensure_future(slow.ask(order("id")))
        await asyncio.sleep(1)
        claims._claims.clear()
        quick_asking = asyncio.ensure_future(quick.listen(order("id")))
        answers = [await slow_asking, told(await quick_asking)]
        assert answers[0] == answers[1] == await slow.ask(order("id"))
        assert [how for one in (slow, quick) for _, how in one.runs.ended] == ["done", "done", "done"]
        assert (len(slow.runs.began), len(quick.runs.began)) == (1, 2)
        slow.nothing_left()
        quick.nothing_left()

    run_virtual(work())


def test_a_response_that_is_too_large_is_given_and_not_kept() -> None:
    """The next one runs again."""

    async def work() -> None:
        claims = MemoryClaims(window_seconds=WINDOW, lease_seconds=LEASE, most_bytes=300, clock=asyncio.get_running_loop().time)
        bench = Bench(claims)
        first = await bench.ask(order("id"))
        assert (await bench.ask(order("id"))).trace_id != first.trace_id
        bench.nothing_left()

    run_virtual(work())


def test_what_is_paid_for_is_kept_before_anybody_is_told() -> None:
    """Nobody is told while it is being kept, and one who leaves meanwhile finds it when he comes back."""

    async def work() -> None:
        keeping, go_on = asyncio.Event(), asyncio.Event()

        class Slow(MemoryClaims):
            async def finish(self, name: str, content: bytes, owner: str, result: bytes, *, within_seconds: float) -> Finished:
                keeping.set()
                await go_on.wait()
                return await super().finish(name, content, owner, result, within_seconds=within_seconds)

        bench = Bench(Slow(window_seconds=WINDOW, lease_seconds=LEASE, most_bytes=1 << 20, clock=asyncio.get_running_loop().time))
        first = asyncio.ensure_future(bench.ask(order("id")))
        listened: list[Event] = []
        listening = asyncio.ensure_future(_each(bench.replays.stream(order("id"), within(60)), listened.append))
        await keeping.wait()
        await asyncio.sleep(5)
        assert not first.done()
        assert not any(event.HasField("run_finished") for event in listened)
        listening.cancel()
        await asyncio.wait([listening])
        first.cancel()
        asyncio.get_running_loop().call_later(1.0, go_on.set)
        await asyncio.wait([first])
        assert first.cancelled()
        await bench.ask(order("id"))
        assert len(bench.runs.began) == 1
        bench.nothing_left()

    run_virtual(work())


@pytest.mark.parametrize("turns", range(8))
def test_what_is_paid_for_is_kept_although_the_last_one_leaves_just_then(turns: int) -> None:
    """In whichever turn of the event loop after the run's end he leaves: when he comes back, the response is there."""

    async def work() -> None:
        ended = asyncio.Event()

        class Told(ScriptedRuns):
            async def run(self, order: Order, deadline: Any) -> Result:
                result = await super().run(order, deadline)
                ended.set()
                return result

        bench = Bench()
        bench.replays._runs = runs = Told()
        asking = asyncio.ensure_future(bench.ask(order("id")))
        await ended.wait()
        for _ in range(turns):
            await asyncio.sleep(0)
        asking.cancel()
        await asyncio.wait([asking])
        await bench.ask(order("id"))
        assert len(runs.began) == 1
        bench.nothing_left()

    run_virtual(work())


def test_a_stream_that_ends_without_a_result_is_the_orchestrators_failure() -> None:
    """Nobody waits for ever for what will not come."""

    async def work() -> None:
        bench = Bench()

        class Empty(ScriptedRuns):
            async def stream(self, order: Order, deadline: Any) -> Any:
                yield Event()

        bench.replays._runs = Empty()
        error = await refused(bench.listen(order("id")))
        assert isinstance(error, DependencyUnavailable)
        assert error.service == "orchestrator"

    run_virtual(work())


def test_a_clock_that_stands_for_the_window() -> None:
    """The window is counted on the clock that was given, from the run's end on."""

    async def work() -> None:
        clock = Clock()
        bench = Bench(MemoryClaims(window_seconds=WINDOW, lease_seconds=LEASE, most_bytes=1 << 20, clock=clock))
        first = await bench.ask(order("id"))
        clock.now += WINDOW - 0.001
        assert await bench.ask(order("id")) == first
        clock.now += 0.001
        assert (await bench.ask(order("id"))).trace_id != first.trace_id

    run_virtual(work())


class Planted(MemoryClaims):
    """Claims to whose names somebody else writes what is no response: before a run, while it is under way, or just as it is kept."""

    def __init__(self, *, at_claim: int = 0, at_finish: bool = False) -> None:
        super().__init__(window_seconds=WINDOW, lease_seconds=LEASE, most_bytes=1 << 20, clock=asyncio.get_running_loop().time)
        self._at_claim, self._at_finish = at_claim, at_finish
        self._count = 0

    async def claim(self, name: str, content: bytes, owner: str, *, within_seconds: float) -> Standing:
        """Take the claim, or find what was planted."""
        self._count += 1
        if self._count == self._at_claim:
            return Finished(result=b"\xff")
        return await super().claim(name, content, owner, within_seconds=within_seconds)

    async def finish(self, name: str, content: bytes, owner: str, result: bytes, *, within_seconds: float) -> Finished:
        """Keep the result, or find what was planted."""
        finished = await super().finish(name, content, owner, result, within_seconds=within_seconds)
        return Finished(result=b"\xff") if self._at_finish else finished


@pytest.mark.parametrize("how", [{"at_claim": 2}, {"at_finish": True}], ids=["while it runs", "as it is kept"])
def test_what_is_no_response_costs_nobody_his_answer(how: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    """The run goes on to its end and its answer is told; the log says that the store is not the gateways' alone."""

    async def work() -> None:
        bench = Bench(Planted(**how), seconds=LEASE)
        assert (await bench.ask(order("id"))).answer
        assert len(bench.runs.began) == 1
        bench.nothing_left()

    run_virtual(work())
    assert "somebody else writes there" in caplog.text


def test_what_is_no_response_is_an_outage_of_the_store(caplog: pytest.LogCaptureFixture) -> None:
    """Nobody knows whether the request is a repeat; a bug it is not."""

    async def work() -> None:
        bench = Bench(Planted(at_claim=1))
        error = await refused(bench.ask(order("id")))
        assert isinstance(error, DependencyUnavailable)
        assert (error.service, error.retry_after_seconds) == ("store", 1.0)
        bench.nothing_left()

    run_virtual(work())
    assert "somebody else writes there" in caplog.text
