"""Going by another configuration without being restarted: on SIGHUP, and when the file has changed.

file changed, SIGHUP --read--> right: applied | wrong: said in the log, and nothing changes
"""

import asyncio
import contextlib
import logging
import signal
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from services.chassis.configuration import Configuration, ConfigurationError

_log = logging.getLogger(__name__)

INTERVAL_SECONDS = 1.0
"""How often the file is looked at. Looking is one system call; being told of changes would take a library, and does not work on network drives."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigurationSource:
    """Where a configuration came from."""

    file: Path | None
    """The user's file, if there is one; a change of it is a reason to read again."""
    read: Callable[[], Configuration]
    """Reads it again. Raises `ConfigurationError`."""


@asynccontextmanager
async def reloading(
    source: ConfigurationSource | None, apply: Callable[[Configuration], Awaitable[None]], *, interval_seconds: float = INTERVAL_SECONDS
) -> AsyncIterator[None]:
    """Apply the configuration again whenever there is reason to, while the context is open; without a source, never."""
    if source is None:
        yield
        return
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    # Signals can be handled in the main thread only.
    heeds_signals = threading.current_thread() is threading.main_thread()
    if heeds_signals:
        loop.add_signal_handler(signal.SIGHUP, told.set)
    # Looked at here, not when the task has its first turn: a change in between would be missed.
    watcher = asyncio.create_task(_watch(source, _look(source.file), apply, told, interval_seconds), name="configuration-watcher")
    try:
        yield
    finally:
        watcher.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watcher
        if heeds_signals:
            loop.remove_signal_handler(signal.SIGHUP)


async def _watch(
    source: ConfigurationSource, seen: object, apply: Callable[[Configuration], Awaitable[None]], told: asyncio.Event, interval_seconds: float
) -> None:
    while True:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(interval_seconds):
                await told.wait()
        looked = _look(source.file)
        if not told.is_set() and looked == seen:
            continue
        told.clear()
        seen = looked
        try:
            configuration = await asyncio.to_thread(source.read)
        except ConfigurationError as error:
            _log.error("the configuration is wrong, so the one before it stays: %s", error)
            continue
        try:
            await apply(configuration)
        except Exception as error:  # noqa: BLE001 - whatever it is, the next change must be seen
            _log.error("the configuration could not be applied (%s)", type(error).__name__)


def _look(file: Path | None) -> object:
    """Return what changes when a file does, replaced ones included; None where it cannot be seen, as for a moment while it is replaced."""
    if file is None:
        return None
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size
