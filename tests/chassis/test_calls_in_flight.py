"""Counting the calls that a server answers."""

import asyncio

from services.chassis.calls_in_flight import CallsInFlight


async def test_a_server_without_calls_is_idle() -> None:
    """There is nothing to wait for."""
    assert await CallsInFlight().ended(0.0)


async def test_waiting_ends_with_the_last_call() -> None:
    """Not with the first of two."""
    calls = CallsInFlight()
    calls.begin()
    calls.begin()
    waiting = asyncio.create_task(calls.ended(30.0))
    await asyncio.sleep(0)
    calls.end()
    await asyncio.sleep(0)
    assert (calls.count, waiting.done()) == (1, False)
    calls.end()
    assert await waiting
    assert calls.count == 0


async def test_waiting_does_not_last_longer_than_allowed() -> None:
    """A call that does not end is given up."""
    calls = CallsInFlight()
    calls.begin()
    assert not await calls.ended(0.01)


async def test_a_call_that_comes_after_an_idle_time_is_waited_for() -> None:
    """Having been idle once is not being idle for good."""
    calls = CallsInFlight()
    calls.begin()
    calls.end()
    calls.begin()
    assert not await calls.ended(0.0)
