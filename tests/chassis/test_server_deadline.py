"""The deadline that a call came with, over a real connection."""

import pytest

from services.chassis.server_deadline import deadline_of
from tests.support.scripted_rpcs import Context, calling, serving, unary


@pytest.mark.parametrize(
    ("timeout", "least", "most"),
    [
        pytest.param(8.0, 7.0, 8.1, id="the caller's own"),
        pytest.param(None, 20.0, 20.0, id="the default where he set none"),
        pytest.param(1000.0, 30.0, 30.0, id="cut to the cap"),
    ],
)
async def test_the_deadline_is_the_callers_the_default_or_the_cap(timeout: float | None, least: float, most: float) -> None:
    """A clock that stands still shows exactly what was taken from the call."""
    left: list[float] = []

    async def remember(_: bytes, context: Context) -> bytes:
        left.append(deadline_of(context, default_seconds=20.0, cap_seconds=30.0, clock=lambda: 100.0).at - 100.0)
        return b""

    async with serving(Ask=unary(remember)) as server, calling(server.address) as caller:
        await caller.unary("Ask", timeout=timeout)
    assert least <= left[0] <= most


async def test_the_cap_holds_for_the_default_too() -> None:
    """A default beyond the cap is cut as well."""
    left: list[float] = []

    async def remember(_: bytes, context: Context) -> bytes:
        left.append(deadline_of(context, default_seconds=50.0, cap_seconds=30.0, clock=lambda: 0.0).at)
        return b""

    async with serving(Ask=unary(remember)) as server, calling(server.address) as caller:
        await caller.unary("Ask", timeout=None)
    assert left == [30.0]
