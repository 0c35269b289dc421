"""The most calls that the gateway has under way at once, of any kind: the bound on what callers hold who wait for something else than a place.

Admission bounds runs. Repeats that join a run, lists and requests that are being checked take no place, and each holds its message and a task all the same.

A call counts until gRPC has done with it, not until its handler has: an answer that its caller does not take lies in memory until he does, or leaves.

Two bounds, one on either side of the authentication: of all calls, whoever makes them, and of one tenant's, so that no tenant keeps out the others.
"""

from collections import Counter
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from types import TracebackType

from services.chassis.errors import Overloaded
from services.chassis.handlers import AroundInterceptor, Context
from services.gateway.caller import current_caller


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
        return _Counted(self, context)

    def begin(self) -> None:
        """Count a call. Raises `Overloaded` where there are too many."""
        if self.count >= self._most:
            self.refused += 1
            raise Overloaded("the gateway is overloaded: it answers as many calls as it may", self._retry_after_seconds())
        self.count += 1

    def end(self) -> None:
        """Count a call no longer."""
        self.count -= 1


class TenantCallsCap(AroundInterceptor):
    """Refuses a tenant's calls beyond its own cap; stands inside the authentication, and knows no cap for callers whom nobody asked who they are."""

    def __init__(self, most: int, retry_after_seconds: Callable[[], float]) -> None:
        super().__init__()
        self._most = most
        self._retry_after_seconds = retry_after_seconds
        self._counts: Counter[str] = Counter()

    def around(self, method: str, context: Context) -> AbstractAsyncContextManager[None]:  # noqa: ARG002 - the same for every method
        """Return what counts one call for its tenant, which raises `Overloaded` where it is one too many."""
        return _CountedForTenant(self, context)

    def begin(self, tenant: str) -> None:
        """Count a tenant's call. Raises `Overloaded` where there are too many."""
        if self._counts[tenant] >= self._most:
            raise Overloaded("the gateway is overloaded: it answers as many calls of this tenant as it may", self._retry_after_seconds())
        self._counts[tenant] += 1

    def end(self, tenant: str) -> None:
        """Count a tenant's call no longer; one with nothing left is forgotten, since names come and go."""
        self._counts[tenant] -= 1
        if not self._counts[tenant]:
            del self._counts[tenant]


class _Counted(AbstractAsyncContextManager[None]):
    def __init__(self, cap: CallsCap, context: Context) -> None:
        self._cap = cap
        self._context = context

    async def __aenter__(self) -> None:
        self._cap.begin()
        self._context.add_done_callback(lambda _: self._cap.end())  # type: ignore[arg-type]  # The stubs want a class of their own.

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        """Nothing is to be done before gRPC has done with the call."""


class _CountedForTenant(AbstractAsyncContextManager[None]):
    def __init__(self, cap: TenantCallsCap, context: Context) -> None:
        self._cap = cap
        self._context = context

    async def __aenter__(self) -> None:
        tenant = current_caller.get().tenant
        if tenant:
            self._cap.begin(tenant)
            self._context.add_done_callback(lambda _: self._cap.end(tenant))  # type: ignore[arg-type]  # As above.

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        """Nothing is to be done before gRPC has done with the call."""
