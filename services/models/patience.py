"""Whether, and how long, a run that was denied its permits waits before it asks again.

It waits for the time after which as many as are needed can be had, as the limiter tells it, and prolongs it by a jitter. It waits no longer than half of the
time left: what follows, the calls themselves, needs time too, and a caller who is told at once when to come back is served better than one who is kept.
"""

from collections.abc import Callable, Sequence

from services.chassis.deadline import Deadline
from services.models.receipt import CallReceipt

SHARE = 0.5
"""Most of the time left that a wait may take."""
JITTER = 0.1
"""How much longer than told one waits, at most, as a share of the wait; the limiter adds a jitter of its own."""
SHORTEST_SECONDS = 0.01
"""The first wait is at least this, and each further one at least twice as long, so that a run that always comes second does not hammer."""


def wait_seconds(denied: Sequence[CallReceipt], *, needed: int, deadline: Deadline, waits: int, draw: Callable[[], float]) -> float | None:
    """Return how long to wait until `needed` of the denied calls can be had; None where waiting is useless or would take too long.

    `waits` is how often the run has waited already, `draw` gives a number from 0 to 1.
    """
    healing = healing_seconds(denied, needed)
    if healing is None:
        return None
    wait = max(healing, SHORTEST_SECONDS * 2.0**waits) * (1 + JITTER * draw())
    return wait if wait <= deadline.remaining() * SHARE else None


def healing_seconds(ended: Sequence[CallReceipt], needed: int) -> float | None:
    """Return the time after which `needed` of these calls may succeed; None where so many never will."""
    waits = sorted(receipt.retry_after_seconds or 0.0 for receipt in ended if receipt.retryable)
    return waits[needed - 1] if 0 < needed <= len(waits) else None
