"""The deadline that a call came with."""

import time
from collections.abc import Callable
from typing import Any, Final, cast

import grpc

from services.chassis.deadline import Deadline

OVERSTATED_SHARE: Final = 0.04
"""The most by which gRPC's C core overstates a timeout on the wire, as a share of what it states.

It rounds up to two or three digits, at most by a hundredth, and sends an earlier timeout of the same connection again where the new one is up to 3 % shorter.
"""


def deadline_of(
    context: grpc.aio.ServicerContext[Any, Any],
    *,
    default_seconds: float,
    cap_seconds: float,
    overstated_share: float = 0.0,
    clock: Callable[[], float] = time.monotonic,
) -> Deadline:
    """Return the call's deadline: the caller's, cut to the cap, or the default where he set none.

    `overstated_share` is what the wire may add to the caller's time: nothing where he uses a channel of ours with `timeout_for`, `OVERSTATED_SHARE` otherwise.
    """
    # Not a number where the caller set none, whatever the stubs say.
    remaining = cast("float | None", context.time_remaining())
    given = default_seconds if remaining is None else max(0.0, remaining * (1.0 - overstated_share))
    return Deadline.after(min(given, cap_seconds), clock)
