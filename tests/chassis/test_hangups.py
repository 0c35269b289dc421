"""SIGHUP reaches everybody in a process who goes by it, and only those."""

import asyncio
import os
import signal

from services.chassis.hangups import told_of_hangups


async def test_everybody_is_told_until_he_leaves() -> None:
    """Whoever leaves first takes nothing from the others; after the last one the signal is what it was."""
    before = signal.getsignal(signal.SIGHUP)
    first, second = asyncio.Event(), asyncio.Event()
    async with asyncio.timeout(10):
        with told_of_hangups(first):
            with told_of_hangups(second):
                os.kill(os.getpid(), signal.SIGHUP)
                await first.wait()
                await second.wait()
            first.clear()
            second.clear()
            os.kill(os.getpid(), signal.SIGHUP)
            await first.wait()
            assert not second.is_set()
    assert signal.getsignal(signal.SIGHUP) == before


async def test_the_first_may_leave_first() -> None:
    """The order in which they came does not matter."""
    first, second = asyncio.Event(), asyncio.Event()
    leaving = told_of_hangups(first)
    leaving.__enter__()
    async with asyncio.timeout(10):
        with told_of_hangups(second):
            leaving.__exit__(None, None, None)
            os.kill(os.getpid(), signal.SIGHUP)
            await second.wait()
    assert not first.is_set()


async def test_what_ignored_the_signal_before_ignores_it_again() -> None:
    """A process that `nohup` started must not be ended by the signal once nobody listens any more."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with told_of_hangups(asyncio.Event()):
            pass
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
