"""A ledger in memory and a store in Redis that do everything together, and must say the same at each step."""

from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from itertools import count
from typing import Any, TypeVar

from redis.asyncio import Redis

from services.chassis.errors import InvalidInput
from services.limiter.ledger import Ledger
from services.limiter.limits import Limits
from services.models.permits import AcquireRequest, CallResult, OverrideMode, Permit, PermitOutcome, PermitSpec
from tests.support.redis_stores import middle, numbered, set_clock, timed_store

Value = TypeVar("Value")
Run = Callable[[Coroutine[Any, Any, Any]], Any]
Pair = tuple[str, str]
"""A permit's id in the ledger, and in Redis."""

_pools = count()


class Lockstep:
    """Both stores, with one clock; `run` waits for a coroutine."""

    def __init__(self, client: Redis, limits: Limits, run: Run, *, begin: float) -> None:
        """Start both at a time, in seconds since 1970."""
        self.now = begin
        self._run = run
        self._client = client
        self._pool = f"pool-{next(_pools)}"
        self._names = count()
        self._looked = begin
        self._longest_leap = limits.rules.longest_lease_seconds
        self.ledger = Ledger(limits, clock=lambda: self.now, wall_clock=lambda: self.now, uniform=middle, new_id=numbered())
        run(set_clock(client, self._pool, begin))
        self.store = timed_store(client, limits, self._pool)
        run(self.store.prepare())

    def acquire(self, specs: tuple[PermitSpec, ...], **request: Any) -> list[Pair]:
        """Ask for permits; where some are granted, ask again, and ask for other specs in the same name."""
        asked = AcquireRequest(request_id=f"r{next(self._names)}", specs=specs, **request)
        granted = self._acquire(asked)
        if granted:
            self._acquire(asked)
            other = replace(asked, specs=(*specs, *specs[:1]))
            refusals = [_refused(lambda: self.ledger.acquire(other)), _refused(lambda: self._run(self.store.acquire(other)))]
            assert refusals == ["request_id"] * 2
        return granted

    def report(self, permit: Pair, result: CallResult, headers: Mapping[str, str] | None = None, **told: Any) -> None:
        """Report a permit, whatever has become of it."""
        ours, theirs = (PermitOutcome(permit_id=one, result=result, rate_limit_headers=headers or {}, **told) for one in permit)
        assert self.ledger.report([ours]) == self._run(self.store.report([theirs]))

    def release(self, permit: Pair) -> None:
        """Give a permit back, whatever has become of it."""
        assert self.ledger.release(permit[:1]) == self._run(self.store.release(permit[1:]))

    def renew(self, permit: Pair, seconds: float) -> None:
        """Hold a permit longer, whatever has become of it."""
        (ours,), (theirs,) = self.ledger.renew(permit[:1], seconds), self._run(self.store.renew(permit[1:], seconds))
        assert ours.lease_seconds == theirs.lease_seconds

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        # The store's clock makes no greater leap than the longest lease between two looks at it; the ledger's is not to be doubted.
        if self.now + seconds - self._looked > self._longest_leap:
            self.agree()
        self.now += seconds
        self._run(set_clock(self._client, self._pool, self.now))

    def override(self, model: str, mode: OverrideMode | None, seconds: float) -> None:
        """Let an operator say something."""
        assert self.ledger.override(model, mode, seconds) == self._run(self.store.override(model, mode, seconds))

    def follow(self, limits: Limits) -> None:
        """Change the limits."""
        self.ledger.follow(limits)
        self._run(self.store.follow(limits))

    def agree(self) -> None:
        """Check that levels, leases, breakers, budgets, overrides and what was counted are the same."""
        self._looked = self.now
        assert self.ledger.state() == self._run(self.store.state())

    def _acquire(self, asked: AcquireRequest) -> list[Pair]:
        ours, theirs = self.ledger.acquire(asked), self._run(self.store.acquire(asked))
        assert [_nameless(one) for one in ours.decisions] == [_nameless(one) for one in theirs.decisions]
        assert ours.config_version == theirs.config_version
        pairs = zip(ours.decisions, theirs.decisions, strict=True)
        return [(one.permit_id, other.permit_id) for one, other in pairs if isinstance(one, Permit) and isinstance(other, Permit) and one.permit_id]


def _nameless(decision: object) -> object:
    return replace(decision, permit_id="*" if decision.permit_id else "") if isinstance(decision, Permit) else decision


def _refused(ask: Callable[[], object]) -> str:
    try:
        ask()
    except InvalidInput as refusal:
        return refusal.violations[0].field
    return "taken"
