"""A run's own bound on its cost, in whole micro-USD.

Before a call its worst case is set aside, after it the real cost stands in its place: so the calls that are under way at the same time cannot together spend
more than there is. Only a call that costs more than its worst case, because its prompt had more tokens than were estimated, can take the sum above the bound.
"""


class Spending:
    """What one run may spend, has spent, and has set aside."""

    __slots__ = ("_reserved", "_spent", "limit")

    def __init__(self, limit: int | None) -> None:
        """Take the bound; None for none."""
        self.limit = limit
        self._spent = 0
        self._reserved = 0

    @property
    def remaining(self) -> int | None:
        """What is neither spent nor set aside, never below zero; None where there is no bound."""
        return None if self.limit is None else max(0, self.limit - self._spent - self._reserved)

    def reserve(self, amount: int) -> bool:
        """Set an amount aside; False, and nothing done, where it does not fit."""
        if self.limit is not None and self._spent + self._reserved + amount > self.limit:
            return False
        self._reserved += amount
        return True

    def give_back(self, amount: int) -> None:
        """Free an amount that was set aside."""
        self._reserved -= amount

    def spend(self, amount: int, *, reserved: int = 0) -> None:
        """Note what a call really cost, in place of what was set aside for it."""
        self._reserved -= reserved
        self._spent += amount
