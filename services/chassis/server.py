"""The server runner: one gRPC server with health, reflection, tracing and the error boundary, drained when it is left.

    serving --left--> NOT_SERVING, Watch streams end --> calls in flight finish --grace over--> the rest is cancelled
"""

import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

import grpc
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from services.chassis.channel import MAX_MESSAGE_BYTES
from services.chassis.error_boundary import ErrorBoundary
from services.chassis.health import ComponentHealth
from services.chassis.server_tracing import ServerTracing
from services.chassis.telemetry import Telemetry

_log = logging.getLogger(__name__)


class CannotListenError(Exception):
    """The address is taken or cannot be had."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """How a server serves."""

    listen: str
    """HOST:PORT; port 0 takes any that is free."""
    grace_seconds: float = 10.0
    """How long calls in flight may go on after the server was told to stop."""
    max_message_bytes: int = MAX_MESSAGE_BYTES
    reflection: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningServer:
    """A server that serves."""

    address: str
    """HOST:PORT with the real port."""
    port: int
    health: ComponentHealth


@asynccontextmanager
async def serve(
    service_name: str, register: Callable[[grpc.aio.Server], None], settings: ServerSettings, telemetry: Telemetry
) -> AsyncIterator[RunningServer]:
    """Serve until left, then drain. Raises `CannotListenError`."""
    server = grpc.aio.server(interceptors=[ServerTracing(telemetry, settings.listen), ErrorBoundary()], options=_options(settings))
    component_health = ComponentHealth(service_name)
    register(server)
    health_pb2_grpc.add_HealthServicer_to_server(component_health.servicer, server)
    if settings.reflection:
        reflection.enable_server_reflection((service_name, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    try:
        port = server.add_insecure_port(settings.listen)
    except RuntimeError as error:
        raise CannotListenError(f"cannot listen on {settings.listen}: it is taken or does not exist") from error
    await server.start()
    component_health.set("server", True)
    address = f"{settings.listen.rpartition(':')[0]}:{port}"
    _log.info("%s listens on %s", service_name, address)
    try:
        yield RunningServer(address=address, port=port, health=component_health)
    finally:
        await component_health.drain()
        await server.stop(settings.grace_seconds)
        _log.info("%s stopped", service_name)


async def run(application: AbstractAsyncContextManager[RunningServer]) -> None:
    """Run an application until SIGTERM or SIGINT; a second signal ends the process at once."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()

    def on_signal(number: signal.Signals) -> None:
        stop.set()
        loop.remove_signal_handler(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    async with application:
        await stop.wait()


def _options(settings: ServerSettings) -> list[tuple[str, int]]:
    return [
        # On by default in gRPC: a second server would silently share the port.
        ("grpc.so_reuseport", 0),
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.max_send_message_length", settings.max_message_bytes),
        # Our clients send a keepalive every 30 s, also without calls.
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
    ]
