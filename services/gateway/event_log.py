"""What a run has told so far, for any number of readers, each at a place of its own.

Kept are the latest events up to a bound in bytes. A reader that is further behind than that has lost its place; it is not waited for, and holds nothing up.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Generic

from services.gateway.results import EventT

MOST_KEPT_BYTES = 4 << 20


class EventLog(Generic[EventT]):
    """Events in their order, the first one at place 0."""

    def __init__(self, size: Callable[[EventT], int], most_bytes: int = MOST_KEPT_BYTES) -> None:
        """Take what tells an event's size in bytes, and how many are kept."""
        self._size = size
        self._most = most_bytes
        self._kept: deque[EventT] = deque()
        self._bytes = 0
        self._changed = asyncio.Event()
        self.first = 0
        """The place of the first event that is still kept."""

    @property
    def end(self) -> int:
        """The place that the next event will have."""
        return self.first + len(self._kept)

    def append(self, event: EventT) -> None:
        """Keep an event, and wake those who wait for one."""
        self._kept.append(event)
        self._bytes += self._size(event)
        while self._bytes > self._most:
            self._bytes -= self._size(self._kept.popleft())
            self.first += 1
        self.wake()

    def at(self, place: int) -> EventT | None:
        """Return the event at a place; None where it is not there yet, or no longer."""
        return self._kept[place - self.first] if self.first <= place < self.end else None

    def wake(self) -> None:
        """Wake those who wait for a change."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def changed(self) -> None:
        """Wait until there is another event, or whoever waits is woken."""
        await self._changed.wait()
