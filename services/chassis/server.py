"""The server runner: one gRPC server with health, reflection, tracing and the error boundary, drained when it is left.

    serving --left--> NOT_SERVING, Watch streams end --a moment later--> calls in flight finish --grace over--> the rest is cancelled

Callers that watch the health are given that moment to go elsewhere, since gRPC cancels a call that arrives when the server has just stopped to take any.

Handlers that were cancelled get time to give back what they hold, before the channels they do it over are closed.
"""

import asyncio
import gc
import logging
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import grpc
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from services.chassis.calls_in_flight import CallsInFlight
from services.chassis.channel import MAX_MESSAGE_BYTES, MAX_METADATA_BYTES
from services.chassis.configuration import Configuration, ServerSection
from services.chassis.error_boundary import DecodedRequests, ErrorBoundary
from services.chassis.handlers import AroundInterceptor
from services.chassis.health import ComponentHealth, HealthServicer
from services.chassis.kept_server import kept_server
from services.chassis.listener import Listener
from services.chassis.listening import Exposure, refuse_openness
from services.chassis.rotation import RotatingCertificates, rotating
from services.chassis.server_tls import KnownCallers, ServerTls, server_credentials
from services.chassis.server_tracing import ServerTracing
from services.chassis.telemetry import Telemetry

_STOPPING = (signal.SIGTERM, signal.SIGINT)

_log = logging.getLogger(__name__)


class CannotListenError(Exception):
    """The address is taken or cannot be had."""


class CannotStartError(Exception):
    """Something that the service cannot be without is not there, or will not do; the text says what to change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """How a server serves."""

    listen: str
    """HOST:PORT; port 0 takes any that is free."""
    grace_seconds: float = 10.0
    """How long calls in flight may go on after the server was told to stop."""
    notice_seconds: float = 0.1
    """How long calls are still taken after the health says NOT_SERVING, where anybody watches it."""
    clean_up_seconds: float = 2.0
    """How long handlers that were cancelled after the grace may take to give back what they hold."""
    max_message_bytes: int = MAX_MESSAGE_BYTES
    """The limit in both directions."""
    reflection: bool = True
    """Let clients ask the server for its services and messages."""
    section: str = ""
    """The server's section of the configuration, for messages."""
    tls: ServerTls | None = None
    """What it shows and whom it lets in; None for plain text."""
    authenticated: bool = False
    """Whether it knows who calls, by certificates or otherwise."""
    insecure: bool = False
    """Listen where others can reach it without TLS or without knowing them all the same; the operator says that he knows."""
    max_concurrent_streams: int = 1024
    """Calls that one connection may have under way; more wait at the caller's end."""
    handshake_seconds: float = 10.0
    """How long a new connection may take until it is ready for calls."""
    request_seconds: float = 60.0
    """How long a call's request may take to arrive, at a server that looks at callers before it reads what they send."""

    @classmethod
    def of_internal(cls, name: str, section: ServerSection, configuration: Configuration, listen: str | None, *, insecure: bool) -> "ServerSettings":
        """Return those of a service that only our own services call: with `tls`, each must show a certificate; `listen` stands above the section."""
        tls = configuration.tls
        return cls(
            listen=listen or section.listen,
            grace_seconds=section.grace_seconds,
            reflection=section.reflection,
            section=name,
            tls=None if tls is None else ServerTls(files=tls.files, demands_client=True, callers=frozenset(tls.callers)),
            authenticated=tls is not None,
            insecure=insecure,
        )

    @property
    def exposure(self) -> Exposure:
        """What the server has to show to those whom it does not know."""
        return Exposure(section=self.section, listen=self.listen, encrypted=self.tls is not None, authenticated=self.authenticated)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningServer:
    """A server that serves."""

    address: str
    """HOST:PORT with the real port."""
    port: int
    health: ComponentHealth


@asynccontextmanager
async def serve(
    service_name: str,
    register: Callable[[grpc.aio.Server], None],
    settings: ServerSettings,
    telemetry: Telemetry,
    *,
    interceptors: Sequence[AroundInterceptor] = (),
) -> AsyncIterator[RunningServer]:
    """Serve until left, then drain; being cancelled meanwhile ends the grace, but not the time that handlers get to give back what they hold.

    The service's own interceptors, outermost first, stand inside the tracing and the error boundary, and decide before it matters what was sent. Raises
    `CannotListenError`, or `ConfigurationError` where others could reach the server without TLS or without being known, or its certificates will not do.
    """
    if settings.exposure.open:
        if not settings.insecure:
            refuse_openness(settings.exposure)
        _log.warning("%s listens on %s, where others can reach it, without %s (--insecure)", service_name, settings.listen, settings.exposure.missing)
    async with AsyncExitStack() as stack:
        certificates = None if settings.tls is None else await stack.enter_async_context(rotating(settings.tls.files))
        yield await stack.enter_async_context(_serving(service_name, register, settings, telemetry, interceptors=interceptors, certificates=certificates))


@asynccontextmanager
async def _serving(
    service_name: str,
    register: Callable[[grpc.aio.Server], None],
    settings: ServerSettings,
    telemetry: Telemetry,
    *,
    interceptors: Sequence[AroundInterceptor],
    certificates: RotatingCertificates | None,
) -> AsyncIterator[RunningServer]:
    calls = CallsInFlight()
    tracing = ServerTracing(telemetry, calls)
    callers = [] if settings.tls is None or not settings.tls.callers else [KnownCallers(settings.tls.callers)]
    # Whoever is refused by those is refused before his request takes memory. It costs each call a little, so where nobody is refused it is left.
    decoded = DecodedRequests(settings.request_seconds if callers or interceptors else None)
    component_health = ComponentHealth(service_name)

    def make() -> grpc.aio.Server:
        server = kept_server([tracing, ErrorBoundary(), *callers, *interceptors, decoded], _options(settings))
        register(server)
        health_pb2_grpc.add_HealthServicer_to_server(HealthServicer(component_health), server)
        if settings.reflection:
            reflection.enable_server_reflection((service_name, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
        return server

    def bind(server: grpc.aio.Server, port: int) -> int:
        host, _, wanted = settings.listen.rpartition(":")
        address = f"{host}:{port}" if wanted == "0" else settings.listen
        if settings.tls is None or certificates is None:
            bound = server.add_insecure_port(address)
        else:
            bound = server.add_secure_port(address, server_credentials(settings.tls, certificates))
        tracing.listening_on(f"{host}:{bound}")
        return bound

    listener = Listener(make, bind, grace_seconds=settings.grace_seconds)
    try:
        port = await listener.start()
    except RuntimeError as error:
        kind = "" if settings.tls is None else f", or gRPC does not take the kind of key in {settings.tls.files.section}.key"
        raise CannotListenError(f"cannot listen on {settings.listen}: it is taken or does not exist{kind}") from error
    address = f"{settings.listen.rpartition(':')[0]}:{port}"
    component_health.set("server", True)
    _log.info("%s listens on %s", service_name, address)
    try:
        yield RunningServer(address=address, port=port, health=component_health)
    finally:
        notice_seconds = settings.notice_seconds if component_health.watched else 0.0
        component_health.drain()
        try:
            await _stop(listener, notice_seconds, settings.grace_seconds)
        finally:
            if not await calls.ended(settings.clean_up_seconds):
                _log.warning("%s leaves %d calls that do not end", service_name, calls.count)
            _log.info("%s stopped", service_name)


async def run(application: AbstractAsyncContextManager[RunningServer]) -> None:
    """Run an application until SIGTERM or SIGINT; a second signal, of either kind, ends the process at once."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    before = {number: signal.getsignal(number) for number in _STOPPING}

    def on_signal() -> None:
        stop.set()
        for number in _STOPPING:
            loop.remove_signal_handler(number)
            # The system's own handling, which needs no event loop that is still moving.
            signal.signal(number, signal.SIG_DFL)

    for number in _STOPPING:
        loop.add_signal_handler(number, on_signal)
    try:
        async with application:
            # What the start has made stays: looking through it again with every full collection would hold each call up for 25 ms, health checks too.
            gc.collect()
            gc.freeze()
            await stop.wait()
    finally:
        gc.unfreeze()
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)


async def _stop(listener: Listener, notice_seconds: float, grace_seconds: float) -> None:
    try:
        await asyncio.sleep(notice_seconds)
        await listener.stop(grace_seconds)
    except asyncio.CancelledError:
        await listener.stop(None)
        raise


def _options(settings: ServerSettings) -> list[tuple[str, int]]:
    return [
        # On by default in gRPC: a second server would silently share the port.
        ("grpc.so_reuseport", 0),
        # Not limited in gRPC: one connection could begin calls, each with a task and its memory, until there is none left.
        ("grpc.max_concurrent_streams", settings.max_concurrent_streams),
        # Else gRPC counts calls that have ended until their memory is free, and refuses a call that honestly waited for one of them: at the limit, as measured,
        # more than half of all calls fail.
        ("grpc.http.overload_protection", 0),
        # Beyond the first gRPC refuses by chance, ever more likely up to the second; with both the same it is certain on either side.
        ("grpc.max_metadata_size", MAX_METADATA_BYTES),
        ("grpc.absolute_max_metadata_size", MAX_METADATA_BYTES),
        # Two minutes in gRPC: whoever connects and says nothing would hold a socket for as long.
        ("grpc.server_handshake_timeout_ms", round(settings.handshake_seconds * 1000)),
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.max_send_message_length", settings.max_message_bytes),
        # Our clients send a keepalive every 30 s, also without calls.
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
    ]
