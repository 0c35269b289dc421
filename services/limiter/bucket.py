"""A token bucket in whole numbers, which refills continuously.

The level counts millionths of a unit and time nanoseconds, so that nothing is lost or won by rounding: only whole millionths are added, and the clock is moved
on only by the time that they took. A refund counts only where the bucket has not been full since the charge, for what was charged before that has come back by
itself. The scheme is that of a generic cell rate algorithm with credit (ITU-T I.371, annex A), kept as a level to allow debt and refunds.
"""

from dataclasses import dataclass

MICRO = 1_000_000
_MINUTE = 60 * 1_000_000_000


@dataclass(frozen=True, slots=True)
class Charge:
    """What was taken from a bucket, and in which of its busy times."""

    units: int
    epoch: int


class Bucket:
    """One bucket; all times are nanoseconds on the caller's clock, all amounts whole units."""

    __slots__ = ("_level", "_rate", "_updated", "capacity", "epoch")

    def __init__(self, *, per_minute: int, capacity: int, now: int) -> None:
        """Start full."""
        self._rate = per_minute
        self.capacity = capacity
        self._level = capacity * MICRO
        self._updated = now
        self.epoch = 0
        """Grows by one each time the bucket becomes full."""

    @property
    def remaining(self) -> int:
        """Whole units that can be had at once; below zero in debt. True as of the last refill."""
        return self._level // MICRO

    @property
    def rate(self) -> int:
        """Units a minute."""
        return self._rate

    def refill(self, now: int) -> None:
        """Add what has come since the last refill. A clock that stands or goes back adds nothing."""
        full = self.capacity * MICRO
        if self._level >= full:
            self._updated = max(self._updated, now)
            return
        # rate units a minute are rate * MICRO millionths in _MINUTE nanoseconds.
        added = (now - self._updated) * self._rate * MICRO // _MINUTE
        if added <= 0:
            return
        if self._level + added >= full:
            self._level = full
            self._updated = now
            self.epoch += 1
        else:
            self._level += added
            # Rounded up: time that was paid out must never be paid out again.
            self._updated += -(-added * _MINUTE // (self._rate * MICRO))

    def wait(self, units: int) -> int:
        """Return the nanoseconds until so many units can be had; 0 where they can be had now. Call `refill` before."""
        missing = units * MICRO - self._level
        return 0 if missing <= 0 else -(-missing * _MINUTE // (self._rate * MICRO))

    def take(self, units: int) -> Charge:
        """Take units, into debt if need be."""
        self._level -= units * MICRO
        return Charge(units, self.epoch)

    def refund(self, charge: Charge, units: int) -> None:
        """Give back some of a charge's units, unless the bucket has been full since."""
        if charge.epoch == self.epoch:
            self._level = min(self.capacity * MICRO, self._level + units * MICRO)
