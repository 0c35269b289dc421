"""Runs that wait for their place, over virtual time: cancellations, deadlines, streams."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.chassis.deadline import Deadline
from services.chassis.errors import DeadlineSpent, DeadlineTooShort, EnsembleError, Overloaded
from services.chassis.telemetry import Telemetry
from services.gateway.admission import Admission, Refusal
from services.gateway.admission_metrics import AdmissionMetrics
from services.gateway.admitted import Admitted
from services.gateway.load_rules import LoadRules
from services.gateway.order import Order
from services.gateway.recent_runs import LEAST, RecentRuns
from services.gateway.retry_pace import RetryPace
from tests.support.orders import order
from tests.support.virtual_time import run_virtual


class ScriptedRuns:
    """Runs that take their time, and know how many of them there are."""

    def __init__(self) -> None:
        self.seconds: Callable[[Order], float] = lambda _: 1.0
        self.failing: Callable[[Order], bool] = lambda _: False
        self.begun: list[str] = []
        self.running = 0
        self.most = 0
        self.spans: dict[str, tuple[float, float]] = {}

    async def run(self, order: Order, deadline: Deadline) -> str:
        """Take the time, then answer or fail."""
        began = self._begin(order)
        try:
            await asyncio.sleep(self.seconds(order))
            if self.failing(order):
                raise DeadlineSpent("the panel")
            return "answer"
        finally:
            self._end(order, began)

    async def stream(self, order: Order, deadline: Deadline) -> AsyncGenerator[str, None]:
        """Take the time in two halves, with an event after each."""
        began = self._begin(order)
        try:
            for event in ("first", "last"):
                await asyncio.sleep(self.seconds(order) / 2)
                if self.failing(order):
                    raise DeadlineSpent("the panel")
                yield event
        finally:
            self._end(order, began)

    def _begin(self, order: Order) -> float:
        self.begun.append(order.plan.run_id)
        self.running += 1
        self.most = max(self.most, self.running)
        return asyncio.get_running_loop().time()

    def _end(self, order: Order, began: float) -> None:
        self.running -= 1
        self.spans[order.plan.run_id] = (began, asyncio.get_running_loop().time())


class Door:
    """Admitted runs on the loop's own clock."""

    def __init__(self, *, concurrency: int = 1, queue: int = 1, longest_wait: float = 50.0, tenant_share: float = 1.0, check: bool = True) -> None:
        """Stand before scripted runs."""
        self.clock = asyncio.get_running_loop().time
        self.runs = ScriptedRuns()
        self.reasons: list[Refusal] = []
        rules = LoadRules(concurrency=concurrency, queue=queue, longest_wait_seconds=longest_wait, tenant_share=tenant_share)
        self.admission = Admission(rules, RetryPace(concurrency, self.clock, lambda: 0.0), self.clock, self.reasons.append)
        self.recent = RecentRuns(self.clock) if check else None
        self.admitted = Admitted(self.runs, self.admission, self.recent, AdmissionMetrics(Telemetry.off()))

    async def run(self, seconds: float = 600.0, *, of: Order | None = None) -> str:
        """Ask in one piece."""
        return await self.admitted.run(of or order(), Deadline.after(seconds, self.clock))

    async def stream(self, seconds: float = 600.0, *, most: int = 9, reading: float = 0.0, of: Order | None = None) -> str:
        """Ask for events, of which no more are read than so many, each in its time."""
        read: list[str] = []
        async with aclosing(self.admitted.stream(of or order(), Deadline.after(seconds, self.clock))) as events:
            async for event in events:
                read.append(event)
                await asyncio.sleep(reading)
                if len(read) >= most:
                    break
        return " ".join(read)

    def idle(self) -> bool:
        """Whether every place and every place in the queue came back."""
        told = self.admission.statistics()
        return (told.running, told.waiting, self.runs.running) == (0, 0, 0) and told.arrived == told.ended + told.left + sum(told.refused.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One caller."""

    at: float
    takes: float
    has: float
    """Time until its deadline."""
    tenant: str
    streamed: bool
    reads: int
    """Events that a stream's reader takes before he leaves."""
    fails: bool
    leaves_after: float | None
    """When its caller goes away, whatever has become of it."""


# In quarters of a second, so that things happen at once; the onlooker comes in between.
QUARTERS = st.integers(0, 40).map(lambda number: number / 4)
CALLERS = st.builds(
    Asked,
    at=QUARTERS,
    takes=QUARTERS.map(lambda seconds: seconds / 2),
    has=QUARTERS.map(lambda seconds: seconds * 2),
    tenant=st.sampled_from(["", "a", "b"]),
    streamed=st.booleans(),
    reads=st.integers(1, 3),
    fails=st.booleans(),
    leaves_after=st.none() | QUARTERS,
)


@dataclass(slots=True)
class History:
    """What came of the callers."""

    answered: set[int] = field(default_factory=set)
    failed: set[int] = field(default_factory=set)
    refused: set[int] = field(default_factory=set)
    left: set[int] = field(default_factory=set)


async def live_through(door: Door, callers: list[Asked]) -> History:
    """Let all of them come, and look between any two moments whether all is well."""
    history = History()
    door.runs.seconds = lambda order: callers[int(order.plan.run_id)].takes
    door.runs.failing = lambda order: callers[int(order.plan.run_id)].fails

    async def call(number: int, asked: Asked) -> None:
        await asyncio.sleep(asked.at)
        one = order("", tenant=asked.tenant, run_id=str(number))
        try:
            async with asyncio.timeout(asked.leaves_after):
                if asked.streamed:
                    await door.stream(asked.has, most=asked.reads, of=one)
                else:
                    await door.run(asked.has, of=one)
        except TimeoutError:
            history.left.add(number)
        except Overloaded:
            history.refused.add(number)
        except DeadlineSpent:
            history.failed.add(number)
        else:
            history.answered.add(number)

    async def look() -> None:
        await asyncio.sleep(0.1)
        while True:
            told = door.admission.statistics()
            assert told.running == door.runs.running, "a place without a run, or a run without a place"
            assert told.waiting == 0 or told.running == door.runs.most, "somebody waits while a place is free"
            await asyncio.sleep(0.25)

    looking = asyncio.create_task(look())
    async with asyncio.TaskGroup() as group:
        for number, asked in enumerate(callers):
            group.create_task(call(number, asked))
    looking.cancel()
    await asyncio.wait([looking])
    assert looking.cancelled(), looking.exception()
    return history


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 3), st.integers(0, 4), st.sampled_from([0.5, 1.0]), st.lists(CALLERS, max_size=30))
def test_no_place_is_lost_however_runs_end(concurrency: int, queue: int, tenant_share: float, callers: list[Asked]) -> None:
    """Answers, failures, readers who leave, callers who go away at any moment: never more runs than places, nobody forgotten, all places back."""

    async def live() -> None:
        door = Door(concurrency=concurrency, queue=queue, longest_wait=3.0, tenant_share=tenant_share)
        # So that the onlooker knows how many there can be.
        door.runs.most = concurrency
        history = await live_through(door, callers)
        assert door.runs.most == concurrency
        assert door.idle()
        told = door.admission.statistics()
        assert told.arrived == len(callers)
        begun = {int(run_id) for run_id in door.runs.begun}
        assert begun >= history.answered | history.failed
        assert not begun & history.refused, "a refused run was begun"
        # A caller may leave at the very moment when his place comes, or his refusal.
        assert len(begun) <= told.ended <= len(begun) + len(history.left)
        assert len(history.refused) <= sum(told.refused.values()) <= len(history.refused) + len(history.left)
        for number in begun:
            began, asked = door.runs.spans[str(number)][0], callers[number]
            assert began == asked.at or began < asked.at + min(3.0, asked.has), "begun after its time to wait was over"

    run_virtual(live())


def test_the_next_waiter_begins_at_the_moment_a_place_comes_free() -> None:
    """Not at some later look."""

    async def live() -> None:
        door = Door(concurrency=1, queue=3)
        async with asyncio.TaskGroup() as group:
            for number in range(4):
                group.create_task(door.run(of=order(run_id=str(number))))
        assert door.runs.spans == {str(number): (float(number), number + 1.0) for number in range(4)}
        assert door.idle()

    run_virtual(live())


def test_a_cancelled_waiter_leaves_the_order_as_it_was() -> None:
    """The one behind it is next, and its place in the queue can be had by another."""

    async def live() -> None:
        door = Door(concurrency=1, queue=2)
        tasks = [asyncio.create_task(door.run(of=order(run_id=name))) for name in ("runs", "leaves", "stays")]
        await asyncio.sleep(0.5)
        tasks[1].cancel()
        await asyncio.wait([tasks[1]])
        tasks.append(asyncio.create_task(door.run(of=order(run_id="new"))))
        await asyncio.wait(tasks)
        assert door.runs.begun == ["runs", "stays", "new"]
        assert (tasks[1].cancelled(), door.admission.statistics().left, door.idle()) == (True, 1, True)

    run_virtual(live())


def test_a_waiter_that_is_cancelled_as_it_gets_its_place_hands_it_on() -> None:
    """In the very moment between the end of the run before and its own first step."""

    async def live() -> None:
        door = Door(concurrency=1, queue=2)
        tasks = [asyncio.create_task(door.run(of=order(run_id=name))) for name in ("runs", "unlucky", "next")]
        tasks[0].add_done_callback(lambda _: tasks[1].cancel())
        await asyncio.wait(tasks)
        assert door.runs.begun == ["runs", "next"]
        assert (tasks[1].cancelled(), door.idle()) == (True, True)

    run_virtual(live())


def test_a_run_that_is_cancelled_gives_its_place_back() -> None:
    """To whoever waits."""

    async def live() -> None:
        door = Door(concurrency=1, queue=1)
        running = asyncio.create_task(door.run())
        waiting = asyncio.create_task(door.run())
        await asyncio.sleep(0.25)
        running.cancel()
        assert await waiting == "answer"
        assert door.idle()

    run_virtual(live())


@pytest.mark.parametrize(("most", "until"), [(1, 0.5), (2, 1.0), (9, 1.0)])
def test_a_stream_holds_its_place_until_it_ends_or_its_reader_leaves(most: int, until: float) -> None:
    """A reader who goes after the first event frees the place then."""

    async def live() -> None:
        door = Door(concurrency=1, queue=1)
        async with asyncio.TaskGroup() as group:
            group.create_task(door.stream(most=most))
            group.create_task(door.run(of=order(run_id="next")))
        assert door.runs.spans["next"][0] == until
        assert door.idle()

    run_virtual(live())


def test_a_stream_that_nobody_reads_takes_no_place() -> None:
    """It begins with its first event, and one that was never begun has nothing to give back."""

    async def live() -> None:
        door = Door()
        events = door.admitted.stream(order(), Deadline.after(600.0, door.clock))
        await events.aclose()
        assert door.admission.statistics().arrived == 0

    run_virtual(live())


@pytest.mark.parametrize(("seconds", "waits", "reason"), [(600.0, 5.0, Refusal.WAITED_TOO_LONG), (2.0, 2.0, Refusal.NO_TIME_LEFT)])
def test_a_waiter_whose_time_is_over_is_refused_and_not_run(seconds: float, waits: float, reason: Refusal) -> None:
    """At the longest wait, or at its deadline, with a word on when to come back."""

    async def live() -> None:
        door = Door(longest_wait=5.0)
        door.runs.seconds = lambda _: 50.0
        running = asyncio.create_task(door.run())
        await asyncio.sleep(0)
        with pytest.raises(Overloaded) as refusal:
            await door.run(seconds)
        assert (door.clock(), door.reasons) == (waits, [reason])
        assert refusal.value.retry_after_seconds
        await running
        assert (len(door.runs.begun), door.idle()) == (1, True)

    run_virtual(live())


async def taught(door: Door, *, runs: int = LEAST, seconds: float = 4.0) -> None:
    """Let runs bring answers, one after the other."""
    door.runs.seconds = lambda _: seconds
    for _ in range(runs):
        await door.run()
    door.runs.begun.clear()


@pytest.mark.parametrize("streamed", [False, True])
def test_a_hopeless_deadline_is_refused_at_once(streamed: bool) -> None:
    """Nothing is run, no place is asked for, and it is counted; with time enough, or without the check, it runs."""

    async def live() -> None:
        door = Door()
        ask = door.stream if streamed else door.run
        await taught(door)
        began = door.clock()
        with pytest.raises(DeadlineTooShort):
            await ask(3.9)
        assert (door.clock(), door.runs.begun, door.reasons) == (began, [], [Refusal.DEADLINE_TOO_SHORT])
        for seconds, of in ((4.1, order()), (3.9, order(check_deadline=False)), (3.9, order("")), (3.9, order("other"))):
            await ask(seconds, of=of)
        assert len(door.runs.begun) == 4
        assert door.idle()

    run_virtual(live())


def test_failed_runs_and_readers_who_left_teach_nothing() -> None:
    """Only an answer shows how long one takes."""

    async def live() -> None:
        door = Door()
        door.runs.failing = lambda _: True
        for ask in [door.run, door.stream] * LEAST:
            with pytest.raises(DeadlineSpent):
                await ask()
        door.runs.failing = lambda _: False
        for _ in range(LEAST):
            await door.stream(most=1)
        await door.run(0.5)

    run_virtual(live())


def test_a_slow_reader_does_not_make_a_run_look_slow() -> None:
    """What he takes between events is no time that a run needs."""

    async def live() -> None:
        door = Door()
        door.runs.seconds = lambda _: 4.0
        for _ in range(LEAST):
            await door.stream(reading=3.0)
        assert door.recent is not None
        assert door.recent.fastest_seconds(order()) == 4.0

    run_virtual(live())


def test_waiting_is_no_part_of_what_a_run_takes() -> None:
    """A queue does not raise the bar."""

    async def live() -> None:
        door = Door(queue=20)
        await asyncio.gather(*(door.run() for _ in range(LEAST)))
        assert door.recent is not None
        assert door.recent.fastest_seconds(order()) == 1.0

    run_virtual(live())


def test_a_profile_that_takes_all_its_time_is_not_locked_out() -> None:
    """Thirty seconds' time made answers in nearly thirty; a caller with ten is answered in nearly ten."""

    async def live() -> None:
        door = Door(concurrency=2 * LEAST)
        door.runs.seconds = lambda _: 29.0
        await asyncio.gather(*(door.run(30.0) for _ in range(2 * LEAST)))
        door.runs.seconds = lambda _: 9.0
        assert await door.run(10.0) == "answer"

    run_virtual(live())


def test_without_the_check_nothing_is_too_short() -> None:
    """As configured."""

    async def live() -> None:
        door = Door(check=False)
        await taught(door)
        assert await door.run(0.1) == "answer"

    run_virtual(live())


def test_time_in_the_queue_counts() -> None:
    """A waiter is refused as soon as too little time for a usual run would be left, and one for whom that is so already does not begin to wait."""

    async def live() -> None:
        door = Door()
        await taught(door, seconds=4.0)
        door.runs.seconds = lambda _: 50.0
        running = asyncio.create_task(door.run())
        await asyncio.sleep(0)
        began = door.clock()
        with pytest.raises(Overloaded):
            await door.run(6.0)
        assert door.clock() == began + 2.0
        await running
        assert door.reasons == [Refusal.NO_TIME_LEFT]
        assert door.idle()

    run_virtual(live())


def test_what_was_learnt_during_the_wait_counts() -> None:
    """A place that came in time by what was known before, and too late by what is known since, goes on to the next."""

    async def live() -> None:
        door = Door(queue=2)
        running = asyncio.create_task(door.run())
        await asyncio.sleep(0)
        waiting = [asyncio.create_task(door.run(seconds, of=order(run_id=str(seconds)))) for seconds in (3.0, 600.0)]
        await asyncio.sleep(0.5)
        assert door.recent is not None
        for _ in range(LEAST):
            door.recent.record(order(), seconds=40.0, given_seconds=600.0)
        # The run under way would lower the bar with its second.
        running.cancel()
        await asyncio.wait(waiting)
        refusal = waiting[0].exception()
        assert isinstance(refusal, EnsembleError)
        assert (type(refusal), door.reasons) == (Overloaded, [Refusal.NO_TIME_LEFT])
        assert (waiting[1].result(), door.idle()) == ("answer", True)

    run_virtual(live())
