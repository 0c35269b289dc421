"""Certificates that are replaced while they are in use: the files are looked at once a second, and what is right in them is in force from then on.

files replaced --read--> right: in force | wrong: said in the log, and those before stay in force

Looked at here, not when a connection comes: gRPC asks for certificates in a thread of its own with a handshake waiting, and would wait for a slow disk as
often as anybody cares to connect. The files are compared by what they hold: they are small, and neither links that are turned nor clocks that stand still hide
a change.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from services.chassis.certificates import CertificateFiles, Certificates, CertificatesUnusable, read_certificates
from services.chassis.configuration.problems import ConfigurationError, Problem

_log = logging.getLogger(__name__)

_PATIENCE = 2
"""Looks after which something wrong is said: whoever replaces two files one after the other is not wrong in between."""


class RotatingCertificates:
    """The certificates in force; `current` may be read in any thread."""

    def __init__(self, files: CertificateFiles, *, clock: Callable[[], float] = time.time) -> None:
        self.current = read_certificates(files)
        """Replaced as a whole."""
        self._files = files
        self._clock = clock
        self._changed = asyncio.Event()
        self._wrong_looks = 0
        self._said = ""
        self._expires_at = self.current.expires_at
        self._say_expiry()

    async def changed_from(self, certificates: Certificates) -> Certificates:
        """Wait until others than these are in force; return them."""
        while self.current is certificates:
            await self._changed.wait()
        return self.current

    async def watch(self) -> None:
        """Look at the files now and then, until cancelled."""
        while True:
            await asyncio.sleep(self._files.interval_seconds)
            await self.look()

    async def look(self) -> bool:
        """Look at the files once; return whether what is in them is in force."""
        self._say_expiry()
        try:
            found = await asyncio.to_thread(read_certificates, self._files)
        except CertificatesUnusable as error:
            self._wrong(str(error))
            return False
        except Exception as error:  # noqa: BLE001 - whatever it is, the next look must come
            self._wrong(type(error).__name__)
            return False
        if found != self.current:
            self._take(found)
        elif self._said:
            _log.info("the certificates of %s are again those in force", self._files.section)
        self._wrong_looks, self._said = 0, ""
        return True

    def _wrong(self, words: str) -> None:
        self._wrong_looks += 1
        if self._wrong_looks >= _PATIENCE and words != self._said:
            self._said = words
            _log.error("the certificates of %s cannot be used, so those before stay in force: %s", self._files.section, words)

    def _take(self, found: Certificates) -> None:
        self.current = found
        self._expires_at = found.expires_at
        # Whoever waits holds the old event; whoever waits next gets a fresh one.
        self._changed.set()
        self._changed = asyncio.Event()
        _log.info("the certificates of %s were replaced; new connections use them", self._files.section)
        self._say_expiry()

    def _say_expiry(self) -> None:
        """Say once of a certificate that it has expired: it stays in force, and those who refuse it say so to themselves alone."""
        if self._expires_at is not None and self._clock() > self._expires_at:
            _log.error("the certificate of %s has expired; new connections are refused by the other end until it is replaced", self._files.section)
            self._expires_at = None


class _Shared:
    """One watch with everybody who uses it."""

    def __init__(self, files: CertificateFiles) -> None:
        self.certificates = RotatingCertificates(files)
        self.users = 0
        self.watcher = asyncio.create_task(self.certificates.watch(), name=f"certificates of {files.section}")


_shared: dict[tuple[asyncio.AbstractEventLoop, CertificateFiles], _Shared] = {}
"""What is being watched: a process's servers and channels go by the same certificates at the same time, and what is wrong with them is said once."""


@asynccontextmanager
async def rotating(files: CertificateFiles) -> AsyncIterator[RotatingCertificates]:
    """Watch the files while the context is open, together with whoever else does. Raises `ConfigurationError` where they cannot be used now."""
    key = (asyncio.get_running_loop(), files)
    shared = _shared.get(key)
    if shared is None:
        try:
            # Read here and not in a thread: nobody else may come in between, and nothing is being served yet.
            shared = _shared[key] = _Shared(files)
        except CertificatesUnusable as error:
            raise ConfigurationError([Problem(path=error.setting, message=error.problem)]) from None
    shared.users += 1
    try:
        yield shared.certificates
    finally:
        shared.users -= 1
        if not shared.users:
            del _shared[key]
            shared.watcher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await shared.watcher
