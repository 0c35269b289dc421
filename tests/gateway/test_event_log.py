"""The latest events of a run, for readers at any place."""

import asyncio
import os
import resource
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.event_log import MOST_KEPT_BYTES, EventLog

SHORT_EVENTS = """
import asyncio
from pathlib import Path
from ensemble.v1 import orchestrator_service_pb2, run_event_pb2
from services.gateway.event_log import EventLog
from services.gateway.grpc_results import GrpcResults

def pages():
    return int(Path("/proc/self/statm").read_text().split()[1])

async def fill():
    event = orchestrator_service_pb2.StreamRunResponse(candidate_delta=run_event_pb2.CandidateDelta(candidate_id="a", text="x")).SerializeToString()
    log = EventLog(GrpcResults().size)
    log.append(orchestrator_service_pb2.StreamRunResponse.FromString(event))
    before = pages()
    for _ in range(100_000):
        log.append(orchestrator_service_pb2.StreamRunResponse.FromString(event))
    print(pages() - before)

asyncio.run(fill())
"""
"""Says how many pages of memory a log takes that a hundred thousand short events were told to."""


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


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a process is not told what memory it has")
def test_short_events_take_no_more_memory_than_long_ones() -> None:
    """A run that tells a character at a time, as models do, is kept within the bound too, give or take what Python adds."""
    told = subprocess.run([sys.executable, "-c", SHORT_EVENTS], check=True, capture_output=True, text=True, env={"PYTHONPATH": os.pathsep.join(sys.path)})
    assert int(told.stdout) * resource.getpagesize() < 2 * MOST_KEPT_BYTES


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
