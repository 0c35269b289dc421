"""How long each model's recent calls took, for hedges that are started by a percentile (Dean and Barroso, "The Tail at Scale", CACM 56(2), 2013).

A call that was cut off took at least as long as it had. Left out, the slow calls that hedges replace would never be seen, the percentile would sink and more
and more calls be hedged; so it counts with that time where it is longer than half of the recent calls took, and says nothing otherwise.
"""

import math
import statistics
from collections import deque

from services.models.outcomes import Outcome
from services.models.receipt import CallReceipt

KEPT = 256
"""Calls remembered for each model."""
LEAST = 20
"""Calls below which a percentile says nothing."""
_CUT_OFF = frozenset({Outcome.HEDGE_LOST, Outcome.STRAGGLER_CANCELLED, Outcome.TIMEOUT})


class RecentLatencies:
    """The latest calls of each model, in seconds."""

    def __init__(self) -> None:
        self._seconds: dict[str, deque[float]] = {}

    def record(self, receipt: CallReceipt) -> None:
        """Remember a call that was made; one that failed says nothing of how long an answer takes."""
        seconds = receipt.latency_seconds
        if seconds is None:
            return
        known = self._seconds.setdefault(receipt.model, deque(maxlen=KEPT))
        if receipt.outcome is Outcome.OK or (receipt.outcome in _CUT_OFF and known and seconds > statistics.median(known)):
            known.append(seconds)

    def percentile(self, model: str, percent: float) -> float | None:
        """Return the time within which that percentage of the model's recent calls ended (nearest rank); None while too few are known."""
        known = self._seconds.get(model, ())
        if len(known) < LEAST:
            return None
        return sorted(known)[max(0, math.ceil(len(known) * percent / 100) - 1)]
