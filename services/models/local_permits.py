"""Permits that a process grants itself while the limiter cannot be reached.

Of each model it grants a share of the limits, so that all processes together stay within them, as far as the shares are chosen so. That is all it knows: there
is no breaker here and no back-off, so a failing provider is asked again by each call; no retry budget, and nothing of tenants and their budgets. Permits are
not found again by their request id either, since no reply gets lost on its way within a process.

A permit ends when it is reported, released, or when its lease is over: a report that never comes blocks no place for ever.
"""

import heapq
import math
import random
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from services.chassis.configuration import Configuration, LimitsSection
from services.chassis.configuration.store import DownPolicy
from services.chassis.errors import NotFound
from services.models.bucket import Bucket, Charge
from services.models.permits import AcquireReply, AcquireRequest, CallResult, Denial, DenialReason, Permit, PermitOutcome, PermitSpec, Settlement

PREFIX = "local-"
"""What the ids of these permits begin with; the limiter's never do."""
AWAY_SECONDS = 30.0
"""When to ask again for what no share covers, however long one waits: a guess at when the limiter is back."""
BURST_SECONDS = 10
"""Requests that may come at once are those of so many seconds, as with the limiter."""
_SECOND = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class LimiterDown:
    """What stands in for the limiter while it cannot be reached."""

    policy: DownPolicy = "deny"
    share: float = 0.25
    """The part of each model's limits that this process grants itself, where the policy is local_share."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalLimits:
    """What one process grants of one model; a rate that is None is not limited, and of one that is 0 there is nothing to grant."""

    concurrency: int
    requests_per_minute: int | None = None
    request_burst: int = 1
    tokens_per_minute: int | None = None
    largest_call: int | None = None
    """Tokens of the largest call that the limiter itself would ever grant."""

    @classmethod
    def share_of(cls, section: LimitsSection, share: float) -> "LocalLimits":
        """Take a share of the limits, rounded down, but for one call at once."""
        rate = _part(section.requests_per_minute, share)
        burst = _part(section.request_burst, share)
        return cls(
            concurrency=max(1, _part(section.concurrency, share) or 0),
            requests_per_minute=rate,
            request_burst=max(1, (rate or 0) * BURST_SECONDS // 60 if burst is None else burst),
            tokens_per_minute=_part(section.tokens_per_minute, share),
            largest_call=section.tokens_per_minute,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalReply(AcquireReply):
    """A decision that was made here, not by the limiter."""


class LocalPermits:
    """Decides like the limiter, at once and without waiting for anybody."""

    def __init__(
        self,
        limits: Mapping[str, LocalLimits | None],
        *,
        clock: Callable[[], float] = time.monotonic,
        uniform: Callable[[float, float], float] = random.uniform,
        new_id: Callable[[], str] = lambda: uuid.uuid4().hex,
    ) -> None:
        """Take the limits of each model, None for those that have none; the clock gives monotonic seconds, `uniform` the jitter of waits."""
        self._clock = clock
        self._uniform = uniform
        self._new_id = new_id
        self._models = {name: _Model(limit, self._now()) for name, limit in limits.items()}
        self._held: dict[str, _Model] = {}
        self._ends: list[tuple[int, str]] = []
        self.limited = any(limit is not None for limit in limits.values())
        """Whether there is anything that could be denied."""

    @classmethod
    def from_configuration(cls, configuration: Configuration, down: LimiterDown) -> "LocalPermits | None":
        """Make what the policy wants; None where it wants that nothing is granted."""
        if down.policy == "deny":
            return None
        limited = down.policy == "local_share" and not configuration.limiter.metrics_only
        return cls(
            {
                name: LocalLimits.share_of(section.limits, down.share) if limited and not section.limits.metrics_only else None
                for name, section in configuration.models.items()
            }
        )

    def acquire(self, request: AcquireRequest) -> LocalReply:
        """Decide a batch in one indivisible step. Raises `NotFound` for a model that is not in the catalogue."""
        now = self._sweep()
        unknown = next((spec.model for spec in request.specs if spec.model not in self._models), None)
        if unknown is not None:
            raise NotFound("model", unknown, tuple(self._models))
        end = now + round(request.lease_seconds * _SECOND)
        decisions = [self._decide(spec, request.lease_seconds, now, end) for spec in request.specs]
        granted = [decision.permit_id for decision in decisions if isinstance(decision, Permit)]
        enough = len(granted) >= request.min_granted
        if request.dry_run or not enough:
            for permit_id in reversed(granted):
                self._held.pop(permit_id).undo(permit_id, now)
            decisions = [_untaken(decision, enough=enough) for decision in decisions]
        else:
            for permit_id in granted:
                heapq.heappush(self._ends, (end, permit_id))
        return LocalReply(decisions=tuple(decisions), degraded=True)

    def owns(self, permit_id: str) -> bool:
        """Whether a permit was granted here."""
        return permit_id.startswith(PREFIX)

    def settle(self, outcome: PermitOutcome) -> Settlement:
        """Take a report into account; a permit that has ended is not known any more."""
        now = self._sweep()
        model = self._held.pop(outcome.permit_id, None)
        if model is None:
            return Settlement.UNKNOWN
        model.settle(outcome, now)
        return Settlement.SETTLED

    def release(self, permit_id: str) -> Settlement:
        """Take back a permit whose call was never sent, with all that it took."""
        now = self._sweep()
        model = self._held.pop(permit_id, None)
        if model is None:
            return Settlement.UNKNOWN
        model.undo(permit_id, now)
        return Settlement.SETTLED

    def _now(self) -> int:
        return round(self._clock() * _SECOND)

    def _sweep(self) -> int:
        """End the leases that are over; return the time."""
        now = self._now()
        while self._ends and self._ends[0][0] <= now:
            _, permit_id = heapq.heappop(self._ends)
            model = self._held.pop(permit_id, None)
            if model is not None:
                model.lapse(permit_id)
        return now

    def _decide(self, spec: PermitSpec, lease_seconds: float, now: int, end: int) -> Permit | Denial:
        """Judge one spec and, where nothing stands against it, take what it needs, so that the next one sees it taken."""
        model = self._models[spec.model]
        tokens = spec.input_tokens + spec.max_output_tokens
        obstacles = model.obstacles(tokens, now)
        if obstacles:
            worst = max(obstacles, key=lambda obstacle: math.inf if obstacle.wait is None else obstacle.wait)
            return Denial(
                model=spec.model,
                reason=worst.reason,
                # Jitter spreads those who were told the same; it only adds, so the wait stays sufficient.
                retry_after_seconds=None if worst.wait is None else worst.wait / _SECOND * self._uniform(1.0, 1.2),
                limit=f"model/{spec.model}/{worst.limit}",
                limit_value=worst.value,
                remaining=worst.remaining,
            )
        permit_id = PREFIX + self._new_id()
        model.take(permit_id, tokens, end)
        self._held[permit_id] = model
        return Permit(permit_id=permit_id, model=spec.model, lease_seconds=lease_seconds, reserved_tokens=tokens, reserved_cost_micro_usd=spec.cost_micro_usd)


@dataclass(frozen=True, slots=True)
class _Obstacle:
    """One limit that refuses a call."""

    reason: DenialReason
    wait: int | None
    """Microseconds until it may no longer refuse; None where waiting is useless."""
    limit: str
    value: int
    remaining: int = 0


@dataclass(frozen=True, slots=True)
class _Taken:
    """What one permit took, and until when it holds its place."""

    end: int
    request: Charge | None
    tokens: Charge | None


class _Model:
    """One model's share; all times are microseconds on the owner's clock."""

    def __init__(self, limits: LocalLimits | None, now: int) -> None:
        self._limits = limits
        self._requests = _bucket(limits.requests_per_minute, limits.request_burst, now) if limits is not None else None
        self._tokens = _bucket(limits.tokens_per_minute, limits.tokens_per_minute or 0, now) if limits is not None else None
        self._held: dict[str, _Taken] = {}

    def obstacles(self, tokens: int, now: int) -> list[_Obstacle]:
        """Return what stands against one call of so many tokens; changes no more than time does."""
        limits = self._limits
        if limits is None:
            return []
        self._refill(now)
        found = []
        if limits.largest_call is not None and tokens > limits.largest_call:
            found.append(_Obstacle(DenialReason.TOO_LARGE, None, "tokens_per_minute", limits.largest_call))
        if limits.tokens_per_minute is not None and (wait := _wait(self._tokens, tokens)) > 0:
            found.append(_Obstacle(DenialReason.TOKENS, wait, "tokens_per_minute", limits.tokens_per_minute, _remaining(self._tokens)))
        if limits.requests_per_minute is not None and (wait := _wait(self._requests, 1)) > 0:
            found.append(_Obstacle(DenialReason.REQUESTS, wait, "requests_per_minute", limits.requests_per_minute, _remaining(self._requests)))
        if len(self._held) >= limits.concurrency:
            wait = max(1, min(taken.end for taken in self._held.values()) - now)
            found.append(_Obstacle(DenialReason.CONCURRENCY, wait, "concurrency", limits.concurrency))
        return found

    def take(self, permit_id: str, tokens: int, end: int) -> None:
        """Take what a call needs. Call `obstacles` before, at the same time."""
        self._held[permit_id] = _Taken(
            end, None if self._requests is None else self._requests.take(1), None if self._tokens is None else self._tokens.take(tokens)
        )

    def undo(self, permit_id: str, now: int) -> None:
        """Give back everything that a call took: it was never made."""
        taken = self._held.pop(permit_id)
        self._refill(now)
        if self._requests is not None and taken.request is not None:
            self._requests.refund(taken.request, 1)
        if self._tokens is not None and taken.tokens is not None:
            self._tokens.refund(taken.tokens, taken.tokens.units)

    def settle(self, outcome: PermitOutcome, now: int) -> None:
        """Free a call's place; charge what it used beyond its reservation, or give back what it did not use."""
        taken = self._held.pop(outcome.permit_id)
        self._refill(now)
        if self._tokens is None or taken.tokens is None or (outcome.input_tokens is None and outcome.output_tokens is None):
            return
        used, reserved = (outcome.input_tokens or 0) + (outcome.output_tokens or 0), taken.tokens.units
        if used > reserved:
            self._tokens.take(used - reserved)
        elif outcome.result is not CallResult.CANCELLED:
            # A provider goes on for a while after a caller has left, so the reservation of a cancelled call stays taken.
            self._tokens.refund(taken.tokens, reserved - used)

    def lapse(self, permit_id: str) -> None:
        """Free the place of a call whose lease is over; what it took stays taken, since it may have been used."""
        del self._held[permit_id]

    def _refill(self, now: int) -> None:
        for bucket in (self._requests, self._tokens):
            if bucket is not None:
                bucket.refill(now)


def _part(limit: int | None, share: float) -> int | None:
    # Rounded first, for 0.29 of 100 is a little less than 29 in floating point.
    return None if limit is None else math.floor(round(limit * share, 6))


def _bucket(per_minute: int | None, capacity: int, now: int) -> Bucket | None:
    return Bucket(per_minute=per_minute, capacity=capacity, now=now) if per_minute else None


def _wait(bucket: Bucket | None, units: int) -> int:
    """Return how long to wait for so many units; what the share never holds may be had again from the limiter."""
    if bucket is None or units > bucket.capacity:
        return round(AWAY_SECONDS * _SECOND)
    return bucket.wait(units)


def _remaining(bucket: Bucket | None) -> int:
    return 0 if bucket is None else bucket.remaining


def _untaken(decision: Permit | Denial, *, enough: bool) -> Permit | Denial:
    """Return what a decision is worth whose permit was given back at once."""
    if isinstance(decision, Denial):
        return decision
    if not enough:
        return Denial(model=decision.model, reason=DenialReason.MIN_NOT_MET)
    return Permit(permit_id="", model=decision.model, lease_seconds=decision.lease_seconds)
