"""A point in time until which something must be done."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace


@dataclass(frozen=True, slots=True)
class Deadline:
    """A point on a monotonic clock; gRPC does not pass deadlines on in asyncio, so each hop computes what is left and says so."""

    at: float
    """Seconds on the clock."""
    clock: Callable[[], float] = field(default=time.monotonic, compare=False, repr=False)

    @classmethod
    def after(cls, seconds: float, clock: Callable[[], float] = time.monotonic) -> "Deadline":
        """Return the point that lies so many seconds from now."""
        return cls(clock() + seconds, clock)

    def remaining(self) -> float:
        """Return the seconds left, never below zero."""
        return max(0.0, self.at - self.clock())

    @property
    def expired(self) -> bool:
        """Whether the time is over."""
        return self.at <= self.clock()

    def earlier(self, seconds: float) -> "Deadline":
        """Return this point, or the one so many seconds from now if that comes first."""
        return replace(self, at=min(self.at, self.clock() + seconds))

    def share(self, fraction: float) -> "Deadline":
        """Return the point at which the fraction of the time left is spent."""
        return replace(self, at=self.clock() + self.remaining() * fraction)

    def minus(self, margin_seconds: float) -> "Deadline":
        """Return the point that lies so many seconds before this one."""
        return replace(self, at=self.at - margin_seconds)
