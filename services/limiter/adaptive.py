"""Adaptive concurrency by additive increase and multiplicative decrease (Chiu and Jain 1989), for providers whose limit nobody knows.

Throttling and failures lower the limit, successes near it raise it. Delays do not: a model's latency follows the length of its answer.
"""

from services.limiter.limits import SECOND

WINDOW = 10 * SECOND
"""One decrease in so many microseconds: calls that fail together fail for one reason."""


class AdaptiveConcurrency:
    """How many calls at once one model is trusted with now."""

    __slots__ = ("_decreased", "limit", "most")

    def __init__(self, most: int) -> None:
        """Start at the configured limit, which is never exceeded."""
        self.most = most
        self.limit = most
        self._decreased: int | None = None

    def succeed(self, in_flight: int) -> None:
        """Note a success while so many calls were under way, this one included."""
        if in_flight * 2 >= self.limit:
            self.limit = min(self.most, self.limit + 1)

    def set_back(self, now: int) -> None:
        """Note a failure or that the provider throttled."""
        if self._decreased is None or now - self._decreased >= WINDOW:
            self.limit = max(1, self.limit * 9 // 10)
            self._decreased = now

    def follow(self, most: int) -> None:
        """Go by another configured limit; what was learnt stays, as far as it fits."""
        self.limit = most if self.limit == self.most else min(self.limit, most)
        self.most = most
