"""A circuit breaker for one model.

    CLOSED --too many failed or slow (T1), failures in a row (T2), credentials refused (T3)--> OPEN
    OPEN --open time over, seen by the next acquire (T5)--> HALF_OPEN
    HALF_OPEN --enough good probes (T7)--> CLOSED, from one call at once upwards
    HALF_OPEN --a probe failed, was slow (T8) or throttled (T9), or too many leases ended undecided (T11)--> OPEN

While OPEN nothing is granted (T4); while HALF_OPEN one probe at a time is, which is a lease and so comes back even if its holder dies (T6). Probes that were
cancelled, rejected or released say nothing (T10). Each change of state begins a new generation; reports of permits from another one change nothing (T12). Each
healthy while forgets one opening (T13). An operator's override begins a new generation when it is set and when it ends (T14).
"""

import random
from collections.abc import Callable
from dataclasses import dataclass

from services.limiter.limits import SECOND, BreakerRules
from services.models.permits import BreakerState, CallResult

_FAILURES = frozenset({CallResult.FAILURE, CallResult.TIMEOUT})
_DECISIVE = _FAILURES | {CallResult.SUCCESS}


@dataclass(slots=True)
class _Slice:
    """What one slice of the window counted."""

    number: int
    total: int = 0
    failed: int = 0
    slow: int = 0


class Breaker:
    """One model's breaker; all times are microseconds on the caller's clock."""

    def __init__(self, rules: BreakerRules, now: int, uniform: Callable[[float, float], float] = random.uniform) -> None:
        """Start closed; `uniform` gives the jitter of the open times."""
        self._rules = rules
        self._uniform = uniform
        self._slices: list[_Slice] = []
        self._failures_in_row = 0
        self._good_probes = 0
        self._undecided = 0
        self._healthy_since = now
        self._probes: dict[str, int] = {}
        self.state = BreakerState.CLOSED
        self.generation = 0
        self.open_until = 0
        self.open_count = 0
        self.ramp: int | None = None
        """Calls at once while a breaker that has just closed lets the load come back; None means no bound of its own."""

    @property
    def probes(self) -> int:
        """Probes under way."""
        return len(self._probes)

    def tick(self, now: int) -> None:
        """Do what time alone does: half-open after the open time, forget an opening after each healthy while."""
        if self.state is BreakerState.OPEN and now >= self.open_until:
            self._turn(BreakerState.HALF_OPEN)
            self._good_probes = self._undecided = 0
        elif self.state is BreakerState.CLOSED:
            healthy_time = round(self._rules.bucket_seconds * SECOND)
            whiles = max(0, now - self._healthy_since) // healthy_time
            self._healthy_since += whiles * healthy_time
            self.open_count = max(0, self.open_count - whiles)

    def wait(self, now: int) -> int:
        """Return the microseconds until a call may be granted; 0 where it may be now. Call `tick` before."""
        if self.state is BreakerState.OPEN:
            return self.open_until - now
        if self.state is BreakerState.HALF_OPEN and self._probes:
            return max(1, min(self._probes.values()) - now)
        return 0

    def admit(self, permit_id: str, lease_end: int) -> bool:
        """Note a grant; return whether it is a probe."""
        if self.state is not BreakerState.HALF_OPEN:
            return False
        self._probes[permit_id] = lease_end
        return True

    def extend(self, permit_id: str, lease_end: int) -> None:
        """Note that a probe's lease was renewed."""
        if permit_id in self._probes:
            self._probes[permit_id] = lease_end

    def give_back(self, permit_id: str) -> None:
        """Free a probe's slot without a verdict (T10)."""
        self._probes.pop(permit_id, None)

    def lapse(self, permit_id: str, now: int) -> None:
        """Free the slot of a probe whose lease ended; too many of them open the breaker again (T11)."""
        if self._probes.pop(permit_id, None) is None:
            return
        self._undecided += 1
        if self._undecided >= self._rules.undecided_leases:
            self._open(now)

    def record(
        self, permit_id: str, generation: int, result: CallResult, *, latency_seconds: float | None, retry_after_seconds: float | None, now: int
    ) -> None:
        """Take a report into account."""
        probe = self._probes.pop(permit_id, None) is not None
        if generation != self.generation:
            return
        slow = result is CallResult.SUCCESS and latency_seconds is not None and latency_seconds >= self._rules.slow_call_seconds
        if probe:
            self._record_probe(result, slow, retry_after_seconds, now)
        elif self.state is BreakerState.CLOSED:
            self._record_call(result, slow, now)

    def begin_anew(self) -> None:
        """Begin a new generation in the same state (T14): what is under way says nothing about what comes."""
        ramp = self.ramp
        self._turn(self.state)
        self.ramp = ramp

    def follow(self, rules: BreakerRules) -> None:
        """Go by other rules from now on; what was counted by buckets of another length is dropped."""
        if rules.bucket_seconds != self._rules.bucket_seconds:
            self._slices = []
        self._rules = rules

    def counts(self, now: int) -> tuple[int, int, int]:
        """Return how many calls the window holds, how many failed, how many were slow."""
        self._slide(now)
        return sum(one.total for one in self._slices), sum(one.failed for one in self._slices), sum(one.slow for one in self._slices)

    def _record_probe(self, result: CallResult, slow: bool, retry_after_seconds: float | None, now: int) -> None:
        if result is CallResult.AUTH:
            self._open(now, seconds=self._rules.auth_open_seconds)
        elif result in _FAILURES or slow:
            self._open(now)
        elif result is CallResult.THROTTLED:
            # The provider is there, only busy: that says nothing about how often it failed.
            self._turn(BreakerState.OPEN)
            self.open_until = now + round((retry_after_seconds or self._rules.open_seconds) * SECOND)
        elif result is CallResult.SUCCESS:
            self._good_probes += 1
            if self._good_probes >= self._rules.good_probes:
                self._close(now)

    def _record_call(self, result: CallResult, slow: bool, now: int) -> None:
        if result is CallResult.AUTH:
            self._open(now, seconds=self._rules.auth_open_seconds)
            return
        if result not in _DECISIVE:
            return
        failed = result in _FAILURES
        current = self._slide(now)
        current.total += 1
        current.failed += failed
        current.slow += slow
        self._failures_in_row = self._failures_in_row + 1 if failed else 0
        if failed or slow:
            self._healthy_since = now
        elif self.ramp is not None:
            self.ramp += 1
        total, failures, slows = self.counts(now)
        too_many = total >= self._rules.minimum_calls and (failures >= self._rules.failure_rate * total or slows >= self._rules.slow_rate * total)
        if too_many or self._failures_in_row >= self._rules.consecutive_failures:
            self._open(now)

    def _slide(self, now: int) -> _Slice:
        """Drop the slices that have left the window; return the current one."""
        number = now // round(self._rules.bucket_seconds * SECOND)
        self._slices = [one for one in self._slices if one.number > number - self._rules.buckets]
        if not self._slices or self._slices[-1].number < number:
            self._slices.append(_Slice(number))
        return self._slices[-1]

    def _open(self, now: int, *, seconds: float | None = None) -> None:
        self._turn(BreakerState.OPEN)
        self.open_count += 1
        if seconds is not None:
            self.open_until = now + round(seconds * SECOND)
            return
        # The exponent is bounded before the power is taken; beyond it the longest time holds anyway.
        doubled = round(self._rules.open_seconds * SECOND) * 2 ** min(self.open_count - 1, 32)
        self.open_until = now + int(min(doubled, round(self._rules.longest_open_seconds * SECOND)) * self._uniform(0.8, 1.2))

    def _close(self, now: int) -> None:
        self._turn(BreakerState.CLOSED)
        self._slices = []
        self._failures_in_row = 0
        self._healthy_since = now
        self.ramp = 1

    def _turn(self, state: BreakerState) -> None:
        self.state = state
        self.generation += 1
        self._probes.clear()
        self.ramp = None
