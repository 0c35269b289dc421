"""The latest events of a run, for readers at any place."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from services.gateway.event_log import EventLog


@given(st.lists(st.integers(0, 12)), st.integers(1, 30))
def test_the_latest_are_kept_within_the_bound(sizes: list[int], most: int) -> None:
    """As many as fit, counted from the last one back; each is found at the place it always had, and no other."""

    async def work() -> None:
        log: EventLog[int] = EventLog(lambda size: size, most)
        for place, size in enumerate(sizes):
            log.append(size)
            assert log.end == place + 1
            kept = [log.at(one) for one in range(log.first, log.end)]
            assert kept == sizes[log.first : place + 1]
            assert sum(sizes[log.first : log.end]) <= most
            # One more would be too many.
            assert log.first == 0 or sum(sizes[log.first - 1 : log.end]) > most
        assert [log.at(place) for place in (-1, log.first - 1, log.end)] == [None] * 3

    asyncio.run(work())


async def test_everybody_who_waits_is_woken() -> None:
    """By an event, and by a word."""
    log: EventLog[int] = EventLog(lambda size: size)

    def tell() -> None:
        log.append(1)

    for wake in (tell, log.wake):
        waiting = [asyncio.ensure_future(log.changed()) for _ in range(3)]
        await asyncio.sleep(0)
        assert not any(one.done() for one in waiting)
        wake()
        await asyncio.gather(*waiting)
