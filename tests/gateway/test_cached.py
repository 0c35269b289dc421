"""Cached answers, on virtual time over scripted runs."""

import asyncio
import logging
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.chassis.errors import QuotaExhausted
from services.gateway.cached import Cached
from services.gateway.grpc_results import GrpcResults
from services.gateway.kept_answers import Entry, StoreDown
from services.gateway.memory_answers import MemoryEntries
from services.gateway.order import Order
from services.gateway.outage import REST_SECONDS
from services.gateway.planner import Planner
from services.gateway.profiles import Profile
from services.gateway.question import AskedMessage, AskedOptions, Question
from services.models.conversation import Message, Role
from services.models.plan import Member
from tests.support.scripted_runs import Event, Result, ScriptedRuns, order, told, within
from tests.support.virtual_time import run_virtual

TTL = 3600.0
DIGEST = b"d" * 32


class Bench:
    """A cache over scripted runs, kept in memory; everything goes by the loop's clock."""

    def __init__(self, entries: Any = None, digest: bytes = DIGEST, **script: Any) -> None:
        clock = asyncio.get_running_loop().time
        self.entries: Any = entries or MemoryEntries(most_bytes=1 << 20, clock=clock)
        self.runs = ScriptedRuns(**script)
        self.cached = Cached(self.runs, self.entries, GrpcResults(), digest=digest, clock=clock)

    async def ask(self, asked: Order, seconds: float = 60.0) -> Result:
        """Ask for an answer."""
        return await self.cached.run(asked, within(seconds))

    async def listen(self, asked: Order, seconds: float = 60.0) -> list[Event]:
        """Ask for events."""
        async with aclosing(self.cached.stream(asked, within(seconds))) as events:
            return [event async for event in events]


def asking(run_id: str = "", text: str = "Why?", *, ttl: float | None = TTL, tenant: str = "", **fields: Any) -> Order:
    """Return an order for a profile with a cache."""
    return order(run_id, text, tenant=tenant, cache_seconds=ttl, messages=(Message(role=Role.USER, text=text),), **fields)


def test_without_a_cache_nothing_happens() -> None:
    """Orders of other profiles are run, each for itself, and kept nowhere."""

    async def work() -> None:
        bench = Bench()
        for _ in range(2):
            await bench.ask(asking(ttl=None))
            told(await bench.listen(asking(ttl=None)))
        await bench.ask(asking())
        assert len(bench.runs.began) == 5

    run_virtual(work())


def test_a_hit_says_so_on_its_receipt_and_cost_nothing() -> None:
    """Answer, candidates and provenance are those of the first run; nothing was called, used or paid, and it took no time."""

    async def work() -> None:
        bench = Bench()
        first = await bench.ask(asking("one"))
        assert not first.receipt.cached
        await asyncio.sleep(90)
        hit = await bench.ask(asking("two"))
        receipt = hit.receipt
        assert (receipt.cached, receipt.cached_age.ToTimedelta().total_seconds(), receipt.latency.ToTimedelta().total_seconds()) == (True, 90.0, 0.0)
        assert (receipt.usage.input_tokens, receipt.usage.output_tokens, receipt.cost.micro_usd, len(receipt.calls), len(receipt.stages)) == (0, 0, 0, 0, 0)
        assert receipt.HasField("usage")
        assert receipt.HasField("cost")
        assert receipt.agreement == 0.5
        assert (hit.run_id, hit.trace_id) == ("two", "")
        for result in (first, hit):
            for name in ("receipt", "run_id", "trace_id"):
                result.ClearField(name)
        assert hit == first
        assert len(bench.runs.began) == 1

    run_virtual(work())


def test_both_ways_of_asking_share_answers() -> None:
    """A stream of a cached answer is its run's beginning, the answer in one piece and the response; what was streamed serves the next one."""

    async def work() -> None:
        for streamed_first in (False, True):
            bench = Bench()
            first = told(await bench.listen(asking("one"))) if streamed_first else await bench.ask(asking("one"))
            events = await bench.listen(asking("two"))
            assert [event.WhichOneof("event") for event in events] == ["run_started", "answer_delta", "run_finished"]
            assert events[0].run_started.run_id == "two"
            hit = await bench.ask(asking("two"))
            assert told(events).answer == hit.answer == first.answer
            assert len(bench.runs.began) == 1

    run_virtual(work())


def test_an_answer_serves_no_longer_than_its_time() -> None:
    """Nor longer than the one who asks wants it, where another profile keeps the same answer for longer."""

    async def work() -> None:
        bench = Bench(seconds=0.0)
        await bench.ask(asking())
        await asyncio.sleep(TTL / 2)
        assert (await bench.ask(asking())).receipt.cached
        assert not (await bench.ask(asking(ttl=TTL / 2))).receipt.cached
        # What was just made is kept for the shorter time.
        await asyncio.sleep(TTL / 2)
        assert not (await bench.ask(asking())).receipt.cached
        await asyncio.sleep(TTL)
        assert not (await bench.ask(asking())).receipt.cached

    run_virtual(work())


DIFFERENT: tuple[dict[str, Any], ...] = (
    {},
    {"text": "Why not?"},
    {"tenant": "a"},
    {"tenant": "b"},
    {"include_candidates": True},
    {"max_cost_micro_usd": 5},
    {"strategy": "vote"},
    {"response_schema": "{}"},
    {"members": (Member(member_id="a", model="a", temperature=0.1),)},
    {"members": (Member(member_id="a", model="a", temperature=0.2),)},
)


def test_only_the_same_is_the_same() -> None:
    """Whatever is asked differently, or by another tenant, is run; so is everything after the configuration has changed."""

    async def work() -> None:
        bench = Bench()
        for fields in DIFFERENT:
            assert not (await bench.ask(asking("one", **fields))).receipt.cached
        for fields in DIFFERENT:
            assert (await bench.ask(asking("two", **fields))).receipt.cached
        changed = Bench(bench.entries, digest=b"e" * 32)
        assert not (await changed.ask(asking("one"))).receipt.cached

    run_virtual(work())


texts = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20)
profiles = {
    name: Profile(name=name, strategy="single", members=(Member(member_id="m", model="m"),), cache_seconds=ttl)
    for name, ttl in {"default": TTL, "plain": None}.items()
}


@given(texts, texts)
def test_a_prompt_and_its_messages_are_the_same_question(prompt: str, system: str) -> None:
    """Whichever way it is written, it asks the models for the same; labels and the check of the deadline do not reach them."""

    async def work() -> None:
        bench = Bench()
        planner = Planner(profiles, ["m"])
        written = (AskedMessage(role="system", text=system), AskedMessage(text=prompt))
        await bench.ask(planner.order(Question(prompt=prompt, system=system)))
        assert (await bench.ask(planner.order(Question(messages=written)))).receipt.cached
        assert (await bench.ask(planner.order(Question(messages=written, labels={"a": "b"}, skip_deadline_check=True)))).receipt.cached
        assert not (await bench.ask(planner.order(Question(messages=written[1:])))).receipt.cached

    run_virtual(work())


def test_a_profile_says_whether_its_answers_are_cached() -> None:
    """Also those of requests that build upon it; they are known by all that they ask."""
    planner = Planner(profiles, ["m"])
    assert planner.order(Question(prompt="Why?")).cache_seconds == TTL
    assert planner.order(Question(prompt="Why?", options=AskedOptions(quorum=1))).cache_seconds == TTL
    assert planner.order(Question(prompt="Why?", profile="plain")).cache_seconds is None


@pytest.mark.parametrize("streamed", [False, True])
def test_what_is_less_than_was_asked_for_is_not_kept(streamed: bool) -> None:
    """Degraded answers and failures are had anew each time."""

    async def work() -> None:
        bench = Bench(degraded=True, errors=[QuotaExhausted("tenant", "too much")])
        with pytest.raises(QuotaExhausted):
            await bench.ask(asking())
        for _ in range(2):
            result = told(await bench.listen(asking())) if streamed else await bench.ask(asking())
            assert (result.degraded, result.receipt.cached) == (True, False)
        assert len(bench.runs.began) == 3

    run_virtual(work())


def test_what_is_too_large_is_given_and_not_kept() -> None:
    """The next one is run again."""

    async def work() -> None:
        bench = Bench(MemoryEntries(most_bytes=300, clock=asyncio.get_running_loop().time))
        assert not (await bench.ask(asking())).receipt.cached
        assert not (await bench.ask(asking())).receipt.cached

    run_virtual(work())


class BrokenEntries:
    """A store that is down, or holds what is no answer."""

    def __init__(self, data: bytes | None = None) -> None:
        """Take what it holds; None for one that is down."""
        self.data = data
        self.asked = 0

    async def get(self, name: str, *, within_seconds: float) -> Entry | None:
        """Fail, or return what is no answer."""
        return Entry(data=self._asked(), age_seconds=1.0)

    async def put(self, name: str, data: bytes, ttl_seconds: float, *, within_seconds: float) -> bool:
        """Fail, or keep nothing."""
        self._asked()
        return False

    def _asked(self) -> bytes:
        self.asked += 1
        if self.data is None:
            raise StoreDown("TimeoutError")
        return self.data


def test_a_store_that_is_down_fails_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """Every request is run; the log has one warning, and the store is left alone for a while after each failure; its return is one line."""

    async def work() -> None:
        bench = Bench(BrokenEntries(), seconds=0.0)
        for _ in range(20):
            assert not (await bench.ask(asking())).receipt.cached
            told(await bench.listen(asking()))
        assert bench.entries.asked == 1
        await asyncio.sleep(REST_SECONDS)
        await bench.ask(asking())
        assert bench.entries.asked == 2
        await asyncio.sleep(REST_SECONDS)
        bench.entries.data = b""
        await bench.ask(asking())

    with caplog.at_level(logging.INFO, "services.gateway"):
        run_virtual(work())
    assert caplog.messages == ["the store of cached answers is down (TimeoutError): every request is run", "the store of cached answers is back"]


def test_a_store_that_fails_as_an_answer_is_to_be_kept_costs_nobody_the_answer(caplog: pytest.LogCaptureFixture) -> None:
    """It is given, with or without events; the log says it once."""

    async def work() -> None:
        class Full(MemoryEntries):
            async def put(self, name: str, data: bytes, ttl_seconds: float, *, within_seconds: float) -> bool:
                raise StoreDown("ResponseError")

        bench = Bench(Full(most_bytes=1 << 20))
        assert (await bench.ask(asking())).answer == "It is so."
        assert told(await bench.listen(asking())).answer == "It is so."
        assert len(bench.runs.began) == 2

    run_virtual(work())
    assert [message for message in caplog.messages if "is down" in message] == ["the store of cached answers is down (ResponseError): every request is run"]


def test_what_is_no_answer_serves_nobody() -> None:
    """Whoever wrote it there."""

    async def work() -> None:
        bench = Bench(BrokenEntries(b"\xff\xff"))
        assert not (await bench.ask(asking())).receipt.cached

    run_virtual(work())


def test_a_run_that_is_left_keeps_nothing() -> None:
    """One who leaves before the end has no answer to leave behind."""

    async def work() -> None:
        bench = Bench()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await bench.ask(asking())
        async with aclosing(bench.cached.stream(asking(), within(60))) as events:
            async for _ in events:
                break
        assert [how for _, how in bench.runs.ended] == ["cancelled", "cancelled"]
        assert not (await bench.ask(replace(asking()))).receipt.cached

    run_virtual(work())
