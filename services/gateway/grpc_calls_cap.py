"""The most calls that the gateway has under way at once, of any kind: the bound on what callers hold who wait for something else than a place.

Admission bounds runs. Repeats that join a run, lists and requests that are being checked take no place, and each holds its message and a task all the same.
"""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from types import TracebackType

from services.chassis.errors import Overloaded
from services.chassis.handlers import AroundInterceptor, Context


class CallsCap(AroundInterceptor):
    """Refuses calls beyond the cap before anything looks at them; health and reflection are gRPC's own and never counted."""

    def __init__(self, most: int, retry_after_seconds: Callable[[], float]) -> None:
        super().__init__()
        self._most = most
        self._retry_after_seconds = retry_after_seconds
        self.count = 0
        """Calls under way."""
        self.refused = 0
        """Calls refused so far."""

    def around(self, method: str, context: Context) -> AbstractAsyncContextManager[None]:  # noqa: ARG002 - the same for every method
        """Return what counts one call, which raises `Overloaded` where it is one too many."""
        return _Counted(self)

    def begin(self) -> None:
        """Count a call. Raises `Overloaded` where there are too many."""
        if self.count >= self._most:
            self.refused += 1
            raise Overloaded("the gateway is overloaded: it answers as many calls as it may", self._retry_after_seconds())
        self.count += 1

    def end(self) -> None:
        """Count a call no longer."""
        self.count -= 1


class _Counted(AbstractAsyncContextManager[None]):
    def __init__(self, cap: CallsCap) -> None:
        self._cap = cap

    async def __aenter__(self) -> None:
        self._cap.begin()

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._cap.end()
