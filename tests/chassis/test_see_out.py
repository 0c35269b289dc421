"""Waiting for tasks to end, whatever happens to the one who waits."""

import asyncio

import pytest

from services.chassis.see_out import see_out
from tests.support.virtual_time import run_virtual


async def _closing(seconds: float, ended: list[float]) -> None:
    try:
        await asyncio.Event().wait()
    finally:
        await asyncio.sleep(seconds)
        ended.append(asyncio.get_running_loop().time())


def test_cancellations_do_not_shorten_the_wait() -> None:
    """Cancelled twice, the waiter leaves after the last task has cleaned up, as cancelled."""

    async def scenario() -> tuple[list[float], float]:
        ended: list[float] = []
        tasks = [asyncio.create_task(_closing(seconds, ended)) for seconds in (1.0, 3.0)]
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        waiter = asyncio.create_task(see_out(tasks))
        for _ in range(2):
            await asyncio.sleep(0.5)
            waiter.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiter
        return ended, asyncio.get_running_loop().time()

    assert run_virtual(scenario()) == ([1.0, 3.0], 3.0)


def test_nothing_to_wait_for() -> None:
    """Without tasks, or with ended ones, it returns at once; whatever they ended with is theirs."""

    async def failing() -> None:
        raise ValueError

    async def scenario() -> None:
        task = asyncio.create_task(failing())
        await see_out([])
        await see_out([task])
        assert isinstance(task.exception(), ValueError)

    run_virtual(scenario())
