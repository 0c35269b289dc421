"""When a caller who is refused may come back: one after the other, at the pace at which places come free.

Were all told the time until the queue is empty, they would all come back at that time, and again; each refusal costs the gateway as much as a good part of an
answer. So every refusal is given a moment of its own, one place's time behind the last one's, which spreads whatever comes back over what can be taken on.
"""

import random
import time
from collections.abc import Callable

UNKNOWN_SECONDS = 1.0
"""What a run is taken to last before any has ended."""
WEIGHT = 0.1
"""Of the latest run in the average of how long a place is held."""
SHORTEST_SECONDS, LONGEST_SECONDS = 0.1, 20.0
"""Bounds before the jitter: a longer time would outlive the overload that it tells of."""
JITTER = 0.5
"""How much longer than that a caller is told to wait, at most, as a share; never shorter."""


class RetryPace:
    """Hands out the moments at which refused callers may come back."""

    def __init__(self, places: int, clock: Callable[[], float] = time.monotonic, uniform: Callable[[], float] = random.random) -> None:
        self._places = places
        self._clock = clock
        self._uniform = uniform
        self._held_seconds = UNKNOWN_SECONDS
        self._known = False
        self._given = clock()
        """The last moment that was handed out."""

    def ended(self, seconds: float) -> None:
        """Learn how long a place was held."""
        self._held_seconds = self._held_seconds + WEIGHT * (seconds - self._held_seconds) if self._known else seconds
        self._known = True

    def retry_after_seconds(self, waiting: int) -> float:
        """Return in how many seconds a caller who was refused behind so many who wait may come back: 0.1 to 30."""
        now = self._clock()
        pace = self._held_seconds / self._places
        self._given = min(max(self._given, now + waiting * pace) + pace, now + LONGEST_SECONDS)
        return max(SHORTEST_SECONDS, self._given - now) * (1 + JITTER * self._uniform())
