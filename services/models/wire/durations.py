"""Seconds in Python, `google.protobuf.Duration` on the wire."""

from google.protobuf.duration_pb2 import Duration

NANOS = 1_000_000_000


def to_duration(seconds: float) -> Duration:
    """Return the duration, rounded to the nanosecond."""
    whole, nanos = divmod(round(seconds * NANOS), NANOS)
    return Duration(seconds=whole, nanos=nanos)


def to_optional_duration(seconds: float | None) -> Duration | None:
    """Return the duration, or None, which leaves a field unset."""
    return None if seconds is None else to_duration(seconds)


def to_seconds(duration: Duration) -> float:
    """Return the seconds."""
    # Divided as a whole, so that what was written is read back as the same float.
    return (duration.seconds * NANOS + duration.nanos) / NANOS
