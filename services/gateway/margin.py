"""How much earlier the orchestrator must be done than the caller gives up.

A deadline crosses the wire as a timeout that gRPC rounds up to two or three significant digits, while the timer of the one who sets it runs by the exact
value. So the gateway may believe in more time than the caller gives it, and the orchestrator in more than the gateway gives it. An answer for which the
orchestrator used its last moment (the best candidate where there was no time to refine) would come too late unless both roundings are taken off first.
"""

TRAVEL_SECONDS = 0.02
"""For the answer's way back."""

_STEPS = ((1.0, 0.001), (10.0, 0.01), (100.0, 0.1), (1000.0, 1.0))
"""Timeouts below the first figure are rounded up to a multiple of the second, in seconds, as measured with gRPC 1.85."""
_LONGEST_STEP = 10.0


def margin_for(remaining_seconds: float) -> float:
    """Return the seconds to take off what is left of a call's deadline before it is passed on."""
    rounding = next((step for below, step in _STEPS if remaining_seconds < below), _LONGEST_STEP)
    return TRAVEL_SECONDS + 2 * rounding
