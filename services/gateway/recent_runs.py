"""How long each profile's recent runs took, to refuse what cannot be done in time.

A run adapts to its deadline: with less time, fewer candidates or no refinement make a degraded answer. So neither mean nor percentile says what is needed, only
what nothing was faster than: a run is hopeless where its time is shorter than the fastest recent run took, degraded ones and all.

Even that says nothing where runs take as long as they are let: where a quorum is never met, thirty seconds' time makes runs of thirty seconds, and twenty would
have made runs of twenty. A deadline cuts a run off no sooner than after the panel's share of the time, or a part of that share where there are several stages.
Only a run that was done well before is evidence of what is needed; ten of them are wanted before anything is refused. The others still count as how fast it can
go.

Nothing is locked out for ever. Samples are forgotten after two minutes, so a profile whose every request is refused is tried again then. Where callers with
more time keep the samples fresh, one run in thirty seconds is let through all the same: a grace for stragglers, for one, is cut to the time left, so less may
do after all. If it brings an answer it lowers the bar at once, as does any run with `skip_deadline_check`.
"""

import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from services.chassis.deadline import Deadline
from services.chassis.errors import DeadlineTooShort
from services.gateway.order import Order

KEPT = 64
"""Runs remembered for each profile."""
KEPT_SECONDS = 120.0
LEAST = 10
"""Unhurried runs below which nothing is known."""
UNHURRIED_SHARE = 1 / 3
"""Of the panel's share of the time a run had: what was done sooner was not cut off by its deadline."""
USUAL_PERCENT = 90
TRIAL_SECONDS = 30.0
"""How long refusals go on before one run is let through to find out whether they are right."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sample:
    at: float
    seconds: float
    unhurried: bool


class RecentRuns:
    """The latest successful runs of each profile."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._samples: dict[str, deque[_Sample]] = {}
        self._next_trial: dict[str, float] = {}

    def record(self, order: Order, *, seconds: float, given_seconds: float) -> None:
        """Remember a run that brought an answer: how long it took and how long it might have taken. One that is like no profile's tells nothing."""
        if not order.profile:
            return
        unhurried = seconds < given_seconds * order.plan.options.panel_share * UNHURRIED_SHARE
        samples = self._samples.setdefault(order.profile, deque(maxlen=KEPT))
        samples.append(_Sample(at=self.clock(), seconds=seconds, unhurried=unhurried))

    def fastest_seconds(self, order: Order) -> float:
        """Return what the fastest recent run of an order's profile took; 0 where too few are known, or the order wants no check."""
        samples, unhurried = self._known(order)
        return min(sample.seconds for sample in samples) if unhurried else 0.0

    def usual_seconds(self, order: Order) -> float:
        """Return the time within which nine in ten unhurried runs of an order's profile were done; 0 where too few are known, or the order wants no check."""
        _, unhurried = self._known(order)
        return sorted(unhurried)[math.ceil(len(unhurried) * USUAL_PERCENT / 100) - 1] if unhurried else 0.0

    def check(self, order: Order, deadline: Deadline) -> None:
        """Raises `DeadlineTooShort` where no recent run was as fast as this one would have to be, unless a trial is due."""
        fastest, left = self.fastest_seconds(order), deadline.remaining()
        if left >= fastest:
            return
        now = self.clock()
        due = self._next_trial.get(order.profile)
        if due is None or now >= due:
            self._next_trial[order.profile] = now + TRIAL_SECONDS
        if due is None or now < due:
            raise DeadlineTooShort(order.profile, recent_seconds=fastest, left_seconds=left)

    def _known(self, order: Order) -> tuple[deque[_Sample], list[float]]:
        """Return the samples that hold, and how long the unhurried ones of them took; none where they are too few."""
        samples = self._samples.get(order.profile, deque()) if order.check_deadline else deque[_Sample]()
        oldest = self.clock() - KEPT_SECONDS
        while samples and samples[0].at <= oldest:
            samples.popleft()
        unhurried = [sample.seconds for sample in samples if sample.unhurried]
        return samples, unhurried if len(unhurried) >= LEAST else []
