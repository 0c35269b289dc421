"""Waits for tasks to end, whatever happens to the one who waits."""

import asyncio
from collections.abc import Collection
from typing import Any


async def see_out(tasks: "Collection[asyncio.Task[Any]]") -> None:
    """Wait until all tasks have ended; a cancellation meanwhile does not shorten the wait, and is raised after it.

    Who has cancelled his tasks must not leave before they have cleaned up, and a second cancellation, of him, would otherwise make him.
    """
    cancelled: asyncio.CancelledError | None = None
    while pending := {task for task in tasks if not task.done()}:
        try:
            await asyncio.wait(pending)
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled
