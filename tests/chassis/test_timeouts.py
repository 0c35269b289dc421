"""What the next hop is told of the time that is left, over real connections."""

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.chassis.channel import TRAVEL_SECONDS, timeout_for
from services.chassis.deadline import Deadline
from services.chassis.server_deadline import OVERSTATED_SHARE, deadline_of
from tests.support.scripted_rpcs import Caller, Context, calling, serving, unary

ON_THE_WIRE_SECONDS = 0.005
"""What a timeout may gain where it is already one that crosses unrounded."""
# Neighbours are up to 3 % apart, and some lie exactly on the steps to which gRPC rounds.
SHRINKING = [
    0.3,
    0.299,
    0.295,
    1.0,
    0.999,
    5.0,
    4.999,
    4.95,
    4.9,
    10.0,
    9.999,
    30.0,
    29.93,
    29.5,
    100.0,
    99.0,
    98.0,
    600.0,
    599.5,
    590.0,
    3600.0,
    3550.0,
    90000.0,
    89000.0,
]


class Told:
    """Answers, and remembers how much time each call had."""

    def __init__(self, overstated_share: float = 0.0) -> None:
        self.seconds: list[float] = []
        self._overstated_share = overstated_share

    async def answer(self, _: bytes, context: Context) -> bytes:
        """Remember what the call's deadline says, by a clock that stands still."""
        deadline = deadline_of(context, default_seconds=7.0, cap_seconds=1e9, overstated_share=self._overstated_share, clock=lambda: 0.0)
        self.seconds.append(deadline.at)
        return b""


async def test_the_next_hop_believes_in_no_more_than_it_has() -> None:
    """Whatever was sent over the connection before, a hop is not told more time than its caller gives it, less the time of the way back."""
    told = Told()
    async with serving(Ask=unary(told.answer)) as server, calling(server.address) as caller:
        for left in SHRINKING:
            timeout = timeout_for(Deadline.after(left, lambda: 0.0))
            await caller.unary("Ask", timeout=timeout)
            assert told.seconds[-1] <= timeout + ON_THE_WIRE_SECONDS
            assert told.seconds[-1] <= left - TRAVEL_SECONDS + ON_THE_WIRE_SECONDS
            assert timeout >= 0.98 * left - TRAVEL_SECONDS - ON_THE_WIRE_SECONDS


async def test_a_callers_time_is_not_overstated() -> None:
    """A caller with a channel of his own, whose timeouts gRPC rounds up and repeats: what it may have added is taken off."""
    told = Told(OVERSTATED_SHARE)
    async with serving(Ask=unary(told.answer)) as server, grpc.aio.insecure_channel(server.address) as channel:
        caller = Caller(channel)
        for left in SHRINKING:
            await caller.unary("Ask", timeout=left)
            assert 0.9 * left - 0.1 <= told.seconds[-1] <= left


async def test_a_default_is_not_cut() -> None:
    """Nothing is taken off where the wire says nothing."""
    told = Told(OVERSTATED_SHARE)
    async with serving(Ask=unary(told.answer)) as server, calling(server.address) as caller:
        await caller.unary("Ask", timeout=None)
    assert told.seconds == [7.0]


@pytest.mark.parametrize(
    ("left", "timeout"),
    [
        (0.5, 0.498),
        (0.9996, 0.997),
        (1.0, 0.998),
        (1.019, 1.008),
        (9.999, 9.988),
        (10.0, 9.998),
        (99.99, 99.898),
        (100.99, 99.998),
        (999.9, 998.998),
        (1009.0, 999.998),
        (9999.0, 9989.998),
        (10099.0, 9999.998),
    ],
)
def test_the_steps_are_those_of_the_wire(left: float, timeout: float) -> None:
    """Just below a step of the size that holds for so long a time."""
    assert timeout_for(Deadline.after(left, lambda: 0.0), 0.0) == pytest.approx(timeout)


@given(left=st.floats(0.001, 1e5), less=st.floats(0, 1e4))
def test_less_time_never_makes_a_longer_timeout(left: float, less: float) -> None:
    """The timeout grows with what is left."""
    assert timeout_for(Deadline.after(left - less, lambda: 0.0)) <= timeout_for(Deadline.after(left, lambda: 0.0))
