"""An event loop whose clock jumps: seconds of waiting pass at once, in the order in which they would have passed."""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")


class _JumpingSelector(selectors.DefaultSelector):
    """Never waits for a timer: where nothing is ready it moves the clock to the next one."""

    now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        """Return what is ready; where nothing is, let the time until the next timer pass at once."""
        ready = super().select(0 if timeout is not None else None)
        if not ready and timeout is not None and timeout > 0:
            self.now += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop on virtual time; for code that does no real input or output."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        """Return the virtual seconds since the loop was made."""
        return self._jumping.now


def run_virtual(work: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine to its end on virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(work)
