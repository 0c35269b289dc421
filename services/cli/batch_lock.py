"""Keeps two batches from writing to one file."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from services.cli.exit_codes import CommandError, ExitCode

_LOCK_FILE = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


@contextmanager
def locked(output: Path) -> Iterator[None]:
    """Hold the lock of a file; the system lets go of it when this process ends, however that is. Raises `CommandError` where another batch holds it."""
    # Beside the file, not on it: at the end of a batch another file takes its name.
    lock = output.with_name(f".{output.name}.ensemble-lock")
    handle = _taken(lock, output)
    try:
        yield
    finally:
        # While it is held, so that nobody's else is removed.
        lock.unlink(missing_ok=True)
        os.close(handle)


def _taken(lock: Path, output: Path) -> int:
    while True:
        handle = os.open(lock, _LOCK_FILE, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(handle), lock.lstat()):
                    return handle
        except BlockingIOError:
            os.close(handle)
            raise CommandError(f"{output}: another batch is writing to it", ExitCode.UNAVAILABLE) from None
        except BaseException:
            os.close(handle)
            raise
        # Whoever held it removed it between the two steps: what is locked now is no longer there for others to find.
        os.close(handle)
