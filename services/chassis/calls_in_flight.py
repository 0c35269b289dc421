"""How many calls a server is answering.

gRPC's own `stop` waits until the callers have their answers, not until the handlers are done: one that was cancelled may still be giving back what it holds,
over channels that its application closes next.
"""

import asyncio


class CallsInFlight:
    """Counts the calls whose handlers have not ended."""

    def __init__(self) -> None:
        self.count = 0
        self._idle = asyncio.Event()
        self._idle.set()

    def begin(self) -> None:
        """Count a call."""
        self.count += 1
        self._idle.clear()

    def end(self) -> None:
        """Count a call no longer."""
        self.count -= 1
        if self.count == 0:
            self._idle.set()

    async def ended(self, within_seconds: float | None) -> bool:
        """Wait until no call is left, with None for as long as it takes; return whether that came in time."""
        waiting = asyncio.ensure_future(self._idle.wait())
        try:
            await asyncio.wait([waiting], timeout=within_seconds)
        finally:
            waiting.cancel()
        return self.count == 0
