"""Streamed work: events in order, the result last, errors passed on, early leaving cancels."""

import asyncio
from contextlib import aclosing

import pytest

from services.chassis.event_stream import Put, stream_events
from tests.support.virtual_time import run_virtual


async def _count(put: Put[int]) -> int:
    for number in range(3):
        put(number)
        await asyncio.sleep(1)
    return 99


def test_events_come_in_order_and_the_result_last() -> None:
    """What is put is yielded as it comes, then what the work returns."""

    async def scenario() -> list[int]:
        return [event async for event in stream_events(_count)]

    assert run_virtual(scenario()) == [0, 1, 2, 99]


def test_an_error_follows_the_events_before_it() -> None:
    """What was put before the work failed is still yielded."""

    async def work(put: Put[int]) -> int:
        put(1)
        raise ValueError("broken")

    async def scenario() -> list[int]:
        stream = stream_events(work)
        seen = [await anext(stream)]
        with pytest.raises(ValueError, match="broken"):
            await anext(stream)
        return seen

    assert run_virtual(scenario()) == [1]


def test_leaving_early_cancels_the_work_and_waits_for_its_end() -> None:
    """A reader that leaves leaves nothing running."""
    ended: list[str] = []

    async def work(put: Put[int]) -> int:
        put(1)
        try:
            await asyncio.sleep(1000)
        finally:
            await asyncio.sleep(1)
            ended.append("work")
        return 2

    async def scenario() -> None:
        async with aclosing(stream_events(work)) as events:
            async for _ in events:
                break
        assert ended == ["work"]

    run_virtual(scenario())


def test_leaving_after_the_work_failed_is_quiet() -> None:
    """An error that nobody reads any more does not surface anywhere else."""

    async def work(put: Put[int]) -> int:
        put(1)
        raise ValueError("nobody cares")

    async def scenario() -> None:
        async with aclosing(stream_events(work)) as events:
            async for _ in events:
                await asyncio.sleep(1)
                break

    run_virtual(scenario())


def test_a_cancelled_reader_cancels_the_work() -> None:
    """The reader's cancellation reaches the work."""
    ended = asyncio.Event()

    async def work(_: Put[int]) -> int:
        try:
            await asyncio.sleep(1000)
        finally:
            ended.set()
        return 1

    async def scenario() -> None:
        task = asyncio.ensure_future(anext(stream_events(work)))
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ended.is_set()

    run_virtual(scenario())
