"""Wraps the handlers of our own services, whatever their kind, in one piece of code that stands around each call."""

import functools
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, TypeAlias

import grpc

if TYPE_CHECKING:
    Handler: TypeAlias = grpc.RpcMethodHandler[Any, Any]
else:
    # The type is generic in its stubs alone.
    Handler = grpc.RpcMethodHandler

Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]
Around: TypeAlias = Callable[[Context], AbstractAsyncContextManager[None]]

Taken: TypeAlias = Callable[[Any], Any]

OURS = "/ensemble."
"""How the methods of our own services begin."""


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
            known = (handler, wrapped(handler, functools.partial(self.around, method[1:]), self.taken))
            self._wrapped[method] = known
        return known[1]


def wrapped(handler: Handler, around: Around, taken: Taken | None = None) -> Handler:
    """Return the handler with `around` standing around each of its calls, and `taken` between it and its requests."""
    deserializer = handler.request_deserializer
    if taken is None:
        taken = _as_it_is
    else:
        deserializer = _forgiving(deserializer)
        if handler.request_streaming:
            taken = functools.partial(_each, taken)
    if handler.response_streaming:
        behaviour = handler.stream_stream if handler.request_streaming else handler.unary_stream
        make = grpc.stream_stream_rpc_method_handler if handler.request_streaming else grpc.unary_stream_rpc_method_handler
        return make(_around_stream(behaviour, around, taken), deserializer, handler.response_serializer)
    behaviour = handler.stream_unary if handler.request_streaming else handler.unary_unary
    make = grpc.stream_unary_rpc_method_handler if handler.request_streaming else grpc.unary_unary_rpc_method_handler
    return make(_around_unary(behaviour, around, taken), deserializer, handler.response_serializer)


def _around_unary(behaviour: Any, around: Around, taken: Taken) -> Callable[[Any, Context], Awaitable[Any]]:
    @functools.wraps(behaviour)
    async def call(request: Any, context: Context) -> Any:
        async with around(context):
            return await behaviour(taken(request), context)

    return call


def _around_stream(behaviour: Any, around: Around, taken: Taken) -> Callable[[Any, Context], Any]:
    # gRPC tells the two styles of streaming handlers apart by what kind of function they are, so the wrapper is of the same kind.
    if not inspect.isasyncgenfunction(behaviour):
        return _around_unary(behaviour, around, taken)

    @functools.wraps(behaviour)
    async def stream(request: Any, context: Context) -> AsyncIterator[Any]:
        async with around(context):
            responses = behaviour(taken(request), context)
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


def _as_it_is(request: Any) -> Any:
    return request


async def _each(taken: Taken, requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for request in requests:
        yield taken(request)
