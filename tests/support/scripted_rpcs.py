"""A service whose methods are functions over bytes, of all four kinds, on the chassis' real server.

The methods bear names of ours, so everything that the chassis does for our services it does for them.
"""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import grpc

from services.chassis.certificates import Identity
from services.chassis.channel import open_channel
from services.chassis.server import RunningServer, ServerSettings, serve
from services.chassis.telemetry import Telemetry

SERVICE = "ensemble.test.EchoService"
Method = Any
Context = grpc.aio.ServicerContext[Any, Any]
CALL_SECONDS = 20.0
"""Longest time for a call that is expected to end by itself."""


def unary(behaviour: Callable[..., Any]) -> Method:
    """Return a method with one request and one response."""
    return grpc.unary_unary_rpc_method_handler(behaviour)


def stream(behaviour: Callable[..., Any]) -> Method:
    """Return a method with one request and a stream of responses."""
    return grpc.unary_stream_rpc_method_handler(behaviour)


def collect(behaviour: Callable[..., Any]) -> Method:
    """Return a method with a stream of requests and one response."""
    return grpc.stream_unary_rpc_method_handler(behaviour)


def chat(behaviour: Callable[..., Any]) -> Method:
    """Return a method with streams both ways."""
    return grpc.stream_stream_rpc_method_handler(behaviour)


@asynccontextmanager
async def serving(
    *,
    service: str = SERVICE,
    telemetry: Telemetry | None = None,
    listen: str = "127.0.0.1:0",
    grace_seconds: float = 5.0,
    notice_seconds: float = 0.1,
    clean_up_seconds: float = 5.0,
    reflection: bool = False,
    how: Mapping[str, Any] | None = None,
    **methods: Method,
) -> AsyncIterator[RunningServer]:
    """Serve the methods by their names; `how` are further settings of the server."""
    settings = ServerSettings(
        listen=listen, grace_seconds=grace_seconds, notice_seconds=notice_seconds, clean_up_seconds=clean_up_seconds, reflection=reflection, **(how or {})
    )

    def register(server: grpc.aio.Server) -> None:
        server.add_registered_method_handlers(service, methods)

    async with serve(service, register, settings, telemetry or Telemetry.off()) as server:
        yield server


@asynccontextmanager
async def calling(target: str, *, service: str = SERVICE, telemetry: Telemetry | None = None, identity: Identity | None = None) -> AsyncIterator["Caller"]:
    """Open one of the chassis' channels to such a server."""
    async with open_channel(target, telemetry or Telemetry.off(), health_service=service, identity=identity) as channel:
        yield Caller(channel, service)


class Caller:
    """Calls the methods by their names."""

    def __init__(self, channel: grpc.aio.Channel, service: str = SERVICE) -> None:
        # Typed stubs of this service do not exist.
        self._channel: Any = channel
        self._service = service

    def unary(self, method: str, request: bytes = b"", **how: Any) -> Any:
        """Call a method with one request and one response."""
        return self._channel.unary_unary(f"/{self._service}/{method}")(request, **{"timeout": CALL_SECONDS} | how)

    def stream(self, method: str, request: bytes = b"", **how: Any) -> Any:
        """Call a method with a stream of responses."""
        return self._channel.unary_stream(f"/{self._service}/{method}")(request, **{"timeout": CALL_SECONDS} | how)

    def collect(self, method: str, requests: Any, **how: Any) -> Any:
        """Call a method with a stream of requests."""
        return self._channel.stream_unary(f"/{self._service}/{method}")(requests, **{"timeout": CALL_SECONDS} | how)

    def chat(self, method: str, requests: Any, **how: Any) -> Any:
        """Call a method with streams both ways."""
        return self._channel.stream_stream(f"/{self._service}/{method}")(requests, **{"timeout": CALL_SECONDS} | how)
