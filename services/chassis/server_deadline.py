"""The deadline that a call came with."""

import time
from collections.abc import Callable
from typing import Any

import grpc

from services.chassis.deadline import Deadline


def deadline_of(
    context: grpc.aio.ServicerContext[Any, Any], *, default_seconds: float, cap_seconds: float, clock: Callable[[], float] = time.monotonic
) -> Deadline:
    """Return the call's deadline: the caller's, cut to the cap, or the default where he set none."""
    remaining = context.time_remaining()
    return Deadline.after(min(default_seconds if remaining is None else max(0.0, remaining), cap_seconds), clock)
