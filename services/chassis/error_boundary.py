"""The error boundary: a domain error leaves with its status and details, anything else as INTERNAL with nothing but an id.

What does not come this far: a message beyond the server's limit in bytes is refused by gRPC itself, as RESOURCE_EXHAUSTED without details of ours.
"""

import logging
from contextlib import AbstractAsyncContextManager, nullcontext
from types import TracebackType
from typing import Any
from uuid import uuid4

import grpc

from services.chassis.bugs import place_of
from services.chassis.errors import EnsembleError, FieldViolation, InvalidInput
from services.chassis.handlers import OURS, AroundInterceptor, Context, Undecodable
from services.chassis.status import DETAILS_KEY, RpcStatus, internal_status, to_status

_log = logging.getLogger(__name__)
COVERED = (OURS, "/grpc.")
"""How the methods begin that are covered: our own services, health and reflection."""
_NOTHING: AbstractAsyncContextManager[None] = nullcontext()


class ErrorBoundary(AroundInterceptor):
    """Maps whatever a handler raises; what gRPC itself raises to end a call passes, and so does a cancellation.

    Health and reflection are covered too: their requests come from strangers, and gRPC would answer bytes that it cannot decode with the decoder's own words.
    """

    covers = COVERED

    def around(self, method: str, context: Context) -> AbstractAsyncContextManager[None]:  # noqa: ARG002 - the same for every method
        """Return what stands around one call."""
        return _Boundary(context)


class DecodedRequests(AroundInterceptor):
    """Refuses what is no request, next to the handler: whatever stands between it and the boundary decides before the request counts."""

    covers = COVERED

    def __init__(self, request_seconds: float | None = None) -> None:
        """Take how long a call's only request may take to arrive, where it is read here, once all around it let the call in; with None gRPC has read it."""
        super().__init__()
        self.request_seconds = request_seconds

    def around(self, method: str, context: Context) -> AbstractAsyncContextManager[None]:  # noqa: ARG002 - the same for every method
        """Return nothing to speak of."""
        return _NOTHING

    def taken(self, request: Any) -> Any:
        """Return the request. Raises `InvalidInput` where there is none, or for bytes that do not make one, for example with text that is not UTF-8."""
        if isinstance(request, Undecodable):
            raise InvalidInput(
                [FieldViolation(field="request", description="cannot be decoded: it is another message, is cut off, or has text that is not UTF-8")]
            )
        return request


class _Boundary(AbstractAsyncContextManager[None]):
    def __init__(self, context: Context) -> None:
        self._context = context

    async def __aenter__(self) -> None:
        """Nothing is to be done before a call."""

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if isinstance(error, Exception) and not isinstance(error, grpc.aio.AbortError):
            status = _status_of(error)
            await self._context.abort(status.code, status.message, ((DETAILS_KEY, status.details),))


def _status_of(error: Exception) -> RpcStatus:
    if not isinstance(error, EnsembleError):
        return _bug(error)
    try:
        return to_status(error)
    except Exception as unmapped:  # noqa: BLE001 - an error that cannot be mapped must not leave in its own words either
        return _bug(unmapped)


def _bug(error: Exception) -> RpcStatus:
    request_id = uuid4().hex
    # Neither text nor arguments: they may hold a prompt or a secret. Type and place are enough to find the bug.
    _log.error("unexpected %s", type(error).__name__, extra={"request_id": request_id, "where": place_of(error.__traceback__)})
    return internal_status(request_id)
