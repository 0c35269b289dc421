"""Going by another configuration without being restarted: on SIGHUP, and when a file has changed.

file changed, SIGHUP --read--> right: applied | wrong: said in the log, and nothing changes
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from services.chassis.configuration import Configuration, ConfigurationError
from services.chassis.hangups import told_of_hangups

_log = logging.getLogger(__name__)

INTERVAL_SECONDS = 1.0
"""How often a file is looked at. Looking is one system call; being told of changes would take a library, and does not work on network drives."""


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

    async def reread() -> None:
        try:
            configuration = await asyncio.to_thread(source.read)
        except ConfigurationError as error:
            _log.error("the configuration is wrong, so the one before it stays: %s", error)
            return
        await apply(configuration)

    async with watching([] if source.file is None else [source.file], reread, interval_seconds=interval_seconds):
        yield


@asynccontextmanager
async def watching(files: Sequence[Path], reread: Callable[[], Awaitable[None]], *, interval_seconds: float = INTERVAL_SECONDS) -> AsyncIterator[None]:
    """Call `reread`, never twice at once, on SIGHUP and whenever one of the files has changed, while the context is open."""
    told = asyncio.Event()
    with told_of_hangups(told):
        # Looked at here, not when the task has its first turn: a change in between would be missed.
        watcher = asyncio.create_task(_watch(files, [_look(file) for file in files], reread, told, interval_seconds), name="configuration-watcher")
        try:
            yield
        finally:
            watcher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watcher


async def _watch(files: Sequence[Path], seen: list[object], reread: Callable[[], Awaitable[None]], told: asyncio.Event, interval_seconds: float) -> None:
    while True:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(interval_seconds):
                await told.wait()
        looked = [_look(file) for file in files]
        if not told.is_set() and looked == seen:
            continue
        told.clear()
        seen = looked
        try:
            await reread()
        except Exception as error:  # noqa: BLE001 - whatever it is, the next change must be seen
            _log.error("the configuration could not be applied (%s)", type(error).__name__)


def _look(file: Path) -> object:
    """Return what changes when a file does, replaced ones included; None where it cannot be seen, as for a moment while it is replaced."""
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size
