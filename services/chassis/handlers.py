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

OURS = "/ensemble."
"""How the methods of our own services begin; health and reflection are left as they are."""


def wrapped(handler: Handler, around: Around) -> Handler:
    """Return the handler with `around` standing around each of its calls."""
    if handler.response_streaming:
        behaviour = handler.stream_stream if handler.request_streaming else handler.unary_stream
        make = grpc.stream_stream_rpc_method_handler if handler.request_streaming else grpc.unary_stream_rpc_method_handler
        return make(_around_stream(behaviour, around), handler.request_deserializer, handler.response_serializer)
    behaviour = handler.stream_unary if handler.request_streaming else handler.unary_unary
    make = grpc.stream_unary_rpc_method_handler if handler.request_streaming else grpc.unary_unary_rpc_method_handler
    return make(_around_unary(behaviour, around), handler.request_deserializer, handler.response_serializer)


def _around_unary(behaviour: Any, around: Around) -> Callable[[Any, Context], Awaitable[Any]]:
    @functools.wraps(behaviour)
    async def call(request: Any, context: Context) -> Any:
        async with around(context):
            return await behaviour(request, context)

    return call


def _around_stream(behaviour: Any, around: Around) -> Callable[[Any, Context], Any]:
    # gRPC tells the two styles of streaming handlers apart by what kind of function they are, so the wrapper is of the same kind.
    if not inspect.isasyncgenfunction(behaviour):
        return _around_unary(behaviour, around)

    @functools.wraps(behaviour)
    async def stream(request: Any, context: Context) -> AsyncIterator[Any]:
        async with around(context):
            responses = behaviour(request, context)
            try:
                async for response in responses:
                    yield response
            finally:
                await responses.aclose()

    return stream
