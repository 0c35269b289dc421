"""Requests and tokens a minute, of one model or one tenant."""

from dataclasses import dataclass

from services.limiter.limits import RateLimits
from services.limiter.obstacle import Obstacle
from services.models.bucket import Bucket, Charge
from services.models.permits import DenialReason, LimitLevel


@dataclass(frozen=True, slots=True)
class RateCharges:
    """What one call took of both."""

    requests: Charge | None
    tokens: Charge | None


class Rates:
    """Two buckets, either of which may be missing; all times are microseconds on the caller's clock."""

    def __init__(self, scope: str, limits: RateLimits, now: int) -> None:
        """Start full; the scope is the first part of the limits' names, for example "model/careful"."""
        self._scope = scope
        self._requests: Bucket | None = None
        self._tokens: Bucket | None = None
        self.follow(limits, now)

    def follow(self, limits: RateLimits, now: int) -> None:
        """Go by other limits from now on; levels stay, as far as they fit."""
        self._requests = _resized(self._requests, limits.requests_per_minute, limits.request_capacity, now)
        self._tokens = _resized(self._tokens, limits.tokens_per_minute, limits.tokens_per_minute or 0, now)

    def refill(self, now: int) -> None:
        """Let time have its effect."""
        if self._requests is not None:
            self._requests.refill(now)
        if self._tokens is not None:
            self._tokens.refill(now)

    def obstacles(self, tokens: int) -> list[Obstacle]:
        """Return what stands against one request of so many tokens. Call `refill` before."""
        found = []
        requests, bucket = self._requests, self._tokens
        if bucket is not None and tokens > bucket.capacity:
            # No wait makes a bucket larger.
            found.append(Obstacle(DenialReason.TOO_LARGE, None, f"{self._scope}/tokens_per_minute", bucket.capacity, bucket.remaining))
        elif bucket is not None and (wait := bucket.wait(tokens)) > 0:
            found.append(Obstacle(DenialReason.TOKENS, wait, f"{self._scope}/tokens_per_minute", bucket.rate, bucket.remaining))
        if requests is not None and (wait := requests.wait(1)) > 0:
            found.append(Obstacle(DenialReason.REQUESTS, wait, f"{self._scope}/requests_per_minute", requests.rate, requests.remaining))
        return found

    def take(self, tokens: int) -> RateCharges:
        """Take what a call needs."""
        return RateCharges(None if self._requests is None else self._requests.take(1), None if self._tokens is None else self._tokens.take(tokens))

    def undo(self, charges: RateCharges) -> None:
        """Give back what a call took that was never made."""
        if self._requests is not None and charges.requests is not None:
            self._requests.refund(charges.requests, 1)
        if self._tokens is not None and charges.tokens is not None:
            self._tokens.refund(charges.tokens, charges.tokens.units)

    def settle(self, charges: RateCharges, used: int | None, *, refund: bool) -> None:
        """Charge what a call used beyond its reservation, or, where that is wanted, give back what it did not use; None is not known."""
        if self._tokens is None or charges.tokens is None or used is None:
            return
        reserved = charges.tokens.units
        if used > reserved:
            self._tokens.take(used - reserved)
        elif refund:
            self._tokens.refund(charges.tokens, reserved - used)

    def lower(self, requests: int | None, tokens: int | None) -> None:
        """Leave at most so much: the provider says that there is no more."""
        if self._requests is not None and requests is not None:
            self._requests.lower(requests)
        if self._tokens is not None and tokens is not None:
            self._tokens.lower(tokens)

    def levels(self) -> list[LimitLevel]:
        """Return both as they stand. Call `refill` before."""
        return [
            LimitLevel(name=name, limit=bucket.rate, remaining=bucket.remaining, effective=bucket.rate)
            for name, bucket in (("requests_per_minute", self._requests), ("tokens_per_minute", self._tokens))
            if bucket is not None
        ]


def _resized(bucket: Bucket | None, rate: int | None, capacity: int, now: int) -> Bucket | None:
    if rate is None:
        return None
    if bucket is None:
        return Bucket(per_minute=rate, capacity=capacity, now=now)
    if (bucket.rate, bucket.capacity) != (rate, capacity):
        bucket.resize(per_minute=rate, capacity=capacity, now=now)
    return bucket
