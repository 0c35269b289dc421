"""One model's gate: all its limits, its breaker and its provider's wish to be left alone, judged together.

`judge` changes nothing; `enter` takes what a call needs, and `undo` puts it back as if it had never been taken.
"""

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass

from services.limiter.breaker import Breaker
from services.limiter.bucket import Bucket, Charge
from services.limiter.limits import ModelLimits
from services.models.permits import (
    BreakerSnapshot,
    BreakerState,
    CallResult,
    DenialReason,
    LimitLevel,
    ModelState,
)

SECOND = 1_000_000_000
LONGEST_BACKOFF_SECONDS = 120.0
"""Cap on a wait that a provider asked for."""
LONGEST_OWN_BACKOFF_SECONDS = 60.0
"""Cap on the doubling wait where a provider throttled and named none."""

Uniform = Callable[[float, float], float]


@dataclass(frozen=True, slots=True)
class Obstacle:
    """One limit that refuses a call."""

    reason: DenialReason
    wait: int | None
    """Nanoseconds until it may no longer refuse; None where waiting is useless."""
    limit: str
    value: int = 0
    remaining: int = 0


@dataclass(frozen=True, slots=True)
class Entry:
    """What one call took at the gate."""

    requests: Charge | None
    tokens: Charge | None
    generation: int
    probe: bool


class Gate:
    """All that decides whether one model may be called; all times are nanoseconds on the caller's clock."""

    def __init__(self, model: str, limits: ModelLimits, now: int, uniform: Uniform = random.uniform) -> None:
        """Start with full buckets and a closed breaker."""
        self.model = model
        self._limits = limits
        self._uniform = uniform
        self.breaker = Breaker(limits.breaker, now, uniform)
        self._requests = (
            None if limits.requests_per_minute is None else Bucket(per_minute=limits.requests_per_minute, capacity=limits.request_capacity, now=now)
        )
        self._tokens = None if limits.tokens_per_minute is None else Bucket(per_minute=limits.tokens_per_minute, capacity=limits.tokens_per_minute, now=now)
        self._lease_ends: dict[str, int] = {}
        self._end_heap: list[tuple[int, str]] = []
        self._backoff_until = 0
        self._throttles = 0

    @property
    def in_flight(self) -> int:
        """Calls under way."""
        return len(self._lease_ends)

    def judge(self, tokens: int, now: int) -> Obstacle | None:
        """Return the obstacle that takes longest to heal, or None where the call may be made now."""
        self.breaker.tick(now)
        obstacles = list(self._obstacles(tokens, now))
        if not obstacles:
            return None
        return max(obstacles, key=lambda obstacle: float("inf") if obstacle.wait is None else obstacle.wait)

    def enter(self, permit_id: str, tokens: int, lease_end: int) -> Entry:
        """Take what a call needs. Call `judge` before, at the same time."""
        entry = Entry(
            None if self._requests is None else self._requests.take(1),
            None if self._tokens is None else self._tokens.take(tokens),
            self.breaker.generation,
            self.breaker.admit(permit_id, lease_end),
        )
        self._hold(permit_id, lease_end)
        return entry

    def undo(self, permit_id: str, entry: Entry) -> None:
        """Give back everything that a call took: it was never made."""
        self._free(permit_id)
        self.breaker.give_back(permit_id)
        if self._requests is not None and entry.requests is not None:
            self._requests.refund(entry.requests, 1)
        if self._tokens is not None and entry.tokens is not None:
            self._tokens.refund(entry.tokens, entry.tokens.units)

    def extend(self, permit_id: str, lease_end: int) -> None:
        """Hold a call's place longer."""
        self._hold(permit_id, lease_end)
        self.breaker.extend(permit_id, lease_end)

    def lapse(self, permit_id: str, now: int) -> None:
        """Free the place of a call whose lease ended; what it reserved stays taken, since it may have been used."""
        self._free(permit_id)
        self.breaker.lapse(permit_id, now)

    def settle(
        self,
        permit_id: str,
        entry: Entry,
        *,
        result: CallResult,
        used_tokens: int | None,
        latency_seconds: float | None,
        retry_after_seconds: float | None,
        now: int,
    ) -> None:
        """Take a report of a call that was held into account."""
        self._free(permit_id)
        self._refill(now)
        if self._tokens is not None and entry.tokens is not None and used_tokens is not None:
            if used_tokens > entry.tokens.units:
                self._tokens.take(used_tokens - entry.tokens.units)
            elif result is not CallResult.CANCELLED:
                # A provider goes on for a while after a caller has left, so the reservation of a cancelled call stays taken.
                self._tokens.refund(entry.tokens, entry.tokens.units - used_tokens)
        self._heed(result, retry_after_seconds, now)
        self.breaker.tick(now)
        self.breaker.record(permit_id, entry.generation, result, latency_seconds=latency_seconds, retry_after_seconds=retry_after_seconds, now=now)
        if self.breaker.ramp is not None and self.breaker.ramp >= self._limits.concurrency:
            self.breaker.ramp = None

    def settle_late(self, entry: Entry, used_tokens: int | None, now: int) -> None:
        """Take a report into account that came after its lease: only what was used beyond the reservation is still charged."""
        self._refill(now)
        if self._tokens is not None and entry.tokens is not None and used_tokens is not None and used_tokens > entry.tokens.units:
            self._tokens.take(used_tokens - entry.tokens.units)

    def state(self, now: int) -> ModelState:
        """Return everything as it stands."""
        self.breaker.tick(now)
        self._refill(now)
        levels = []
        if self._requests is not None:
            levels.append(LimitLevel(name="requests_per_minute", limit=self._requests.rate, remaining=self._requests.remaining))
        if self._tokens is not None:
            levels.append(LimitLevel(name="tokens_per_minute", limit=self._tokens.rate, remaining=self._tokens.remaining))
        levels.append(LimitLevel(name="concurrency", limit=self._limits.concurrency, remaining=max(0, self._places() - self.in_flight)))
        calls, failures, slow = self.breaker.counts(now)
        opened = self.breaker.state is BreakerState.OPEN
        return ModelState(
            model=self.model,
            limits=tuple(levels),
            in_flight=self.in_flight,
            breaker=BreakerSnapshot(
                state=self.breaker.state,
                generation=self.breaker.generation,
                open_for_seconds=(self.breaker.open_until - now) / SECOND if opened else None,
                open_count=self.breaker.open_count,
                probes=self.breaker.probes,
                window_calls=calls,
                window_failures=failures,
                window_slow=slow,
            ),
            provider_backoff_seconds=(self._backoff_until - now) / SECOND if self._backoff_until > now else None,
        )

    def _obstacles(self, tokens: int, now: int) -> "list[Obstacle]":
        found = []
        name = f"model/{self.model}"
        if self._tokens is not None and tokens > self._tokens.capacity:
            # No wait makes a bucket larger; everything else is beside the point.
            return [Obstacle(DenialReason.TOO_LARGE, None, f"{name}/tokens_per_minute", self._tokens.capacity, self._tokens.remaining)]
        if self._backoff_until > now:
            found.append(Obstacle(DenialReason.PROVIDER_BACKOFF, self._backoff_until - now, f"{name}/provider_backoff"))
        if (wait := self.breaker.wait(now)) > 0:
            found.append(Obstacle(DenialReason.BREAKER_OPEN, wait, f"{name}/breaker"))
        self._refill(now)
        if self._requests is not None and (wait := self._requests.wait(1)) > 0:
            found.append(Obstacle(DenialReason.REQUESTS, wait, f"{name}/requests_per_minute", self._requests.rate, self._requests.remaining))
        if self._tokens is not None and (wait := self._tokens.wait(tokens)) > 0:
            found.append(Obstacle(DenialReason.TOKENS, wait, f"{name}/tokens_per_minute", self._tokens.rate, self._tokens.remaining))
        if self.in_flight >= self._places():
            wait = max(1, self._earliest_end(self.in_flight - self._places()) - now)
            found.append(Obstacle(DenialReason.CONCURRENCY, wait, f"{name}/concurrency", self._limits.concurrency, 0))
        return found

    def _places(self) -> int:
        """Calls at once that are allowed now: the limit, or fewer while a breaker that has just closed lets the load come back."""
        return self._limits.concurrency if self.breaker.ramp is None else min(self._limits.concurrency, self.breaker.ramp)

    def _refill(self, now: int) -> None:
        if self._requests is not None:
            self._requests.refill(now)
        if self._tokens is not None:
            self._tokens.refill(now)

    def _heed(self, result: CallResult, retry_after_seconds: float | None, now: int) -> None:
        """Leave the provider alone for as long as it asked, or for a doubling while where it throttled without naming a time."""
        if result is CallResult.SUCCESS:
            self._throttles = 0
        if result is not CallResult.THROTTLED:
            return
        self._throttles += 1
        if retry_after_seconds is not None:
            seconds = min(retry_after_seconds, LONGEST_BACKOFF_SECONDS)
        else:
            seconds = min(2.0 ** min(self._throttles - 1, 16), LONGEST_OWN_BACKOFF_SECONDS) * self._uniform(1.0, 1.2)
        self._backoff_until = max(self._backoff_until, now + round(seconds * SECOND))

    def _hold(self, permit_id: str, lease_end: int) -> None:
        self._lease_ends[permit_id] = lease_end
        heapq.heappush(self._end_heap, (lease_end, permit_id))

    def _free(self, permit_id: str) -> None:
        self._lease_ends.pop(permit_id, None)
        # What is left of ended calls is swept from the top as it is met; when it outgrows the live ones, all at once.
        if len(self._end_heap) > 2 * len(self._lease_ends) + 64:
            self._end_heap = [(end, permit) for permit, end in self._lease_ends.items()]
            heapq.heapify(self._end_heap)

    def _earliest_end(self, surplus: int) -> int:
        """Return when a place is free: the earliest lease end, or a later one while more calls are under way than are allowed now."""
        while self._end_heap and self._lease_ends.get(self._end_heap[0][1]) != self._end_heap[0][0]:
            heapq.heappop(self._end_heap)
        if surplus <= 0:
            return self._end_heap[0][0]
        return heapq.nsmallest(surplus + 1, self._lease_ends.values())[-1]
