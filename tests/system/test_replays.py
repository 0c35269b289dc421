"""Repeats at real gateways over the four services: each model is called once, whoever asks, wherever, and whoever leaves."""

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.fake_provider import Answer, FakeProvider
from tests.support.redis_server import redis_server
from tests.support.repeats import ask, counted, gateways, gone, in_redis, one_of
from tests.support.stack import MEMBERS, WRITER

CALLERS = 64


async def _at_once(provider: FakeProvider, stubs: list[Any]) -> None:
    gate = asyncio.Event()
    for name in MEMBERS:
        provider.script(name, Answer(text=f"an answer from {name}", gate=gate))
    asking = [asyncio.ensure_future(ask(stubs[number % len(stubs)], "id", streamed=number % 3 == 0)) for number in range(CALLERS)]
    for name in MEMBERS:
        await provider.started(name)
    gate.set()
    response = one_of(await asyncio.gather(*asking))
    assert (response.answer, response.run_id) == (f"an answer from {WRITER}", "id")
    repeats = [await ask(stub, "id", streamed=streamed) for stub in stubs for streamed in (False, True)]
    assert one_of([response, *repeats]) == response
    assert counted(provider) == [1, 1, 1, 1]


async def test_64_repeats_at_once_are_one_run(provider: FakeProvider) -> None:
    """At one gateway that keeps them in memory, with and without events: one run, one response, and the same again afterwards."""
    async with gateways(provider, 1) as (_, stubs):
        await _at_once(provider, stubs)


async def test_64_repeats_at_two_gateways_are_one_run(provider: FakeProvider) -> None:
    """The same where two gateways keep them in one Redis."""
    async with redis_server() as server, gateways(provider, 2, **in_redis(server)) as (_, stubs):
        await _at_once(provider, stubs)


@dataclass(frozen=True, slots=True)
class Caller:
    """One of those who ask at the same time."""

    gateway: int
    streamed: bool
    leaves: bool


@dataclass(slots=True)
class Bench:
    """Two gateways on one Redis, in a loop that ordinary functions can wait in."""

    runner: asyncio.Runner
    provider: FakeProvider
    stubs: list[Any]
    ids: Iterator[int]


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    """Run everything once for all histories."""
    with asyncio.Runner() as runner:
        opened = AsyncExitStack()

        async def open_all() -> Bench:
            provider = await opened.enter_async_context(FakeProvider())
            server = await opened.enter_async_context(redis_server())
            _, stubs = await opened.enter_async_context(gateways(provider, 2, **in_redis(server)))
            return Bench(runner, provider, stubs, count())

        bench = runner.run(open_all())
        try:
            yield bench
        finally:
            runner.run(opened.aclose())


async def _history(bench: Bench, callers: list[Caller]) -> None:
    provider, request_id, gate = bench.provider, f"id-{next(bench.ids)}", asyncio.Event()
    provider.requests.clear()
    for name in MEMBERS:
        provider.script(name, Answer(text=f"an answer from {name}", gate=gate))
    first, *others = callers
    asking = [asyncio.ensure_future(ask(bench.stubs[first.gateway], request_id, streamed=first.streamed))]
    for name in MEMBERS:
        await provider.started(name)
    asking += [asyncio.ensure_future(ask(bench.stubs[one.gateway], request_id, streamed=one.streamed)) for one in others]
    # Some of them are there by now and some are not: both may happen to those who leave.
    await gone([task for task, one in zip(asking, callers, strict=True) if one.leaves])
    staying = [(task, one) for task, one in zip(asking, callers, strict=True) if not one.leaves]
    if not staying:
        await provider.idle()
        assert all(request.disconnected for request in provider.requests)
        gate.set()
        await ask(bench.stubs[0], request_id)
        return
    gate.set()
    response = one_of(await asyncio.gather(*(task for task, _ in staying)))
    assert response.answer == f"an answer from {WRITER}"
    if any(one.gateway == first.gateway and one is first for _, one in staying):
        assert counted(provider) == [1, 1, 1, 1]
    # Where all who asked the first one's gateway have left, the other gateway has the run made once more.
    assert max(counted(provider)) <= 2
    assert one_of([response, await ask(bench.stubs[0], request_id), await ask(bench.stubs[1], request_id, streamed=True)]) == response


callers = st.builds(Caller, st.integers(0, 1), st.booleans(), st.booleans())


@settings(max_examples=12, suppress_health_check=list(HealthCheck), deadline=None)
@given(st.one_of(st.lists(callers, min_size=CALLERS, max_size=CALLERS), st.lists(callers, min_size=1, max_size=4)))
def test_whoever_stays_gets_the_response_whoever_leaves(bench: Bench, history: list[Caller]) -> None:
    """All who stay get the same response; where nobody does, every call to a provider stops, and the next repeat runs."""
    bench.runner.run(_history(bench, history))


@pytest.mark.parametrize("leaving", [[True, True, True], [True, True, False]])
def test_the_last_one_to_leave_stops_the_calls(bench: Bench, leaving: list[bool]) -> None:
    """With nobody left the calls end; one who waits at another gateway has the run made once more."""
    bench.runner.run(_history(bench, [Caller(0, False, leaving[0]), Caller(0, True, leaving[1]), Caller(1, False, leaving[2])]))
