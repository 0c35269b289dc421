"""The hedges that a run, or one panel of it, may still make, and when."""

from services.models.answering import Hedging
from services.models.plan import HedgePolicy
from services.orchestrator.recent_latencies import RecentLatencies


class Hedges:
    """Counts hedges down."""

    def __init__(self, policy: HedgePolicy, latencies: RecentLatencies, *, most: int) -> None:
        """Take when to hedge, and how many hedges are allowed."""
        self._policy = policy
        self._latencies = latencies
        self._left = most

    @property
    def left(self) -> int:
        """How many may still be made."""
        return self._left

    def take(self) -> bool:
        """Take one; False where none is left."""
        if self._left <= 0:
            return False
        self._left -= 1
        return True

    def after_seconds(self, model: str) -> float:
        """Return how long a call to this model may take before it is hedged."""
        known = None if self._policy.percentile is None else self._latencies.percentile(model, self._policy.percentile)
        return self._policy.delay_seconds if known is None else known

    def of(self, model: str) -> Hedging:
        """Return the same for one answer."""
        return Hedging(after_seconds=self.after_seconds(model), take=self.take)
