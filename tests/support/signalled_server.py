"""A process that serves until it is signalled; its one method answers once something comes on standard input. Used by the tests of signals.

It prints its address, then one word for each thing that happens to it.
"""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from services.chassis.logs import set_up_logs
from services.chassis.server import RunningServer, run
from tests.support.scripted_rpcs import Context, serving, unary


def say(word: str) -> None:
    """Tell the test."""
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


@asynccontextmanager
async def application(grace_seconds: float) -> AsyncIterator[RunningServer]:
    """Run the service."""
    finish = asyncio.Event()

    async def hang(_: bytes, __: Context) -> bytes:
        say("entered")
        try:
            await finish.wait()
        except asyncio.CancelledError:
            say("cancelled")
            raise
        return b"finished"

    def let() -> None:
        loop.remove_reader(sys.stdin)
        finish.set()

    loop = asyncio.get_running_loop()
    loop.add_reader(sys.stdin, let)
    async with serving(grace_seconds=grace_seconds, Hang=unary(hang)) as server:
        say(server.address)
        try:
            yield server
        finally:
            say("stopping")
    say("stopped")


if __name__ == "__main__":
    set_up_logs()
    asyncio.run(run(application(float(sys.argv[1]))))
