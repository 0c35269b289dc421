"""A tenant's budget for one period of UTC.

    reserve --settle--> spent (the actual cost)
       |-----release--> nothing
       `-----lapse----> spent (the estimate, unreconciled) --settle late--> spent (the actual cost)

A call belongs to the period in which it was granted; when another one has begun, what becomes of it changes nothing any more.
"""

from datetime import UTC, datetime

from services.limiter.limits import SECOND
from services.limiter.obstacle import Obstacle
from services.models.permits import BudgetLevel, DenialReason

DAY = 86_400 * SECOND


def day_of(utc: int) -> int:
    """Return a number for the day of UTC that a moment, in microseconds since 1970, lies in."""
    return utc // DAY


def month_of(utc: int) -> int:
    """Return a number for the calendar month of UTC: twelve times the year and the month from 0."""
    moment = datetime.fromtimestamp(utc // SECOND, UTC)
    return moment.year * 12 + moment.month - 1


def month_start(month: int) -> int:
    """Return the moment at which a month begins, in microseconds since 1970."""
    return int(datetime(month // 12, month % 12 + 1, 1, tzinfo=UTC).timestamp()) * SECOND


class Budget:
    """All amounts are micro-USD, all times microseconds since 1970."""

    def __init__(self, tenant: str, period: str, limit: int, utc: int) -> None:
        """Start unspent; the period is day or month."""
        self.name = f"tenant/{tenant}/budget_per_{period}"
        self.period = period
        self.limit = limit
        self.number = 0
        """Which of the periods it is."""
        self._spent = self._reserved = self._unreconciled = 0
        self.roll(utc)

    def roll(self, utc: int) -> None:
        """Begin the period that a moment lies in. A clock that goes back does not bring an old period back."""
        number = day_of(utc) if self.period == "day" else month_of(utc)
        if number > self.number:
            self.number = number
            self._spent = self._reserved = self._unreconciled = 0

    def obstacle(self, cost: int, utc: int) -> Obstacle | None:
        """Return what stands against spending so much more; what costs nothing is never refused."""
        left = self.limit - self._spent - self._reserved
        if cost <= left or cost == 0:
            return None
        if cost > self.limit:
            return Obstacle(DenialReason.TOO_LARGE, None, self.name, self.limit, left)
        return Obstacle(DenialReason.BUDGET, max(1, self._next() - utc), self.name, self.limit, left)

    def reserve(self, cost: int) -> int:
        """Set an estimate aside; return the period's number, to be named again when the call ends."""
        self._reserved += cost
        return self.number

    def settle(self, number: int, estimate: int, actual: int) -> None:
        """Put what a call did cost in the place of its estimate."""
        if number == self.number:
            self._reserved -= estimate
            self._spent += actual

    def release(self, number: int, estimate: int) -> None:
        """Give an estimate back."""
        if number == self.number:
            self._reserved -= estimate

    def lapse(self, number: int, estimate: int) -> None:
        """Take an estimate for spent: nobody said what the call did cost."""
        if number == self.number:
            self._reserved -= estimate
            self._spent += estimate
            self._unreconciled += estimate

    def settle_late(self, number: int, estimate: int, actual: int) -> None:
        """Correct what was taken for spent."""
        if number == self.number:
            self._spent += actual - estimate
            self._unreconciled -= estimate

    def level(self, utc: int) -> BudgetLevel:
        """Return the budget as it stands."""
        return BudgetLevel(
            period=self.period,
            limit=self.limit,
            spent=self._spent,
            reserved=self._reserved,
            unreconciled=self._unreconciled,
            resets_in_seconds=max(0, self._next() - utc) / SECOND,
        )

    def _next(self) -> int:
        return (self.number + 1) * DAY if self.period == "day" else month_start(self.number + 1)
