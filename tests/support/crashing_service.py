"""A service that fails with a secret in its mouth: `python -m tests.support.crashing_service`, where the variable CRASH says how and SECRET_OF_CRASH what with.

start    it dies as it starts, of an error that nobody foresaw, with another one behind it
handler  its handlers raise, and so do a task, a callback, a thread and a destructor that nobody waits for
"""

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc

from services.chassis.configuration import Configuration
from services.chassis.entry import main
from services.chassis.server import RunningServer, ServerSettings, serve
from services.chassis.telemetry import TelemetrySettings, start_telemetry

SERVICE = "ensemble.test.CrashingService"


class Crash(Exception):
    """What nobody foresaw; its text holds a secret."""


class _Destroyed:
    def __init__(self, text: str) -> None:
        self.text = text

    def __del__(self) -> None:
        raise Crash(self.text)


def _raise(text: str) -> None:
    try:
        raise KeyError(text)
    except KeyError as error:
        raise Crash(f"failed with {text}") from error


async def _task(text: str) -> None:
    _raise(text)


def _methods(text: str) -> dict[str, Any]:
    async def unary(request: bytes, _: Any) -> bytes:
        # The caller's words too, which are a prompt.
        _raise(f"{text} {request.decode()}")
        return b""

    async def stream(request: bytes, _: Any) -> AsyncIterator[bytes]:
        yield b"begun"
        _raise(f"{text} {request.decode()}")

    async def elsewhere(_: bytes, __: Any) -> bytes:
        asyncio.get_running_loop().call_soon(_raise, text)
        thread = threading.Thread(target=_raise, args=(text,), name="a thread")
        thread.start()
        await asyncio.to_thread(thread.join)
        task = asyncio.ensure_future(_task(text))
        await asyncio.wait([task])
        # Its loss is told when it is collected.
        del task
        _Destroyed(text)
        return b"done"

    return {
        "Unary": grpc.unary_unary_rpc_method_handler(unary),
        "Stream": grpc.unary_stream_rpc_method_handler(stream),
        "Elsewhere": grpc.unary_unary_rpc_method_handler(elsewhere),
    }


@asynccontextmanager
async def application(configuration: Configuration, *, listen: str | None = None, insecure: bool = False) -> AsyncIterator[RunningServer]:
    """Run the service, or fail."""
    text = os.environ["SECRET_OF_CRASH"]
    if os.environ["CRASH"] == "start":
        _raise(text)
    telemetry = start_telemetry("crashing", TelemetrySettings.from_configuration(configuration))
    methods = _methods(text)
    settings = ServerSettings(listen=listen or "127.0.0.1:0", insecure=insecure, grace_seconds=1.0)
    try:
        async with serve(SERVICE, lambda server: server.add_registered_method_handlers(SERVICE, methods), settings, telemetry) as running:
            yield running
    finally:
        await telemetry.shutdown()


if __name__ == "__main__":
    main(application)
