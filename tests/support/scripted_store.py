"""A store over a ledger in memory that is down, slow or at odds with what it is asked, as it is told; and one that stands guard over it."""

import asyncio
from collections.abc import Sequence
from itertools import count
from typing import Any

from services.limiter.guarded_store import DownPolicies, GuardedStore
from services.limiter.ledger import Ledger
from services.limiter.limits import Limits, ModelLimits, TenantLimits
from services.limiter.memory_store import MemoryStore
from services.limiter.store import StoreDown
from services.models.permits import (
    AcquireReply,
    AcquireRequest,
    CallResult,
    Denial,
    LimiterState,
    ModelState,
    OverrideMode,
    Permit,
    PermitOutcome,
    PermitSpec,
    Renewal,
    Settlement,
)
from tests.support.driven_ledger import least

LIMITS = Limits(
    models={
        "m": ModelLimits(requests_per_minute=60, request_burst=8, tokens_per_minute=1000, concurrency=6),
        "free": ModelLimits(concurrency=40),
        "narrow": ModelLimits(concurrency=1),
    },
    tenants={"t": TenantLimits(budget_per_day=1000), "rich": TenantLimits(), "few": TenantLimits(requests_per_minute=60, request_burst=2)},
)


class ScriptedStore:
    """Satisfies `services.limiter.store.Store`."""

    def __init__(self, ledger: Ledger) -> None:
        """Take the ledger that decides while the store is up."""
        self._inner = MemoryStore(ledger)
        self.ledger = ledger
        self.down = False
        """Whether every call fails."""
        self.loses_replies = False
        """Whether every call is done and fails then."""
        self.gate: asyncio.Event | None = None
        """What each call waits for before it is answered or fails; None where it does not wait."""
        self.error: Exception | None = None
        """What every call fails with while the store is up."""
        self.asked: list[str] = []
        """The name of each call."""
        self.followed: list[Limits] = []
        self.closed = False

    async def acquire(self, request: AcquireRequest) -> AcquireReply:
        """Decide a batch."""
        await self._begin("acquire")
        reply = await self._inner.acquire(request)
        self._end()
        return reply

    async def report(self, outcomes: Sequence[PermitOutcome]) -> tuple[Settlement, ...]:
        """Settle permits."""
        await self._begin("report")
        settlements = await self._inner.report(outcomes)
        self._end()
        return settlements

    async def renew(self, permit_ids: Sequence[str], lease_seconds: float) -> tuple[Renewal, ...]:
        """Extend leases."""
        await self._begin("renew")
        renewals = await self._inner.renew(permit_ids, lease_seconds)
        self._end()
        return renewals

    async def release(self, permit_ids: Sequence[str]) -> tuple[Settlement, ...]:
        """Give permits back."""
        await self._begin("release")
        settlements = await self._inner.release(permit_ids)
        self._end()
        return settlements

    async def override(self, model: str, mode: OverrideMode | None, seconds: float) -> ModelState:
        """Set or lift an override."""
        await self._begin("override")
        state = await self._inner.override(model, mode, seconds)
        self._end()
        return state

    async def state(self, models: Sequence[str] = (), tenants: Sequence[str] = ()) -> LimiterState:
        """Tell the state."""
        await self._begin("state")
        state = await self._inner.state(models, tenants)
        self._end()
        return state

    async def follow(self, limits: Limits) -> None:
        """Go by other limits."""
        await self._begin("follow")
        await self._inner.follow(limits)
        self.followed.append(limits)
        self._end()

    async def aclose(self) -> None:
        """Note that it was let go of."""
        self.closed = True

    async def _begin(self, name: str) -> None:
        self.asked.append(name)
        if self.gate is not None:
            await self.gate.wait()
        if self.down:
            raise StoreDown("as told")
        if self.error is not None:
            raise self.error

    def _end(self) -> None:
        if self.loses_replies:
            raise StoreDown("the reply was lost")


class Guarded:
    """A guarded store with its clock in the hand of the test."""

    def __init__(self, limits: Limits = LIMITS, **policies: Any) -> None:
        self.now = 1000.0
        self.store = ScriptedStore(Ledger(limits, clock=lambda: self.now, uniform=least))
        self.guarded = GuardedStore(self.store, limits, DownPolicies(**policies), clock=lambda: self.now, uniform=least)
        self._names = count()

    async def reply(self, *specs: PermitSpec | str, request_id: str = "", **request: Any) -> AcquireReply:
        """Ask for a batch."""
        batch = tuple(PermitSpec(model=spec) if isinstance(spec, str) else spec for spec in specs)
        return await self.guarded.acquire(AcquireRequest(request_id=request_id or f"r{next(self._names)}", specs=batch, **request))

    async def reasons(self, *specs: PermitSpec | str, **request: Any) -> list[str]:
        """Ask for a batch; tell in short what became of it."""
        return [one.reason.value if isinstance(one, Denial) else "granted" for one in (await self.reply(*specs, **request)).decisions]

    async def grant(self, spec: PermitSpec | str = "m", **request: Any) -> str:
        """Ask for one that must be granted."""
        (decision,) = (await self.reply(spec, **request)).decisions
        assert isinstance(decision, Permit), decision
        return decision.permit_id

    async def report(self, *permit_ids: str) -> tuple[Settlement, ...]:
        """Report successes."""
        return await self.guarded.report([PermitOutcome(permit_id=permit, result=CallResult.SUCCESS) for permit in permit_ids])
