"""One model's gate: its rates, its concurrency, its retries, its breaker and its provider's wish to be left alone, judged together.

`obstacles` changes nothing that was not due; `enter` takes what a call needs, and `undo` puts it back as if it had never been taken.
"""

from dataclasses import dataclass

from services.limiter.adaptive import AdaptiveConcurrency
from services.limiter.breaker import Breaker
from services.limiter.leases import Leases
from services.limiter.limits import SECOND, ModelLimits
from services.limiter.obstacle import Obstacle, Uniform
from services.limiter.rates import RateCharges, Rates
from services.models.bucket import UNIT, Bucket, Charge
from services.models.permits import (
    AttemptKind,
    BreakerSnapshot,
    BreakerState,
    CallResult,
    DenialReason,
    LimitLevel,
    ModelState,
    OverrideMode,
    PermitOutcome,
    PermitSpec,
)
from services.models.rate_limit_headers import remaining_of

LONGEST_BACKOFF_SECONDS = 120.0
"""Cap on a wait that a provider asked for."""
LONGEST_OWN_BACKOFF_SECONDS = 60
"""Cap on the doubling wait where a provider throttled and named none."""
_SET_BACKS = frozenset({CallResult.FAILURE, CallResult.TIMEOUT, CallResult.THROTTLED})


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """What one call took at the gate."""

    rates: RateCharges
    retry: Charge | None
    generation: int
    probe: bool


class ModelGate:
    """All that decides whether one model may be called; all times are microseconds on the caller's clock."""

    def __init__(self, model: str, limits: ModelLimits, now: int, uniform: Uniform) -> None:
        """Start with full buckets and a closed breaker."""
        self.model = model
        self._limits = limits
        self._uniform = uniform
        self._scope = f"model/{model}"
        self._breaker = Breaker(limits.breaker, now, uniform)
        self._rates = Rates(self._scope, limits, now)
        self._retries = Bucket(per_minute=limits.retries_per_minute, capacity=limits.retries_per_minute, now=now)
        self._adaptive = AdaptiveConcurrency(limits.concurrency)
        self._leases = Leases()
        self._backoff_until = 0
        self._throttles = 0
        self._override: OverrideMode | None = None
        self._override_until = 0
        self._ticked: int | None = None
        self._shadow: dict[DenialReason, int] = {}

    @property
    def metrics_only(self) -> bool:
        """Whether obstacles are only counted."""
        return self._override is OverrideMode.METRICS_ONLY or (self._limits.metrics_only and self._override is not OverrideMode.FORCED_OPEN)

    def follow(self, limits: ModelLimits, now: int) -> None:
        """Go by other limits from now on; levels, leases and the breaker's state stay."""
        self._rates.follow(limits, now)
        if limits.retries_per_minute != self._limits.retries_per_minute:
            self._retries.resize(per_minute=limits.retries_per_minute, capacity=limits.retries_per_minute, now=now)
        self._adaptive.follow(limits.concurrency)
        if not limits.adaptive_concurrency:
            self._adaptive.limit = limits.concurrency
        self._breaker.follow(limits.breaker)
        self._limits = limits

    def tick(self, now: int) -> None:
        """Let time have its effect; it has none twice at the same time, as a batch asks for it."""
        if now == self._ticked:
            return
        self._ticked = now
        if self._override is not None and now >= self._override_until:
            self._override = None
            self._breaker.begin_anew()
        self._breaker.tick(now)
        self._rates.refill(now)
        self._retries.refill(now)

    def obstacles(self, spec: PermitSpec, now: int) -> list[Obstacle]:
        """Return everything that stands against a call. Call `tick` before."""
        found = self._rates.obstacles(spec.input_tokens + spec.max_output_tokens)
        if self._override is OverrideMode.FORCED_OPEN:
            found.append(Obstacle(DenialReason.FORCED_OPEN, self._override_until - now, f"{self._scope}/override"))
        if self._backoff_until > now:
            found.append(Obstacle(DenialReason.PROVIDER_BACKOFF, self._backoff_until - now, f"{self._scope}/provider_backoff"))
        if self._override is not OverrideMode.DISABLED and (wait := self._breaker.wait(now)) > 0:
            found.append(Obstacle(DenialReason.BREAKER_OPEN, wait, f"{self._scope}/breaker"))
        if len(self._leases) >= (places := self._places()):
            free_at = self._leases.next_place(places)
            found.append(Obstacle(DenialReason.CONCURRENCY, max(1, free_at - now), f"{self._scope}/concurrency", places, 0))
        if spec.attempt_kind is not AttemptKind.FIRST and (wait := self._retries.wait(1)) > 0:
            found.append(Obstacle(DenialReason.RETRY_BUDGET, wait, f"{self._scope}/retries", self._retries.rate, self._retries.remaining))
        return found

    def enter(self, permit_id: str, spec: PermitSpec, lease_end: int, *, charge: bool) -> ModelEntry:
        """Take what a call needs; nothing of the buckets where it would have been denied, for then it would not have been made."""
        self._leases.hold(permit_id, lease_end)
        retry = charge and spec.attempt_kind is not AttemptKind.FIRST
        return ModelEntry(
            self._rates.take(spec.input_tokens + spec.max_output_tokens) if charge else RateCharges(None, None),
            self._retries.take(1) if retry else None,
            self._breaker.generation,
            charge and self._override is not OverrideMode.DISABLED and self._breaker.admit(permit_id, lease_end),
        )

    def commit(self, spec: PermitSpec, would_have_denied: DenialReason | None) -> None:
        """Note that a call which has entered is made for certain."""
        if would_have_denied is not None:
            self._shadow[would_have_denied] = self._shadow.get(would_have_denied, 0) + 1
        if spec.attempt_kind is AttemptKind.FIRST:
            self._retries.add(round(self._limits.retry_share * UNIT))

    def undo(self, permit_id: str, entry: ModelEntry) -> None:
        """Give back everything that a call took: it was never made."""
        self._leases.free(permit_id)
        self._breaker.give_back(permit_id)
        self._rates.undo(entry.rates)
        if entry.retry is not None:
            self._retries.refund(entry.retry, 1)

    def extend(self, permit_id: str, lease_end: int) -> None:
        """Hold a call's place longer."""
        self._leases.hold(permit_id, lease_end)
        self._breaker.extend(permit_id, lease_end)

    def lapse(self, permit_id: str, lease_end: int) -> None:
        """Free the place of a call whose lease ended; what it reserved stays taken, since it may have been used."""
        self._leases.free(permit_id)
        self._breaker.lapse(permit_id, lease_end)

    def settle(self, entry: ModelEntry, outcome: PermitOutcome, used: int | None, now: int) -> None:
        """Take a report of a call that was held into account. Call `tick` before."""
        in_flight = len(self._leases)
        self._leases.free(outcome.permit_id)
        # A provider goes on for a while after a caller has left, so the reservation of a cancelled call stays taken.
        self._rates.settle(entry.rates, used, refund=outcome.result is not CallResult.CANCELLED)
        left = remaining_of(outcome.rate_limit_headers)
        self._rates.lower(left.requests, left.tokens)
        self._heed(outcome, now)
        if self._limits.adaptive_concurrency:
            if outcome.result is CallResult.SUCCESS:
                self._adaptive.succeed(in_flight)
            elif outcome.result in _SET_BACKS:
                self._adaptive.set_back(now)
        if self._override is OverrideMode.DISABLED:
            self._breaker.give_back(outcome.permit_id)
        else:
            self._breaker.record(
                outcome.permit_id,
                entry.generation,
                outcome.result,
                latency_seconds=outcome.latency_seconds,
                retry_after_seconds=_capped(outcome.retry_after_seconds),
                now=now,
            )
        if self._breaker.ramp is not None and self._breaker.ramp >= self._limits.concurrency:
            self._breaker.ramp = None

    def settle_late(self, entry: ModelEntry, used: int | None) -> None:
        """Take a report into account that came after its lease: only what was used beyond the reservation is still charged. Call `tick` before."""
        self._rates.settle(entry.rates, used, refund=False)

    def override(self, mode: OverrideMode | None, until: int) -> None:
        """Put an operator's word above limits and breaker, or lift it."""
        if mode is None and self._override is None:
            return
        self._override = mode
        self._override_until = until
        self._breaker.begin_anew()

    def state(self, now: int) -> ModelState:
        """Return everything as it stands. Call `tick` before."""
        places = self._places()
        concurrency = LimitLevel(
            name="concurrency", limit=self._limits.concurrency, remaining=max(0, places - len(self._leases)), effective=min(self._limits.concurrency, places)
        )
        retries = LimitLevel(name="retries", limit=self._retries.rate, remaining=self._retries.remaining, effective=self._retries.rate)
        calls, failures, slow = self._breaker.counts(now)
        opened = self._breaker.state is BreakerState.OPEN
        return ModelState(
            model=self.model,
            limits=(*self._rates.levels(), concurrency, retries),
            in_flight=len(self._leases),
            breaker=BreakerSnapshot(
                state=self._breaker.state,
                generation=self._breaker.generation,
                open_for_seconds=max(0, self._breaker.open_until - now) / SECOND if opened else None,
                open_count=self._breaker.open_count,
                probes=self._breaker.probes,
                window_calls=calls,
                window_failures=failures,
                window_slow=slow,
            ),
            provider_backoff_seconds=(self._backoff_until - now) / SECOND if self._backoff_until > now else None,
            override=self._override,
            override_seconds=None if self._override is None else (self._override_until - now) / SECOND,
            metrics_only=self._limits.metrics_only,
            would_have_denied=dict(self._shadow),
        )

    def _places(self) -> int:
        """Calls that may be under way at once: the limit, or fewer while a breaker that has just closed or the provider's signs keep it lower."""
        places = self._limits.concurrency if self._breaker.ramp is None else min(self._limits.concurrency, self._breaker.ramp)
        return min(places, self._adaptive.limit) if self._limits.adaptive_concurrency else places

    def _heed(self, outcome: PermitOutcome, now: int) -> None:
        """Leave the provider alone for as long as it asked, or for a doubling while where it throttled without naming a time."""
        if outcome.result is CallResult.SUCCESS:
            self._throttles = 0
        if outcome.result is not CallResult.THROTTLED:
            return
        self._throttles += 1
        asked = _capped(outcome.retry_after_seconds)
        if asked is not None:
            wait = round(asked * SECOND)
        else:
            wait = int(min(2 ** min(self._throttles - 1, 16), LONGEST_OWN_BACKOFF_SECONDS) * SECOND * self._uniform(1.0, 1.2))
        self._backoff_until = max(self._backoff_until, now + wait)


def _capped(retry_after_seconds: float | None) -> float | None:
    return None if retry_after_seconds is None else min(retry_after_seconds, LONGEST_BACKOFF_SECONDS)
