"""What levels and budgets must be after a history: the rules of the limiter's buckets and budgets once more, written for reading and not for speed.

"Admitted requests in any interval are at most burst + rate x length" holds for every interval exactly if a bucket that starts full, refills at the rate and is
charged with each grant is never overdrawn by a grant; so one pass replaces all intervals. Refunds and debts are charged as the design says, in integers, on the
times of the audit: the arithmetic is exact, and a store that is one token too generous is found.
"""

from bench.history.audit import Entry, Op
from bench.history.limits import Scope, Violation

MINUTE = 60_000_000
DAY = 86_400_000_000


class Bucket:
    """How much of a bucket is missing, in units times microseconds of a minute."""

    def __init__(self, rate: int, capacity: int) -> None:
        """Start full."""
        self._rate = rate
        self._capacity = capacity
        self._missing = 0
        self._at = 0
        self._times_full = 0

    def take(self, units: int, at: int) -> tuple[int, int]:
        """Take units; return them and in which busy time they were taken."""
        self._refill(at)
        self._missing += units * MINUTE
        return units, self._times_full

    def give_back(self, charge: tuple[int, int], units: int, at: int) -> None:
        """Give back some of a charge, unless the bucket was full in between."""
        self._refill(at)
        if charge[1] == self._times_full:
            self._missing = max(0, self._missing - units * MINUTE)

    def left(self, at: int) -> int:
        """Return the whole units that are left; below zero where it is overdrawn."""
        self._refill(at)
        return (self._capacity * MINUTE - self._missing) // MINUTE

    def _refill(self, at: int) -> None:
        if self._missing > 0 and at > self._at:
            self._missing = max(0, self._missing - (at - self._at) * self._rate)
            self._times_full += self._missing == 0
        self._at = max(self._at, at)


class Rates:
    """One model's or tenant's requests (I2) and tokens (I3) per minute."""

    def __init__(self, name: str, scope: Scope) -> None:
        """Start full."""
        self._name = name
        self.buckets: dict[str, Bucket] = {}
        if scope.requests_per_minute is not None:
            self.buckets["requests_per_minute"] = Bucket(scope.requests_per_minute, scope.request_burst)
        if scope.tokens_per_minute is not None:
            self.buckets["tokens_per_minute"] = Bucket(scope.tokens_per_minute, scope.tokens_per_minute)
        self._charges: dict[tuple[str, str], tuple[int, int]] = {}

    def feed(self, entry: Entry) -> list[Violation]:
        """Take an entry of the scope into account; return what it violates."""
        found = []
        for invariant, limit, units in (("I2", "requests_per_minute", 1), ("I3", "tokens_per_minute", entry.tokens)):
            bucket = self.buckets.get(limit)
            if bucket is None:
                continue
            key = (limit, entry.permit)
            match entry.op:
                case Op.GRANT:
                    self._charges[key] = bucket.take(units, entry.at)
                    if (left := bucket.left(entry.at)) < 0:
                        found.append(Violation(invariant, f"{self._name}/{limit}: {-left} too many with the grant of {entry.permit} at {entry.at}"))
                case Op.RELEASE:
                    bucket.give_back(self._charges.pop(key), units, entry.at)
                case Op.SETTLE | Op.LATE if limit == "tokens_per_minute" and entry.used is not None:
                    if entry.used > units:
                        bucket.take(entry.used - units, entry.at)
                    elif entry.op is Op.SETTLE and entry.result != "CANCELLED":
                        bucket.give_back(self._charges.pop(key), units - entry.used, entry.at)
                case _:
                    pass
        return found


class Budget:
    """One tenant's budget per day of UTC (I4), in micro-USD."""

    def __init__(self, tenant: str, limit: int) -> None:
        """Start unspent."""
        self._name = f"tenant/{tenant}/budget_per_day"
        self._limit = limit
        self._day = 0
        self._days: dict[str, int] = {}
        self.spent = self.reserved = self.unreconciled = 0

    def feed(self, entry: Entry) -> list[Violation]:
        """Take an entry of the tenant into account; return what it violates."""
        self.roll(entry.at)
        if entry.op is Op.GRANT:
            self._days[entry.permit] = self._day
            self.reserved += entry.cost
            over = self.spent + self.reserved - self._limit
            # What costs nothing is never refused, even where late reports have overdrawn the budget.
            return [Violation("I4", f"{self._name}: {over} micro-USD too much with the grant of {entry.permit} at {entry.at}")] if over > 0 < entry.cost else []
        if self._days.get(entry.permit) != self._day:
            return []
        charged = entry.cost if entry.charged is None else entry.charged
        match entry.op:
            case Op.SETTLE:
                self.reserved -= entry.cost
                self.spent += charged
            case Op.RELEASE:
                self.reserved -= entry.cost
            case Op.EXPIRE:
                self.reserved -= entry.cost
                self.spent += entry.cost
                self.unreconciled += entry.cost
            case Op.LATE:
                self.spent += charged - entry.cost
                self.unreconciled -= entry.cost
            case _:
                pass
        return []

    def roll(self, at: int) -> None:
        """Begin another day where one has begun."""
        if at // DAY > self._day:
            self._day = at // DAY
            self.spent = self.reserved = self.unreconciled = 0
