"""The error boundary: a domain error leaves with its status and details, anything else as INTERNAL with nothing but an id."""

import logging
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from traceback import extract_tb

import grpc

from services.chassis.errors import EnsembleError
from services.chassis.handlers import OURS, Context, Handler, wrapped
from services.chassis.status import DETAILS_KEY, RpcStatus, internal_status, to_status

_log = logging.getLogger(__name__)


class ErrorBoundary(grpc.aio.ServerInterceptor):
    """Maps whatever a handler raises; what gRPC itself raises to end a call passes."""

    async def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]], handler_call_details: grpc.HandlerCallDetails
    ) -> Handler | None:
        """Stand around the handlers of our own services."""
        handler = await continuation(handler_call_details)
        if handler is None or not handler_call_details.method.startswith(OURS):
            return handler
        return wrapped(handler, _boundary)


@asynccontextmanager
async def _boundary(context: Context) -> AsyncIterator[None]:
    try:
        yield
    except grpc.aio.AbortError:
        raise
    except EnsembleError as error:
        await _abort(context, to_status(error))
    except Exception as error:  # noqa: BLE001 - this is the last place that can keep an exception's text from the caller
        request_id = uuid.uuid4().hex
        # Neither text nor arguments: they may hold a prompt or a secret. Type and place are enough to find the bug.
        where = [f"{frame.filename.rsplit('/', 1)[-1]}:{frame.lineno}" for frame in extract_tb(error.__traceback__)[-3:]]
        _log.error("unexpected %s", type(error).__name__, extra={"request_id": request_id, "where": " ".join(where)})
        await _abort(context, internal_status(request_id))


async def _abort(context: Context, status: RpcStatus) -> None:
    await context.abort(status.code, status.message, ((DETAILS_KEY, status.details),))
