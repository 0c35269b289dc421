"""SIGHUP for everybody in this process who goes by it: a signal has one handler, and several services may run in one process."""

import asyncio
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_listening: set[asyncio.Event] = set()
"""What is set by the signal. The signal belongs to the process as a whole, and so does this."""
_before: list[Any] = []
"""What was done with the signal before anybody listened; empty while nobody does."""


@contextmanager
def told_of_hangups(told: asyncio.Event) -> Iterator[None]:
    """Set the event with each SIGHUP while the context is open; in another thread than the main one, where no signal can be handled, never."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    if not _listening:
        _before[:] = [signal.getsignal(signal.SIGHUP)]
        loop.add_signal_handler(signal.SIGHUP, _tell)
    _listening.add(told)
    try:
        yield
    finally:
        _listening.discard(told)
        if not _listening:
            loop.remove_signal_handler(signal.SIGHUP)
            # The loop leaves the system's own handling behind, but a process that `nohup` started is to go on ignoring it.
            signal.signal(signal.SIGHUP, _before.pop())


def _tell() -> None:
    for told in _listening:
        told.set()
