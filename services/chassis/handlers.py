"""Wraps the handlers of our own services, whatever their kind, in one piece of code that stands around each call.

gRPC reads the one request of a call before it enters a handler that wants one. Where strangers are to be refused before their requests take memory
(`AroundInterceptor.request_seconds`), such a handler is shown to it as one that wants a stream of them, and reads the first inside of all that is around it.
"""

import asyncio
import functools
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, TypeAlias

import grpc

from services.chassis.errors import DeadlineSpent

if TYPE_CHECKING:
    Handler: TypeAlias = grpc.RpcMethodHandler[Any, Any]
else:
    # The type is generic in its stubs alone.
    Handler = grpc.RpcMethodHandler

Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]
Around: TypeAlias = Callable[[Context], AbstractAsyncContextManager[None]]

Taken: TypeAlias = Callable[[Any], Any]
Take: TypeAlias = Callable[[Any, Context], Awaitable[Any]]

OURS = "/ensemble."
"""How the methods of our own services begin."""
SHORT_REQUEST_SECONDS = 5.0
"""How long a request to one of gRPC's own services may take to arrive where it is waited for: they are small and come from anybody."""


class Undecodable:
    """Stands for a request whose bytes do not make its message.

    gRPC decodes before any handler is entered, and would send the caller the decoder's own words with what they quote of the request.
    """


class AroundInterceptor(grpc.aio.ServerInterceptor):
    """An interceptor that stands around each call of our own services; unknown methods pass untouched, and so do those of gRPC itself unless they are covered.

    Servers keep one handler for each method, so each is wrapped once and not with every call.
    """

    covers: tuple[str, ...] = (OURS,)
    """How the methods begin that it stands around."""
    taken: Taken | None = None
    """Gives each request to the handler, or raises for an `Undecodable`, inside of `around`; None leaves requests as they are."""
    request_seconds: float | None = None
    """How long the one request of a call may take to arrive once all around it has been entered; None leaves it to gRPC, which reads it before, and waits for
    it as long as the caller does."""

    def __init__(self) -> None:
        self._wrapped: dict[str, tuple[Handler, Handler]] = {}

    def around(self, method: str, context: Context) -> AbstractAsyncContextManager[None]:
        """Return what stands around a call of a method, for example "ensemble.v1.GatewayService/Generate"."""
        raise NotImplementedError

    async def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]], handler_call_details: grpc.HandlerCallDetails
    ) -> Handler | None:
        """Hand on the handler, wrapped where it is of our own services."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or not method.startswith(self.covers):
            return handler
        known = self._wrapped.get(method)
        if known is None or known[0] is not handler:
            seconds = self.request_seconds
            if seconds is not None and not method.startswith(OURS):
                seconds = min(seconds, SHORT_REQUEST_SECONDS)
            known = (handler, wrapped(handler, functools.partial(self.around, method[1:]), self.taken, seconds))
            self._wrapped[method] = known
        return known[1]


def wrapped(handler: Handler, around: Around, taken: Taken | None = None, request_seconds: float | None = None) -> Handler:
    """Return the handler with `around` standing around each of its calls, and `taken` between it and its requests."""
    deserializer, streaming = handler.request_deserializer, handler.request_streaming
    take: Take = _as_it_is
    if taken is not None:
        deserializer = _forgiving(deserializer)
        if handler.request_streaming:
            take = _each(taken)
        elif request_seconds is None:
            take = _only(taken)
        else:
            streaming, take = True, _first(taken, request_seconds)
    if handler.response_streaming:
        behaviour = handler.stream_stream if handler.request_streaming else handler.unary_stream
        make = grpc.stream_stream_rpc_method_handler if streaming else grpc.unary_stream_rpc_method_handler
        return make(_around_stream(behaviour, around, take), deserializer, handler.response_serializer)
    behaviour = handler.stream_unary if handler.request_streaming else handler.unary_unary
    make = grpc.stream_unary_rpc_method_handler if streaming else grpc.unary_unary_rpc_method_handler
    return make(_around_unary(behaviour, around, take), deserializer, handler.response_serializer)


def _around_unary(behaviour: Any, around: Around, take: Take) -> Callable[[Any, Context], Awaitable[Any]]:
    @functools.wraps(behaviour)
    async def call(request: Any, context: Context) -> Any:
        async with around(context):
            return await behaviour(await take(request, context), context)

    return call


def _around_stream(behaviour: Any, around: Around, take: Take) -> Callable[[Any, Context], Any]:
    # gRPC tells the two styles of streaming handlers apart by what kind of function they are, so the wrapper is of the same kind.
    if not inspect.isasyncgenfunction(behaviour):
        return _around_unary(behaviour, around, take)

    @functools.wraps(behaviour)
    async def stream(request: Any, context: Context) -> AsyncIterator[Any]:
        async with around(context):
            responses = behaviour(await take(request, context), context)
            try:
                async for response in responses:
                    yield response
            finally:
                await responses.aclose()

    return stream


def _forgiving(deserializer: Callable[[bytes], Any] | None) -> Callable[[bytes], Any] | None:
    if deserializer is None:
        return None

    def deserialize(data: bytes) -> Any:
        try:
            return deserializer(data)
        except Exception:  # noqa: BLE001 - whatever it says may quote the request
            return Undecodable()

    return deserialize


async def _as_it_is(request: Any, _: Context) -> Any:
    return request


def _only(taken: Taken) -> Take:
    async def take(request: Any, _: Context) -> Any:
        return taken(request)

    return take


def _first(taken: Taken, request_seconds: float) -> Take:
    async def take(_: Any, context: Context) -> Any:
        try:
            async with asyncio.timeout(request_seconds):
                request = await context.read()
        except TimeoutError:
            raise DeadlineSpent("the arrival of the request") from None
        return taken(Undecodable() if request is grpc.aio.EOF else request)

    return take


def _each(taken: Taken) -> Take:
    async def each(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
        async for request in requests:
            yield taken(request)

    async def take(requests: Any, _: Context) -> Any:
        return each(requests)

    return take
