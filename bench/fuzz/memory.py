"""Whether a process keeps what it was sent: its resident memory against the number of requests, as a line."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import linear_regression

WARM_UP_SHARE = 0.25
"""Of the requests, at the start: until then caches and the allocator's pools fill."""
LEAST_GROWTH_MB = 16.0
"""Less than this over a whole run is what an allocator shifts."""
MOST_GROWTH_MB = 6.0
"""In 100,000 requests; above the least, more than this is memory that is not given back: about 60 bytes a request."""
SHORT_RUN = 20_000
"""Requests after the warm-up below which the line tells little: a few messages of megabytes are most of what has grown."""
SHORT_GROWTH_MB = 96.0
"""The bound of a short run."""
FEWEST_SAMPLES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """What the line says."""

    first_mb: float
    """At the end of the warm-up."""
    last_mb: float
    per_100k_mb: float
    """The line's slope: MB for each 100,000 requests."""
    requests: int
    """After the warm-up."""
    total_mb: float
    """The slope times the requests after the warm-up."""

    @property
    def bounded(self) -> bool:
        """Whether it is within the bounds."""
        if self.requests < SHORT_RUN:
            return self.total_mb <= SHORT_GROWTH_MB
        return self.total_mb <= LEAST_GROWTH_MB or self.per_100k_mb <= MOST_GROWTH_MB


def growth(samples: Sequence[tuple[int, float]]) -> Growth | None:
    """Return the growth of (requests made, resident MB) after the warm-up; None where there is too little to say anything."""
    if not samples:
        return None
    last = samples[-1][0]
    warm = [sample for sample in samples if sample[0] >= last * WARM_UP_SHARE]
    if len(warm) < FEWEST_SAMPLES or warm[0][0] == last:
        return None
    slope, intercept = linear_regression([float(made) for made, _ in warm], [resident for _, resident in warm])
    first = intercept + slope * warm[0][0]
    return Growth(
        first_mb=first, last_mb=intercept + slope * last, per_100k_mb=slope * 100_000, requests=last - warm[0][0], total_mb=slope * (last - warm[0][0])
    )
