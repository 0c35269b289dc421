"""A token bucket in whole numbers, which refills continuously.

Time is microseconds and the level counts sixty-millionths of a unit, so that a rate of n units a minute adds exactly n of them each microsecond: nothing is
lost or won by rounding, and it does not matter how often somebody looks. All numbers stay below 2^53, so a store whose numbers are floats computes the same.

A refund counts only where the bucket has not been full since the charge, for what was charged before that has come back by itself. The scheme is that of a
generic cell rate algorithm with credit (ITU-T I.371, annex A), kept as a level to allow debt and refunds.
"""

from dataclasses import dataclass

UNIT = 60_000_000
"""What one unit is on the level's scale."""
MOST_UNITS = 100_000_000
"""Most that a bucket can hold, and most that it can be given in a minute."""
DEEPEST_DEBT = -30_000_000 * UNIT
"""Where debt ends: what is charged beyond it is forgiven."""


@dataclass(frozen=True, slots=True)
class Charge:
    """What was taken from a bucket, and in which of its busy times."""

    units: int
    epoch: int


class Bucket:
    """One bucket; all times are microseconds on the caller's clock, all amounts whole units."""

    __slots__ = ("_level", "_updated", "capacity", "epoch", "rate")

    def __init__(self, *, per_minute: int, capacity: int, now: int) -> None:
        """Start full. Rate and capacity are at most `MOST_UNITS`."""
        self.rate = per_minute
        """Units a minute."""
        self.capacity = capacity
        self._level = capacity * UNIT
        self._updated = now
        self.epoch = now
        """Grows by one each time the bucket becomes full; it begins at the time, so that a later bucket in the same place shares none."""

    @property
    def remaining(self) -> int:
        """Whole units that can be had at once; below zero in debt. True as of the last refill."""
        return self._level // UNIT

    def refill(self, now: int) -> None:
        """Add what has come since the last refill. A clock that stands or goes back adds nothing."""
        full = self.capacity * UNIT
        if self._level < full and now > self._updated:
            self._level = min(full, self._level + (now - self._updated) * self.rate)
            self.epoch += self._level == full
        self._updated = max(self._updated, now)

    def wait(self, units: int) -> int:
        """Return the microseconds until so many units can be had; 0 where they can be had now. Call `refill` before."""
        missing = units * UNIT - self._level
        return 0 if missing <= 0 else -(-missing // self.rate)

    def take(self, units: int) -> Charge:
        """Take units, into debt if need be."""
        self._level = max(DEEPEST_DEBT, self._level - units * UNIT)
        return Charge(units, self.epoch)

    def refund(self, charge: Charge, units: int) -> None:
        """Give back some of a charge's units, unless the bucket has been full since."""
        if charge.epoch == self.epoch:
            self.add(units * UNIT)

    def add(self, parts: int) -> None:
        """Add so many parts of `UNIT`, up to the capacity."""
        self._level = min(self.capacity * UNIT, self._level + parts)

    def lower(self, units: int) -> None:
        """Leave at most so many units: somebody who must know says that there are no more."""
        self._level = min(self._level, max(0, units) * UNIT)

    def resize(self, *, per_minute: int, capacity: int, now: int) -> None:
        """Change rate and capacity from now on; what is there stays, as far as it still fits."""
        self.refill(now)
        was_full = self._level >= self.capacity * UNIT
        self.rate = per_minute
        self.capacity = capacity
        if self._level >= capacity * UNIT and not was_full:
            self.epoch += 1
        self._level = min(self._level, capacity * UNIT)
